"""The event log: append, numbers without gaps, and how far each reader has come.

May be imported by `ledger`, `sessions`, `audit` and the expirer.
"""

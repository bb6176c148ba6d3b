"""The event log: appending, numbering without gaps, and the position of each reader.

May be imported by `ledger`, `sessions`, `audit`, `broker` and the expirer.
"""

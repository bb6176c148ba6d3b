"""The self-audit: the rules that the ledger, its log and the seat maps must keep, and the verdict of the last round.

May be imported by the API and the expirer.
"""

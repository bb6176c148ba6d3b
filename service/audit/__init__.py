"""The self-audit: what must be true of the ledger, its log and the maps, and what the last round found.

May be imported by the API and the expirer.
"""

"""The second door to the ledger: the process that gives unpaid seats back. Imports `service`, never its HTTP."""

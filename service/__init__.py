"""Rowlock's ledger of seats, and its HTTP door in `service.api`."""

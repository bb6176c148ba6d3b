"""Rowlock's ledger of seats, and its HTTP door in `service.api`."""

VERSION = "0.1.0"

"""Rowlock's ledger of seats, and its HTTP door in `service.api`. `VERSION` may be imported by every process."""

VERSION = "0.1.0"

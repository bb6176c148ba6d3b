"""`make bench`: holds a second beside the limits of this machine and beside the obvious way to write such a service."""

"""Tools for developers: servers on loopback, demo data, `make run`, generated pages. Not part of the service."""

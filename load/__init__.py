"""Measurements of the whole product, each a command that starts its own servers. README.md explains their results."""

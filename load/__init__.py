"""Measurements of the whole product on servers of their own, each a command; README.md says what they show."""

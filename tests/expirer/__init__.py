"""Tests of what the product has under this name."""

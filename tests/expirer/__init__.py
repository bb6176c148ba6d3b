"""Tests of the product's package of this name."""

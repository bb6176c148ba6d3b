"""Tests of the campaign's checker, without servers: histories that are good, and what spoils them."""

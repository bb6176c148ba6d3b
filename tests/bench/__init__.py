"""Tests of `make bench` without servers: its load generator, and which rounds count."""

"""Dashboards and alerts: `make monitoring`."""

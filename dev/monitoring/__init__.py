"""Dashboards and alerts as code; `python -m dev.monitoring` writes them into the chart."""

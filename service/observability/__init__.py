"""Logs, traces and metrics.

May be imported by every package, and imports none of them.
"""

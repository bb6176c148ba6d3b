"""Logs, traces and metrics. Any package may import it, and it imports only the bottom modules."""

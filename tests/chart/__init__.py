"""The chart, rendered by helm without a cluster."""

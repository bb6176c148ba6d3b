"""The chart, rendered by helm: no cluster is needed."""

"""Rowlock in a real Kubernetes: `make e2e`."""

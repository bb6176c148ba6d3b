"""What the service tells Prometheus: names and meaning in `catalogue`, the port in `exposition`."""

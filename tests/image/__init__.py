"""The image and the product in containers: `make image`, which needs a Docker engine."""

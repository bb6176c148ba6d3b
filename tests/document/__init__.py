"""The OpenAPI document in the hands of other programs. `make workflows` runs these tests."""

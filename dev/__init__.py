"""What developing needs: a PostgreSQL of one's own, demo data, and `make run`. Not part of the service."""

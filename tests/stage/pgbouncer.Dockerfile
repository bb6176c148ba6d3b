# PgBouncer of Debian 13, for tests on machines whose own is older.
FROM python:3.13-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends pgbouncer \
 && rm -rf /var/lib/apt/lists/*

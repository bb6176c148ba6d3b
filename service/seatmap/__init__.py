"""The seat map: its copy in Redis, its reads from PostgreSQL, and the encoding of its bytes.

May be imported by `sessions`, `audit`, the API and the expirer.
"""

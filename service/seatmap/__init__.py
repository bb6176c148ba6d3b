"""The seat map: its copy in Redis, the reads from PostgreSQL, and its encoding.

May be imported by `sessions`, `audit`, the API and the expirer.
"""

"""Who may come in: rate limits.

May be imported by the API.
"""

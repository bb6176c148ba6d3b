"""Admission of requests: rate limits.

May be imported by the API.
"""

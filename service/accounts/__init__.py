"""Accounts: sign-up, sign-in, passwords, delays after failures, and tokens.

May be imported by the API and the expirer's keeper.
"""

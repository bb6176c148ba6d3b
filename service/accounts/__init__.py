"""Accounts: sign-up, sign-in, passwords, delays after failures, and tokens.

May be imported by the API, `service.make_manager` and the expirer's keeper.
"""

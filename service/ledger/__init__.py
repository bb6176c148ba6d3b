"""The two writes: make a hold, end a hold. The only code that locks or changes seats and reservations.

May be imported by the API, the audit, the expirer and `sessions`.
"""

"""The expirer: the process that releases unpaid seats and publishes events. Imports `service`, never its HTTP.

May be imported by no other package; its loops use `lease` and `thread`.
"""

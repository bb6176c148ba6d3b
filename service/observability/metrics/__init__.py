"""The metrics for Prometheus: their names in `catalogue`, their port in `exposition`, their use in `recording`.

May be imported by every package.
"""

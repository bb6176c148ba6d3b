"""The expirer's loops, one file each; each `step()` does one bounded batch and returns how long to wait.

May be imported by `expirer.wiring`.
"""

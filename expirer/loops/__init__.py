"""The expirer's loops, a file a loop; each `step()` does one bounded batch and returns how long to wait.

May be imported by `expirer.wiring`.
"""

"""The operator's commands: `python -m expirer parked` and `python -m expirer cursors`.

May be imported by `expirer.__main__`.
"""

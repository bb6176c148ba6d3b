"""How long to wait before the next try of something that keeps failing.

May be imported by every package; imports none.
"""

import random

DOUBLINGS_MAX = 16
"""Beyond this every caller's longest delay is reached; it keeps the power small after thousands of failures."""


def delay_after(failures: int, first: float, longest: float, *, jitter: bool = False) -> float:
    """The delay after this many failures in a row, in the unit of `first`: doubled with each one, up to `longest`.

    With jitter it is between half of that and all of it, so that callers that failed together do not meet again.
    """
    delay = min(first * 2.0 ** min(failures - 1, DOUBLINGS_MAX), longest)
    return random.uniform(delay / 2, delay) if jitter else delay  # noqa: S311 - nothing secret

"""How long a sign-in waits after wrong passwords."""

import asyncio

from service.backoff import delay_after
from service.observability.metrics import catalogue

FORGIVEN_FAILURES = 3
"""So many wrong passwords in a row cost nothing; each further one doubles the delay, from DELAY_MS on."""
DELAY_MS = 100
DELAYED_MAX = 1_000


class Delays:
    """How long a sign-in waits after failures of its address: `delay_ms_max` at most, and DELAYED_MAX wait at once.

    The right password waits as long and then gets in, so nobody can lock somebody else out. Beyond DELAYED_MAX nobody
    waits here: more than one thread can check are refused by its queue anyway.
    """

    def __init__(self, delay_ms_max: int) -> None:
        self._delay_ms_max = delay_ms_max
        self._delayed = 0
        # Shown at 0 from the start, too.
        self._shown = catalogue.SIGN_INS_DELAYED.of()

    async def wait(self, failures: int) -> None:
        """Returns after the delay for so many failures."""
        if failures <= FORGIVEN_FAILURES or self._delayed >= DELAYED_MAX:
            return
        self._delayed += 1
        try:
            with self._shown.track_inprogress():
                await asyncio.sleep(self.delay_ms(failures) / 1000)
        finally:
            self._delayed -= 1

    def delay_ms(self, failures: int) -> int:
        """Doubles with each failure that is not forgiven."""
        return round(delay_after(failures - FORGIVEN_FAILURES, DELAY_MS, self._delay_ms_max))

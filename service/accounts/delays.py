"""How long a sign-in waits after wrong passwords."""

import asyncio

from service.backoff import delay_after
from service.observability.metrics import catalogue

FORGIVEN_FAILURES = 3
"""Wrong passwords in a row without a delay. Each further one doubles the delay, which begins with DELAY_MS."""
DELAY_MS = 100
DELAYED_MAX = 1_000


class Delays:
    """How long a sign-in waits after failures of its address: at most `delay_ms_max`.

    The right password waits as long and then succeeds, so failures can't lock a customer out. At most `delayed_max`
    sign-ins wait here; the others go on at once, and are bounded by the queue for password checks.
    """

    def __init__(self, delay_ms_max: int, delayed_max: int = DELAYED_MAX) -> None:
        self._delay_ms_max = delay_ms_max
        self._delayed_max = delayed_max
        self._delayed = 0
        # So that the gauge shows 0 from the start.
        self._shown = catalogue.SIGN_INS_DELAYED.of()

    async def wait(self, failures: int) -> None:
        """Returns after the delay for this number of failures."""
        if failures <= FORGIVEN_FAILURES or self._delayed >= self._delayed_max:
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

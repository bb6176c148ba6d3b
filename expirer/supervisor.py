"""Runs loops side by side: each repeats a bounded step, survives its failures, and shows when it last finished one."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from service.backoff import delay_after
from service.errors import Unavailable
from service.observability.failures import Failures, kind_of
from service.observability.metrics import catalogue

BACKOFF_SECONDS = 0.5
BACKOFF_SECONDS_MAX = 2.0
"""What was away is back at work within this time of its return."""

log = structlog.stdlib.get_logger("rowlock.expirer")

Step = Callable[[], Awaitable[float]]
"""Does one bounded batch and returns how many seconds to wait before the next; 0 after a full batch."""


@dataclass(slots=True)
class Supervisor:
    """The loops by name. `beats` has the monotonic time at which each loop's next step is due."""

    steps: dict[str, Step]
    beats: dict[str, float] = field(default_factory=dict)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    wakes: dict[str, asyncio.Event] = field(default_factory=dict)

    async def run(self) -> None:
        """Returns when `stop` was called and the steps at hand are finished."""
        async with asyncio.TaskGroup() as group:
            for name in self.steps:
                self.beats[name] = time.monotonic()
                self.wakes[name] = asyncio.Event()
                group.create_task(self._loop(name))

    def stop(self) -> None:
        """Begins no further step."""
        self.stopping.set()
        self.wake(*self.wakes)

    def wake(self, *names: str) -> None:
        """Ends the wait of these loops before its time; one that is in a step begins the next without a wait."""
        for name in names:
            if name in self.wakes:
                self.wakes[name].set()

    def silent(self, seconds_max: float) -> list[str]:
        """The loops that have not finished a step, not even by failing, for longer after it was due."""
        now = time.monotonic()
        return [name for name, beat in self.beats.items() if now - beat > seconds_max]

    async def _loop(self, name: str) -> None:
        failures = Failures()
        while not self.stopping.is_set():
            structlog.contextvars.clear_contextvars()
            structlog.contextvars.bind_contextvars(loop=name, batch_id=f"{random.getrandbits(32):08x}")
            try:
                with catalogue.STEP_SECONDS.of(name).time():
                    wait_seconds = await self.steps[name]()
                tell_step(failures, None, time.monotonic())
                catalogue.STEP_FINISHED.of(name).set_to_current_time()
            except Exception as error:  # noqa: BLE001 - a loop outlives whatever ends a step
                catalogue.STEP_FAILURES.of(name).inc()
                tell_step(failures, error, time.monotonic())
                wait_seconds = delay_after(failures.count, BACKOFF_SECONDS, BACKOFF_SECONDS_MAX, jitter=True)
            self.beats[name] = time.monotonic() + wait_seconds
            # New work is no reason to try sooner what has just failed.
            await self._pause(self.stopping if failures.count else self.wakes[name], wait_seconds)
            self.wakes[name].clear()

    async def _pause(self, end: asyncio.Event, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(end.wait(), seconds)


def tell_step(failures: Failures, error: Exception | None, now: float) -> None:
    """Tells how a loop's step has ended, where that is news; a defect with where it happened."""
    if error is None:
        if facts := failures.end(now):
            log.info("step works again", **facts)
    elif facts := failures.note(kind_of(error), now):
        if isinstance(error, Unavailable):
            log.warning("step failed", **facts, error=described(error))
        else:
            log.error("step failed", **facts, error=described(error), exc_info=error)


def described(error: Exception) -> str:
    """With its cause, unless it quotes that itself."""
    cause = error.__cause__
    return repr(error) if cause is None or type(cause).__name__ in str(error) else f"{error!r}: {cause!r}"

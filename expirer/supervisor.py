"""Runs loops side by side: each repeats a bounded step, survives failures, and records when it last finished one."""

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
"""A loop resumes within this time after its store is back."""

log = structlog.stdlib.get_logger("rowlock.expirer")

Step = Callable[[], Awaitable[float]]
"""Does one bounded batch and returns how many seconds to wait before the next; 0 after a full batch."""


async def pause(end: asyncio.Event, seconds: float) -> None:
    """Waits for the event, at most this long."""
    with suppress(TimeoutError):
        await asyncio.wait_for(end.wait(), seconds)


@dataclass(slots=True)
class Supervisor:
    """The loops by name. `beats` has the time by the clock at which each loop's next step is due.

    `spacing` has the shortest time between the beginnings of two steps of a loop, unless the first did a full batch:
    then much that comes at short intervals is one batch.
    """

    steps: dict[str, Step]
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[asyncio.Event, float], Awaitable[None]] = pause
    beats: dict[str, float] = field(default_factory=dict)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    wakes: dict[str, asyncio.Event] = field(default_factory=dict)
    spacing: dict[str, float] = field(default_factory=dict)

    async def run(self) -> None:
        """Returns when `stop` was called and the current steps are finished."""
        async with asyncio.TaskGroup() as group:
            for name in self.steps:
                self.beats[name] = self.clock()
                self.wakes[name] = asyncio.Event()
                group.create_task(self._loop(name))

    def stop(self) -> None:
        """Lets no further step begin."""
        self.stopping.set()
        self.wake(*self.wakes)

    def wake(self, *names: str) -> None:
        """Ends the wait of these loops early. A loop in a step begins the next one without a wait."""
        for name in names:
            if name in self.wakes:
                self.wakes[name].set()

    def silent(self, seconds_max: float) -> list[str]:
        """The loops whose next step is overdue by more than this: none has finished or failed since."""
        now = self.clock()
        return [name for name, beat in self.beats.items() if now - beat > seconds_max]

    async def _loop(self, name: str) -> None:
        failures = Failures()
        while not self.stopping.is_set():
            began = self.clock()
            structlog.contextvars.clear_contextvars()
            structlog.contextvars.bind_contextvars(loop=name, batch_id=f"{random.getrandbits(32):08x}")
            try:
                with catalogue.STEP_SECONDS.of(name).time():
                    wait_seconds = await self.steps[name]()
                report_step(failures, None, self.clock())
                catalogue.STEP_FINISHED.of(name).set_to_current_time()
            except Exception as error:  # noqa: BLE001 - a loop outlives whatever ends a step
                catalogue.STEP_FAILURES.of(name).inc()
                report_step(failures, error, self.clock())
                wait_seconds = delay_after(failures.count, BACKOFF_SECONDS, BACKOFF_SECONDS_MAX, jitter=True)
            self.beats[name] = self.clock() + wait_seconds
            await self._pause_after(name, began, wait_seconds, is_failing=failures.count > 0)

    async def _pause_after(self, name: str, began: float, wait_seconds: float, *, is_failing: bool) -> None:
        due = self.beats[name]
        if wait_seconds and (linger := min(began + self.spacing.get(name, 0), due) - self.clock()) > 0:
            await self.pause(self.stopping, linger)
            wait_seconds = max(0, due - self.clock())
        # New work is no reason to retry a failed step sooner.
        await self.pause(self.stopping if is_failing else self.wakes[name], wait_seconds)
        self.wakes[name].clear()


def report_step(failures: Failures, error: Exception | None, now: float) -> None:
    """Logs the end of a step where it is news: a failure or a recovery. A defect is logged with its traceback."""
    if error is None:
        if facts := failures.end(now):
            log.info("step works again", **facts)
    elif facts := failures.note(kind_of(error), now):
        if isinstance(error, Unavailable):
            log.warning("step failed", **facts, error=described(error))
        else:
            log.error("step failed", **facts, error=described(error), exc_info=error)


def described(error: Exception) -> str:
    """The error with its cause, unless its text has that already."""
    cause = error.__cause__
    return repr(error) if cause is None or type(cause).__name__ in str(error) else f"{error!r}: {cause!r}"

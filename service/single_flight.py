"""Work that concurrent callers share, and work of which only a few run at the same time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import structlog

from service.errors import Busy, BusyReason

FLIGHTS_MAX = 10_000
"""Different works of one kind at the same time. A process does not have as many requests."""

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
log = structlog.stdlib.get_logger("rowlock.single_flight")


class SingleFlight(Generic[K, T]):
    """Runs one work at a time for each key. All callers that ask while it runs get its result, or its failure.

    The work goes on when its callers are cancelled. Beyond `flights_max` works a new one is refused with Busy.
    """

    def __init__(self, what: str, flights_max: int = FLIGHTS_MAX) -> None:
        self._what = what
        self._flights_max = flights_max
        self._flights: dict[K, asyncio.Task[T]] = {}

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of the work that runs for this key; of `work` where none runs. Raises what that work raises."""
        return await asyncio.shield(self.start(key, work))

    def start(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """As `run`, for a caller that does not wait until the end. Raises Busy."""
        task = self._flights.get(key)
        if task is None:
            if len(self._flights) >= self._flights_max:
                raise Busy(BusyReason.SHARED_WORK)
            task = self._flights[key] = asyncio.create_task(work())
            task.add_done_callback(lambda done: self._land(key, done))
        return task

    async def drain(self) -> None:
        """Returns when no work runs."""
        while self._flights:
            await asyncio.wait(list(self._flights.values()))

    def _land(self, key: K, task: asyncio.Task[T]) -> None:
        del self._flights[key]
        # A failure is raised in every caller. All of them may have gone, so it is recorded here too.
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("shared work failed", what=self._what, key=str(key), error=repr(error))


class Turns:
    """At most `at_once_max` works at the same time; a work waits at most `wait_seconds` for its turn."""

    def __init__(self, at_once_max: int, wait_seconds: float) -> None:
        self._places = asyncio.Semaphore(at_once_max)
        self._wait_seconds = wait_seconds

    @asynccontextmanager
    async def take(self, reason: BusyReason) -> AsyncIterator[None]:
        """The block is one work. Raises Busy with `reason` before the block, where no turn comes in time."""
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._places.acquire()
        except TimeoutError:
            raise Busy(reason) from None
        try:
            yield
        finally:
            self._places.release()

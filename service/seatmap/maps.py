"""A session's seats with their states, as somebody sees them who chooses one: from Redis, or from PostgreSQL.

No write ever reads this. What never changes of a seat is remembered in the process; the states come as one byte a seat.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypeVar

import structlog
from cachetools import LRUCache, TTLCache
from sqlalchemy.ext.asyncio import AsyncEngine

from service.cache import Cache
from service.errors import Busy, BusyReason, CacheAway
from service.observability.metrics import catalogue, recording
from service.seatmap.cached import SeatCache
from service.seatmap.encoding import Freshness
from service.seatmap.stored import Layout, SeatReads
from service.settings import Settings

LAYOUT_SEATS_MAX = 500_000
RECENT_SEATS_MAX = 10_000_000
SHARE_SECONDS = 0.01
"""So long a map that was just read from Redis answers other requests too; `asOf` stays true of it."""
BUILD_LOCK_MS = 10_000
BUILD_POLL_SECONDS = 0.02

T = TypeVar("T")
Source = Literal["redis", "postgresql"]
log = structlog.stdlib.get_logger("rowlock.seatmap")


@dataclass(frozen=True, slots=True)
class SeatMap:
    """`states` has a letter a seat, by position: A, H or S, at least as new as `as_of`, which was `age_ms` ago."""

    layout: Layout
    states: bytes
    source: Source
    as_of: datetime
    age_ms: int


@dataclass(frozen=True, slots=True)
class Seen:
    """States as they were read: `as_of` was `age_ms` before `at`, by the event loop's clock."""

    history: str
    states: bytes
    source: Source
    as_of: datetime
    age_ms: int
    at: float


class SeatMaps:
    """One per process. `cache` is None where there is no Redis."""

    def __init__(self, engine: AsyncEngine, cache: Cache | None, settings: Settings) -> None:
        self._reads = SeatReads(engine, settings)
        self._cache = SeatCache(cache, settings.map_fresh_ms, settings.map_keep_minutes) if cache else None
        self._wait_seconds = settings.map_wait_ms / 1000
        self._layouts: LRUCache[int, Layout] = LRUCache(LAYOUT_SEATS_MAX, getsizeof=lambda layout: len(layout.seat_ids))
        self._cached = _recent(SHARE_SECONDS)
        self._stored = _recent(settings.map_read_interval_ms / 1000)
        self._flights: dict[tuple[str, int], asyncio.Task[Any]] = {}

    async def get(self, session_id: int) -> SeatMap:
        """The map. Raises NotFound, Busy, DatabaseAway."""
        clock = asyncio.get_running_loop().time
        for read in (self._from_cache, self._from_database, self._from_database):
            if (seen := await read(session_id)) is None:
                continue
            layout = await self._layout(session_id, seen.history)
            if layout.history == seen.history:
                age_ms = seen.age_ms + round((clock() - seen.at) * 1000)
                recording.map_given(seen.source, age_ms)
                return SeatMap(layout, seen.states, seen.source, seen.as_of, age_ms)
            self._stored.pop(session_id, None)
        # PostgreSQL was restarted between the two reads, again and again.
        raise Busy(BusyReason.MAP_REPLACED)

    async def counts(self, session_ids: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Seats held and sold of those sessions whose map in Redis is complete and fresh."""
        try:
            return await self._cache.read_counts(session_ids) if self._cache else {}
        except CacheAway:
            return {}

    async def drain(self) -> None:
        """Returns when nothing is read or built any more, which each has a time for."""
        while self._flights:
            await asyncio.wait(list(self._flights.values()))

    async def _layout(self, session_id: int, history: str) -> Layout:
        """The layout in this history, or in another one if that has begun meanwhile."""
        layout = self._layouts.get(session_id)
        if layout is None or layout.history != history:
            layout = self._layouts[session_id] = await self._once("layout", session_id, self._reads.layout)
        return layout

    async def _from_cache(self, session_id: int) -> Seen | None:
        """The complete map, built if it is not there; None where nothing in Redis is fresh, or it takes too long."""
        if self._cache is None:
            return None
        if (seen := self._cached.get(session_id)) is not None:
            return seen
        try:
            return await self._once("cached", session_id, partial(self._read_cached, self._cache))
        except CacheAway:
            return None

    async def _read_cached(self, cache: SeatCache, session_id: int) -> Seen | None:
        at = asyncio.get_running_loop().time()
        freshness, states = await cache.read(session_id)
        if freshness is not None and states is None:
            layout = await self._layout(session_id, freshness.history)
            building = self._flight("build", session_id, partial(self._build, cache, freshness, layout))
            await asyncio.wait([building], timeout=self._wait_seconds)
            at = asyncio.get_running_loop().time()
            freshness, states = await cache.read(session_id)
        if freshness is None or states is None:
            return None
        seen = Seen(freshness.history, states, "redis", freshness.as_of, freshness.age_ms, at)
        self._cached[session_id] = seen
        return seen

    async def _build(self, cache: SeatCache, freshness: Freshness, layout: Layout, session_id: int) -> None:
        """Makes the map where nobody else does; waits for it where somebody does."""
        epoch, token = freshness.epoch, secrets.token_hex(8)
        outcome = "abandoned"
        try:
            if not await cache.try_lock(epoch, session_id, token, BUILD_LOCK_MS):
                await self._wait_for_map(cache, session_id)
                return
            try:
                # First the map, then the read: the other way round a change between the two would be lost.
                if await cache.begin(epoch, session_id, len(layout.seat_ids), token, layout.ends_at_ms):
                    history, changes = await self._reads.changed(session_id)
                    is_ours = history == layout.history == freshness.history
                    if is_ours and await cache.fill(epoch, session_id, changes, token):
                        await cache.finish(epoch, session_id, token)
                        outcome = "built"
            finally:
                catalogue.MAP_BUILDS.of(outcome).inc()
                await cache.unlock(epoch, session_id, token)
        except CacheAway as error:
            log.info("seat map not built", session_id=session_id, error=repr(error))

    async def _wait_for_map(self, cache: SeatCache, session_id: int) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._wait_seconds
        while clock() < deadline:
            await asyncio.sleep(BUILD_POLL_SECONDS)
            _, states = await cache.read(session_id)
            if states is not None:
                return

    async def _from_database(self, session_id: int) -> Seen:
        if (seen := self._stored.get(session_id)) is None:
            seen = await self._once("stored", session_id, self._read_stored)
        return seen

    async def _read_stored(self, session_id: int) -> Seen:
        history, states, as_of, at = await self._reads.states(session_id)
        seen = self._stored[session_id] = Seen(history, states, "postgresql", as_of, 0, at)
        return seen

    async def _once(self, what: str, session_id: int, work: Callable[[int], Coroutine[Any, Any, T]]) -> T:
        """What the work returns, which is done once for all who ask meanwhile."""
        return await asyncio.shield(self._flight(what, session_id, work))

    def _flight(self, what: str, session_id: int, work: Callable[[int], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        key = what, session_id
        if (task := self._flights.get(key)) is None:
            task = self._flights[key] = asyncio.create_task(work(session_id))
            task.add_done_callback(lambda done: self._land(key, done))
        return task

    def _land(self, key: tuple[str, int], task: asyncio.Task[Any]) -> None:
        del self._flights[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("seat map work failed", what=key[0], session_id=key[1], error=repr(error))


def _recent(seconds: float) -> TTLCache[int, Seen]:
    """What was read within the last seconds, by session."""
    return TTLCache(RECENT_SEATS_MAX, seconds, getsizeof=lambda seen: len(seen.states))

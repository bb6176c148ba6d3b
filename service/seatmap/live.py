"""The maps in Redis as one process reads them: shared for a moment, and built where they are missing."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from service.cache import Cache
from service.errors import CacheAway
from service.seatmap.building import MapBuilder, build
from service.seatmap.cached import SeatCache
from service.seatmap.encoding import Counts, Freshness
from service.seatmap.seen import Seen, recent
from service.seatmap.stored import Layout, SeatReads
from service.settings import Settings
from service.single_flight import SingleFlight

SHARE_SECONDS = 0.01
"""A map that was just read from Redis answers other requests for this long; its `asOf` stays true."""
BUILD_POLL_SECONDS = 0.02

log = structlog.stdlib.get_logger("rowlock.seatmap")


class LiveMaps:
    """One per process. `find_layout` returns a session's layout in a history."""

    def __init__(
        self,
        cache: Cache,
        reads: SeatReads,
        find_layout: Callable[[int, str], Awaitable[Layout]],
        settings: Settings,
        share_seconds: float = SHARE_SECONDS,
    ) -> None:
        self._cache = SeatCache(cache, settings.map_fresh_ms)
        self._builder = MapBuilder(cache, settings.map_keep_minutes)
        self._reads = reads
        self._find_layout = find_layout
        self._wait_seconds = settings.map_wait_ms / 1000
        self._recent = recent(share_seconds)
        self._reading: SingleFlight[int, Seen | None] = SingleFlight("seat map")
        self._building: SingleFlight[int, None] = SingleFlight("seat map")

    async def read(self, session_id: int) -> Seen | None:
        """The complete map, built where it is missing; None where no map is fresh, or the build takes too long."""
        if (seen := self._recent.get(session_id)) is not None:
            return seen
        try:
            return await self._reading.run(session_id, lambda: self._read(session_id))
        except CacheAway:
            return None

    async def counts(self, session_ids: Sequence[int]) -> dict[int, Counts]:
        """The counts of the sessions whose map is complete and fresh."""
        try:
            return await self._cache.read_counts(session_ids)
        except CacheAway:
            return {}

    async def drain(self) -> None:
        """Returns when no map is read or built."""
        await self._reading.drain()
        await self._building.drain()

    async def _read(self, session_id: int) -> Seen | None:
        clock = asyncio.get_running_loop().time
        at = clock()
        freshness, states = await self._cache.read(session_id)
        if freshness is not None and states is None:
            await self._try_build(freshness, session_id)
            at = clock()
            freshness, states = await self._cache.read(session_id)
        if freshness is None or states is None:
            return None
        layout = await self._find_layout(session_id, freshness.history)
        if layout.history == freshness.history and len(layout.seat_ids) != len(states):
            await self._cache.forget_damaged(freshness.epoch, session_id)
        seen = Seen(freshness.history, states, "redis", freshness.as_of, freshness.age_ms, at)
        self._recent[session_id] = seen
        return seen

    async def _try_build(self, freshness: Freshness, session_id: int) -> None:
        """Returns when the map is built, or has failed, or after `map_wait_ms`; the build goes on then."""
        layout = await self._find_layout(session_id, freshness.history)
        building = self._building.start(session_id, lambda: self._build(freshness, layout, session_id))
        await asyncio.wait([building], timeout=self._wait_seconds)

    async def _build(self, freshness: Freshness, layout: Layout, session_id: int) -> None:
        """Builds the map, or waits for the process that builds it."""
        try:
            if not await build(self._builder, self._reads, freshness, layout, session_id):
                await self._wait_for_map(session_id)
        except CacheAway as error:
            log.info("seat map not built", session_id=session_id, error=repr(error))

    async def _wait_for_map(self, session_id: int) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._wait_seconds
        while clock() < deadline:
            await asyncio.sleep(BUILD_POLL_SECONDS)
            _, states = await self._cache.read(session_id)
            if states is not None:
                return

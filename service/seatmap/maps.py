"""A session's seats with their states, for customers who choose a seat: from Redis, or from PostgreSQL.

No write reads this. The layout is remembered in the process; the states are one byte a seat.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cachetools import LRUCache
from sqlalchemy.ext.asyncio import AsyncEngine

from service.cache import Cache
from service.errors import Busy, BusyReason
from service.observability.metrics import recording
from service.seatmap.encoding import Counts
from service.seatmap.live import SHARE_SECONDS, LiveMaps
from service.seatmap.seen import Seen, Source, recent
from service.seatmap.stored import Layout, SeatReads
from service.settings import Settings
from service.single_flight import SingleFlight

LAYOUT_SEATS_MAX = 500_000


@dataclass(frozen=True, slots=True)
class SeatMap:
    """`states` has a letter a seat, by position: A, H or S, at least as new as `as_of`, which was `age_ms` ago."""

    layout: Layout
    states: bytes
    source: Source
    as_of: datetime
    age_ms: int


class SeatMaps:
    """One per process. Without Redis there is no `cache`."""

    def __init__(
        self, engine: AsyncEngine, cache: Cache | None, settings: Settings, share_seconds: float = SHARE_SECONDS
    ) -> None:
        self._reads = SeatReads(engine, settings)
        self._live = LiveMaps(cache, self._reads, self._layout, settings, share_seconds) if cache else None
        self._layouts: LRUCache[int, Layout] = LRUCache(LAYOUT_SEATS_MAX, getsizeof=lambda layout: len(layout.seat_ids))
        self._stored = recent(settings.map_read_interval_ms / 1000)
        self._reading_layouts: SingleFlight[int, Layout] = SingleFlight("seat map")
        self._reading_states: SingleFlight[int, Seen] = SingleFlight("seat map")

    async def get(self, session_id: int) -> SeatMap:
        """The map. Raises NotFound, Busy, DatabaseAway."""
        clock = asyncio.get_running_loop().time
        for read in (self._from_redis, self._from_postgresql, self._from_postgresql):
            if (seen := await read(session_id)) is None:
                continue
            layout = await self._layout(session_id, seen.history)
            if layout.history == seen.history:
                age_ms = seen.age_ms + round((clock() - seen.at) * 1000)
                recording.map_given(seen.source, age_ms)
                return SeatMap(layout, seen.states, seen.source, seen.as_of, age_ms)
            self._stored.pop(session_id, None)
        # PostgreSQL was restarted between the two reads, twice.
        raise Busy(BusyReason.MAP_REPLACED)

    async def counts(self, session_ids: Sequence[int]) -> dict[int, Counts]:
        """The counts of the sessions whose map in Redis is complete and fresh."""
        return await self._live.counts(session_ids) if self._live else {}

    async def drain(self) -> None:
        """Returns when no map is read or built; each of these ends by a timeout."""
        if self._live:
            await self._live.drain()
        await self._reading_states.drain()
        await self._reading_layouts.drain()

    async def _layout(self, session_id: int, history: str) -> Layout:
        """The layout in this history, or in a newer one."""
        layout = self._layouts.get(session_id)
        if layout is None or layout.history != history:
            layout = await self._reading_layouts.run(session_id, lambda: self._reads.layout(session_id))
            self._layouts[session_id] = layout
        return layout

    async def _from_redis(self, session_id: int) -> Seen | None:
        return await self._live.read(session_id) if self._live else None

    async def _from_postgresql(self, session_id: int) -> Seen:
        if (seen := self._stored.get(session_id)) is None:
            seen = await self._reading_states.run(session_id, lambda: self._read_states(session_id))
        return seen

    async def _read_states(self, session_id: int) -> Seen:
        history, states, as_of, at = await self._reads.states(session_id)
        seen = self._stored[session_id] = Seen(history, states, "postgresql", as_of, 0, at)
        return seen

"""Brings the log's changes to the seat maps in Redis, and says how fresh they are. It creates no map: readers do.

One replica does it at a time, under the lease of its cursor. No transaction is open while Redis is talked to.
"""

import time

import orjson
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer import lease
from service.cache import Cache
from service.database import roll_back, transaction
from service.events import cursors
from service.events import log as event_log
from service.events.log import Logged
from service.observability import tracing
from service.observability.metrics import recording
from service.reservation import SeatState
from service.seatmap.encoding import STATE_OF, Change
from service.seatmap.stored import read_history
from service.seatmap.updating import MapUpdates
from service.settings import Settings

CURSOR = "cache"


class Projector:
    """`owner` is this process, for the lease."""

    def __init__(self, engine: AsyncEngine, cache: Cache, settings: Settings, owner: str) -> None:
        self._engine = engine
        self._cache = MapUpdates(cache, settings.map_fresh_ms)
        self._settings = settings
        self._owner = owner
        self._tried = 0

    @tracing.batched("projector", "bring event to the cache", "consumer")
    async def step(self) -> float:
        """Applies one batch, renews the watermark if that was all, moves the cursor; seconds to wait.

        Raises CacheAway, and whatever a transaction raises; then the batch is applied once more.
        """
        settings = self._settings
        began = time.perf_counter()
        clock = await self._cache.clock()
        async with transaction(self._engine) as connection:
            held = await cursors.look_at_lease(connection, CURSOR, self._owner, settings.lease_ms)
            number = held.number
            if number is not None:
                epoch = f"{await read_history(connection)}/{clock.run}"
                as_of, events = await event_log.read_committed(connection, number, settings.projector_batch_max)
            if not held.has_written:
                await roll_back(connection)
        if number is None:
            return settings.projector_interval_ms / 1000
        if clock.place_epoch == epoch and clock.place < number:
            # The cursor was dropped, and made again at the end: nobody has applied what is between.
            await self._cache.begin_epoch()
            return 0
        numbered = [event.number for event in events if event.number is not None]
        # What has no number yet comes once more, with one.
        tracing.note_tried([number for number in numbered if number <= self._tried])
        tracing.note_members({event.number: event.traceparent for event in events if event.number is not None})
        self._tried = max([self._tried, *numbered])
        is_all = len(numbered) < settings.projector_batch_max > len(events) - len(numbered)
        async with lease.kept(self._engine, CURSOR, self._owner, settings):
            await self._cache.apply(epoch, changes_by_session(events))
            if numbered or clock.place_epoch != epoch:
                await self._cache.note_place(epoch, numbered[-1] if numbered else number)
            if is_all:
                await self._cache.renew(epoch, as_of, clock.ms)
        if numbered:
            async with transaction(self._engine) as connection:
                await cursors.move_cursor(connection, CURSOR, self._owner, number, numbered[-1])
        recording.batch_done("projector", len(numbered), time.perf_counter() - began)
        return settings.projector_interval_ms / 1000 if is_all else 0

    async def close(self) -> None:
        """Lets another replica carry on at once."""
        async with transaction(self._engine) as connection:
            await cursors.release_lease(connection, CURSOR, self._owner)


def changes_by_session(events: list[Logged]) -> dict[int, list[Change]]:
    """The changes of seats in the order of the events."""
    changes: dict[int, list[Change]] = {}
    for event in events:
        seats = orjson.loads(event.seats)
        if seats:
            changes.setdefault(event.session_id, []).extend(
                Change(seat["position"], STATE_OF[SeatState(seat["state"])], seat["version"]) for seat in seats
            )
    return changes

"""Applies the changes in the log to the seat maps in Redis, and records how fresh they are. Readers create the maps.

One replica does it at a time, under the lease of its cursor. No transaction is open during a call to Redis.
"""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime

import orjson
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer import lease
from service.cache import Cache
from service.database import snapshot, transaction
from service.events import cursors
from service.events import log as event_log
from service.events.log import Logged
from service.observability import tracing
from service.observability.metrics import recording
from service.reservation import SeatState
from service.seatmap.encoding import STATE_OF, Change, Clock
from service.seatmap.stored import read_history
from service.seatmap.updating import MapUpdates
from service.settings import Settings

CURSOR = "cache"


@dataclass(frozen=True, slots=True)
class Batch:
    """The log after the cursor's `number`: numbered events, then those without a number yet. `is_all` says
    that nothing else was committed at `as_of`.
    """

    epoch: str
    number: int
    as_of: datetime
    events: list[Logged]
    is_all: bool

    @property
    def numbers(self) -> list[int]:
        """Of the numbered events."""
        return [event.number for event in self.events if event.number is not None]

    @property
    def last_number(self) -> int:
        """Where the cursor is after the batch."""
        return max(self.numbers, default=self.number)


class Projector:
    """`owner` is this process, for the lease."""

    def __init__(self, engine: AsyncEngine, cache: Cache, settings: Settings, owner: str) -> None:
        self._engine = engine
        self._cache = MapUpdates(cache, settings.map_fresh_ms)
        self._settings = settings
        self._owner = owner
        # At rest the watermark must be renewed long before it is too old.
        self._interval_seconds = min(settings.projector_interval_ms, settings.map_fresh_ms / 3) / 1000
        self._tried = 0

    @tracing.batched("projector", "bring event to the cache", "consumer")
    async def step(self) -> float:
        """Applies one batch, renews the watermark if that was all, moves the cursor; seconds to wait.

        Raises CacheAway and the errors of a transaction. Then the batch is applied again.
        """
        began = time.perf_counter()
        clock = await self._cache.clock()
        batch = await self._read_batch(clock)
        if batch is None:
            return lease.standby_seconds(self._settings)
        if clock.place_epoch == batch.epoch and clock.place < batch.number:
            # The cursor was dropped and created again at the end: no projector has applied the events between.
            await self._cache.begin_epoch()
            return 0
        self._note_members(batch)
        # Without events there is nothing that takes longer than a lease.
        keeping = lease.kept(self._engine, CURSOR, self._owner, self._settings) if batch.events else nullcontext()
        async with keeping:
            await self._apply(batch, clock)
        if batch.numbers:
            async with snapshot(self._engine) as connection:
                await cursors.move_cursor(connection, CURSOR, self._owner, batch.number, batch.last_number)
        recording.batch_done("projector", len(batch.numbers), time.perf_counter() - began)
        return self._interval_seconds if batch.is_all else 0

    async def _read_batch(self, clock: Clock) -> Batch | None:
        """None while another replica has the lease."""
        batch_max = self._settings.projector_batch_max
        async with snapshot(self._engine) as connection:
            # Before the look: what is committed at its moment must be in the maps of this epoch.
            epoch = f"{await read_history(connection)}/{clock.run}"
            found = await cursors.look(connection, CURSOR, self._owner, self._settings.lease_ms)
            if found is None:
                return None
            number = found.number
            if not (found.has_numbered or found.has_unnumbered):
                return Batch(epoch, number, found.as_of, [], is_all=True)
            as_of, events = await event_log.read_committed(connection, number, batch_max)
        numbered = sum(event.number is not None for event in events)
        return Batch(epoch, number, as_of, events, max(numbered, len(events) - numbered) < batch_max)

    def _note_members(self, batch: Batch) -> None:
        """For the traces. An event without a number is applied again once it has one, and belongs to that batch."""
        tracing.note_tried([number for number in batch.numbers if number <= self._tried])
        tracing.note_members({event.number: event.traceparent for event in batch.events if event.number is not None})
        self._tried = max([self._tried, *batch.numbers])

    async def _apply(self, batch: Batch, clock: Clock) -> None:
        await self._cache.apply(batch.epoch, changes_by_session(batch.events))
        if batch.numbers or clock.place_epoch != batch.epoch:
            await self._cache.note_place(batch.epoch, batch.last_number)
        if batch.is_all:
            await self._cache.renew(batch.epoch, batch.as_of, clock.ms)

    async def close(self) -> None:
        """Releases the lease, so that another replica continues at once."""
        async with transaction(self._engine) as connection:
            await cursors.release_lease(connection, CURSOR, self._owner)


def changes_by_session(events: list[Logged]) -> dict[int, list[Change]]:
    """The changes of seats by session, in the order of the events."""
    changes: dict[int, list[Change]] = {}
    for event in events:
        seats = orjson.loads(event.seats)
        if seats:
            changes.setdefault(event.session_id, []).extend(
                Change(seat["position"], STATE_OF[SeatState(seat["state"])], seat["version"]) for seat in seats
            )
    return changes

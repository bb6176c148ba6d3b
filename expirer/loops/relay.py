"""Publishes the log to RabbitMQ, in its order and at least once, and a hint of each new hold.

One replica does it at a time, under the lease of its cursor. No transaction is open while RabbitMQ is talked to.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer import lease
from expirer.thread import Thread
from service.broker.messages import Hint
from service.broker.publisher import Published, Publisher
from service.database import roll_back, transaction
from service.errors import BrokerAway
from service.events import cursors
from service.events import log as event_log
from service.events.log import Logged
from service.observability import tracing
from service.observability.failures import Failures
from service.observability.metrics import catalogue, recording
from service.settings import Settings

CURSOR = "broker"
REFUSED_BACKOFF_SECONDS = 0.5
REFUSED_BACKOFF_SECONDS_MAX = 4.0

log = structlog.stdlib.get_logger("rowlock.relay")


class Relay:
    """`owner` is this process, for the lease."""

    def __init__(self, engine: AsyncEngine, settings: Settings, owner: str) -> None:
        self._engine = engine
        self._settings = settings
        self._owner = owner
        self._publisher = Publisher(settings)
        self._thread = Thread("relay")
        self._refusals = Failures()
        self._drops = Failures()
        self._tried = 0
        self._batch_max = settings.relay_batch_max

    @tracing.batched("relay", "publish event", "producer")
    async def step(self) -> float:
        """Publishes one batch and moves the cursor after its confirms; seconds to wait, 0 after a full batch.

        Raises BrokerAway, and whatever a transaction raises; then the batch is published once more.
        """
        settings = self._settings
        began = time.perf_counter()
        batch_max = self._batch_max
        async with transaction(self._engine) as connection:
            held = await cursors.look_at_lease(connection, CURSOR, self._owner, settings.lease_ms)
            number = held.number
            events: list[Logged] = []
            if number is not None:
                events = await event_log.read_numbered(connection, number, batch_max)
            if not held.has_written:
                await roll_back(connection)
        if number is None or not events:
            await self._thread.run(self._publisher.keep_alive)
            return settings.relay_interval_ms / 1000
        published = await self._publish(events)
        if published.events:
            async with transaction(self._engine) as connection:
                last = events[published.events - 1].number
                assert last is not None
                await cursors.move_cursor(connection, CURSOR, self._owner, number, last)
        catalogue.EVENTS_PUBLISHED.of().inc(published.events)
        recording.batch_done("relay", published.events, time.perf_counter() - began)
        if published.events < len(events):
            tracing.note_failed([event.number for event in events[published.events :]], "refused")
            return self._back_off(events[published.events])
        if facts := self._refusals.end(time.monotonic()):
            log.info("the queues bound to rowlock.events take messages again", **facts)
        self._batch_max = min(2 * batch_max, settings.relay_batch_max)
        return 0 if len(events) == batch_max else settings.relay_interval_ms / 1000

    async def close(self) -> None:
        """Lets another replica carry on at once."""
        await self._thread.run(self._publisher.close)
        self._thread.close()
        await self._release()

    async def _publish(self, events: Sequence[Logged]) -> Published:
        """With the hints of the new holds among them."""
        numbers = [e.number for e in events if e.number is not None]
        tracing.note_tried([number for number in numbers if number <= self._tried])
        tracing.note_members({event.number: event.traceparent for event in events})
        self._tried = max([self._tried, *numbers])
        events = [
            replace(e, traceparent=made) if (made := tracing.traceparent_of(e.number)) is not None else e
            for e in events
        ]
        hints = [
            Hint(e.reservation_id, e.expires_at, e.due_in_ms, e.traceparent)
            for e in events
            if e.reservation_id and e.expires_at
        ]
        try:
            async with lease.kept(self._engine, CURSOR, self._owner, self._settings):
                with catalogue.CONFIRM_SECONDS.of().time():
                    published = await self._thread.run(self._publisher.publish, events, hints)
        except BrokerAway:
            # Another replica may reach RabbitMQ where this one can't.
            await self._release()
            raise
        if hints:
            self._note_hints(published.hints_dropped)
        return published

    def _note_hints(self, dropped: int) -> None:
        if dropped:
            catalogue.HINTS_DROPPED.of().inc(dropped)
            if facts := self._drops.note("dropped", time.monotonic()):
                log.warning("hints dropped; the sweep gives these seats back", count=dropped, **facts)
        elif facts := self._drops.end(time.monotonic()):
            log.info("no more hints are dropped", **facts)

    def _back_off(self, refused: Logged) -> float:
        catalogue.EVENTS_REFUSED.of().inc()
        # What a queue has refused is tried alone, and what follows it in few at first: a queue that is full and read
        # slowly takes one now and then, and each time the others get again whatever it has refused behind that one.
        self._batch_max = 1
        if facts := self._refusals.note("refused", time.monotonic()):
            log.error(
                "a queue bound to rowlock.events refuses messages: look for one that is full with reject-publish",
                number=refused.number,
                **facts,
            )
        doublings = min(self._refusals.count - 1, 10)
        return float(min(REFUSED_BACKOFF_SECONDS * 2**doublings, REFUSED_BACKOFF_SECONDS_MAX))

    async def _release(self) -> None:
        async with transaction(self._engine) as connection:
            await cursors.release_lease(connection, CURSOR, self._owner)

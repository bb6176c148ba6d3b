"""Publishes the log to RabbitMQ, in its order and at least once, and a hint of each new hold.

One replica does it at a time, under the lease of its cursor. No transaction is open during a call to RabbitMQ.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer import lease
from expirer.thread import Thread
from service.backoff import delay_after
from service.broker.messages import Hint
from service.broker.publisher import Published, Publisher
from service.database import snapshot, transaction
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

        Raises BrokerAway and the errors of a transaction. Then the batch is published again.
        """
        began = time.perf_counter()
        interval_seconds = self._settings.relay_interval_ms / 1000
        batch_max = self._batch_max
        number, events = await self._read_batch(batch_max)
        if number is None or not events:
            await self._thread.run(self._publisher.keep_alive)
            return lease.standby_seconds(self._settings) if number is None else interval_seconds
        published = await self._publish(events)
        await self._move_cursor(number, events[: published.events])
        catalogue.EVENTS_PUBLISHED.of().inc(published.events)
        recording.batch_done("relay", published.events, time.perf_counter() - began)
        if refused := events[published.events :]:
            tracing.note_failed([event.number for event in refused], "refused")
            return self._back_off(refused[0])
        if facts := self._refusals.end(time.monotonic()):
            log.info("the queues bound to rowlock.events accept messages again", **facts)
        self._batch_max = min(2 * batch_max, self._settings.relay_batch_max)
        return 0 if len(events) == batch_max else interval_seconds

    async def _read_batch(self, batch_max: int) -> tuple[int | None, list[Logged]]:
        """Where the cursor is, and the events after it. None and no events while another replica has the lease."""
        async with snapshot(self._engine) as connection:
            found = await cursors.look(connection, CURSOR, self._owner, self._settings.lease_ms)
            if found is None:
                return None, []
            if not found.has_numbered:
                return found.number, []
            return found.number, await event_log.read_numbered(connection, found.number, batch_max)

    async def _move_cursor(self, number: int, published: Sequence[Logged]) -> None:
        if published:
            last = published[-1].number
            assert last is not None
            async with snapshot(self._engine) as connection:
                await cursors.move_cursor(connection, CURSOR, self._owner, number, last)

    async def close(self) -> None:
        """Releases the lease, so that another replica continues at once."""
        await self._thread.run(self._publisher.close)
        self._thread.close()
        await self._release()

    async def _publish(self, events: Sequence[Logged]) -> Published:
        """Publishes the events, and a hint of each new hold among them."""
        self._note_members(events)
        events = [_traced(event) for event in events]
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

    def _note_members(self, events: Sequence[Logged]) -> None:
        """For the traces."""
        numbers = [event.number for event in events if event.number is not None]
        tracing.note_tried([number for number in numbers if number <= self._tried])
        tracing.note_members({event.number: event.traceparent for event in events})
        self._tried = max([self._tried, *numbers])

    def _note_hints(self, dropped: int) -> None:
        if dropped:
            catalogue.HINTS_DROPPED.of().inc(dropped)
            if facts := self._drops.note("dropped", time.monotonic()):
                log.warning("hints dropped; the sweep releases these seats", count=dropped, **facts)
        elif facts := self._drops.end(time.monotonic()):
            log.info("hints are accepted again", **facts)

    def _back_off(self, refused: Logged) -> float:
        catalogue.EVENTS_REFUSED.of().inc()
        # A refused event is retried alone, and the next batches are small at first. A full queue that is read slowly
        # accepts an event now and then, and each time the other queues get the rest of the refused batch again.
        self._batch_max = 1
        if facts := self._refusals.note("refused", time.monotonic()):
            log.error(
                "a queue bound to rowlock.events refuses messages: check for a full one with reject-publish",
                number=refused.number,
                **facts,
            )
        return delay_after(self._refusals.count, REFUSED_BACKOFF_SECONDS, REFUSED_BACKOFF_SECONDS_MAX)

    async def _release(self) -> None:
        async with transaction(self._engine) as connection:
            await cursors.release_lease(connection, CURSOR, self._owner)


def _traced(event: Logged) -> Logged:
    """The event with the trace of its publication, where that is traced."""
    made = tracing.traceparent_of(event.number)
    return event if made is None else replace(event, traceparent=made)

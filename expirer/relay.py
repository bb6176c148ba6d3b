"""Publishes the log to RabbitMQ, in its order and at least once, and a hint of each new hold.

One replica does it at a time, under the lease of its cursor. No transaction is open while RabbitMQ is talked to.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from service import eventlog
from service.broker.messages import Hint
from service.broker.publisher import Publisher
from service.database import transaction
from service.eventlog import Logged
from service.settings import Settings

CURSOR = "broker"
REFUSED_BACKOFF_SECONDS = 1.0

log = structlog.stdlib.get_logger("rowlock.relay")


class Relay:
    """`owner` is this process, for the lease."""

    def __init__(self, engine: AsyncEngine, settings: Settings, owner: str) -> None:
        self._engine = engine
        self._settings = settings
        self._owner = owner
        self._publisher = Publisher(settings)
        self._thread = ThreadPoolExecutor(1, "relay")

    async def step(self) -> float:
        """Publishes one batch and moves the cursor after its confirms; seconds to wait, 0 after a full batch.

        Raises BrokerAway, and whatever a transaction raises; then the batch is published once more.
        """
        settings = self._settings
        async with transaction(self._engine) as connection:
            number = await eventlog.take_lease(connection, CURSOR, self._owner, settings.lease_ms)
            events: list[Logged] = []
            if number is not None:
                events = await eventlog.read_numbered(connection, number, settings.relay_batch_max)
        if number is None or not events:
            return settings.relay_interval_ms / 1000
        hints = [Hint(e.reservation_id, e.expires_at) for e in events if e.reservation_id and e.expires_at]
        published = await asyncio.get_running_loop().run_in_executor(
            self._thread, self._publisher.publish, events, hints
        )
        if published.hints_dropped:
            log.warning("hints dropped; the sweep gives these seats back", count=published.hints_dropped)
        if published.events:
            async with transaction(self._engine) as connection:
                last = events[published.events - 1].number
                assert last is not None
                await eventlog.move_cursor(connection, CURSOR, self._owner, number, last)
        if published.events < len(events):
            log.error(
                "a queue bound to rowlock.events refuses messages: look for one that is full with reject-publish",
                number=events[published.events].number,
            )
            return REFUSED_BACKOFF_SECONDS
        return 0 if len(events) == settings.relay_batch_max else settings.relay_interval_ms / 1000

    async def close(self) -> None:
        """Lets another replica carry on at once."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._publisher.close)
        self._thread.shutdown()
        async with transaction(self._engine) as connection:
            await eventlog.release_lease(connection, CURSOR, self._owner)

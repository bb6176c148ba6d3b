"""Ends overdue holds as RabbitMQ's dead letters tell of them: punctual where the sweep only comes round.

A batch is one transaction, acknowledged after its COMMIT; after a crash between the two it is delivered again, and
there is nothing left to do for it.
"""

import asyncio
import time
from collections.abc import Sequence
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.thread import Thread
from service.broker.consumer import DeadLetters, Delivery
from service.database import roll_back, transaction
from service.errors import BrokerAway, Busy, Unavailable, concerns_all
from service.ledger.expiring import ONE_BY_ONE_SECONDS_MAX, settle_due
from service.observability import tracing
from service.observability.metrics import catalogue, recording
from service.settings import Settings

WAIT_MS = 500
RETRY_MS = 50

log = structlog.stdlib.get_logger("rowlock.inbox")


class Inbox:
    """Holds on to what it has taken until that is settled or parked, or the connection is lost."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._letters = DeadLetters(settings)
        self._thread = Thread("inbox")
        self._taken: list[Delivery] = []
        self._tried: set[UUID] = set()

    @tracing.batched("inbox", "settle dead letter", "consumer")
    async def step(self) -> float:
        """Takes a batch, settles it, acknowledges it; no seconds to wait: it waits for the next in RabbitMQ.

        Raises BrokerAway: then everything that was taken comes again, to whoever is there. Raises whatever says that
        PostgreSQL is in trouble: that is no message's fault, so they are kept, and nothing counts against them.
        """
        settings = self._settings
        try:
            if not self._taken:
                self._tried.clear()
                self._taken = await self._thread.run(
                    self._letters.take, settings.inbox_batch_max, settings.inbox_linger_ms, WAIT_MS
                )
            await self._settle_taken()
        except BrokerAway:
            self._taken = []
            raise
        except Unavailable as error:
            catalogue.INBOX_PAUSES.of().inc()
            self._note_kept(type(error).__name__)
            await self._keep_alive()
            raise
        self._note_kept("unsettled")
        return 0

    def _note_kept(self, why: str) -> None:
        self._tried = self._ids(self._taken)
        tracing.note_failed(self._tried, why)

    async def close(self) -> None:
        """Gives back what was taken."""
        await self._thread.run(self._letters.close)
        self._thread.close()

    async def _settle_taken(self) -> None:
        for delivery in [taken for taken in self._taken if taken.hint is None]:
            await self._park(delivery, "unreadable")
        if not self._taken:
            return
        tracing.note_tried(self._tried)
        tracing.note_members({d.hint.reservation_id: d.traceparent for d in self._taken if d.hint})
        try:
            expired = await self._settle(self._taken)
        except Exception as error:
            if concerns_all(error):
                raise
            # Whatever is wrong with one, the others' seats must come back.
            log.warning("batch failed, trying one by one", error=repr(error), count=len(self._taken))
            await self._settle_one_by_one()
        else:
            await self._done(self._taken)
            if expired:
                log.info("holds expired", count=expired, by="inbox")

    async def _settle(self, deliveries: Sequence[Delivery]) -> int:
        """How many holds it ended: those that are due, and that nobody else is at work on."""
        ids = self._ids(deliveries)
        with recording.expiry("inbox") as batch:
            async with transaction(self._engine) as connection:
                ended = await settle_due(connection, ids)
                if not ended.reservations:
                    await roll_back(connection)
            batch.reservations, batch.skipped = ended.reservations, ended.skipped
        return len(ended.reservations)

    async def _settle_one_by_one(self) -> None:
        """Those that fail are tried again when the others are done, and at last parked."""
        deadline = time.monotonic() + ONE_BY_ONE_SECONDS_MAX
        rounds = 0
        while self._taken:
            if rounds:
                await asyncio.sleep(RETRY_MS * 2 ** (rounds - 1) / 1000)
            rounds += 1
            for delivery in list(self._taken):
                if time.monotonic() > deadline:
                    return
                await self._settle_alone(delivery)

    async def _settle_alone(self, delivery: Delivery) -> None:
        try:
            await self._settle([delivery])
        except Exception as error:
            if concerns_all(error):
                raise
            if isinstance(error, Busy):
                # Somebody is at work on one of its seats, as with a hold that is locked itself.
                log.info("dead letter left to the sweep", reservation_id=delivery.reservation_id, error=repr(error))
                await self._done([delivery])
                return
            log.warning("dead letter failed", reservation_id=delivery.reservation_id, error=repr(error))
            delivery.failures += 1
            if delivery.failures >= self._settings.inbox_tries_max:
                await self._park(delivery, "failing")
        else:
            await self._done([delivery])

    async def _done(self, deliveries: Sequence[Delivery]) -> None:
        await self._thread.run(self._letters.acknowledge, deliveries)
        self._forget(deliveries)
        tracing.note_done(self._ids(deliveries))
        catalogue.DEAD_LETTERS.of("acknowledged").inc(len(deliveries))

    async def _park(self, delivery: Delivery, why: str) -> None:
        await self._thread.run(self._letters.park, delivery)
        self._forget([delivery])
        catalogue.DEAD_LETTERS.of(why).inc()
        tracing.note_failed(self._ids([delivery]), why)
        log.error("dead letter parked", why=why, reservation_id=delivery.reservation_id)

    @staticmethod
    def _ids(deliveries: Sequence[Delivery]) -> set[UUID]:
        return {delivery.hint.reservation_id for delivery in deliveries if delivery.hint}

    def _forget(self, deliveries: Sequence[Delivery]) -> None:
        gone = {id(delivery) for delivery in deliveries}
        self._taken = [taken for taken in self._taken if id(taken) not in gone]

    async def _keep_alive(self) -> None:
        try:
            await self._thread.run(self._letters.keep_alive)
        except BrokerAway:
            self._taken = []
            raise

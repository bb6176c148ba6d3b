"""Ends overdue holds as their dead letters arrive from RabbitMQ: on time, where the sweep runs at intervals.

A batch is one transaction, acknowledged after its COMMIT. After a crash between the two it is delivered again, and its
holds have ended already.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.thread import Thread
from service.backoff import delay_after
from service.broker.consumer import DeadLetters, Delivery
from service.database import roll_back, transaction
from service.errors import BrokerAway, Busy, Unavailable
from service.ledger.expiring import settle_due
from service.ledger.one_by_one import ONE_BY_ONE_SECONDS_MAX, in_turn, together_then_one_by_one
from service.observability import tracing
from service.observability.failures import Failures, kind_of
from service.observability.metrics import catalogue, recording
from service.settings import Settings

WAIT_MS = 500
RETRY_MS = 50
RETRY_MS_MAX = 1_600
PARKED = "dead letter parked"
"""A line of the log."""

log = structlog.stdlib.get_logger("rowlock.inbox")


class Inbox:
    """Keeps the messages that it has taken until they are settled or parked, or the connection is lost.

    Calls `ended` where it has ended holds.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._ended = ended
        self._engine = engine
        self._settings = settings
        self._letters = DeadLetters(settings)
        self._thread = Thread("inbox")
        self._taken: list[Delivery] = []
        self._tried: set[UUID] = set()
        self._news: defaultdict[str, Failures] = defaultdict(Failures)
        """By line of the log: a thousand bad letters of one kind are one line."""

    @tracing.batched("inbox", "settle dead letter", "consumer")
    async def step(self) -> float:
        """Takes a batch, settles it and acknowledges it. No seconds to wait: it waits for the next batch in RabbitMQ.

        Raises BrokerAway: then every message that was taken is delivered again, to any inbox. Raises errors of
        PostgreSQL too: then the messages are kept, and no failure is counted against them.
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
        """Returns the messages that were taken to the queue."""
        await self._thread.run(self._letters.close)
        self._thread.close()

    async def _settle_taken(self) -> None:
        unreadable = [taken for taken in self._taken if taken.hint is None]
        for delivery in unreadable:
            await self._park(delivery, "unreadable", str(delivery.fault), fault=str(delivery.fault))
        if not unreadable:
            self._note_quiet()
        if not self._taken:
            return
        tracing.note_tried(self._tried)
        tracing.note_members({d.hint.reservation_id: d.traceparent for d in self._taken if d.hint})
        await together_then_one_by_one(self._settle_together, self._settle_one_by_one)

    async def _settle_together(self) -> None:
        expired = await self._settle(self._taken)
        await self._done(self._taken)
        if expired:
            log.info("holds expired", count=expired, by="inbox")

    async def _settle(self, deliveries: Sequence[Delivery]) -> int:
        """How many holds it ended: those that are due and not locked by another transaction."""
        ids = self._ids(deliveries)
        with recording.expiry("inbox") as batch:
            async with transaction(self._engine) as connection:
                ended = await settle_due(connection, ids)
                if not ended.reservations:
                    await roll_back(connection)
            batch.reservations, batch.skipped = ended.reservations, ended.skipped
        if ended.reservations:
            self._ended()
        return len(ended.reservations)

    async def _settle_one_by_one(self, failure: Exception) -> None:
        """Messages that fail alone are retried after the others, and at last parked. A message must not keep the seats
        of the others.
        """
        log.warning("batch failed, trying one by one", error=repr(failure), count=len(self._taken))
        deadline = self._clock() + ONE_BY_ONE_SECONDS_MAX
        rounds = 0
        while self._taken and self._clock() <= deadline:
            if rounds:
                await asyncio.sleep(delay_after(rounds, RETRY_MS, RETRY_MS_MAX) / 1000)
            rounds += 1
            async for delivery, answer in in_turn(list(self._taken), self._settle_alone, deadline, self._clock):
                await self._conclude(delivery, answer)

    async def _settle_alone(self, delivery: Delivery) -> int:
        return await self._settle([delivery])

    async def _conclude(self, delivery: Delivery, answer: int | Exception) -> None:
        """Acknowledges the message, keeps it for another try, or parks it."""
        if not isinstance(answer, Exception):
            await self._done([delivery])
        elif isinstance(answer, Busy):
            # A row of it is locked by another transaction. A batch passes over such holds too.
            self._report("info", "dead letter left to the sweep", delivery, kind_of(answer), error=repr(answer))
            await self._done([delivery])
        else:
            self._report("warning", "dead letter failed", delivery, kind_of(answer), error=repr(answer))
            delivery.failures += 1
            if delivery.failures >= self._settings.inbox_tries_max:
                await self._park(delivery, "failing", kind_of(answer))

    async def _done(self, deliveries: Sequence[Delivery]) -> None:
        await self._thread.run(self._letters.acknowledge, deliveries)
        self._forget(deliveries)
        tracing.note_done(self._ids(deliveries))
        catalogue.DEAD_LETTERS.of("acknowledged").inc(len(deliveries))

    async def _park(self, delivery: Delivery, why: str, kind: str, **more: str) -> None:
        await self._thread.run(self._letters.park, delivery)
        self._forget([delivery])
        catalogue.DEAD_LETTERS.of(why).inc()
        tracing.note_failed(self._ids([delivery]), why)
        self._report("error", PARKED, delivery, kind, why=why, **more)

    def _report(self, level: str, event: str, delivery: Delivery, kind: str, **more: str) -> None:
        """Logs the first of each kind, and one a minute as long as it continues."""
        if facts := self._news[event].note(kind, time.monotonic()):
            getattr(log, level)(event, reservation_id=delivery.reservation_id, **more, **facts)

    def _note_quiet(self) -> None:
        """Begins the counts of `_report` again, and logs how many letters were parked."""
        for event, failures in self._news.items():
            facts = failures.end(time.monotonic())
            if facts and event == PARKED:
                log.info("no more dead letters are parked", **facts)

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

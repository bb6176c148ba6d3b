"""A client between `rowlock.dead` and `rowlock.expired` that drops, doubles, delays or reverses dead letters."""

import asyncio
import heapq
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from amqp.exceptions import NotFound
from kombu import Consumer, Producer, Queue

from service.broker.link import hear
from service.broker.messages import Hint, body_of
from service.broker.topology import DEAD, EXPIRED_QUEUE
from tests.stage.broker import connected

HEAR_SECONDS = 0.005
STAND_SECONDS_MAX = 20
LITTLE_DELAY_SECONDS, LONG_DELAY_SECONDS = 0.4, 3.0
"""One is well before the sweep comes round, the other when it has been there."""
WINDOW_SECONDS = 0.5

Alter = Callable[[int, float], list[tuple[float, int]]]
"""Of the n-th letter, which comes at a time: when each copy of it goes on, and its rank among those of one moment."""


def every_tenth_dropped(n: int, now: float) -> list[tuple[float, int]]:
    """Nine of ten go on at once."""
    return [] if n % 10 == 9 else [(now, n)]


def all_doubled(n: int, now: float) -> list[tuple[float, int]]:
    """Each goes on twice at once."""
    return [(now, n), (now, n)]


def all_delayed(n: int, now: float) -> list[tuple[float, int]]:
    """One a little, the next for long, so that they are out of order too."""
    return [(now + (LONG_DELAY_SECONDS if n % 2 else LITTLE_DELAY_SECONDS), n)]


def all_reversed(n: int, now: float) -> list[tuple[float, int]]:
    """Those of each half second go on at its end, the last one first."""
    return [((now // WINDOW_SECONDS + 1) * WINDOW_SECONDS, -n)]


@dataclass(slots=True)
class Interceptor:
    """`delays`: how many seconds each hint was kept back, without end where it was dropped; `sent` counts copies."""

    url: str
    alter: Alter
    delays: dict[UUID, float] = field(default_factory=dict)
    sent: int = 0
    kept: list[tuple[float, int, int, float, bytes]] = field(default_factory=list)
    standing: threading.Event = field(default_factory=threading.Event)
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Runs until `stop` and sends the messages that it kept."""
        with connected(self.url) as connection:
            channel = connection.channel()
            own = Queue("tests.interceptor", DEAD, exclusive=True, durable=False)
            producer = Producer(channel)
            with Consumer(channel, [own], on_message=self._keep, no_ack=True):
                EXPIRED_QUEUE(channel).unbind_from(DEAD)
                self.standing.set()
                while self.kept or not self.stopping.is_set():
                    self._send_on(producer)
                    hear(connection, HEAR_SECONDS)

    def _keep(self, message: Any) -> None:
        n, now, body = len(self.delays), time.monotonic(), body_of(message)
        self.delays[_reservation_id(body)] = float("inf")
        for copy, (at, rank) in enumerate(self.alter(n, now)):
            heapq.heappush(self.kept, (at, rank, copy, now, body))

    def _send_on(self, producer: Producer) -> None:
        while self.kept and self.kept[0][0] <= (now := time.monotonic()):
            *_, came_at, body = heapq.heappop(self.kept)
            id_ = _reservation_id(body)
            self.delays[id_] = min(self.delays[id_], now - came_at)
            self.sent += 1
            form = {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2}
            producer.publish(body, routing_key=EXPIRED_QUEUE.name, **form)


def _reservation_id(body: bytes) -> UUID:
    hint = Hint.decode(body)
    assert hint is not None
    return hint.reservation_id


@asynccontextmanager
async def intercepted(url: str, alter: Alter) -> AsyncIterator[Interceptor]:
    """All dead letters of the block go through it, the last ones after it. No process may connect meanwhile: it would
    bind the queues again.
    """
    interceptor = Interceptor(url, alter)
    running = asyncio.create_task(asyncio.to_thread(interceptor.run))
    assert await asyncio.to_thread(interceptor.standing.wait, STAND_SECONDS_MAX)
    try:
        yield interceptor
    finally:
        interceptor.stopping.set()
        await asyncio.wait_for(running, STAND_SECONDS_MAX)


def consumers(broker_url: str) -> int:
    """How many inboxes take dead letters."""
    with connected(broker_url) as connection:
        try:
            with connection.channel() as channel:
                return int(EXPIRED_QUEUE(channel).queue_declare(passive=True).consumer_count)
        except NotFound:
            return 0

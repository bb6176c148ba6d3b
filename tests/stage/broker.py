"""RabbitMQ as another system uses it: binds queues, reads them, and cleans up between tests."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from amqp.exceptions import NotFound
from kombu import Connection, Exchange, Producer, Queue

from dev.containers import Container
from dev.servers import RabbitMQ
from service.broker.messages import Hint
from service.broker.publisher import Line, drain
from service.broker.topology import DEAD, EVENTS, EXPIRED_QUEUE, HINTS, PARKED_QUEUE, holds_queue
from tests.stage.waiting import until

WAIT_SECONDS_MAX = 20
TTLS_OF_TESTS_MS = (1_000, 2_000, 3_000, 5_000, 10_000, 30_000, 60_000)


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A connection of the test's own."""
    with Connection(url, connect_timeout=10, heartbeat=0) as connection:
        connection.ensure_connection(max_retries=3, interval_start=0.1)
        yield connection


def forget_everything(url: str) -> None:
    """Deletes the product's queues and exchanges, so that a test begins as on a new RabbitMQ."""
    with connected(url) as connection:
        queues = [EXPIRED_QUEUE, PARKED_QUEUE, *(holds_queue(ttl_ms, 1_000) for ttl_ms in TTLS_OF_TESTS_MS)]
        for entity in (*queues, EVENTS, HINTS, DEAD):
            try:
                with connection.channel() as channel:
                    entity(channel).delete()
            except NotFound:
                continue


def write_queues_down(server: RabbitMQ | Container) -> None:
    """RabbitMQ writes the names of new quorum queues to disk only after up to a second, and never finds one again if it
    was killed before: to be called between the declaration of the queues and the kill.
    """
    server.control("eval", "[dets:sync(Table) || Table <- dets:all()], ok.")


def bound_queue(connection: Connection, name: str, routing_key: str = "#", **arguments: Any) -> Queue:
    """A queue of another system, which gets the events from now on and is deleted with the connection."""
    channel = connection.channel()
    queue = Queue(name, Exchange(EVENTS.name, "topic"), routing_key, exclusive=True, queue_arguments=arguments)
    bound = queue(channel)
    bound.declare()
    return bound


QUORUM = {"x-queue-type": "quorum"}
"""Arguments of a queue that outlives a node of a cluster."""

FULL_AFTER_ONE: dict[str, Any] = {"x-max-length": 1, "x-overflow": "reject-publish"}
"""Arguments of a queue that is full with one message, and refuses others: the policy that the relay warns of."""


def received(queue: Queue, count: int) -> list[Any]:
    """The bodies of this many messages, as JSON. Fails if they do not arrive."""
    bodies: list[Any] = []
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while len(bodies) < count:
        message = queue.get(no_ack=True)
        if message is not None:
            bodies.append(orjson.loads(message.body))
        else:
            assert time.monotonic() < deadline, f"{len(bodies)} of {count} messages came"
            time.sleep(0.01)
    return bodies


def message_count(url: str, queue: Queue) -> int:
    """How many messages wait in the queue; 0 where there is none."""
    with connected(url) as connection:
        try:
            with connection.channel() as channel:
                return int(queue(channel).queue_declare(passive=True).message_count)
        except NotFound:
            return 0


async def until_waiting(url: str, queue: Queue, count: int) -> None:
    """Returns when exactly this many messages wait in the queue."""

    async def waiting() -> bool:
        return message_count(url, queue) == count

    await until(waiting, f"{count} messages in {queue.name}")


def send_hints(url: str, hints: Iterable[Hint]) -> None:
    """Publishes these as dead letters. On return they are confirmed by the inbox's queue."""
    with connected(url) as connection:
        declare_inbox(connection)
        line = Line.open(connection, DEAD.name, must_take=True)
        for hint in hints:
            line.send("", hint.encode(), hint.traceparent)
        drain(connection, (line,), WAIT_SECONDS_MAX)
        assert not line.waiting | line.refused


def send_letter(url: str, body: bytes, **properties: Any) -> None:
    """Publishes any body as a dead letter."""
    with Connection(url, transport_options={"confirm_publish": True}) as connection:
        declare_inbox(connection)
        message = {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2, **properties}
        Producer(connection.channel()).publish(body, exchange=DEAD, **message)


def declare_inbox(connection: Connection) -> None:
    """The queues where dead letters go; the product may or may not have made them."""
    with connection.channel() as channel:
        for part in (DEAD, PARKED_QUEUE, EXPIRED_QUEUE):
            part(channel).declare()


@dataclass(slots=True)
class Listener:
    """A durable queue of another system with all events; `events` has those that were read, in order."""

    url: str
    arguments: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def queue(self) -> Queue:
        """It outlives RabbitMQ."""
        return Queue("tests.listener", Exchange(EVENTS.name, "topic"), "#", queue_arguments=self.arguments)

    def read(self) -> list[dict[str, Any]]:
        """Takes the waiting events. Returns all that were ever received."""
        with connected(self.url) as connection, connection.channel() as channel:
            queue = self.queue(channel)
            while (message := queue.get(no_ack=True)) is not None:
                self.events.append(orjson.loads(message.body))
        return self.events

    async def until(self, number: int) -> list[dict[str, Any]]:
        """Waits for the event with this number. Returns all that were ever received."""

        async def came() -> bool:
            return any(event["number"] == number for event in self.read())

        await until(came, f"event {number}")
        return self.events


@contextmanager
def listening(url: str, arguments: dict[str, Any] | None = None) -> Iterator[Listener]:
    """Listens from now on, by a queue with these arguments."""
    listener = Listener(url, arguments or {})
    with connected(url) as connection:
        listener.queue(connection.channel()).declare()
    try:
        yield listener
    finally:
        with connected(url) as connection:
            listener.queue(connection.channel()).delete()


def first_time(events: Iterable[dict[str, Any]]) -> list[int]:
    """The events' numbers without repetitions, in the order in which each came first."""
    return list(dict.fromkeys(event["number"] for event in events))


def versions_told(events: Iterable[dict[str, Any]]) -> dict[int, list[int]]:
    """The versions of each seat, without those that are not newer than an earlier one, as a reader would skip them."""
    versions: dict[int, list[int]] = {}
    for event in events:
        for seat in event["seats"]:
            told = versions.setdefault(seat["seatId"], [])
            if not told or seat["version"] > told[-1]:
                told.append(seat["version"])
    return versions

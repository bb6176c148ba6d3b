"""RabbitMQ as somebody beside the product uses it: binds queues, reads them, and clears up between the tests."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from amqp.exceptions import NotFound
from kombu import Connection, Exchange, Queue

from service.broker.topology import DEAD, EVENTS, EXPIRED_QUEUE, HINTS, PARKED_QUEUE, holds_queue

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


def bound_queue(connection: Connection, name: str, routing_key: str = "#", **arguments: Any) -> Queue:
    """A queue of somebody else's, which gets the events from now on and ends with the connection."""
    channel = connection.channel()
    queue = Queue(name, Exchange(EVENTS.name, "topic"), routing_key, exclusive=True, queue_arguments=arguments)
    bound = queue(channel)
    bound.declare()
    return bound


def received(queue: Queue, count: int) -> list[Any]:
    """The bodies of so many messages, as JSON; fails where they do not come."""
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

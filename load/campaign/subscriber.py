"""A subscriber of `rowlock.events` with a durable queue, which proves that events were published."""

import orjson
from kombu import Exchange, Queue

from service.broker.topology import EVENTS
from tests.stage.broker import connected

QUEUE = Queue(
    "campaign.events", Exchange(EVENTS.name, "topic"), "#", durable=True, queue_arguments={"x-queue-type": "quorum"}
)
BATCH = 1_000


def subscribe(url: str) -> None:
    """Declares and binds the queue; from now on it gets every event."""
    with connected(url) as connection:
        QUEUE(connection.channel()).declare()


def received(url: str) -> frozenset[int]:
    """The numbers of the events that came. Blocks until the queue is empty."""
    numbers: set[int] = set()
    with connected(url) as connection:
        queue = QUEUE(connection.channel())
        while (message := queue.get(no_ack=True)) is not None:
            numbers.add(orjson.loads(message.body)["number"])
    return frozenset(numbers)

"""Exchanges and queues, declared so that everybody may do it at any time, on RabbitMQ 3.10 to 4.x, without plugins."""

from amqp.exceptions import NotFound, PreconditionFailed
from kombu import Connection, Exchange, Queue

HOLDS = "rowlock.holds"
PARKED = "rowlock.parked"
DELIVERIES_MAX = 1_000
"""A message that was delivered so often is parked by RabbitMQ itself: whoever took it died each time."""
LOOKS_MAX = 1_000_000
"""Each look of an operator at a parked message is a delivery; RabbitMQ 4 would drop it after twenty by default."""

EVENTS = Exchange("rowlock.events", "topic", durable=True)
HINTS = Exchange(HOLDS, "direct", durable=True)
DEAD = Exchange("rowlock.dead", "fanout", durable=True)

# Dead-lettering loses nothing where the queue refuses what it can't keep, instead of dropping what is in it.
SAFE = {"x-queue-type": "quorum", "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}

PARKED_QUEUE = Queue(PARKED, queue_arguments={"x-queue-type": "quorum", "x-delivery-limit": LOOKS_MAX})
EXPIRED_QUEUE = Queue(
    "rowlock.expired",
    DEAD,
    queue_arguments=SAFE
    | {"x-delivery-limit": DELIVERIES_MAX, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": PARKED},
)


def routing_key(ttl_ms: int) -> str:
    """Of a hint that is to die after so long."""
    return f"{ttl_ms}ms"


def holds_queue(ttl_ms: int, length_max: int) -> Queue:
    """Where hints wait. The time is in the name: a queue can't be declared again with another one."""
    return Queue(
        f"{HOLDS}.{ttl_ms}ms",
        HINTS,
        routing_key=routing_key(ttl_ms),
        queue_arguments=SAFE
        | {"x-message-ttl": ttl_ms, "x-dead-letter-exchange": DEAD.name, "x-max-length": length_max},
    )


def declare(connection: Connection, ttl_ms: int, length_max: int) -> bool:
    """Makes what is missing. False where the queue of holds is there with another maximal length, which it keeps."""
    with connection.channel() as channel:
        for part in (EVENTS, HINTS, DEAD, PARKED_QUEUE, EXPIRED_QUEUE):
            part(channel).declare()
    queue = holds_queue(ttl_ms, length_max)
    try:
        # A refusal ends the channel, so this one has its own.
        with connection.channel() as channel:
            queue(channel).declare()
    except PreconditionFailed:
        with connection.channel() as channel:
            queue(channel).queue_bind()
        return False
    return True


def message_counts(connection: Connection, ttl_ms: int) -> dict[str, int]:
    """The messages that wait: hints of live holds, dead letters that no inbox has taken yet, parked ones."""
    queues = {"holds": holds_queue(ttl_ms, 0), "expired": EXPIRED_QUEUE, "parked": PARKED_QUEUE}
    with connection.channel() as channel:
        return {name: queue(channel).queue_declare(passive=True).message_count for name, queue in queues.items()}


def retire(connection: Connection, ttl_ms: int) -> bool:
    """Lets the queue of another time to pay run dry: it gets no more hints, and is deleted when it is empty. Whether it
    was gone already: who still works with that time may have made it again meanwhile.
    """
    queue = holds_queue(ttl_ms, 0)
    try:
        with connection.channel() as channel:
            # RabbitMQ deletes no quorum queue on the condition that it is empty, so we look; a hint lost is a hint.
            bound = queue(channel)
            if bound.queue_declare(passive=True).message_count == 0:
                bound.delete()
            else:
                bound.unbind_from(HINTS, routing_key=routing_key(ttl_ms))
    except NotFound:
        return True
    return False

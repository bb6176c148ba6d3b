"""Exchanges and queues. Any process may declare them at any time, on RabbitMQ 3.10 to 4.x, without plugins."""

from amqp.exceptions import NotFound, PreconditionFailed
from kombu import Connection, Exchange, Queue

HOLDS = "rowlock.holds"
PARKED = "rowlock.parked"
DELIVERIES_MAX = 1_000
"""RabbitMQ parks a message that was delivered this often: each time its consumer died."""
LOOKS_MAX = 1_000_000
"""Each list of parked messages delivers them; RabbitMQ 4 would drop them after twenty deliveries by default."""

EVENTS = Exchange("rowlock.events", "topic", durable=True)
HINTS = Exchange(HOLDS, "direct", durable=True)
DEAD = Exchange("rowlock.dead", "fanout", durable=True)

# Dead-lettering loses nothing if a full queue refuses new messages instead of dropping old ones.
SAFE = {"x-queue-type": "quorum", "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}

PARKED_QUEUE = Queue(PARKED, queue_arguments={"x-queue-type": "quorum", "x-delivery-limit": LOOKS_MAX})
EXPIRED_QUEUE = Queue(
    "rowlock.expired",
    DEAD,
    queue_arguments=SAFE
    | {"x-delivery-limit": DELIVERIES_MAX, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": PARKED},
)


def routing_key(ttl_ms: int) -> str:
    """The key of a hint that expires after this time."""
    return f"{ttl_ms}ms"


def holds_queue(ttl_ms: int, length_max: int) -> Queue:
    """The queue where hints wait. Its time to live is in the name, because it can't be changed later."""
    return Queue(
        f"{HOLDS}.{ttl_ms}ms",
        HINTS,
        routing_key=routing_key(ttl_ms),
        queue_arguments=SAFE
        | {"x-message-ttl": ttl_ms, "x-dead-letter-exchange": DEAD.name, "x-max-length": length_max},
    )


def declare(connection: Connection, ttl_ms: int, length_max: int) -> bool:
    """Declares everything that is missing. False if the queue of holds exists with another maximum length."""
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
    """The waiting messages: hints of live holds, dead letters that no inbox has taken yet, parked ones."""
    queues = {"holds": holds_queue(ttl_ms, 0), "expired": EXPIRED_QUEUE, "parked": PARKED_QUEUE}
    with connection.channel() as channel:
        return {name: queue(channel).queue_declare(passive=True).message_count for name, queue in queues.items()}


def retire(connection: Connection, ttl_ms: int) -> bool:
    """Unbinds the queue of another time to pay, and deletes it once it is empty. True if it was gone already: a process
    that still uses that time may have declared it again meanwhile.
    """
    queue = holds_queue(ttl_ms, 0)
    try:
        with connection.channel() as channel:
            # RabbitMQ has no delete-if-empty for quorum queues, so we check first. Losing a hint between does no harm.
            bound = queue(channel)
            if bound.queue_declare(passive=True).message_count == 0:
                bound.delete()
            else:
                bound.unbind_from(HINTS, routing_key=routing_key(ttl_ms))
    except NotFound:
        return True
    return False

"""Takes dead letters in batches. RabbitMQ keeps each one until it is acknowledged or parked."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from kombu import Connection

from service.broker.link import Link, hear
from service.broker.messages import Hint, body_of, traceparent_of
from service.broker.reading import Fault, Received, reading_channel
from service.broker.topology import EXPIRED_QUEUE
from service.errors import BrokerAway
from service.settings import Settings


@dataclass(slots=True)
class Delivery:
    """A delivered message, which RabbitMQ knows by its `tag`. An unreadable one has a `fault` and no `hint`.
    `failures` counts its tries alone.
    """

    tag: int
    hint: Hint | None
    fault: Fault | None = None
    failures: int = 0
    traceparent: str | None = None

    @classmethod
    def of(cls, message: Received) -> Self:
        """Keeps nothing of the message that its sender could make large."""
        hint = None if message.fault else Hint.decode(body_of(message))
        fault = None if hint else message.fault or Fault.CONTENT
        return cls(message.delivery_tag, hint, fault, traceparent=traceparent_of(message))

    @property
    def reservation_id(self) -> str | None:
        """For the log."""
        return None if self.hint is None else str(self.hint.reservation_id)


class DeadLetters:
    """For one thread. The messages of a lost connection are delivered again, to any inbox."""

    def __init__(self, settings: Settings) -> None:
        self._link = Link(settings)
        self._prefetch = 2 * settings.inbox_batch_max
        self._consuming: Connection | None = None
        self._channel: Any = None
        self._arrived: deque[Delivery] = deque()

    def take(self, batch_max: int, linger_ms: int, wait_ms: int) -> list[Delivery]:
        """Waits up to `wait_ms` for the first message, then `linger_ms` for more. Raises BrokerAway."""
        with self._link.connected() as connection:
            if self._consuming is not connection:
                self._consume(connection)
            self._drain(connection, 1, wait_ms)
            if self._arrived:
                self._drain(connection, batch_max, linger_ms)
            connection.heartbeat_check()
        return [self._arrived.popleft() for _ in range(min(batch_max, len(self._arrived)))]

    def keep_alive(self) -> None:
        """Sends heartbeats; to be called during a pause. Raises BrokerAway."""
        with self._still_connected() as connection:
            self._drain(connection, len(self._arrived) + 1, 0)
            connection.heartbeat_check()

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Removes them from the queue. Raises BrokerAway: then they are delivered again, and their holds have ended."""
        with self._still_connected():
            for delivery in deliveries:
                self._channel.basic_ack(delivery.tag)

    def park(self, delivery: Delivery) -> None:
        """Moves it to the queue of messages that an operator must inspect. Raises BrokerAway."""
        with self._still_connected():
            self._channel.basic_reject(delivery.tag, requeue=False)

    def close(self) -> None:
        """Ends the connection. Messages that are not acknowledged are delivered again."""
        self._link.close()

    @contextmanager
    def _still_connected(self) -> Iterator[Connection]:
        """The connection that delivered the messages: they can't be acknowledged through another one."""
        if self._consuming is None or self._consuming is not self._link.connection:
            raise BrokerAway("the connection was lost; the messages are delivered again")
        with self._link.connected() as connection:
            yield connection

    def _consume(self, connection: Connection) -> None:
        self._arrived.clear()
        self._channel = reading_channel(connection)
        self._channel.basic_qos(0, self._prefetch, a_global=False)
        self._channel.basic_consume(EXPIRED_QUEUE.name, callback=self._note)
        self._consuming = connection

    def _note(self, message: Received) -> None:
        self._arrived.append(Delivery.of(message))

    def _drain(self, connection: Connection, count: int, wait_ms: int) -> None:
        """Waits until `count` messages have arrived or the time is over. Received messages are taken in any case."""
        deadline = time.monotonic() + wait_ms / 1000
        while len(self._arrived) < count and hear(connection, max(deadline - time.monotonic(), 0.001)):
            pass

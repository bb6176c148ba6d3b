"""Publishes in order with many messages in flight, and tracks which of them RabbitMQ has confirmed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from kombu import Connection

from service.broker.frames import Message, publication
from service.broker.link import Link, hear
from service.broker.messages import Hint, encode_event
from service.broker.topology import EVENTS, HINTS, routing_key
from service.errors import BrokerAway
from service.events.log import Logged
from service.observability.metrics import catalogue
from service.observability.tracing import HEADER
from service.settings import Settings

KEEP_ALIVE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Published:
    """How many events were confirmed before the first that was refused, and how many hints were not confirmed."""

    events: int
    hints_dropped: int


@dataclass(slots=True)
class Line:
    """A channel that publishes to one exchange, and the confirms of its messages, which are numbered from 1.

    `unsent` are the messages since the last `flush`. All before `oldest` are answered.
    With `must_take`, `homeless` counts the messages that were routed to no queue: those are confirmed too.
    """

    channel: Any
    exchange: str
    must_take: bool
    published: int = 0
    homeless: int = 0
    waiting: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    oldest: int = 1
    unsent: list[bytes] = field(default_factory=list)

    @classmethod
    def open(cls, connection: Connection, exchange: str, *, must_take: bool) -> Self:
        """A channel of its own, whose messages are confirmed."""
        line = cls(connection.channel(), exchange, must_take)
        line.channel.events["basic_return"].add(line.take_back)
        line.channel.events["basic_ack"].add(line.accept)
        line.channel.events["basic_nack"].add(line.refuse)
        line.channel.confirm_select()
        return line

    def send(self, key: str, body: bytes, traceparent: str | None = None, **properties: str) -> None:
        """Publishes with the next `flush`. The properties are some of `frames.NAMED`."""
        message = Message(key, body, {HEADER: traceparent} if traceparent else {}, properties)
        frames = publication(
            self.channel.channel_id,
            self.exchange,
            message,
            mandatory=self.must_take,
            frame_bytes_max=self.channel.connection.frame_max,
        )
        self.published += 1
        self.waiting.add(self.published)
        self.unsent.append(frames)

    def flush(self) -> None:
        """Sends the messages in one write, without waiting for answers."""
        frames, self.unsent = self.unsent, []
        if frames:
            self.channel.connection.transport.write(b"".join(frames))

    def take_back(self, *_: Any) -> None:
        """A message was routed to no queue."""
        self.homeless += 1

    def accept(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 - as the driver calls it
        """This message, or all up to it, are confirmed."""
        self.waiting -= self._meant(tag, multiple=multiple)

    def refuse(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 - as the driver calls it
        """A queue refused this message, or one up to it."""
        refused = self._meant(tag, multiple=multiple)
        self.waiting -= refused
        self.refused |= refused

    def _meant(self, tag: int, *, multiple: bool) -> set[int]:
        if not multiple:
            return {tag} & self.waiting
        meant = self.waiting.intersection(range(self.oldest, tag + 1))
        self.oldest = max(self.oldest, tag + 1)
        return meant


class Publisher:
    """For one thread."""

    def __init__(self, settings: Settings) -> None:
        self._link = Link(settings)
        self._confirm_seconds = settings.confirm_timeout_ms / 1000
        self._hint_key = routing_key(settings.hold_seconds * 1000)
        self._lines: tuple[Connection, Line, Line] | None = None
        self._spoke_at = 0.0

    def publish(self, events: Sequence[Logged], hints: Sequence[Hint]) -> Published:
        """Returns when all are answered. Raises BrokerAway where events are not confirmed in time."""
        with self._link.connected() as connection:
            event_line, hint_line = self._open(connection)
            before = event_line.published
            for event in events:
                key = f"{event.kind.value}.{event.session_id}"
                named = {"message_id": str(event.number), "type": event.kind.value}
                event_line.send(key, encode_event(event), event.traceparent, **named)
            for hint in hints:
                # The rest of the time to pay: the queue's own time to live would start again now.
                left = {} if hint.due_in_ms is None else {"expiration": str(hint.due_in_ms)}
                hint_line.send(self._hint_key, hint.encode(), hint.traceparent, **left)
            drain(connection, (event_line, hint_line), self._confirm_seconds)
            self._spoke_at = time.monotonic()
        dropped = len(hint_line.refused | hint_line.waiting) + hint_line.homeless
        confirmed = min((tag - before for tag in event_line.refused), default=len(events) + 1) - 1
        unconfirmed = len(event_line.waiting)
        event_line.refused, hint_line.refused = set(), set()
        if unconfirmed or hint_line.waiting or hint_line.homeless:
            # Their confirms may still come. Or the queue is missing, and the next connection declares it.
            self._link.close()
        if unconfirmed:
            catalogue.CONFIRM_TIMEOUTS.of().inc()
            raise BrokerAway(f"{unconfirmed} events were not confirmed in time")
        return Published(confirmed, dropped)

    def keep_alive(self) -> None:
        """Sends heartbeats; to be called while there is nothing to publish. Raises BrokerAway."""
        if self._link.connection is None or time.monotonic() < self._spoke_at + KEEP_ALIVE_SECONDS:
            return
        with self._link.connected() as connection:
            hear(connection, 0.001)
            connection.heartbeat_check()
            self._spoke_at = time.monotonic()

    def close(self) -> None:
        """Ends the connection."""
        self._link.close()

    def _open(self, connection: Connection) -> tuple[Line, Line]:
        if self._lines is None or self._lines[0] is not connection:
            events = Line.open(connection, EVENTS.name, must_take=False)
            self._lines = connection, events, Line.open(connection, HINTS.name, must_take=True)
        return self._lines[1:]


def drain(connection: Connection, lines: Sequence[Line], seconds: float) -> None:
    """Sends the unsent messages and waits until RabbitMQ has answered for each, or the time is over."""
    deadline = time.monotonic() + seconds
    for line in lines:
        line.flush()
    while any(line.waiting for line in lines) and (remaining := deadline - time.monotonic()) > 0:
        hear(connection, remaining)

"""The operator's access to parked messages: list them, send them back to the inbox, drop them."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from kombu import Connection

from service.broker.link import Link
from service.broker.messages import Hint, body_of, traceparent_of
from service.broker.publisher import Line, drain
from service.broker.reading import Fault, Received, reading_channel
from service.broker.topology import EXPIRED_QUEUE, PARKED
from service.errors import BrokerAway
from service.settings import Settings

TAKEN_MAX = 10_000
"""One call reads at most this many; the next one reads the rest."""


NAME_LENGTH = 12

Why = Literal["unreadable", "failing", "unsettled"]
"""The first two are the inbox's words in log and metrics. Unsettled: RabbitMQ, or another client, parked it."""
Choice = Callable[[str], bool]
"""Selects messages by their names."""


@dataclass(frozen=True, slots=True)
class Parked:
    """`name` is a hash of the body and of the time and reason of parking: it stays the same from list to list, and
    messages with the same name are alike in everything. `reason` is RabbitMQ's; None if unknown. `headers` is JSON.

    A message that is too long has only the beginning of its body.
    """

    tag: int
    name: str
    reason: str | None
    hint: Hint | None
    body: bytes
    headers: str
    traceparent: str | None
    is_whole: bool

    @property
    def why(self) -> Why:
        """The cause, as far as it is known."""
        if self.hint is None:
            return "unreadable"
        return "failing" if self.reason == "rejected" else "unsettled"


class ParkedMessages:
    """For one thread. Messages that another operator is reading at the same time are missing."""

    def __init__(self, settings: Settings) -> None:
        self._link = Link(settings)
        self._confirm_seconds = settings.confirm_timeout_ms / 1000

    def look(self) -> list[Parked]:
        """The parked messages, which stay parked. Raises BrokerAway."""
        with self._taken() as (_, _, messages):
            return messages

    def drop(self, chosen: Choice) -> int:
        """Removes the chosen messages. Returns how many. Raises BrokerAway."""
        with self._taken() as (_, channel, messages):
            return _remove(channel, [message for message in messages if chosen(message.name)])

    def requeue(self, chosen: Choice) -> int:
        """Sends the chosen messages to the inbox again, except those that are too long: it would only park them again.
        Returns how many. Raises BrokerAway.

        A message is removed here only after the queue of the inbox has confirmed it.
        """
        with self._taken() as (connection, channel, messages):
            line = Line.open(connection, "", must_take=True)
            moving = [message for message in messages if message.is_whole and chosen(message.name)]
            for message in moving:
                line.send(EXPIRED_QUEUE.name, message.body, message.traceparent)
            drain(connection, (line,), self._confirm_seconds)
            if line.waiting or line.refused or line.homeless:
                raise BrokerAway("the inbox's queue did not confirm: nothing was removed here")
            return _remove(channel, moving)

    def close(self) -> None:
        """Ends the connection."""
        self._link.close()

    @contextmanager
    def _taken(self) -> Iterator[tuple[Connection, Any, list[Parked]]]:
        """All messages, for the time of the block. Those that are not acknowledged return to the queue after it."""
        with self._link.connected() as connection, reading_channel(connection) as channel:
            messages: list[Parked] = []
            while len(messages) < TAKEN_MAX and (message := channel.basic_get(PARKED)) is not None:
                messages.append(_parked(message))
            yield connection, channel, messages


def _remove(channel: Any, messages: Sequence[Parked]) -> int:
    for message in messages:
        channel.basic_ack(message.tag)
    return len(messages)


def _parked(message: Received) -> Parked:
    body, headers = body_of(message), message.headers or {}
    return Parked(
        message.delivery_tag,
        _name(body, headers),
        _reason(headers),
        None if message.fault else Hint.decode(body),
        body,
        json.dumps(headers, default=str),
        traceparent_of(message),
        is_whole=message.fault is not Fault.LONG,
    )


def _name(body: bytes, headers: dict[str, Any]) -> str:
    # Other headers count the deliveries: they change with each list.
    moved = json.dumps(headers.get("x-death"), default=str)
    return hashlib.sha256(moved.encode() + b"\n" + body).hexdigest()[:NAME_LENGTH]


def _reason(headers: dict[str, Any]) -> str | None:
    match headers.get("x-death"):
        case [{"reason": reason}, *_]:
            return str(reason)
        case _:
            return None

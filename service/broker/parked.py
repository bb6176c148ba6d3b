"""The operator's access to parked messages: list them, send them back to the inbox, drop them."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from kombu import Connection

from service.broker.link import Link
from service.broker.messages import Hint, body_of, traceparent_of
from service.broker.publisher import Line, drain
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
    messages with the same name are alike in everything. `reason` is RabbitMQ's; None if unknown.
    """

    name: str
    reason: str | None
    hint: Hint | None
    body: str
    headers: dict[str, Any]

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
        with self._taken() as (_, messages):
            return [_parked(message) for message in messages]

    def drop(self, chosen: Choice) -> int:
        """Removes the chosen messages. Returns how many. Raises BrokerAway."""
        with self._taken() as (_, messages):
            dropping = [message for message in messages if chosen(_name(message))]
            for message in dropping:
                message.ack()
            return len(dropping)

    def requeue(self, chosen: Choice) -> int:
        """Sends the chosen messages to the inbox again. Returns how many. Raises BrokerAway.

        A message is removed here only after the queue of the inbox has confirmed it.
        """
        with self._taken() as (connection, messages):
            line = Line.open(connection, "", must_take=True)
            moving = [message for message in messages if chosen(_name(message))]
            for message in moving:
                line.send(EXPIRED_QUEUE.name, body_of(message), traceparent_of(message))
            drain(connection, (line,), self._confirm_seconds)
            if line.waiting or line.refused or line.homeless:
                raise BrokerAway("the inbox's queue did not confirm: nothing was removed here")
            for message in moving:
                message.ack()
            return len(moving)

    def close(self) -> None:
        """Ends the connection."""
        self._link.close()

    @contextmanager
    def _taken(self) -> Iterator[tuple[Connection, list[Any]]]:
        """All messages, for the time of the block. Those that are not acknowledged return to the queue after it."""
        with self._link.connected() as connection, connection.channel() as channel:
            messages: list[Any] = []
            # Queue.get would raise where a message can't be decompressed.
            while len(messages) < TAKEN_MAX and (message := channel.basic_get(PARKED)) is not None:
                messages.append(channel.message_to_python(message))
            yield connection, messages


def _parked(message: Any) -> Parked:
    body = body_of(message)
    return Parked(_name(message), _reason(message), Hint.decode(body), body.decode(errors="replace"), message.headers)


def _name(message: Any) -> str:
    # Other headers count the deliveries: they change with each list.
    moved = orjson.dumps(message.headers.get("x-death"), default=str)
    return hashlib.sha256(moved + b"\n" + body_of(message)).hexdigest()[:NAME_LENGTH]


def _reason(message: Any) -> str | None:
    match message.headers.get("x-death"):
        case [{"reason": reason}, *_]:
            return str(reason)
        case _:
            return None

"""What an operator does with parked messages: look at them, send them back to the inbox, drop them."""

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
"""More are not looked at in one go; what is left comes with the next."""


NAME_LENGTH = 12

Why = Literal["unreadable", "failing", "unsettled"]
"""The first two in the words of the inbox's log and metrics. It never gave up what is unsettled: RabbitMQ did so by
itself, or somebody has put it here.
"""
Choice = Callable[[str], bool]
"""Of messages by their names."""


@dataclass(frozen=True, slots=True)
class Parked:
    """`name` is made from the body and from when and why RabbitMQ moved it: it stays the same however often somebody
    looks, and messages that share it are the same in everything. `reason` is RabbitMQ's; None if unknown.
    """

    name: str
    reason: str | None
    hint: Hint | None
    body: str
    headers: dict[str, Any]

    @property
    def why(self) -> Why:
        """What is wrong with it, as far as anybody knows."""
        if self.hint is None:
            return "unreadable"
        return "failing" if self.reason == "rejected" else "unsettled"


class ParkedMessages:
    """For one thread. What another operator looks at meanwhile is not seen."""

    def __init__(self, settings: Settings) -> None:
        self._link = Link(settings)
        self._confirm_seconds = settings.confirm_timeout_ms / 1000

    def look(self) -> list[Parked]:
        """What is there, and stays. Raises BrokerAway."""
        with self._taken() as (_, messages):
            return [_parked(message) for message in messages]

    def drop(self, chosen: Choice) -> int:
        """Removes those that are chosen; how many. Raises BrokerAway."""
        with self._taken() as (_, messages):
            dropping = [message for message in messages if chosen(_name(message))]
            for message in dropping:
                message.ack()
            return len(dropping)

    def requeue(self, chosen: Choice) -> int:
        """Sends those that are chosen to the inbox once more; how many. Raises BrokerAway.

        Each is removed here only once it is safe there.
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
        """All messages, ours during the block; what is not acknowledged then is back in the queue after it."""
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
    # Other headers count the deliveries: they change with each look.
    moved = orjson.dumps(message.headers.get("x-death"), default=str)
    return hashlib.sha256(moved + b"\n" + body_of(message)).hexdigest()[:NAME_LENGTH]


def _reason(message: Any) -> str | None:
    match message.headers.get("x-death"):
        case [{"reason": reason}, *_]:
            return str(reason)
        case _:
            return None

"""What an operator does with parked messages: look at them, send them back to the inbox, drop them."""

from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kombu import Connection

from service.broker.link import Link
from service.broker.messages import Hint, body_of
from service.broker.publisher import Line, drain
from service.broker.topology import EXPIRED_QUEUE, PARKED
from service.errors import BrokerAway
from service.settings import Settings

TAKEN_MAX = 10_000
"""More are not looked at in one go; what is left comes with the next."""


@dataclass(frozen=True, slots=True)
class Parked:
    """`position` counts from 1, the oldest first; `reason` is RabbitMQ's: rejected, delivery_limit; None if unknown."""

    position: int
    reason: str | None
    hint: Hint | None
    body: str
    headers: dict[str, Any]


class ParkedMessages:
    """For one thread, and for one operator at a time: positions are those of the moment."""

    def __init__(self, settings: Settings) -> None:
        self._link = Link(settings)
        self._confirm_seconds = settings.confirm_timeout_ms / 1000

    def look(self) -> list[Parked]:
        """What is there, and stays. Raises BrokerAway."""
        with self._taken() as (_, messages):
            return [_parked(position, message) for position, message in enumerate(messages, 1)]

    def drop(self, positions: Container[int]) -> int:
        """Removes those at the positions; how many. Raises BrokerAway."""
        with self._taken() as (_, messages):
            dropping = _chosen(messages, positions)
            for message in dropping:
                message.ack()
            return len(dropping)

    def requeue(self, positions: Container[int]) -> int:
        """Sends those at the positions to the inbox once more; how many. Raises BrokerAway.

        Each is removed here only once it is safe there.
        """
        with self._taken() as (connection, messages):
            line = Line.open(connection, "", must_take=True)
            moving = _chosen(messages, positions)
            for message in moving:
                line.send(EXPIRED_QUEUE.name, body_of(message))
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


def _chosen(messages: list[Any], positions: Container[int]) -> list[Any]:
    return [message for position, message in enumerate(messages, 1) if position in positions]


def _parked(position: int, message: Any) -> Parked:
    body = body_of(message)
    return Parked(position, _reason(message), Hint.decode(body), body.decode(errors="replace"), message.headers)


def _reason(message: Any) -> str | None:
    match message.headers.get("x-death"):
        case [{"reason": reason}, *_]:
            return str(reason)
        case _:
            return None

"""Chooses and replaces rows of a history, for the mutators."""

import random
from collections.abc import Sequence
from typing import TypeVar

from load.campaign.history import Event, History, Operation, Reservation

T = TypeVar("T")
SECOND = 1_000_000
FIRST_VERSION = 2
"""Of a seat that was held once."""


class Inapplicable(Exception):
    """The history has no place for this damage."""


def pick(rows: Sequence[T], chance: random.Random) -> T:
    """One of the rows. Raises Inapplicable if there is none."""
    if not rows:
        raise Inapplicable
    return chance.choice(rows)


def an_operation(history: History, chance: random.Random, kind: str, problem: str | None = None) -> Operation:
    """An operation that succeeded, or was refused for this reason. Not a replay."""
    fitting = [
        op
        for op in history.of(kind)
        if (op.problem == problem if problem else op.succeeded) and not op.replayed and op.status is not None
    ]
    return pick(fitting, chance)


def put_operation(history: History, operation: Operation) -> None:
    """Replaces the operation with this id."""
    (place,) = [n for n, known in enumerate(history.operations) if known.id == operation.id]
    history.operations[place] = operation


def an_event(history: History, chance: random.Random, kind: str) -> Event:
    """An event of this kind."""
    return pick([event for event in history.events if event.kind == kind], chance)


def put_event(history: History, event: Event) -> None:
    """Replaces the event with this id."""
    (place,) = [n for n, known in enumerate(history.events) if known.id == event.id]
    history.events[place] = event


def a_reservation(history: History, chance: random.Random, state: str) -> Reservation:
    """A reservation in this state."""
    return pick([row for row in history.reservations.values() if row.state == state], chance)

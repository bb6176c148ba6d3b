"""The shortest part of a history that shows a violation: the checker finds the same violation in it.

First everything goes that concerns other seats, reservations and keys. Then halves, quarters and so on of the rest are
removed as long as the violation is found: Zeller's ddmin. The neighbours in time of the violation stay, since a refusal
that nothing explains would otherwise have nothing beside it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from load.campaign.checks import check
from load.campaign.history import Event, History, Operation
from load.campaign.timeline import Violation

SECONDS_MAX = 20.0
NEAR_MICROSECONDS = 5_000_000
"""A request without an answer is taken to have lasted as long."""

Row = Operation | Event


@dataclass(frozen=True, slots=True)
class Subject:
    """The seats and reservations that a violation is about, and its customers with their keys."""

    seats: frozenset[int]
    reservations: frozenset[str]
    keys: frozenset[tuple[str, str]]

    def concerns(self, row: Row) -> bool:
        """Whether the row has to do with it."""
        if row.reservation in self.reservations or not self.seats.isdisjoint(_seats(row)):
            return True
        return isinstance(row, Operation) and (row.customer, row.key) in self.keys


def reduced(history: History, violation: Violation, seconds_max: float = SECONDS_MAX) -> History | None:
    """A short history with the same violation. None where it names no row, as a wrong sum does."""
    named = [op for op in history.operations if op.id in violation.operations]
    logged = [event for event in history.events if event.id in violation.events]
    if not named and not logged:
        return None
    subject = _subject(violation, [*named, *logged])
    deadline = time.monotonic() + seconds_max

    def shows(rows: Sequence[Row]) -> bool:
        return time.monotonic() < deadline and _shows(_part(history, rows, subject), violation)

    everything: list[Row] = [*history.operations, *history.events]
    kept = {id(row) for row in (*named, *logged, *_neighbours(history, subject, [*named, *logged]))}
    rows = [row for row in everything if id(row) in kept or subject.concerns(row)]
    return _part(history, _without(rows if shows(rows) else everything, kept, shows), subject)


def _without(rows: list[Row], kept: set[int], shows: Callable[[Sequence[Row]], bool]) -> list[Row]:
    """The rows without those that can go."""
    size = len(rows)
    while size >= 1:
        for begin in range((len(rows) - 1) // size * size, -1, -size):
            chunk = rows[begin : begin + size]
            fewer = rows[:begin] + [row for row in chunk if id(row) in kept] + rows[begin + size :]
            if len(fewer) < len(rows) and shows(fewer):
                rows = fewer
        size //= 2
    return rows


def _shows(history: History, violation: Violation) -> bool:
    """Whether the checker finds it, in the same words."""
    return any((found.rule, found.text) == (violation.rule, violation.text) for found in check(history))


def _part(history: History, rows: Sequence[Row], subject: Subject) -> History:
    """A history of these rows, with their reservations and with the seats of their sessions."""
    ids = {row.reservation for row in rows} | subject.reservations
    reservations = {id_: row for id_, row in history.reservations.items() if id_ in ids}
    seats = set(subject.seats).union(*(_seats(row) for row in rows))
    sessions = {row.session for row in rows} | {history.seats[seat].session for seat in seats if seat in history.seats}
    return replace(
        history,
        operations=[row for row in rows if isinstance(row, Operation)],
        events=[row for row in rows if isinstance(row, Event)],
        reservations=reservations,
        seats={id_: seat for id_, seat in history.seats.items() if seat.session in sessions},
        audit=(),
        deadlocks=0,
        defects=(),
        on_sale=(),
    )


def _subject(violation: Violation, rows: Sequence[Row]) -> Subject:
    return Subject(
        frozenset(violation.seats).union(*(_seats(row) for row in rows)),
        frozenset(row.reservation for row in rows if row.reservation is not None),
        frozenset((row.customer, row.key) for row in rows if isinstance(row, Operation) and row.key is not None),
    )


def _neighbours(history: History, subject: Subject, named: Sequence[Row]) -> Iterator[Event]:
    """For each of the seats the events during the requests, and the last one before them."""
    began, ended = min(map(_begin, named)), max(map(_end, named))
    before: dict[int, Event] = {}
    for event in history.events:
        for seat in subject.seats.intersection(_seats(event)):
            if event.at < began:
                before[seat] = event
            elif event.at <= ended:
                yield event
    yield from before.values()


def _begin(row: Row) -> float:
    return row.invoked if isinstance(row, Operation) else row.at


def _end(row: Row) -> float:
    return min(row.ended, row.invoked + NEAR_MICROSECONDS) if isinstance(row, Operation) else row.at


def _seats(row: Row) -> Iterator[int]:
    return iter(row.seats) if isinstance(row, Operation) else (change.seat for change in row.changes)

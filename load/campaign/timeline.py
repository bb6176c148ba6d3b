"""The log of each seat and each reservation as periods of time, built by replaying it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

from load.campaign.history import Event, History

AVAILABLE, HELD, SOLD = "AVAILABLE", "HELD", "SOLD"
SEAT_STATE_AFTER = {
    "reservation.held": HELD,
    "reservation.confirmed": SOLD,
    "reservation.expired": AVAILABLE,
    "reservation.cancelled": AVAILABLE,
}
STATE_AFTER = {
    "reservation.held": "HELD",
    "reservation.confirmed": "CONFIRMED",
    "reservation.expired": "EXPIRED",
    "reservation.cancelled": "CANCELLED",
}


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule, in words, with the operations and events that show it, and the seats that they don't name."""

    rule: str
    text: str
    operations: tuple[int, ...] = ()
    events: tuple[int, ...] = ()
    seats: tuple[int, ...] = ()


@dataclass(slots=True)
class Period:
    """One state of a seat: from the clock reading of its event until the next event was certainly committed.

    A settlement reads the clock before it locks the seats, so a request may still see the old state after that reading.
    """

    state: str
    version: int
    began: float
    event: Event | None = None
    known: float = inf
    """When its event was certainly committed: an answer had been given, or the seat was locked again."""
    ended: float = inf

    def overlaps(self, begin: float, end: float) -> bool:
        """Whether the seat was in this state at some moment from `begin` to `end`."""
        return self.began <= end and begin <= self.ended


@dataclass(slots=True)
class Story:
    """The events of one reservation."""

    held: Event
    ended: Event | None = None


@dataclass(slots=True)
class Timeline:
    """Periods by seat, in the order of the versions, and stories by reservation."""

    seats: dict[int, list[Period]]
    stories: dict[str, Story] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)

    def known(self, event: Event) -> float:
        """When the event was certainly committed, as far as its seats show."""
        periods = (period for change in event.changes for period in self.seats.get(change.seat, []))
        return min((period.known for period in periods if period.event is event), default=inf)

    def deadline(self, history: History, reservation: str) -> float:
        """When the hold ends, or infinity for one that is not in the ledger."""
        row = history.reservations.get(reservation)
        return row.expires_at if row else inf


def replay(history: History) -> Timeline:
    """Applies the log event by event; breaches of the transition rules become violations."""
    timeline = Timeline({id_: [Period(AVAILABLE, 1, -inf, known=-inf)] for id_ in history.seats})
    for event in history.events:
        if event.reservation is not None:
            timeline.violations += _apply(timeline, history, event)
    _note_known(timeline, history)
    return timeline


def _apply(timeline: Timeline, history: History, event: Event) -> Iterator[Violation]:
    """One event: first the reservation's rules, then each seat's."""
    assert event.reservation is not None
    yield from _apply_to_reservation(timeline, history, event, event.reservation)
    state = SEAT_STATE_AFTER[event.kind]
    for change in event.changes:
        periods = timeline.seats.get(change.seat)
        if periods is None:
            yield Violation("log", f"event {event.id} names seat {change.seat}, which does not exist", (), (event.id,))
            continue
        last = periods[-1]
        if change.version != last.version + 1:
            text = f"seat {change.seat} goes from version {last.version} to {change.version}"
            yield Violation("log", text, (), _ids(last.event, event))
        if event.at < last.began:
            text = f"seat {change.seat} changes {(last.began - event.at) / 1e6:.3f} s before its last change"
            yield Violation("clock", text, (), _ids(last.event, event))
        yield from _check_owner(event, last, change.seat)
        if change.state != state:
            yield Violation("log", f"{event.kind} makes seat {change.seat} {change.state}", (), (event.id,))
        periods.append(Period(change.state, change.version, event.at, event))


def _check_owner(event: Event, last: Period, seat: int) -> Iterator[Violation]:
    """A hold takes an available seat; an end frees or sells a seat that its own reservation holds."""
    owner = last.event.reservation if last.event and last.state != AVAILABLE else None
    if event.kind == "reservation.held" and owner is not None:
        text = f"seat {seat} is given to {event.reservation} while {owner} has it ({last.state})"
        yield Violation("owner", text, (), _ids(last.event, event))
    if event.kind != "reservation.held" and (owner != event.reservation or last.state != HELD):
        text = f"{event.kind} of {event.reservation} changes seat {seat}, which is {last.state} and belongs to {owner}"
        yield Violation("owner", text, (), _ids(last.event, event))


def _apply_to_reservation(timeline: Timeline, history: History, event: Event, id_: str) -> Iterator[Violation]:
    story = timeline.stories.get(id_)
    if event.kind == "reservation.held":
        if story is not None:
            yield Violation("log", f"{id_} is held twice", (), (story.held.id, event.id))
        timeline.stories[id_] = Story(event)
        return
    if story is None or story.ended is not None:
        text = f"{event.kind} of {id_}, which {'was not held' if story is None else 'has ended already'}"
        yield Violation("log", text, (), _ids(story.ended if story else None, event))
        return
    story.ended = event
    if {c.seat for c in event.changes} != {c.seat for c in story.held.changes}:
        yield Violation("log", f"{event.kind} of {id_} is of other seats than its hold", (), (story.held.id, event.id))
    deadline = timeline.deadline(history, id_)
    if event.kind == "reservation.expired" and event.at < deadline:
        yield Violation("early", f"{id_} expired {(deadline - event.at) / 1e6:.3f} s early", (), (event.id,))
    if event.kind != "reservation.expired" and event.at >= deadline:
        yield Violation("late", f"{event.kind} of {id_} after its deadline", (), (event.id,))


def _note_known(timeline: Timeline, history: History) -> None:
    """An event is certainly committed once its request was answered, and once a later event has locked its seat."""
    answered: dict[tuple[str, str], float] = {}
    kinds = {"hold": "reservation.held", "pay": "reservation.confirmed", "release": "reservation.cancelled"}
    for operation in history.of(*kinds):
        if operation.succeeded and operation.reservation and operation.answered is not None:
            at = (operation.reservation, kinds[operation.kind])
            answered[at] = min(answered.get(at, inf), operation.answered)
    for periods in timeline.seats.values():
        for period, later in zip(periods, [*periods[1:], None], strict=True):
            if period.event is not None and period.event.reservation is not None:
                told = answered.get((period.event.reservation, period.event.kind), inf)
                period.known = min(told, later.began if later else inf)
        for period, later in pairwise(periods):
            period.ended = later.known


def _ids(*events: Event | None) -> tuple[int, ...]:
    return tuple(event.id for event in events if event is not None)


def at_some_moment(periods: Sequence[Period], begin: float, end: float) -> Iterator[Period]:
    """The periods that overlap the time from `begin` to `end`."""
    return (period for period in periods if period.overlaps(begin, end))

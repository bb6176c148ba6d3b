"""Spoils a good history in one place, as a defect of the product would: the checker must find each.

Each mutator changes the history that it is given and returns the rule that must find it. It raises Inapplicable where
the history has no place for it.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

import orjson

from load.campaign.history import HOLD, LIST, MAP, PAY, RELEASE, Event, History, Operation, Reservation

T = TypeVar("T")
Mutator = Callable[[History, random.Random], str]
SECOND = 1_000_000
FIRST_VERSION = 2
"""Of a seat that was held once."""


class Inapplicable(Exception):
    """The history has no place for this damage."""


def _pick(rows: Sequence[T], chance: random.Random) -> T:
    if not rows:
        raise Inapplicable
    return chance.choice(rows)


def _operation(history: History, chance: random.Random, kind: str, problem: str | None = None) -> Operation:
    """One that succeeded, or that was refused for this reason; no replay."""
    fitting = [
        op
        for op in history.of(kind)
        if (op.problem == problem if problem else op.succeeded) and not op.replayed and op.status is not None
    ]
    return _pick(fitting, chance)


def _put(history: History, operation: Operation) -> None:
    (place,) = [n for n, known in enumerate(history.operations) if known.id == operation.id]
    history.operations[place] = operation


def _event(history: History, chance: random.Random, kind: str) -> Event:
    return _pick([event for event in history.events if event.kind == kind], chance)


def _put_event(history: History, event: Event) -> None:
    (place,) = [n for n, known in enumerate(history.events) if known.id == event.id]
    history.events[place] = event


def _row(history: History, chance: random.Random, state: str) -> Reservation:
    return _pick([row for row in history.reservations.values() if row.state == state], chance)


def lost_hold(history: History, chance: random.Random) -> str:
    """An acknowledged hold is in no table and not in the log."""
    operation = _operation(history, chance, HOLD)
    history.reservations.pop(operation.reservation or "")
    history.events[:] = [event for event in history.events if event.reservation != operation.reservation]
    return "lost"


def lost_payment(history: History, chance: random.Random) -> str:
    """An acknowledged payment is in no table and not in the log."""
    operation = _operation(history, chance, PAY)
    row = history.reservations[operation.reservation or ""]
    history.reservations[row.id] = replace(row, state="HELD", settled_at=None, paid=None)
    kind = "reservation.confirmed"
    history.events[:] = [event for event in history.events if (event.reservation, event.kind) != (row.id, kind)]
    return "lost"


def lost_release(history: History, chance: random.Random) -> str:
    """An acknowledged release became an expiry."""
    operation = _operation(history, chance, RELEASE)
    row = history.reservations[operation.reservation or ""]
    history.reservations[row.id] = replace(row, state="EXPIRED")
    for event in history.events:
        if (event.reservation, event.kind) == (row.id, "reservation.cancelled"):
            _put_event(history, replace(event, kind="reservation.expired"))
    return "lost"


def second_owner(history: History, chance: random.Random) -> str:
    """A seat is given to a second reservation while the first one has it."""
    event = _event(history, chance, "reservation.held")
    other = replace(event, id=max(e.id for e in history.events) + 1, reservation="second-owner")
    history.events.insert(history.events.index(event) + 1, other)
    return "owner"


def late_payment(history: History, chance: random.Random) -> str:
    """A payment is accepted after the deadline."""
    row = _row(history, chance, "CONFIRMED")
    history.reservations[row.id] = replace(row, expires_at=(row.settled_at or 0) - 1)
    return "late"


def early_expiry(history: History, chance: random.Random) -> str:
    """A hold ends before its deadline."""
    row = _row(history, chance, "EXPIRED")
    history.reservations[row.id] = replace(row, expires_at=(row.settled_at or 0) + 1)
    return "early"


def late_expiry(history: History, chance: random.Random) -> str:
    """A hold ends a minute after its deadline, without a fault."""
    row = _row(history, chance, "EXPIRED")
    history.faults.clear()
    history.reservations[row.id] = replace(row, expires_at=row.expires_at - 60 * SECOND)
    return "overdue"


def forgotten_hold(history: History, chance: random.Random) -> str:
    """A hold is never ended."""
    row = _row(history, chance, "EXPIRED")
    history.reservations[row.id] = replace(row, state="HELD", settled_at=None)
    history.events[:] = [e for e in history.events if (e.reservation, e.kind) != (row.id, "reservation.expired")]
    return "overdue"


def swapped_order(history: History, chance: random.Random) -> str:
    """Two acknowledged requests for a seat are in the log the other way round than they were made."""
    held = [op for op in history.of(HOLD) if op.succeeded and not op.replayed and op.answered is not None]
    first, later = _pick([(a, b) for a, b in pairwise(held) if a.ended < b.invoked], chance)
    shared = _event(history, chance, "reservation.held").changes[0].seat
    last = max(change.version for event in history.events for change in event.changes if change.seat == shared)
    for version, operation in ((last + 1, later), (last + 2, first)):
        for event in history.events:
            if (event.reservation, event.kind) == (operation.reservation, "reservation.held"):
                changes = (replace(event.changes[0], seat=shared, version=version), *event.changes[1:])
                history.events.remove(event)
                history.events.append(replace(event, changes=changes))
                break
    return "order"


def missing_version(history: History, chance: random.Random) -> str:
    """A seat's versions have a gap."""
    event = _event(history, chance, "reservation.held")
    changes = (replace(event.changes[0], version=event.changes[0].version + 1), *event.changes[1:])
    _put_event(history, replace(event, changes=changes))
    return "log"


def doubled_event(history: History, chance: random.Random) -> str:
    """A change is in the log twice."""
    event = _pick([event for event in history.events if event.reservation], chance)
    history.events.append(replace(event, id=max(e.id for e in history.events) + 1))
    return "log"


def half_a_hold(history: History, chance: random.Random) -> str:
    """A hold of several seats has only some of them in the log."""
    event = _pick([e for e in history.events if e.kind == "reservation.held" and len(e.changes) > 1], chance)
    _put_event(history, replace(event, changes=event.changes[1:]))
    return "ledger"


def stale_map(history: History, chance: random.Random) -> str:
    """A map claims to be newer than what it shows."""
    for _ in range(200):
        first, later = sorted(chance.sample([op for op in history.of(MAP) if op.succeeded], 2), key=lambda op: op.id)
        if first.body != later.body and first.session == later.session and first.ended + SECOND < later.invoked:
            _put(history, replace(later, body=first.body))
            return "map"
    raise Inapplicable


def impossible_letter(history: History, chance: random.Random) -> str:
    """A map shows a seat as sold that never was."""
    sold = {change.seat for event in history.events for change in event.changes if change.state == "SOLD"}
    never = [seat for seat in history.seats.values() if seat.id not in sold]
    seat = _pick(never, chance)
    operation = _pick([op for op in history.of(MAP) if op.succeeded and op.session == seat.session], chance)
    body = operation.body or ""
    _put(history, replace(operation, body=body[: seat.position] + "S" + body[seat.position + 1 :]))
    return "map"


def wrong_counts(history: History, chance: random.Random) -> str:
    """The last list counts a seat too many as sold."""
    operation = _pick([op for op in history.of(LIST) if op.succeeded][-1:], chance)
    counts = operation.reply
    _put(history, replace(operation, body=orjson.dumps(counts | {"sold": counts["sold"] + 1}).decode()))
    return "map"


def other_bytes(history: History, chance: random.Random) -> str:
    """A replay is answered with other bytes."""
    operation = _pick([op for op in history.of(HOLD) if op.succeeded and op.replayed], chance)
    _put(history, replace(operation, body=(operation.body or "") + " "))
    return "replay"


def other_content(history: History, chance: random.Random) -> str:
    """A hold is acknowledged with another total than the ledger's."""
    operation = _operation(history, chance, HOLD)
    reply = operation.reply
    _put(history, replace(operation, body=orjson.dumps(reply | {"total": reply["total"] + 1}).decode()))
    return "content"


def other_seat(history: History, chance: random.Random) -> str:
    """A hold is acknowledged for a seat that another customer bought."""
    operation = _operation(history, chance, HOLD)
    row = history.reservations[operation.reservation or ""]
    other = _pick([id_ for id_ in history.seats if id_ not in row.seats], chance)
    history.reservations[row.id] = replace(row, seats=(other, *row.seats[1:]))
    return "content"


def unexplained_taken(history: History, chance: random.Random) -> str:
    """A hold is refused although its seats were free all the time."""
    seat = _pick(list(history.seats), chance)
    operation = _operation(history, chance, HOLD, "seats-taken")
    began = min(event.at for event in history.events) - 60 * SECOND
    body = orjson.dumps({"seatIds": [seat]}).decode()
    _put(history, replace(operation, seats=(seat,), body=body, invoked=began, answered=began + 1_000))
    return "refusal"


def unexplained_limit(history: History, chance: random.Random) -> str:
    """A customer who has nothing is refused for having too much."""
    operation = _operation(history, chance, HOLD, "seats-taken")
    _put(
        history, replace(operation, customer="a new customer", problem="seat-limit-reached", seats=operation.seats[:1])
    )
    return "refusal"


def unexplained_expiry(history: History, chance: random.Random) -> str:
    """A payment in time is refused as late."""
    operation = _operation(history, chance, PAY)
    row = history.reservations[operation.reservation or ""]
    refused = replace(
        operation, status=409, problem="hold-expired", invoked=row.created_at, answered=row.created_at + 1
    )
    _put(history, refused)
    return "refusal"


def unexplained_reuse(history: History, chance: random.Random) -> str:
    """A new key is refused as used."""
    operation = _operation(history, chance, HOLD, "seats-taken")
    _put(history, replace(operation, key="never used", problem="idempotency-key-reused", status=422))
    return "refusal"


def unasked_hold(history: History, chance: random.Random) -> str:
    """A hold is made for a request that was refused."""
    operation = _operation(history, chance, HOLD)
    for known in list(history.of(HOLD)):
        if known.key == operation.key:
            _put(history, replace(known, status=503, problem="busy", reservation=None))
    return "unasked"


def unasked_payment(history: History, chance: random.Random) -> str:
    """A reservation is paid that no request paid for."""
    row = _row(history, chance, "CONFIRMED")
    history.operations[:] = [op for op in history.operations if (op.kind, op.reservation) != (PAY, row.id)]
    return "unasked"


def unpaid_seat(history: History, chance: random.Random) -> str:
    """A sold seat has no payment."""
    row = _row(history, chance, "CONFIRMED")
    history.reservations[row.id] = replace(row, paid=None)
    return "money"


def doubled_payment(history: History, chance: random.Random) -> str:
    """A purchase is paid twice."""
    row = _row(history, chance, "CONFIRMED")
    history.reservations[row.id] = replace(row, paid=2 * row.total)
    return "money"


def seat_without_owner(history: History, chance: random.Random) -> str:
    """A sold seat is available again."""
    seat = _pick([seat for seat in history.seats.values() if seat.state == "SOLD"], chance)
    history.seats[seat.id] = replace(seat, state="AVAILABLE", reservation=None)
    return "ledger"


def over_limit(history: History, chance: random.Random) -> str:
    """A customer holds more than the limit."""
    row = _row(history, chance, "CONFIRMED")
    event = _pick([event for event in history.events if event.reservation == row.id], chance)
    more = tuple(replace(event.changes[0], seat=-n) for n in range(history.limits.seats_per_customer_max + 1))
    for known in list(history.events):
        if known.reservation == row.id:
            _put_event(history, replace(known, changes=(*known.changes, *more)))
    return "limit"


def clock_before_lock(history: History, chance: random.Random) -> str:
    """A change bears a time before the last change of its seat: the clock was read before the lock."""
    event = _pick([e for e in history.events if any(change.version > FIRST_VERSION for change in e.changes)], chance)
    _put_event(history, replace(event, at=min(known.at for known in history.events) - SECOND))
    return "clock"


def unpublished(history: History, chance: random.Random) -> str:
    """An event never came to a subscriber."""
    event = _pick([event for event in history.events if event.reservation], chance)
    history.events[:] = [replace(known, number=known.id) for known in history.events]
    history.published = frozenset(known.id for known in history.events) - {event.id}
    return "unpublished"


def foreign_payment(history: History, chance: random.Random) -> str:
    """A payment is granted to another customer than the reservation's."""
    operation = _operation(history, chance, PAY)
    _put(history, replace(operation, customer="another customer"))
    return "content"


def deadlocked(history: History, _chance: random.Random) -> str:
    """PostgreSQL ended a deadlock."""
    history.deadlocks = 1
    return "deadlock"


def defect(history: History, chance: random.Random) -> str:
    """A request is answered 500."""
    operation = _operation(history, chance, HOLD, "seats-taken")
    _put(history, replace(operation, status=500, problem="internal-error"))
    return "defect"


MUTATORS: Sequence[Mutator] = (
    lost_hold, lost_payment, lost_release, second_owner, late_payment, early_expiry, late_expiry, forgotten_hold,
    swapped_order, missing_version, doubled_event, half_a_hold, stale_map, impossible_letter, wrong_counts, other_bytes,
    other_content, other_seat, unexplained_taken, unexplained_limit, unexplained_expiry, unexplained_reuse,
    unasked_hold, unasked_payment, unpaid_seat, doubled_payment, seat_without_owner, over_limit,
    clock_before_lock, unpublished, foreign_payment, deadlocked, defect,
)  # fmt: skip

"""Damage to the log and the tables."""

import random
from dataclasses import replace

from load.campaign.history import HOLD, PAY, RELEASE, History
from load.campaign.mutators.picking import (
    FIRST_VERSION,
    SECOND,
    a_reservation,
    an_event,
    an_operation,
    pick,
    put_event,
)


def lost_hold(history: History, chance: random.Random) -> str:
    """An acknowledged hold is in no table and not in the log."""
    operation = an_operation(history, chance, HOLD)
    history.reservations.pop(operation.reservation or "")
    history.events[:] = [event for event in history.events if event.reservation != operation.reservation]
    return "lost"


def lost_payment(history: History, chance: random.Random) -> str:
    """An acknowledged payment is in no table and not in the log."""
    operation = an_operation(history, chance, PAY)
    row = history.reservations[operation.reservation or ""]
    history.reservations[row.id] = replace(row, state="HELD", settled_at=None, paid=None)
    kind = "reservation.confirmed"
    history.events[:] = [event for event in history.events if (event.reservation, event.kind) != (row.id, kind)]
    return "lost"


def lost_release(history: History, chance: random.Random) -> str:
    """An acknowledged release became an expiry."""
    operation = an_operation(history, chance, RELEASE)
    row = history.reservations[operation.reservation or ""]
    history.reservations[row.id] = replace(row, state="EXPIRED")
    for event in history.events:
        if (event.reservation, event.kind) == (row.id, "reservation.cancelled"):
            put_event(history, replace(event, kind="reservation.expired"))
    return "lost"


def second_owner(history: History, chance: random.Random) -> str:
    """A seat is given to a second reservation while the first one has it."""
    event = an_event(history, chance, "reservation.held")
    other = replace(event, id=max(e.id for e in history.events) + 1, reservation="second-owner")
    history.events.insert(history.events.index(event) + 1, other)
    return "owner"


def late_payment(history: History, chance: random.Random) -> str:
    """A payment is accepted after the deadline."""
    row = a_reservation(history, chance, "CONFIRMED")
    history.reservations[row.id] = replace(row, expires_at=(row.settled_at or 0) - 1)
    return "late"


def early_expiry(history: History, chance: random.Random) -> str:
    """A hold ends before its deadline."""
    row = a_reservation(history, chance, "EXPIRED")
    history.reservations[row.id] = replace(row, expires_at=(row.settled_at or 0) + 1)
    return "early"


def late_expiry(history: History, chance: random.Random) -> str:
    """A hold ends a minute after its deadline, without a fault."""
    row = a_reservation(history, chance, "EXPIRED")
    history.faults.clear()
    history.reservations[row.id] = replace(row, expires_at=row.expires_at - 60 * SECOND)
    return "overdue"


def forgotten_hold(history: History, chance: random.Random) -> str:
    """A hold is never ended."""
    row = a_reservation(history, chance, "EXPIRED")
    history.reservations[row.id] = replace(row, state="HELD", settled_at=None)
    history.events[:] = [e for e in history.events if (e.reservation, e.kind) != (row.id, "reservation.expired")]
    return "overdue"


def missing_version(history: History, chance: random.Random) -> str:
    """A seat's versions have a gap."""
    event = an_event(history, chance, "reservation.held")
    changes = (replace(event.changes[0], version=event.changes[0].version + 1), *event.changes[1:])
    put_event(history, replace(event, changes=changes))
    return "log"


def doubled_event(history: History, chance: random.Random) -> str:
    """A change is in the log twice."""
    event = pick([event for event in history.events if event.reservation], chance)
    history.events.append(replace(event, id=max(e.id for e in history.events) + 1))
    return "log"


def half_a_hold(history: History, chance: random.Random) -> str:
    """A hold of several seats has only some of them in the log."""
    event = pick([e for e in history.events if e.kind == "reservation.held" and len(e.changes) > 1], chance)
    put_event(history, replace(event, changes=event.changes[1:]))
    return "ledger"


def unpaid_seat(history: History, chance: random.Random) -> str:
    """A sold seat has no payment."""
    row = a_reservation(history, chance, "CONFIRMED")
    history.reservations[row.id] = replace(row, paid=None)
    return "money"


def doubled_payment(history: History, chance: random.Random) -> str:
    """A purchase is paid twice."""
    row = a_reservation(history, chance, "CONFIRMED")
    history.reservations[row.id] = replace(row, paid=2 * row.total)
    return "money"


def seat_without_owner(history: History, chance: random.Random) -> str:
    """A sold seat is available again."""
    seat = pick([seat for seat in history.seats.values() if seat.state == "SOLD"], chance)
    history.seats[seat.id] = replace(seat, state="AVAILABLE", reservation=None)
    return "ledger"


def over_limit(history: History, chance: random.Random) -> str:
    """A customer holds more than the limit."""
    row = a_reservation(history, chance, "CONFIRMED")
    event = pick([event for event in history.events if event.reservation == row.id], chance)
    more = tuple(replace(event.changes[0], seat=-n) for n in range(history.limits.seats_per_customer_max + 1))
    for known in list(history.events):
        if known.reservation == row.id:
            put_event(history, replace(known, changes=(*known.changes, *more)))
    return "limit"


def clock_before_lock(history: History, chance: random.Random) -> str:
    """A change bears a time before the last change of its seat: the clock was read before the lock."""
    event = pick([e for e in history.events if any(change.version > FIRST_VERSION for change in e.changes)], chance)
    put_event(history, replace(event, at=min(known.at for known in history.events) - SECOND))
    return "clock"


def unpublished(history: History, chance: random.Random) -> str:
    """An event never came to a subscriber."""
    event = pick([event for event in history.events if event.reservation], chance)
    history.published = (history.published or frozenset()) - {event.number or 0}
    return "unpublished"


def unnumbered(history: History, _chance: random.Random) -> str:
    """The last event never gets a number."""
    event = history.events[-1]
    history.published = None
    put_event(history, replace(event, number=None))
    return "unpublished"


def missing_number(history: History, chance: random.Random) -> str:
    """The numbers have a gap."""
    event = pick(history.events[1:], chance)
    later = {known.id for known in history.events if (known.number or 0) >= (event.number or 0)}
    for known in list(history.events):
        if known.id in later:
            put_event(history, replace(known, number=(known.number or 0) + 1))
    history.published = frozenset(known.number or 0 for known in history.events)
    return "log"


def swapped_numbers(history: History, chance: random.Random) -> str:
    """An expiry has its number before its hold."""
    ended = an_event(history, chance, "reservation.expired")
    of_same = [event for event in history.events if event.reservation == ended.reservation]
    held = pick([event for event in of_same if event.kind == "reservation.held"], chance)
    put_event(history, replace(ended, number=held.number))
    put_event(history, replace(held, number=ended.number))
    return "log"


def not_quiet(history: History, _chance: random.Random) -> str:
    """The campaign's end did not become quiet."""
    history.defects = ("it did not become quiet",)
    return "defect"


def deadlocked(history: History, _chance: random.Random) -> str:
    """PostgreSQL ended a deadlock."""
    history.deadlocks = 1
    return "deadlock"


def wrong_deadline(history: History, chance: random.Random) -> str:
    """A deadline comes from a clock that is wrong."""
    row = a_reservation(history, chance, "CANCELLED")
    history.reservations[row.id] = replace(row, expires_at=row.expires_at + 60 * SECOND)
    return "clock"

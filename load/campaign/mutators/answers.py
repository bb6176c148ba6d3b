"""Damage to the answers that clients got."""

import random
from dataclasses import replace
from itertools import pairwise

import orjson

from load.campaign.history import HOLD, LIST, MAP, PAY, History
from load.campaign.mutators.picking import (
    SECOND,
    Inapplicable,
    a_reservation,
    an_event,
    an_operation,
    pick,
    put_operation,
)


def swapped_order(history: History, chance: random.Random) -> str:
    """Two acknowledged requests for a seat are in the log the other way round than they were made."""
    held = [op for op in history.of(HOLD) if op.succeeded and not op.replayed and op.answered is not None]
    first, later = pick([(a, b) for a, b in pairwise(held) if a.ended < b.invoked], chance)
    shared = an_event(history, chance, "reservation.held").changes[0].seat
    last = max(change.version for event in history.events for change in event.changes if change.seat == shared)
    for version, operation in ((last + 1, later), (last + 2, first)):
        for event in history.events:
            if (event.reservation, event.kind) == (operation.reservation, "reservation.held"):
                changes = (replace(event.changes[0], seat=shared, version=version), *event.changes[1:])
                history.events.remove(event)
                history.events.append(replace(event, changes=changes))
                break
    return "order"


def stale_map(history: History, chance: random.Random) -> str:
    """A map claims to be newer than its contents."""
    for _ in range(200):
        first, later = sorted(chance.sample([op for op in history.of(MAP) if op.succeeded], 2), key=lambda op: op.id)
        if first.body != later.body and first.session == later.session and first.ended + SECOND < later.invoked:
            put_operation(history, replace(later, body=first.body))
            return "map"
    raise Inapplicable


def impossible_letter(history: History, chance: random.Random) -> str:
    """A map shows a seat as sold that never was."""
    sold = {change.seat for event in history.events for change in event.changes if change.state == "SOLD"}
    never = [seat for seat in history.seats.values() if seat.id not in sold]
    seat = pick(never, chance)
    operation = pick([op for op in history.of(MAP) if op.succeeded and op.session == seat.session], chance)
    body = operation.body or ""
    put_operation(history, replace(operation, body=body[: seat.position] + "S" + body[seat.position + 1 :]))
    return "map"


def wrong_counts(history: History, chance: random.Random) -> str:
    """The last list counts a seat too many as sold."""
    operation = pick([op for op in history.of(LIST) if op.succeeded][-1:], chance)
    counts = operation.reply
    put_operation(history, replace(operation, body=orjson.dumps(counts | {"sold": counts["sold"] + 1}).decode()))
    return "map"


def other_bytes(history: History, chance: random.Random) -> str:
    """A replay is answered with other bytes."""
    operation = pick([op for op in history.of(HOLD) if op.succeeded and op.replayed], chance)
    put_operation(history, replace(operation, body=(operation.body or "") + " "))
    return "replay"


def other_content(history: History, chance: random.Random) -> str:
    """A hold is acknowledged with another total than the ledger's."""
    operation = an_operation(history, chance, HOLD)
    reply = operation.reply
    put_operation(history, replace(operation, body=orjson.dumps(reply | {"total": reply["total"] + 1}).decode()))
    return "content"


def other_seat(history: History, chance: random.Random) -> str:
    """A hold is acknowledged for a seat that another customer bought."""
    operation = an_operation(history, chance, HOLD)
    row = history.reservations[operation.reservation or ""]
    other = pick([id_ for id_ in history.seats if id_ not in row.seats], chance)
    history.reservations[row.id] = replace(row, seats=(other, *row.seats[1:]))
    return "content"


def unasked_hold(history: History, chance: random.Random) -> str:
    """A hold is made for a request that was refused."""
    operation = an_operation(history, chance, HOLD)
    for known in list(history.of(HOLD)):
        if known.key == operation.key:
            put_operation(history, replace(known, status=503, problem="busy", reservation=None))
    return "unasked"


def unasked_payment(history: History, chance: random.Random) -> str:
    """A reservation is paid that no request paid for."""
    row = a_reservation(history, chance, "CONFIRMED")
    history.operations[:] = [op for op in history.operations if (op.kind, op.reservation) != (PAY, row.id)]
    return "unasked"


def foreign_payment(history: History, chance: random.Random) -> str:
    """A payment is granted to another customer than the reservation's."""
    operation = an_operation(history, chance, PAY)
    put_operation(history, replace(operation, customer="another customer"))
    return "content"


def defect(history: History, chance: random.Random) -> str:
    """A request is answered 500."""
    operation = an_operation(history, chance, HOLD, "seats-taken")
    put_operation(history, replace(operation, status=500, problem="internal-error"))
    return "defect"


def unresolved(history: History, chance: random.Random) -> str:
    """A hold has an unknown outcome for ever."""
    operation = an_operation(history, chance, HOLD, "seats-taken")
    put_operation(
        history, replace(operation, status=None, answered=None, problem=None, body=None, key="its own", hang_up=True)
    )
    return "unresolved"


def lost_session(history: History, chance: random.Random) -> str:
    """A session whose map was read is lost, with everything in it."""
    session = pick([op for op in history.of(MAP) if op.succeeded], chance).session
    seats = {id_: seat for id_, seat in history.seats.items() if seat.session != session}
    history.seats.clear()
    history.seats.update(seats)
    history.reservations = {id_: row for id_, row in history.reservations.items() if row.session != session}
    history.events[:] = [event for event in history.events if event.session != session]
    return "lost"


def unanswered(history: History, chance: random.Random) -> str:
    """A read gets no answer although nothing is wrong."""
    history.faults.clear()
    operation = an_operation(history, chance, MAP)
    put_operation(history, replace(operation, status=None, answered=None, body=None))
    return "unanswered"


def unread_map(history: History, _chance: random.Random) -> str:
    """The last map can't be read."""
    return _unread(history, MAP)


def unread_list(history: History, _chance: random.Random) -> str:
    """The last list can't be read."""
    return _unread(history, LIST)


def _unread(history: History, kind: str) -> str:
    """Every such read after the last event is refused."""
    end = max(event.at for event in history.events)
    for operation in list(history.of(kind)):
        if operation.invoked > end:
            put_operation(history, replace(operation, status=503, problem="busy"))
    return "map"

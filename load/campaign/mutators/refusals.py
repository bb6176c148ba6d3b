"""Refusals that nothing explains."""

import random
from collections import Counter
from dataclasses import replace

import orjson

from load.campaign.history import HOLD, MAP, PAY, History, Operation
from load.campaign.mutators.picking import (
    SECOND,
    a_reservation,
    an_operation,
    pick,
    put_operation,
)


def unexplained_taken(history: History, chance: random.Random) -> str:
    """A hold is refused although its seats were free all the time."""
    seat = pick(list(history.seats), chance)
    operation = an_operation(history, chance, HOLD, "seats-taken")
    began = min(event.at for event in history.events) - 60 * SECOND
    body = orjson.dumps({"seatIds": [seat]}).decode()
    put_operation(history, replace(operation, seats=(seat,), body=body, invoked=began, answered=began + 1_000))
    return "refusal"


def unexplained_limit(history: History, chance: random.Random) -> str:
    """A customer is refused for purchases of another session."""
    bought = Counter[str]()
    for row in history.reservations.values():
        bought[row.customer] += len(row.seats) if row.state == "CONFIRMED" else 0
    customer, count = max(bought.items(), key=lambda item: item[1])
    operation = an_operation(history, chance, HOLD, "seats-taken")
    end = max(event.at for event in history.events) + SECOND
    refused = replace(operation, customer=customer, problem="seat-limit-reached", invoked=end, answered=end + 1_000)
    missing = range(1, history.limits.seats_per_customer_max - count + 2)
    put_operation(history, replace(refused, session=-1, seats=tuple(-n for n in missing)))
    return "refusal"


def unexplained_expiry(history: History, chance: random.Random) -> str:
    """A payment in time is refused as late."""
    operation = an_operation(history, chance, PAY)
    row = history.reservations[operation.reservation or ""]
    refused = replace(
        operation, status=409, problem="hold-expired", invoked=row.created_at, answered=row.created_at + 1
    )
    put_operation(history, refused)
    return "refusal"


def unexplained_reuse(history: History, chance: random.Random) -> str:
    """A new key is refused as used."""
    operation = an_operation(history, chance, HOLD, "seats-taken")
    put_operation(history, replace(operation, key="never used", problem="idempotency-key-reused", status=422))
    return "refusal"


def refused_repetition(history: History, chance: random.Random) -> str:
    """A repeated payment is refused because the reservation is paid."""
    operation = an_operation(history, chance, PAY)
    put_operation(history, replace(operation, status=409, problem="reservation-paid"))
    return "refusal"


def refused_after_deadline(history: History, chance: random.Random) -> str:
    """A payment is repeated after the deadline and refused as late."""
    operation = an_operation(history, chance, PAY)
    deadline = history.reservations[operation.reservation or ""].expires_at
    refused = replace(operation, status=409, problem="hold-expired", body="{}")
    _repeat(history, refused, max(deadline, operation.answered or 0) + 1)
    return "refusal"


def forgotten_key(history: History, chance: random.Random) -> str:
    """A repetition of an acknowledged hold is refused because of its own seats."""
    operation = an_operation(history, chance, HOLD)
    _repeat(history, _taken(operation, operation.seats), (operation.answered or 0) + 1)
    return "refusal"


def forgotten_commit(history: History, chance: random.Random) -> str:
    """A hold without an answer was made and has expired. Its repetition is refused because of the next owner."""
    row = a_reservation(history, chance, "EXPIRED")
    asked = [op for op in history.of(HOLD) if op.customer == row.customer and op.key == row.key]
    for operation in asked:
        unknown = replace(operation, status=None, answered=None, problem=None, body=None)
        put_operation(history, replace(unknown, reservation=None, replayed=False))
    later = [event for event in history.events if event.kind == "reservation.held" and event.at > (row.settled_at or 0)]
    at, seat = pick([(event.at, c.seat) for event in later for c in event.changes if c.seat in row.seats], chance)
    _repeat(history, replace(_taken(asked[0], (seat,)), seats=row.seats), at + 1)
    return "refusal"


def refused_read(history: History, chance: random.Random) -> str:
    """A read of a customer who is signed in is refused."""
    operation = an_operation(history, chance, MAP)
    put_operation(history, replace(operation, status=401, problem="unauthenticated", body="{}"))
    return "refusal"


def refused_role(history: History, chance: random.Random) -> str:
    """A customer may not hold."""
    operation = an_operation(history, chance, HOLD, "seats-taken")
    put_operation(history, replace(operation, status=403, problem="forbidden", body="{}"))
    return "refusal"


def _repeat(history: History, operation: Operation, invoked: int) -> None:
    """Adds the operation as a new one of that time."""
    number = max(op.id for op in history.operations) + 1
    history.operations.append(replace(operation, id=number, invoked=invoked, answered=invoked + 1))


def _taken(operation: Operation, seats: tuple[int, ...]) -> Operation:
    """Refused because of these seats."""
    body = orjson.dumps({"seatIds": seats}).decode()
    return replace(operation, status=409, problem="seats-taken", body=body, reservation=None, replayed=False)

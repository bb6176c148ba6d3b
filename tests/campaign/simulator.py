"""Makes good histories without a server: the rules of the ledger in memory, with overlapping requests and a log."""

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from load.campaign.history import (
    HOLD,
    LIST,
    MAP,
    PAY,
    RELEASE,
    Change,
    Event,
    Fault,
    History,
    Limits,
    Operation,
    Reservation,
    Seat,
)  # fmt: skip

LIMITS = Limits(hold_seconds=1, seats_per_customer_max=6, late_seconds_max=1)
SEATS, CUSTOMERS, PRICE, SESSION = 8, 5, 1_250, 1
BEGIN = 1_800_000_000_000_000
LETTERS = {"AVAILABLE": "A", "HELD": "H", "SOLD": "S"}


def moment(at: int) -> str:
    """RFC 3339, as the service writes it."""
    return datetime.fromtimestamp(at / 1_000_000, UTC).isoformat().replace("+00:00", "Z")


@dataclass(slots=True)
class Simulator:
    """One ledger. Each call takes its decision at `now`, within a request that began before and is answered after."""

    random: random.Random
    now: int = BEGIN
    history: History = field(default_factory=lambda: History(LIMITS))
    open: set[str] = field(default_factory=set)
    keys: int = 0

    def __post_init__(self) -> None:
        for number in range(1, SEATS + 1):
            self.history.seats[number] = Seat(number, SESSION, number - 1, PRICE, "AVAILABLE", 1, None)

    def run(self, steps: int) -> History:
        """A good history with so many requests, which is quiet in the end."""
        self.history.faults.append(Fault("redis killed", BEGIN, BEGIN + 1_000))
        for _ in range(steps):
            self.now += self.random.randrange(1_000, 150_000)
            self._expire()
            self.random.choice((self._hold, self._hold, self._hold, self._pay, self._release, self._map))()
        self.now += 10_000_000
        self._expire()
        self._map()
        self._list()
        self.history.on_sale = (SESSION,)
        self.history.published = frozenset(event.id for event in self.history.events)
        return self.history

    def _request(self, kind: str, **facts: Any) -> Operation:
        begin, end = self.now - self.random.randrange(1, 900), self.now + self.random.randrange(1, 900)
        number = len(self.history.operations) + 1
        given: dict[str, Any] = {"invoked": begin, "answered": end, "status": 200, **facts}
        return Operation(id=number, kind=kind, **given)

    def _note(self, kind: str, **facts: Any) -> None:
        self.history.operations.append(self._request(kind, **facts))

    def _hold(self) -> None:
        customer = f"customer-{self.random.randrange(CUSTOMERS)}"
        seats = tuple(self.random.sample(range(1, SEATS + 1), self.random.randint(1, 3)))
        if self.random.random() < 0.15 and self._repeat():
            return
        self.keys += 1
        asked: dict[str, Any] = {"customer": customer, "seats": seats, "key": f"key-{self.keys}", "session": SESSION}
        taken = [seat for seat in seats if self.history.seats[seat].state != "AVAILABLE"]
        if taken:
            self._note(HOLD, **asked, status=409, problem="seats-taken", body=_text({"seatIds": taken}))
        elif self._claimed(customer) + len(seats) > LIMITS.seats_per_customer_max:
            self._note(HOLD, **asked, status=409, problem="seat-limit-reached", body="{}")
        else:
            row = self._write_hold(customer, tuple(sorted(seats)), f"key-{self.keys}")
            answer: dict[str, Any] = {"status": 201, "body": row.reply, "reservation": row.id}
            if self.random.random() < 0.1:
                self._note(HOLD, **asked, status=None, answered=None, hang_up=True)
                self.now += 1_000
                self._note(HOLD, **asked, **answer, replayed=True)
            else:
                self._note(HOLD, **asked, **answer)

    def _repeat(self) -> bool:
        """An earlier hold again: with its key, or its key for other seats."""
        known = [op for op in self.history.of(HOLD) if op.status == 201 and not op.replayed]
        if not known:
            return False
        first = self.random.choice(known)
        asked: dict[str, Any] = {"customer": first.customer, "key": first.key, "session": SESSION}
        if self.random.random() < 0.5:
            self._note(
                HOLD,
                **asked,
                seats=first.seats,
                status=201,
                body=first.body,
                reservation=first.reservation,
                replayed=True,
            )
        else:
            other = tuple(seat for seat in range(1, SEATS + 1) if seat not in first.seats)[:2]
            self._note(HOLD, **asked, seats=other, status=422, problem="idempotency-key-reused", body="{}")
        return True

    def _claimed(self, customer: str) -> int:
        rows = self.history.reservations.values()
        return sum(len(r.seats) for r in rows if r.customer == customer and r.state in {"HELD", "CONFIRMED"})

    def _write_hold(self, customer: str, seats: tuple[int, ...], key: str) -> Reservation:
        id_ = str(UUID(int=self.random.getrandbits(128)))
        deadline = self.now + int(LIMITS.hold_seconds * 1_000_000)
        held = [{"seatId": seat, "price": PRICE} for seat in seats]
        reply = _text({"reservationId": id_, "seats": held, "total": PRICE * len(seats), "expiresAt": moment(deadline)})
        row = Reservation(
            id_, customer, SESSION, seats, "HELD", PRICE * len(seats), self.now, deadline, None, key, reply, None
        )
        self.history.reservations[id_] = row
        self.open.add(id_)
        self._log("reservation.held", row, "HELD", id_)
        return row

    def _log(self, kind: str, row: Reservation, state: str, owner: str | None) -> None:
        changes = []
        for id_ in row.seats:
            seat = self.history.seats[id_]
            self.history.seats[id_] = replace(seat, state=state, version=seat.version + 1, reservation=owner)
            changes.append(Change(id_, state, seat.version + 1))
        number = len(self.history.events) + 1
        self.history.events.append(Event(number, kind, SESSION, row.id, self.now, tuple(changes), number))

    def _end(self, row: Reservation, state: str) -> Reservation:
        paid = row.total if state == "CONFIRMED" else None
        row = self.history.reservations[row.id] = replace(row, state=state, settled_at=self.now, paid=paid)
        self.open.discard(row.id)
        sold = state == "CONFIRMED"
        self._log(f"reservation.{state.lower()}", row, "SOLD" if sold else "AVAILABLE", row.id if sold else None)
        return row

    def _expire(self) -> None:
        for id_ in sorted(self.open, key=lambda id_: self.history.reservations[id_].expires_at):
            row = self.history.reservations[id_]
            if row.expires_at <= self.now:
                at, self.now = self.now, max(row.expires_at + 500, self.history.events[-1].at + 1)
                self._end(row, "EXPIRED")
                self.now = max(at, self.now + 1)

    def _pay(self) -> None:
        sold = sum(seat.state == "SOLD" for seat in self.history.seats.values())
        if sold < SEATS - 3:
            self._settle(PAY, "CONFIRMED", {"EXPIRED": "hold-expired", "CANCELLED": "reservation-cancelled"})

    def _release(self) -> None:
        self._settle(RELEASE, "CANCELLED", {"EXPIRED": "hold-expired", "CONFIRMED": "reservation-paid"})

    def _settle(self, kind: str, target: str, refusals: dict[str, str]) -> None:
        if not self.history.reservations:
            return
        recent = list(self.history.reservations.values())[-4:]
        row = self.random.choice(recent)
        asked: dict[str, Any] = {"customer": row.customer, "reservation": row.id}
        if row.state in refusals:
            self._note(kind, **asked, status=409, problem=refusals[row.state], body="{}")
            return
        if row.state == "HELD":
            row = self._end(row, target)
        assert row.settled_at is not None
        self._note(kind, **asked, body=_text({"settledAt": moment(row.settled_at)}))

    def _map(self) -> None:
        letters = "".join(LETTERS[seat.state] for seat in self.history.seats.values())
        as_of = self.now - 1
        self._note(MAP, customer="", session=SESSION, body=letters, as_of=as_of)

    def _list(self) -> None:
        letters = "".join(LETTERS[seat.state] for seat in self.history.seats.values())
        counts = {"available": letters.count("A"), "held": letters.count("H"), "sold": letters.count("S")}
        self._note(LIST, customer="", session=SESSION, body=_text(counts))


def _text(body: Any) -> str:
    return orjson.dumps(body).decode()

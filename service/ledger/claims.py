"""The decision on a hold: the request, the locked rows, and the rules. Pure, like `settle`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from uuid import UUID

from service.errors import (
    IdempotencyKeyReused,
    Refusal,
    SaleClosed,
    SalesPaused,
    SeatLimitReached,
    SeatsOfSeveralSessions,
    SeatsTaken,
    SeatsUnknown,
    TokenFault,
    Unauthenticated,
)
from service.ledger import cooldown
from service.ledger.cooldown import OFF, Ended, Patience
from service.reservation import Reservation, Seat, SeatState, State


@dataclass(frozen=True, slots=True)
class Rules:
    """The time to pay, the seats of one session that a customer may hold and own together, and how often holds of one
    session may end unpaid.
    """

    hold_seconds: int
    seats_per_customer_max: int
    patience: Patience = OFF


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """`seat_ids` are sorted and distinct. `reservation_id` is made once, so that a retry finds the first attempt."""

    reservation_id: UUID
    customer_id: UUID
    seat_ids: tuple[int, ...]
    idempotency_key: str | None = None

    def fingerprint(self) -> bytes:
        """Equal for equal seats, whatever the route and the order; 32 bytes."""
        return sha256(b"hold " + b" ".join(b"%d" % seat_id for seat_id in self.seat_ids)).digest()


Render = Callable[[Reservation, Sequence[Seat]], str]
"""Makes the reply, which is stored with a new reservation and returned again for a repeated request."""


@dataclass(frozen=True, slots=True)
class Held:
    """The hold is made: now, or by an earlier request with this key (`replayed`). `reply` is the stored reply."""

    reply: str
    replayed: bool
    now: datetime


@dataclass(frozen=True, slots=True)
class Overdue:
    """Only these overdue holds are in the way. The caller settles them in a transaction of their own, and retries."""

    reservation_ids: frozenset[UUID]


@dataclass(frozen=True, slots=True)
class Remembered:
    """An earlier hold with the same customer and key, or the same reservation id."""

    reservation_id: UUID
    fingerprint: bytes
    reply: str


@dataclass(frozen=True, slots=True)
class LockedSeat:
    """A row of `seats` under our lock, with the facts of its session that a hold needs."""

    seat: Seat
    session_id: int
    showtime: datetime
    currency: str
    state: SeatState
    reservation_id: UUID | None
    version: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A HELD or CONFIRMED reservation that counts towards its customer's limit."""

    reservation_id: UUID
    seat_count: int
    is_overdue: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """A hold that will be written."""

    request: HoldRequest
    reservation: Reservation
    seats: tuple[LockedSeat, ...]
    reply: str


@dataclass(slots=True)
class Situation:
    """The facts under the locks at `now`. `decide` records each hold that it grants, so that later members see it."""

    now: datetime
    rules: Rules
    render: Render
    customer_ids: set[UUID]
    remembered: dict[UUID | tuple[UUID, str], Remembered]
    seats: dict[int, LockedSeat]
    claims: dict[tuple[UUID, int], list[Claim]]
    overdue_holders: set[UUID]
    paused: set[int] = field(default_factory=set)
    ended: dict[tuple[UUID, int], list[Ended]] = field(default_factory=dict)
    accepted: list[Accepted] = field(default_factory=list)

    def decide(self, request: HoldRequest) -> Held | Overdue | Refusal:  # noqa: PLR0911 - one for each refusal
        """The answer to one request. A granted hold is added to `accepted`."""
        if request.customer_id not in self.customer_ids:
            return Unauthenticated(TokenFault.NO_ACCOUNT)
        if first := find_remembered(self.remembered, request):
            if first.fingerprint != request.fingerprint():
                return IdempotencyKeyReused()
            return Held(first.reply, first.reservation_id != request.reservation_id, self.now)
        if unknown := tuple(seat_id for seat_id in request.seat_ids if seat_id not in self.seats):
            return SeatsUnknown(unknown)
        seats = tuple(self.seats[seat_id] for seat_id in request.seat_ids)
        if len({seat.session_id for seat in seats}) > 1:
            return SeatsOfSeveralSessions()
        if seats[0].showtime <= self.now:
            return SaleClosed(seats[0].showtime)
        if seats[0].session_id in self.paused:
            return SalesPaused(seats[0].session_id)
        return self._decide_on_seats(request, seats)

    def _decide_on_seats(self, request: HoldRequest, seats: tuple[LockedSeat, ...]) -> Held | Overdue | Refusal:
        owners = {seat.seat.id: seat.reservation_id for seat in seats if seat.state is not SeatState.AVAILABLE}
        pair = request.customer_id, seats[0].session_id
        claims = self.claims.get(pair, [])
        if taken := tuple(seat_id for seat_id, owner in owners.items() if owner not in self.overdue_holders):
            owner_ids = {owners[seat_id] for seat_id in taken}
            return SeatsTaken(taken, tuple(id_ for claim in claims if (id_ := claim.reservation_id) in owner_ids))
        in_the_way = {owner for owner in owners.values() if owner is not None}
        claimed = sum(claim.seat_count for claim in claims)
        if claimed + len(seats) > self.rules.seats_per_customer_max:
            overdue = [claim for claim in claims if claim.is_overdue]
            claimed -= sum(claim.seat_count for claim in overdue)
            if claimed + len(seats) > self.rules.seats_per_customer_max:
                return SeatLimitReached(self.rules.seats_per_customer_max, claimed)
            in_the_way.update(claim.reservation_id for claim in overdue)
        if wait := cooldown.refusal(self.rules.patience, self.ended.get(pair, ()), request.seat_ids, self.now):
            return wait
        if in_the_way:
            return Overdue(frozenset(in_the_way))
        return self._accept(request, seats)

    def _accept(self, request: HoldRequest, seats: tuple[LockedSeat, ...]) -> Held:
        reservation = Reservation(
            id=request.reservation_id,
            customer_id=request.customer_id,
            session_id=seats[0].session_id,
            seat_ids=request.seat_ids,
            state=State.HELD,
            total=sum(seat.seat.price for seat in seats),
            currency=seats[0].currency,
            created_at=self.now,
            expires_at=self.now + timedelta(seconds=self.rules.hold_seconds),
            settled_at=None,
        )
        by_position = sorted((seat.seat for seat in seats), key=lambda seat: seat.position)
        reply = self.render(reservation, by_position)
        self.accepted.append(Accepted(request, reservation, seats, reply))
        for seat in seats:
            self.seats[seat.seat.id] = replace(seat, state=SeatState.HELD, reservation_id=reservation.id)
        claims = self.claims.setdefault((request.customer_id, reservation.session_id), [])
        claims.append(Claim(reservation.id, len(seats), is_overdue=False))
        if request.idempotency_key is not None:
            memory = Remembered(reservation.id, request.fingerprint(), reply)
            self.remembered[request.customer_id, request.idempotency_key] = memory
        return Held(reply, replayed=False, now=self.now)


def find_remembered(remembered: dict[UUID | tuple[UUID, str], Remembered], request: HoldRequest) -> Remembered | None:
    """The hold that this request, or an earlier one with the same customer and key, has made."""
    if own := remembered.get(request.reservation_id):
        return own
    if request.idempotency_key is None:
        return None
    return remembered.get((request.customer_id, request.idempotency_key))

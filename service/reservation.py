"""A reservation and its transitions. Pure: no clock, no database."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from service.errors import HoldExpired, Refusal, ReservationCancelled, ReservationPaid


class State(StrEnum):
    """HELD at first, then one of the others, which is final."""

    HELD = "HELD"
    CONFIRMED = "CONFIRMED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"


class SeatState(StrEnum):
    """A seat is AVAILABLE if and only if no reservation owns it."""

    AVAILABLE = "AVAILABLE"
    HELD = "HELD"
    SOLD = "SOLD"


@dataclass(frozen=True, slots=True)
class Seat:
    """One place of one session; `price` in minor units, `position` counts from 0 in the order of the placements."""

    id: int
    position: int
    placement: str
    price: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """A customer's claim on seats of one session; `total` in minor units of `currency` (ISO 4217)."""

    id: UUID
    customer_id: UUID
    session_id: int
    seat_ids: tuple[int, ...]
    state: State
    total: int
    currency: str
    created_at: datetime
    expires_at: datetime
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state after the request, and the refusal, if there is one. A refusal may come with a change: a late payment
    is refused, and the hold ends.
    """

    state: State
    refusal: Refusal | None = None


def settle(reservation: Reservation, target: State, now: datetime) -> Verdict:
    """Decides whether the reservation becomes `target` (not HELD) at `now`, which was read after it was locked.

    A hold is valid until just before `expires_at`. A repeated request is granted and changes nothing. Expiring a
    reservation that is not overdue, or not held any longer, changes nothing either.
    """
    state = reservation.state
    if state is State.HELD:
        if now < reservation.expires_at:
            return Verdict(state if target is State.EXPIRED else target)
        state = State.EXPIRED
    if target in (state, State.EXPIRED):
        return Verdict(state)
    return Verdict(state, _refusal(reservation, state))


def _refusal(reservation: Reservation, state: State) -> Refusal:
    """Why a reservation that has ended in `state` can't end in another one."""
    if state is State.CONFIRMED:
        return ReservationPaid(reservation.id)
    if state is State.CANCELLED:
        return ReservationCancelled(reservation.id)
    return HoldExpired(reservation.id, reservation.expires_at)


def seat_state_after(state: State) -> SeatState:
    """The state of a reservation's seats once it is in `state`."""
    return {State.HELD: SeatState.HELD, State.CONFIRMED: SeatState.SOLD}.get(state, SeatState.AVAILABLE)

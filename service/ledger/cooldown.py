"""How long a customer waits whose holds of one session keep ending unpaid. Pure: `claims` asks it under the locks."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from uuid import UUID

from service.errors import HoldCooldown

WINDOW = timedelta(minutes=10)
"""Unpaid ends count together if they are within this time before the last one."""
WAITS = (timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=10))
"""After the last allowed unpaid end, the one after it, and each further one. The last wait is as long as the window, so
that it ends with a new beginning.
"""
CLOCK_SKEW_SECONDS = 60
"""Reservation ids contain the time of the API process that made them."""
NO_ID = UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class Patience:
    """`unpaid_ends_max` unpaid ends make a customer wait, or one less if each was of all `seats_max` seats; 0 switches
    all of it off. From the second one on, a seat that was let go may be held again by the same customer only after
    `rehold_seconds`. The first one has no consequence.
    """

    unpaid_ends_max: int = 0
    rehold_seconds: int = 0
    seats_max: int = 1


OFF = Patience()


@dataclass(frozen=True, slots=True)
class Ended:
    """A hold of the customer in the session that was paid, released, or not paid before its deadline."""

    began: datetime
    ended: datetime
    is_paid: bool
    seat_ids: tuple[int, ...]


def refusal(
    patience: Patience, ended: Collection[Ended], seat_ids: Collection[int], now: datetime
) -> HoldCooldown | None:
    """Why the customer must wait at `now` before a hold of these seats, if at all."""
    unpaid = _unpaid(ended)
    times = _times(unpaid)
    if not patience.unpaid_ends_max or times < min(2, patience.unpaid_ends_max):
        return None
    until, seats = _rehold(patience, unpaid, seat_ids)
    full = sum(len(hold.seat_ids) for hold in unpaid) // patience.seats_max
    if (surplus := max(times, full + 1) - patience.unpaid_ends_max) >= 0:
        wait = WAITS[min(surplus, len(WAITS) - 1)]
        until, seats = max((until, seats), (unpaid[-1].ended + wait, ()))
    return HoldCooldown(until, ceil((until - now).total_seconds()), seats) if now < until else None


def _unpaid(ended: Collection[Ended]) -> list[Ended]:
    """The unpaid ends that count, the last one last. A payment makes a new beginning."""
    in_order = sorted(ended, key=lambda hold: hold.ended)
    paid = [n for n, hold in enumerate(in_order, 1) if hold.is_paid]
    unpaid = in_order[paid[-1] if paid else 0 :]
    return [hold for hold in unpaid if hold.ended > unpaid[-1].ended - WINDOW]


def _times(unpaid: Sequence[Ended]) -> int:
    """How often the customer has let go and held again: the most of these holds of which no two overlap.

    Seats that were held one by one and lapse together are one attempt.
    """
    times, last = 0, None
    for hold in unpaid:
        if last is None or hold.began >= last:
            times, last = times + 1, hold.ended
    return times


def _rehold(patience: Patience, unpaid: Sequence[Ended], seat_ids: Collection[int]) -> tuple[datetime, tuple[int, ...]]:
    """Until when which of the seats are refused. Without such a seat the time is in the past."""
    wait = timedelta(seconds=patience.rehold_seconds)
    until = {seat_id: hold.ended + wait for hold in unpaid for seat_id in hold.seat_ids if seat_id in seat_ids}
    last = max(until.values(), default=unpaid[0].ended)
    return last, tuple(sorted(seat_id for seat_id, time in until.items() if time == last))


def oldest_id(patience: Patience, hold_seconds: int, seconds_since_1970: float) -> UUID:
    """Reservations with smaller ids (uuid7) ended too long ago to count. If the control is off, all are smaller."""
    if not patience.unpaid_ends_max:
        return NO_ID
    look_back = 2 * WINDOW.total_seconds() + hold_seconds + CLOCK_SKEW_SECONDS
    return first_id(seconds_since_1970 - look_back)


def first_id(seconds_since_1970: float) -> UUID:
    """The smallest uuid7 of this time."""
    return UUID(int=int(seconds_since_1970 * 1000) << 80)

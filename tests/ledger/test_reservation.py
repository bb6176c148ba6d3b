"""How a reservation may change: every state, every verb, before, at and after the deadline."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from service.errors import HoldExpired, ReservationCancelled, ReservationPaid, RowlockError
from service.reservation import Reservation, SeatState, State, Verdict, seat_state_after, settle

DEADLINE = datetime(2030, 6, 1, 18, tzinfo=UTC)
TICK = timedelta(microseconds=1)
ID = UUID(int=7)
HELD, CONFIRMED, EXPIRED, CANCELLED = State

# From HELD, what each verb gives: a state, and the refusal that goes with it.
BEFORE_THE_DEADLINE = {CONFIRMED: (CONFIRMED, None), CANCELLED: (CANCELLED, None), EXPIRED: (HELD, None)}
FROM_THE_DEADLINE_ON = {CONFIRMED: (EXPIRED, HoldExpired), CANCELLED: (EXPIRED, HoldExpired), EXPIRED: (EXPIRED, None)}
# An ended reservation stays as it is, whatever the time.
ENDED: dict[tuple[State, State], type[RowlockError] | None] = {
    (CONFIRMED, CONFIRMED): None,
    (CONFIRMED, CANCELLED): ReservationPaid,
    (CONFIRMED, EXPIRED): None,
    (CANCELLED, CONFIRMED): ReservationCancelled,
    (CANCELLED, CANCELLED): None,
    (CANCELLED, EXPIRED): None,
    (EXPIRED, CONFIRMED): HoldExpired,
    (EXPIRED, CANCELLED): HoldExpired,
    (EXPIRED, EXPIRED): None,
}
NOWS = {"before": DEADLINE - TICK, "at": DEADLINE, "after": DEADLINE + timedelta(days=9)}
CASES = [
    *((HELD, target, "before", *expected) for target, expected in BEFORE_THE_DEADLINE.items()),
    *((HELD, target, when, *expected) for target, expected in FROM_THE_DEADLINE_ON.items() for when in ("at", "after")),
    *((state, target, when, state, refusal) for (state, target), refusal in ENDED.items() for when in NOWS),
]


def reservation(state: State) -> Reservation:
    """One whose deadline is DEADLINE."""
    return Reservation(
        id=ID,
        customer_id=UUID(int=1),
        session_id=1,
        seat_ids=(1,),
        state=state,
        total=1250,
        currency="EUR",
        created_at=DEADLINE - timedelta(seconds=30),
        expires_at=DEADLINE,
        settled_at=None if state is HELD else DEADLINE,
    )


def test_the_table_has_every_state_verb_and_time() -> None:
    covered = {(state, target, when) for state, target, when, *_ in CASES}
    assert covered == {(state, target, when) for state in State for target in State if target != HELD for when in NOWS}
    assert len(covered) == len(CASES)


@pytest.mark.parametrize(("state", "target", "when", "becomes", "refusal"), CASES)
def test_a_reservation_becomes_what_the_table_says(
    state: State, target: State, when: str, becomes: State, refusal: type[RowlockError] | None
) -> None:
    verdict = settle(reservation(state), target, NOWS[when])
    assert verdict.state is becomes
    assert type(verdict.refusal) is (refusal or type(None))


def test_a_refusal_tells_which_reservation_and_its_deadline() -> None:
    late = settle(reservation(HELD), CONFIRMED, DEADLINE).refusal
    assert isinstance(late, HoldExpired)
    assert (late.reservation_id, late.expires_at) == (ID, DEADLINE)
    paid = settle(reservation(CONFIRMED), CANCELLED, DEADLINE).refusal
    assert isinstance(paid, ReservationPaid)
    assert paid.reservation_id == ID
    cancelled = settle(reservation(CANCELLED), CONFIRMED, DEADLINE).refusal
    assert isinstance(cancelled, ReservationCancelled)
    assert cancelled.reservation_id == ID


def test_late_payment_is_refused_alike_before_and_after_sweep() -> None:
    unswept, swept = (settle(reservation(state), CONFIRMED, DEADLINE) for state in (HELD, EXPIRED))
    assert unswept.state is swept.state
    assert isinstance(unswept.refusal, HoldExpired)
    assert isinstance(swept.refusal, HoldExpired)
    assert (unswept.refusal.reservation_id, unswept.refusal.expires_at) == (ID, DEADLINE)
    assert (swept.refusal.reservation_id, swept.refusal.expires_at) == (ID, DEADLINE)


@pytest.mark.parametrize("state", [CONFIRMED, CANCELLED, EXPIRED])
def test_asking_twice_changes_nothing_the_second_time(state: State) -> None:
    assert settle(reservation(state), state, DEADLINE) == Verdict(state)


def test_reservation_owns_seats_only_while_held_or_confirmed() -> None:
    assert {state: seat_state_after(state) for state in State} == {
        HELD: SeatState.HELD,
        CONFIRMED: SeatState.SOLD,
        EXPIRED: SeatState.AVAILABLE,
        CANCELLED: SeatState.AVAILABLE,
    }

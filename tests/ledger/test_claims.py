"""The decision on a hold: every refusal, and their order."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from service.errors import (
    IdempotencyKeyReused,
    Refusal,
    SaleClosed,
    SeatLimitReached,
    SeatsOfSeveralSessions,
    SeatsTaken,
    SeatsUnknown,
    Unauthenticated,
)
from service.ledger.claims import Claim, Held, HoldRequest, LockedSeat, Overdue, Remembered, Rules, Situation
from service.reservation import Seat, SeatState, State

NOW = datetime(2030, 6, 1, 18, tzinfo=UTC)
ADA, BOB = UUID(int=1), UUID(int=2)
OTHERS_HOLD, OVERDUE_HOLD, OWN_OVERDUE = UUID(int=101), UUID(int=102), UUID(int=103)
RULES = Rules(hold_seconds=30, seats_per_customer_max=4)
HERE, ELSEWHERE, OVER = 1, 2, 3


def seat(seat_id: int, session_id: int = HERE, owner: UUID | None = None) -> LockedSeat:
    """A locked seat, held where it has an owner; its number is also its place, and its price is 100."""
    return LockedSeat(
        Seat(seat_id, position=1000 - seat_id, placement=f"A{seat_id}", price=100),
        session_id,
        showtime=NOW if session_id == OVER else NOW + timedelta(hours=1),
        currency="EUR",
        state=SeatState.HELD if owner else SeatState.AVAILABLE,
        reservation_id=owner,
        version=1,
    )


def situation() -> Situation:
    """Seats 1 to 9 are free, 10 and 11 taken, 12 held too long; 20 is another session's, 30 of one that is over."""
    seats = [*map(seat, range(1, 10)), seat(10, owner=OTHERS_HOLD), seat(11, owner=OTHERS_HOLD)]
    seats += [seat(12, owner=OVERDUE_HOLD), seat(20, ELSEWHERE), seat(30, OVER), seat(31, OVER, owner=OTHERS_HOLD)]
    return Situation(
        now=NOW,
        rules=RULES,
        render=lambda reservation, seats: f"{reservation.id} {[row.id for row in seats]}",
        customer_ids={ADA, BOB},
        remembered={},
        seats={row.seat.id: row for row in seats},
        claims={},
        overdue_holders={OVERDUE_HOLD},
    )


def asks(*seat_ids: int, customer_id: UUID = ADA, key: str | None = None, number: int = 1) -> HoldRequest:
    """A request whose reservation id contains its number."""
    return HoldRequest(UUID(int=1000 + number), customer_id, seat_ids, key)


def refusal(request: HoldRequest, given: Situation | None = None) -> Refusal:
    """The refusal, and nothing is granted besides."""
    given = given or situation()
    answer = given.decide(request)
    assert isinstance(answer, Refusal), answer
    assert given.accepted == []
    return answer


def test_a_granted_hold_is_written_as_it_was_decided() -> None:
    given = situation()
    answer = given.decide(asks(1, 2))
    (accepted,) = given.accepted
    made = accepted.reservation
    assert answer == Held(f"{made.id} [2, 1]", replayed=False, now=NOW)
    assert (made.state, made.seat_ids, made.total, made.currency) == (State.HELD, (1, 2), 200, "EUR")
    assert (made.created_at, made.expires_at, made.settled_at) == (NOW, NOW + timedelta(seconds=30), None)
    assert accepted.reply == f"{made.id} [2, 1]"


def test_unknown_customer_is_refused() -> None:
    assert isinstance(refusal(asks(1, customer_id=UUID(int=99))), Unauthenticated)


def test_seats_that_are_not_there_are_all_named() -> None:
    unknown = refusal(asks(1, 77, 88))
    assert isinstance(unknown, SeatsUnknown)
    assert unknown.seat_ids == (77, 88)


def test_seats_of_two_sessions_are_refused() -> None:
    assert isinstance(refusal(asks(1, 20)), SeatsOfSeveralSessions)


def test_nothing_is_sold_from_showtime_on() -> None:
    closed = refusal(asks(30))
    assert isinstance(closed, SaleClosed)
    assert closed.showtime == NOW


def test_every_taken_seat_is_named() -> None:
    taken = refusal(asks(1, 10, 11, 12))
    assert isinstance(taken, SeatsTaken)
    assert taken.seat_ids == (10, 11)


def test_a_sold_seat_is_taken() -> None:
    given = situation()
    given.seats[10] = replace(given.seats[10], state=SeatState.SOLD)
    assert isinstance(refusal(asks(10), given), SeatsTaken)


def test_an_overdue_hold_alone_in_the_way_is_to_be_settled_first() -> None:
    given = situation()
    assert given.decide(asks(1, 12)) == Overdue(frozenset({OVERDUE_HOLD}))
    assert given.accepted == []


@pytest.mark.parametrize(("claimed", "asked", "is_granted"), [(0, 4, True), (2, 2, True), (2, 3, False), (4, 1, False)])
def test_a_customer_stays_within_the_limit_of_the_session(claimed: int, asked: int, is_granted: bool) -> None:  # noqa: FBT001
    given = situation()
    given.claims[ADA, HERE] = [Claim(UUID(int=50 + n), 1, is_overdue=False) for n in range(claimed)]
    answer = given.decide(asks(*range(1, asked + 1)))
    if is_granted:
        assert isinstance(answer, Held)
    else:
        assert isinstance(answer, SeatLimitReached)
        assert (answer.seats_max, answer.seats_claimed) == (4, claimed)


def test_claims_of_others_and_of_other_sessions_do_not_count() -> None:
    given = situation()
    given.claims |= {
        (BOB, HERE): [Claim(OTHERS_HOLD, 4, is_overdue=False)],
        (ADA, ELSEWHERE): [Claim(UUID(int=5), 4, is_overdue=False)],
    }
    assert isinstance(given.decide(asks(1, 2, 3, 4)), Held)


def test_own_overdue_hold_counts_until_it_is_settled_first() -> None:
    given = situation()
    given.claims[ADA, HERE] = [Claim(OWN_OVERDUE, 3, is_overdue=True)]
    assert given.decide(asks(1, 2)) == Overdue(frozenset({OWN_OVERDUE}))
    assert given.decide(asks(1, 2, 12)) == Overdue(frozenset({OWN_OVERDUE, OVERDUE_HOLD}))
    assert isinstance(given.decide(asks(1)), Held)


def test_limit_reached_without_the_overdue_hold_is_refused() -> None:
    given = situation()
    given.claims[ADA, HERE] = [Claim(OWN_OVERDUE, 2, is_overdue=True), Claim(UUID(int=5), 3, is_overdue=False)]
    reached = refusal(asks(1, 2), given)
    assert isinstance(reached, SeatLimitReached)
    assert reached.seats_claimed == 3


def test_repeated_key_gets_the_first_reply() -> None:
    given = situation()
    given.remembered[ADA, "key"] = Remembered(UUID(int=5), asks(10, 77).fingerprint(), "the first reply")
    assert given.decide(asks(10, 77, key="key")) == Held("the first reply", replayed=True, now=NOW)
    assert given.accepted == []


def test_a_key_used_for_another_request_is_refused() -> None:
    given = situation()
    given.remembered[ADA, "key"] = Remembered(UUID(int=5), asks(1).fingerprint(), "the first reply")
    assert isinstance(refusal(asks(2, key="key"), given), IdempotencyKeyReused)
    assert isinstance(given.decide(asks(2, key="key", customer_id=BOB)), Held)


def test_retry_that_finds_its_own_hold_is_not_a_replay() -> None:
    given = situation()
    request = asks(1)
    given.remembered[request.reservation_id] = Remembered(request.reservation_id, request.fingerprint(), "my reply")
    assert given.decide(request) == Held("my reply", replayed=False, now=NOW)


def test_the_fingerprint_is_that_of_the_seats_alone() -> None:
    assert asks(1, 2).fingerprint() == asks(1, 2, customer_id=BOB, key="key", number=2).fingerprint()
    assert len({asks(*ids).fingerprint() for ids in [(1, 2), (12,), (1, 22), (1,), (2,)]}) == 5


def test_later_member_sees_seats_granted_to_an_earlier_one() -> None:
    given = situation()
    assert isinstance(given.decide(asks(1, 2, 3, key="key")), Held)
    taken = given.decide(asks(3, 4, customer_id=BOB, number=2))
    assert isinstance(taken, SeatsTaken)
    assert taken.seat_ids == (3,)
    assert isinstance(given.decide(asks(4, 5, number=3)), SeatLimitReached)
    again = given.decide(asks(1, 2, 3, key="key", number=4))
    assert isinstance(again, Held)
    assert again.replayed
    assert isinstance(given.decide(asks(4, key="key", number=5)), IdempotencyKeyReused)
    assert [accepted.request.reservation_id for accepted in given.accepted] == [UUID(int=1001)]


STRANGER = UUID(int=99)
PRECEDENCE = [
    (asks(77, customer_id=STRANGER, key="used"), Unauthenticated),
    (asks(77, key="used"), IdempotencyKeyReused),
    (asks(10, 20, 77), SeatsUnknown),
    (asks(10, 20, 30), SeatsOfSeveralSessions),
    (asks(31), SaleClosed),
    (asks(1, 2, 3, 4, 10), SeatsTaken),
    (asks(1, 2, 3, 4, 12), SeatLimitReached),
]


@pytest.mark.parametrize(("request_", "expected"), PRECEDENCE, ids=[expected.__name__ for _, expected in PRECEDENCE])
def test_first_refusal_to_fix_is_given(request_: HoldRequest, expected: type[Refusal]) -> None:
    given = situation()
    given.remembered[ADA, "used"] = Remembered(UUID(int=5), asks(9).fingerprint(), "the first reply")
    assert type(refusal(request_, given)) is expected

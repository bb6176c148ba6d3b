"""The wait after holds that ended unpaid: pure rules, simulated sales, and the real ledger."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ledger.cooldown import NO_ID, OFF, Ended, Patience, first_id, oldest_id, refusal

NOW = datetime(2030, 6, 1, 18, tzinfo=UTC)
PATIENCE = Patience(unpaid_ends_max=3, rehold_seconds=10, seats_max=10)
SEAT, OTHER_SEAT = 1, 2


def at(seconds: float) -> datetime:
    """A time of the sale."""
    return NOW + timedelta(seconds=seconds)


def held(began: float, ended: float, *seat_ids: int, is_paid: bool = False) -> Ended:
    """A hold that has ended."""
    return Ended(at(began), at(ended), is_paid, seat_ids or (SEAT,))


def one_after_another(count: int, seconds: int = 30) -> list[Ended]:
    """Holds of which each begins when the one before ends, at 0 the first."""
    return [held(n * seconds, (n + 1) * seconds) for n in range(count)]


def wait(ended: Sequence[Ended], now: float, seat_id: int = OTHER_SEAT, patience: Patience = PATIENCE) -> int:
    """The seconds that are left, 0 where the hold is granted."""
    refused = refusal(patience, ended, [seat_id], at(now))
    return refused.retry_after_seconds if refused else 0


@pytest.mark.parametrize("seat_id", [SEAT, OTHER_SEAT])
def test_one_lapse_goes_unnoticed_even_for_its_own_seat(seat_id: int) -> None:
    assert wait([held(0, 30)], 30, seat_id) == 0


@pytest.mark.parametrize(("count", "seconds"), [(0, 0), (1, 0), (2, 0), (3, 30), (4, 120), (5, 600), (6, 600)])
def test_the_wait_grows_with_each_unpaid_end(count: int, seconds: int) -> None:
    ends = one_after_another(count)
    end = 30 * count
    assert wait(ends, end) == seconds
    if seconds:
        assert wait(ends, end + seconds - 0.001) == 1
    assert wait(ends, end + seconds) == 0


def test_the_longest_wait_ends_with_a_new_beginning() -> None:
    ends = [*one_after_another(6), held(780, 810)]
    assert wait(ends, 780) == wait(ends, 810) == 0


def test_seats_held_one_by_one_lapse_as_one_attempt() -> None:
    assert wait([held(n, 30 + n, n) for n in range(10)], 40) == 0


@pytest.mark.parametrize(("count", "seconds"), [(1, 0), (2, 30), (3, 120), (4, 600)])
def test_holds_of_all_seats_make_the_customer_wait_earlier(count: int, seconds: int) -> None:
    ends = [held(30 * n, 30 * n + 30, *range(100 * n, 100 * n + 10)) for n in range(count)]
    assert wait(ends, 30 * count) == seconds


def test_overlapping_holds_do_not_hide_how_often_they_end() -> None:
    chained = [held(15 * n, 15 * n + 30, n) for n in range(6)]
    assert wait(chained, 105) > 0


def test_a_payment_is_a_new_beginning() -> None:
    ends = [*one_after_another(3), held(90, 95, is_paid=True)]
    assert wait(ends, 95) == 0
    assert wait([*ends, held(95, 125), held(125, 155)], 155) == 0


def test_a_seat_let_go_twice_is_refused_for_a_while() -> None:
    ends = [held(0, 30, SEAT, 3), held(30, 60, SEAT)]
    refused = refusal(PATIENCE, ends, [SEAT, OTHER_SEAT], at(61))
    assert refused
    assert (refused.until, refused.seat_ids) == (at(70), (SEAT,))
    assert wait(ends, 61, seat_id=OTHER_SEAT) == 0
    assert wait(ends, 70, seat_id=SEAT) == 0


def test_the_setting_0_switches_all_of_it_off() -> None:
    off = Patience(0, 600)
    assert wait(one_after_another(9), 270, SEAT, off) == wait(one_after_another(9), 270, SEAT, OFF) == 0
    assert oldest_id(off, 30, 1_900_000_000) == NO_ID


@given(st.lists(st.tuples(st.floats(0, 2_000), st.floats(0, 60), st.booleans())), st.floats(0, 3_000))
def test_no_wait_exceeds_ten_minutes_or_grows_while_waiting(
    holds: list[tuple[float, float, bool]], later: float
) -> None:
    ends = [held(began, began + took, is_paid=paid) for began, took, paid in holds]
    refused = refusal(PATIENCE, ends, [SEAT], at(2_060))
    if refused:
        assert 0 < refused.retry_after_seconds <= 600
        again = refusal(PATIENCE, ends, [SEAT], at(2_060 + later))
        assert again is None or again.until == refused.until


def test_ids_of_the_last_minutes_are_after_the_oldest() -> None:
    now = 1_900_000_000.0
    oldest = oldest_id(PATIENCE, 30, now)
    assert UUID(int=0) < first_id(now - 7_200) < oldest < first_id(now - 1_230) < NO_ID


HOLD_SECONDS, SEATS, SALE_SECONDS = 30, 1_000, 3_600


def share_of_spinners(accounts: int, patience: Patience) -> float:
    """The share of the seat-seconds of an hour's sale of 1,000 seats that the accounts keep, and never pay.

    They hold ten seats each, and are faster than all buyers. Buyers want every seat that the accounts leave.
    """
    free, kept = SEATS, 0
    ended: list[list[Ended]] = [[] for _ in range(accounts)]
    until: list[int | None] = [None] * accounts
    for now in range(SALE_SECONDS):
        for n in range(accounts):
            if until[n] == now:
                ended[n].append(held(now - HOLD_SECONDS, now, *range(n * 10, n * 10 + 10)))
                until[n], free = None, free + 10
        for n in range(accounts):
            # Their scripts exchange the seats, so that no account asks for the same ones again.
            if until[n] is None and free and not wait(ended[n], now, seat_id=-1, patience=patience):
                until[n], free, kept = now + HOLD_SECONDS, free - 10, kept + 10 * HOLD_SECONDS
        free = 0
    return kept / (SEATS * SALE_SECONDS)


@pytest.mark.parametrize("accounts", [1, 200])
def test_spinners_keep_at_most_5_percent_of_a_sale(accounts: int) -> None:
    assert share_of_spinners(accounts, PATIENCE) <= 0.05


def test_spinners_would_keep_a_sale_without_the_control() -> None:
    assert share_of_spinners(200, OFF) == 1

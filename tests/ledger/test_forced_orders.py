"""Two requests at once, in an order that the test forces: it keeps a lock until both are seen to wait."""

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from expirer.loops import sweep
from service.database import Connection
from service.errors import IdempotencyKeyReused, ReservationCancelled, ReservationPaid, SeatLimitReached, SeatsTaken
from service.ledger.booking import BoxOffice
from service.ledger.claims import Held
from service.ledger.settling import Settled
from service.reservation import State
from service.settings import Settings
from tests.stage.factories import hold_of, make_customer, make_customers, make_overdue, make_session
from tests.stage.forcing import (
    give,
    give_all,
    hold_one,
    keys,
    locked,
    make_box_office,
    patient_settings,
    settle_one,
    state_of,
)
from tests.stage.waiting import until_lock_waits

pytestmark = pytest.mark.oldest_postgresql


@pytest.fixture
def settings(postgres: Postgres, sql: Connection) -> Settings:  # noqa: ARG001 - the database is emptied first
    """No request times out while the test keeps a lock."""
    return patient_settings(postgres)


@pytest.fixture
def box_office(engine: AsyncEngine) -> BoxOffice:
    """The two writes."""
    return make_box_office(engine)


@pytest.mark.parametrize(
    "order",
    [
        (State.CONFIRMED, State.CANCELLED, ReservationPaid),
        (State.CANCELLED, State.CONFIRMED, ReservationCancelled),
    ],
    ids=["payment first", "release first"],
)
async def test_first_of_a_payment_and_a_release_wins(
    box_office: BoxOffice,
    postgres: Postgres,
    sql: Connection,
    settings: Settings,
    order: tuple[State, State, type[Exception]],
) -> None:
    first, second, refusal = order
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids[:2]
    held = await give(sql, customer, *seats)
    async with locked(postgres, "seats", seats[0]):
        winning = asyncio.create_task(settle_one(box_office, held, first, customer))
        await until_lock_waits(sql)
        losing = asyncio.create_task(settle_one(box_office, held, second, customer))
        await until_lock_waits(sql, 2)
    assert isinstance(await winning, Settled)
    assert isinstance(await losing, refusal)
    assert await state_of(sql, held) == first


async def test_racing_payments_are_one_payment_and_one_answer(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids[:2]
    held = await give(sql, customer, *seats)
    async with locked(postgres, "seats", seats[0]):
        payments = [asyncio.create_task(settle_one(box_office, held, State.CONFIRMED, customer)) for _ in range(2)]
        await until_lock_waits(sql, 2)
    one, other = await asyncio.gather(*payments)
    assert (one.reservation, one.seats) == (other.reservation, other.seats)
    assert sorted([one.changed, other.changed]) == [False, True]


async def test_paying_again_needs_no_lock(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids[:2]
    held = await give(sql, customer, *seats)
    paid = await settle_one(box_office, held, State.CONFIRMED, customer)
    async with locked(postgres, "reservations", held), locked(postgres, "seats", *seats):
        again = await asyncio.wait_for(settle_one(box_office, held, State.CONFIRMED, customer), 10)
    assert (again.reservation, again.changed) == (paid.reservation, False)


async def test_two_sweeps_at_once_share_the_work_and_neither_waits(
    engine: AsyncEngine, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    ids = await give_all(sql, [hold_of(customer, *seats[n : n + 2]) for n in range(0, 12, 2)])
    await make_overdue(sql, *ids)
    three = settings.model_copy(update={"sweep_batch_max": 3})
    async with locked(postgres, "seats", seats[0]):
        first = asyncio.create_task(sweep.step(engine, three))
        await until_lock_waits(sql)
        assert await asyncio.wait_for(sweep.step(engine, three), 10) == 0, "the second has a full batch of its own"
        assert await asyncio.wait_for(sweep.step(engine, three), 10) > 0, "nothing is left for a third"
        assert [await state_of(sql, id_) for id_ in ids] == 3 * ["HELD"] + 3 * ["EXPIRED"]
    assert await first == 0
    assert {await state_of(sql, id_) for id_ in ids} == {"EXPIRED"}
    assert await sql.fetchval("select count(*) from seats where state = 'AVAILABLE'") == len(seats)


async def test_a_hold_that_waits_for_a_seat_being_released_gets_it(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    owner, next_one = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids[:2]
    held = await give(sql, owner, *seats)
    async with locked(postgres, "seats", seats[1]):
        releasing = asyncio.create_task(settle_one(box_office, held, State.CANCELLED, owner))
        await until_lock_waits(sql)
        holding = asyncio.create_task(hold_one(box_office, hold_of(next_one, *seats)))
        await until_lock_waits(sql, 2)
    assert isinstance(await releasing, Settled)
    assert isinstance(await holding, Held)


async def test_a_hold_that_waits_for_a_seat_being_paid_is_refused(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    owner, next_one = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids[:3]
    held = await give(sql, owner, *seats[:2])
    async with locked(postgres, "seats", seats[1]):
        paying = asyncio.create_task(settle_one(box_office, held, State.CONFIRMED, owner))
        await until_lock_waits(sql)
        holding = asyncio.create_task(hold_one(box_office, hold_of(next_one, *seats)))
        await until_lock_waits(sql, 2)
    assert isinstance(await paying, Settled)
    refused = await holding
    assert isinstance(refused, SeatsTaken)
    assert refused.seat_ids == tuple(seats[:2])


async def test_a_twin_waits_for_the_first_and_gets_the_same_reply(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids[:2]
    (key,) = keys(1)
    async with locked(postgres, "seats", seats[0]):
        twins = [asyncio.create_task(hold_one(box_office, hold_of(customer, *seats, key=key))) for _ in range(2)]
        await until_lock_waits(sql, 2)
        assert await sql.fetchval("select count(*) from reservations") == 0
    one, other = await asyncio.gather(*twins)
    assert isinstance(one, Held)
    assert isinstance(other, Held)
    assert one.reply == other.reply
    assert sorted([one.replayed, other.replayed]) == [False, True]
    assert await sql.fetchval("select count(*) from reservations") == 1


async def test_replay_waits_for_no_seat(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids[:2]
    (key,) = keys(1)
    made = await hold_one(box_office, hold_of(customer, *seats, key=key))
    async with locked(postgres, "seats", *seats):
        again = await asyncio.wait_for(hold_one(box_office, hold_of(customer, *seats, key=key)), 10)
    assert isinstance(made, Held)
    assert isinstance(again, Held)
    assert (again.reply, again.replayed) == (made.reply, True)


async def test_other_request_with_a_key_in_flight_waits_and_is_refused(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids[:2]
    (key,) = keys(1)
    async with locked(postgres, "seats", seats[0]):
        first = asyncio.create_task(hold_one(box_office, hold_of(customer, seats[0], key=key)))
        await until_lock_waits(sql)
        other = asyncio.create_task(hold_one(box_office, hold_of(customer, seats[1], key=key)))
        await until_lock_waits(sql, 2)
    assert isinstance(await first, Held)
    assert isinstance(await other, IdempotencyKeyReused)


async def test_two_holds_of_one_customer_at_once_stay_within_the_limit(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    async with locked(postgres, "seats", seats[0]):
        first = asyncio.create_task(hold_one(box_office, hold_of(customer, *seats[:6])))
        await until_lock_waits(sql)
        second = asyncio.create_task(hold_one(box_office, hold_of(customer, *seats[6:11])))
        await until_lock_waits(sql, 2)
    assert isinstance(await first, Held)
    refused = await second
    assert isinstance(refused, SeatLimitReached)
    assert (refused.seats_max, refused.seats_claimed) == (10, 6)


async def test_holds_of_two_seats_in_opposite_order_have_one_winner(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    a, b = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids[:3]
    async with locked(postgres, "seats", seats[0], seats[2]):
        asked = [hold_of(a, seats[0], seats[2]), hold_of(b, seats[2], seats[0])]
        both = [asyncio.create_task(hold_one(box_office, request)) for request in asked]
        await until_lock_waits(sql, 2)
    answers = await asyncio.gather(*both)
    assert sorted(type(answer).__name__ for answer in answers) == ["Held", "SeatsTaken"]
    (refused,) = [answer for answer in answers if isinstance(answer, SeatsTaken)]
    assert refused.seat_ids == (seats[0], seats[2])

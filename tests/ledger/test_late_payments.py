"""Payments, releases and sweeps around a deadline, in orders that the tests force.

A payment counts if PostgreSQL's clock, read once after the reservation was locked, is before the deadline.
"""

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from expirer.loops import sweep
from service.database import Connection
from service.errors import HoldExpired, SeatLimitReached, SeatsTaken
from service.ledger.booking import BoxOffice
from service.ledger.claims import Held
from service.ledger.settling import Settled
from service.reservation import State
from service.settings import Settings
from tests.stage.factories import hold_of, make_customer, make_customers, make_overdue, make_session
from tests.stage.forcing import (
    give,
    hold_one,
    locked,
    make_box_office,
    patient_settings,
    settle_one,
    state_of,
    until_overdue,
)
from tests.stage.waiting import until_lock_waits

pytestmark = pytest.mark.oldest_postgresql

SOON = 3
"""A deadline so many seconds away that a request certainly begins before it."""
AT_ONCE_SECONDS_MAX = 10

BY_THE_CUSTOMER = pytest.mark.parametrize("target", [State.CONFIRMED, State.CANCELLED])


@pytest.fixture
def settings(postgres: Postgres, sql: Connection) -> Settings:  # noqa: ARG001 - the database is emptied first
    """No request times out while the test keeps a lock."""
    return patient_settings(postgres)


@pytest.fixture
def box_office(engine: AsyncEngine) -> BoxOffice:
    """The two writes."""
    return make_box_office(engine)


async def states_of(sql: Connection, *seat_ids: int) -> list[str]:
    """The seats' states by id."""
    return [row["state"] for row in await sql.fetch("select state from seats where id = any($1) order by id", seat_ids)]


@BY_THE_CUSTOMER
async def test_payment_that_waits_beyond_the_deadline_is_too_late(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings, target: State
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids[:2]
    held = await give(sql, customer, *seats, hold_seconds=1)
    async with locked(postgres, "reservations", held):
        settling = asyncio.create_task(settle_one(box_office, held, target, customer))
        await until_lock_waits(sql)
        await until_overdue(sql, held)
    refused = await settling
    assert isinstance(refused, HoldExpired)
    assert refused.reservation_id == held
    assert await state_of(sql, held) == "EXPIRED"
    assert await states_of(sql, *seats) == ["AVAILABLE", "AVAILABLE"]


@BY_THE_CUSTOMER
async def test_payment_in_time_succeeds_though_its_commit_is_late(
    engine: AsyncEngine, postgres: Postgres, sql: Connection, settings: Settings, target: State
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids[:2]
    held = await give(sql, customer, *seats, hold_seconds=SOON)
    async with locked(postgres, "seats", seats[0]):
        settling = asyncio.create_task(settle_one(make_box_office(engine), held, target, customer))
        await until_lock_waits(sql)
        await until_overdue(sql, held)
        await asyncio.wait_for(sweep.step(engine, settings), AT_ONCE_SECONDS_MAX)
        assert await state_of(sql, held) == "HELD"
    settled = await settling
    assert isinstance(settled, Settled)
    assert settled.now < settled.reservation.expires_at
    await sweep.step(engine, settings)
    assert await state_of(sql, held) == target


@BY_THE_CUSTOMER
async def test_payment_during_the_sweep_waits_and_is_refused(
    engine: AsyncEngine, postgres: Postgres, sql: Connection, settings: Settings, target: State
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids[:2]
    held = await give(sql, customer, *seats)
    await make_overdue(sql, held)
    async with locked(postgres, "seats", seats[0]):
        sweeping = asyncio.create_task(sweep.step(engine, settings))
        await until_lock_waits(sql)
        settling = asyncio.create_task(settle_one(make_box_office(engine), held, target, customer))
        await until_lock_waits(sql, 2)
    await sweeping
    assert isinstance(await settling, HoldExpired)
    assert await state_of(sql, held) == "EXPIRED"


@BY_THE_CUSTOMER
async def test_late_payment_gets_one_answer_before_and_after_the_sweep(
    engine: AsyncEngine, sql: Connection, settings: Settings, target: State
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    held = [await give(sql, customer, seat_id) for seat_id in seats[:2]]
    await make_overdue(sql, held[0])
    assert await sweep.step(engine, settings) > 0
    await make_overdue(sql, held[1])
    for id_, state_before in zip(held, ("EXPIRED", "HELD"), strict=True):
        assert await state_of(sql, id_) == state_before
        refused = await settle_one(make_box_office(engine), id_, target, customer)
        assert isinstance(refused, HoldExpired)
        assert refused.expires_at == await sql.fetchval("select expires_at from reservations where id = $1", id_)
        assert await state_of(sql, id_) == "EXPIRED"


async def test_late_commit_counts_towards_the_limit_of_the_next_hold(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    held = await give(sql, customer, *seats[:6], hold_seconds=SOON)
    async with locked(postgres, "seats", seats[0]):
        paying = asyncio.create_task(settle_one(box_office, held, State.CONFIRMED, customer))
        await until_lock_waits(sql)
        await until_overdue(sql, held)
        holding = asyncio.create_task(hold_one(box_office, hold_of(customer, *seats[6:12])))
        await until_lock_waits(sql, 2)
    assert isinstance(await paying, Settled)
    refused = await holding
    assert isinstance(refused, SeatLimitReached)
    assert (refused.seats_max, refused.seats_claimed) == (10, 6)


async def test_late_commit_keeps_its_seats_from_the_next_buyer(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    owner, buyer = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    held = await give(sql, owner, *seats[:2], hold_seconds=SOON)
    async with locked(postgres, "seats", seats[0]):
        paying = asyncio.create_task(settle_one(box_office, held, State.CONFIRMED, owner))
        await until_lock_waits(sql)
        await until_overdue(sql, held)
        # The second seat is not locked by anybody yet: the buyer finds an overdue hold on it.
        buying = asyncio.create_task(hold_one(box_office, hold_of(buyer, *seats[1:3])))
        await until_lock_waits(sql, 2)
    assert isinstance(await paying, Settled)
    refused = await buying
    assert isinstance(refused, SeatsTaken)
    assert refused.seat_ids == (seats[1],)


async def test_buyer_during_the_sweep_waits_and_gets_the_seat(
    engine: AsyncEngine, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    owner, buyer = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    held = await give(sql, owner, *seats[:2])
    await make_overdue(sql, held)
    async with locked(postgres, "seats", seats[0]):
        sweeping = asyncio.create_task(sweep.step(engine, settings))
        await until_lock_waits(sql)
        buying = asyncio.create_task(hold_one(make_box_office(engine), hold_of(buyer, *seats[1:3])))
        await until_lock_waits(sql, 2)
    await sweeping
    assert isinstance(await buying, Held)
    assert await states_of(sql, *seats[:3]) == ["AVAILABLE", "HELD", "HELD"]


async def test_racing_buyers_of_an_overdue_seat_have_one_winner(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    owner, *buyers = await make_customers(sql, settings, 3)
    seats = (await make_session(sql, settings)).seat_ids
    held = await give(sql, owner, *seats[:2])
    await make_overdue(sql, held)
    async with locked(postgres, "reservations", held):
        buying = [asyncio.create_task(hold_one(box_office, hold_of(buyer, *seats[:2]))) for buyer in buyers]
        await until_lock_waits(sql, 2)
    answers = await asyncio.gather(*buying)
    assert sorted(type(answer).__name__ for answer in answers) == ["Held", "SeatsTaken"]
    assert await state_of(sql, held) == "EXPIRED"

"""Bounded queues before PostgreSQL: the refusals, their time, and the return of every slot."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from service.database import Connection
from service.errors import Busy, BusyReason
from service.ledger.booking import BoxOffice
from service.ledger.claims import Held
from service.ledger.gathering import LANES
from service.ledger.settling import Settled
from service.reservation import State
from service.settings import Settings
from tests.conftest import serving
from tests.stage.factories import Account, book, hold_of, make_customer, make_customers, make_session, settle_of
from tests.stage.forcing import LIMITS, give, hold_one, locked, make_box_office, patient_settings, state_of
from tests.stage.metering import moved
from tests.stage.pools import checked_out
from tests.stage.waiting import until_lock_waits

POOL_SIZE = 2


@pytest.fixture
def settings(postgres: Postgres, sql: Connection) -> Settings:  # noqa: ARG001 - the database is emptied first
    """A small pool whose slots are not waited for, and locks that are."""
    return patient_settings(postgres, pool_size=POOL_SIZE, pool_wait_ms=200)


@pytest.fixture
def box_office(engine: AsyncEngine) -> BoxOffice:
    """The two writes."""
    return make_box_office(engine)


@asynccontextmanager
async def every_slot_taken(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, customers: list[Account], seat_id: int
) -> AsyncIterator[list[asyncio.Task[Held | Exception]]]:
    """The seat is locked during the block, and enough holds wait for it to use every slot."""
    async with locked(postgres, "seats", seat_id):
        waiting = [asyncio.create_task(hold_one(box_office, hold_of(who, seat_id))) for who in customers[:POOL_SIZE]]
        await until_lock_waits(sql, POOL_SIZE)
        yield waiting


async def assert_one_winner(waiting: Sequence[asyncio.Task[Any]]) -> None:
    """The holds that waited for one seat have all been answered, and one has it."""
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["Held", "SeatsTaken"]


async def test_full_pool_refuses_a_hold_in_time_and_recovers(
    box_office: BoxOffice, engine: AsyncEngine, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, POOL_SIZE + 1)
    seats = (await make_session(sql, settings)).seat_ids
    late = hold_of(customers[-1], seats[1])
    async with every_slot_taken(box_office, postgres, sql, customers, seats[0]) as waiting:
        refused = await asyncio.wait_for(hold_one(box_office, late), 10)
        assert isinstance(refused, Busy)
        assert refused.reason is BusyReason.CONNECTION
    await assert_one_winner(waiting)
    assert checked_out(engine) == 0
    assert isinstance(await hold_one(box_office, late), Held)


async def test_list_waits_once_for_a_connection(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, POOL_SIZE + 1)
    seats = (await make_session(sql, settings)).seat_ids
    async with every_slot_taken(box_office, postgres, sql, customers, seats[0]) as waiting:
        with moved() as grown:
            answers = await box_office.hold_all([hold_of(customers[-1], seat_id) for seat_id in seats[1:4]])
        assert {type(answer) for answer in answers} == {Busy}
        assert grown["pool_wait_seconds_count"] == 1
    await assert_one_winner(waiting)


async def test_full_pool_is_503_busy_and_the_process_stays_ready(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer, other = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    async with serving(settings.model_copy(update={"pool_size": 1})) as client:
        async with locked(postgres, "seats", seats[0]):
            waiting = asyncio.create_task(book(client, customer, seats[0]))
            await until_lock_waits(sql)
            assert_busy(await book(client, other, seats[1]))
            for path in ("/livez", "/readyz"):
                assert (await client.get(path)).status_code == 200
        assert (await waiting).status_code == 201
        assert (await book(client, other, seats[1])).status_code == 201


def assert_busy(reply: httpx.Response, awaited: str = "a database connection") -> None:
    """It says what was busy, that nothing was changed, and when to try again."""
    assert (reply.status_code, reply.json()["type"]) == (503, "urn:rowlock:problem:busy")
    assert reply.json()["detail"] == f"Timed out waiting for {awaited}. Nothing was changed: try again."
    assert int(reply.headers["Retry-After"]) >= 1


async def test_busy_lanes_are_503_busy_after_the_wait_for_writes(postgres: Postgres, sql: Connection) -> None:
    settings = patient_settings(postgres, write_wait_ms=200)
    customers = await make_customers(sql, settings, LANES + 1)
    seats = (await make_session(sql, settings)).seat_ids
    async with serving(settings) as client:
        async with locked(postgres, "seats", seats[0]):
            waiting = []
            for lane in range(LANES):
                waiting.append(asyncio.create_task(book(client, customers[lane], seats[0])))
                await until_lock_waits(sql, lane + 1)
            assert_busy(await book(client, customers[-1], seats[1]), "earlier holds, payments and releases")
        assert sorted([reply.status_code for reply in await asyncio.gather(*waiting)]) == [201, 409]


async def test_writes_beyond_the_maximum_are_refused_at_once(
    engine: AsyncEngine, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, POOL_SIZE + 1)
    seats = (await make_session(sql, settings)).seat_ids
    held = [await give(sql, customers[-1], seat_id) for seat_id in (*seats[1:3], seats[4])]
    box_office = make_box_office(engine, limits=replace(LIMITS, writes_max=POOL_SIZE))
    async with locked(postgres, "seats", *seats[:3]):
        holds = [asyncio.create_task(box_office.hold(hold_of(who, seats[0]))) for who in customers[:POOL_SIZE]]
        payments = [asyncio.create_task(box_office.settle(settle_of(id_, State.CONFIRMED))) for id_ in held[:POOL_SIZE]]
        await until_lock_waits(sql, POOL_SIZE)
        for refused in (
            box_office.hold(hold_of(customers[-1], seats[3])),
            box_office.settle(settle_of(held[-1], State.CONFIRMED)),
        ):
            with pytest.raises(Busy) as raised:
                await refused
            assert raised.value.reason is BusyReason.WRITE_QUEUE
    await assert_one_winner(holds)
    await asyncio.gather(*payments)
    assert isinstance(await box_office.hold(hold_of(customers[-1], seats[3])), Held)
    assert isinstance(await box_office.settle(settle_of(held[-1], State.CONFIRMED)), Settled)


async def test_cancelled_write_is_finished_and_frees_its_slot(
    box_office: BoxOffice, engine: AsyncEngine, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    holder, payer = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    held = await give(sql, payer, seats[1])
    asked = hold_of(holder, seats[0])
    async with locked(postgres, "seats", *seats[:2]):
        callers = [
            asyncio.create_task(box_office.hold(asked)),
            asyncio.create_task(box_office.settle(settle_of(held, State.CONFIRMED, payer))),
        ]
        await until_lock_waits(sql, 2)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        assert all(caller.cancelled() for caller in callers)
        assert checked_out(engine) == 2, "the work goes on"
    await box_office.drain()
    assert checked_out(engine) == 0
    assert [await state_of(sql, id_) for id_ in (asked.reservation_id, held)] == ["HELD", "CONFIRMED"]


async def test_drain_returns_once_the_last_write_is_done(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seat = (await make_session(sql, settings)).seat_ids[0]
    asked = hold_of(customer, seat)
    async with locked(postgres, "seats", seat):
        caller = asyncio.create_task(box_office.hold(asked))
        await until_lock_waits(sql)
        draining = asyncio.create_task(box_office.drain())
        await asyncio.wait([draining], timeout=0.1)
        assert not draining.done()
    await draining
    assert await state_of(sql, asked.reservation_id) == "HELD"
    assert isinstance(await caller, Held)

"""A list of several requests in which one fails: its neighbours get their answers, and it gets its own error."""

import asyncio
import time
from dataclasses import replace
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from service.database import Connection, create_engine
from service.errors import Busy, BusyReason, OutcomeUnknown
from service.ledger.booking import BoxOffice
from service.ledger.claims import Held
from service.ledger.settling import Settled
from service.reservation import State
from service.settings import Settings
from tests.stage.factories import hold_of, make_customers, make_session, make_settings, settle_of
from tests.stage.forcing import LIMITS, give, locked, make_box_office, state_of
from tests.stage.pools import checked_out
from tests.stage.proxy import COMMIT, Fault, proxy_before
from tests.stage.waiting import until_lock_waits


@pytest.fixture
def settings(postgres: Postgres, sql: Connection) -> Settings:  # noqa: ARG001 - the database is emptied first
    """A lock of another transaction times out soon."""
    return make_settings(postgres.url(), lock_timeout_ms=100)


@pytest.fixture
def box_office(engine: AsyncEngine) -> BoxOffice:
    """The two writes."""
    return make_box_office(engine)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        pytest.param({"key": "a\x00b"}, "invalid byte sequence", id="a NUL byte, which PostgreSQL refuses"),
        pytest.param({"seat_id": 2**63}, "int64", id="a number that the driver can't send"),
    ],
)
async def test_a_hold_with_data_that_can_not_be_stored_fails_alone(
    engine: AsyncEngine, sql: Connection, settings: Settings, bad: dict[str, Any], message: str
) -> None:
    customers = await make_customers(sql, settings, 3)
    seats = (await make_session(sql, settings)).seat_ids
    middle = hold_of(customers[1], bad.get("seat_id", seats[1]), key=bad.get("key"))
    requests = [hold_of(customers[0], seats[0], key="a"), middle, hold_of(customers[2], seats[2], key="c")]
    first, refused, last = await make_box_office(engine).hold_all(requests)
    assert isinstance(first, Held)
    assert isinstance(last, Held)
    assert isinstance(refused, (asyncpg.DataError, ValueError))
    assert message in str(refused)
    assert await sql.fetchval("select count(*) from reservations") == 2
    assert checked_out(engine) == 0


@pytest.mark.parametrize("table", ["accounts", "seats"])
async def test_a_hold_whose_lock_does_not_come_in_time_fails_alone(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings, table: str
) -> None:
    customers = await make_customers(sql, settings, 3)
    seats = (await make_session(sql, settings)).seat_ids
    requests = [hold_of(customer, seat) for customer, seat in zip(customers, seats, strict=False)]
    async with locked(postgres, table, customers[1].id if table == "accounts" else seats[1]):
        first, busy, last = await box_office.hold_all(requests)
    assert isinstance(first, Held)
    assert isinstance(last, Held)
    assert isinstance(busy, Busy)
    assert busy.reason is BusyReason.ROW_LOCK
    (retried,) = await box_office.hold_all(requests[1:2])
    assert isinstance(retried, Held), "nothing of it was done before"


@pytest.mark.parametrize("table", ["reservations", "seats"])
async def test_a_payment_whose_lock_does_not_come_in_time_fails_alone(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings, table: str
) -> None:
    customers = await make_customers(sql, settings, 3)
    seats = (await make_session(sql, settings)).seat_ids
    ids = [await give(sql, customer, seat) for customer, seat in zip(customers, seats, strict=False)]
    requests = [settle_of(id_, State.CONFIRMED, who) for id_, who in zip(ids, customers, strict=True)]
    async with locked(postgres, table, ids[1] if table == "reservations" else seats[1]):
        first, busy, last = await box_office.settle_all(requests)
        assert [await state_of(sql, id_) for id_ in ids] == ["CONFIRMED", "HELD", "CONFIRMED"]
    assert isinstance(first, Settled)
    assert isinstance(last, Settled)
    assert isinstance(busy, Busy)
    assert busy.reason is BusyReason.ROW_LOCK


async def test_locks_of_many_that_do_not_come_are_waited_for_at_once(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    engine = create_engine(make_settings(postgres.url(), lock_timeout_ms=500), "rowlock-test")
    customers = await make_customers(sql, settings, 8)
    seats = (await make_session(sql, settings)).seat_ids[:8]
    requests = [hold_of(customer, seat) for customer, seat in zip(customers, seats, strict=True)]
    async with locked(postgres, "seats", *seats):
        began = time.monotonic()
        answers = await make_box_office(engine).hold_all(requests)
        assert time.monotonic() - began < 8 * 0.5, "one after the other would take nine times as long"
    await engine.dispose()
    assert [type(answer) for answer in answers] == [Busy] * 8


async def test_members_tried_one_by_one_leave_the_pool_to_others(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    engine = create_engine(make_settings(postgres.url(), lock_timeout_ms=500), "rowlock-test")
    customers = await make_customers(sql, settings, 8)
    seats = (await make_session(sql, settings)).seat_ids[:8]
    requests = [hold_of(customer, seat) for customer, seat in zip(customers, seats, strict=True)]
    most = 0
    async with locked(postgres, "seats", *seats):
        box_office = make_box_office(engine, limits=replace(LIMITS, alone_max=2))
        holding = asyncio.create_task(box_office.hold_all(requests))
        while not holding.done():
            await asyncio.wait([holding], timeout=0.02)
            most = max(most, checked_out(engine))
    await engine.dispose()
    assert most == 2


async def test_unknown_outcome_is_looked_up_for_each_member(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    requests = [hold_of(customer, seat) for customer, seat in zip(customers, seats, strict=False)]
    async with proxy_before(postgres) as proxy:
        engine = create_engine(make_settings(proxy.url, lock_timeout_ms=2_000), "rowlock-test")
        proxy.strike(Fault.CUT_AFTER, COMMIT)
        async with locked(postgres, "seats", seats[0]):
            holding = asyncio.create_task(make_box_office(engine).hold_all(requests))
            await until_lock_waits(sql)
            # A transaction that waits for the second customer already comes before the look-up.
            in_the_way = asyncio.create_task(keep_locked(postgres, customers[1].id, holding))
            await until_lock_waits(sql, 2)
        known, unknown = await holding
        await in_the_way
        await engine.dispose()
    assert isinstance(known, Held)
    assert isinstance(unknown, OutcomeUnknown)
    assert await sql.fetchval("select count(*) from reservations") == 2


async def keep_locked(postgres: Postgres, account_id: UUID, until_done: "asyncio.Task[Any]") -> None:
    """Locks the account when it can, until the task is done."""
    async with locked(postgres, "accounts", account_id):
        await asyncio.wait([until_done])

"""The lock order, seen from outside: the customers by id, then the reservations by id, then the seats by id.

Rows lie on their pages against the order of their ids, and the transaction under test finds them as they lie, so that
what orders its locks is its own statements.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from service.api.customer import render_hold
from service.database import Connection
from service.ledger import expiring, holding, settling
from service.ledger.claims import Held, HoldRequest, Rules
from service.ledger.settling import SettleRequest
from service.reservation import State
from service.settings import Settings
from tests.stage.factories import hold_of, make_customers, make_overdue, make_session, settle_of
from tests.stage.forcing import give, give_all, hold_one, locked, make_box_office, patient_settings, unlocked
from tests.stage.waiting import until_lock_waits

pytestmark = pytest.mark.oldest_postgresql

MOVE_ROW = {
    "accounts": "update accounts set name = name where id = $1",
    "reservations": "update reservations set total = total where id = $1",
    "seats": "update seats set version = version where id = $1",
}
NOT_BY = ("indexscan", "indexonlyscan", "bitmapscan", "mergejoin", "hashjoin")
AS_THEY_LIE = {f"enable_{way}": "off" for way in NOT_BY}


@pytest.fixture
def settings(postgres: Postgres, sql: Connection) -> Settings:  # noqa: ARG001 - the database is emptied first
    """No request times out while the test keeps a lock."""
    return patient_settings(postgres)


@pytest.fixture
async def other(postgres: Postgres, sql: Connection) -> AsyncIterator[Connection]:  # noqa: ARG001 - emptied first
    """The connection whose locks are watched. It finds rows in the order in which they lie on their pages."""
    connection = await asyncpg.connect(postgres.url(), server_settings=AS_THEY_LIE)
    yield connection
    await connection.close()


async def lay_backwards(sql: Connection, table: str, ids: Sequence[UUID] | Sequence[int]) -> None:
    """Moves the rows, whose ids ascend, so that they lie the other way round."""
    async with sql.transaction():
        for id_ in reversed(ids):
            await sql.execute(MOVE_ROW[table], id_)
    lying = [row["id"] for row in await sql.fetch(f"select id from {table} order by ctid")]  # noqa: S608 - one of ours
    assert [id_ for id_ in lying if id_ in ids] == list(reversed(ids))


async def hold(connection: Connection, requests: Sequence[HoldRequest]) -> None:
    """Makes these holds in one transaction."""
    async with connection.transaction():
        answers = await holding.hold(connection, requests, Rules(30, 100), render_hold)
    assert {type(answer) for answer in answers} == {Held}


async def settle(connection: Connection, requests: Sequence[SettleRequest]) -> None:
    """Grants these in one transaction."""
    async with connection.transaction():
        answers = await settling.settle(connection, requests)
    assert {type(answer) for answer in answers} == {settling.Settled}


async def sweep(connection: Connection) -> None:
    """Ends the overdue holds."""
    async with connection.transaction():
        assert (await expiring.settle_overdue(connection, 100)).reservations


async def test_hold_locks_customers_by_id_before_any_seat(
    other: Connection, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 3)
    ids = [customer.id for customer in customers]
    seats = list((await make_session(sql, settings)).seat_ids)
    await lay_backwards(sql, "accounts", ids)
    async with locked(postgres, "accounts", ids[1]):
        requests = [hold_of(customer, seat_id) for customer, seat_id in zip(customers[::-1], seats, strict=False)]
        holding_seats = asyncio.create_task(hold(other, requests))
        await until_lock_waits(sql)
        assert await unlocked(sql, "accounts", *ids) == ids[2:]
        assert await unlocked(sql, "seats", *seats) == seats
    await holding_seats


async def test_a_hold_locks_its_seats_by_id_after_all_of_its_customers(
    other: Connection, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 3)
    seats = list((await make_session(sql, settings)).seat_ids[:6])
    await lay_backwards(sql, "seats", seats)
    async with locked(postgres, "seats", seats[2]):
        requests = [hold_of(customer, seats[5 - n], seats[n]) for n, customer in enumerate(customers)]
        holding_seats = asyncio.create_task(hold(other, requests))
        await until_lock_waits(sql)
        assert await unlocked(sql, "accounts", *(customer.id for customer in customers)) == []
        assert await unlocked(sql, "seats", *seats) == seats[3:]
    await holding_seats


async def test_settlement_locks_reservations_by_id_before_any_seat(
    other: Connection, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    (customer,) = await make_customers(sql, settings, 1)
    seats = list((await make_session(sql, settings)).seat_ids[:3])
    held = await give_all(sql, [hold_of(customer, seat_id) for seat_id in seats])
    await lay_backwards(sql, "reservations", held)
    async with locked(postgres, "reservations", held[1]):
        paying = asyncio.create_task(settle(other, [settle_of(id_, State.CONFIRMED) for id_ in held[::-1]]))
        await until_lock_waits(sql)
        assert await unlocked(sql, "reservations", *held) == held[2:]
        assert await unlocked(sql, "seats", *seats) == seats
    await paying


@pytest.mark.parametrize("target", [State.CONFIRMED, State.CANCELLED])
async def test_settlement_locks_seats_by_id_after_its_reservations(
    other: Connection, postgres: Postgres, sql: Connection, settings: Settings, target: State
) -> None:
    (customer,) = await make_customers(sql, settings, 1)
    seats = list((await make_session(sql, settings)).seat_ids[:6])
    held = await give_all(sql, [hold_of(customer, seats[5 - n], seats[n]) for n in range(3)])
    await lay_backwards(sql, "seats", seats)
    async with locked(postgres, "seats", seats[2]):
        settling_seats = asyncio.create_task(settle(other, [settle_of(id_, target) for id_ in held]))
        await until_lock_waits(sql)
        assert await unlocked(sql, "reservations", *held) == []
        assert await unlocked(sql, "seats", *seats) == seats[3:]
    await settling_seats


async def test_sweep_frees_seats_by_id_after_locking_its_reservations(
    other: Connection, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    (customer,) = await make_customers(sql, settings, 1)
    seats = list((await make_session(sql, settings)).seat_ids[:6])
    held = await give_all(sql, [hold_of(customer, seats[5 - n], seats[n]) for n in range(3)])
    await make_overdue(sql, *held)
    await lay_backwards(sql, "seats", seats)
    async with locked(postgres, "seats", seats[2]):
        sweeping = asyncio.create_task(sweep(other))
        await until_lock_waits(sql)
        assert await unlocked(sql, "reservations", *held) == []
        assert await unlocked(sql, "seats", *seats) == seats[3:]
    await sweeping


async def test_sweep_skips_a_locked_reservation(
    other: Connection, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    (customer,) = await make_customers(sql, settings, 1)
    seats = (await make_session(sql, settings)).seat_ids[:3]
    held = await give_all(sql, [hold_of(customer, seat_id) for seat_id in seats])
    await make_overdue(sql, *held)
    async with locked(postgres, "reservations", held[1]):
        await asyncio.wait_for(sweep(other), 20)
    assert [row["id"] for row in await sql.fetch("select id from reservations where state = 'HELD'")] == [held[1]]


async def test_buyer_ends_an_overdue_hold_before_locking_anything_else(
    engine: AsyncEngine, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    owner, buyer = await make_customers(sql, settings, 2)
    seats = list((await make_session(sql, settings)).seat_ids[:2])
    held = await give(sql, owner, seats[0])
    await make_overdue(sql, held)
    async with locked(postgres, "reservations", held):
        buying = asyncio.create_task(hold_one(make_box_office(engine), hold_of(buyer, *seats)))
        await until_lock_waits(sql)
        assert await unlocked(sql, "accounts", owner.id, buyer.id) == [owner.id, buyer.id]
        assert await unlocked(sql, "seats", *seats) == seats
    assert isinstance(await buying, Held)


REFER_TO = "select 1 from {table} where id = $1 for key share nowait"


async def test_locks_do_not_block_foreign_keys_to_their_rows(
    other: Connection, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    (customer,) = await make_customers(sql, settings, 1)
    session = await make_session(sql, settings)
    held = await give(sql, customer, *session.seat_ids[:2])
    async with locked(postgres, "seats", session.seat_ids[1]):
        paying = asyncio.create_task(settle(other, [settle_of(held, State.CONFIRMED)]))
        await until_lock_waits(sql)
        assert await sql.fetchval(REFER_TO.format(table="reservations"), held) == 1
        assert await sql.fetchval(REFER_TO.format(table="seats"), session.seat_ids[0]) == 1
    await paying
    async with locked(postgres, "seats", session.seat_ids[3]):
        buying = asyncio.create_task(hold(other, [hold_of(customer, *session.seat_ids[2:4])]))
        await until_lock_waits(sql)
        assert await sql.fetchval(REFER_TO.format(table="accounts"), customer.id) == 1
        assert await sql.fetchval(REFER_TO.format(table="seats"), session.seat_ids[2]) == 1
        # Else all holds of a session would wait for each other.
        assert await sql.fetchval("select 1 from sessions where id = $1 for update nowait", session.id) == 1
    await buying

"""Processes that die or are stopped, and clients that hang up, leave no lock and no half-made change."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import httpx
import pytest

from dev.postgres import Postgres
from service.database import IDLE_IN_TRANSACTION_SECONDS, Connection, create_engine, snapshot, transaction
from service.errors import DatabaseAway
from service.settings import Settings
from tests.stage.factories import Account, book, make_customer, make_customers, make_session
from tests.stage.forcing import LOCK_ROWS, PATIENT, give, locked, patient_settings, unlocked
from tests.stage.processes import Process, api_process
from tests.stage.proxy import Fault, proxy_before
from tests.stage.waiting import WAIT_SECONDS_MAX, until, until_lock_waits

SLACK_SECONDS = 6
"""For a machine that is busy with something else."""
CONNECTION_CHECK_SECONDS = 2
"""PostgreSQL looks so often whether the client of a running statement is still there."""
LAST_HEARD_OF = """
select state_change
from pg_stat_activity
where datname = current_database()
and state = 'idle in transaction'
"""


@pytest.fixture
def settings(postgres: Postgres, sql: Connection) -> Settings:  # noqa: ARG001 - the database is emptied first
    """No request times out while a lock is kept."""
    return patient_settings(postgres)


@asynccontextmanager
async def killed_before_commit(
    postgres: Postgres, sql: Connection, customer: Account, seat_id: int, fault: Fault
) -> AsyncIterator[datetime]:
    """An API process has been killed after every statement of a hold but COMMIT: when PostgreSQL last heard of it."""
    async with (
        proxy_before(postgres) as proxy,
        api_process(proxy.url) as api,
        httpx.AsyncClient(base_url=api.url) as client,
    ):
        strike = proxy.strike(fault)
        asked = asyncio.create_task(book(client, customer, seat_id))
        await asyncio.wait_for(strike.struck.wait(), WAIT_SECONDS_MAX)
        last_heard_of = await sql.fetchval(LAST_HEARD_OF)
        assert isinstance(last_heard_of, datetime)
        api.kill_now()
        await asyncio.wait([asked])
        assert isinstance(asked.exception(), httpx.TransportError)
        yield last_heard_of


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        pytest.param(Fault.WITHHOLD, (0, IDLE_IN_TRANSACTION_SECONDS), id="at once, when its socket closes"),
        pytest.param(
            Fault.SWALLOW,
            (IDLE_IN_TRANSACTION_SECONDS, IDLE_IN_TRANSACTION_SECONDS + SLACK_SECONDS),
            id="within the stated time, when its socket stays open",
        ),
    ],
)
async def test_worker_killed_before_its_commit_leaves_nothing(
    postgres: Postgres, sql: Connection, settings: Settings, fault: Fault, seconds: tuple[float, float]
) -> None:
    customer, next_one = await make_customers(sql, settings, 2)
    seat = (await make_session(sql, settings)).seat_ids[0]
    async with killed_before_commit(postgres, sql, customer, seat, fault) as last_heard_of:
        await give(sql, next_one, seat)
    (reservation,) = await sql.fetch("select customer_id, created_at from reservations")
    assert reservation["customer_id"] == next_one.id
    assert seconds[0] <= (reservation["created_at"] - last_heard_of).total_seconds() < seconds[1]
    assert await unlocked(sql, "accounts", customer.id) == [customer.id]


async def test_worker_killed_in_a_statement_loses_its_locks_soon(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seat = (await make_session(sql, settings)).seat_ids[0]
    async with (
        locked(postgres, "seats", seat),
        api_process(postgres.url(), **PATIENT) as api,
        httpx.AsyncClient(base_url=api.url) as client,
    ):
        asked = asyncio.create_task(book(client, customer, seat))
        await until_lock_waits(sql)
        assert await unlocked(sql, "accounts", customer.id) == []
        api.kill_now()
        await asyncio.wait([asked])
        async with asyncio.timeout(CONNECTION_CHECK_SECONDS + SLACK_SECONDS):
            await sql.fetch(LOCK_ROWS["accounts"], [customer.id])
    assert isinstance(asked.exception(), httpx.TransportError)


async def test_idle_transaction_loses_its_locks(postgres: Postgres, sql: Connection, settings: Settings) -> None:
    silent = create_engine(settings, "rowlock-silent", idle_in_transaction_seconds=1)
    seat = (await make_session(sql, settings)).seat_ids[0]

    async def say_nothing_until_the_lock_is_gone() -> None:
        async with transaction(silent) as connection:
            await connection.fetch(LOCK_ROWS["seats"], [seat])
            async with locked(postgres, "seats", seat):
                await connection.execute("select 1")

    try:
        with pytest.raises(DatabaseAway):
            await say_nothing_until_the_lock_is_gone()
        async with snapshot(silent) as connection:
            assert await connection.fetchval("select 1") == 1
    finally:
        await silent.dispose()


async def test_clients_that_hang_up_leak_no_connection_and_no_lock(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 4)
    seats = (await make_session(sql, settings)).seat_ids[:3]
    async with api_process(postgres.url(), pool_size=2, **PATIENT) as api:
        async with locked(postgres, "seats", *seats[:2]):
            await hang_up(api, sql, customers[:2], seats[:2])
        await until_held(sql, 2)
        assert await unlocked(sql, "seats", *seats) == seats
        async with httpx.AsyncClient(base_url=api.url, timeout=30) as client:
            async with locked(postgres, "seats", seats[2]):
                both = []
                for customer in customers[2:]:
                    both.append(asyncio.create_task(book(client, customer, seats[2])))
                    # Both at once, so both connections of the pool are there.
                    await until_lock_waits(sql, len(both))
            assert sorted([(await asked).status_code for asked in both]) == [201, 409]


async def hang_up(api: Process, sql: Connection, customers: Sequence[Account], seat_ids: Sequence[int]) -> None:
    """Each customer asks for a seat that is locked, and closes the socket when the hold is seen to wait."""
    async with httpx.AsyncClient(base_url=api.url) as client:
        asked = []
        for customer, seat_id in zip(customers, seat_ids, strict=True):
            asked.append(asyncio.create_task(book(client, customer, seat_id)))
            await until_lock_waits(sql, len(asked))
        for request in asked:
            request.cancel()
        await asyncio.wait(asked)


async def until_held(sql: Connection, count: int) -> None:
    """Returns when this many seats are held."""

    async def held() -> bool:
        return bool(await sql.fetchval("select count(*) = $1 from seats where state = 'HELD'", count))

    await until(held, f"{count} seats held")


async def test_stopped_worker_finishes_the_writes_of_its_clients(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seat = (await make_session(sql, settings)).seat_ids[0]
    async with api_process(postgres.url(), shutdown_seconds=1, **PATIENT) as api:
        async with locked(postgres, "seats", seat), httpx.AsyncClient(base_url=api.url, timeout=30) as client:
            asked = asyncio.create_task(book(client, customer, seat))
            await until_lock_waits(sql)
            api.process.terminate()
            await asyncio.wait([asked])
            assert api.process.returncode is None, "it waits for the write"
            await until_lock_waits(sql)
        assert await api.process.wait() == 0
    assert isinstance(asked.exception(), httpx.TransportError) or asked.result().status_code >= 500
    assert await sql.fetchval("select state from seats where id = $1", seat) == "HELD"

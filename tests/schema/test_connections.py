"""What the pool hands out: a connection that works, or the news that PostgreSQL is away."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from dev.processes import free_port
from service.database import Connection, create_engine, snapshot, transaction
from service.errors import DatabaseAway
from service.ledger.booking import TRIES_MAX
from service.settings import Settings
from tests.stage.factories import hold_of, make_customer, make_settings
from tests.stage.forcing import hold_one, make_box_office
from tests.stage.pools import checked_out
from tests.stage.proxy import ANY_MESSAGE, Fault, Proxy, proxy_before
from tests.stage.waiting import until

SLEEPING = "select count(*) from pg_stat_activity where query like '%pg_sleep%' and pid <> pg_backend_pid()"


async def cancel_while_reading(engine: AsyncEngine, sql: Connection) -> None:
    """A read is cancelled before its answer has come."""

    async def read() -> None:
        async with snapshot(engine) as connection:
            await connection.fetchval("select 'an old answer' from pg_sleep(10)")

    reading = asyncio.create_task(read())

    async def reads() -> bool:
        return bool(await sql.fetchval(SLEEPING))

    await until(reads, "the statement that is to be cancelled")
    reading.cancel()
    await asyncio.wait([reading])


async def cancel_in_a_transaction(engine: AsyncEngine, _sql: Connection) -> None:
    """A transaction is cancelled between two statements."""
    in_the_middle = asyncio.Event()

    async def write() -> None:
        async with transaction(engine):
            in_the_middle.set()
            await asyncio.Event().wait()

    writing = asyncio.create_task(write())
    await in_the_middle.wait()
    writing.cancel()
    await asyncio.wait([writing])


async def write_nonsense(engine: AsyncEngine, _sql: Connection) -> None:
    """A statement fails in the middle of a transaction."""
    with pytest.raises(asyncpg.UndefinedColumnError):
        async with transaction(engine) as connection:
            await connection.execute("select nonsense")


async def be_ended_in_a_transaction(engine: AsyncEngine, sql: Connection) -> None:
    """PostgreSQL ends the connection between two statements."""

    async def write() -> None:
        async with transaction(engine) as connection:
            await sql.fetchval("select pg_terminate_backend($1)", connection.get_server_pid())
            await connection.execute("select 1")

    with pytest.raises(DatabaseAway):
        await write()


async def be_ended_while_idle(engine: AsyncEngine, sql: Connection) -> None:
    """PostgreSQL ends a connection that waits in the pool."""
    async with snapshot(engine) as connection:
        pid = connection.get_server_pid()
    await sql.fetchval("select pg_terminate_backend($1)", pid)

    async def is_seen() -> bool:
        return connection.is_closed()

    await until(is_seen, "the driver's notice that the connection is closed")


@pytest.mark.parametrize(
    "spoil",
    [cancel_while_reading, cancel_in_a_transaction, write_nonsense, be_ended_in_a_transaction, be_ended_while_idle],
)
async def test_pool_hands_out_only_clean_connections(
    settings: Settings, sql: Connection, spoil: Callable[[AsyncEngine, Connection], Awaitable[None]]
) -> None:
    engine = create_engine(settings.model_copy(update={"pool_size": 1}), "rowlock-test")
    try:
        await spoil(engine, sql)
        assert checked_out(engine) == 0
        async with snapshot(engine) as connection:
            assert not connection.is_in_transaction()
            assert await connection.fetchval("select 'a new answer'") == "a new answer"
    finally:
        await engine.dispose()


UNREACHABLE: dict[str, Callable[[Proxy], str]] = {
    "closed port": lambda proxy: replace(proxy.postgres, port=free_port()).url(),
    "no answer": lambda proxy: proxy.url,
    "no such database": lambda proxy: proxy.postgres.url("nowhere"),
    "a new password": lambda proxy: replace(proxy.postgres, password="an old one").url(),
}


@pytest.mark.parametrize("why", UNREACHABLE)
async def test_every_failure_to_connect_is_database_away(
    postgres: Postgres, sql: Connection, settings: Settings, why: str
) -> None:
    customer = await make_customer(sql, settings)
    async with proxy_before(postgres) as proxy:
        for _ in range(TRIES_MAX):
            proxy.strike(Fault.SWALLOW, ANY_MESSAGE)
        away = make_settings(UNREACHABLE[why](proxy), connect_timeout_ms=200)
        engine = create_engine(away, "rowlock-test")
        answer = await hold_one(make_box_office(engine), hold_of(customer, 1))
        assert isinstance(answer, DatabaseAway)
        assert checked_out(engine) == 0
        await engine.dispose()

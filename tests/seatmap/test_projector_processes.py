"""Projectors in processes of their own: killed in the middle of a step, and paused."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import asyncpg
import httpx

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from service.database import Connection
from service.settings import Settings
from tests.stage.factories import book, make_customers, make_session
from tests.stage.processes import api_process, expirer_process
from tests.stage.seat_maps import assert_map_is_right, cursor_of, until_from
from tests.stage.waiting import until, until_lock_waits

PROCESSES = {"projector_interval_ms": 20, "sequencer_interval_ms": 20, "redis_timeout_ms": 2_000, "map_wait_ms": 2_000}

HANG_AT_CURSOR = """
create function hang_at_cursor() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock(1);
    return new;
end $$;
create trigger hang_at_cursor before update of number on cursors
for each row when (new.name = 'cache') execute function hang_at_cursor();
"""


@asynccontextmanager
async def hanging_at_the_cursor(postgres: Postgres) -> AsyncIterator[None]:
    """During the block every change of the projector's cursor waits for a lock."""
    connection = await asyncpg.connect(postgres.url())
    try:
        await connection.execute(HANG_AT_CURSOR)
        await connection.execute("select pg_advisory_lock(1)")
        yield
    finally:
        await connection.execute("select pg_advisory_unlock_all()")
        await connection.execute("drop function hang_at_cursor cascade")
        await connection.close()


async def test_the_step_of_a_killed_projector_is_repeated_correctly(
    postgres: Postgres, sql: Connection, settings: Settings, redis: Redis | Container
) -> None:
    customers = await make_customers(sql, settings, 5)
    on_sale = await make_session(sql, settings, 50)
    options = PROCESSES | {"redis_url": redis.url}
    async with (
        api_process(postgres.url(), **options) as api,
        httpx.AsyncClient(base_url=api.url) as client,
    ):
        async with expirer_process(postgres.url(), **options) as killed:
            await until_from(client, on_sale, "redis")
            async with hanging_at_the_cursor(postgres):
                before = await cursor_of(sql)
                for n, customer in enumerate(customers):
                    await book(client, customer, *on_sale.seat_ids[n * 10 : n * 10 + 7])
                # The changes are in Redis, the cursor is not where they are, and then the process is gone.
                await until_lock_waits(sql, 1, "%update cursors%")
                killed.kill_now()
                await killed.process.wait()
                await until_lock_waits_end(sql)
            assert await cursor_of(sql) == before
        await sql.execute("update cursors set leased_until = clock_timestamp() where name = 'cache'")
        async with expirer_process(postgres.url(), **options):
            await until_from(client, on_sale, "redis", await sql.fetchval("select clock_timestamp()"))
            await assert_map_is_right(client, sql, on_sale)

            async def has_moved() -> bool:
                return await cursor_of(sql) == int(await sql.fetchval("select max(number) from events"))

            await until(has_moved, "the cursor behind the last event")


async def until_lock_waits_end(sql: Connection) -> None:
    """Returns when PostgreSQL has noticed that the client of each waiting statement is gone, and ended it."""
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"

    async def is_over() -> bool:
        return not await sql.fetchval(waiting)

    await until(is_over, "the end of the killed process's sessions")


async def test_while_the_projector_is_paused_postgresql_answers(
    postgres: Postgres, sql: Connection, settings: Settings, redis: Redis | Container
) -> None:
    customers = await make_customers(sql, settings, 4)
    on_sale = await make_session(sql, settings, 64)
    options = PROCESSES | {"redis_url": redis.url, "map_read_interval_ms": 0}
    async with (
        api_process(postgres.url(), **options) as api,
        expirer_process(postgres.url(), **options) as expirer,
        httpx.AsyncClient(base_url=api.url) as client,
    ):
        await until_from(client, on_sale, "redis")
        expirer.pause()
        try:
            stopped_at = await sql.fetchval("select clock_timestamp()")
            for n, customer in enumerate(customers[:2]):
                await book(client, customer, *on_sale.seat_ids[n * 10 : n * 10 + 9])
            await until_from(client, on_sale, "postgresql")
            assert (await assert_map_is_right(client, sql, on_sale))["source"] == "postgresql"
            for n, customer in enumerate(customers[2:], start=2):
                await book(client, customer, *on_sale.seat_ids[n * 10 : n * 10 + 9])
            assert (await assert_map_is_right(client, sql, on_sale))["source"] == "postgresql"
        finally:
            expirer.resume()
        seen = await until_caught_up(client, sql, on_sale.id)
        assert all(as_of < stopped_at or n == 4 * 9 for as_of, n in seen), "older than it says"
        await until_from(client, on_sale, "redis", await sql.fetchval("select clock_timestamp()"))
        assert (await assert_map_is_right(client, sql, on_sale))["source"] == "redis"


async def until_caught_up(client: httpx.AsyncClient, sql: Connection, session_id: int) -> list[tuple[datetime, int]]:
    """All maps until Redis has every hold: their `asOf`, and the number of their seats that are not available."""
    now: datetime = await sql.fetchval("select clock_timestamp()")
    seen: list[tuple[datetime, int]] = []

    async def has_caught_up() -> bool:
        reply = (await client.get(f"/customer/session/{session_id}")).json()
        as_of = datetime.fromisoformat(reply["asOf"])
        seen.append((as_of, sum(seat["state"] != "AVAILABLE" for seat in reply["seats"])))
        return bool(reply["source"] == "redis" and as_of > now)

    await until(has_caught_up, "a map from Redis that is newer")
    return seen

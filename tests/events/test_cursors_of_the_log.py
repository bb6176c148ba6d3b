"""Cursors of the log: one process reads for each, under a lease by PostgreSQL's clock."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from dev.postgres import Postgres
from dev.processes import free_port
from expirer import lease
from service.database import Connection, create_engine
from service.events import cursors
from service.events import log as event_log
from service.settings import Settings
from tests.stage.factories import make_settings
from tests.stage.holdings import make_holds, make_numbered, number_all
from tests.stage.waiting import until, until_lock_waits

pytestmark = pytest.mark.oldest_postgresql

OWNERS = ("a", "b", "c")
LONG_MS, BRIEF_MS = 60_000, 1_500


async def owner_of(sql: Connection) -> str | None:
    """The last owner of the lease of `broker`, whether or not it has ended."""
    owner: str | None = await sql.fetchval("select owner from cursors where name = 'broker'")
    return owner


async def let_the_lease_end(sql: Connection) -> None:
    """As if the time were over."""
    await sql.execute("update cursors set leased_until = clock_timestamp()")


async def test_of_three_owners_one_has_the_lease(sql: Connection) -> None:
    taken = [await cursors.take_lease(sql, "broker", owner, LONG_MS) for owner in (*OWNERS, "a")]
    assert taken == [0, None, None, 0]


async def test_of_three_owners_at_the_same_moment_one_gets_the_lease(postgres: Postgres, sql: Connection) -> None:
    await cursors.take_lease(sql, "broker", "gone", LONG_MS)
    await let_the_lease_end(sql)
    connections = [await asyncpg.connect(postgres.url()) for _ in OWNERS]
    async with sql.transaction():
        await sql.execute("select from cursors for update")
        taking = [
            asyncio.create_task(cursors.take_lease(connection, "broker", owner, LONG_MS))
            for connection, owner in zip(connections, OWNERS, strict=True)
        ]
        await until_lock_waits(sql, 3)
    assert sorted(await asyncio.gather(*taking), key=str) == [0, None, None]
    for connection in connections:
        await connection.close()


async def test_racing_owners_of_a_new_cursor_get_one_lease(postgres: Postgres, sql: Connection) -> None:
    first, second = [await asyncpg.connect(postgres.url()) for _ in range(2)]
    async with first.transaction():
        assert await cursors.take_lease(first, "broker", "a", LONG_MS) == 0
        other = asyncio.create_task(cursors.take_lease(second, "broker", "b", LONG_MS))
        await until_lock_waits(sql)
    assert await other is None
    for connection in (first, second):
        await connection.close()


async def test_dead_owner_is_replaced_when_its_lease_ends(sql: Connection) -> None:
    await cursors.take_lease(sql, "broker", "dead", 500)
    ends = await sql.fetchval("select leased_until from cursors")

    async def taken() -> bool:
        return await cursors.take_lease(sql, "broker", "next", 500) is not None

    await until(taken, "the end of the lease")
    assert await sql.fetchval("select leased_until from cursors") >= ends + timedelta(milliseconds=500)


async def test_lease_is_written_only_after_half_its_time(sql: Connection) -> None:
    await cursors.take_lease(sql, "broker", "a", LONG_MS)
    row = await sql.fetchrow("select xmin, leased_until from cursors")
    assert row is not None
    await cursors.take_lease(sql, "broker", "a", LONG_MS)
    assert await sql.fetchrow("select xmin, leased_until from cursors") == row
    await sql.execute("update cursors set leased_until = clock_timestamp() + interval '29 s'")
    await cursors.take_lease(sql, "broker", "a", LONG_MS)
    assert await sql.fetchval("select leased_until from cursors") > row["leased_until"]


async def test_cursor_moves_only_for_its_present_owner(sql: Connection) -> None:
    await cursors.take_lease(sql, "broker", "a", LONG_MS)
    assert await cursors.move_cursor(sql, "broker", "a", 0, 5)
    await let_the_lease_end(sql)
    assert await cursors.take_lease(sql, "broker", "b", LONG_MS) == 5
    assert not await cursors.move_cursor(sql, "broker", "a", 5, 9)
    assert await cursors.take_lease(sql, "broker", "b", LONG_MS) == 5
    assert await cursors.move_cursor(sql, "broker", "b", 5, 7)


async def test_the_cursor_does_not_move_from_where_it_is_not(sql: Connection) -> None:
    await cursors.take_lease(sql, "broker", "a", LONG_MS)
    assert await cursors.move_cursor(sql, "broker", "a", 0, 5)
    assert not await cursors.move_cursor(sql, "broker", "a", 0, 3), "it never goes back"
    assert await cursors.take_lease(sql, "broker", "a", LONG_MS) == 5


async def test_only_its_owner_releases_a_lease_and_it_is_free_at_once(sql: Connection) -> None:
    await cursors.take_lease(sql, "broker", "a", LONG_MS)
    await cursors.release_lease(sql, "broker", "b")
    assert await cursors.take_lease(sql, "broker", "b", LONG_MS) is None
    await cursors.release_lease(sql, "broker", "a")
    assert await cursors.take_lease(sql, "broker", "b", LONG_MS) == 0


async def test_who_is_at_work_for_longer_than_the_lease_keeps_it(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    brief = settings.model_copy(update={"lease_ms": BRIEF_MS})
    await cursors.take_lease(sql, "broker", "a", BRIEF_MS)
    second_end = await sql.fetchval("select leased_until + make_interval(secs => $1) from cursors", BRIEF_MS / 1_000)

    async def would_be_over() -> bool:
        assert await cursors.take_lease(sql, "broker", "b", BRIEF_MS) is None
        return bool(await sql.fetchval("select clock_timestamp() > $1", second_end))

    async with lease.kept(engine, "broker", "a", brief):
        await until(would_be_over, "a second lease's time")
    assert await owner_of(sql) == "a"


async def test_work_goes_on_while_postgresql_does_not_renew_its_lease() -> None:
    settings = make_settings(f"postgresql://rowlock@127.0.0.1:{free_port()}/postgres", lease_ms=500)
    nowhere = create_engine(settings, "rowlock-test")
    with capture_logs() as logs:
        async with lease.kept(nowhere, "broker", "a", settings):

            async def tried_again() -> bool:
                return len(logs) > 1

            await until(tried_again, "two renewals that failed")
    assert {line["event"] for line in logs} == {"lease not renewed"}
    await nowhere.dispose()


async def test_new_reader_starts_at_the_end_of_the_log(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    last = await make_numbered(engine, sql, settings, 5)
    assert await cursors.take_lease(sql, "broker", "a", LONG_MS) == last == 6
    await make_holds(sql, settings, 2)
    assert await cursors.take_lease(sql, "cache", "a", LONG_MS) == 6
    await number_all(engine, settings)
    assert [event.number for event in await event_log.read_numbered(sql, 6, 10)] == [7, 8, 9]


async def test_the_end_is_known_where_every_event_was_trimmed(sql: Connection) -> None:
    await sql.execute("insert into cursors (name, number) values ('log', 41)")
    assert await cursors.take_lease(sql, "broker", "a", LONG_MS) == 41


async def test_the_end_is_known_where_the_numbering_has_lost_its_place(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    last = await make_numbered(engine, sql, settings, 2)
    await sql.execute("delete from cursors")
    assert await cursors.take_lease(sql, "broker", "a", LONG_MS) == last

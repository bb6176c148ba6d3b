"""Schema upgrades: concurrent ones, newer and broken databases, and processes on a schema that is too old."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from dev.postgres import Postgres
from dev.processes import free_port
from expirer.loops import sweep
from service.database import Connection, create_engine
from service.errors import NotReady
from service.migrate import LOCK_FOR_MIGRATION
from service.migrations import FOLDER, NEWEST
from service.migrations.steps import upgrade
from tests.stage.commands import API, EXPIRER, MIGRATE, Result, run
from tests.stage.databases import own_database
from tests.stage.factories import make_settings
from tests.stage.processes import api_process, environment, expirer_process
from tests.stage.waiting import until, until_lock_waits

TABLES = """
select array_agg(tablename::text order by tablename)
from pg_tables
where schemaname = 'public'
"""
BOTH_WAIT_LONG = """
select count(*) = 2
from pg_stat_activity
where datname = current_database()
and wait_event_type = 'Lock'
and query_start <= clock_timestamp() - interval '1.5 s'
"""
ALL_TABLES = [
    "accounts", "alembic_version", "audits", "cursors", "events", "hold_queues", "payments", "reservations", "seats",
    "sessions", "sign_in_failures",
]  # fmt: skip


@pytest.fixture
async def url(postgres: Postgres) -> AsyncIterator[str]:
    """The URL of a database without any table."""
    async with own_database(postgres, "to_migrate") as made:
        yield made


@pytest.fixture
async def empty(url: str) -> AsyncIterator[Connection]:
    """A connection to it."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


async def migrate(url: str) -> Result:
    """The result of the command."""
    return await run(MIGRATE, environment(url))


@pytest.mark.oldest_postgresql
async def test_concurrent_migrations_make_one_schema(url: str, empty: Connection) -> None:
    first = await asyncpg.connect(url)
    await first.execute(f"begin; {LOCK_FOR_MIGRATION}")
    both = [asyncio.create_task(migrate(url)) for _ in range(2)]
    await until_lock_waits(empty, 2, "%pg_advisory_xact_lock%")
    # For longer than a step waits for a table: the first migration may take its time.
    await until(partial(empty.fetchval, BOTH_WAIT_LONG), "two migrations that wait for 1.5 s")
    assert await empty.fetchval(TABLES) is None
    await first.close()
    for result in [*await asyncio.gather(*both), await migrate(url)]:
        assert result == Result(0, f"The schema is {NEWEST} or newer.\n", "")
    assert await empty.fetchval(TABLES) == ALL_TABLES
    assert [tuple(row) for row in await empty.fetch("select version_num from alembic_version")] == [(NEWEST,)]


@pytest.mark.oldest_postgresql
async def test_migrating_a_newer_database_changes_nothing(url: str, empty: Connection) -> None:
    await make_version(empty, "9999")
    assert (await migrate(url)).code == 0
    assert await empty.fetchval(TABLES) == ["alembic_version"]
    assert await empty.fetchval("select version_num from alembic_version") == "9999"


@pytest.mark.oldest_postgresql
async def test_a_failed_migration_changes_nothing_and_prints_one_line(url: str, empty: Connection) -> None:
    await empty.execute("create table cursors (name text)")
    result = await migrate(url)
    assert result == Result(1, "", 'migrate: relation "cursors" already exists\n')
    assert await empty.fetchval(TABLES) == ["cursors"]


@pytest.mark.oldest_postgresql
async def test_a_migration_without_its_lock_changes_nothing(url: str, empty: Connection) -> None:
    await empty.execute("begin; create table seats ()")
    assert await migrate(url) == Result(1, "", "migrate: canceling statement due to lock timeout\n")
    await empty.execute("rollback")
    assert await empty.fetchval(TABLES) is None


async def test_dropping_the_keys_of_reservations_lets_holds_go_on(url: str, empty: Connection, tmp_path: Path) -> None:
    for number in range(1, 10):
        (tmp_path / f"{number:04}.sql").write_text((FOLDER / f"{number:04}.sql").read_text())
    engine = create_async_engine(url.replace("postgresql", "postgresql+asyncpg", 1))
    async with engine.begin() as connection:
        await connection.run_sync(upgrade, tmp_path)
    await engine.dispose()
    await empty.execute("begin; select from reservations")
    migration = asyncio.create_task(migrate(url))
    other = await asyncpg.connect(url)
    await until_lock_waits(other, 1, "%lock table reservations%")
    await empty.execute("select from seats; select from events; rollback")
    await other.close()
    assert (await migration).code == 0
    assert await empty.fetchval("select count(*) from pg_constraint where conname like '%_reservation_id_fkey'") == 1


def too_old(number: str | None) -> str:
    """The message about a schema with this number."""
    return f"the database's schema is {number or 'empty'}, this release needs {NEWEST}: run python -m service.migrate"


@pytest.mark.parametrize(
    ("command", "number"),
    [(API, None), (EXPIRER, "0000")],
    ids=["the API on an empty one", "the expirer on an older one"],
)
async def test_a_process_refuses_an_older_schema(
    url: str, empty: Connection, command: tuple[str, ...], number: str | None
) -> None:
    if number:
        await make_version(empty, number)
    result = await run(command, environment(url, port=free_port(), expirer_port=free_port()))
    assert result.code == 3
    lines = map(json.loads, result.errors.splitlines())
    assert [line["reason"] for line in lines if line["event"] == "not starting"] == [too_old(number)]


async def test_a_loop_refuses_an_older_schema_at_run_time(url: str) -> None:
    engine = create_engine(make_settings(url), "rowlock-test")
    with pytest.raises(NotReady, match=re.escape(too_old(None))):
        await sweep.step(engine, make_settings(url))
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # the pool that it is has it
    await engine.dispose()


async def test_the_processes_serve_on_a_newer_schema(url: str, empty: Connection) -> None:
    assert (await migrate(url)).code == 0
    await empty.execute("update alembic_version set version_num = '9999'")
    async with api_process(url), expirer_process(url):
        pass


async def make_version(connection: Connection, number: str) -> None:
    """Pretends that the database has the schema with this number."""
    await connection.execute("create table alembic_version (version_num varchar(32) primary key)")
    await connection.execute("insert into alembic_version values ($1)", number)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("postgresql://ada:pw@127.0.0.1:1/rowlock", "migrate: .*Connect call failed.*"),
        ("postgresql://no-such-host.invalid/rowlock", "migrate: .+"),
        ("mysql://127.0.0.1/rowlock", "migrate: settings: ROWLOCK_DATABASE_URL: .*postgresql.*"),
    ],
)
async def test_migrating_without_a_server_fails_with_a_sentence(address: str, reason: str) -> None:
    result = await migrate(address)
    assert (result.code, result.output) == (1, "")
    assert re.fullmatch(reason + "\n", result.errors)


def test_steps_are_numbered_without_gaps() -> None:
    numbers = sorted(path.stem for path in FOLDER.glob("*.sql"))
    assert numbers == [f"{n:04}" for n in range(1, len(numbers) + 1)]
    assert numbers[-1] == NEWEST


async def test_only_the_missing_steps_run(url: str, empty: Connection, tmp_path: Path) -> None:
    engine = create_async_engine(url.replace("postgresql", "postgresql+asyncpg", 1))
    for number in range(1, 4):
        (tmp_path / f"{number:04}.sql").write_text(f"create table step_{number} (); create table more_{number} ();")
        if number == 2:
            continue
        async with engine.begin() as connection:
            await connection.run_sync(upgrade, tmp_path)
        assert await empty.fetchval("select version_num from alembic_version") == f"{number:04}"
    await engine.dispose()
    made = [f"{kind}_{number}" for kind in ("more", "step") for number in (1, 2, 3)]
    assert await empty.fetchval(TABLES) == ["alembic_version", *made]

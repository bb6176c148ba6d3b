"""A database that was dumped and restored into a new cluster: every event is published still, in order, once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres, debian_binaries, wheel_binaries
from service.database import Connection, create_engine
from service.ledger.settling import settle
from service.reservation import State
from service.settings import Settings
from tests.stage.broker import listening, versions_told
from tests.stage.factories import make_settings, settle_of
from tests.stage.holdings import make_holds, make_numbered, number_all
from tests.stage.relaying import Broker, cursor, relaying, until_published
from tests.stage.servers import NEWEST, Servers
from tests.stage.verdict import broken_rules

pytestmark = pytest.mark.oldest_postgresql


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, rabbitmq: Broker) -> Settings:  # noqa: ARG001 - emptied first
    """With a broker."""
    return make_settings(postgres.url(), broker_url=rabbitmq.url)


async def major_of(sql: Connection) -> int:
    """The server's version."""
    return int(await sql.fetchval("select current_setting('server_version_num')::int / 10000"))


@pytest.fixture
async def new_cluster(servers: Servers, sql: Connection) -> AsyncIterator[Postgres]:
    """An empty cluster of the same version."""
    major = await major_of(sql)
    made = await asyncio.to_thread(servers.make, f"restored-{major}", major)
    yield made
    await asyncio.to_thread(made.kill)


async def run(*command: str | Path) -> None:
    """Runs a program to its end, which must be a good one."""
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()


async def dump_and_restore(sql: Connection, source: Postgres, target: Postgres, folder: Path) -> None:
    """With the tools that come with the server."""
    major = await major_of(sql)
    binaries = wheel_binaries() if major == NEWEST else debian_binaries(major)
    file = folder / "dump"
    await run(binaries / "pg_dump", "--format=custom", f"--file={file}", f"--dbname={source.url()}")
    await run(binaries / "pg_restore", "--exit-on-error", f"--dbname={target.url()}", file)


async def make_log(engine: AsyncEngine, sql: Connection, settings: Settings) -> None:
    """Events with numbers that are not published, and events without, all of seats that have changed before."""
    held = await sql.fetch("select id from reservations where state = 'HELD' order by id")
    for row in held[:2]:
        async with sql.transaction():
            await settle(sql, [settle_of(row["id"], State.CANCELLED)])
    await number_all(engine, settings)
    for row in held[2:4]:
        async with sql.transaction():
            await settle(sql, [settle_of(row["id"], State.CONFIRMED)])
    await make_holds(sql, settings, 3)


async def test_restored_log_is_published_in_order_and_once(  # noqa: PLR0913, PLR0917 - fixtures
    engine: AsyncEngine,
    postgres: Postgres,
    sql: Connection,
    settings: Settings,
    rabbitmq: Broker,
    new_cluster: Postgres,
    tmp_path: Path,
) -> None:
    with listening(rabbitmq.url) as listener:
        async with relaying(engine, settings, "before") as relay:
            await until_published(relay, sql, await make_numbered(engine, sql, settings, 5))
            await make_log(engine, sql, settings)
            # The lease is the former relay's still, as after a crash.
            await dump_and_restore(sql, postgres, new_cluster, tmp_path)
        restored = await asyncpg.connect(new_cluster.url())
        assert await cursor(restored) == 6
        own = create_engine(make_settings(new_cluster.url()), "rowlock-test")
        await number_all(own, settings)
        async with relaying(own, settings, "after") as relay:
            await until_published(relay, restored, 14)
            await until_published(relay, restored, await make_numbered(own, restored, settings, 2))
        await own.dispose()
        events = await listener.until(17)
    assert [event["number"] for event in events] == list(range(1, 18))
    assert sorted(versions_told(events).values()) == [[2]] * 6 + [[2, 3]] * 4
    assert await broken_rules(restored) == {}
    await restored.close()

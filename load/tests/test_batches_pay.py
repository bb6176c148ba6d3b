"""The inbox settles many times more dead letters a second in batches than one at a time.

As `python -m load.batches` measures it, with a PostgreSQL that writes what it commits to the disk, like production's.
"""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import RabbitMQ
from load.batches import RATIO_MIN, compare
from service.database import create_engine
from service.migrate import migrate
from tests.stage.factories import make_settings
from tests.stage.servers import Servers
from tests.stage.verdict import broken_rules

ROUNDS = 3


@pytest.fixture
async def durable(servers: Servers) -> AsyncIterator[Postgres]:
    """A PostgreSQL with the schema that loses nothing when the machine does."""
    server = await asyncio.to_thread(servers.make, "durable", fsync="on", synchronous_commit="on")
    try:
        await migrate(server.url())
        yield server
    finally:
        await asyncio.to_thread(server.kill)


async def test_batches_settle_dead_letters_eight_times_as_fast(
    durable: Postgres, rabbitmq: RabbitMQ | Container
) -> None:
    settings = make_settings(durable.url(), broker_url=rabbitmq.url)
    engine = create_engine(settings, "rowlock-test")
    sql = await asyncpg.connect(durable.url())
    assert await sql.fetchval("show fsync") == await sql.fetchval("show synchronous_commit") == "on"
    rates = await compare(sql, engine, settings, ROUNDS)
    assert await broken_rules(sql) == {}
    await sql.close()
    await engine.dispose()
    assert rates.ratio >= RATIO_MIN, rates

"""PostgreSQL away or busy: the inbox pauses, counts nothing against any message, and settles all of them afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from dev.processes import free_port
from service.broker.topology import EXPIRED_QUEUE, PARKED_QUEUE
from service.database import Connection, create_engine
from service.errors import BrokerAway, Busy, DatabaseAway, Unavailable
from service.migrate import migrate
from service.settings import Settings
from tests.conftest import EMPTY_TABLES
from tests.stage.broker import message_count, send_hints, until_waiting, write_queues_down
from tests.stage.factories import make_overdue, make_settings
from tests.stage.holdings import count_states, hints_of, make_holds
from tests.stage.inboxes import inbox_of, make_dead_letters, settle_all, unsettled
from tests.stage.metering import scrape
from tests.stage.processes import expirer_process
from tests.stage.relaying import Broker
from tests.stage.servers import Servers
from tests.stage.verdict import broken_rules
from tests.stage.waiting import until

LETTERS = 1_000
AWAY_SECONDS = 60


@pytest.fixture(scope="module")
def server(servers: Servers) -> Iterator[Postgres]:
    """A PostgreSQL of this test's own that may be away."""
    made = servers.make("paused")
    asyncio.run(migrate(made.url()))
    yield made
    made.kill()


@pytest.fixture
def settings(server: Postgres, rabbitmq: Broker) -> Settings:
    """Waits for PostgreSQL are short."""
    return make_settings(server.url(), broker_url=rabbitmq.url, lock_timeout_ms=100, connect_timeout_ms=1_000)


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """A pool over that server."""
    made = create_engine(settings, "rowlock-test")
    yield made
    await made.dispose()


@pytest.fixture
async def own_sql(server: Postgres) -> Connection:
    """A connection to empty tables; it does not outlive the server."""
    connection = await asyncpg.connect(server.url())
    await connection.execute(EMPTY_TABLES)
    return connection


async def pauses(port: int) -> float:
    """How often the inbox paused with messages."""
    return sum(sample.value for sample in (await scrape(port))["rowlock_inbox_pauses_total"].samples)


async def assert_all_settled(server: Postgres, url: str) -> None:
    """Every hold is over, every rule holds, and no message is left or parked."""
    sql = await asyncpg.connect(server.url())

    async def settled() -> bool:
        return "HELD" not in await count_states(sql)

    await until(settled, "the end of every hold")
    assert await broken_rules(sql) == {}
    await sql.close()
    await until_waiting(url, EXPIRED_QUEUE, 0)
    assert message_count(url, PARKED_QUEUE) == 0


async def test_dead_letters_are_kept_while_postgresql_is_away(
    engine: AsyncEngine, server: Postgres, own_sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    await make_dead_letters(own_sql, settings, rabbitmq.url, LETTERS)
    async with inbox_of(engine, settings) as inbox:
        await asyncio.to_thread(server.kill)
        try:
            # More often than a message that fails would be tried.
            for _ in range(settings.inbox_tries_max + 4):
                with pytest.raises(Unavailable):
                    await inbox.step()
        finally:
            await asyncio.to_thread(server.start)
        assert unsettled(rabbitmq.url) <= LETTERS - settings.inbox_batch_max, "it keeps the messages that it has taken"
        await settle_all(inbox, rabbitmq.url)
    await assert_all_settled(server, rabbitmq.url)


async def test_full_pool_pauses_the_inbox_and_fails_no_message(
    server: Postgres, own_sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    await make_dead_letters(own_sql, settings, rabbitmq.url, 3)
    engine = create_engine(settings.model_copy(update={"pool_size": 1, "pool_wait_ms": 50}), "rowlock-test")
    async with inbox_of(engine, settings) as inbox:
        async with engine.connect():
            for _ in range(settings.inbox_tries_max + 2):
                with pytest.raises(Busy):
                    await inbox.step()
        assert await inbox.step() == 0
    await engine.dispose()
    await own_sql.close()
    await assert_all_settled(server, rabbitmq.url)


async def test_connection_lost_during_a_pause_redelivers_messages(
    engine: AsyncEngine, server: Postgres, own_sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    await make_dead_letters(own_sql, settings, rabbitmq.url, 3)
    await asyncio.to_thread(write_queues_down, rabbitmq)
    async with inbox_of(engine, settings) as inbox:
        await asyncio.to_thread(server.kill)
        try:
            with pytest.raises(DatabaseAway):
                await inbox.step()
            await asyncio.to_thread(rabbitmq.kill)
            with pytest.raises(BrokerAway):
                await inbox.step()
        finally:
            await asyncio.to_thread(server.start)
        await asyncio.to_thread(rabbitmq.start)
        await settle_all(inbox, rabbitmq.url)
    await assert_all_settled(server, rabbitmq.url)


async def test_expirer_settles_all_after_a_minute_without_postgresql(
    server: Postgres, own_sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    # Only the inbox does it: the sweep is over before they are overdue.
    port = free_port()
    options = {"broker_url": rabbitmq.url, "sweep_interval_ms": 60_000, "connect_timeout_ms": 1_000}
    options["expirer_metrics_port"] = port
    async with expirer_process(server.url(), **options) as expirer:
        ids = await make_dead_letters_before_the_crash(server, own_sql, settings, rabbitmq.url)

        back_at = time.monotonic() + AWAY_SECONDS

        async def paused() -> bool:
            return time.monotonic() > back_at and await pauses(port) > settings.inbox_tries_max

        await until(paused, "several pauses", AWAY_SECONDS + 20)
        await asyncio.to_thread(server.start)
        await assert_all_settled(server, rabbitmq.url)
        assert expirer.process.returncode is None
    assert len(ids) == LETTERS


async def make_dead_letters_before_the_crash(
    server: Postgres, sql: Connection, settings: Settings, url: str
) -> list[UUID]:
    """Dead letters, which come when PostgreSQL is away already."""
    ids = await make_holds(sql, settings, LETTERS)
    await make_overdue(sql, *ids)
    hints = await hints_of(sql, ids)
    await asyncio.to_thread(server.kill)
    send_hints(url, hints)
    return ids

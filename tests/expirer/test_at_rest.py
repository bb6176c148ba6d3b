"""What a loop asks PostgreSQL for while there is nothing to do: a few statements, and no transaction."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.containers import Container
from dev.servers import Redis
from expirer.loops import sweep
from expirer.loops.projector import Projector
from service.cache import Cache
from service.database import Connection
from service.events.cursors import READ_CURSOR
from service.ledger.expiring import IS_ANY_OVERDUE
from service.seatmap.stored import READ_HISTORY
from service.settings import Settings
from tests.stage.factories import make_settings
from tests.stage.relaying import Broker, relaying
from tests.stage.seat_maps import with_redis


@asynccontextmanager
async def asked(engine: AsyncEngine) -> AsyncIterator[list[str]]:
    """The statements of the block on the engine's connections."""
    queries: list[str] = []

    is_over = False

    def note(record: Any) -> None:
        if not is_over:
            queries.append(record.query)

    def listen(connection: Any, *_: Any) -> None:
        connection.driver_connection.add_query_logger(note)

    event.listen(engine.sync_engine, "checkout", listen)
    yield queries
    await asyncio.sleep(0)
    event.remove(engine.sync_engine, "checkout", listen)
    is_over = True


async def test_a_resting_sweep_is_one_statement(engine: AsyncEngine, settings: Settings) -> None:
    await sweep.step(engine, settings)
    async with asked(engine) as queries:
        await sweep.step(engine, settings)
    assert queries == [IS_ANY_OVERDUE]


async def test_a_resting_projector_reads_history_and_cursor(
    engine: AsyncEngine, settings: Settings, redis: Redis | Container
) -> None:
    patient = with_redis(settings.database_url.get_secret_value(), redis, lease_ms=60_000)
    cache = Cache(patient)
    projector = Projector(engine, cache, patient, "a")
    await projector.step()
    async with asked(engine) as queries:
        await projector.step()
    await projector.close()
    await cache.close()
    assert queries == [READ_HISTORY, READ_CURSOR]


async def test_a_resting_relay_reads_its_cursor(
    engine: AsyncEngine,
    sql: Connection,  # noqa: ARG001 - emptied first
    settings: Settings,
    rabbitmq: Broker,
) -> None:
    url = settings.database_url.get_secret_value()
    async with relaying(engine, make_settings(url, broker_url=rabbitmq.url, lease_ms=60_000), "a") as relay:
        await relay.step()
        async with asked(engine) as queries:
            await relay.step()
    assert queries == [READ_CURSOR]

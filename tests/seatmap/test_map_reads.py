"""Reads of maps from PostgreSQL: shared by concurrent requests, a few at the same time, and at a bounded rate."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from service.database import Connection, create_engine
from service.errors import Busy, BusyReason
from service.seatmap.maps import SeatMaps
from service.settings import Settings
from tests.stage.factories import make_customer, make_session
from tests.stage.forcing import give, patient_settings
from tests.stage.pools import checked_out
from tests.stage.seat_maps import NO_END_MS, projecting, unreadable, with_redis
from tests.stage.waiting import COUNT_LOCK_WAITS, until, until_lock_waits


@asynccontextmanager
async def maps_of(settings: Settings) -> AsyncIterator[tuple[SeatMaps, AsyncEngine]]:
    """The maps of a process without Redis, and its pool."""
    engine = create_engine(settings, "rowlock-maps")
    yield SeatMaps(engine, None, settings), engine
    await engine.dispose()


async def test_concurrent_requests_share_one_read(postgres: Postgres, sql: Connection, settings: Settings) -> None:
    on_sale = await make_session(sql, settings)
    async with maps_of(patient_settings(postgres)) as (maps, _):
        await maps.get(on_sale.id)
        async with unreadable(postgres):
            asked = [asyncio.create_task(maps.get(on_sale.id)) for _ in range(50)]
            await until_lock_waits(sql)
            # All requests were sent, because each had its turn before the one that waits for the lock.
            assert await sql.fetchval(COUNT_LOCK_WAITS, None) == 1
        read = await asyncio.gather(*asked)
    assert len({seat_map.as_of for seat_map in read}) == 1


async def test_reads_take_few_connections_and_wait_for_a_limited_time(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    sessions = [await make_session(sql, settings) for _ in range(6)]
    async with maps_of(patient_settings(postgres, map_reads_max=2, pool_wait_ms=300)) as (maps, engine):
        async with unreadable(postgres):
            asked = [asyncio.create_task(maps.get(on_sale.id)) for on_sale in sessions]
            await until_lock_waits(sql, 2)
            refused, waiting = await asyncio.wait(asked, timeout=10, return_when=asyncio.FIRST_EXCEPTION)
            while len(waiting) > 2:
                more, waiting = await asyncio.wait(waiting, timeout=10, return_when=asyncio.FIRST_EXCEPTION)
                refused |= more
            assert checked_out(engine) == 2
        outcomes = Counter(type(outcome).__name__ for outcome in await asyncio.gather(*asked, return_exceptions=True))
        assert outcomes == {"SeatMap": 2, "Busy": 4}
        told = [error.reason for task in refused if isinstance(error := task.exception(), Busy)]
        assert told == [BusyReason.MAP_READ] * 4
        assert [(await maps.get(on_sale.id)).states for on_sale in sessions] == [b"A" * 16] * 6


async def test_a_map_is_remembered_for_its_interval_and_ages(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    on_sale = await make_session(sql, settings)
    async with maps_of(patient_settings(postgres, map_read_interval_ms=10_000)) as (maps, _):
        first = await maps.get(on_sale.id)
        await give(sql, customer, on_sale.seat_ids[0])
        await asyncio.sleep(0.3)
        async with unreadable(postgres):
            # A query in PostgreSQL would wait for the lock.
            second = await asyncio.wait_for(maps.get(on_sale.id), 10)
        assert (second.states, second.as_of) == (first.states, first.as_of)
        assert 300 <= second.age_ms < 10_000


async def test_a_map_is_read_again_after_its_interval(postgres: Postgres, sql: Connection, settings: Settings) -> None:
    customer = await make_customer(sql, settings)
    on_sale = await make_session(sql, settings)
    async with maps_of(patient_settings(postgres, map_read_interval_ms=50)) as (maps, _):
        first = await maps.get(on_sale.id)
        await give(sql, customer, on_sale.seat_ids[0])

        async def is_new() -> bool:
            return (await maps.get(on_sale.id)).states == b"H" + b"A" * 15

        await until(is_new, "a new map")
        assert (await maps.get(on_sale.id)).as_of > first.as_of


async def test_a_reader_waits_a_limited_time_for_another_builder(
    settings: Settings, redis: Redis | Container, sql: Connection
) -> None:
    on_sale = await make_session(sql, settings)
    url = settings.database_url.get_secret_value()
    clock = asyncio.get_running_loop().time
    async with projecting(with_redis(url, redis, map_fresh_ms=60_000, map_wait_ms=200)) as projection:
        await projection.step()
        epoch, builder = await projection.epoch(), projection.builder
        assert await builder.try_lock(epoch, on_sale.id, "another", 60_000)
        assert await builder.begin(epoch, on_sale.id, 16, "another", NO_END_MS)
        began = clock()
        assert (await projection.get(on_sale)).source == "postgresql"
        assert 0.2 <= clock() - began < 10
    async with projecting(with_redis(url, redis, map_fresh_ms=60_000, map_wait_ms=5_000)) as patient:
        asking = asyncio.create_task(patient.get(on_sale))
        await asyncio.wait([asking], timeout=0.1)
        assert not asking.done()
        assert await patient.builder.finish(epoch, on_sale.id, "another")
        assert (await asking).source == "redis"

"""How many maps PostgreSQL is asked for: once for all who ask meanwhile, a few at once, not more often than allowed."""

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
from tests.stage.waiting import COUNT_LOCK_WAITS, until_lock_waits


@asynccontextmanager
async def maps_of(settings: Settings) -> AsyncIterator[tuple[SeatMaps, AsyncEngine]]:
    """The maps of a process without Redis, and its pool."""
    engine = create_engine(settings, "rowlock-maps")
    yield SeatMaps(engine, None, settings), engine
    await engine.dispose()


async def test_all_who_ask_while_a_map_is_read_get_that_one(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    on_sale = await make_session(sql, settings)
    async with maps_of(patient_settings(postgres)) as (maps, _):
        await maps.get(on_sale.id)
        async with unreadable(postgres):
            asked = [asyncio.create_task(maps.get(on_sale.id)) for _ in range(50)]
            await until_lock_waits(sql)
            # They have all been asked: each has had its turn before the one that now finds the lock.
            assert await sql.fetchval(COUNT_LOCK_WAITS, None) == 1
        read = await asyncio.gather(*asked)
    assert len({seat_map.as_of for seat_map in read}) == 1


async def test_maps_of_many_sessions_take_a_few_connections_and_who_waits_too_long_is_told(
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


async def test_a_map_is_read_again_only_after_its_interval_and_ages_until_then(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    on_sale = await make_session(sql, settings)
    async with maps_of(patient_settings(postgres, map_read_interval_ms=10_000)) as (maps, _):
        first = await maps.get(on_sale.id)
        await give(sql, customer, on_sale.seat_ids[0])
        async with unreadable(postgres):
            # Whoever asked PostgreSQL now would wait for the lock.
            second = await asyncio.wait_for(maps.get(on_sale.id), 10)
        assert (second.states, second.as_of) == (first.states, first.as_of)
        maps._stored.clear()
        third = await maps.get(on_sale.id)
        assert third.states == b"H" + b"A" * 15
        assert third.as_of > first.as_of
        old = maps._stored[on_sale.id]
        maps._stored[on_sale.id] = type(old)(old.history, old.states, old.source, old.as_of, 0, old.at - 3)
        assert 3_000 <= (await maps.get(on_sale.id)).age_ms < 10_000


async def test_who_finds_a_map_being_built_waits_for_it_and_only_for_so_long(
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

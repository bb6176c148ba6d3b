"""The audit of the seat maps while they, the ledger or its history change under its eyes."""

import asyncio
from collections.abc import AsyncIterator
from contextvars import Context
from dataclasses import replace
from datetime import timedelta
from itertools import count

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from service.audit import maps as mapaudit
from service.audit.maps import Stored
from service.database import Connection
from service.seatmap.cached import SeatCache
from service.seatmap.encoding import Freshness
from service.seatmap.stored import read_history
from service.settings import Settings
from tests.stage.audits import do_round, faulty, last_verdict
from tests.stage.forcing import give
from tests.stage.map_stage import DAMAGES, Stage, look, staged
from tests.stage.seat_maps import with_redis


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, redis: Redis | Container) -> Settings:  # noqa: ARG001 - emptied first
    """The maps are fresh for as long as a test takes."""
    return with_redis(postgres.url(), redis, map_fresh_ms=60_000, map_wait_ms=5_000)


@pytest.fixture
async def stage(sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """Both maps are as they should be."""
    async with staged(sql, settings, monkeypatch) as made:
        yield made


async def test_a_map_of_a_history_that_ends_while_it_is_looked_at_is_no_fault(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    await stage.damage(stage.first, *DAMAGES["a held seat is newer than the ledger"])
    reads = 0

    async def read_another(connection: Connection) -> str:
        nonlocal reads
        reads += 1
        return await read_history(connection) if reads == 1 else "another"

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mapaudit, "read_history", read_another)
        assert await look(stage, engine, sql, settings) == {}
    assert reads > 1


async def test_a_change_that_comes_between_the_two_reads_is_no_fault(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_stored, seats = mapaudit._read_stored, iter(stage.first.seat_ids[5:])

    async def then_sell(pool: AsyncEngine, session_id: int) -> Stored | None:
        stored = await read_stored(pool, session_id)
        await give(sql, stage.customer, next(seats))
        await stage.projection.step()
        return stored

    monkeypatch.setattr(mapaudit, "_read_stored", then_sell)
    assert faulty(await do_round(engine, sql, settings, stage.cache)) == {}
    assert (await last_verdict(sql)).tally.checked["maps"] == 2


async def test_a_wrong_state_that_comes_between_the_two_reads_is_a_fault(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_stored, reads = mapaudit._read_stored, count(1)

    async def then_hold(pool: AsyncEngine, session_id: int) -> Stored | None:
        stored = await read_stored(pool, session_id)
        is_first = next(reads) == 1
        if is_first:
            await give(sql, stage.customer, stage.first.seat_ids[5])
        await stage.projection.step()
        if is_first:
            await stage.damage(stage.first, "states", 6, b"S")
            await stage.miscount(stage.first, held=1, sold=1)
        return stored

    monkeypatch.setattr(mapaudit, "_read_stored", then_hold)
    found = faulty(await do_round(engine, sql, settings, stage.cache))
    assert found == {"cache": {stage.first.id}}
    assert next(reads) == 4, "the first map was compared with what was committed later, too"


async def test_what_is_committed_before_the_ledger_is_read_is_not_expected_of_an_older_map(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapaudit, "WAIT_SECONDS_MAX", 0.1)
    seats = iter(stage.first.seat_ids[5:])

    async def after_a_sale(connection: Connection) -> str:
        # The transaction is open, and sees only what is committed when it looks for the first time. The projector has
        # another one.
        await asyncio.create_task(stage.projection.step(), context=Context())
        await give(sql, stage.customer, next(seats))
        return await read_history(connection)

    monkeypatch.setattr(mapaudit, "read_history", after_a_sale)
    assert faulty(await do_round(engine, sql, settings, stage.cache)) == {}


async def test_a_map_that_is_behind_by_the_time_it_is_read_is_not_judged(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_freshness = SeatCache.read_freshness

    async def of_a_later_watermark(cache: SeatCache) -> Freshness | None:
        freshness = await read_freshness(cache)
        return freshness and replace(freshness, as_of=freshness.as_of + timedelta(hours=1))

    await give(sql, stage.customer, stage.first.seat_ids[5])
    monkeypatch.setattr(SeatCache, "read_freshness", of_a_later_watermark)
    assert faulty(await do_round(engine, sql, settings, stage.cache)) == {}
    assert (await last_verdict(sql)).tally.unlooked == {"maps": 2}


@pytest.mark.parametrize("lost", [None, "states", "versions"], ids=["all keys", "its seats", "its versions"])
async def test_a_map_that_goes_while_it_is_looked_at_is_no_fault(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings, lost: str | None
) -> None:
    read_stored = mapaudit._read_stored

    async def then_go(pool: AsyncEngine, session_id: int) -> Stored | None:
        stored = await read_stored(pool, session_id)
        await stage.projection.step()
        await (stage.lose(stage.first, lost) if lost else stage.projection.redis.flushall())
        return stored

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mapaudit, "_read_stored", then_go)
        assert faulty(await do_round(engine, sql, settings, stage.cache)) == {}

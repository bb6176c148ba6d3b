"""The audit of the seat maps while they, the ledger or its history change."""

import asyncio
from collections.abc import AsyncIterator
from contextvars import Context
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from service.audit import maps
from service.database import Connection
from service.seatmap.cached import SeatCache
from service.seatmap.encoding import Freshness
from service.seatmap.stored import read_history
from service.settings import Settings
from tests.stage.audits import faulty
from tests.stage.forcing import give
from tests.stage.map_stage import DAMAGES, Stage, after_each_read, staged
from tests.stage.seat_maps import with_redis


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, redis: Redis | Container) -> Settings:  # noqa: ARG001 - emptied first
    """The maps are fresh for as long as a test takes."""
    return with_redis(postgres.url(), redis, map_fresh_ms=60_000, map_wait_ms=5_000)


@pytest.fixture
async def stage(sql: Connection, settings: Settings) -> AsyncIterator[Stage]:
    """Both maps are correct."""
    async with staged(sql, settings) as made:
        yield made


async def test_a_history_that_ends_meanwhile_is_no_fault(stage: Stage, engine: AsyncEngine) -> None:
    await stage.damage(stage.first, *DAMAGES["a held seat is newer than the ledger"])
    reads = 0

    async def read_another(connection: Connection) -> str:
        nonlocal reads
        reads += 1
        return await read_history(connection) if reads == 1 else "another"

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(maps, "read_history", read_another)
        assert await stage.look(engine) == {}
    assert reads > 1


async def test_a_change_between_the_two_reads_is_no_fault(stage: Stage, engine: AsyncEngine, sql: Connection) -> None:
    seats = iter(stage.first.seat_ids[5:])

    async def sell(_session_id: int) -> None:
        await give(sql, stage.customer, next(seats))
        await stage.projection.step()

    with after_each_read(sell):
        tally = await stage.check(engine)
    assert (tally.violations, tally.checked["maps"]) == ({}, 2)


async def test_a_wrong_state_between_the_two_reads_is_a_fault(
    stage: Stage, engine: AsyncEngine, sql: Connection
) -> None:
    reads: list[int] = []

    async def hold(session_id: int) -> None:
        reads.append(session_id)
        if len(reads) == 1:
            await give(sql, stage.customer, stage.first.seat_ids[5])
        await stage.projection.step()
        if len(reads) == 1:
            await stage.damage(stage.first, "states", 6, b"S")
            await stage.miscount(stage.first, held=1, sold=1)

    with after_each_read(hold):
        assert faulty(await stage.check(engine)) == {"cache": {stage.first.id}}
    assert reads == [stage.first.id, stage.first.id, stage.second.id], "the first one was compared with later seats too"


async def test_seats_are_as_of_before_they_were_read(
    stage: Stage, engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    seats = iter(stage.first.seat_ids[5:])

    async def after_a_sale(connection: Connection) -> str:
        # The transaction is open, and sees only what is committed when it looks for the first time. The projector has
        # another one.
        await asyncio.create_task(stage.projection.step(), context=Context())
        await give(sql, stage.customer, next(seats))
        return await read_history(connection)

    monkeypatch.setattr(maps, "read_history", after_a_sale)
    assert faulty(await stage.check(engine, map_wait_seconds=0.1)) == {}


async def test_a_map_that_is_behind_when_it_is_read_is_unchecked(
    stage: Stage, engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_freshness = SeatCache.read_freshness

    async def of_a_later_watermark(cache: SeatCache) -> Freshness | None:
        freshness = await read_freshness(cache)
        return freshness and replace(freshness, as_of=freshness.as_of + timedelta(hours=1))

    await give(sql, stage.customer, stage.first.seat_ids[5])
    monkeypatch.setattr(SeatCache, "read_freshness", of_a_later_watermark)
    tally = await stage.check(engine)
    assert (tally.violations, tally.unlooked) == ({}, {"maps": 2})


@pytest.mark.parametrize("lost", [None, "states", "versions"], ids=["all keys", "its seats", "its versions"])
async def test_a_map_that_goes_meanwhile_is_no_fault(stage: Stage, engine: AsyncEngine, lost: str | None) -> None:
    async def go(_session_id: int) -> None:
        await stage.projection.step()
        await (stage.lose(stage.first, lost) if lost else stage.projection.redis.flushall())

    with after_each_read(go):
        assert faulty(await stage.check(engine)) == {}

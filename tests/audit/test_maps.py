"""The audit of the seat maps in Redis: a wrong one is found and deleted, and its next reader builds it again."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from service.audit import maps
from service.audit.maps import Stored, compare
from service.database import Connection
from service.errors import CacheAway
from service.seatmap.cached import SeatCache
from service.seatmap.encoding import Kept
from service.settings import Settings
from tests.conftest import EMPTY_TABLES
from tests.stage.audits import faulty
from tests.stage.forcing import give
from tests.stage.map_stage import DAMAGES, Stage, staged
from tests.stage.metering import about, moved
from tests.stage.seat_maps import NO_MARKS, stored_states, with_redis, write_no_mark


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, redis: Redis | Container) -> Settings:  # noqa: ARG001 - emptied first
    """The maps are fresh for as long as a test takes."""
    return with_redis(postgres.url(), redis, map_fresh_ms=60_000, map_wait_ms=5_000)


@pytest.fixture
async def stage(sql: Connection, settings: Settings) -> AsyncIterator[Stage]:
    """Both maps are correct."""
    async with staged(sql, settings) as made:
        yield made


async def test_correct_maps_stay(stage: Stage, engine: AsyncEngine) -> None:
    tally = await stage.check_projected(engine)
    assert (tally.violations, tally.unlooked, tally.checked["maps"]) == ({}, {}, 2)
    assert await stage.projection.versions(stage.first) == [0, 0, 0, 2, *[0] * 12]


async def test_other_loops_run_between_the_pieces_of_a_map() -> None:
    stored = Stored("this one", b"A" * 9, [1] * 9, datetime.now(UTC))
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(take_turns())
    assert await compare(stored, Kept(stored.states, b"\0\0\0\1" * 9, 0, 0), 3) == (False, False, False)
    other.cancel()
    assert turns == 3


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_wrong_map_is_named_and_built_again(
    stage: Stage, engine: AsyncEngine, sql: Connection, damage: str
) -> None:
    await stage.damage(stage.first, *DAMAGES[damage])
    with moved() as grown:
        assert await stage.look(engine) == {"cache": {stage.first.id}}
    assert about(grown, "audit_repairs") == {"audit_repairs_total": 1}
    seat_map = await stage.projection.get(stage.first)
    assert (seat_map.source, seat_map.states) == ("redis", await stored_states(sql, stage.first))
    assert await stage.look(engine) == {}


@pytest.mark.parametrize("count", ["held", "sold"])
async def test_a_map_with_wrong_counts_is_named_and_built_again(stage: Stage, engine: AsyncEngine, count: str) -> None:
    await stage.miscount(stage.first, **{count: 5})
    assert await stage.look(engine) == {"cache": {stage.first.id}}
    await stage.projection.get(stage.first)
    assert await stage.projection.seat_cache.read_counts([stage.first.id]) == {stage.first.id: (1, 0)}
    assert await stage.look(engine) == {}


@pytest.mark.parametrize("damaged", ["states", "versions", "meta", "held"])
async def test_a_map_of_another_kind_is_named_and_built_again(
    stage: Stage, engine: AsyncEngine, sql: Connection, damaged: str
) -> None:
    await (stage.miscount(stage.first, held="many") if damaged == "held" else stage.replace(stage.first, damaged))
    await stage.damage(stage.second, *DAMAGES["a free seat is sold"])
    assert await stage.look(engine) == {"cache": {stage.first.id, stage.second.id}}
    seat_map = await stage.projection.get(stage.first)
    assert (seat_map.source, seat_map.states) == ("redis", await stored_states(sql, stage.first))
    assert await stage.look(engine) == {}


async def test_a_map_that_redis_returns_too_late_hides_no_other(
    stage: Stage, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_whole, find = SeatCache.read_whole, SeatCache.read_fresh_counts
    is_away = False

    async def fail_for_the_first(cache: SeatCache, session_id: int) -> object:
        nonlocal is_away
        is_away = session_id == stage.first.id
        if is_away:
            raise CacheAway("too slow")
        return await read_whole(cache, session_id)

    async def be_away_once(cache: SeatCache, session_ids: list[int]) -> object:
        nonlocal is_away
        if is_away:
            is_away = False
            raise CacheAway("for a moment")
        return await find(cache, session_ids)

    await stage.damage(stage.second, *DAMAGES["a free seat is sold"])
    monkeypatch.setattr(SeatCache, "read_whole", fail_for_the_first)
    monkeypatch.setattr(SeatCache, "read_fresh_counts", be_away_once)
    tally = await stage.check_projected(engine)
    assert (faulty(tally), tally.unlooked) == ({"cache": {stage.second.id}}, {"maps": 1})


async def test_a_wrong_map_that_is_not_deleted_is_named_again(stage: Stage, engine: AsyncEngine) -> None:
    async def fail(_cache: SeatCache, _epoch: str, _session_id: int) -> None:
        raise CacheAway("just now")

    await stage.damage(stage.first, *DAMAGES["a free seat is sold"])
    with pytest.MonkeyPatch.context() as patched, moved() as grown:
        patched.setattr(SeatCache, "forget", fail)
        assert await stage.look(engine) == {"cache": {stage.first.id}}
    assert about(grown, "audit_repairs") == {}
    assert await stage.look(engine) == {"cache": {stage.first.id}}
    assert await stage.look(engine) == {}


async def test_maps_whose_seats_are_read_too_slowly_are_unchecked(
    stage: Stage, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = "with slow as materialized (select pg_sleep(0.5))" + maps.READ_VERSIONS
    monkeypatch.setattr(maps, "READ_VERSIONS", slow.replace("from seats", "from slow cross join seats"))
    tally = await stage.check(engine, statement_ms=50)
    assert (tally.violations, tally.checked["maps"], tally.unlooked) == ({}, 0, {"maps": 2})


async def test_a_map_that_is_behind_is_checked_later(stage: Stage, engine: AsyncEngine, sql: Connection) -> None:
    await give(sql, stage.customer, stage.first.seat_ids[5])
    tally = await stage.check(engine, map_wait_seconds=0.1)
    assert (tally.violations, tally.unlooked) == ({}, {"maps": 2})
    assert await stage.look(engine) == {}
    assert (await stage.projection.versions(stage.first))[5] == 2


async def test_a_map_of_another_history_is_not_compared(
    stage: Stage, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read_another(_: Connection) -> str:
        return "another"

    await stage.damage(stage.first, *DAMAGES["a free seat is sold"])
    with monkeypatch.context() as patched:
        patched.setattr(maps, "read_history", read_another)
        tally = await stage.check(engine)
    assert (tally.violations, tally.unlooked) == ({}, {})
    assert await stage.look(engine) == {"cache": {stage.first.id}}


async def test_the_map_of_a_removed_session_is_not_compared(stage: Stage, engine: AsyncEngine, sql: Connection) -> None:
    await sql.execute("delete from seats where session_id = $1", stage.second.id)
    assert await stage.look(engine) == {}
    await sql.execute(EMPTY_TABLES)


async def test_sessions_without_a_map_are_passed_over(stage: Stage, engine: AsyncEngine) -> None:
    await stage.lose(stage.first, "states")
    await stage.damage(stage.second, *DAMAGES["a free seat is sold"])
    assert await stage.look(engine, sessions=1) == {"cache": {stage.second.id}}


async def test_without_redis_the_ledger_is_checked(stage: Stage, engine: AsyncEngine, redis: Redis | Container) -> None:
    redis.stop()
    tally = await stage.check(engine, map_wait_seconds=0.1)
    assert (tally.violations, tally.checked["seats"], tally.checked["maps"]) == ({}, 32, 0)
    assert tally.unlooked == {"maps": 1}


@pytest.mark.parametrize("no_mark", NO_MARKS)
async def test_with_a_damaged_watermark_no_map_is_checked(stage: Stage, engine: AsyncEngine, no_mark: str) -> None:
    await write_no_mark(stage.projection.redis, no_mark)
    tally = await stage.check(engine)
    assert (tally.violations, tally.unlooked) == ({}, {"maps": 1})


async def test_the_maps_of_a_stopped_projector_are_unchecked(
    stage: Stage, engine: AsyncEngine, settings: Settings
) -> None:
    fresh_ms = Settings.model_fields["map_fresh_ms"].default
    of_default = replace(
        stage, projection=replace(stage.projection, settings=settings.model_copy(update={"map_fresh_ms": fresh_ms}))
    )
    await stage.damage(stage.first, *DAMAGES["a free seat is sold"])
    await stage.projection.step()
    # The first map is still fresh when the round comes to it, and never gets the later commits.
    tally = await of_default.check(engine)
    assert (tally.violations, tally.checked["maps"], list(tally.unlooked)) == ({}, 0, ["maps"])
    await asyncio.sleep(fresh_ms / 1_000 + 0.1)
    tally = await of_default.check(engine)
    assert (tally.violations, tally.checked["maps"], tally.unlooked) == ({}, 0, {"maps": 1})
    await stage.projection.step()
    assert await stage.look(engine) == {"cache": {stage.first.id}}

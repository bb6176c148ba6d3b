"""The audit of the seat maps in Redis: one that is not the ledger's is found, and its next reader builds it anew."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from service.audit import maps as mapaudit
from service.audit.maps import SEATS_AT_ONCE_MAX, Stored
from service.database import Connection
from service.errors import Busy, BusyReason, CacheAway
from service.seatmap.cached import SeatCache
from service.seatmap.encoding import Kept
from service.settings import Settings
from tests.conftest import EMPTY_TABLES
from tests.stage.audits import do_round, faulty, last_verdict
from tests.stage.forcing import give
from tests.stage.map_stage import DAMAGES, Stage, look, staged
from tests.stage.metering import about, moved
from tests.stage.seat_maps import NO_MARKS, stored_states, with_redis, write_no_mark


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, redis: Redis | Container) -> Settings:  # noqa: ARG001 - emptied first
    """The maps are fresh for as long as a test takes."""
    return with_redis(postgres.url(), redis, map_fresh_ms=60_000, map_wait_ms=5_000)


@pytest.fixture
async def stage(sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """Both maps are as they should be."""
    async with staged(sql, settings, monkeypatch) as made:
        yield made


async def test_maps_as_they_should_be_are_found_right_and_stay(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    assert await look(stage, engine, sql, settings) == {}
    assert (await last_verdict(sql)).tally.checked["maps"] == 2
    assert await stage.projection.versions(stage.first) == [0, 0, 0, 2, *[0] * 12]


@pytest.mark.parametrize(("pieces", "is_newer"), [(1, False), (3, False), (3, True)])
async def test_other_loops_go_on_between_the_pieces_of_a_map(
    monkeypatch: pytest.MonkeyPatch, pieces: int, *, is_newer: bool
) -> None:
    size = pieces * SEATS_AT_ONCE_MAX
    stored = Stored("this one", b"A" * size, [1] * size, datetime.now(UTC))
    kept = Kept(stored.states, b"\0\0\0\1" * (size - 1) + (b"\0\0\0\2" if is_newer else b"\0\0\0\1"), 0, 0)
    unimportant: Any = None
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def read_later(_engine: AsyncEngine, _session_id: int) -> Stored:
        return replace(stored, versions=[*stored.versions[:-1], 2])

    monkeypatch.setattr(mapaudit, "_read_stored", read_later)
    other = asyncio.create_task(take_turns())
    assert await mapaudit._is_right(unimportant, 1, stored, kept)
    other.cancel()
    assert turns == (2 * pieces if is_newer else pieces)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_map_that_is_not_the_ledgers_is_named_and_built_anew(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings, damage: str
) -> None:
    await stage.damage(stage.first, *DAMAGES[damage])
    with moved() as grown:
        assert await look(stage, engine, sql, settings) == {"cache": {stage.first.id}}
    assert about(grown, "audit_repairs") == {"audit_repairs_total": 1}
    seat_map = await stage.projection.get(stage.first)
    assert (seat_map.source, seat_map.states) == ("redis", await stored_states(sql, stage.first))
    assert await look(stage, engine, sql, settings) == {}


@pytest.mark.parametrize("count", ["held", "sold"])
async def test_a_map_that_counts_otherwise_than_its_seats_say_is_named_and_built_anew(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings, count: str
) -> None:
    await stage.miscount(stage.first, **{count: 5})
    assert await look(stage, engine, sql, settings) == {"cache": {stage.first.id}}
    await stage.projection.get(stage.first)
    assert await stage.projection.seat_cache.read_counts([stage.first.id]) == {stage.first.id: (1, 0)}
    assert await look(stage, engine, sql, settings) == {}


@pytest.mark.parametrize("damaged", ["states", "versions", "meta", "held"])
async def test_a_map_that_is_none_any_more_is_named_and_built_anew_and_the_others_are_looked_at(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings, damaged: str
) -> None:
    await (stage.miscount(stage.first, held="many") if damaged == "held" else stage.replace(stage.first, damaged))
    of_second = {stage.second.id: (0, 0)}
    counts = await stage.projection.seat_cache.read_counts([stage.first.id, stage.second.id])
    assert counts == of_second | ({stage.first.id: (1, 0)} if damaged == "versions" else {})
    assert (await stage.projection.get(stage.first)).states == await stored_states(sql, stage.first)
    await stage.damage(stage.second, *DAMAGES["a free seat is sold"])
    assert await look(stage, engine, sql, settings) == {"cache": {stage.first.id, stage.second.id}}
    assert (await last_verdict(sql)).tally.unlooked == {}
    seat_map = await stage.projection.get(stage.first)
    assert (seat_map.source, seat_map.states) == ("redis", await stored_states(sql, stage.first))
    assert await look(stage, engine, sql, settings) == {}


async def test_a_map_that_redis_does_not_give_in_time_is_not_looked_at_and_the_next_ones_are(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.damage(stage.second, *DAMAGES["a free seat is sold"])
    read_whole = SeatCache.read_whole

    async def take_too_long_for_the_first(cache: SeatCache, session_id: int) -> object:
        if session_id == stage.first.id:
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(stage.cache, "_timeout_seconds", 0.01)
                await stage.cache.run(lambda _: asyncio.Event().wait())
        return await read_whole(cache, session_id)

    monkeypatch.setattr(SeatCache, "read_whole", take_too_long_for_the_first)
    assert await look(stage, engine, sql, settings) == {"cache": {stage.second.id}}
    assert (await last_verdict(sql)).tally.unlooked == {"maps": 1}


async def test_a_wrong_map_that_can_not_be_thrown_away_is_named_all_the_same(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    async def fail(_cache: SeatCache, _epoch: str, _session_id: int) -> None:
        raise CacheAway("just now")

    await stage.damage(stage.first, *DAMAGES["a free seat is sold"])
    with pytest.MonkeyPatch.context() as patched, moved() as grown:
        patched.setattr(SeatCache, "forget", fail)
        assert await look(stage, engine, sql, settings) == {"cache": {stage.first.id}}
    assert about(grown, "audit_repairs") == {}
    assert (await last_verdict(sql)).tally.unlooked == {}
    assert await look(stage, engine, sql, settings) == {"cache": {stage.first.id}}
    assert await look(stage, engine, sql, settings) == {}


async def test_a_map_whose_seats_take_too_long_to_read_is_not_looked_at_and_the_round_goes_on(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = "with slow as materialized (select pg_sleep(0.5))" + mapaudit.READ_VERSIONS
    slow = slow.replace("from seats", "from slow cross join seats")
    monkeypatch.setattr(mapaudit, "READ_VERSIONS", slow)
    assert await look(stage, engine, sql, settings) == {}
    assert (await last_verdict(sql)).tally.unlooked == {}
    monkeypatch.setattr(mapaudit, "BOUND_STATEMENTS", "set local statement_timeout = 50")
    assert await look(stage, engine, sql, settings) == {}
    tally = (await last_verdict(sql)).tally
    assert (tally.checked["maps"], tally.unlooked) == (0, {"maps": 2})


async def test_a_map_is_the_next_one_again_where_no_connection_was_free(
    stage: Stage, engine: AsyncEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait_in_vain(_engine: AsyncEngine, _session_id: int) -> None:
        raise Busy(BusyReason.CONNECTION)

    monkeypatch.setattr(mapaudit, "_read_stored", wait_in_vain)
    cache = SeatCache(stage.cache, settings.map_fresh_ms)
    with pytest.raises(Busy):
        await mapaudit.check_next(engine, cache, 0)


async def test_a_map_that_is_behind_is_not_judged_before_it_has_caught_up(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapaudit, "WAIT_SECONDS_MAX", 0.1)
    await give(sql, stage.customer, stage.first.seat_ids[5])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SeatCache, "read_whole", "not before that")
        assert faulty(await do_round(engine, sql, settings, stage.cache)) == {}
    assert (await last_verdict(sql)).tally.unlooked == {"maps": 2}
    assert await look(stage, engine, sql, settings) == {}
    assert (await stage.projection.versions(stage.first))[5] == 2


async def test_a_map_of_another_history_is_not_compared(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.damage(stage.first, *DAMAGES["a free seat is sold"])

    async def read_another(_: Connection) -> str:
        return "another"

    with monkeypatch.context() as patched:
        patched.setattr(mapaudit, "read_history", read_another)
        # Nobody waits until it has caught up with ours.
        assert faulty(await do_round(engine, sql, settings, stage.cache)) == {}
    assert (await last_verdict(sql)).tally.unlooked == {}
    assert await look(stage, engine, sql, settings) == {"cache": {stage.first.id}}


async def test_the_map_of_a_session_whose_seats_are_gone_is_not_compared(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    await sql.execute("delete from seats where session_id = $1", stage.second.id)
    assert await look(stage, engine, sql, settings) == {}
    await sql.execute(EMPTY_TABLES)


async def test_sessions_without_a_map_are_passed_over_a_slice_at_a_time(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapaudit, "SESSIONS_MAX", 1)
    await stage.lose(stage.first, "states")
    await stage.damage(stage.second, *DAMAGES["a free seat is sold"])
    assert await look(stage, engine, sql, settings) == {"cache": {stage.second.id}}


async def test_while_redis_is_away_the_ledger_gets_its_verdict_all_the_same(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings, redis: Redis | Container
) -> None:
    redis.stop()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mapaudit, "WAIT_SECONDS_MAX", 0.1)
        assert faulty(await do_round(engine, sql, settings, stage.cache)) == {}
    verdict = await last_verdict(sql)
    assert (verdict.tally.checked["seats"], verdict.tally.checked["maps"]) == (32, 0)
    assert verdict.tally.unlooked == {"maps": 1}


@pytest.mark.parametrize("no_mark", NO_MARKS)
async def test_while_the_watermark_is_damaged_no_map_is_looked_at_and_the_round_ends(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings, no_mark: str
) -> None:
    await write_no_mark(stage.projection.redis, no_mark)
    assert faulty(await do_round(engine, sql, settings, stage.cache)) == {}
    assert (await last_verdict(sql)).tally.unlooked == {"maps": 1}


async def test_the_maps_of_a_projector_that_has_stopped_are_not_looked_at_and_the_verdict_says_so(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    default = settings.model_copy(update={"map_fresh_ms": Settings.model_fields["map_fresh_ms"].default})
    await stage.damage(stage.first, *DAMAGES["a free seat is sold"])
    await stage.projection.step()
    # The first map is still fresh when the round comes to it, and never gets what was committed by then.
    assert faulty(await do_round(engine, sql, default, stage.cache)) == {}
    at_once = (await last_verdict(sql)).tally
    assert at_once.checked["maps"] == 0
    assert at_once.unlooked.keys() == {"maps"}
    await asyncio.sleep(default.map_fresh_ms / 1_000 + 0.1)
    assert faulty(await do_round(engine, sql, default, stage.cache)) == {}
    later = (await last_verdict(sql)).tally
    assert (later.checked["maps"], later.unlooked) == (0, {"maps": 1})
    await stage.projection.step()
    assert await look(stage, engine, sql, default) == {"cache": {stage.first.id}}

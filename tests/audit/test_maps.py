"""The audit of the seat maps in Redis: a wrong one is found and deleted, and its next reader builds it again."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.containers import Container
from dev.servers import Redis
from service.audit import maps as checking
from service.audit.maps import only_newer
from service.database import Connection
from service.errors import CacheAway
from service.seatmap.cached import SeatCache
from service.seatmap.encoding import Kept
from tests.conftest import EMPTY_TABLES
from tests.stage.audits import faulty
from tests.stage.factories import OnSale
from tests.stage.forcing import give
from tests.stage.map_stage import DAMAGES, Stage
from tests.stage.metering import about, moved
from tests.stage.seat_maps import stored_states


async def test_correct_maps_stay(maps: Stage, engine: AsyncEngine) -> None:
    # As after an event that has a seat that never changed.
    await maps.damage(maps.first, "versions", 20, b"\0\0\0\1")
    tally = await maps.check_projected(engine)
    assert (tally.violations, tally.unlooked, tally.checked["maps"]) == ({}, {}, 2)
    assert await maps.projection.versions(maps.first) == [0, 0, 0, 2, 0, 1, *[0] * 10]


async def test_other_loops_run_between_the_pieces_of_a_map() -> None:
    kept = Kept(b"A" * 9, b"\0\0\0\1" * 9, 0, 0)
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(take_turns())
    assert await only_newer(kept, kept, 3)
    other.cancel()
    assert turns == 3


Spoil = Callable[[Stage, OnSale], Awaitable[None]]
WAYS: dict[str, Spoil] = {
    what: partial(Stage.damage, part=part, offset=offset, value=value)
    for what, (part, offset, value) in DAMAGES.items()
}
WAYS |= {f"{part} is of another kind": partial(Stage.replace, part=part) for part in ("states", "versions", "meta")}
WAYS["too many are held"] = partial(Stage.miscount, held=5)
WAYS["too many are sold"] = partial(Stage.miscount, sold=5)
WAYS["a count is no number"] = partial(Stage.miscount, held="many")


@pytest.mark.parametrize("what", WAYS)
async def test_wrong_maps_are_named_and_built_again(
    maps: Stage, engine: AsyncEngine, sql: Connection, what: str
) -> None:
    await WAYS[what](maps, maps.first)
    await maps.damage(maps.second, *DAMAGES["a free seat is sold"])
    with moved() as grown:
        assert await maps.look(engine) == {"cache": {maps.first.id, maps.second.id}}
    assert about(grown, "audit_repairs") == {"audit_repairs_total": 2}
    seat_map = await maps.projection.get(maps.first)
    assert (seat_map.source, seat_map.states) == ("redis", await stored_states(sql, maps.first))
    assert await maps.projection.seat_cache.read_counts([maps.first.id]) == {maps.first.id: (1, 0)}
    assert await maps.look(engine) == {}


async def test_a_map_that_redis_returns_too_late_hides_no_other(
    maps: Stage, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_whole, find = SeatCache.read_whole, SeatCache.read_fresh_counts
    answers = iter([True, False, True])

    async def fail_for_the_first(cache: SeatCache, session_id: int) -> object:
        if session_id == maps.first.id:
            raise CacheAway("too slow")
        return await read_whole(cache, session_id)

    async def be_away_after_that(cache: SeatCache, session_ids: list[int]) -> object:
        if not next(answers, True):
            raise CacheAway("for a moment")
        return await find(cache, session_ids)

    await maps.damage(maps.second, *DAMAGES["a free seat is sold"])
    monkeypatch.setattr(SeatCache, "read_whole", fail_for_the_first)
    monkeypatch.setattr(SeatCache, "read_fresh_counts", be_away_after_that)
    tally = await maps.check_projected(engine)
    assert (faulty(tally), tally.unlooked) == ({"cache": {maps.second.id}}, {"maps": 1})


async def test_a_wrong_map_that_is_not_deleted_is_named_again(maps: Stage, engine: AsyncEngine) -> None:
    async def fail(_cache: SeatCache, _epoch: str, _session_id: int) -> None:
        raise CacheAway("just now")

    await maps.damage(maps.first, *DAMAGES["a free seat is sold"])
    with pytest.MonkeyPatch.context() as patched, moved() as grown:
        patched.setattr(SeatCache, "forget", fail)
        assert await maps.look(engine) == {"cache": {maps.first.id}}
    assert about(grown, "audit_repairs") == {}
    assert await maps.look(engine) == {"cache": {maps.first.id}}
    assert await maps.look(engine) == {}


async def test_maps_whose_seats_are_read_too_slowly_are_unchecked(
    maps: Stage, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = checking.READ_VERSIONS.replace("from seats", "from pg_cancel_backend(pg_backend_pid()), seats")
    monkeypatch.setattr(checking, "READ_VERSIONS", slow)
    tally = await maps.check(engine)
    assert (tally.violations, tally.checked["maps"], tally.unlooked) == ({}, 0, {"maps": 2})


async def test_a_map_that_is_behind_is_checked_later(maps: Stage, engine: AsyncEngine, sql: Connection) -> None:
    await give(sql, maps.customer, maps.first.seat_ids[5])
    tally = await maps.check(engine, map_wait_seconds=0.1)
    assert (tally.violations, tally.unlooked) == ({}, {"maps": 2})
    assert await maps.look(engine) == {}
    assert (await maps.projection.versions(maps.first))[5] == 2


async def test_the_map_of_a_removed_session_is_not_compared(maps: Stage, engine: AsyncEngine, sql: Connection) -> None:
    await sql.execute("delete from seats where session_id = $1", maps.second.id)
    assert await maps.look(engine) == {}
    await sql.execute(EMPTY_TABLES)


async def test_sessions_without_a_map_are_passed_over(maps: Stage, engine: AsyncEngine) -> None:
    await maps.lose(maps.first, "states")
    await maps.damage(maps.second, *DAMAGES["a free seat is sold"])
    assert await maps.look(engine, sessions=1) == {"cache": {maps.second.id}}


async def test_without_redis_the_ledger_is_checked(maps: Stage, engine: AsyncEngine, redis: Redis | Container) -> None:
    redis.stop()
    tally = await maps.check(engine, map_wait_seconds=0.1)
    assert (tally.violations, tally.checked["seats"], tally.checked["maps"]) == ({}, 32, 0)
    assert tally.unlooked == {"maps": 1}


async def test_the_maps_of_a_stopped_projector_are_unchecked(maps: Stage, engine: AsyncEngine) -> None:
    settings = maps.projection.settings.model_copy(update={"map_fresh_ms": 3_000})
    stopped = replace(maps, projection=replace(maps.projection, settings=settings))
    await maps.damage(maps.first, *DAMAGES["a free seat is sold"])
    await maps.projection.step()
    # The first map is still fresh when the round comes to it, and never gets the later commits.
    tally = await stopped.check(engine)
    assert (tally.violations, tally.checked["maps"], list(tally.unlooked)) == ({}, 0, ["maps"])
    await asyncio.sleep(settings.map_fresh_ms / 1_000)
    tally = await stopped.check(engine)
    assert (tally.violations, tally.checked["maps"], tally.unlooked) == ({}, 0, {"maps": 1})

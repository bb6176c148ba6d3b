"""The audit of the seat maps in Redis: one that is not the ledger's is found, and its next reader builds it anew."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from service import mapaudit
from service.cache import Cache
from service.database import Connection
from service.errors import Busy
from service.mapaudit import SEATS_AT_ONCE_MAX, Stored
from service.seatcache import Kept, SeatCache
from service.seatreads import read_history
from service.settings import Settings
from tests.audits import do_round, faulty, last_verdict
from tests.conftest import EMPTY_TABLES
from tests.factories import Account, OnSale, make_customer, make_session
from tests.forcing import give
from tests.metering import about, moved
from tests.seat_maps import Projection, projecting, stored_states, with_redis


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, redis: Redis | Container) -> Settings:  # noqa: ARG001 - emptied first
    """The maps are fresh for as long as a test takes."""
    return with_redis(postgres.url(), redis, map_fresh_ms=60_000, map_wait_ms=5_000)


@dataclass(frozen=True, slots=True)
class Stage:
    """Two sessions with maps, of which the first has a held seat."""

    customer: Account
    first: OnSale
    second: OnSale
    projection: Projection
    cache: Cache

    async def damage(self, on_sale: OnSale, part: str, offset: int, value: bytes) -> None:
        """Writes into the map, as nobody should."""
        await self.projection.redis.setrange(
            f"rowlock:{await self.projection.epoch()}:{on_sale.id}:{part}", offset, value
        )

    async def miscount(self, on_sale: OnSale, **counts: int) -> None:
        """Writes these numbers of seats into the map."""
        meta = f"rowlock:{await self.projection.epoch()}:{on_sale.id}:meta"
        await self.projection.redis.hset(meta, mapping=counts)


@pytest.fixture
async def stage(sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """Both maps are built, and nothing is wrong with them; they are compared in pieces."""
    monkeypatch.setattr(mapaudit, "SEATS_AT_ONCE_MAX", 3)
    customer = await make_customer(sql, settings)
    first, second = await make_session(sql, settings), await make_session(sql, settings)
    cache = Cache(settings)
    async with projecting(settings) as projection:
        await give(sql, customer, first.seat_ids[3])
        # What has a number is not brought to the maps again.
        await projection.number()
        await projection.step()
        for on_sale in (first, second):
            assert (await projection.get(on_sale)).source == "redis"
        yield Stage(customer, first, second, projection, cache)
    await cache.close()


async def look(stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings) -> dict[str, set[object]]:
    """What a round finds while the projector goes on."""
    check_map = mapaudit._read_stored

    async def then_project(*arguments: object) -> object:
        stored = await check_map(*arguments)  # type: ignore[arg-type]
        await stage.projection.step()
        return stored

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mapaudit, "_read_stored", then_project)
        return faulty(await do_round(engine, sql, settings, stage.cache))


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


DAMAGES = {
    "a held seat is free": ("states", 4, b"A"),
    "a free seat is sold": ("states", 1, b"S"),
    "a held seat is newer than the ledger": ("versions", 12, b"\0\0\0\3"),
    "a seat that never changed is newer than the ledger": ("versions", 20, b"\0\0\0\2"),
    "a change is missing": ("versions", 12, b"\0\0\0\1"),
    "a seat too many": ("states", 17, b"A"),
    "a version too many": ("versions", 64, b"\0\0\0\2"),
}


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
        raise Busy("connection")

    monkeypatch.setattr(mapaudit, "_read_stored", wait_in_vain)
    cache = SeatCache(stage.cache, settings.map_fresh_ms, settings.map_keep_minutes)
    with pytest.raises(Busy):
        await mapaudit.check_next(engine, cache, 0)


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


async def test_a_map_that_is_behind_is_not_judged_before_it_has_caught_up(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapaudit, "WAIT_SECONDS_MAX", 0.1)
    await give(sql, stage.customer, stage.first.seat_ids[5])
    assert faulty(await do_round(engine, sql, settings, stage.cache)) == {}
    assert (await last_verdict(sql)).tally.unlooked == {"maps": 2}
    assert await look(stage, engine, sql, settings) == {}
    assert (await stage.projection.versions(stage.first))[5] == 2


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


async def test_a_map_of_another_history_is_not_compared(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.damage(stage.first, *DAMAGES["a free seat is sold"])

    async def read_another(_: Connection) -> str:
        return "another"

    with monkeypatch.context() as patched:
        patched.setattr(mapaudit, "read_history", read_another)
        assert await look(stage, engine, sql, settings) == {}
    assert await look(stage, engine, sql, settings) == {"cache": {stage.first.id}}


async def go_at_once(stage: Stage) -> None:
    """All keys."""
    await stage.projection.redis.flushall()


async def lose_the_map(stage: Stage) -> None:
    """It is evicted, and the other is not."""
    await stage.projection.redis.delete(f"rowlock:{await stage.projection.epoch()}:{stage.first.id}:states")


async def lose_the_versions(stage: Stage) -> None:
    """One key of it is evicted."""
    await stage.projection.redis.delete(f"rowlock:{await stage.projection.epoch()}:{stage.first.id}:versions")


@pytest.mark.parametrize("go", [go_at_once, lose_the_map, lose_the_versions])
async def test_a_map_that_goes_while_it_is_looked_at_is_no_fault(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings, go: Callable[[Stage], Awaitable[None]]
) -> None:
    read_stored = mapaudit._read_stored

    async def then_go(pool: AsyncEngine, session_id: int) -> Stored | None:
        stored = await read_stored(pool, session_id)
        await stage.projection.step()
        await go(stage)
        return stored

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mapaudit, "_read_stored", then_go)
        assert faulty(await do_round(engine, sql, settings, stage.cache)) == {}


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
    await lose_the_map(stage)
    await stage.damage(stage.second, *DAMAGES["a free seat is sold"])
    assert await look(stage, engine, sql, settings) == {"cache": {stage.second.id}}


async def test_while_redis_is_away_the_ledger_gets_its_verdict_all_the_same(
    stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings, redis: Redis | Container
) -> None:
    redis.stop()
    assert faulty(await do_round(engine, sql, settings, stage.cache)) == {}
    verdict = await last_verdict(sql)
    assert (verdict.tally.checked["seats"], verdict.tally.checked["maps"]) == (32, 0)
    assert verdict.tally.unlooked == {"maps": 1}


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

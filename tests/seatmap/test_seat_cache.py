"""The Lua scripts on a real Redis: whatever comes in whatever order, a map has the newest of each seat."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.asyncio import Redis as AsyncRedis

from dev.containers import Container
from dev.servers import Redis
from service.cache import Cache
from service.seatmap.cached import WATERMARK, SeatCache
from service.seatmap.encoding import SEATS_PER_CALL, Change
from tests.stage.seat_maps import NO_END_MS, NO_MARKS, with_redis, write_no_mark

SEATS = 5
KEEP_MINUTES = 7
FRESH_MS = 60_000
NOW = datetime(2030, 6, 1, 18, tzinfo=UTC)
session_ids = count(1)


@pytest.fixture
async def raw(redis: Redis | Container) -> AsyncIterator[AsyncRedis]:
    """A client of the test's own."""
    async with AsyncRedis.from_url(redis.url) as client:
        yield client


@pytest.fixture
async def seat_cache(redis: Redis | Container) -> AsyncIterator[SeatCache]:
    """As a process has it."""
    cache = Cache(with_redis("postgresql://nobody@nowhere/nothing", redis))
    yield SeatCache(cache, FRESH_MS, KEEP_MINUTES)
    await cache.close()


async def fresh_epoch(seat_cache: SeatCache) -> str:
    """An epoch whose maps are fresh from now on."""
    clock = await seat_cache.clock()
    epoch = f"history/{clock.run}"
    assert await seat_cache.renew(epoch, NOW, clock.ms)
    return epoch


def letter(position: int, version: int) -> bytes:
    """A seat has one state at a version."""
    return b"AHS"[(position + version) % 3 :][:1]


changes = st.lists(
    st.builds(
        lambda position, version: Change(position, letter(position, version), version),
        st.integers(0, SEATS + 1),
        st.integers(1, 9),
    ),
    max_size=4,
)
tokens = st.sampled_from(["one", "two"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("apply"), st.just(""), changes),
        st.tuples(st.just("fill"), tokens, changes),
        st.tuples(st.sampled_from(["begin", "finish"]), tokens, st.just([])),
    ),
    max_size=12,
)


@dataclass(slots=True)
class Model:
    """What a map should be after the same steps."""

    flag: str = ""
    token: str = ""
    versions: dict[int, int] = field(default_factory=dict)

    def take(self, step: str, token: str, changes: list[Change]) -> bool:
        """Whether the step is allowed."""
        if step == "begin":
            if self.flag == "C":
                return False
            self.flag, self.token, self.versions = "B", token, dict.fromkeys(range(SEATS), 0)
            return True
        if step == "finish":
            done = self.flag == "B" and token == self.token
            self.flag = "C" if done else self.flag
            return done
        if self.flag and token in ("", self.token):
            for change in changes:
                if change.position < SEATS:
                    self.versions[change.position] = max(self.versions[change.position], change.version)
            return True
        # Nothing to write is nothing that can be refused.
        return step == "fill" and not changes

    def states(self) -> bytes:
        """A letter a seat."""
        return b"".join(letter(position, n) if n else b"A" for position, n in self.versions.items())


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
async def test_the_newest_wins_whatever_the_order_and_the_counts_are_those_of_the_bytes(
    seat_cache: SeatCache, raw: AsyncRedis, steps: list[tuple[str, str, list[Change]]]
) -> None:
    epoch, session_id, model = await fresh_epoch(seat_cache), next(session_ids), Model()
    for step, token, changes in steps:
        expected = model.take(step, token, changes)
        if step == "begin":
            assert await seat_cache.begin(epoch, session_id, SEATS, token, NO_END_MS) is expected
        elif step == "finish":
            assert await seat_cache.finish(epoch, session_id, token) is expected
        elif step == "fill":
            assert await seat_cache.fill(epoch, session_id, changes, token) is expected
        else:
            await seat_cache.apply(epoch, {session_id: changes} if changes else {})
    stored = {name: f"rowlock:{epoch}:{session_id}:{name}" for name in ("states", "versions", "meta")}
    assert await raw.exists(*stored.values()) == (3 if model.flag else 0)
    if not model.flag:
        return
    states = await raw.get(stored["states"])
    assert states == model.flag.encode() + model.states()
    versions = b"".join(n.to_bytes(4, "big") for n in model.versions.values())
    assert await raw.get(stored["versions"]) == versions
    letters = Counter(states[1:].decode())
    assert [int(n or 0) for n in await raw.hmget(stored["meta"], "held", "sold")] == [letters["H"], letters["S"]]
    complete = model.flag == "C"
    _, read = await seat_cache.read(session_id)
    assert read == (model.states() if complete else None)
    assert await seat_cache.read_counts([session_id]) == (
        {session_id: (letters["H"], letters["S"])} if complete else {}
    )


async def test_a_builder_whose_token_is_not_the_maps_any_more_writes_nothing(seat_cache: SeatCache) -> None:
    epoch = await fresh_epoch(seat_cache)
    assert await seat_cache.begin(epoch, 1, SEATS, "late", NO_END_MS)
    assert await seat_cache.begin(epoch, 1, SEATS, "new", NO_END_MS)
    assert not await seat_cache.fill(epoch, 1, [Change(0, b"S", 9)], "late")
    assert not await seat_cache.finish(epoch, 1, "late")
    assert await seat_cache.finish(epoch, 1, "new")
    assert (await seat_cache.read(1))[1] == b"AAAAA"


async def test_a_lock_is_taken_once_given_back_by_its_owner_only_and_goes_by_itself(
    seat_cache: SeatCache, raw: AsyncRedis
) -> None:
    assert await seat_cache.try_lock("e", 1, "mine", 10_000)
    assert not await seat_cache.try_lock("e", 1, "yours", 10_000)
    await seat_cache.unlock("e", 1, "yours")
    assert 0 < await raw.pttl("rowlock:e:1:lock") <= 10_000
    await seat_cache.unlock("e", 1, "mine")
    assert await seat_cache.try_lock("e", 1, "yours", 10_000)


async def test_a_map_of_a_hundred_thousand_seats_is_built_in_slices(seat_cache: SeatCache, raw: AsyncRedis) -> None:
    epoch, seats = await fresh_epoch(seat_cache), 100_000
    assert await seat_cache.begin(epoch, 1, seats, "mine", NO_END_MS)
    await raw.config_resetstat()
    assert await seat_cache.fill(epoch, 1, [Change(n, b"S", 2) for n in range(seats)], "mine")
    assert (await raw.info("commandstats"))["cmdstat_eval"]["calls"] == seats // SEATS_PER_CALL
    assert await seat_cache.finish(epoch, 1, "mine")
    assert (await seat_cache.read(1))[1] == b"S" * seats
    assert await seat_cache.read_counts([1]) == {1: (0, seats)}


async def test_no_wait_for_redis_brings_more_than_two_thousand_seats(
    seat_cache: SeatCache, raw: AsyncRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch, seats, there = await fresh_epoch(seat_cache), 5_000, [0]
    for session_id in (1, 2):
        assert await seat_cache.begin(epoch, session_id, seats, "mine", NO_END_MS)
    run = seat_cache._cache.run

    async def run_and_count(work: Any) -> Any:
        result = await run(work)
        there.append(sum([int(n or 0) for n in [await raw.hget(f"rowlock:{epoch}:{i}:meta", "held") for i in (1, 2)]]))
        return result

    monkeypatch.setattr(seat_cache._cache, "run", run_and_count)
    await seat_cache.apply(epoch, {i: [Change(n, b"H", 2) for n in range(seats)] for i in (1, 2)})
    assert there == list(range(0, 2 * seats + 1, 2_000))


async def test_a_map_that_takes_no_changes_is_deleted_and_the_others_get_theirs(
    seat_cache: SeatCache, raw: AsyncRedis
) -> None:
    epoch = await fresh_epoch(seat_cache)
    for session_id in (1, 2):
        await seat_cache.begin(epoch, session_id, SEATS, "mine", NO_END_MS)
        await seat_cache.finish(epoch, session_id, "mine")
    await raw.set(f"rowlock:{epoch}:1:meta", "no hash")
    await seat_cache.apply(epoch, {n: [Change(0, b"H", 2)] for n in (1, 2)})
    assert await raw.keys("*:1:*") == []
    assert (await seat_cache.read(2))[1] == b"HAAAA"


@pytest.mark.parametrize("no_mark", NO_MARKS)
async def test_where_somebody_has_damaged_the_watermark_nothing_is_fresh_until_it_is_renewed(
    seat_cache: SeatCache, raw: AsyncRedis, no_mark: str
) -> None:
    epoch = await fresh_epoch(seat_cache)
    await seat_cache.begin(epoch, 1, SEATS, "mine", NO_END_MS)
    await seat_cache.finish(epoch, 1, "mine")
    await write_no_mark(raw, no_mark)
    assert await seat_cache.read(1) == (None, None)
    assert await seat_cache.read_freshness() is None
    assert await seat_cache.read_fresh_counts([1]) is None
    assert await seat_cache.read_whole(1) == (None, None)
    assert await fresh_epoch(seat_cache) == epoch
    assert (await seat_cache.read(1))[1] == b"AAAAA"


async def test_a_watermark_that_never_ends_does_not_keep_the_next_one_away_however_late_it_says_it_is(
    seat_cache: SeatCache, raw: AsyncRedis
) -> None:
    clock = await seat_cache.clock()
    await raw.set(WATERMARK, f"history/{clock.run}|{clock.ms}|{10 * NOW.timestamp():.0f}000000")
    assert await fresh_epoch(seat_cache)


async def test_every_key_of_a_map_expires(seat_cache: SeatCache, raw: AsyncRedis) -> None:
    epoch = await fresh_epoch(seat_cache)
    await seat_cache.begin(epoch, 1, SEATS, "mine", NO_END_MS)
    await seat_cache.apply(epoch, {1: [Change(0, b"H", 2)]})
    await seat_cache.finish(epoch, 1, "mine")
    left = [await raw.pttl(f"rowlock:{epoch}:1:{name}") for name in ("states", "versions", "meta")]
    keep_ms = KEEP_MINUTES * 60_000
    assert all(keep_ms - 60_000 < ms <= keep_ms for ms in left)
    assert 0 < await raw.pttl(WATERMARK) <= FRESH_MS


@pytest.mark.parametrize("name", ["versions", "meta"])
async def test_a_map_that_has_lost_a_key_is_built_anew_instead_of_missing_changes(
    seat_cache: SeatCache, raw: AsyncRedis, name: str
) -> None:
    epoch = await fresh_epoch(seat_cache)
    await seat_cache.begin(epoch, 1, SEATS, "mine", NO_END_MS)
    await seat_cache.finish(epoch, 1, "mine")
    await raw.delete(f"rowlock:{epoch}:1:{name}")
    await seat_cache.apply(epoch, {1: [Change(0, b"H", 2)]})
    assert (await seat_cache.read(1))[1] is None
    assert await seat_cache.read_counts([1]) == {}
    assert await raw.keys("*:1:*") == []


async def test_the_watermark_is_not_renewed_by_who_comes_late_or_behind_or_from_another_run(
    seat_cache: SeatCache,
) -> None:
    clock = await seat_cache.clock()
    epoch = f"history/{clock.run}"
    assert not await seat_cache.renew(epoch, NOW, clock.ms - FRESH_MS), "it began too long ago"
    assert (await seat_cache.read(1))[0] is None
    assert await seat_cache.renew(epoch, NOW, clock.ms)
    assert not await seat_cache.renew(epoch, NOW - timedelta(microseconds=1), clock.ms + 10), "an older moment"
    assert not await seat_cache.renew("history/0123-0", NOW + timedelta(seconds=1), clock.ms), "another run of Redis"
    freshness, _ = await seat_cache.read(1)
    assert freshness is not None
    assert (freshness.epoch, freshness.as_of) == (epoch, NOW)
    assert 0 <= freshness.age_ms < FRESH_MS
    assert await seat_cache.renew(epoch, NOW + timedelta(microseconds=1), clock.ms)


async def test_the_age_is_right_and_bounded_by_the_readers_own_setting_whatever_the_projectors_is(
    redis: Redis | Container, seat_cache: SeatCache
) -> None:
    cache = Cache(with_redis("postgresql://nobody@nowhere/nothing", redis))
    clock = await seat_cache.clock()
    assert await seat_cache.renew(f"history/{clock.run}", NOW, clock.ms - 10_000)
    for fresh_ms in (30_000, 5 * FRESH_MS):
        freshness, _ = await SeatCache(cache, fresh_ms, KEEP_MINUTES).read(1)
        assert freshness is not None
        assert 10_000 <= freshness.age_ms < 20_000
    assert (await SeatCache(cache, 9_000, KEEP_MINUTES).read(1))[0] is None
    await cache.close()


@pytest.mark.parametrize("began_in_ms", [-FRESH_MS - 1, 5_000])
async def test_a_watermark_that_never_ends_or_is_of_another_clock_is_not_fresh(
    seat_cache: SeatCache, raw: AsyncRedis, began_in_ms: int
) -> None:
    clock = await seat_cache.clock()
    await fresh_epoch(seat_cache)
    assert (await seat_cache.read(1))[0] is not None
    await raw.set(WATERMARK, f"history/{clock.run}|{clock.ms + began_in_ms}|{NOW.timestamp():.0f}000000")
    assert (await seat_cache.read(1))[0] is None


async def test_a_watermark_of_the_release_before_is_not_fresh(seat_cache: SeatCache, raw: AsyncRedis) -> None:
    epoch = await fresh_epoch(seat_cache)
    await raw.delete(WATERMARK)
    await raw.set("rowlock:watermark", f"{epoch}|{NOW.timestamp():.0f}000000", px=FRESH_MS)
    assert (await seat_cache.read(1))[0] is None


async def test_a_map_of_another_epoch_is_not_read(seat_cache: SeatCache) -> None:
    epoch = await fresh_epoch(seat_cache)
    await seat_cache.begin(epoch, 1, SEATS, "mine", NO_END_MS)
    await seat_cache.finish(epoch, 1, "mine")
    assert (await seat_cache.read(1))[1] is not None
    await seat_cache.begin_epoch()
    clock = await seat_cache.clock()
    assert await seat_cache.renew(f"history/{clock.run}", NOW, clock.ms)
    freshness, states = await seat_cache.read(1)
    assert freshness is not None
    assert freshness.epoch != epoch
    assert states is None

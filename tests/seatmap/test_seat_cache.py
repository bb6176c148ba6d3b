"""The Lua scripts on a real Redis: a map has the newest state of each seat, in whatever order changes come."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.asyncio import Redis as AsyncRedis

from dev.containers import Container
from dev.servers import Redis
from service.cache import Cache
from service.seatmap.encoding import SEATS_PER_CALL, Change
from service.seatmap.keys import WATERMARK
from service.seatmap.updating import MapUpdates
from tests.seatmap.conftest import FRESH_MS, KEEP_MINUTES
from tests.stage.seat_maps import NO_END_MS, Keys, with_redis

SEATS = 5
T = TypeVar("T")
session_ids = count(1)


def letter(position: int, version: int) -> bytes:
    """The state of a seat at a version."""
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
        # Without changes the script is not called, so it can't refuse.
        return step == "fill" and not changes

    def states(self) -> bytes:
        """A letter a seat."""
        return b"".join(letter(position, n) if n else b"A" for position, n in self.versions.items())


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
async def test_in_any_order_of_changes_the_newest_wins(keys: Keys, steps: list[tuple[str, str, list[Change]]]) -> None:
    epoch, session_id, model = await keys.fresh_epoch(), next(session_ids), Model()
    for step, token, changes in steps:
        expected = model.take(step, token, changes)
        if step == "begin":
            assert await keys.builder.begin(epoch, session_id, SEATS, token, NO_END_MS) is expected
        elif step == "finish":
            assert await keys.builder.finish(epoch, session_id, token) is expected
        elif step == "fill":
            assert await keys.builder.fill(epoch, session_id, changes, token) is expected
        else:
            await keys.updates.apply(epoch, {session_id: changes} if changes else {})
    await assert_stored(keys, epoch, session_id, model)


async def assert_stored(keys: Keys, epoch: str, session_id: int, model: Model) -> None:
    """The map in Redis is the model's, its counts are those of its bytes, and only a complete map is read."""
    stored = {name: f"rowlock:{epoch}:{session_id}:{name}" for name in ("states", "versions", "meta")}
    assert await keys.redis.exists(*stored.values()) == (3 if model.flag else 0)
    if not model.flag:
        return
    states = await keys.redis.get(stored["states"])
    assert states == model.flag.encode() + model.states()
    versions = b"".join(n.to_bytes(4, "big") for n in model.versions.values())
    assert await keys.redis.get(stored["versions"]) == versions
    letters = Counter(states[1:].decode())
    meta = await keys.redis.hmget(stored["meta"], "held", "sold")
    assert [int(n or 0) for n in meta] == [letters["H"], letters["S"]]
    complete = model.flag == "C"
    assert (await keys.reads.read(session_id))[1] == (model.states() if complete else None)
    expected = {session_id: (letters["H"], letters["S"])} if complete else {}
    assert await keys.reads.read_counts([session_id]) == expected


async def test_a_builder_with_an_old_token_writes_nothing(keys: Keys) -> None:
    epoch = await keys.fresh_epoch()
    assert await keys.builder.begin(epoch, 1, SEATS, "late", NO_END_MS)
    assert await keys.builder.begin(epoch, 1, SEATS, "new", NO_END_MS)
    assert not await keys.builder.fill(epoch, 1, [Change(0, b"S", 9)], "late")
    assert not await keys.builder.finish(epoch, 1, "late")
    assert await keys.builder.finish(epoch, 1, "new")
    assert (await keys.reads.read(1))[1] == b"AAAAA"


async def test_only_the_owner_releases_a_lock_and_it_expires(keys: Keys) -> None:
    assert await keys.builder.try_lock("e", 1, "mine", 10_000)
    assert not await keys.builder.try_lock("e", 1, "yours", 10_000)
    await keys.builder.unlock("e", 1, "yours")
    assert 0 < await keys.redis.pttl("rowlock:e:1:lock") <= 10_000
    await keys.builder.unlock("e", 1, "mine")
    assert await keys.builder.try_lock("e", 1, "yours", 10_000)


async def test_a_map_of_a_hundred_thousand_seats_is_built_in_slices(keys: Keys) -> None:
    epoch, seats = await keys.fresh_epoch(), 100_000
    assert await keys.builder.begin(epoch, 1, seats, "mine", NO_END_MS)
    await keys.redis.config_resetstat()
    assert await keys.builder.fill(epoch, 1, [Change(n, b"S", 2) for n in range(seats)], "mine")
    assert (await keys.redis.info("commandstats"))["cmdstat_eval"]["calls"] == seats // SEATS_PER_CALL
    assert await keys.builder.finish(epoch, 1, "mine")
    assert (await keys.reads.read(1))[1] == b"S" * seats
    assert await keys.reads.read_counts([1]) == {1: (0, seats)}


class Counting(Cache):
    """Notes how many seats of the sessions 1 and 2 are held after each wait for Redis."""

    def __init__(self, redis: Redis | Container, epoch: str) -> None:
        super().__init__(with_redis("postgresql://nobody@nowhere/nothing", redis))
        self.metas = [f"rowlock:{epoch}:{session_id}:meta" for session_id in (1, 2)]
        self.held: list[int] = []

    async def run(self, work: Callable[[AsyncRedis], Awaitable[T]]) -> T:
        """As ever."""
        result = await super().run(work)
        self.held.append(sum([int(await self.redis.hget(meta, "held") or 0) for meta in self.metas]))
        return result


async def test_one_wait_for_redis_writes_two_thousand_seats_at_most(keys: Keys, redis: Redis | Container) -> None:
    epoch, seats = await keys.fresh_epoch(), 5_000
    for session_id in (1, 2):
        await keys.make_map(epoch, session_id, seats)
    cache = Counting(redis, epoch)
    changes = {session_id: [Change(n, b"H", 2) for n in range(seats)] for session_id in (1, 2)}
    await MapUpdates(cache, FRESH_MS).apply(epoch, changes)
    assert cache.held == list(range(2_000, 2 * seats + 1, 2_000))
    await cache.close()


async def test_a_map_that_rejects_changes_is_deleted_alone(keys: Keys) -> None:
    epoch = await keys.fresh_epoch()
    for session_id in (1, 2):
        await keys.make_map(epoch, session_id, SEATS)
    await keys.redis.set(f"rowlock:{epoch}:1:meta", "no hash")
    await keys.updates.apply(epoch, {n: [Change(0, b"H", 2)] for n in (1, 2)})
    assert await keys.redis.keys("*:1:*") == []
    assert (await keys.reads.read(2))[1] == b"HAAAA"


async def test_every_key_of_a_map_expires(keys: Keys) -> None:
    epoch = await keys.fresh_epoch()
    await keys.builder.begin(epoch, 1, SEATS, "mine", NO_END_MS)
    await keys.updates.apply(epoch, {1: [Change(0, b"H", 2)]})
    await keys.builder.finish(epoch, 1, "mine")
    left = [await keys.redis.pttl(f"rowlock:{epoch}:1:{name}") for name in ("states", "versions", "meta")]
    keep_ms = KEEP_MINUTES * 60_000
    assert all(keep_ms - 60_000 < ms <= keep_ms for ms in left)
    assert 0 < await keys.redis.pttl(WATERMARK) <= FRESH_MS


@pytest.mark.parametrize("name", ["versions", "meta"])
async def test_a_map_that_has_lost_a_key_is_deleted_by_a_change(keys: Keys, name: str) -> None:
    epoch = await keys.fresh_epoch()
    await keys.make_map(epoch, 1, SEATS)
    await keys.redis.delete(f"rowlock:{epoch}:1:{name}")
    await keys.updates.apply(epoch, {1: [Change(0, b"H", 2)]})
    assert (await keys.reads.read(1))[1] is None
    assert await keys.reads.read_counts([1]) == {}
    assert await keys.redis.keys("*:1:*") == []


async def test_a_map_of_another_epoch_is_not_read(keys: Keys) -> None:
    epoch = await keys.fresh_epoch()
    await keys.make_map(epoch, 1, SEATS)
    assert (await keys.reads.read(1))[1] is not None
    await keys.updates.begin_epoch()
    assert await keys.fresh_epoch() != epoch
    assert (await keys.reads.read(1))[1] is None

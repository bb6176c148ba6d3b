"""The watermark: when it counts, who may renew it, and what a damaged one does."""

from datetime import timedelta

import pytest

from dev.containers import Container
from dev.servers import Redis
from service.cache import Cache
from service.seatmap.cached import SeatCache
from service.seatmap.keys import WATERMARK
from tests.seatmap.conftest import FRESH_MS
from tests.stage.seat_maps import NO_MARKS, NOW, Keys, with_redis, write_no_mark

SEATS = 5


@pytest.mark.parametrize("no_mark", NO_MARKS)
async def test_under_a_damaged_watermark_no_map_is_fresh(keys: Keys, no_mark: str) -> None:
    epoch = await keys.fresh_epoch()
    await keys.make_map(epoch, 1, SEATS)
    await write_no_mark(keys.redis, no_mark)
    assert await keys.reads.read(1) == (None, None)
    assert await keys.reads.read_freshness() is None
    assert await keys.reads.read_fresh_counts([1]) is None
    assert await keys.reads.read_whole(1) == (None, None)
    assert await keys.fresh_epoch() == epoch
    assert (await keys.reads.read(1))[1] == b"AAAAA"


async def test_a_watermark_that_never_expires_is_overwritten(keys: Keys) -> None:
    clock = await keys.updates.clock()
    await keys.redis.set(WATERMARK, f"history/{clock.run}|{clock.ms}|{10 * NOW.timestamp():.0f}000000")
    assert await keys.fresh_epoch()


async def test_a_late_or_older_renewal_is_refused(keys: Keys) -> None:
    clock = await keys.updates.clock()
    epoch = f"history/{clock.run}"
    assert not await keys.updates.renew(epoch, NOW, clock.ms - FRESH_MS), "it began too long ago"
    assert (await keys.reads.read(1))[0] is None
    assert await keys.updates.renew(epoch, NOW, clock.ms)
    assert not await keys.updates.renew(epoch, NOW - timedelta(microseconds=1), clock.ms + 10), "an older moment"
    freshness, _ = await keys.reads.read(1)
    assert freshness is not None
    assert (freshness.epoch, freshness.as_of) == (epoch, NOW)
    assert 0 <= freshness.age_ms < FRESH_MS
    assert await keys.updates.renew(epoch, NOW + timedelta(microseconds=1), clock.ms)


async def test_a_renewal_from_another_run_of_redis_is_refused(keys: Keys) -> None:
    clock = await keys.updates.clock()
    assert not await keys.updates.renew("history/0123-0", NOW, clock.ms)
    assert (await keys.reads.read(1))[0] is None


async def test_a_reader_bounds_the_age_by_its_own_setting(redis: Redis | Container, keys: Keys) -> None:
    cache = Cache(with_redis("postgresql://nobody@nowhere/nothing", redis))
    clock = await keys.updates.clock()
    assert await keys.updates.renew(f"history/{clock.run}", NOW, clock.ms - 10_000)
    for fresh_ms in (30_000, 5 * FRESH_MS):
        freshness, _ = await SeatCache(cache, fresh_ms).read(1)
        assert freshness is not None
        assert 10_000 <= freshness.age_ms < 20_000
    assert (await SeatCache(cache, 9_000).read(1))[0] is None
    await cache.close()


@pytest.mark.parametrize("began_in_ms", [-FRESH_MS - 1, 5_000], ids=["too old", "of another clock"])
async def test_a_watermark_of_an_impossible_age_is_not_fresh(keys: Keys, began_in_ms: int) -> None:
    clock = await keys.updates.clock()
    await keys.fresh_epoch()
    assert (await keys.reads.read(1))[0] is not None
    await keys.redis.set(WATERMARK, f"history/{clock.run}|{clock.ms + began_in_ms}|{NOW.timestamp():.0f}000000")
    assert (await keys.reads.read(1))[0] is None

"""The keys of the maps in a real Redis, and a call that fails."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import ConnectionError as RedisConnectionError

from dev.containers import Container
from dev.servers import Redis
from service.cache import Cache
from service.errors import CacheAway
from service.seatmap.building import MapBuilder
from service.seatmap.cached import SeatCache
from service.seatmap.updating import MapUpdates
from tests.stage.seat_maps import Keys, with_redis

KEEP_MINUTES = 7
FRESH_MS = 60_000


@pytest.fixture
async def keys(redis: Redis | Container) -> AsyncIterator[Keys]:
    """As processes have them."""
    cache = Cache(with_redis("postgresql://nobody@nowhere/nothing", redis))
    yield Keys(SeatCache(cache, FRESH_MS), MapBuilder(cache, KEEP_MINUTES), MapUpdates(cache, FRESH_MS), cache.redis)
    await cache.close()


async def ping(redis: AsyncRedis) -> bool:
    """A call that succeeds."""
    return bool(await redis.ping())


async def fail_once(cache: Cache) -> None:
    """A call that Redis does not answer."""

    async def fail(_redis: AsyncRedis) -> None:
        raise RedisConnectionError("gone")

    with pytest.raises(CacheAway):
        await cache.run(fail)

"""The keys of the maps in a real Redis."""

from collections.abc import AsyncIterator

import pytest

from dev.containers import Container
from dev.servers import Redis
from service.cache import Cache
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

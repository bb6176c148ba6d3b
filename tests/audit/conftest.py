"""Seat maps for the self-audit."""

from collections.abc import AsyncIterator

import pytest

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from service.database import Connection
from tests.stage.map_stage import Stage, staged
from tests.stage.seat_maps import with_redis


@pytest.fixture
async def maps(postgres: Postgres, sql: Connection, redis: Redis | Container) -> AsyncIterator[Stage]:
    """Two correct maps, which are fresh for as long as a test takes."""
    async with staged(sql, with_redis(postgres.url(), redis, map_fresh_ms=60_000, map_wait_ms=5_000)) as made:
        yield made

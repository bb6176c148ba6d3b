"""The checks whether Redis is back, for a process that has no other call for it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import structlog
from structlog.testing import capture_logs

from dev.containers import Container
from dev.servers import Redis
from service.cache import Cache
from service.settings import Settings
from tests.seatmap.conftest import fail_once
from tests.stage.metering import gauge
from tests.stage.seat_maps import with_redis
from tests.stage.waiting import until


@pytest.fixture
async def watchful(settings: Settings, redis: Redis | Container) -> AsyncIterator[Cache]:
    """A cache that often checks whether Redis is back."""
    made = Cache(with_redis(settings.database_url.get_secret_value(), redis), look_seconds=0.05)
    yield made
    await made.close()


async def test_an_idle_process_notices_that_redis_is_back(watchful: Cache) -> None:
    before = asyncio.all_tasks()
    await fail_once(watchful)
    assert gauge("cache_up") == 0

    async def has_ended() -> bool:
        return asyncio.all_tasks() == before

    await until(is_up, "the check")
    await until(has_ended, "the last check")


async def test_the_check_is_not_logged_as_part_of_a_request(watchful: Cache) -> None:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        with structlog.contextvars.bound_contextvars(request_id="one"):
            await fail_once(watchful)
        await until(is_up, "the check")
    assert [(line["event"], line.get("request_id")) for line in lines] == [
        ("Redis is down", "one"),
        ("Redis is back", None),
    ]


async def is_up() -> bool:
    """Whether the process knows that Redis answers."""
    return gauge("cache_up") == 1


async def test_a_closed_cache_checks_no_more(watchful: Cache) -> None:
    before = asyncio.all_tasks()
    await fail_once(watchful)
    (look,) = asyncio.all_tasks() - before
    await watchful.close()
    await asyncio.wait([look], timeout=30)
    assert look.cancelled()

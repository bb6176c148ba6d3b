"""Redis as everybody uses it: bounded waits, one who tries while it is away, and never inside of a transaction."""

import ast
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from dev.containers import Container
from dev.servers import Redis
from service import cache as cache_module
from service.admission.ratelimit import RateLimits
from service.cache import BACKOFF_MS, BACKOFF_MS_MAX, Cache
from service.database import transaction
from service.errors import CacheAway
from service.observability.failures import CHANGES_MAX
from service.seatmap.cached import SeatCache
from service.seatmap.maps import SeatMaps
from service.settings import Settings
from tests.stage.metering import gauge
from tests.stage.processes import ROOT
from tests.stage.seat_maps import with_redis
from tests.stage.waiting import until

MAY_IMPORT_REDIS = {"service/cache.py", "service/seatmap/cached.py", "service/seatmap/updating.py"}
"""The last two work on the client that the first one passes to them."""


@pytest.fixture
async def cache(settings: Settings, redis: Redis | Container) -> AsyncIterator[Cache]:
    """As a process has it."""
    made = Cache(with_redis(settings.database_url.get_secret_value(), redis))
    yield made
    await made.close()


def clock() -> float:
    """The event loop's."""
    return asyncio.get_running_loop().time()


async def ping(redis: AsyncRedis) -> bool:
    """Something to do."""
    return bool(await redis.ping())


@pytest.mark.parametrize("through", ["cache", "map", "counts", "limits"])
async def test_nobody_calls_redis_while_a_transaction_is_open(
    cache: Cache, settings: Settings, engine: AsyncEngine, through: str
) -> None:
    limits = RateLimits(cache, settings)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "cache": lambda: cache.run(ping),
        "map": lambda: SeatCache(cache, 2_000).read(1),
        "counts": lambda: SeatMaps(engine, cache, settings).counts([1]),
        "limits": lambda: limits.check(limits.account, "me"),
    }
    async with transaction(engine):
        with pytest.raises(RuntimeError, match="while a transaction is open"):
            await calls[through]()
    await calls[through]()


def test_only_the_cache_knows_redis() -> None:
    files = [path for folder in ("service", "expirer") for path in (ROOT / folder).rglob("*.py")]
    assert {str(path.relative_to(ROOT)) for path in files if "redis" in imported(path)} == MAY_IMPORT_REDIS


def imported(path: Path) -> set[str]:
    """The packages that a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


@pytest.fixture
def long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tries again before the test says so, however slow the machine is."""
    monkeypatch.setattr(cache_module, "BACKOFF_MS", 100 * BACKOFF_MS)
    monkeypatch.setattr(cache_module, "BACKOFF_MS_MAX", 100 * BACKOFF_MS_MAX)


def end_pause(cache: Cache) -> None:
    """Somebody may try again."""
    assert clock() < cache._closed_until <= clock() + cache_module.BACKOFF_MS_MAX / 1000
    cache._closed_until = clock()


async def until_open(cache: Cache) -> None:
    """Returns when somebody may try again."""

    async def is_open() -> bool:
        return clock() >= cache._closed_until

    await until(is_open, "the next try")


async def fail_once(cache: Cache) -> None:
    """As it is when Redis does not answer."""

    async def fail(_redis: AsyncRedis) -> None:
        raise RedisConnectionError("gone")

    with pytest.raises(CacheAway):
        await cache.run(fail)


@pytest.mark.usefixtures("long_pauses")
async def test_who_fails_together_is_one_failure_and_then_a_single_one_tries(cache: Cache) -> None:
    tries = 0

    async def fail(_redis: AsyncRedis) -> None:
        nonlocal tries
        tries += 1
        await asyncio.sleep(0)
        raise RedisConnectionError("gone")

    async def fifty() -> None:
        outcomes = await asyncio.gather(*(cache.run(fail) for _ in range(50)), return_exceptions=True)
        assert all(isinstance(outcome, CacheAway) for outcome in outcomes)

    await fifty()
    assert (tries, cache._failures.count) == (50, 1)
    await fifty()
    assert tries == 50, "for a moment nobody tries"
    for failures in range(2, 7):
        end_pause(cache)
        await fifty()
        assert (tries, cache._failures.count) == (49 + failures, failures)
    end_pause(cache)
    assert await cache.run(ping)
    assert await asyncio.gather(*(cache.run(ping) for _ in range(50))) == [True] * 50


async def test_what_a_slow_redis_still_answers_to_somebody_else_lets_nobody_ask_again(cache: Cache) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def wait(_redis: AsyncRedis) -> None:
        asked.set()
        await answer.wait()

    slow = asyncio.create_task(cache.run(wait))
    await asked.wait()
    await fail_once(cache)
    closed_until = cache._closed_until
    answer.set()
    await slow
    assert cache._failures.count == 1
    assert cache._closed_until == closed_until
    assert gauge("cache_up") == 0


async def test_a_redis_that_comes_and_goes_is_told_of_a_few_times_a_minute(cache: Cache) -> None:
    with capture_logs() as lines:
        for _ in range(3 * CHANGES_MAX):
            await fail_once(cache)
            await until_open(cache)
            await cache.run(ping)
    assert [line["event"] for line in lines] == ["Redis is away", "Redis is back"] * CHANGES_MAX


async def test_a_process_that_asks_nothing_of_redis_sees_that_it_is_back(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "LOOK_SECONDS", 0.05)
    before = asyncio.all_tasks()
    await fail_once(cache)
    assert gauge("cache_up") == 0

    async def is_up() -> bool:
        return gauge("cache_up") == 1

    async def nobody_looks() -> bool:
        return asyncio.all_tasks() == before

    await until(is_up, "the look")
    await until(nobody_looks, "the last look")


async def test_the_look_is_no_part_of_the_request_that_was_the_first_to_fail(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "LOOK_SECONDS", 0.05)
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        with structlog.contextvars.bound_contextvars(request_id="one"):
            await fail_once(cache)

        async def is_back() -> bool:
            return not cache._failures.count

        await until(is_back, "the look")
    assert [(line["event"], line.get("request_id")) for line in lines] == [
        ("Redis is away", "one"),
        ("Redis is back", None),
    ]


async def test_a_cache_that_is_closed_does_not_look_any_more(cache: Cache) -> None:
    before = asyncio.all_tasks()
    await fail_once(cache)
    (look,) = asyncio.all_tasks() - before
    await cache.close()
    await asyncio.wait([look], timeout=30)
    assert look.cancelled()


async def test_an_error_that_redis_answers_with_is_nobody_elses(cache: Cache) -> None:
    await cache.run(lambda redis: redis.set("text", "text"))
    with pytest.raises(CacheAway, match="ResponseError"):
        await cache.run(lambda redis: redis.lpush("text", "one"))
    assert await cache.run(ping), "at once"


async def test_after_a_restart_of_redis_no_old_connection_costs_a_request(
    cache: Cache, redis: Redis | Container
) -> None:
    async def ping_together(redis: AsyncRedis) -> bool:
        await all_here.wait()
        return await ping(redis)

    all_here = asyncio.Barrier(10)
    await asyncio.gather(*(cache.run(ping_together) for _ in range(10)))
    pool: Any = cache.redis.connection_pool
    assert len(pool._available_connections) == 10
    await asyncio.to_thread(redis.kill)
    await asyncio.to_thread(redis.start)
    assert await asyncio.gather(*(cache.run(ping_together) for _ in range(10))) == [True] * 10


@pytest.mark.usefixtures("long_pauses")
async def test_a_redis_that_hangs_is_waited_for_no_longer_than_its_timeout_and_its_late_answer_is_nobodys(
    settings: Settings, redis: Redis | Container
) -> None:
    hasty = Cache(with_redis(settings.database_url.get_secret_value(), redis, redis_timeout_ms=1_000))
    await hasty.run(lambda redis: redis.mset({"one": "one", "two": "two"}))
    await asyncio.to_thread(redis.pause)
    try:
        began = clock()
        with pytest.raises(CacheAway):
            await hasty.run(lambda redis: redis.get("one"))
        assert 1 <= clock() - began < 10
        with pytest.raises(CacheAway, match="a moment ago"):
            await hasty.run(lambda redis: redis.get("one"))
    finally:
        await asyncio.to_thread(redis.resume)
    end_pause(hasty)
    began = clock()
    with pytest.raises(CacheAway):
        # However many steps the work has, and whatever each of them waits for.
        await hasty.run(lambda _redis: asyncio.wait_for(asyncio.Event().wait(), 20))
    assert clock() - began < 10
    end_pause(hasty)

    async def answers() -> bool:
        try:
            return await hasty.run(ping)
        except CacheAway:
            end_pause(hasty)
            return False

    await until(answers, "Redis")
    answered = await asyncio.gather(*(hasty.run(lambda redis: redis.get("two")) for _ in range(20)))
    assert answered == [b"two"] * 20
    await hasty.close()

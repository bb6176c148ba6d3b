"""Redis: bounded waits, one call that tries while it is away, and no call inside of a transaction."""

import ast
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from dev.containers import Container
from dev.servers import Redis
from service.admission.ratelimit import RateLimits
from service.cache import BACKOFF_MS_MAX, Cache
from service.database import transaction
from service.errors import CacheAway
from service.observability.failures import CHANGES_MAX
from service.seatmap.cached import SeatCache
from service.seatmap.maps import SeatMaps
from service.settings import Settings
from tests.seatmap.conftest import fail_once, ping
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


@pytest.mark.parametrize("through", ["cache", "map", "counts", "limits"])
async def test_redis_is_not_called_while_a_transaction_is_open(
    cache: Cache, settings: Settings, engine: AsyncEngine, through: str
) -> None:
    limits = RateLimits(cache, settings)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "cache": lambda: cache.run(ping),
        "map": lambda: SeatCache(cache, 2_000).read(1),
        "counts": lambda: SeatMaps(engine, cache, settings).counts([1]),
        "limits": lambda: limits.check(limits.sign_in, "me"),
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


class Clock:
    """Stands still until the test moves it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.seconds

    def pass_pause(self) -> None:
        """Moves on by the longest pause."""
        self.seconds += BACKOFF_MS_MAX / 1000


@pytest.fixture
def stopped() -> Clock:
    """The clock of `steered`."""
    return Clock()


@pytest.fixture
async def steered(settings: Settings, redis: Redis | Container, stopped: Clock) -> AsyncIterator[Cache]:
    """A cache whose pauses end when the test says so, however slow the machine is."""
    made = Cache(with_redis(settings.database_url.get_secret_value(), redis), clock=stopped)
    yield made
    await made.close()


async def test_calls_that_fail_together_are_one_failure_of_the_backoff(steered: Cache, stopped: Clock) -> None:
    tries = 0

    async def fail(_redis: AsyncRedis) -> None:
        nonlocal tries
        tries += 1
        await asyncio.sleep(0)
        raise RedisConnectionError("gone")

    async def fifty() -> None:
        outcomes = await asyncio.gather(*(steered.run(fail) for _ in range(50)), return_exceptions=True)
        assert all(isinstance(outcome, CacheAway) for outcome in outcomes)

    await fifty()
    assert tries == 50
    # The pause after each failure is at least half as long as it may be. Then a single call tries.
    for failures, pause_ms in enumerate([100, 200, 400, 800, 1_000, 1_000], 1):
        failed_at = stopped.seconds
        stopped.seconds = failed_at + pause_ms / 2_000 - 0.001
        await fifty()
        assert tries == 49 + failures, "during the pause no call tries"
        stopped.seconds = failed_at + pause_ms / 1_000
        await fifty()
        assert tries == 50 + failures
    stopped.pass_pause()
    assert await steered.run(ping)
    assert await asyncio.gather(*(steered.run(ping) for _ in range(50))) == [True] * 50


async def test_an_answer_to_an_older_call_does_not_end_the_pause(steered: Cache, stopped: Clock) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def wait(_redis: AsyncRedis) -> None:
        asked.set()
        await answer.wait()

    slow = asyncio.create_task(steered.run(wait))
    await asked.wait()
    stopped.seconds += 0.001
    await fail_once(steered)
    answer.set()
    await slow
    assert gauge("cache_up") == 0
    with pytest.raises(CacheAway, match="a moment ago"):
        await steered.run(ping)


async def test_frequent_changes_are_logged_a_few_times_a_minute(steered: Cache, stopped: Clock) -> None:
    with capture_logs() as lines:
        for _ in range(3 * CHANGES_MAX):
            await fail_once(steered)
            stopped.pass_pause()
            await steered.run(ping)
    assert [line["event"] for line in lines] == ["Redis is down", "Redis is back"] * CHANGES_MAX


async def test_an_error_that_redis_answers_does_not_affect_other_calls(cache: Cache) -> None:
    await cache.run(lambda redis: redis.set("text", "text"))
    with pytest.raises(CacheAway, match="ResponseError"):
        await cache.run(lambda redis: redis.lpush("text", "one"))
    assert await cache.run(ping), "at once"


async def test_after_a_restart_of_redis_no_request_fails(cache: Cache, redis: Redis | Container) -> None:
    async def ping_together(redis: AsyncRedis) -> bool:
        await all_here.wait()
        return await ping(redis)

    all_here = asyncio.Barrier(10)
    await asyncio.gather(*(cache.run(ping_together) for _ in range(10)))
    assert len(await cache.run(lambda redis: redis.client_list())) >= 10
    await asyncio.to_thread(redis.kill)
    await asyncio.to_thread(redis.start)
    assert await asyncio.gather(*(cache.run(ping_together) for _ in range(10))) == [True] * 10


async def test_a_hanging_redis_costs_one_timeout_and_no_wrong_answer(
    settings: Settings, redis: Redis | Container, stopped: Clock
) -> None:
    url = settings.database_url.get_secret_value()
    hasty = Cache(with_redis(url, redis, redis_timeout_ms=1_000), clock=stopped)
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
    stopped.pass_pause()
    began = clock()
    with pytest.raises(CacheAway):
        # The timeout is for the whole work, not for each of its steps.
        await hasty.run(lambda _redis: asyncio.wait_for(asyncio.Event().wait(), 20))
    assert clock() - began < 10

    async def answers() -> bool:
        stopped.pass_pause()
        try:
            return await hasty.run(ping)
        except CacheAway:
            return False

    await until(answers, "Redis")
    answered = await asyncio.gather(*(hasty.run(lambda redis: redis.get("two")) for _ in range(20)))
    assert answered == [b"two"] * 20
    await hasty.close()

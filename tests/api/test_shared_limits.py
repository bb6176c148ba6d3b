"""Counts that processes share: how exact they are, and which requests wait for Redis."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis as AsyncRedis

from dev.containers import Container
from dev.servers import Redis
from service.admission.ratelimit import RateLimits
from service.admission.shared import AHEAD_SHARE
from service.admission.windows import WINDOW_SECONDS, Count, Limit
from service.cache import Cache
from service.errors import TooManyRequests
from tests.stage.factories import make_settings
from tests.stage.seat_maps import with_redis
from tests.stage.waiting import until

NOW = 1_900_000_000.0
AMOUNT = 100
URL = "postgresql://nobody@nowhere/nothing"


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still, so that no window ends while a slow machine counts."""
    monkeypatch.setattr("time.time", lambda: NOW)


@pytest.fixture
async def processes(redis: Redis | Container, stopped: None) -> AsyncIterator[list[RateLimits]]:  # noqa: ARG001 - the clock stands still
    """The limits of two processes with one Redis."""
    settings = with_redis(
        URL, redis, account_requests_per_minute=AMOUNT, address_sign_ins_per_minute=AMOUNT, redis_timeout_ms=10_000
    )
    caches = [Cache(settings) for _ in range(2)]
    made = [RateLimits(cache, settings) for cache in caches]
    yield made
    for limits, cache in zip(made, caches, strict=True):
        await limits.close()
        await cache.close()


async def is_admitted(limits: RateLimits, limit: Limit, who: str = "me") -> bool:
    """Whether a request of the key is admitted."""
    try:
        await limits.check(limit, who)
    except TooManyRequests:
        return False
    return True


async def test_two_processes_exceed_a_limit_by_their_shares_at_most(processes: list[RateLimits]) -> None:
    admitted = [await is_admitted(limits, limits.account) for _ in range(AMOUNT) for limits in processes]
    assert AMOUNT <= sum(admitted) <= AMOUNT * (1 + len(processes) * AHEAD_SHARE)


async def test_concurrent_requests_exceed_a_limit_by_no_more(processes: list[RateLimits]) -> None:
    tries = [is_admitted(limits, limits.account) for _ in range(AMOUNT) for limits in processes]
    assert AMOUNT <= sum(await asyncio.gather(*tries)) <= AMOUNT * (1 + len(processes) * AHEAD_SHARE)


async def test_sign_ins_are_counted_exactly(processes: list[RateLimits]) -> None:
    admitted = [await is_admitted(limits, limits.sign_in) for _ in range(AMOUNT) for limits in processes]
    assert sum(admitted) == AMOUNT


async def test_the_first_requests_of_an_account_wait_for_no_redis(
    processes: list[RateLimits], redis: Redis | Container
) -> None:
    await asyncio.to_thread(redis.pause)
    try:
        async with asyncio.timeout(5):
            assert all([await is_admitted(processes[0], processes[0].account, who) for who in ("a", "b") for _ in "12"])
    finally:
        await asyncio.to_thread(redis.resume)


async def test_refusals_of_a_flood_wait_for_no_redis(processes: list[RateLimits], redis: Redis | Container) -> None:
    limits = processes[0]
    while await is_admitted(limits, limits.account):
        pass
    await asyncio.to_thread(redis.pause)
    try:
        async with asyncio.timeout(5):
            assert not any([await is_admitted(limits, limits.account) for _ in range(1_000)])
    finally:
        await asyncio.to_thread(redis.resume)


async def test_requests_are_reported_in_the_background(processes: list[RateLimits], redis: Redis | Container) -> None:
    limits = processes[0]
    client = AsyncRedis.from_url(redis.url)
    for who in ("a", "b"):
        assert all([await is_admitted(limits, limits.account, who) for _ in "12"])

    async def reported() -> Any:
        window = int(NOW // WINDOW_SECONDS)
        counts = await client.mget([f"rowlock:limits:account:{who}:{window}" for who in ("a", "b")])
        return counts == [b"2", b"2"]

    await until(reported, "both counts in Redis")
    assert 0 < await client.ttl(f"rowlock:limits:account:a:{int(NOW // WINDOW_SECONDS)}") <= 3 * WINDOW_SECONDS
    await client.aclose()


@pytest.mark.usefixtures("stopped")
async def test_a_full_table_forgets_the_oldest_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.admission.windows.KEYS_MAX", 2)
    limits = RateLimits(None, make_settings(URL, account_requests_per_minute=1))
    assert [await is_admitted(limits, limits.account, who) for who in "abcba"] == [True, True, True, False, True]


WINDOWS = st.builds(Count, st.just(0), st.integers(0, 500), st.integers(0, 300), st.integers(0, 300))


@given(WINDOWS, st.integers(1, 300), st.floats(0, 59.9))
def test_a_request_fits_after_its_wait_and_not_before(count: Count, limit: int, now: float) -> None:
    wait = count.seconds_to_wait(limit, now)
    if wait is None:
        return
    assert wait >= -1e-6
    for later, fits in ((now + wait - 0.01, False), (now + wait + 0.01, True)):
        if later < now:
            continue
        then = count if later < WINDOW_SECONDS else Count(1, count.total)
        assert (then.seconds_to_wait(limit, later) is None) is fits

"""Access to Redis for the whole service: every wait is short, and after a failure no call is tried for a while."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeVar

import structlog
from redis.asyncio import BlockingConnectionPool, Redis, Sentinel, SentinelConnectionPool
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from service.backoff import delay_after
from service.database import refuse_in_transaction
from service.errors import CacheAway
from service.observability.failures import Failures
from service.observability.metrics import catalogue
from service.settings import Settings
from service.settings.sentinels import Sentinels, sentinels_of

BACKOFF_MS = 100
BACKOFF_MS_MAX = 1_000
LOOK_SECONDS = 10.0
"""The interval of checks whether Redis is back. Without them an idle process would not notice."""

T = TypeVar("T")
log = structlog.stdlib.get_logger("rowlock.cache")


class MasterPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the master that the sentinels name at that moment. A call waits for a free one."""


class Cache:
    """One per process. While Redis is down, calls fail at once, and from time to time one call is tried."""

    def __init__(
        self,
        settings: Settings,
        *,
        look_seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert settings.redis_url is not None
        self._timeout_seconds = settings.redis_timeout_ms / 1000
        url, connections_max = settings.redis_url.get_secret_value(), settings.redis_connections_max
        limits = {
            "max_connections": connections_max,
            "timeout": self._timeout_seconds,
            **_limits(self._timeout_seconds),
        }
        sentinels = sentinels_of(url)
        self._sentinel = _sentinel(sentinels, self._timeout_seconds) if sentinels else None
        if sentinels and self._sentinel:
            pool: BlockingConnectionPool = MasterPool(  # type: ignore[no-untyped-call] # the library's
                sentinels.name, self._sentinel, **_target(sentinels), **limits
            )
        else:
            pool = BlockingConnectionPool.from_url(url, **limits)
        self.redis: Redis = Redis.from_pool(pool)
        self._look_seconds = look_seconds
        self._clock = clock
        self._failures = Failures()
        self._failed_at = -math.inf
        self._closed_until = 0.0
        self._looking: asyncio.Task[None] | None = None
        catalogue.CACHE_UP.of().set(1)

    async def run(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        """The result of the work. Raises CacheAway where Redis does not answer within `redis_timeout_ms`, or
        with an error.
        """
        refuse_in_transaction("Redis")
        began, failures = self._clock(), self._failures.count
        if began < self._closed_until:
            raise CacheAway("Redis was down a moment ago")
        if failures:
            # While this call finds out, all others fail at once.
            self._closed_until = began + self._timeout_seconds
        try:
            async with asyncio.timeout(self._timeout_seconds):
                result = await work(self.redis)
        except ResponseError as error:
            # Redis is up and rejected this work only, so other calls go on.
            self._note_success(began)
            raise CacheAway(f"{type(error).__name__}: {error}") from error
        except (RedisError, OSError, TimeoutError) as error:
            # Calls that were under way together fail together. They count as one failure.
            if self._failures.count == failures:
                self._note_failure(self._clock(), error)
            catalogue.CACHE_ERRORS.of().inc()
            raise CacheAway(f"{type(error).__name__}: {error}") from error
        self._note_success(began)
        return result

    async def close(self) -> None:
        """Closes the connections."""
        if self._looking:
            self._looking.cancel()
        await self.redis.aclose()
        if self._sentinel:
            await self._sentinel.aclose()

    def _note_failure(self, now: float, error: Exception) -> None:
        if facts := self._failures.note("away", now):
            log.warning("Redis is down", error=repr(error), **facts)
        if self._looking is None or self._looking.done():
            # Without the context of the request that failed first, such as its id in the log.
            self._looking = asyncio.create_task(self._look(), context=Context())
        self._failed_at = now
        catalogue.CACHE_UP.of().set(0)
        pause_ms = delay_after(self._failures.count, BACKOFF_MS, BACKOFF_MS_MAX, jitter=True)
        self._closed_until = now + pause_ms / 1000

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._look_seconds)
            if not self._failures.count:
                return
            with suppress(CacheAway):
                await self.run(lambda redis: redis.ping())

    def _note_success(self, began: float) -> None:
        # A call that began before the failure proves nothing: a slow Redis still answers some.
        if not self._failures.count or began < self._failed_at:
            return
        catalogue.CACHE_UP.of().set(1)
        if facts := self._failures.end(self._clock()):
            log.info("Redis is back", **facts)
        self._closed_until = 0.0


def _limits(seconds: float) -> dict[str, Any]:
    """The options of a connection that waits for this long at most."""
    return {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        # A retry would double the wait; the next request is the retry.
        "retry": Retry(NoBackoff(), 0),
        # With notices of maintenance (Redis Cloud) the client would no longer check a connection before it is used.
        # After a restart of Redis each old connection would then fail a request.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _target(sentinels: Sentinels) -> dict[str, Any]:
    """The options of a connection to the master, but for its address."""
    options: dict[str, Any] = dict(parse_url(sentinels.url))
    del options["host"]
    return options | {"ssl": options.pop("connection_class", None) is not None}


def _sentinel(sentinels: Sentinels, seconds: float) -> Sentinel:
    """Asks one sentinel after the other. A silent one must leave time for the others and for the master itself."""
    ssl = {name: value for name, value in _target(sentinels).items() if name.startswith("ssl")}
    limits = _limits(seconds / (len(sentinels.addresses) + 1))
    options = limits | ssl | {"password": sentinels.password}
    return Sentinel(sentinels.addresses, sentinel_kwargs=options)  # type: ignore[no-untyped-call] # the library's

"""Redis as everybody here may use it: never waited for long, and left alone for a while after it did not answer."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from typing import TypeVar

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
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

BACKOFF_MS = 100
BACKOFF_MS_MAX = 1_000
LOOK_SECONDS = 10.0
"""So often somebody looks whether Redis is back, for when nobody else asks: else an idle process would never see it."""

T = TypeVar("T")
log = structlog.stdlib.get_logger("rowlock.cache")


class Cache:
    """One per process. While Redis is away calls fail at once, and now and then a single one tries again."""

    def __init__(self, settings: Settings) -> None:
        assert settings.redis_url is not None
        self._timeout_seconds = settings.redis_timeout_ms / 1000
        pool = BlockingConnectionPool.from_url(
            settings.redis_url.get_secret_value(),
            max_connections=settings.redis_connections_max,
            timeout=self._timeout_seconds,
            socket_timeout=self._timeout_seconds,
            socket_connect_timeout=self._timeout_seconds,
            # A second try would double the wait; the next request is the next try.
            retry=Retry(NoBackoff(), 0),
            # Notices of maintenance, which a service of Redis's maker sends, would end the look whether a connection
            # is still good before it is used: after a restart of Redis each old one would cost a request.
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        self.redis: Redis = Redis.from_pool(pool)
        self._failures = Failures()
        self._failed_at = -math.inf
        self._closed_until = 0.0
        self._looking: asyncio.Task[None] | None = None
        catalogue.CACHE_UP.of().set(1)

    async def run(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        """What the work returns. Raises CacheAway where Redis does not answer within `redis_timeout_ms`, or
        with an error.
        """
        refuse_in_transaction("Redis")
        clock = asyncio.get_running_loop().time
        began, failures = clock(), self._failures.count
        if began < self._closed_until:
            raise CacheAway("Redis was away a moment ago")
        if failures:
            # Nobody else waits for what this one finds out.
            self._closed_until = began + self._timeout_seconds
        try:
            async with asyncio.timeout(self._timeout_seconds):
                result = await work(self.redis)
        except ResponseError as error:
            # Redis is there, and something is wrong with this work only: nobody else should go without.
            self._note_success(began)
            raise CacheAway(f"{type(error).__name__}: {error}") from error
        except (RedisError, OSError, TimeoutError) as error:
            # Those that were under way together fail together, which is one failure.
            if self._failures.count == failures:
                self._note_failure(clock(), error)
            catalogue.CACHE_ERRORS.of().inc()
            raise CacheAway(f"{type(error).__name__}: {error}") from error
        self._note_success(began)
        return result

    async def close(self) -> None:
        """Ends the connections."""
        if self._looking:
            self._looking.cancel()
        await self.redis.aclose()

    def _note_failure(self, now: float, error: Exception) -> None:
        if facts := self._failures.note("away", now):
            log.warning("Redis is away", error=repr(error), **facts)
        if self._looking is None or self._looking.done():
            # Not a part of the request that was the first to fail.
            self._looking = asyncio.create_task(self._look(), context=Context())
        self._failed_at = now
        catalogue.CACHE_UP.of().set(0)
        pause_ms = delay_after(self._failures.count, BACKOFF_MS, BACKOFF_MS_MAX, jitter=True)
        self._closed_until = now + pause_ms / 1000

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not self._failures.count:
                return
            with suppress(CacheAway):
                await self.run(lambda redis: redis.ping())

    def _note_success(self, began: float) -> None:
        # What was under way when another one failed says nothing: a slow Redis still answers some.
        if not self._failures.count or began < self._failed_at:
            return
        catalogue.CACHE_UP.of().set(1)
        if facts := self._failures.end(asyncio.get_running_loop().time()):
            log.info("Redis is back", **facts)
        self._closed_until = 0.0

"""Rate limits by account and address: counted in Redis for all replicas, or in each process while Redis is down."""

import math
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from service.cache import Cache
from service.errors import CacheAway, TooManyRequests
from service.observability.metrics import catalogue
from service.settings import Settings

LOCAL_KEYS_MAX = 5_000
"""The most keys of a limit that a process counts. Then it begins again, because each request searches all of them."""
FORWARDED_MAX = 20
SITE_PREFIX = 64
"""The prefix of an IPv6 network that one customer has, at least; its addresses count as one."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Requests per minute. `name` is shown to clients, and `local` counts while Redis is down."""

    name: str
    item: RateLimitItem
    local: MemoryStorage = field(default_factory=MemoryStorage)


class RateLimits:
    """One per process. Without Redis there is no `cache`."""

    def __init__(self, cache: Cache | None, settings: Settings) -> None:
        self._cache = cache
        self.account = _per_minute("account", settings.account_requests_per_minute)
        self.address = _per_minute("address", settings.address_requests_per_minute)
        self.sign_in = _per_minute("sign-in", settings.address_sign_ins_per_minute)
        self._trusted = settings.trusted_proxies
        self._shared: SlidingWindowCounterRateLimiter | None = None
        if cache:
            # The cache's connections. The library's types do not include this option.
            options: dict[str, Any] = {"connection_pool": cache.redis.connection_pool}
            storage = RedisStorage("async+redis://", False, "redispy", "rowlock:limits", **options)  # noqa: FBT003
            self._shared = SlidingWindowCounterRateLimiter(storage)

    async def check(self, limit: Limit, who: str) -> None:
        """Counts a request. Raises TooManyRequests."""
        shared = self._shared
        if self._cache and shared:
            try:
                await self._cache.run(lambda _redis: _check(shared, limit, who))
            except CacheAway:
                pass
            else:
                return
        if len(limit.local.storage) > LOCAL_KEYS_MAX:
            await limit.local.reset()
        await _check(SlidingWindowCounterRateLimiter(limit.local), limit, who)

    def client_address(self, peer: str | None, forwarded_for: str | None) -> str:
        """The client's address: the connection's, or the one that a trusted proxy forwards; else `unknown`."""
        nearest_first = [peer or "", *reversed((forwarded_for or "").split(",")[-FORWARDED_MAX:])]
        address: IPv4Address | IPv6Address | None = None
        for text in nearest_first:
            try:
                address = _parsed(text.strip())
            except ValueError:
                break
            if not self._is_trusted(address):
                break
        return _counted_as(address)

    def is_proxy(self, peer: str | None) -> bool:
        """Whether the connection is from a trusted proxy."""
        try:
            return self._is_trusted(_parsed(peer or ""))
        except ValueError:
            return False

    def _is_trusted(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._trusted)


async def _check(limiter: SlidingWindowCounterRateLimiter, limit: Limit, who: str) -> None:
    if await limiter.hit(limit.item, limit.name, who):
        return
    catalogue.RATE_LIMITED.of(limit.name).inc()
    reset_at, _ = await limiter.get_window_stats(limit.item, limit.name, who)
    # The second after the end of the window, because requests of the last minute weigh less only then.
    raise TooManyRequests(limit.name, limit.item.amount, max(0, math.floor(reset_at - time.time())) + 1)


def _per_minute(name: str, amount: int) -> Limit:
    return Limit(name, RateLimitItemPerMinute(amount))


def _parsed(text: str) -> IPv4Address | IPv6Address:
    """The address. Raises ValueError. A dual-stack socket shows an IPv4 address in the form of IPv6."""
    address = ip_address(text)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _counted_as(address: IPv4Address | IPv6Address | None) -> str:
    match address:
        case None:
            return "unknown"
        case IPv6Address():
            return str(IPv6Network((int(address), SITE_PREFIX), strict=False))
        case _:
            return str(address)

"""Rate limits by account and address: counted for all replicas, or in each process where Redis is missing or down."""

import math
import re
import time
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import structlog

from service.admission.shared import AHEAD_SHARE, SharedCounts
from service.admission.windows import Limit
from service.cache import Cache
from service.errors import CacheAway, TooManyRequests
from service.observability.metrics import catalogue
from service.settings import Settings

FORWARDED_MAX = 20
PORT = re.compile(r"^(?:\[([^\]]*)\]|([^:\[]*))(?::[0-9]{1,5})?$")
"""A proxy may add the port: 203.0.113.7:40001, [2001:db8::1]:40001."""
ADDRESSES_MAX = 5_000
"""Connections' addresses whose meaning is remembered."""
SITE_PREFIX = 64
"""The prefix of an IPv6 network that one customer has, at least; its addresses count as one."""


log = structlog.stdlib.get_logger("rowlock.limits")


class RateLimits:
    """One per process. Without Redis there is no `cache`."""

    def __init__(self, cache: Cache | None, settings: Settings) -> None:
        self.account = _per_minute("account", settings.account_requests_per_minute)
        self.payment = _per_minute("payment", settings.account_payments_per_minute)
        self.address = _per_minute("address", settings.address_requests_per_minute)
        self.refused = _per_minute("refused", settings.address_refusals_per_minute)
        # Exact: guesses of passwords are few beside their cost.
        self.sign_in = Limit("sign-in", settings.address_sign_ins_per_minute)
        self._trusted = settings.trusted_proxies
        self._shared = SharedCounts(cache) if cache else None
        self._has_noted = False
        self.is_proxy = lru_cache(ADDRESSES_MAX)(self._is_proxy)

    async def check(self, limit: Limit, who: str) -> None:
        """Counts a request. Raises TooManyRequests."""
        wait = await self._hit(limit, who, time.time())
        if wait is not None:
            catalogue.RATE_LIMITED.of(limit.name).inc()
            # A second more, because a part of a second later a request would still be refused.
            raise TooManyRequests(limit.name, limit.amount, math.floor(wait) + 1)

    async def close(self) -> None:
        """Ends the work in the background."""
        if self._shared:
            await self._shared.close()

    async def _hit(self, limit: Limit, who: str, now: float) -> float | None:
        if self._shared:
            try:
                return await self._shared.hit(limit, who, now)
            except CacheAway:
                pass
        count = limit.alone.count(who, now)
        wait = count.seconds_to_wait(limit.amount, now)
        if wait is None:
            count.own += 1
        return wait

    def client_address(self, peer: str | None, forwarded_for: str | None) -> str:
        """The client's address: the connection's, or the one that a trusted proxy forwards; else `unknown`."""
        if not forwarded_for:
            return _connection_address(peer or "")
        nearest_first = [peer or "", *reversed(forwarded_for.split(",")[-FORWARDED_MAX:])]
        address: IPv4Address | IPv6Address | None = None
        for text in nearest_first:
            try:
                address = _parsed(PORT.sub(r"\1\2", text.strip()))
            except ValueError:
                self._note_unreadable(text)
                break
            if not self._is_trusted(address):
                break
        return _counted_as(address)

    def _note_unreadable(self, text: str) -> None:
        if not self._has_noted:
            self._has_noted = True
            log.warning("X-Forwarded-For can't be read; its clients count as their proxy", value=text[:100])

    def _is_proxy(self, peer: str | None) -> bool:
        """Whether the connection is from a trusted proxy."""
        try:
            return self._is_trusted(_parsed(peer or ""))
        except ValueError:
            return False

    def _is_trusted(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._trusted)


def _per_minute(name: str, amount: int) -> Limit:
    return Limit(name, amount, int(amount * AHEAD_SHARE))


@lru_cache(ADDRESSES_MAX)
def _connection_address(peer: str) -> str:
    try:
        return _counted_as(_parsed(peer))
    except ValueError:
        return _counted_as(None)


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

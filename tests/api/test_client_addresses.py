"""A request's address: the header counts only if a trusted proxy has written it."""

from collections import Counter
from collections.abc import Sequence

import httpx
import pytest

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from service.admission import windows
from service.admission.ratelimit import RateLimits
from service.errors import TooManyRequests
from service.observability import logs
from service.settings import Settings
from tests.stage.factories import make_settings
from tests.stage.processes import api_process

PROXIES = "10.0.0.0/8, 192.0.2.7, 2001:db8:ffff::/48"
ADDRESSES = {
    "no header": ("198.51.100.1", None, "198.51.100.1"),
    "forged behind nobody we trust": ("198.51.100.1", "203.0.113.9", "198.51.100.1"),
    "behind a proxy": ("10.1.2.3", "203.0.113.9", "203.0.113.9"),
    "behind two proxies": ("10.1.2.3", "203.0.113.9, 192.0.2.7", "203.0.113.9"),
    "forged behind a proxy": ("10.1.2.3", "1.1.1.1, 203.0.113.9", "203.0.113.9"),
    "a trusted address forged behind a proxy": ("10.1.2.3", "10.9.9.9, 203.0.113.9", "203.0.113.9"),
    "a proxy that asks itself": ("10.1.2.3", None, "10.1.2.3"),
    "only proxies": ("10.1.2.3", "10.0.0.1", "10.0.0.1"),
    "nonsense": ("10.1.2.3", "unknown", "10.1.2.3"),
    "nonsense before the proxy's": ("10.1.2.3", "<script>, 203.0.113.9", "203.0.113.9"),
    "empty": ("10.1.2.3", "", "10.1.2.3"),
    "blanks": ("10.1.2.3", " 203.0.113.9 ,  192.0.2.7 ", "203.0.113.9"),
    "with a port": ("10.1.2.3", "203.0.113.9:40001", "203.0.113.9"),
    "proxies with ports": ("10.1.2.3", "203.0.113.9:40001, 192.0.2.7:443", "203.0.113.9"),
    "IPv6 with a port": ("10.1.2.3", "[2001:db8:1:2::9]:40001", "2001:db8:1:2::/64"),
    "IPv6 in brackets": ("10.1.2.3", "[2001:db8:1:2::9]", "2001:db8:1:2::/64"),
    "a port that is none": ("10.1.2.3", "203.0.113.9:http", "10.1.2.3"),
    "IPv6": ("2001:db8:1:2:3:4:5:6", None, "2001:db8:1:2::/64"),
    "IPv6 of the same site": ("2001:db8:1:2:ffff::1", None, "2001:db8:1:2::/64"),
    "IPv6 with a zone": ("fe80::1%eth0", None, "fe80::/64"),
    "IPv6 behind an IPv6 proxy": ("2001:db8:ffff::1", "2001:db8:1:2::9", "2001:db8:1:2::/64"),
    "IPv4 on a socket of both families": ("::ffff:198.51.100.1", None, "198.51.100.1"),
    "a proxy on a socket of both families": ("::ffff:10.1.2.3", "203.0.113.9", "203.0.113.9"),
    "a socket that has no address": (None, "203.0.113.9", "unknown"),
    "more proxies than we follow": ("10.1.2.3", "203.0.113.9" + ", 10.0.0.1" * 30, "10.0.0.1"),
}


@pytest.mark.parametrize("case", ADDRESSES)
def test_a_request_counts_for_the_nearest_untrusted_address(case: str) -> None:
    peer, forwarded_for, counted = ADDRESSES[case]
    settings = make_settings("postgresql://nobody@nowhere/nothing", trusted_proxies=PROXIES)
    assert RateLimits(None, settings).client_address(peer, forwarded_for) == counted


def test_an_unreadable_header_is_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("info")
    limits = RateLimits(None, make_settings("postgresql://nobody@nowhere/nothing", trusted_proxies=PROXIES))
    for forwarded_for in ("unknown", "203.0.113.9", "_hidden"):
        limits.client_address("10.1.2.3", forwarded_for)
    assert capsys.readouterr().err.count("can't be read") == 1


@pytest.mark.parametrize(
    ("trusted", "sent", "answered"),
    [
        ("", [f"203.0.113.{n}" for n in range(8)], 3),
        ("127.0.0.0/8", [f"203.0.113.{n}" for n in range(8)], 8),
        ("127.0.0.0/8", [f"203.0.113.{n}, 198.51.100.1" for n in range(8)], 3),
    ],
    ids=["forged", "told by a proxy", "forged behind a proxy"],
)
async def test_forged_headers_change_nothing_on_the_real_server(
    postgres: Postgres, redis: Redis | Container, trusted: str, sent: Sequence[str], answered: int
) -> None:
    options = {"address_requests_per_minute": 3, "trusted_proxies": trusted, "redis_url": redis.url}
    async with (
        api_process(postgres.url(), **options) as api,
        httpx.AsyncClient(base_url=api.url, timeout=30) as client,
    ):
        asked = [{"X-Forwarded-For": address, "X-Real-IP": address, "Forwarded": f"for={address}"} for address in sent]
        replies = [await client.get("/customer/list-sessions", headers=headers) for headers in asked]
    assert Counter(reply.status_code for reply in replies)[200] == answered


async def test_local_counts_are_bounded_and_keep_accounts_in_a_flood(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "KEYS_MAX", 100)
    monkeypatch.setattr("time.time", lambda: 1_900_000_000.0)
    limits = RateLimits(
        None, settings.model_copy(update={"account_requests_per_minute": 1, "address_requests_per_minute": 1})
    )
    await limits.check(limits.account, "me")
    for n in range(1_000):
        await limits.check(limits.address, f"203.0.113.{n}")
        assert len(limits.address.alone.current) <= 100
    with pytest.raises(TooManyRequests):
        await limits.check(limits.account, "me")

"""Rate limits: which key a request counts for, the headers of a refusal, and counts that replicas share."""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence

import httpx
import pytest

from dev.containers import Container
from dev.servers import Redis
from service.accounts.tokens import Role
from service.admission.ratelimit import RateLimits
from service.database import Connection
from service.errors import TooManyRequests
from service.settings import Settings
from tests.conftest import serving
from tests.stage.factories import Account, make_accounts, make_customers, make_settings
from tests.stage.seat_maps import with_redis
from tests.stage.waiting import until

SECOND_OF_ALL = {
    "account_requests_per_minute": 1,
    "account_payments_per_minute": 1,
    "address_requests_per_minute": 1,
    "address_sign_ins_per_minute": 1,
}
HISTORY = "/customer/list-history"
ID = "01926e2c-5a00-7000-8000-000000000001"
LIMITED = {
    "POST /sign-up": ("sign-in", None),
    "POST /sign-in": ("sign-in", None),
    "GET /customer/list-sessions": ("address", None),
    "GET /customer/session/1": ("address", None),
    f"GET {HISTORY}": ("account", Role.CUSTOMER),
    "POST /customer/book": ("account", Role.CUSTOMER),
    "POST /customer/book/1": ("account", Role.CUSTOMER),
    f"GET /customer/reservation/{ID}": ("account", Role.CUSTOMER),
    f"PUT /customer/pay/{ID}": ("payment", Role.CUSTOMER),
    f"DELETE /customer/reservation/{ID}": ("payment", Role.CUSTOMER),
    "POST /manager/create": ("account", Role.MANAGER),
    "POST /manager/session/1/pause": ("account", Role.MANAGER),
    "POST /manager/session/1/resume": ("account", Role.MANAGER),
    "GET /manager/session/1/abuse": ("account", Role.MANAGER),
    "GET /manager/audit": ("account", Role.MANAGER),
}


async def test_reads_and_holds_leave_payments_their_limit(
    sql: Connection, settings: Settings, redis: Redis | Container
) -> None:
    (customer,) = await make_accounts(sql, settings, 1, Role.CUSTOMER)
    async with serving(with_redis(settings.database_url.get_secret_value(), redis, **SECOND_OF_ALL)) as client:
        read = [await client.get(HISTORY, headers=customer.headers) for _ in range(3)]
        paid = await client.put(f"/customer/pay/{ID}", headers=customer.headers)
    assert (read[-1].status_code, paid.status_code) == (429, 404)


@pytest.mark.parametrize("route", LIMITED)
async def test_every_route_refuses_requests_over_the_limit(
    sql: Connection, settings: Settings, redis: Redis | Container, route: str
) -> None:
    (limit, role), (method, path) = LIMITED[route], route.split()
    accounts = await make_accounts(sql, settings, 1, role) if role else []
    headers = accounts[0].headers if accounts else {}
    async with serving(with_redis(settings.database_url.get_secret_value(), redis, **SECOND_OF_ALL)) as client:
        # Whatever the first is answered: it has no body, and there is no such seat.
        first, second = [await client.request(method, path, headers=headers) for _ in range(2)]
    assert first.status_code != 429
    assert (second.status_code, second.headers["content-type"]) == (429, "application/problem+json")
    assert second.json()["type"] == "urn:rowlock:problem:too-many-requests"
    assert (second.json()["limit"], second.json()["requestsMax"]) == (limit, 1)
    wait = int(second.headers["retry-after"])
    assert 1 <= wait <= 60
    assert second.headers["ratelimit-policy"] == f'"{limit}";q=1;w=60'
    assert second.headers["ratelimit"] == f'"{limit}";r=0;t={wait}'


async def test_the_openapi_document_has_429_for_every_limited_route(
    client: httpx.AsyncClient,
) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    with_429 = {
        f"{method.upper()} {path}"
        for path, operations in paths.items()
        for method, operation in operations.items()
        if "429" in operation["responses"]
    }
    templates = {re.sub(r"session/1", "session/{sessionId}", route) for route in LIMITED}
    templates = {re.sub(r"book/1", "book/{seatId}", route).replace(ID, "{reservationId}") for route in templates}
    assert with_429 == templates


async def test_a_read_counts_for_the_account_or_else_for_the_address(
    sql: Connection, settings: Settings, redis: Redis | Container
) -> None:
    one, other = await make_customers(sql, settings, 2)
    limits = {"account_requests_per_minute": 3, "address_requests_per_minute": 2}
    async with serving(with_redis(settings.database_url.get_secret_value(), redis, **limits)) as client:

        async def ask(headers: dict[str, str]) -> int:
            return (await client.get("/customer/list-sessions", headers=headers)).status_code

        assert [await ask(one.headers) for _ in range(4)] == [200, 200, 200, 429]
        assert [await ask(other.headers) for _ in range(4)] == [200, 200, 200, 429]
        wrong = {"Authorization": "Bearer nonsense"}
        assert [await ask(headers) for headers in (wrong, {}, {}, wrong)] == [200, 200, 429, 429]


async def statuses(clients: Sequence[httpx.AsyncClient], account: Account, count: int) -> Counter[int]:
    """What so many requests are answered, sent by turns to each process."""
    replies = [await clients[n % len(clients)].get(HISTORY, headers=account.headers) for n in range(count)]
    return Counter(reply.status_code for reply in replies)


async def test_replicas_share_the_counts_only_with_redis(
    sql: Connection, settings: Settings, redis: Redis | Container
) -> None:
    one, other = await make_customers(sql, settings, 2)
    url = settings.database_url.get_secret_value()
    shared = with_redis(url, redis, account_requests_per_minute=10)
    async with serving(shared) as first, serving(shared) as second:
        assert await statuses([first, second], one, 30) == {200: 10, 429: 20}
    alone = make_settings(url, account_requests_per_minute=10)
    async with serving(alone) as first, serving(alone) as second:
        # Without Redis a minute is the clock's: when it ends meanwhile, each process lets one more in.
        assert 20 <= (await statuses([first, second], other, 30))[200] <= 22


async def test_replicas_share_the_counts_again_when_redis_is_back(
    sql: Connection, settings: Settings, redis: Redis | Container
) -> None:
    (account,) = await make_customers(sql, settings, 1)
    url = settings.database_url.get_secret_value()
    shared = with_redis(url, redis, account_requests_per_minute=8)
    async with serving(shared) as first, serving(shared) as second:
        assert await statuses([first, second], account, 12) == {200: 8, 429: 4}
        await asyncio.to_thread(redis.kill)
        assert 16 <= (await statuses([first, second], account, 24))[200] <= 18
        await asyncio.to_thread(redis.forget)
        await asyncio.to_thread(redis.start)

        async def both_are_back() -> bool:
            # A replica that still counts for itself refuses.
            replies = [await client.get(HISTORY, headers=account.headers) for client in (first, second)]
            return all(reply.status_code == 200 for reply in replies)

        await until(both_are_back, "Redis, with new counts")
        assert set(await statuses([first, second], account, 8)) == {200, 429}


async def refusal(limits: RateLimits, who: str) -> TooManyRequests | None:
    """What a request of the account is told."""
    try:
        await limits.check(limits.account, who)
    except TooManyRequests as error:
        return error
    return None


async def test_a_client_is_admitted_after_retry_after_and_not_before(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_900_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    limits = RateLimits(None, settings.model_copy(update={"account_requests_per_minute": 3}))
    assert [await refusal(limits, "me") for _ in range(3)] == [None] * 3
    told = await refusal(limits, "me")
    assert told is not None
    assert 1 <= told.retry_after_seconds <= 60
    now += told.retry_after_seconds - 2
    assert await refusal(limits, "me") is not None
    now += 2
    assert await refusal(limits, "me") is None

"""Requests that are refused before an account is known: counted by address, and what is left unlimited is cheap."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from service.database import Connection
from service.settings import Settings
from tests.conftest import serving
from tests.stage.factories import make_customer, make_settings
from tests.stage.round_trips import counted
from tests.stage.seat_maps import with_redis

HISTORY = "/customer/list-history"
JSON = {"Content-Type": "application/json"}
REFUSED: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "401 without a token": ("GET", HISTORY, {}),
    "401 with a damaged token": ("GET", HISTORY, {"headers": {"Authorization": "Bearer x.y.z"}}),
    "401 on a hold": ("POST", "/customer/book/1", {}),
    "401 on a manager's route": ("GET", "/manager/audit", {}),
    "404 of a path": ("GET", "/wp-login.php", {}),
    "404 of a file": ("GET", "/api-docs/assets/0/x", {}),
    "405": ("PATCH", "/livez", {}),
    "400": ("POST", "/customer/book", {"content": b"{", "headers": JSON}),
    "400 of bytes": ("POST", "/manager/create", {"content": b"\xff", "headers": JSON}),
    "415": ("POST", "/sign-in", {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
    "413": ("POST", "/customer/book", {"content": b" " * 100_000, "headers": JSON}),
}


def limited(settings: Settings, redis: Redis | Container) -> Settings:
    """The second such request of an address is refused."""
    return with_redis(settings.database_url.get_secret_value(), redis, address_refusals_per_minute=1)


@pytest.mark.parametrize("name", REFUSED)
async def test_refusals_of_unknown_callers_have_a_limit(
    settings: Settings, redis: Redis | Container, name: str
) -> None:
    method, path, arguments = REFUSED[name]
    async with serving(limited(settings, redis)) as client:
        first, second = [await client.request(method, path, **arguments) for _ in range(2)]
    assert first.status_code == int(name[:3])
    assert (second.status_code, second.json()["limit"]) == (429, "refused")
    assert second.headers["ratelimit-policy"] == '"refused";q=1;w=60'
    assert 1 <= int(second.headers["retry-after"]) <= 60


async def test_a_valid_token_goes_on_from_a_limited_address(
    sql: Connection, settings: Settings, redis: Redis | Container
) -> None:
    customer = await make_customer(sql, settings)
    async with serving(limited(settings, redis)) as client:
        refused = [(await client.get(HISTORY)).status_code for _ in range(3)]
        served = [(await client.get(HISTORY, headers=customer.headers)).status_code for _ in range(3)]
        public = (await client.get("/customer/list-sessions")).status_code
    assert (refused, served, public) == ([401, 429, 429], [200, 200, 200], 200)


async def test_probes_and_documentation_are_not_limited(settings: Settings, redis: Redis | Container) -> None:
    async with serving(limited(settings, redis)) as client:
        for path in ("/livez", "/readyz", "/openapi.json", "/api-docs"):
            assert {(await client.get(path)).status_code for _ in range(5)} == {200}, path


@pytest.mark.usefixtures("sql")
async def test_probes_at_the_same_time_share_a_query(postgres: Postgres) -> None:
    asked = 50
    async with counted(postgres) as trips, serving(make_settings(trips.url)) as client:
        await client.get("/readyz")
        trips.forget()
        await client.get("/readyz")
        alone = trips.count
        trips.forget()
        replies = await asyncio.gather(*(client.get("/readyz") for _ in range(asked)))
        together = trips.count
    assert {reply.status_code for reply in replies} == {200}
    assert 0 < together <= 5 * alone < asked


async def test_the_document_is_compressed(client: httpx.AsyncClient) -> None:
    packed = await client.get("/openapi.json")
    plain = await client.get("/openapi.json", headers={"Accept-Encoding": "identity"})
    assert packed.json() == plain.json()
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 3


async def test_the_documentation_can_be_switched_off(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"docs": False})) as client:
        for path in ("/", "/api-docs", "/api-docs/", "/openapi.json", "/api-docs/assets/0/favicon.png"):
            assert (await client.get(path)).status_code == 404, path
        assert (await client.get("/customer/list-sessions")).status_code == 200

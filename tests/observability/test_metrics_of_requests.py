"""The metrics of requests: routes, limits, passwords, seat maps."""

import asyncio
from uuid import uuid4

import httpx
import pytest

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from service.database import Connection
from service.settings import Settings
from tests.conftest import serving
from tests.stage.factories import (
    make_session,
    make_settings,
)
from tests.stage.metering import about, gauge, moved
from tests.stage.seat_maps import ask, projecting, with_redis
from tests.stage.waiting import until


def request(method: str, route: str, outcome: str, count: int = 1) -> dict[str, float]:
    """The growth by requests of one kind."""
    return {f"http_request_duration_seconds_count {method} {route} {outcome}": count}


async def test_answers_count_by_template_and_unknown_routes_as_other(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    session = await make_session(sql, settings)
    with moved() as grown:
        for seat in session.seat_ids[:2]:
            await client.post(f"/customer/book/{seat}")
        await client.get(f"/customer/session/{session.id}")
        await client.get("/no/such/route")
        await client.get(f"/no/such/route/{uuid4()}")
        await client.request("BREW", "/no/such/route")
        await client.get("/livez")
    assert about(grown, "http") == (
        request("POST", "/customer/book/{seatId}", "refused", 2)
        | request("GET", "/customer/session/{sessionId}", "ok")
        | request("GET", "other", "refused", 2)
        | request("other", "other", "refused")
        | request("GET", "/livez", "ok")
    )


async def test_a_limited_request_is_counted_by_its_limit(postgres: Postgres, sql: Connection) -> None:
    settings = make_settings(postgres.url(), address_requests_per_minute=1)
    await make_session(sql, settings)
    async with serving(settings) as client:
        with moved() as grown:
            assert [(await client.get("/customer/list-sessions")).status_code for _ in range(3)] == [200, 429, 429]
    assert about(grown, "rate") == {"rate_limited_total address": 2}
    assert about(grown, "http") == (
        request("GET", "/customer/list-sessions", "ok") | request("GET", "/customer/list-sessions", "limited", 2)
    )


@pytest.mark.usefixtures("sql")
async def test_passwords_are_timed_and_the_waiting_ones_counted(client: httpx.AsyncClient) -> None:
    async def sign_up(n: int) -> int:
        body = {"email": f"{n}@example.com", "password": "correct horse battery", "name": "Ada", "role": "CUSTOMER"}
        return (await client.post("/sign-up", json=body)).status_code

    async def several_wait() -> bool:
        return gauge("password_checks_waiting") > 1

    with moved() as grown:
        signing_up = asyncio.gather(*map(sign_up, range(5)))
        await until(several_wait, "the checks")
        assert await signing_up == [201] * 5
    assert about(grown, "password") == {"password_check_duration_seconds_count": 5}
    assert gauge("password_checks_waiting") == 0


async def test_maps_are_counted_by_source_with_ages_and_builds(
    postgres: Postgres, sql: Connection, redis: Redis | Container
) -> None:
    settings = with_redis(postgres.url(), redis, map_fresh_ms=60_000, map_wait_ms=5_000)
    on_sale = await make_session(sql, settings)
    async with projecting(settings) as projection, serving(settings) as client:
        with moved() as grown:
            assert (await ask(client, on_sale)).json()["source"] == "postgresql"
        assert about(grown, "seat_map") == {
            "seat_map_reads_total postgresql": 1,
            "seat_map_age_seconds_count postgresql": 1,
        }
        await projection.step()
        with moved() as grown:
            assert (await ask(client, on_sale)).json()["source"] == "redis"
            assert (await ask(client, on_sale)).json()["source"] == "redis"
        assert about(grown, "seat_map", "cache") == {
            "seat_map_reads_total redis": 2,
            "seat_map_age_seconds_count redis": 2,
            "seat_map_builds_total built": 1,
        }
        assert gauge("cache_up") == 1
        redis.stop()
        with moved() as grown:
            await asyncio.sleep(0)
            assert (await client.get(f"/customer/session/{on_sale.id}")).status_code == 200
        assert about(grown, "cache")["cache_errors_total"] >= 1
        assert gauge("cache_up") == 0

"""Redis goes away while customers buy: killed, empty, with an old snapshot, hanging. They go on, and maps stay true."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis as AsyncRedis

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from service.database import Connection
from service.settings import Settings
from tests.factories import Account, OnSale, book, make_customers, make_session, pay, release
from tests.processes import api_process, expirer_process
from tests.seat_maps import assert_map_is_right, until_from
from tests.truth import Seen, assert_true

REDIS_TIMEOUT_MS = 250
MAP_FRESH_MS = 1_000
ANSWER_SECONDS_MAX = 3.0
"""Each answer asks Redis two or three times; the rest is slack for a machine that does something else too."""
WINDOW_SECONDS = 5.0
TROUBLE_SECONDS = 20.0
SHOPPERS, SEATS = 6, 120
PACE_MIN = 0.75
"""Of the bookings with Redis, in the same run."""

Server = Redis | Container


@dataclass(slots=True)
class Rush:
    """Customers who hold and release, somebody who looks at the map, and what they saw."""

    client: httpx.AsyncClient
    on_sale: OnSale
    url: str
    seen: Seen = field(default_factory=Seen)
    sources: Counter[str] = field(default_factory=Counter)
    slowest_seconds: float = 0.0

    async def go_on(self, customers: list[Account], seconds: float = WINDOW_SECONDS) -> float:
        """How many bookings there are in a second."""
        end = time.monotonic() + seconds
        look = asyncio.create_task(self._look(end))
        booked = await asyncio.gather(*(self._buy(customer, end) for customer in customers))
        await look
        return sum(booked) / seconds

    async def buy_for_good(self, customer: Account) -> None:
        """Seats that stay sold: who shows them as available again is wrong whatever happened since."""
        reply = await book(self.client, customer, *self.on_sale.seat_ids[:8])
        assert (await pay(self.client, customer, reply.json()["reservationId"])).status_code == 200

    async def _buy(self, customer: Account, end: float) -> int:
        clock, booked = await asyncpg.connect(self.url), 0
        while time.monotonic() < end:
            seat_ids = random.sample(list(self.on_sale.seat_ids), 2)
            reply = await self._timed(book(self.client, customer, *seat_ids))
            assert reply.status_code in (201, 409), reply.text
            if reply.status_code == 201:
                booked += 1
                id_ = reply.json()["reservationId"]
                await self._note(clock, id_, "reservation.held")
                released = await self._timed(release(self.client, customer, id_))
                assert released.status_code == 200, released.text
                await self._note(clock, id_, "reservation.cancelled")
        await clock.close()
        return booked

    async def _note(self, clock: Connection, id_: str, kind: str) -> None:
        self.seen.acknowledged.append((await clock.fetchval("select clock_timestamp()"), UUID(id_), kind))

    async def _look(self, end: float) -> None:
        while time.monotonic() < end:
            reply = await self._timed(self.client.get(f"/customer/session/{self.on_sale.id}"))
            assert reply.status_code == 200, reply.text
            body = reply.json()
            self.sources[body["source"]] += 1
            letters = "".join(seat["state"][0] for seat in body["seats"])
            self.seen.maps.append((datetime.fromisoformat(body["asOf"]), letters))
            await asyncio.sleep(0.01)

    async def _timed(self, asking: Awaitable[httpx.Response]) -> httpx.Response:
        began = time.monotonic()
        reply = await asking
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
        return reply


@asynccontextmanager
async def rush_with(postgres: Postgres, redis: Server, on_sale: OnSale) -> AsyncIterator[Rush]:
    """The API and the expirer as processes, with the default time for Redis."""
    options = {"redis_url": redis.url, "redis_timeout_ms": REDIS_TIMEOUT_MS, "map_fresh_ms": MAP_FRESH_MS}
    async with (
        api_process(postgres.url(), **options) as api,
        expirer_process(postgres.url(), **options),
        httpx.AsyncClient(base_url=api.url, timeout=30) as client,
    ):
        await until_from(client, on_sale, "redis")
        yield Rush(client, on_sale, postgres.url())


async def start_empty(redis: Server) -> None:
    """Killed before; nothing of what it knew is there."""
    await asyncio.to_thread(redis.forget_snapshot)
    await asyncio.to_thread(redis.start)


async def start_with_snapshot(redis: Server) -> None:
    """Killed before; it knows what it knew when `save` was called."""
    await asyncio.to_thread(redis.start)
    async with AsyncRedis.from_url(redis.url) as client:
        assert await client.keys("rowlock:*:states"), "an old map is there"


async def resume(redis: Server) -> None:
    """Paused before; it knows everything, and all requests of that time are still before it."""
    await asyncio.to_thread(redis.resume)


async def save(redis: Server) -> None:
    """Writes a snapshot."""
    async with AsyncRedis.from_url(redis.url) as client:
        await client.save()


TROUBLES: dict[str, tuple[Callable[[Server], None], Callable[[Server], Awaitable[None]]]] = {
    "killed, then empty": (lambda redis: redis.kill(), start_empty),
    "killed, then with an old snapshot": (lambda redis: redis.kill(), start_with_snapshot),
    "paused": (lambda redis: redis.pause(), resume),
}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_while_redis_is_in_trouble_customers_buy_at_the_same_pace_and_no_map_says_what_is_not_true(
    postgres: Postgres, sql: Connection, settings: Settings, redis: Server, trouble: str
) -> None:
    begin, end = TROUBLES[trouble]
    keeper, *customers = await make_customers(sql, settings, 1 + SHOPPERS)
    on_sale = await make_session(sql, settings, SEATS)
    async with rush_with(postgres, redis, on_sale) as rush:
        await save(redis)
        await rush.buy_for_good(keeper)
        quiet = await rush.go_on(customers)
        assert set(rush.sources) == {"redis"}
        going_on = asyncio.create_task(rush.go_on(customers, TROUBLE_SECONDS))
        await asyncio.to_thread(begin, redis)
        troubled = await going_on
        # Nothing in Redis can be fresh any more, so what comes from it afterwards was made anew.
        assert rush.sources["postgresql"] > 0
        coming_back = asyncio.create_task(rush.go_on(customers))
        await end(redis)
        await coming_back
        assert troubled >= PACE_MIN * quiet > 0, (quiet, troubled)
        assert rush.slowest_seconds < ANSWER_SECONDS_MAX
        await until_from(rush.client, on_sale, "redis", await sql.fetchval("select clock_timestamp()"))
        assert (await assert_map_is_right(rush.client, sql, on_sale))["source"] == "redis"
    await assert_true(sql, on_sale.id, rush.seen)


async def test_redis_restarted_with_an_old_snapshot_within_a_moment_serves_nothing_of_it_as_new(
    postgres: Postgres, sql: Connection, settings: Settings, redis: Server
) -> None:
    (customer,) = await make_customers(sql, settings, 1)
    on_sale = await make_session(sql, settings, SEATS)
    async with rush_with(postgres, redis, on_sale) as rush:
        await save(redis)
        held = await book(rush.client, customer, *on_sale.seat_ids[:5])
        assert held.status_code == 201
        await until_from(rush.client, on_sale, "redis", await sql.fetchval("select clock_timestamp()"))
        await asyncio.to_thread(redis.kill)
        await asyncio.to_thread(redis.start)
        # The cursor is behind the hold: nobody brings it again to a map of the old epoch.
        await until_from(rush.client, on_sale, "redis", await sql.fetchval("select clock_timestamp()"))
        assert (await assert_map_is_right(rush.client, sql, on_sale))["source"] == "redis"

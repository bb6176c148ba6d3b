"""Customers buy while Redis is killed, emptied, hanging, behind, or restarted with an old snapshot.

Their pace stays, no answer takes longer than Redis's timeout, and no map is wrong.
"""

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
from tests.stage.factories import Account, OnSale, book, make_customers, make_session, pay, release
from tests.stage.processes import Process, api_process, expirer_process
from tests.stage.seat_maps import assert_map_is_right, until_from
from tests.stage.stalls import measured_on_a_working_machine
from tests.stage.truth import Seen, assert_true

REDIS_TIMEOUT_MS = 250
MAP_FRESH_MS = 1_000
ANSWER_SECONDS_MAX = 3 * REDIS_TIMEOUT_MS / 1000 + 0.5
"""An answer waits for Redis up to three times, and besides does what it does without."""
WINDOW_SECONDS = 5.0
TROUBLE_SECONDS = 20.0
SNAPSHOT_SECONDS = 60.0
"""How old a snapshot is at least when Redis starts with it."""
SHOPPERS, SEATS = 6, 120
PACE_MIN = 0.75
"""Of the bookings with Redis, in the same run."""

Server = Redis | Container


@dataclass(slots=True)
class Rush:
    """Customers who hold and release, a reader of the map, and the answers that they got."""

    client: httpx.AsyncClient
    on_sale: OnSale
    url: str
    redis: Server
    expirer: Process
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
        """Seats that stay sold: a map that shows one as available is wrong in any case."""
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
        expirer_process(postgres.url(), **options) as expirer,
        httpx.AsyncClient(base_url=api.url, timeout=30) as client,
    ):
        await until_from(client, on_sale, "redis")
        try:
            yield Rush(client, on_sale, postgres.url(), redis, expirer)
        finally:
            # Else one that the test has left paused could not be stopped.
            expirer.resume()


async def kill_redis(rush: Rush) -> None:
    """Without a chance to write anything."""
    await asyncio.to_thread(rush.redis.kill)


async def start_empty(rush: Rush) -> None:
    """Restarts it empty after a kill."""
    await asyncio.to_thread(rush.redis.forget)
    await asyncio.to_thread(rush.redis.start)


async def start_with_snapshot(rush: Rush) -> None:
    """Restarts it after a kill with the data of the last `save`."""
    await asyncio.to_thread(rush.redis.start)
    async with AsyncRedis.from_url(rush.redis.url) as client:
        assert await client.keys("rowlock:*:states"), "an old map is there"


async def pause_redis(rush: Rush) -> None:
    """It answers no request, but its connections stay."""
    await asyncio.to_thread(rush.redis.pause)


async def resume_redis(rush: Rush) -> None:
    """It knows everything, and all requests of that time are still before it."""
    await asyncio.to_thread(rush.redis.resume)


async def pause_expirer(rush: Rush) -> None:
    """Redis answers, but no projector applies new events."""
    rush.expirer.pause()


async def resume_expirer(rush: Rush) -> None:
    """Its lease is over, and everything of that time is still before it."""
    rush.expirer.resume()


async def save(redis: Server) -> None:
    """Writes a snapshot."""
    async with AsyncRedis.from_url(redis.url) as client:
        await client.save()


@dataclass(frozen=True, slots=True)
class Trouble:
    """Begins when customers have bought for `after_seconds` since the snapshot, and ends TROUBLE_SECONDS later."""

    begin: Callable[[Rush], Awaitable[None]]
    end: Callable[[Rush], Awaitable[None]]
    after_seconds: float = WINDOW_SECONDS


TROUBLES = {
    "Redis killed, then empty": Trouble(kill_redis, start_empty),
    "Redis killed, then with an old snapshot": Trouble(kill_redis, start_with_snapshot, SNAPSHOT_SECONDS),
    "Redis paused": Trouble(pause_redis, resume_redis),
    "the expirer paused": Trouble(pause_expirer, resume_expirer),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
async def test_cache_outages_slow_no_sale_and_show_no_wrong_map(
    postgres: Postgres, sql: Connection, settings: Settings, redis: Server, trouble: Trouble
) -> None:
    keeper, *customers = await make_customers(sql, settings, 1 + SHOPPERS)

    async def measure() -> list[str]:
        on_sale = await make_session(sql, settings, SEATS)
        async with rush_with(postgres, redis, on_sale) as rush:
            await save(redis)
            await rush.buy_for_good(keeper)
            quiet = await rush.go_on(customers, trouble.after_seconds)
            assert set(rush.sources) == {"redis"}
            troubled = await go_through(rush, trouble, customers)
            await until_from(rush.client, on_sale, "redis", await sql.fetchval("select clock_timestamp()"))
            assert (await assert_map_is_right(rush.client, sql, on_sale))["source"] == "redis"
        await assert_true(sql, on_sale.id, rush.seen)
        return complaints(quiet, troubled, rush.slowest_seconds)

    await measured_on_a_working_machine(measure)


async def go_through(rush: Rush, trouble: Trouble, customers: list[Account]) -> float:
    """How many bookings there are in a second of the trouble; after it they go on for a while."""
    buying = asyncio.create_task(rush.go_on(customers, TROUBLE_SECONDS))
    await trouble.begin(rush)
    troubled = await buying
    coming_back = asyncio.create_task(rush.go_on(customers))
    await trouble.end(rush)
    await coming_back
    # Nothing in Redis was fresh for most of that time, so what comes from it afterwards was made anew.
    assert rush.sources["postgresql"] > 0
    return troubled


def complaints(quiet: float, troubled: float, slowest_seconds: float) -> list[str]:
    """The bounds that were exceeded; `quiet` and `troubled` are bookings a second."""
    found = []
    if troubled < PACE_MIN * quiet:
        found.append(f"{troubled:.1f} bookings a second in trouble, {quiet:.1f} before")
    if slowest_seconds > ANSWER_SECONDS_MAX:
        found.append(f"an answer took {slowest_seconds:.2f} s")
    return found


async def test_old_snapshot_of_redis_is_not_served_as_new(
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
        # The cursor is behind the hold: no projector applies it again to a map of the old epoch.
        await until_from(rush.client, on_sale, "redis", await sql.fetchval("select clock_timestamp()"))
        assert (await assert_map_is_right(rush.client, sql, on_sale))["source"] == "redis"

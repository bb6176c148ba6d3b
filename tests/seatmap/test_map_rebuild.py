"""A map that is missing in Redis: it is built once for all requests, and no change is lost meanwhile."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis as AsyncRedis

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from service.database import Connection
from service.errors import Busy, BusyReason
from service.seatmap.stored import SeatReads
from service.settings import Settings
from tests.stage.factories import make_customer, make_session
from tests.stage.forcing import PATIENT, give
from tests.stage.processes import api_process
from tests.stage.seat_maps import NO_END_MS, Projection, ask, projecting, stored_states, unreadable, with_redis
from tests.stage.waiting import until, until_lock_waits

LONG = {"map_fresh_ms": 60_000, "map_wait_ms": 5_000}


def hang(monkeypatch: pytest.MonkeyPatch, *, before_read: bool) -> tuple[asyncio.Event, asyncio.Event]:
    """Stops a builder before or after it reads the seats. The events: it has stopped; it may go on."""
    is_there, may_go_on = asyncio.Event(), asyncio.Event()
    changed = SeatReads.changed

    async def hanging(self: SeatReads, session_id: int) -> Any:
        result = None if before_read else await changed(self, session_id)
        is_there.set()
        await may_go_on.wait()
        return await changed(self, session_id) if before_read else result

    monkeypatch.setattr(SeatReads, "changed", hanging)
    return is_there, may_go_on


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("before_read", [True, False])
async def test_a_change_during_the_build_of_a_map_is_in_it(
    projection: Projection, sql: Connection, monkeypatch: pytest.MonkeyPatch, *, before_read: bool, numbered: bool
) -> None:
    customer = await make_customer(sql, projection.settings)
    on_sale = await make_session(sql, projection.settings)
    await give(sql, customer, on_sale.seat_ids[0])
    await projection.step()
    is_there, may_go_on = hang(monkeypatch, before_read=before_read)
    asking = asyncio.create_task(projection.get(on_sale))
    await is_there.wait()
    await give(sql, customer, on_sale.seat_ids[1])
    if numbered:
        await projection.number()
    await projection.step()
    may_go_on.set()
    seat_map = await asking
    assert (seat_map.source, seat_map.states) == ("redis", b"HH" + b"A" * 14)
    assert await projection.versions(on_sale) == [2, 2] + [0] * 14


async def test_a_late_builder_changes_nothing(
    projection: Projection, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = await make_customer(sql, settings)
    on_sale = await make_session(sql, settings)
    await give(sql, customer, on_sale.seat_ids[0])
    await projection.step()
    epoch = await projection.epoch()
    is_there, may_go_on = hang(monkeypatch, before_read=False)
    late = asyncio.create_task(projection.get(on_sale))
    await is_there.wait()
    # Its lock has expired, and another builder has begun when the late one goes on.
    await projection.redis.delete(f"rowlock:{epoch}:{on_sale.id}:lock")
    assert await projection.builder.begin(epoch, on_sale.id, 16, "another", NO_END_MS)
    may_go_on.set()
    assert (await late).source == "postgresql"
    assert await projection.redis.get(f"rowlock:{epoch}:{on_sale.id}:states") == b"B" + b"A" * 16


async def test_postgresql_answers_until_the_lock_of_a_builder_expires(
    settings: Settings, redis: Redis | Container, sql: Connection
) -> None:
    quick = with_redis(settings.database_url.get_secret_value(), redis, **(LONG | {"map_wait_ms": 50}))
    on_sale = await make_session(sql, settings)
    async with projecting(quick) as projection:
        await projection.step()
        lock = f"rowlock:{await projection.epoch()}:{on_sale.id}:lock"
        assert await projection.builder.try_lock(await projection.epoch(), on_sale.id, "dead", 2_000)
        assert (await projection.get(on_sale)).source == "postgresql"

        async def is_gone() -> bool:
            return not await projection.redis.exists(lock)

        await until(is_gone, "the end of the lock")
        assert (await projection.get(on_sale)).source == "redis"
        assert await is_gone(), "the builder has released the lock"


async def test_a_failed_builder_releases_the_lock(
    projection: Projection, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_sale = await make_session(sql, settings)
    await projection.step()

    async def fail(_self: SeatReads, _session_id: int) -> Any:
        raise Busy(BusyReason.MAP_READ)

    with monkeypatch.context() as patch:
        patch.setattr(SeatReads, "changed", fail)
        assert (await projection.get(on_sale)).source == "postgresql"
    assert (await projection.get(on_sale)).source == "redis"


@asynccontextmanager
async def counting_builds(redis: Redis | Container) -> AsyncIterator[Counter[str]]:
    """The number of builds of each map during the block. Redis marks the commands that a script sends."""
    begun: Counter[str] = Counter()
    async with AsyncRedis.from_url(redis.url) as client, client.monitor() as monitor:

        async def count() -> None:
            async for command in monitor.listen():
                if command["client_type"] == "lua" and command["command"].startswith(("SET ", "set ")):
                    begun[command["command"].split()[1]] += 1

        counting = asyncio.create_task(count())
        yield begun
        counting.cancel()
        await asyncio.wait([counting])


async def test_a_hundred_readers_of_two_processes_cause_one_build(
    projection: Projection, postgres: Postgres, sql: Connection, settings: Settings, redis: Redis | Container
) -> None:
    on_sale = await make_session(sql, settings, 500)
    await give(sql, await make_customer(sql, settings), *on_sale.seat_ids[:5])
    await projection.step()
    options = LONG | PATIENT | {"redis_url": redis.url, "redis_timeout_ms": 5_000, "map_wait_ms": 5_000}
    async with (
        api_process(postgres.url(), **options) as one,
        api_process(postgres.url(), **options) as two,
        httpx.AsyncClient(base_url=one.url, timeout=30) as first,
        httpx.AsyncClient(base_url=two.url, timeout=30) as second,
        counting_builds(redis) as begun,
    ):
        async with unreadable(postgres):
            asked = [asyncio.create_task(ask(client, on_sale)) for client in (first, second) for _ in range(50)]
            # No process reads the seats before both wait for them.
            await until_lock_waits(sql, 2)
        replies = await asyncio.gather(*asked)
        assert {reply.json()["source"] for reply in replies} == {"redis"}
        states = {tuple(seat["state"][0] for seat in reply.json()["seats"]) for reply in replies}
        assert states == {tuple((await stored_states(sql, on_sale)).decode())}
    assert [number for key, number in begun.items() if key.endswith(":states")] == [1]


@pytest.mark.parametrize(("starts_in_minutes", "minutes"), [(60, 60 + 153), (60 * 24, 360), (-60 * 24, 1)])
async def test_a_map_expires_with_its_showing_or_after_the_setting(
    projection: Projection, sql: Connection, starts_in_minutes: int, minutes: int
) -> None:
    on_sale = await make_session(sql, projection.settings)
    change = "update sessions set showtime = now() + make_interval(mins => $1), duration_minutes = 153"
    await sql.execute(change, starts_in_minutes)
    await projection.step()
    assert (await projection.get(on_sale)).source == "redis"
    for key in await projection.redis.keys(f"*:{on_sale.id}:*"):
        assert minutes - 0.5 < await projection.redis.pttl(key) / 60_000 <= minutes

"""The projector: what it brings to Redis, that it may repeat whatever it did, and that one works at a time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import asyncpg
import httpx
import pytest

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from service.database import Connection
from service.ledger.settling import SettleRequest
from service.reservation import State
from service.seatmap.keys import WATERMARK
from service.settings import Settings
from tests.stage.factories import book, hold_of, make_customer, make_customers, make_session
from tests.stage.forcing import give, give_all, make_box_office
from tests.stage.processes import api_process, expirer_process
from tests.stage.seat_maps import Projection, assert_map_is_right, projecting, stored_states, until_from, with_redis
from tests.stage.waiting import until, until_lock_waits

PROCESSES = {"projector_interval_ms": 20, "sequencer_interval_ms": 20, "redis_timeout_ms": 2_000, "map_wait_ms": 2_000}

HANG_AT_CURSOR = """
create function hang_at_cursor() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock(1);
    return new;
end $$;
create trigger hang_at_cursor before update of number on cursors
for each row when (new.name = 'cache') execute function hang_at_cursor();
"""


@asynccontextmanager
async def hanging_at_the_cursor(postgres: Postgres) -> AsyncIterator[None]:
    """During the block nobody can move the projector's cursor; whoever tries waits for a lock."""
    connection = await asyncpg.connect(postgres.url())
    try:
        await connection.execute(HANG_AT_CURSOR)
        await connection.execute("select pg_advisory_lock(1)")
        yield
    finally:
        await connection.execute("select pg_advisory_unlock_all()")
        await connection.execute("drop function hang_at_cursor cascade")
        await connection.close()


READ_LEASED_UNTIL = """
select leased_until
from cursors
where name = 'cache'
"""


async def cursor_of(sql: Connection) -> int:
    """Where the projector is in the log; -1 where it has no cursor."""
    return int(await sql.fetchval("select coalesce((select number from cursors where name = 'cache'), -1)"))


@pytest.mark.parametrize("numbered", [True, False])
async def test_what_is_committed_is_in_the_map_whether_or_not_it_has_a_number(
    projection: Projection, sql: Connection, settings: Settings, *, numbered: bool
) -> None:
    customer, other = await make_customers(sql, settings, 2)
    on_sale = await make_session(sql, settings)
    await projection.step()
    assert (await projection.get(on_sale)).source == "redis"
    held, paid = [await give(sql, customer, seat) for seat in on_sale.seat_ids[:2]]
    await give(sql, other, on_sale.seat_ids[-1])
    box_office = make_box_office(projection.engine)
    await box_office.settle([SettleRequest(paid, customer.id, State.CONFIRMED)])
    await box_office.settle([SettleRequest(held, customer.id, State.CANCELLED)])
    if numbered:
        await projection.number()
    await projection.step()
    seat_map = await projection.get(on_sale)
    assert (seat_map.source, seat_map.states) == ("redis", b"AS" + b"A" * 13 + b"H")
    assert seat_map.states == await stored_states(sql, on_sale)
    assert await cursor_of(sql) == (await sql.fetchval("select max(number) from events") if numbered else 0)


async def test_more_than_a_batch_is_brought_step_by_step_and_is_not_called_fresh_before_the_end(
    settings: Settings, redis: Redis | Container, sql: Connection
) -> None:
    small = with_redis(settings.database_url.get_secret_value(), redis, projector_batch_max=3, map_fresh_ms=60_000)
    customer = await make_customer(sql, settings)
    on_sale = await make_session(sql, settings)
    async with projecting(small) as projection:
        await projection.step()
        await projection.get(on_sale)
        await give_all(sql, [hold_of(customer, seat) for seat in on_sale.seat_ids[:7]])
        # The new session is the first of eight events.
        await projection.number()
        mark = await projection.redis.get(WATERMARK)
        assert [await projection.projector.step() for _ in range(2)] == [0, 0]
        assert await projection.redis.get(WATERMARK) == mark
        assert await projection.projector.step() > 0
        assert await projection.redis.get(WATERMARK) > mark
        assert (await projection.get(on_sale)).states == b"H" * 7 + b"A" * 9


async def test_unnumbered_events_that_fill_the_batch_are_not_everything(
    settings: Settings, redis: Redis | Container, sql: Connection
) -> None:
    small = with_redis(settings.database_url.get_secret_value(), redis, projector_batch_max=3)
    customer = await make_customer(sql, settings)
    on_sale = await make_session(sql, settings)
    await give_all(sql, [hold_of(customer, seat) for seat in on_sale.seat_ids[:3]])
    async with projecting(small) as projection:
        assert await projection.projector.step() == 0
        assert await projection.redis.get(WATERMARK) is None


async def test_the_maps_know_nothing_of_sessions_that_nobody_looked_at(
    projection: Projection, sql: Connection, settings: Settings
) -> None:
    on_sale = await make_session(sql, settings)
    await give(sql, await make_customer(sql, settings), on_sale.seat_ids[0])
    await projection.step()
    assert await projection.redis.keys(f"*:{on_sale.id}:*") == []


async def test_one_projector_works_and_another_takes_over_when_it_says_nothing_any_more(
    projection: Projection, sql: Connection, settings: Settings, redis: Redis | Container
) -> None:
    await projection.step()
    mark = await projection.redis.get(WATERMARK)
    url = settings.database_url.get_secret_value()
    async with projecting(with_redis(url, redis, map_fresh_ms=60_000, lease_ms=60_000), "other") as other:
        assert await other.projector.step() > 0
        assert await projection.redis.get(WATERMARK) == mark, "the other one only waits"
        await sql.execute("update cursors set leased_until = clock_timestamp() where name = 'cache'")
        await other.projector.step()
        assert await projection.redis.get(WATERMARK) > mark
        await other.projector.close()
        assert await sql.fetchval("select owner from cursors where name = 'cache'") is None


async def test_a_projector_that_lost_its_lease_while_it_worked_does_not_move_the_cursor(
    projection: Projection, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_sale = await make_session(sql, settings)
    await projection.step()
    await projection.get(on_sale)
    await give(sql, await make_customer(sql, settings), on_sale.seat_ids[0])
    await projection.number()
    before, apply = await cursor_of(sql), projection.projector._cache.apply

    async def apply_for_too_long(*arguments: object) -> None:
        await apply(*arguments)  # type: ignore[arg-type]
        await sql.execute("update cursors set owner = 'another' where name = 'cache'")

    monkeypatch.setattr(projection.projector._cache, "apply", apply_for_too_long)
    await projection.step()
    assert await cursor_of(sql) == before
    assert (await projection.get(on_sale)).states[:1] == b"H"


async def test_a_projector_that_works_for_longer_than_its_lease_keeps_it(
    projection: Projection, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_sale = await make_session(sql, settings)
    await projection.step()
    await give(sql, await make_customer(sql, settings), on_sale.seat_ids[0])
    await projection.number()
    apply, number = projection.projector._cache.apply, await sql.fetchval("select max(number) from events")

    async def apply_until_the_lease_is_renewed(*arguments: object) -> None:
        await apply(*arguments)  # type: ignore[arg-type]
        taken = await sql.fetchval(READ_LEASED_UNTIL)

        async def renewed() -> bool:
            return bool(await sql.fetchval(READ_LEASED_UNTIL) > taken)

        await until(renewed, "a lease that was renewed")

    monkeypatch.setattr(projection.projector._cache, "apply", apply_until_the_lease_is_renewed)
    await projection.step()
    assert await cursor_of(sql) == number


async def test_a_projector_killed_between_cache_and_cursor_is_repeated_and_every_byte_is_right(
    postgres: Postgres, sql: Connection, settings: Settings, redis: Redis | Container
) -> None:
    customers = await make_customers(sql, settings, 5)
    on_sale = await make_session(sql, settings, 50)
    options = PROCESSES | {"redis_url": redis.url}
    async with (
        api_process(postgres.url(), **options) as api,
        httpx.AsyncClient(base_url=api.url) as client,
    ):
        async with expirer_process(postgres.url(), **options) as killed:
            await until_from(client, on_sale, "redis")
            async with hanging_at_the_cursor(postgres):
                before = await cursor_of(sql)
                for n, customer in enumerate(customers):
                    await book(client, customer, *on_sale.seat_ids[n * 10 : n * 10 + 7])
                # The changes are in Redis, the cursor is not where they are, and then the process is gone.
                await until_lock_waits(sql, 1, "%update cursors%")
                killed.kill_now()
                await killed.process.wait()
            assert await cursor_of(sql) == before
        await sql.execute("update cursors set leased_until = clock_timestamp() where name = 'cache'")
        async with expirer_process(postgres.url(), **options):
            await until_from(client, on_sale, "redis", await sql.fetchval("select clock_timestamp()"))
            await assert_map_is_right(client, sql, on_sale)

            async def has_moved() -> bool:
                return await cursor_of(sql) == int(await sql.fetchval("select max(number) from events"))

            await until(has_moved, "the cursor behind the last event")


async def test_while_the_projector_stands_still_the_map_comes_from_postgresql_and_afterwards_no_byte_differs(
    postgres: Postgres, sql: Connection, settings: Settings, redis: Redis | Container
) -> None:
    customers = await make_customers(sql, settings, 4)
    on_sale = await make_session(sql, settings, 64)
    options = PROCESSES | {"redis_url": redis.url, "map_read_interval_ms": 0}
    async with (
        api_process(postgres.url(), **options) as api,
        expirer_process(postgres.url(), **options) as expirer,
        httpx.AsyncClient(base_url=api.url) as client,
    ):
        await until_from(client, on_sale, "redis")
        expirer.pause()
        try:
            stopped_at = await sql.fetchval("select clock_timestamp()")
            for n, customer in enumerate(customers[:2]):
                await book(client, customer, *on_sale.seat_ids[n * 10 : n * 10 + 9])
            await until_from(client, on_sale, "postgresql")
            assert (await assert_map_is_right(client, sql, on_sale))["source"] == "postgresql"
            for n, customer in enumerate(customers[2:], start=2):
                await book(client, customer, *on_sale.seat_ids[n * 10 : n * 10 + 9])
            assert (await assert_map_is_right(client, sql, on_sale))["source"] == "postgresql"
        finally:
            expirer.resume()
        seen = await until_caught_up(client, sql, on_sale.id)
        assert all(as_of < stopped_at or n == 4 * 9 for as_of, n in seen), "older than it says"
        await until_from(client, on_sale, "redis", await sql.fetchval("select clock_timestamp()"))
        assert (await assert_map_is_right(client, sql, on_sale))["source"] == "redis"


async def until_caught_up(client: httpx.AsyncClient, sql: Connection, session_id: int) -> list[tuple[datetime, int]]:
    """Every map that is seen until Redis has all that is held: its `asOf`, and how many seats are not available."""
    now: datetime = await sql.fetchval("select clock_timestamp()")
    seen: list[tuple[datetime, int]] = []

    async def has_caught_up() -> bool:
        reply = (await client.get(f"/customer/session/{session_id}")).json()
        as_of = datetime.fromisoformat(reply["asOf"])
        seen.append((as_of, sum(seat["state"] != "AVAILABLE" for seat in reply["seats"])))
        return bool(reply["source"] == "redis" and as_of > now)

    await until(has_caught_up, "a map from Redis that is newer")
    return seen

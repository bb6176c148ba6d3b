"""The map's claim, during a storm of holds and releases: everything committed at `asOf` is in it."""

import asyncio
import random
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import orjson
import pytest

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from service.database import Connection
from service.events.log import READ_COMMITTED
from service.ledger.claims import Held
from service.ledger.settling import Settled
from service.reservation import State
from service.seatmap.keys import WATERMARK
from service.seatmap.stored import READ_STATES
from service.settings import Settings
from tests.stage.factories import Account, OnSale, hold_of, make_customer, make_customers, make_session
from tests.stage.forcing import give, hold_one, make_box_office, settle_one
from tests.stage.seat_maps import Projection, projecting, stored_states, with_redis
from tests.stage.truth import Seen, assert_true

CUSTOMERS, SEATS, HOLDS_EACH = 6, 40, 40


async def hold_and_release(seen: Seen, projection: Projection, url: str, customer: Account, on_sale: OnSale) -> None:
    """Acts as one customer, and notes each acknowledged change with a time after its commit."""
    box_office, clock = make_box_office(projection.engine), await asyncpg.connect(url)
    for _ in range(HOLDS_EACH):
        held = await hold_one(box_office, hold_of(customer, *random.sample(list(on_sale.seat_ids), 3)))
        if isinstance(held, Held):
            id_ = UUID(orjson.loads(held.reply)["reservationId"])
            seen.acknowledged.append((await clock.fetchval("select clock_timestamp()"), id_, "reservation.held"))
            released = await settle_one(box_office, id_, State.CANCELLED, customer)
            assert isinstance(released, Settled)
            now = await clock.fetchval("select clock_timestamp()")
            seen.acknowledged.append((now, id_, "reservation.cancelled"))
    await clock.close()


async def project(projection: Projection, *, ended: asyncio.Event) -> None:
    """Runs the sequencer and the projector, as in the expirer."""
    while not ended.is_set():
        await projection.number()
        await projection.projector.step()
        await asyncio.sleep(0.005)


async def look(seen: Seen, projection: Projection, on_sale: OnSale, *, ended: asyncio.Event) -> None:
    """Reads maps, and the bytes in Redis."""
    epoch = await projection.epoch()
    keys = [f"rowlock:{epoch}:{on_sale.id}:{name}" for name in ("states", "versions")]
    while not ended.is_set():
        seat_map = await projection.maps.get(on_sale.id)
        seen.maps.append((seat_map.as_of, seat_map.states.decode()))
        mark, states, versions = await projection.redis.mget(WATERMARK, *keys)
        as_of = datetime.fromtimestamp(int(mark.rpartition(b"|")[2]) / 1e6, tz=UTC)
        numbers = [int.from_bytes(versions[n : n + 4], "big") for n in range(0, len(versions), 4)]
        seen.stored.append((as_of, states[1:].decode(), numbers))
        await asyncio.sleep(0.002)


async def test_everything_committed_at_as_of_is_in_the_map(
    postgres: Postgres, settings: Settings, redis: Redis | Container, sql: Connection
) -> None:
    customers = await make_customers(sql, settings, CUSTOMERS)
    on_sale = await make_session(sql, settings, SEATS)
    seen, ended = Seen(), asyncio.Event()
    async with projecting(with_redis(postgres.url(), redis, map_fresh_ms=10_000, map_wait_ms=5_000)) as projection:
        await projection.step()
        others = [
            asyncio.create_task(project(projection, ended=ended)),
            asyncio.create_task(look(seen, projection, on_sale, ended=ended)),
        ]
        holding = [hold_and_release(seen, projection, postgres.url(), customer, on_sale) for customer in customers]
        await asyncio.gather(*holding)
        ended.set()
        await asyncio.gather(*others)
        await projection.step()
        assert (await projection.get(on_sale)).states == await stored_states(sql, on_sale)
    assert len({as_of for as_of, _ in seen.maps}) > 10
    assert len(seen.stored) > 20
    await assert_true(sql, on_sale.id, seen)


@pytest.mark.parametrize("statement", [READ_COMMITTED, READ_STATES], ids=["log", "seats"])
async def test_as_of_is_not_later_than_a_commit_that_is_missing(
    postgres: Postgres, settings: Settings, sql: Connection, statement: str
) -> None:
    customer = await make_customer(sql, settings)
    on_sale = await make_session(sql, settings)
    arguments = (0, 100) if statement == READ_COMMITTED else (on_sale.id,)
    reader = await asyncpg.connect(postgres.url())
    async with reader.transaction():
        # Bound now, and executed later: a cursor does with a pause what every statement of the driver's does.
        bound = await reader.cursor(statement, *arguments)
        await give(sql, customer, on_sale.seat_ids[0])
        committed_at = await sql.fetchval("select clock_timestamp()")
        rows = await bound.fetch(100)
    await reader.close()
    told = {row["kind"] for row in rows} if statement == READ_COMMITTED else {rows[0]["states"]}
    assert told == ({"session.created"} if statement == READ_COMMITTED else {"A" * 16}), "it was bound before"
    assert all(row["as_of"] < committed_at for row in rows)

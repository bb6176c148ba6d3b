"""What tests of the seat map share: settings with Redis, a projector to step, and every seat compared with SQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import orjson
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from expirer.loops.projector import Projector
from service.cache import Cache
from service.database import Connection, create_engine, transaction
from service.events import numbering
from service.seatmap.cached import WATERMARK, SeatCache
from service.seatmap.maps import SeatMap, SeatMaps
from service.settings import Settings
from tests.stage.factories import OnSale, make_settings
from tests.stage.waiting import until

NO_END_MS = 2**53
"""Of a map whose showing never ends."""

NO_MARKS = {
    "of another kind": ["no mark"],
    "a word": b"x",
    "no text": b"\xff|1|2",
    "no numbers": b"history/run|now|then",
    "a moment that no calendar has": b"history/run|1|" + b"9" * 400,
}
"""What may stand in place of the watermark that is none."""

STATES = """
select string_agg(left(state, 1), '' order by position)
from seats
where session_id = $1
"""

SEATS = """
select id, placement, price, state
from seats
where session_id = $1
order by position
"""


def with_redis(database_url: str, redis: Redis | Container, **changes: Any) -> Settings:
    """Settings with Redis, which has all the time that a busy machine needs."""
    return make_settings(database_url, **({"redis_url": redis.url, "redis_timeout_ms": 5_000} | changes))


@dataclass(slots=True)
class Projection:
    """A projector that the test steps, and the maps as a process of the API has them."""

    settings: Settings
    engine: AsyncEngine
    projector: Projector
    maps: SeatMaps
    seat_cache: SeatCache
    redis: Any

    async def step(self) -> None:
        """Brings everything that is committed to Redis."""
        while not await self.projector.step():
            pass

    async def number(self) -> None:
        """Numbers everything that is committed."""
        async with transaction(self.engine) as connection:
            await numbering.number_committed(connection, 10_000)

    async def get(self, on_sale: OnSale) -> SeatMap:
        """The map, not as it was remembered."""
        self.maps._cached.clear()
        self.maps._stored.clear()
        return await self.maps.get(on_sale.id)

    async def epoch(self) -> str:
        """The one that counts."""
        return str((await self.redis.get(WATERMARK)).decode().partition("|")[0])

    async def versions(self, on_sale: OnSale) -> list[int]:
        """As Redis has them, by position."""
        raw = await self.redis.get(f"rowlock:{await self.epoch()}:{on_sale.id}:versions")
        return [int.from_bytes(raw[n : n + 4], "big") for n in range(0, len(raw), 4)]


async def write_no_mark(redis: Any, no_mark: str) -> None:
    """As nobody should, in place of the watermark."""
    await redis.delete(WATERMARK)
    value = NO_MARKS[no_mark]
    await (redis.rpush(WATERMARK, *value) if isinstance(value, list) else redis.set(WATERMARK, value))


@asynccontextmanager
async def projecting(settings: Settings, owner: str = "test") -> AsyncIterator[Projection]:
    """A projector and the maps on connections of their own; nothing has happened yet."""
    cache = Cache(settings)
    engine = create_engine(settings, "rowlock-projecting")
    maps = SeatMaps(engine, cache, settings)
    try:
        yield Projection(
            settings,
            engine,
            Projector(engine, cache, settings, owner),
            maps,
            SeatCache(cache, settings.map_fresh_ms, settings.map_keep_minutes),
            cache.redis,
        )
    finally:
        await maps.drain()
        await cache.close()
        await engine.dispose()


@asynccontextmanager
async def unreadable(postgres: Postgres, table: str = "seats") -> AsyncIterator[None]:
    """During the block nobody can read the table."""
    connection = await asyncpg.connect(postgres.url())
    try:
        await connection.execute("begin")
        await connection.execute(f"lock table {table} in access exclusive mode")
        yield
    finally:
        await connection.close()


async def stored_states(sql: Connection, on_sale: OnSale) -> bytes:
    """A letter a seat, as PostgreSQL has them."""
    return str(await sql.fetchval(STATES, on_sale.id)).encode()


async def ask(client: httpx.AsyncClient, on_sale: OnSale, **headers: str) -> httpx.Response:
    """The map over HTTP."""
    reply = await client.get(f"/customer/session/{on_sale.id}", headers=headers)
    assert reply.status_code in (200, 304), reply.text
    return reply


async def assert_map_is_right(client: httpx.AsyncClient, sql: Connection, on_sale: OnSale) -> dict[str, Any]:
    """Compares every seat of the map with PostgreSQL, where nothing changes meanwhile; the map."""
    reply: dict[str, Any] = orjson.loads((await ask(client, on_sale)).content)
    expected = [
        {"seatId": row["id"], "placement": row["placement"], "price": row["price"], "state": row["state"]}
        for row in await sql.fetch(SEATS, on_sale.id)
    ]
    assert reply["seats"] == expected
    return reply


async def until_from(client: httpx.AsyncClient, on_sale: OnSale, source: str, since: datetime | None = None) -> None:
    """Returns when the map comes from there, and shows a moment after `since`."""

    async def does() -> bool:
        reply = (await ask(client, on_sale)).json()
        return reply["source"] == source and datetime.fromisoformat(reply["asOf"]) >= (
            since or datetime(2000, 1, 1, tzinfo=UTC)
        )

    await until(does, f"a map from {source} after {since}")

"""Shared by the tests of the seat map: settings with Redis, a projector to step, every seat compared with SQL."""

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
from service.seatmap.building import MapBuilder
from service.seatmap.cached import SeatCache
from service.seatmap.keys import WATERMARK
from service.seatmap.maps import SeatMap, SeatMaps
from service.seatmap.updating import MapUpdates
from service.settings import Settings
from tests.stage.factories import OnSale, make_settings
from tests.stage.waiting import until

NO_END_MS = 2**53
"""The end of a showing that never ends."""

NOW = datetime(2030, 6, 1, 18, tzinfo=UTC)
"""A moment by PostgreSQL's clock."""

NO_MARKS = {
    "of another kind": ["no mark"],
    "a word": b"x",
    "no text": b"\xff|1|2",
    "no numbers": b"history/run|now|then",
    "a moment that no calendar has": b"history/run|1|" + b"9" * 400,
}
"""Values under the watermark's key that are not a watermark."""

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
    """Settings with Redis, and a timeout that is long enough for a busy machine."""
    return make_settings(database_url, **({"redis_url": redis.url, "redis_timeout_ms": 5_000} | changes))


@dataclass(slots=True)
class Projection:
    """A projector that the test steps, and the maps of an API process that remembers layouts, but no states."""

    settings: Settings
    engine: AsyncEngine
    projector: Projector
    maps: SeatMaps
    seat_cache: SeatCache
    builder: MapBuilder
    redis: Any

    async def step(self) -> None:
        """Writes everything that is committed to Redis."""
        while not await self.projector.step():
            pass

    async def number(self) -> None:
        """Numbers everything that is committed."""
        async with transaction(self.engine) as connection:
            await numbering.number_committed(connection, 10_000)

    async def get(self, on_sale: OnSale) -> SeatMap:
        """The map as it is now."""
        return await self.maps.get(on_sale.id)

    async def epoch(self) -> str:
        """The current epoch."""
        return str((await self.redis.get(WATERMARK)).decode().partition("|")[0])

    async def versions(self, on_sale: OnSale) -> list[int]:
        """As Redis has them, by position."""
        raw = await self.redis.get(f"rowlock:{await self.epoch()}:{on_sale.id}:versions")
        return [int.from_bytes(raw[n : n + 4], "big") for n in range(0, len(raw), 4)]


async def write_no_mark(redis: Any, no_mark: str) -> None:
    """Replaces the watermark."""
    await redis.delete(WATERMARK)
    value = NO_MARKS[no_mark]
    await (redis.rpush(WATERMARK, *value) if isinstance(value, list) else redis.set(WATERMARK, value))


@dataclass(slots=True)
class Keys:
    """The keys of the maps in Redis, as the readers, the builder and the projector use them."""

    reads: SeatCache
    builder: MapBuilder
    updates: MapUpdates
    redis: Any

    async def fresh_epoch(self) -> str:
        """An epoch whose maps are fresh from now on, as of NOW."""
        clock = await self.updates.clock()
        epoch = f"history/{clock.run}"
        assert await self.updates.renew(epoch, NOW, clock.ms)
        return epoch

    async def make_map(self, epoch: str, session_id: int, seats: int) -> None:
        """Makes a complete map whose seats are available."""
        assert await self.builder.begin(epoch, session_id, seats, "mine", NO_END_MS)
        assert await self.builder.finish(epoch, session_id, "mine")


@asynccontextmanager
async def projecting(settings: Settings, owner: str = "test") -> AsyncIterator[Projection]:
    """A projector and the maps, on connections of their own, before the first step."""
    cache = Cache(settings)
    engine = create_engine(settings, "rowlock-projecting")
    maps = SeatMaps(engine, cache, settings.model_copy(update={"map_read_interval_ms": 0}), share_seconds=0)
    try:
        yield Projection(
            settings,
            engine,
            Projector(engine, cache, settings, owner),
            maps,
            SeatCache(cache, settings.map_fresh_ms),
            MapBuilder(cache, settings.map_keep_minutes),
            cache.redis,
        )
    finally:
        await maps.drain()
        await cache.close()
        await engine.dispose()


@asynccontextmanager
async def unreadable(postgres: Postgres, table: str = "seats") -> AsyncIterator[None]:
    """Locks the table during the block, so that readers wait."""
    connection = await asyncpg.connect(postgres.url())
    try:
        await connection.execute("begin")
        await connection.execute(f"lock table {table} in access exclusive mode")
        yield
    finally:
        await connection.close()


async def cursor_of(sql: Connection) -> int:
    """The projector's number in the log; -1 where it has no cursor."""
    return int(await sql.fetchval("select coalesce((select number from cursors where name = 'cache'), -1)"))


async def stored_states(sql: Connection, on_sale: OnSale) -> bytes:
    """A letter a seat, as PostgreSQL has them."""
    return str(await sql.fetchval(STATES, on_sale.id)).encode()


async def ask(client: httpx.AsyncClient, on_sale: OnSale, **headers: str) -> httpx.Response:
    """The map over HTTP."""
    reply = await client.get(f"/customer/session/{on_sale.id}", headers=headers)
    assert reply.status_code in (200, 304), reply.text
    return reply


async def assert_map_is_right(client: httpx.AsyncClient, sql: Connection, on_sale: OnSale) -> dict[str, Any]:
    """The map, after a comparison of every seat with PostgreSQL, where nothing may change meanwhile."""
    reply: dict[str, Any] = orjson.loads((await ask(client, on_sale)).content)
    expected = [
        {"seatId": row["id"], "placement": row["placement"], "price": row["price"], "state": row["state"]}
        for row in await sql.fetch(SEATS, on_sale.id)
    ]
    assert reply["seats"] == expected
    return reply


async def until_from(client: httpx.AsyncClient, on_sale: OnSale, source: str, since: datetime | None = None) -> None:
    """Returns when the map comes from the source, with an `asOf` of at least `since`."""

    async def does() -> bool:
        reply = (await ask(client, on_sale)).json()
        return reply["source"] == source and datetime.fromisoformat(reply["asOf"]) >= (
            since or datetime(2000, 1, 1, tzinfo=UTC)
        )

    await until(does, f"a map from {source} after {since}")

"""A stage for the audit of the seat maps in Redis: maps that are as they should be, and what may befall them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.audit import maps as mapaudit
from service.cache import Cache
from service.database import Connection
from service.settings import Settings
from tests.stage.audits import do_round, faulty
from tests.stage.factories import Account, OnSale, make_customer, make_session
from tests.stage.forcing import give
from tests.stage.seat_maps import Projection, projecting

DAMAGES = {
    "a held seat is free": ("states", 4, b"A"),
    "a free seat is sold": ("states", 1, b"S"),
    "a held seat is newer than the ledger": ("versions", 12, b"\0\0\0\3"),
    "a seat that never changed is newer than the ledger": ("versions", 20, b"\0\0\0\2"),
    "a change is missing": ("versions", 12, b"\0\0\0\1"),
    "a seat too many": ("states", 17, b"A"),
    "a version too many": ("versions", 64, b"\0\0\0\2"),
}


@dataclass(frozen=True, slots=True)
class Stage:
    """Two sessions with maps, of which the first has a held seat."""

    customer: Account
    first: OnSale
    second: OnSale
    projection: Projection
    cache: Cache

    async def damage(self, on_sale: OnSale, part: str, offset: int, value: bytes) -> None:
        """Writes into the map, as nobody should."""
        await self.projection.redis.setrange(
            f"rowlock:{await self.projection.epoch()}:{on_sale.id}:{part}", offset, value
        )

    async def miscount(self, on_sale: OnSale, **counts: int | str) -> None:
        """Writes these numbers of seats into the map."""
        meta = f"rowlock:{await self.projection.epoch()}:{on_sale.id}:meta"
        await self.projection.redis.hset(meta, mapping=counts)

    async def replace(self, on_sale: OnSale, part: str) -> None:
        """Writes something of another kind in the key's place."""
        key = f"rowlock:{await self.projection.epoch()}:{on_sale.id}:{part}"
        await self.projection.redis.delete(key)
        await self.projection.redis.rpush(key, "no map")

    async def lose(self, on_sale: OnSale, part: str) -> None:
        """One key of the map is evicted."""
        await self.projection.redis.delete(f"rowlock:{await self.projection.epoch()}:{on_sale.id}:{part}")


@asynccontextmanager
async def staged(sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """Both maps are built, and nothing is wrong with them; they are compared in pieces."""
    monkeypatch.setattr(mapaudit, "SEATS_AT_ONCE_MAX", 3)
    customer = await make_customer(sql, settings)
    first, second = await make_session(sql, settings), await make_session(sql, settings)
    cache = Cache(settings)
    async with projecting(settings) as projection:
        await give(sql, customer, first.seat_ids[3])
        # What has a number is not brought to the maps again.
        await projection.number()
        await projection.step()
        for on_sale in (first, second):
            assert (await projection.get(on_sale)).source == "redis"
        yield Stage(customer, first, second, projection, cache)
    await cache.close()


async def look(stage: Stage, engine: AsyncEngine, sql: Connection, settings: Settings) -> dict[str, set[object]]:
    """What a round finds while the projector goes on."""
    check_map = mapaudit._read_stored

    async def then_project(*arguments: object) -> object:
        stored = await check_map(*arguments)  # type: ignore[arg-type]
        await stage.projection.step()
        return stored

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mapaudit, "_read_stored", then_project)
        return faulty(await do_round(engine, sql, settings, stage.cache))

"""A stage for the audit of the seat maps in Redis: correct maps, and how they are damaged."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.audit import maps
from service.audit.maps import Stored
from service.audit.slices import Limits
from service.audit.verdicts import Tally
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
    "a hold is on the wrong seat": ("states", 4, b"AH"),
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
        """Writes into the map."""
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

    async def check(self, engine: AsyncEngine, **limits: Any) -> Tally:
        """The result of a round, whose pieces of a map are small. The projector does nothing meanwhile."""
        return await do_round(engine, self.projection.settings, self.cache, **({"seats_at_once": 3} | limits))

    async def check_projected(self, engine: AsyncEngine, **limits: Any) -> Tally:
        """The result of a round while the projector continues."""

        async def project(_session_id: int) -> None:
            await self.projection.step()

        with after_each_read(project):
            return await self.check(engine, **limits)

    async def look(self, engine: AsyncEngine, **limits: Any) -> dict[str, set[object]]:
        """The ids that such a round names."""
        return faulty(await self.check_projected(engine, **limits))


@contextmanager
def after_each_read(happens: Callable[[int], Awaitable[None]]) -> Iterator[None]:
    """During the block something happens after the audit has read the seats of a session."""
    read_stored = maps.read_stored

    async def read_then(engine: AsyncEngine, limits: Limits, session_id: int) -> Stored | None:
        stored = await read_stored(engine, limits, session_id)
        await happens(session_id)
        return stored

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(maps, "read_stored", read_then)
        yield


@asynccontextmanager
async def staged(sql: Connection, settings: Settings) -> AsyncIterator[Stage]:
    """Both maps are built, and correct."""
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

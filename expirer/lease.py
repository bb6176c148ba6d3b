"""Renews a cursor's lease while its reader works for longer than a lease lasts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from service.database import snapshot
from service.errors import Unavailable
from service.events import cursors
from service.settings import Settings

log = structlog.stdlib.get_logger("rowlock.expirer")


def standby_seconds(settings: Settings) -> float:
    """How long a reader waits that has found another replica's lease: it takes over soon after that lease has ended."""
    return settings.lease_ms / 6_000


@asynccontextmanager
async def kept(engine: AsyncEngine, name: str, owner: str, settings: Settings) -> AsyncIterator[None]:
    """Renews the lease during the block. Otherwise two replicas whose work takes longer would take it from each other
    in turn, and neither could move the cursor. It stops after the maximum time of a step: then another replica takes
    over.
    """
    ended = asyncio.Event()
    renewing = asyncio.create_task(_renew(engine, name, owner, settings, ended))
    try:
        yield
    finally:
        ended.set()
        await renewing


async def _renew(engine: AsyncEngine, name: str, owner: str, settings: Settings, ended: asyncio.Event) -> None:
    clock = asyncio.get_running_loop().time
    dead_at = clock() + settings.heartbeat_seconds_max
    while clock() < dead_at:
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), settings.lease_ms / 4000)
            return
        try:
            async with snapshot(engine) as connection:
                await cursors.take_lease(connection, name, owner, settings.lease_ms)
        except Unavailable as error:
            # Another replica may repeat the work then.
            log.warning("lease not renewed", cursor=name, error=repr(error))
    log.error("lease not renewed any more: the step takes too long", cursor=name)

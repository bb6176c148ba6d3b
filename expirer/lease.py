"""Keeps a cursor's lease while its reader is at work for longer than a lease lasts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from service import cursors
from service.database import transaction
from service.errors import Unavailable

log = structlog.stdlib.get_logger("rowlock.expirer")


@asynccontextmanager
async def kept(engine: AsyncEngine, name: str, owner: str, lease_ms: int) -> AsyncIterator[None]:
    """Renews the lease during the block. Without that two replicas whose work takes longer would take it from each
    other in turn, and neither could ever move the cursor.
    """
    ended = asyncio.Event()
    renewing = asyncio.create_task(_renew(engine, name, owner, lease_ms, ended))
    try:
        yield
    finally:
        ended.set()
        await renewing


async def _renew(engine: AsyncEngine, name: str, owner: str, lease_ms: int, ended: asyncio.Event) -> None:
    while not ended.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), lease_ms / 4000)
            return
        try:
            async with transaction(engine) as connection:
                await cursors.take_lease(connection, name, owner, lease_ms)
        except Unavailable as error:
            # Then somebody else may repeat the work.
            log.warning("lease not renewed", cursor=name, error=repr(error))

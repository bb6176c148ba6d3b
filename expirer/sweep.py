"""Ends the holds that nobody paid for. It needs nothing but PostgreSQL: it is the guarantee that seats come back."""

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from service.database import transaction
from service.settings import Settings
from service.settling import settle_overdue

log = structlog.stdlib.get_logger("rowlock.sweep")


async def step(engine: AsyncEngine, settings: Settings) -> float:
    """Settles one batch; seconds to wait, 0 after a full batch. Any number of replicas may do it at once."""
    async with transaction(engine) as connection:
        expired = await settle_overdue(connection, settings.sweep_batch_max)
    if expired:
        log.info("holds expired", count=expired)
    return 0 if expired == settings.sweep_batch_max else settings.sweep_interval_ms / 1000

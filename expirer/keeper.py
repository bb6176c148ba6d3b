"""Keeps tables from growing without end: here the counts of failed sign-ins, once they are forgotten anyway."""

from sqlalchemy.ext.asyncio import AsyncEngine

from service.accounts import trim_failures
from service.database import transaction

BATCH_MAX = 1_000
INTERVAL_SECONDS = 20


async def step(engine: AsyncEngine) -> float:
    """Trims one batch; seconds to wait, 0 after a full batch."""
    async with transaction(engine) as connection:
        trimmed = await trim_failures(connection, BATCH_MAX)
    return 0 if trimmed == BATCH_MAX else INTERVAL_SECONDS

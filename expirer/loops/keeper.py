"""Trims the tables that would grow for ever: the log behind its readers, and the counts of failed sign-ins."""

import time

from sqlalchemy.ext.asyncio import AsyncEngine

from service.accounts.accounts import trim_failures
from service.database import transaction
from service.events import log as event_log
from service.observability.metrics import recording
from service.settings import Settings

BATCH_MAX = 1_000
INTERVAL_SECONDS = 20


async def step(engine: AsyncEngine, settings: Settings) -> float:
    """Trims one batch of each; seconds to wait, 0 after a full batch."""
    began = time.perf_counter()
    async with transaction(engine) as connection:
        forgotten = await trim_failures(connection, BATCH_MAX)
    async with transaction(engine) as connection:
        trimmed = await event_log.trim(connection, settings.log_keep_hours, BATCH_MAX)
    recording.batch_done("keeper", forgotten + trimmed, time.perf_counter() - began)
    return 0 if BATCH_MAX in (forgotten, trimmed) else INTERVAL_SECONDS

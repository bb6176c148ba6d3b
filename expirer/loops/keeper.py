"""Trims the tables that would grow for ever: the log behind its readers, the counts of failed sign-ins, and the
reservations that were not paid.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from service.accounts.accounts import trim_failures
from service.database import transaction
from service.events import log as event_log
from service.ledger.retention import FIRST_ID, delete_ended
from service.observability.metrics import recording
from service.settings import Settings

BATCH_MAX = 1_000
INTERVAL_SECONDS = 20
WALK_INTERVAL_SECONDS = 3_600
SLICE_PAUSE_SECONDS = 0.2
"""Between two slices of a walk: the reservations of a year must not be deleted at once."""


@dataclass(slots=True)
class Walk:
    """How far the walk through the old reservations has come, and when by the clock its next slice is due."""

    after: UUID = FIRST_ID
    due_at: float = 0.0


async def step(
    engine: AsyncEngine, settings: Settings, walk: Walk | None = None, clock: Callable[[], float] = time.monotonic
) -> float:
    """Trims one batch of each; seconds to wait, 0 after a full batch."""
    walk = Walk() if walk is None else walk
    began = time.perf_counter()
    async with transaction(engine) as connection:
        forgotten = await trim_failures(connection, BATCH_MAX)
    async with transaction(engine) as connection:
        trimmed = await event_log.trim(connection, settings.log_keep_hours, BATCH_MAX)
    deleted = await _go_on(walk, engine, settings, clock()) if clock() >= walk.due_at else 0
    recording.batch_done("keeper", forgotten + trimmed + deleted, time.perf_counter() - began)
    if BATCH_MAX in (forgotten, trimmed):
        return 0
    return INTERVAL_SECONDS if walk.after == FIRST_ID else SLICE_PAUSE_SECONDS


async def _go_on(walk: Walk, engine: AsyncEngine, settings: Settings, now: float) -> int:
    """The number of reservations that were deleted from the walk's next slice."""
    async with transaction(engine) as connection:
        deleted = await delete_ended(connection, walk.after, settings.reservations_keep_days, BATCH_MAX)
    walk.after = deleted.last or FIRST_ID
    walk.due_at = now + (SLICE_PAUSE_SECONDS if deleted.last else WALK_INTERVAL_SECONDS)
    return deleted.count

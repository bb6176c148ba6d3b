"""Numbers committed events, so that readers of the log skip nothing."""

import time
from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncEngine

from service.database import roll_back, snapshot, transaction
from service.events import numbering
from service.observability.metrics import recording
from service.settings import Settings


async def step(engine: AsyncEngine, settings: Settings, wake: Callable[[], None]) -> float:
    """Numbers one batch and wakes the readers; seconds to wait, 0 after a full batch. One replica does it at a time."""
    began = time.perf_counter()
    async with snapshot(engine) as connection:
        if not await numbering.is_any_unnumbered(connection):
            return settings.sequencer_interval_ms / 1000
    async with transaction(engine) as connection:
        numbered = await numbering.number_committed(connection, settings.sequencer_batch_max)
        if not numbered:
            await roll_back(connection)
    recording.batch_done("sequencer", numbered, time.perf_counter() - began)
    if numbered:
        wake()
    return 0 if numbered == settings.sequencer_batch_max else settings.sequencer_interval_ms / 1000

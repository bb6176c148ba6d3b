"""Ends the holds that nobody paid for. It needs nothing but PostgreSQL: it is the guarantee that seats come back."""

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from service.database import roll_back, transaction
from service.errors import Unavailable
from service.reservation import State
from service.settings import Settings
from service.settling import SettleRequest, lock_overdue, settle, settle_overdue

log = structlog.stdlib.get_logger("rowlock.sweep")


async def step(engine: AsyncEngine, settings: Settings) -> float:
    """Settles one batch; seconds to wait, 0 after a full batch. Any number of replicas may do it at once."""
    try:
        async with transaction(engine) as connection:
            expired = await settle_overdue(connection, settings.sweep_batch_max)
    except Unavailable:
        raise
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one hold, the others' seats must come back
        log.warning("batch failed, trying one by one", error=repr(error))
        expired = await _settle_one_by_one(engine, settings.sweep_batch_max)
    if expired:
        log.info("holds expired", count=expired)
    return 0 if expired == settings.sweep_batch_max else settings.sweep_interval_ms / 1000


async def _settle_one_by_one(engine: AsyncEngine, batch_max: int) -> int:
    """How many of a batch could be settled alone; the others are logged, and tried again with the next batch."""
    async with transaction(engine) as connection:
        overdue = await lock_overdue(connection, batch_max)
        await roll_back(connection)
    expired = 0
    for id_ in overdue:
        try:
            async with transaction(engine) as connection:
                await settle(connection, [SettleRequest(id_, None, State.EXPIRED)])
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - the same
            log.error("hold can't be ended", reservation_id=str(id_), error=repr(error))  # noqa: TRY400 - expected shape
        else:
            expired += 1
    return expired

"""Ends the holds that nobody paid for. It needs nothing but PostgreSQL: it is the guarantee that seats come back."""

import time
from collections.abc import Callable
from uuid import UUID

import structlog
from cachetools import LRUCache, TTLCache
from sqlalchemy.ext.asyncio import AsyncEngine

from service.database import roll_back, transaction
from service.errors import concerns_all
from service.ledger.expiring import ONE_BY_ONE_SECONDS_MAX, lock_overdue, settle_overdue
from service.ledger.settling import Settled, SettleRequest, settle
from service.observability import tracing
from service.observability.failures import Failures, kind_of
from service.observability.metrics import recording
from service.reservation import State
from service.settings import Settings

SET_ASIDE_MAX = 10_000
SET_ASIDE_SECONDS = 5
NAMED_MAX = 10
"""So many of the holds that can't be ended stand in the log's line. Of those that are broken a round of the audit names
`service.audit.verdicts.EXAMPLES_MAX` by each check, at most.
"""

log = structlog.stdlib.get_logger("rowlock.sweep")


class SetAside:
    """Holds that could not be ended a moment ago: the others' seats come back without them. One for each loop."""

    def __init__(self) -> None:
        self.holds: TTLCache[UUID, None] = TTLCache(SET_ASIDE_MAX, SET_ASIDE_SECONDS)
        self.tried: LRUCache[UUID, None] = LRUCache(SET_ASIDE_MAX)
        """All that ever were, and those that their step had no time for: for their traces."""
        self.failures = Failures()
        """By kind of error, for the log: one defect may concern each hold that there is."""
        self.batches = Failures()
        """Of whole batches, whose members may all be ended alone."""

    def add(self, id_: UUID) -> None:
        """One that could not be ended now."""
        self.holds[id_] = self.tried[id_] = None


@tracing.batched("sweep", "expire hold", "internal")
async def step(engine: AsyncEngine, settings: Settings, set_aside: SetAside | None = None) -> float:
    """Settles one batch; seconds to wait, 0 after a full batch. Any number of replicas may do it at once."""
    set_aside = SetAside() if set_aside is None else set_aside
    batch_max = settings.sweep_batch_max
    tracing.note_tried(set_aside.tried)
    try:
        found = expired = await _settle_batch(engine, batch_max, set_aside)
    except Exception as error:
        if concerns_all(error):
            raise
        # Whatever is wrong with one hold, the others' seats must come back.
        if facts := set_aside.batches.note(kind_of(error), time.monotonic()):
            log.warning("batch failed, trying one by one", error=repr(error), **facts)
        found, expired = await _settle_one_by_one(engine, batch_max, set_aside)
    else:
        if not set_aside.holds:
            set_aside.batches.end(time.monotonic())
            if facts := set_aside.failures.end(time.monotonic()):
                log.info("every hold can be ended again", **facts)
    if expired:
        log.info("holds expired", count=expired)
    return 0 if found == batch_max else settings.sweep_interval_ms / 1000


async def _settle_batch(engine: AsyncEngine, batch_max: int, set_aside: SetAside) -> int:
    with recording.expiry("sweep") as batch:
        async with transaction(engine) as connection:
            ended = await settle_overdue(connection, batch_max, list(set_aside.holds))
            if not ended.reservations:
                await roll_back(connection)
        batch.reservations, batch.skipped = ended.reservations, ended.skipped
    return len(ended.reservations)


async def _settle_one_by_one(
    engine: AsyncEngine, batch_max: int, set_aside: SetAside, clock: Callable[[], float] = time.monotonic
) -> tuple[int, int]:
    """How many were found, and how many could be ended alone; the others are logged and set aside."""
    async with transaction(engine) as connection:
        overdue = await lock_overdue(connection, batch_max, list(set_aside.holds))
        await roll_back(connection)
    deadline = clock() + ONE_BY_ONE_SECONDS_MAX
    expired = 0
    failed: dict[str, list[tuple[UUID, Exception]]] = {}
    for place, id_ in enumerate(overdue):
        if clock() > deadline:
            left = list(overdue)[place:]
            set_aside.tried.update(dict.fromkeys(left))
            tracing.note_failed(left, "unsettled")
            break
        try:
            await _settle_alone(engine, id_)
        except Exception as error:
            if concerns_all(error):
                raise
            set_aside.add(id_)
            tracing.note_failed([id_], type(error).__name__)
            failed.setdefault(kind_of(error), []).append((id_, error))
        else:
            tracing.note_done([id_])
            expired += 1
    for kind, holds in failed.items():
        if facts := set_aside.failures.note(kind, time.monotonic()):
            ids = [str(id_) for id_, _ in holds[:NAMED_MAX]]
            first = repr(holds[0][1])
            log.error("holds can't be ended", count=len(holds), reservation_ids=ids, error=first, **facts)
    return len(overdue), expired


async def _settle_alone(engine: AsyncEngine, id_: UUID) -> None:
    with recording.expiry("sweep") as batch:
        async with transaction(engine) as connection:
            (answer,) = await settle(connection, [SettleRequest(id_, None, State.EXPIRED)])
        if isinstance(answer, Settled) and answer.changed:
            batch.reservations = [answer.reservation]

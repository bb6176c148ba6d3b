"""Ends overdue holds. It needs only PostgreSQL: it is the guarantee that unpaid seats are released."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from uuid import UUID

import structlog
from cachetools import LRUCache, TTLCache
from sqlalchemy.ext.asyncio import AsyncEngine

from service.database import roll_back, snapshot, transaction
from service.ledger.expiring import Ended, is_any_overdue, lock_overdue, settle_overdue
from service.ledger.one_by_one import ONE_BY_ONE_SECONDS_MAX, in_turn, together_then_one_by_one
from service.ledger.settling import Settled, SettleRequest, settle
from service.observability import tracing
from service.observability.failures import Failures, kind_of
from service.observability.metrics import recording
from service.reservation import State
from service.settings import Settings

SET_ASIDE_MAX = 10_000
SET_ASIDE_SECONDS = 2
NAMED_MAX = 10
"""The log line names at most this many of the holds that could not be ended. The audit names broken ones too."""

log = structlog.stdlib.get_logger("rowlock.sweep")


class SetAside:
    """Holds that could not be ended a moment ago: other seats are released without them. One for each loop."""

    def __init__(self) -> None:
        self.holds: TTLCache[UUID, None] = TTLCache(SET_ASIDE_MAX, SET_ASIDE_SECONDS)
        self.tried: LRUCache[UUID, None] = LRUCache(SET_ASIDE_MAX)
        """All that were ever set aside, and those that a step had no time for: for their traces."""
        self.failures = Failures()
        """By kind of error, for the log: one defect may concern every hold."""
        self.batches = Failures()
        """Of whole batches, whose members may all be ended alone."""

    def add(self, id_: UUID) -> None:
        """Sets a hold aside that could not be ended now."""
        self.holds[id_] = self.tried[id_] = None


@tracing.batched("sweep", "expire hold", "internal")
async def step(
    engine: AsyncEngine,
    settings: Settings,
    set_aside: SetAside | None = None,
    clock: Callable[[], float] = time.monotonic,
    ended: Callable[[], None] = lambda: None,
) -> float:
    """Settles one batch; seconds to wait, 0 after a full batch. Any number of replicas may do it at once. Calls `ended`
    where it has ended holds.

    A hold that can't be ended must not keep the seats of the others.
    """
    set_aside = SetAside() if set_aside is None else set_aside
    batch_max = settings.sweep_batch_max
    tracing.note_tried(set_aside.tried)
    found, expired = await together_then_one_by_one(
        partial(_settle_together, engine, batch_max, set_aside, clock),
        partial(_settle_one_by_one, engine, batch_max, set_aside, clock),
    )
    if expired:
        log.info("holds expired", count=expired)
        ended()
    return 0 if found == batch_max else settings.sweep_interval_ms / 1000


async def _settle_together(
    engine: AsyncEngine, batch_max: int, set_aside: SetAside, clock: Callable[[], float]
) -> tuple[int, int]:
    """How many holds were found, and how many of them were ended: all."""
    ended = Ended((), 0)
    with recording.expiry("sweep") as batch:
        # At rest one statement, where a transaction would be four.
        async with snapshot(engine) as connection:
            is_any = await is_any_overdue(connection, list(set_aside.holds))
        if is_any:
            async with transaction(engine) as connection:
                ended = await settle_overdue(connection, batch_max, list(set_aside.holds))
                if not ended.reservations:
                    await roll_back(connection)
        batch.reservations, batch.skipped = ended.reservations, ended.skipped
    if not set_aside.holds:
        set_aside.batches.end(clock())
        if facts := set_aside.failures.end(clock()):
            log.info("every hold can be ended again", **facts)
    return len(ended.reservations), len(ended.reservations)


async def _settle_one_by_one(
    engine: AsyncEngine, batch_max: int, set_aside: SetAside, clock: Callable[[], float], failure: Exception
) -> tuple[int, int]:
    """How many holds were found, and how many of them were ended alone. The others are reported and set aside."""
    if facts := set_aside.batches.note(kind_of(failure), clock()):
        log.warning("batch failed, trying one by one", error=repr(failure), **facts)
    async with transaction(engine) as connection:
        overdue = list(await lock_overdue(connection, batch_max, list(set_aside.holds)))
        await roll_back(connection)
    failed: list[tuple[UUID, Exception]] = []
    expired = 0
    async for id_, answer in in_turn(overdue, partial(_settle_alone, engine), clock() + ONE_BY_ONE_SECONDS_MAX, clock):
        if isinstance(answer, Exception):
            set_aside.add(id_)
            tracing.note_failed([id_], type(answer).__name__)
            failed.append((id_, answer))
        else:
            tracing.note_done([id_])
            expired += 1
    if untried := overdue[expired + len(failed) :]:
        set_aside.tried.update(dict.fromkeys(untried))
        tracing.note_failed(untried, "unsettled")
    _report(failed, set_aside.failures, clock())
    return len(overdue), expired


async def _settle_alone(engine: AsyncEngine, id_: UUID) -> None:
    with recording.expiry("sweep") as batch:
        async with transaction(engine) as connection:
            (answer,) = await settle(connection, [SettleRequest(id_, None, State.EXPIRED)])
        if isinstance(answer, Settled) and answer.changed:
            batch.reservations = [answer.reservation]


def _report(failed: Sequence[tuple[UUID, Exception]], failures: Failures, now: float) -> None:
    """One line in the log for each kind of error."""
    by_kind: dict[str, list[tuple[UUID, Exception]]] = {}
    for id_, error in failed:
        by_kind.setdefault(kind_of(error), []).append((id_, error))
    for kind, holds in by_kind.items():
        if facts := failures.note(kind, now):
            ids = [str(id_) for id_, _ in holds[:NAMED_MAX]]
            log.error("holds can't be ended", count=len(holds), reservation_ids=ids, error=repr(holds[0][1]), **facts)

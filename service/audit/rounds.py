"""One round of the self-audit: its passes through the ledger, the log and the seat maps, one slice at a time."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Self
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from service.audit import ledger, maps
from service.audit.event_log import LogCheck
from service.audit.slices import Limits, Slice
from service.audit.verdicts import EXAMPLES_MAX, Found, Verdict
from service.database import Connection, snapshot
from service.observability.metrics import catalogue
from service.seatmap.cached import SeatCache

log = structlog.stdlib.get_logger("rowlock.audit")


@dataclass(slots=True)
class Pass:
    """The rows that it checks, as metrics name them, how it checks the slice after a place, and that place."""

    what: str
    look: Callable[[Any], Awaitable[Slice]]
    after: int | UUID = 0


@dataclass(slots=True)
class Round:
    """The passes that are left, and the verdict so far."""

    passes: list[Pass]
    verdict: Verdict = field(default_factory=Verdict)

    @classmethod
    def create(cls, engine: AsyncEngine, cache: SeatCache | None, log_keep_hours: int, limits: Limits) -> Self:
        """A whole round, without the maps where there is no cache."""
        seats = partial(ledger.check_seats, rows_max=limits.rows)
        reservations = partial(ledger.check_reservations, rows_max=limits.rows)
        passes = [
            Pass("holds", partial(_look, engine, ledger.OverdueHolds(limits).look)),
            Pass("seats", partial(_look, engine, seats)),
            Pass("reservations", partial(_look, engine, reservations), UUID(int=0)),
            Pass("events", partial(_look, engine, LogCheck(log_keep_hours, limits).look)),
        ]
        if cache:
            passes.append(Pass("maps", partial(maps.check_next, engine, cache, limits)))
        return cls(passes)

    async def advance(self) -> bool:
        """Checks one slice; whether none is left. After an error the same slice is the next one."""
        if self.passes:
            current = self.passes[0]
            looked = await current.look(current.after)
            self._note(current.what, looked)
            if looked.last is None:
                self.passes.pop(0)
            else:
                current.after = looked.last
        return not self.passes

    def _note(self, what: str, looked: Slice) -> None:
        verdict = self.verdict
        verdict.checked[what] = verdict.checked.get(what, 0) + looked.checked
        catalogue.AUDIT_CHECKED.of(what).inc(looked.checked)
        if looked.unlooked:
            verdict.unlooked[what] = verdict.unlooked.get(what, 0) + looked.unlooked
            log.warning("the audit could not check everything", what=what, count=looked.unlooked)
        for fault in looked.faults:
            found = verdict.violations.setdefault(fault.check, Found())
            if fault in found.examples:
                # Two passes may find the same.
                continue
            found.count += 1
            if len(found.examples) < EXAMPLES_MAX:
                found.examples.append(fault)
                log.error("the audit has found a violation", **asdict(fault))


async def _look(engine: AsyncEngine, check: Callable[[Connection, Any], Awaitable[Slice]], after: int | UUID) -> Slice:
    async with snapshot(engine) as connection:
        return await check(connection, after)

"""One round of the self-audit: its passes through the ledger, the log and the seat maps, one slice at a time."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Self
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from service.audit import ledger, maps
from service.audit.event_log import LogCheck
from service.audit.slices import Limits, Slice, bounded
from service.audit.verdicts import EXAMPLES_MAX, Fault, Found, Tally
from service.database import Connection
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
    """The passes that are left, and the results so far."""

    passes: list[Pass]
    checked: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Fault]] = field(default_factory=dict)
    unlooked: Counter[str] = field(default_factory=Counter)

    @classmethod
    def create(cls, engine: AsyncEngine, cache: SeatCache | None, log_keep_hours: int, limits: Limits) -> Self:
        """A whole round, without the maps where there is no cache."""
        look = partial(partial, _look, engine, limits)
        holds, events = ledger.OverdueHolds(limits), LogCheck(log_keep_hours, limits)
        passes = [
            Pass("holds", look(holds.look)),
            Pass("seats", look(partial(ledger.check_seats, rows_max=limits.rows))),
            Pass("reservations", look(partial(ledger.check_reservations, rows_max=limits.rows)), UUID(int=0)),
            Pass("events", look(events.look)),
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

    def tally(self) -> Tally:
        """So far."""
        violations = {
            check: Found(count, [asdict(fault) for fault in self.examples[check]])
            for check, count in self.counts.items()
        }
        return Tally(dict(self.checked), violations, dict(self.unlooked))

    def _note(self, what: str, looked: Slice) -> None:
        self.checked[what] += looked.checked
        catalogue.AUDIT_CHECKED.of(what).inc(looked.checked)
        if looked.unlooked:
            self.unlooked[what] += looked.unlooked
            log.warning("the audit could not check everything", what=what, count=looked.unlooked)
        for fault in looked.faults:
            examples = self.examples.setdefault(fault.check, [])
            if fault in examples:
                # Two passes may find the same.
                continue
            self.counts[fault.check] += 1
            if len(examples) < EXAMPLES_MAX:
                examples.append(fault)
                log.error("the audit has found a violation", **asdict(fault))


async def _look(
    engine: AsyncEngine, limits: Limits, check: Callable[[Connection, Any], Awaitable[Slice]], after: int | UUID
) -> Slice:
    async with bounded(engine, limits) as connection:
        return await check(connection, after)

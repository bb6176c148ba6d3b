"""One round of the self-audit: which passes it makes through the ledger, its log and the maps, a slice at a time."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import dropwhile
from typing import Any, Self
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from service.audit import ledger as audit
from service.audit import log_untold as untold
from service.audit import maps as mapaudit
from service.audit.holds import HoldAudit
from service.audit.ledger import Slice
from service.audit.log import LogAudit
from service.audit.verdicts import EXAMPLES_MAX, Fault, Found, Place, Progress, Tally
from service.database import Connection, roll_back, transaction
from service.observability.metrics import catalogue
from service.seatmap.cached import SeatCache

log = structlog.stdlib.get_logger("rowlock.audit")

Look = Callable[[Any], Awaitable[Slice]]
"""Looks at the slice after a place."""


@dataclass(slots=True)
class Pass:
    """Its name, what it looks at, in metrics, and the place after which its next slice begins."""

    name: str
    what: str
    look: Look
    after: int | UUID


@dataclass(slots=True)
class Round:
    """The passes that are left, and what was looked at and found so far; the holds are looked at all the time.

    `passed_at` is when no pass was left, by the monotonic clock.
    """

    engine: AsyncEngine
    passes: list[Pass]
    log: LogAudit
    holds: HoldAudit = field(default_factory=HoldAudit)
    passed_at: float | None = None
    checked: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Fault]] = field(default_factory=dict)
    unlooked: Counter[str] = field(default_factory=Counter)

    @classmethod
    def create(
        cls, engine: AsyncEngine, cache: SeatCache | None, log_keep_hours: int, progress: Progress | None = None
    ) -> Self:
        """One that goes on from there, or looks at everything; `cache` is None where there is no Redis."""
        events = LogAudit.create(progress.place.log) if progress else LogAudit()
        passes = _passes(engine, cache, events, log_keep_hours)
        if progress is None:
            return cls(engine, passes, events)
        place, tally = progress.place, progress.tally
        passes = list(dropwhile(lambda past: past.name != place.next_pass, passes))
        if passes:
            passes[0].after = type(passes[0].after)(place.after)
        return cls(
            engine,
            passes,
            events,
            # Of more than the examples it is not known which were told: they count once more.
            holds=HoldAudit(told={UUID(fault["reservation_id"]) for fault in _examples(tally, "overdue")}),
            checked=Counter(tally.checked),
            counts=Counter({check: found.count for check, found in tally.violations.items()}),
            examples={check: [Fault(**fault) for fault in _examples(tally, check)] for check in tally.violations},
            unlooked=Counter(tally.unlooked),
        )

    async def advance(self) -> bool:
        """Looks at one slice; whether none is left. After an error the same slice is the next one."""
        now = time.monotonic()
        if self.holds.is_due(now):
            overdue = await _in_transaction(self.engine, self.holds.look, now)
            self._note("holds", overdue)
            self.holds.note(overdue)
        if self.passes:
            current = self.passes[0]
            looked = await current.look(current.after)
            self._note(current.what, looked)
            if looked.last is None:
                self.passes.pop(0)
            else:
                current.after = looked.last
        if self.passes:
            return False
        # The last one was gone before where only the verdict could not be written.
        self.passed_at = self.passed_at or now
        return not self.holds.waits(self.passed_at)

    def progress(self) -> Progress:
        """For whoever takes it up."""
        name, after = (self.passes[0].name, self.passes[0].after) if self.passes else (None, 0)
        return Progress(self.tally(), Place(name, str(after), self.log.known()))

    def tally(self) -> Tally:
        """So far."""
        violations = {
            check: Found(count, [asdict(fault) for fault in self.examples[check]])
            for check, count in self.counts.items()
        }
        return Tally(dict(self.checked), violations, dict(self.unlooked))

    def _note(self, what: str, looked: Slice) -> None:
        self.checked[what] += looked.checked
        if looked.unlooked:
            self.unlooked[what] += looked.unlooked
            log.warning("the audit could not look at something", what=what, count=looked.unlooked)
        catalogue.AUDIT_CHECKED.of(what).inc(looked.checked)
        for fault in looked.faults:
            examples = self.examples.setdefault(fault.check, [])
            if fault in examples:
                # Two looks may find the same.
                continue
            self.counts[fault.check] += 1
            if len(examples) < EXAMPLES_MAX:
                examples.append(fault)
                log.error("the audit has found what must not be", **asdict(fault))


def _passes(engine: AsyncEngine, cache: SeatCache | None, events: LogAudit, log_keep_hours: int) -> list[Pass]:
    """From the beginning. Their names are known to whoever takes a round up: another one is another FORMAT of it."""

    def ledger(check: Callable[[Connection, Any], Awaitable[Slice]]) -> Look:
        return lambda after: _in_transaction(engine, check, after)

    async def check_reservations(connection: Connection, after: UUID) -> Slice:
        await events.newest.note_slice(connection, after)
        return await audit.check_reservations(connection, after)

    passes = [
        Pass("seats", "seats", ledger(audit.check_seats), 0),
        Pass("reservations", "reservations", ledger(check_reservations), UUID(int=0)),
        Pass("log", "events", ledger(partial(events.check_slice, keep_hours=log_keep_hours)), 0),
        Pass("open holds", "events", ledger(lambda connection, _: untold.check_open(connection, events)), 0),
    ]
    if cache:
        passes.append(Pass("maps", "maps", lambda after: mapaudit.check_next(engine, cache, after), 0))
    return passes


def _examples(tally: Tally, check: str) -> Sequence[Mapping[str, Any]]:
    return tally.violations[check].examples if check in tally.violations else ()


async def _in_transaction(
    engine: AsyncEngine, check: Callable[[Connection, Any], Awaitable[Slice]], after: float | UUID
) -> Slice:
    async with transaction(engine) as connection:
        await connection.execute(audit.BOUND_STATEMENTS)
        looked = await check(connection, after)
        await roll_back(connection)
    return looked

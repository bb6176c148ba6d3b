"""Checks, all the time and a little at a time, that nothing was sold twice and nothing was lost.

One replica does a round, in slices with pauses for those who buy; another takes it up when that one has gone. The
verdict is a row that every replica shows, and that `GET /manager/audit` reads.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from service.audit import verdicts
from service.audit.rounds import Round
from service.audit.verdicts import NOTHING, Standing
from service.cache import Cache
from service.database import Connection, roll_back, transaction
from service.observability.metrics import catalogue, values
from service.observability.metrics.values import KNOWN_SECONDS
from service.seatmap.cached import SeatCache
from service.settings import Settings

PAUSE_SECONDS = 0.05
SAVE_SECONDS = 5.0
"""So often we say that we are at a round, where, and what it has found."""
SAVE_FOUND_SECONDS = 1.0
"""So soon we say so where it has found something new; many slices may do so one after the other."""
LOOK_SECONDS = 1.0
"""How often each replica looks whether a round is due, and what the last one has found."""


@dataclass(slots=True)
class Turn:
    """The round that is ours, since when by PostgreSQL's clock, when we last said so, and how much was found then."""

    round: Round
    began_at: datetime
    saved: float
    saved_count: int

    def is_to_save(self, now: float) -> bool:
        """Whether it is time to say so again."""
        has_news = self.round.counts.total() != self.saved_count
        return now >= self.saved + (SAVE_FOUND_SECONDS if has_news else SAVE_SECONDS)


class Audit:
    """`owner` is this process, for its turn; `cache` is None where there is no Redis."""

    def __init__(self, engine: AsyncEngine, settings: Settings, owner: str, cache: Cache | None) -> None:
        self._engine = engine
        self._settings = settings
        self._owner = owner
        self._cache = SeatCache(cache, settings.map_fresh_ms) if cache else None
        self._turn: Turn | None = None
        self._known_at = -math.inf
        catalogue.AUDIT_INTERVAL_SECONDS.of().set(settings.audit_interval_seconds)

    async def step(self) -> float:
        """Begins a round where one is due, or looks at its next slice; seconds to wait. Raises whatever a transaction
        raises; then the slice is looked at once more, and what was shown stays for KNOWN_SECONDS.
        """
        try:
            return await self._go_on()
        except Exception:
            if time.monotonic() > self._known_at + KNOWN_SECONDS:
                _show_nothing()
            raise

    async def _go_on(self) -> float:
        if self._turn is None:
            return await self._wait_for_turn()
        if not await self._keep(self._turn):
            self._turn = None
        elif await self._turn.round.advance():
            await self._finish(self._turn)
            self._turn = None
        return PAUSE_SECONDS

    async def close(self) -> None:
        """Lets another replica go on with the round at once."""
        if self._turn:
            async with transaction(self._engine) as connection:
                await self._save(connection, self._turn)
                await verdicts.give_up_turn(connection, self._owner)

    async def _wait_for_turn(self) -> float:
        async with transaction(self._engine) as connection:
            begun = await verdicts.take_turn(connection, self._owner, self._settings.audit_interval_seconds)
            standing = await verdicts.read_standing(connection)
            if begun is None:
                await roll_back(connection)
        self._show(standing)
        if begun is None:
            return LOOK_SECONDS
        round_ = Round.create(self._engine, self._cache, self._settings.log_keep_hours, begun.progress)
        self._turn = Turn(round_, begun.at, time.monotonic(), round_.counts.total())
        return 0

    async def _keep(self, turn: Turn) -> bool:
        now = time.monotonic()
        if not turn.is_to_save(now):
            return True
        count = turn.round.counts.total()
        async with transaction(self._engine) as connection:
            kept = await self._save(connection, turn)
            standing = await verdicts.read_standing(connection)
        turn.saved, turn.saved_count = now, count
        self._show(standing)
        return kept

    async def _save(self, connection: Connection, turn: Turn) -> bool:
        return await verdicts.keep_turn(connection, self._owner, turn.began_at, turn.round.progress())

    async def _finish(self, turn: Turn) -> None:
        async with transaction(self._engine) as connection:
            await verdicts.write_verdict(connection, self._owner, turn.began_at, turn.round.tally())
            standing = await verdicts.read_standing(connection)
        self._show(standing)

    def _show(self, standing: Standing) -> None:
        violations, verdict = standing.violations(), standing.verdict
        # Each is set once: Prometheus may ask between two of them.
        unlooked = {what: verdict.tally.unlooked.get(what, 0) if verdict else math.nan for what in values.AUDITED}
        _show_all(
            {
                check: violations.get(check, NOTHING).count if verdict or check in violations else math.nan
                for check in values.CHECKS
            },
            unlooked,
            verdict.finished_at.timestamp() if verdict else math.nan,
            (verdict.finished_at - verdict.began_at).total_seconds() if verdict else math.nan,
        )
        self._known_at = time.monotonic()


def _show_nothing() -> None:
    _show_all(dict.fromkeys(values.CHECKS, math.nan), dict.fromkeys(values.AUDITED, math.nan), math.nan, math.nan)


def _show_all(
    violations: Mapping[str, float], unlooked: Mapping[str, float], finished_at: float, round_seconds: float
) -> None:
    for check, count in violations.items():
        catalogue.AUDIT_VIOLATIONS.of(check).set(count)
    for what, count in unlooked.items():
        catalogue.AUDIT_UNLOOKED.of(what).set(count)
    catalogue.AUDIT_FINISHED.of().set(finished_at)
    catalogue.AUDIT_ROUND_SECONDS.of().set(round_seconds)

"""Checks continuously that no seat was sold twice and that nothing was lost.

One replica does a round, in slices with pauses for the sale. When it stops, another replica begins a new round. The
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
from service.audit.slices import DEFAULT, Limits
from service.audit.verdicts import LEASE_SECONDS, UNKNOWN, Found, Verdict
from service.cache import Cache
from service.database import roll_back, transaction
from service.observability.metrics import catalogue, values
from service.seatmap.cached import SeatCache
from service.settings import Settings

PAUSE_SECONDS = 0.05
LOOK_SECONDS = 1.0
"""How often each other replica checks whether a round is due, and reads the violations."""


@dataclass(slots=True)
class Turn:
    """Our round, when it began by PostgreSQL's clock, the violations before it, and when we last wrote them."""

    round: Round
    began_at: datetime
    before: Mapping[str, Found]
    saved_at: float


class Audit:
    """The loop of the process `owner`, with a cache where there is a Redis."""

    def __init__(
        self, engine: AsyncEngine, settings: Settings, owner: str, cache: Cache | None, limits: Limits = DEFAULT
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._owner = owner
        self._cache = SeatCache(cache, settings.map_fresh_ms) if cache else None
        self._limits = limits
        self._known_at = -math.inf
        self._turn: Turn | None = None
        catalogue.AUDIT_INTERVAL_SECONDS.of().set(settings.audit_interval_seconds)

    async def step(self) -> float:
        """Begins a round where one is due, or checks its next slice; seconds to wait, LOOK_SECONDS where there was
        nothing to do. Raises the errors of a transaction: then the same slice is the next one.
        """
        try:
            return await self._go_on()
        except Exception:
            if time.monotonic() > self._known_at + self._limits.known_seconds:
                show(UNKNOWN)
            raise

    async def _go_on(self) -> float:
        turn = self._turn
        if turn is None:
            return await self._wait_for_turn()
        if time.monotonic() >= turn.saved_at + self._limits.save_seconds and not await self._save(turn):
            self._turn = None
        elif await turn.round.advance():
            await self._finish(turn)
            self._turn = None
        return PAUSE_SECONDS

    async def close(self) -> None:
        """Lets another replica begin a round at once."""
        if self._turn:
            await self._save(self._turn, lease_seconds=0)

    async def _wait_for_turn(self) -> float:
        async with transaction(self._engine) as connection:
            began_at = await verdicts.take_turn(connection, self._owner, self._settings.audit_interval_seconds)
            verdict = await verdicts.read_verdict(connection)
            if began_at is None:
                await roll_back(connection)
        self._show(verdict)
        if began_at is None:
            return LOOK_SECONDS
        round_ = Round.create(self._engine, self._cache, self._settings.log_keep_hours, self._limits)
        self._turn = Turn(round_, began_at, verdict.tally.violations, time.monotonic())
        return 0

    async def _save(self, turn: Turn, lease_seconds: float = LEASE_SECONDS) -> bool:
        """Whether the turn is still ours."""
        turn.saved_at = time.monotonic()
        violations = verdicts.merged(turn.round.tally().violations, turn.before)
        async with transaction(self._engine) as connection:
            is_kept = await verdicts.keep_turn(connection, self._owner, violations, lease_seconds)
            verdict = await verdicts.read_verdict(connection)
        self._show(verdict)
        return is_kept

    async def _finish(self, turn: Turn) -> None:
        async with transaction(self._engine) as connection:
            await verdicts.write_verdict(connection, self._owner, turn.began_at, turn.round.tally())
            verdict = await verdicts.read_verdict(connection)
        self._show(verdict)

    def _show(self, verdict: Verdict) -> None:
        show(verdict)
        self._known_at = time.monotonic()


def show(verdict: Verdict) -> None:
    """Sets each gauge once, since Prometheus may read between two of them: NaN where nothing is known."""
    tally, default = verdict.tally, 0 if verdict.finished_at else math.nan
    for check in values.CHECKS:
        found = tally.violations.get(check)
        catalogue.AUDIT_VIOLATIONS.of(check).set(found.count if found else default)
    for what in values.AUDITED:
        catalogue.AUDIT_UNLOOKED.of(what).set(tally.unlooked.get(what, default))
    finished_at, round_seconds = math.nan, math.nan
    if verdict.began_at and verdict.finished_at:
        finished_at = verdict.finished_at.timestamp()
        round_seconds = (verdict.finished_at - verdict.began_at).total_seconds()
    catalogue.AUDIT_FINISHED.of().set(finished_at)
    catalogue.AUDIT_ROUND_SECONDS.of().set(round_seconds)

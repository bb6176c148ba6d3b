"""Checks continuously that no seat was sold twice and that nothing was lost.

One replica does a round, in slices with pauses for the sale. Every replica shows the verdict.
"""

import math
import time

from sqlalchemy.ext.asyncio import AsyncEngine

from service.audit import verdicts
from service.audit.rounds import Round
from service.audit.slices import DEFAULT, Limits
from service.audit.verdicts import LEASE_SECONDS, Verdict
from service.cache import Cache
from service.database import snapshot, transaction
from service.observability.metrics import catalogue, values
from service.seatmap.cached import SeatCache
from service.settings import Settings

PAUSE_SECONDS = 0.05
LOOK_SECONDS = 1.0
"""How often each other replica checks whether a round is due, and reads the violations."""


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
        self._round: Round | None = None
        self._saved_at = -math.inf
        catalogue.AUDIT_INTERVAL_SECONDS.of().set(settings.audit_interval_seconds)

    async def step(self) -> float:
        """Begins a round where one is due, or checks its next slice; seconds to wait, LOOK_SECONDS where there was
        nothing to do. Raises the errors of a transaction: then the same slice is the next one.
        """
        try:
            return await (self._continue(self._round) if self._round else self._wait_for_turn())
        except Exception:
            if time.monotonic() > self._known_at + self._limits.known_seconds:
                show(Verdict())
            raise

    async def close(self) -> None:
        """Lets another replica begin a round at once."""
        if self._round:
            await self._save(self._round, lease_seconds=0)

    async def _wait_for_turn(self) -> float:
        async with snapshot(self._engine) as connection:
            began_at = await verdicts.take_turn(connection, self._owner, self._settings.audit_interval_seconds)
            verdict = await verdicts.read_verdict(connection)
        self._show(verdict)
        if began_at is None:
            return LOOK_SECONDS
        self._round = Round.create(self._engine, self._cache, self._settings.log_keep_hours, self._limits)
        self._round.verdict.began_at = began_at
        self._saved_at = time.monotonic()
        return 0

    async def _continue(self, round_: Round) -> float:
        if time.monotonic() >= self._saved_at + self._limits.save_seconds and not await self._save(round_):
            self._round = None
        elif await round_.advance():
            async with transaction(self._engine) as connection:
                await verdicts.write_verdict(connection, self._owner, round_.verdict)
            self._round = None
        return PAUSE_SECONDS

    async def _save(self, round_: Round, lease_seconds: float = LEASE_SECONDS) -> bool:
        """Whether the turn is still ours."""
        self._saved_at = time.monotonic()
        async with transaction(self._engine) as connection:
            is_kept = await verdicts.keep_turn(connection, self._owner, round_.verdict.violations, lease_seconds)
            verdict = await verdicts.read_verdict(connection)
        self._show(verdict)
        return is_kept

    def _show(self, verdict: Verdict) -> None:
        show(verdict)
        self._known_at = time.monotonic()


def show(verdict: Verdict) -> None:
    """Sets each gauge once, since Prometheus may read between two of them: NaN where nothing is known."""
    default = 0 if verdict.finished_at else math.nan
    for check in values.CHECKS:
        found = verdict.violations.get(check)
        catalogue.AUDIT_VIOLATIONS.of(check).set(found.count if found else default)
    for what in values.AUDITED:
        catalogue.AUDIT_UNLOOKED.of(what).set(verdict.unlooked.get(what, default))
    began, finished = (at.timestamp() if at else math.nan for at in (verdict.began_at, verdict.finished_at))
    catalogue.AUDIT_FINISHED.of().set(finished)
    catalogue.AUDIT_ROUND_SECONDS.of().set(finished - began)

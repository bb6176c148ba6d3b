"""Checks, all the time and a little at a time, that nothing was sold twice and nothing was lost.

One replica does a round, in slices with pauses for those who buy. The verdict is a row that every replica shows, and
that `GET /manager/audit` reads.
"""

import time
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.rounds import Round
from service import verdicts
from service.cache import Cache
from service.database import roll_back, transaction
from service.metrics import catalogue, values
from service.seatcache import SeatCache
from service.settings import Settings
from service.verdicts import LEASE_SECONDS, Verdict

PAUSE_SECONDS = 0.05
LOOK_SECONDS = 1.0
"""How often each replica looks whether a round is due, and what the last one has found."""


@dataclass(slots=True)
class Turn:
    """The round that is ours, since when by PostgreSQL's clock, and when we have last said that we are at it."""

    round: Round
    began_at: datetime
    renewed: float


class Audit:
    """`owner` is this process, for its turn; `cache` is None where there is no Redis."""

    def __init__(self, engine: AsyncEngine, settings: Settings, owner: str, cache: Cache | None) -> None:
        self._engine = engine
        self._settings = settings
        self._owner = owner
        self._cache = SeatCache(cache, settings.map_fresh_ms, settings.map_keep_minutes) if cache else None
        self._turn: Turn | None = None
        catalogue.AUDIT_INTERVAL_SECONDS.of().set(settings.audit_interval_seconds)

    async def step(self) -> float:
        """Begins a round where one is due, or looks at its next slice; seconds to wait. Raises whatever a transaction
        raises; then the slice is looked at once more.
        """
        if self._turn is None:
            return await self._wait_for_turn()
        if not await self._keep(self._turn):
            self._turn = None
        elif await self._turn.round.advance():
            await self._finish(self._turn)
            self._turn = None
        return PAUSE_SECONDS

    async def close(self) -> None:
        """Lets another replica begin a round at once."""
        if self._turn:
            async with transaction(self._engine) as connection:
                await verdicts.give_up_turn(connection, self._owner)

    async def _wait_for_turn(self) -> float:
        async with transaction(self._engine) as connection:
            now = await verdicts.take_turn(connection, self._owner, self._settings.audit_interval_seconds)
            verdict = await verdicts.read_verdict(connection)
            if now is None:
                await roll_back(connection)
        if verdict:
            _show(verdict)
        if now is None:
            return LOOK_SECONDS
        self._turn = Turn(Round.create(self._engine, self._cache), now, time.monotonic())
        return 0

    async def _keep(self, turn: Turn) -> bool:
        if time.monotonic() < turn.renewed + LEASE_SECONDS / 4:
            return True
        async with transaction(self._engine) as connection:
            turn.renewed = time.monotonic()
            return await verdicts.keep_turn(connection, self._owner)

    async def _finish(self, turn: Turn) -> None:
        async with transaction(self._engine) as connection:
            found = turn.round.found()
            await verdicts.write_verdict(connection, self._owner, turn.began_at, turn.round.checked, found)
            verdict = await verdicts.read_verdict(connection)
        if verdict:
            _show(verdict)


def _show(verdict: Verdict) -> None:
    for check in values.CHECKS:
        found = verdict.violations.get(check)
        catalogue.AUDIT_VIOLATIONS.of(check).set(found.count if found else 0)
    catalogue.AUDIT_FINISHED.of().set(verdict.finished_at.timestamp())
    catalogue.AUDIT_ROUND_SECONDS.of().set((verdict.finished_at - verdict.began_at).total_seconds())

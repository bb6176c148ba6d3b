"""The limits of a process's writes, from its settings."""

from dataclasses import dataclass

from service.ledger.gathering import LANES, Bounds
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one process. `list_lock_timeout_ms` is the longest wait of a list for a row lock."""

    writes_max: int
    session_writes_max: int
    wait_ms: int
    outcome_wait_ms: int
    list_lock_timeout_ms: int
    alone_max: int

    @property
    def bounds(self) -> Bounds:
        """Those of a gathering."""
        return Bounds(self.writes_max, self.session_writes_max, self.wait_ms / 1000, self.alone_max)


def limits_of(settings: Settings) -> Limits:
    """Those of this process. The lanes of both kinds, and members alone, leave connections for reads."""
    # Both kinds have as many lists outside the lanes, brief ones and patient ones: two thirds of the rest.
    alone_max = (settings.pool_size - 2 * LANES) // 6
    return Limits(
        settings.writes_max,
        settings.session_writes_max,
        settings.write_wait_ms,
        settings.outcome_wait_ms,
        min(settings.list_lock_timeout_ms, settings.lock_timeout_ms),
        max(1, alone_max),
    )

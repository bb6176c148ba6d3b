"""Shared by the passes of the self-audit: their limits, and the result of one look."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from service.audit.verdicts import Fault
from service.observability.metrics.values import KNOWN_SECONDS


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one look reads, and how long a round waits."""

    rows: int = 1_000
    overdue_holds: int = 1_000
    stuck_seconds: float = 10.0  # the sweep ends in this time what an outage has left
    newest_reservations: int = 20_000  # which the log must mention; earlier rounds checked older ones
    suspects: int = 50_000  # reservations that wait for a later event: as many as holds are open
    late_events: int = 50_000
    sessions: int = 200
    map_wait_seconds: float = 3.0
    seats_at_once: int = 5_000
    save_seconds: float = 1.0  # the replica that does a round renews its lease, and writes its violations
    known_seconds: float = KNOWN_SECONDS


DEFAULT = Limits()


@dataclass(frozen=True, slots=True)
class Slice:
    """The faults of the rows that were checked. The next slice begins after `last`, None where there are no more."""

    faults: Sequence[Fault]
    checked: int
    last: int | UUID | None
    unlooked: int = 0

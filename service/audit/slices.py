"""Shared by the passes of the self-audit: their limits, the result of one look, and its transaction."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from service.audit.verdicts import Fault
from service.database import Connection, roll_back, transaction
from service.observability.metrics.values import KNOWN_SECONDS


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one look reads, and how long a round waits."""

    statement_ms: int = 2_000  # the sale must not wait for the audit
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
    """The faults of the rows that were checked, and how many could not be; the next slice begins after `last`, None
    where there are no more.
    """

    faults: Sequence[Fault]
    checked: int
    last: int | UUID | None
    unlooked: int = 0


BOUND_STATEMENTS = """
select set_config('statement_timeout', $1, true)
"""


@asynccontextmanager
async def bounded(engine: AsyncEngine, limits: Limits) -> AsyncIterator[Connection]:
    """A transaction that only reads. Raises Busy where a statement takes longer than `statement_ms`."""
    async with transaction(engine) as connection:
        await connection.execute(BOUND_STATEMENTS, str(limits.statement_ms))
        yield connection
        await roll_back(connection)

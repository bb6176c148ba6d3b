"""Reads seat maps from PostgreSQL: the layout, the states, or the seats that have changed; a few reads at once.

Each read comes with the name of its history. A database that is restored to an earlier moment begins another history,
in which the same ids and versions may mean something else.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from service.database import Connection, snapshot
from service.errors import BusyReason, NotFound
from service.reservation import SeatState
from service.seatmap.encoding import NEVER_CHANGED, STATE_OF, Change
from service.settings import Settings
from service.single_flight import Turns

# A server's files can be replaced only while it is down, so the time of its start reveals every restore, also one by
# a plain copy. It also differs between servers. The file number of `seats` reveals a restore by SQL.
READ_HISTORY = """
select concat_ws(
    '-',
    system_identifier,
    substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
    oid,
    pg_relation_filenode('seats'),
    (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint
)
from pg_control_system()
cross join pg_database
where datname = current_database()
"""


async def read_history(connection: Connection) -> str:
    """The name of the history that the connection's database is in."""
    return str(await connection.fetchval(READ_HISTORY))


@dataclass(frozen=True, slots=True)
class Layout:
    """The part of a session that never changes in a history: its seats by position, one column each, and its end.

    Prices are in minor units.
    """

    history: str
    seat_ids: Sequence[int]
    placements: Sequence[str]
    prices: Sequence[int]
    currency: str
    ends_at_ms: int


READ_LAYOUT = """
select array_agg(seats.id order by position) as seat_ids,
    array_agg(placement order by position) as placements,
    array_agg(seats.price order by position) as prices,
    currency,
    (1000 * extract(epoch from showtime + make_interval(mins => duration_minutes)))::bigint as ends_at_ms
from seats
join sessions on sessions.id = session_id
where session_id = $1
group by sessions.id
"""

# Whole columns: building 100,000 records costs the process more than the query costs PostgreSQL. Its transaction begins
# before its snapshot is taken, the statement's own time may be later: see `READ_COMMITTED` in `service.events.log`.
READ_STATES = """
select string_agg(left(state, 1), '' order by position) as states, now() as as_of
from seats
where session_id = $1
having count(*) > 0
"""

READ_CHANGED = """
select position, state, version
from seats
where session_id = $1
and version > $2
"""


class SeatReads:
    """One per process. Every method raises Busy where no turn comes in time, and DatabaseAway."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self._engine = engine
        self._turns = Turns(settings.map_reads_max, settings.pool_wait_ms / 1000)

    async def layout(self, session_id: int) -> Layout:
        """Raises NotFound."""
        async with self._turn() as connection:
            history = await read_history(connection)
            row = await connection.fetchrow(READ_LAYOUT, session_id)
        if row is None:
            raise NotFound("session")
        return Layout(history, *row)

    async def states(self, session_id: int) -> tuple[str, bytes, datetime, float]:
        """The history, a letter a seat by position, PostgreSQL's time of it, and the event loop's time before the read.

        Raises NotFound.
        """
        async with self._turn() as connection:
            history = await read_history(connection)
            began = asyncio.get_running_loop().time()
            row = await connection.fetchrow(READ_STATES, session_id)
        if row is None:
            raise NotFound("session")
        return history, row["states"].encode(), row["as_of"], began

    async def changed(self, session_id: int) -> tuple[str, list[Change]]:
        """The history, and the seats that were changed since they were created."""
        async with self._turn() as connection:
            history = await read_history(connection)
            rows = await connection.fetch(READ_CHANGED, session_id, NEVER_CHANGED)
        return history, [Change(row["position"], STATE_OF[SeatState(row["state"])], row["version"]) for row in rows]

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[Connection]:
        """One of `map_reads_max` connections; the others of the pool are left to those who buy."""
        async with self._turns.take(BusyReason.MAP_READ), snapshot(self._engine) as connection:
            yield connection

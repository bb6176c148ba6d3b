"""A session's seats with their states, as somebody sees them who chooses one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from service.database import Connection
from service.errors import NotFound


@dataclass(frozen=True, slots=True)
class SeatMap:
    """The columns of a session's seats, by position, as they were committed at `as_of`; prices in minor units."""

    seat_ids: Sequence[int]
    placements: Sequence[str]
    prices: Sequence[int]
    states: Sequence[str]
    currency: str
    as_of: datetime


# Whole columns: building 100,000 records costs the process more than the query costs PostgreSQL.
READ_SEAT_MAP = """
select currency, statement_timestamp() as as_of,
    array_agg(seats.id order by position) as seat_ids,
    array_agg(placement order by position) as placements,
    array_agg(seats.price order by position) as prices,
    array_agg(state order by position) as states
from seats
join sessions on sessions.id = session_id
where session_id = $1
group by sessions.id
"""


async def read(connection: Connection, session_id: int) -> SeatMap:
    """The map from PostgreSQL. Raises NotFound."""
    row = await connection.fetchrow(READ_SEAT_MAP, session_id)
    if row is None:
        raise NotFound("session")
    return SeatMap(row["seat_ids"], row["placements"], row["prices"], row["states"], row["currency"], row["as_of"])

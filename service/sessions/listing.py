"""The sessions on sale, with their counts."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cachetools import TTLCache
from sqlalchemy.ext.asyncio import AsyncEngine

from service.database import snapshot
from service.seatmap.maps import SeatMaps
from service.sessions.creation import Session

COUNTS_CACHED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Counts:
    """Seats of a session that are held and sold; the others are available.

    Remembered for `counts_seconds`, and from a map in Redis up to `map_fresh_ms` older than that.
    """

    held: int
    sold: int


# Not clock_timestamp(): only what stays the same within the statement lets the index skip what is over. And `greatest`,
# because PostgreSQL 15 enters an index by the comparison of rows, and would walk from the cursor through all of that.
LIST_SESSIONS = """
select id, movie, room, showtime, duration_minutes, price, currency, seat_count, created_at
from sessions
where showtime > statement_timestamp()
and (showtime, id) > (greatest($1::timestamptz, statement_timestamp()), $2::bigint)
order by showtime, id
limit $3
"""

# Sums over what lives, by a partial index: never a scan of seats, of which a session may have 100,000.
COUNT_CLAIMED_SEATS = """
select session_id,
    coalesce(sum(cardinality(seat_ids)) filter (where state = 'HELD'), 0)::int as held,
    coalesce(sum(cardinality(seat_ids)) filter (where state = 'CONFIRMED'), 0)::int as sold
from unnest($1::bigint[]) as asked (session_id)
join reservations using (session_id)
where state in ('HELD', 'CONFIRMED')
group by session_id
"""


class SessionList:
    """The sessions that are still on sale. One per process, because it remembers the counts for a moment."""

    def __init__(self, engine: AsyncEngine, seat_maps: SeatMaps, counts_seconds: float) -> None:
        self._engine = engine
        self._seat_maps = seat_maps
        self._counts: TTLCache[int, Counts] = TTLCache(COUNTS_CACHED_MAX, counts_seconds)
        self._counting: dict[frozenset[int], asyncio.Task[dict[int, Counts]]] = {}

    async def page(self, after: tuple[datetime, int], size: int) -> list[tuple[Session, Counts]]:
        """Up to `size` sessions after (showtime, id), by showtime."""
        async with snapshot(self._engine) as connection:
            sessions = [Session(*row) for row in await connection.fetch(LIST_SESSIONS, *after, size)]
        counts = await self._count([session.id for session in sessions])
        return [(session, counts[session.id]) for session in sessions]

    async def _count(self, session_ids: Sequence[int]) -> dict[int, Counts]:
        """Counts what is not remembered; who wants the same meanwhile shares the count, and its failure."""
        known = self._remembered(session_ids)
        unknown = frozenset(id_ for id_ in session_ids if id_ not in known)
        if not unknown:
            return known
        if (counting := self._counting.get(unknown)) is None:
            counting = self._counting[unknown] = asyncio.create_task(self._count_now(list(unknown)))
            counting.add_done_callback(lambda _done: self._counting.pop(unknown))
        counted = await asyncio.shield(counting)
        self._counts.update(counted)
        return known | counted

    def _remembered(self, session_ids: Sequence[int]) -> dict[int, Counts]:
        return {id_: counts for id_ in session_ids if (counts := self._counts.get(id_)) is not None}

    async def _count_now(self, session_ids: Sequence[int]) -> dict[int, Counts]:
        """From the maps in Redis where they are fresh, for the others from PostgreSQL."""
        counted = {id_: Counts(*counts) for id_, counts in (await self._seat_maps.counts(session_ids)).items()}
        if uncounted := [id_ for id_ in session_ids if id_ not in counted]:
            async with snapshot(self._engine) as connection:
                rows = await connection.fetch(COUNT_CLAIMED_SEATS, uncounted)
            counted |= dict.fromkeys(uncounted, Counts(0, 0))
            counted |= {row["session_id"]: Counts(row["held"], row["sold"]) for row in rows}
        return counted

"""The sessions on sale, with their counts."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from cachetools import TTLCache
from sqlalchemy.ext.asyncio import AsyncEngine

from service.database import snapshot
from service.seatmap.encoding import Counts
from service.seatmap.maps import SeatMaps
from service.sessions.creation import Session
from service.single_flight import SingleFlight

COUNTS_CACHED_MAX = 10_000


# Not clock_timestamp(): the index can skip past sessions only by a value that is constant within the statement. And
# `greatest`, because PostgreSQL 15 enters an index by the comparison of rows, and would walk from the cursor through
# all past sessions.
LIST_SESSIONS = """
select id, movie, room, showtime, duration_minutes, price, currency, seat_count, created_at, paused_at
from sessions
where showtime > statement_timestamp()
and (showtime, id) > (greatest($1::timestamptz, statement_timestamp()), $2::bigint)
order by showtime, id
limit $3
"""

# Sums over live reservations, by a partial index: never a scan of seats, of which a session may have 100,000.
COUNT_CLAIMED_SEATS = """
select session_id,
    coalesce(sum(cardinality(seat_ids)) filter (where state = 'HELD'), 0)::int as held,
    coalesce(sum(cardinality(seat_ids)) filter (where state = 'CONFIRMED'), 0)::int as sold
from unnest($1::bigint[]) as asked (session_id)
cross join lateral (
    select state, seat_ids
    from reservations
    where session_id = asked.session_id
    and state in ('HELD', 'CONFIRMED')
    offset 0
) as claims
group by session_id
"""


class SessionList:
    """The sessions that are still on sale. One per process, because it remembers the counts for `counts_seconds`.

    Counts from a map in Redis may be older by `map_fresh_ms`.
    """

    def __init__(self, engine: AsyncEngine, seat_maps: SeatMaps, counts_seconds: float) -> None:
        self._engine = engine
        self._seat_maps = seat_maps
        self._counts: TTLCache[int, Counts] = TTLCache(COUNTS_CACHED_MAX, counts_seconds)
        self._counting: SingleFlight[frozenset[int], dict[int, Counts]] = SingleFlight("counts of seats")

    async def page(self, after: tuple[datetime, int], size: int) -> list[tuple[Session, Counts]]:
        """Up to `size` sessions after (showtime, id), by showtime."""
        async with snapshot(self._engine) as connection:
            sessions = [Session(*row) for row in await connection.fetch(LIST_SESSIONS, *after, size)]
        counts = await self._count({session.id: session.seat_count for session in sessions})
        return [(session, counts[session.id]) for session in sessions]

    async def _count(self, sizes: Mapping[int, int]) -> dict[int, Counts]:
        """Counts of the sessions of these sizes, remembered or new. Requests for the same page share a count, and its
        failure.
        """
        known = self._remembered(sizes)
        unknown = {id_: size for id_, size in sizes.items() if id_ not in known}
        if not unknown:
            return known
        counted = await self._counting.run(frozenset(unknown), lambda: self._count_now(unknown))
        self._counts.update(counted)
        return known | counted

    def _remembered(self, session_ids: Iterable[int]) -> dict[int, Counts]:
        return {id_: counts for id_ in session_ids if (counts := self._counts.get(id_)) is not None}

    async def _count_now(self, sizes: Mapping[int, int]) -> dict[int, Counts]:
        """From the maps in Redis where they are fresh and possible, for the others from PostgreSQL."""
        found = await self._seat_maps.counts(list(sizes))
        counted = {id_: counts for id_, counts in found.items() if sum(counts) <= sizes[id_]}
        if uncounted := [id_ for id_ in sizes if id_ not in counted]:
            async with snapshot(self._engine) as connection:
                rows = await connection.fetch(COUNT_CLAIMED_SEATS, uncounted)
            counted |= dict.fromkeys(uncounted, Counts(0, 0))
            counted |= {row["session_id"]: Counts(row["held"], row["sold"]) for row in rows}
        return counted

"""Whether seats, reservations and payments agree, and whether each hold that was not paid has ended. Each look is one
statement, which sees one moment: no change that is committed during a round can look like a fault.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from service.audit.slices import Limits, Slice
from service.audit.verdicts import Fault
from service.database import Connection

# Row by row (`limit 1`): for an unknown number of rows the planner would read whole tables. The last row has the number
# of rows in the slice, and the end of it.
CHECK_SEATS = """
with slice as materialized (
    select id, session_id, state, reservation_id
    from seats
    where id > $1
    order by id
    limit $2
)
(
    select
        case when slice.id = any(r.seat_ids) and (slice.state, r.state) in (('HELD', 'HELD'), ('SOLD', 'CONFIRMED'))
            then 'money' else 'ownerless'
        end as broken,
        slice.id as seat_id, slice.reservation_id, slice.session_id, null::bigint as checked
    from slice
    left join lateral (select * from reservations where id = slice.reservation_id limit 1) as r on true
    left join lateral (select * from payments where reservation_id = slice.reservation_id limit 1) as p on true
    where slice.reservation_id is not null
    and (
        r.id is null
        or not slice.id = any(r.seat_ids)
        or (slice.state, r.state) not in (('HELD', 'HELD'), ('SOLD', 'CONFIRMED'))
        or (slice.state = 'SOLD') <> (p.id is not null)
    )
)
union all
select null, max(id), null, null, count(*)
from slice
"""


async def check_seats(connection: Connection, after: int, rows_max: int) -> Slice:
    """Each held or sold seat belongs to one live reservation, which lists it, and a sold one is paid."""
    rows = await connection.fetch(CHECK_SEATS, after, rows_max)
    return _slice(rows, rows[-1]["seat_id"], rows_max)


CHECK_RESERVATIONS = """
with slice as materialized (
    select id, session_id, seat_ids, state, total, currency
    from reservations
    where id > $1
    order by id
    limit $2
),
claimed as materialized (
    select slice.id, slice.session_id, seat_id, s.price, s.reservation_id as owner_id
    from slice
    cross join lateral unnest(slice.seat_ids) as seat_id
    left join lateral (select * from seats where seats.id = seat_id limit 1) as s on true
    where slice.state in ('HELD', 'CONFIRMED')
)
(
    select
        case when owner.state in ('HELD', 'CONFIRMED') and seat_id = any(owner.seat_ids)
            then 'owners' else 'ownerless'
        end as broken,
        seat_id, claimed.id as reservation_id, claimed.session_id, null::bigint as checked
    from claimed
    left join lateral (select * from reservations where id = claimed.owner_id limit 1) as owner on true
    where claimed.owner_id is distinct from claimed.id
)
union all
(
    select 'money', null, slice.id, slice.session_id, null
    from slice
    left join lateral (select * from payments where reservation_id = slice.id limit 1) as p on true
    left join (
        select id, sum(price) as price
        from claimed
        group by id
    ) as seats_of on seats_of.id = slice.id
    where (slice.state = 'CONFIRMED') <> (p.id is not null)
    or (p.amount, p.currency) <> (slice.total, slice.currency)
    or slice.total <> seats_of.price
)
union all
select null, null, (select id from slice order by id desc limit 1), null, count(*)
from slice
"""


async def check_reservations(connection: Connection, after: UUID, rows_max: int) -> Slice:
    """Each live reservation owns all of its seats. Confirmed ones, and no others, are paid what the seats cost."""
    rows = await connection.fetch(CHECK_RESERVATIONS, after, rows_max)
    return _slice(rows, rows[-1]["reservation_id"], rows_max)


def _slice(rows: Sequence[asyncpg.Record], last: int | UUID | None, rows_max: int) -> Slice:
    *faults, end = rows
    found = [Fault.of(row["broken"], row) for row in faults]
    return Slice(found, end["checked"], last if end["checked"] == rows_max else None)


OVERDUE_SECONDS_MAX = 60
"""The sweep ends a hold within seconds of its deadline."""

CHECK_OVERDUE = """
select id as reservation_id, session_id
from reservations
where state = 'HELD'
and expires_at < statement_timestamp() - make_interval(secs => $1)
order by expires_at
limit $2
"""


@dataclass(slots=True)
class OverdueHolds:
    """The holds that were overdue at each look since `since`. Those that the sweep has not ended in `stuck_seconds` are
    faults. After a longer time without a look, as when PostgreSQL was down, the sweep gets its time again.
    """

    limits: Limits
    clock: Callable[[], float] = time.monotonic
    seen: dict[UUID, asyncpg.Record] = field(default_factory=dict)
    since: float = -math.inf
    looked_at: float = -math.inf

    async def look(self, connection: Connection, _after: object) -> Slice:
        """To be repeated until the slice has no `last`."""
        now = self.clock()
        rows = await connection.fetch(CHECK_OVERDUE, OVERDUE_SECONDS_MAX, self.limits.overdue_holds)
        overdue = {row["reservation_id"]: row for row in rows}
        is_first = now > self.looked_at + self.limits.stuck_seconds
        if is_first:
            self.seen, self.since = overdue, now
        self.looked_at = now
        self.seen = {id_: row for id_, row in self.seen.items() if id_ in overdue}
        checked = len(overdue) if is_first else 0
        if self.seen and now < self.since + self.limits.stuck_seconds:
            return Slice([], checked, 0)
        return Slice([Fault.of("overdue", row) for row in self.seen.values()], checked, None)

"""What must be true of the ledger and its log, looked at slice by slice. Each look is one statement, which sees one
moment: nothing that is committed while the audit goes on can look like a fault.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from service.audit.verdicts import Fault
from service.database import Connection

SLICE_MAX = 1_000
FAULTS_MAX = 1_000
"""Of one slice; more of them would say nothing new."""

# The sale must not wait for a look.
BOUND_STATEMENTS = """
set local statement_timeout = 2000
"""


@dataclass(frozen=True, slots=True)
class Slice:
    """What was found in so many rows, and how much could not be looked at; the next slice begins after `last`, None
    where there are no more.
    """

    faults: Sequence[Fault]
    checked: int
    last: int | UUID | None
    unlooked: int = 0


# Looked up row by row (`limit 1`): for a number of rows that it does not know the planner would read whole tables.
# The last row counts the slice, and says where it ends.
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
    limit $3
)
union all
select null, max(id), null, null, count(*)
from slice
"""


async def check_seats(connection: Connection, after: int) -> Slice:
    """Every seat that is not available belongs to one live reservation that knows it, and is paid where it is sold."""
    rows = await connection.fetch(CHECK_SEATS, after, SLICE_MAX, FAULTS_MAX)
    return _slice(rows, rows[-1]["seat_id"])


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
    limit $3
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
    limit $3
)
union all
select null, null, (
    select id
    from slice
    order by id desc
    limit 1
), null, count(*)
from slice
"""


async def check_reservations(connection: Connection, after: UUID) -> Slice:
    """Every live reservation has all of its seats, which are nobody else's, and money was taken where it is due, once,
    and as much as the seats cost.
    """
    rows = await connection.fetch(CHECK_RESERVATIONS, after, SLICE_MAX, FAULTS_MAX)
    return _slice(rows, rows[-1]["reservation_id"])


def _slice(rows: Sequence[asyncpg.Record], last: int | UUID | None) -> Slice:
    checked = rows[-1]["checked"]
    return Slice(_faults(rows[:-1]), checked, last if checked == SLICE_MAX else None)


def _faults(rows: Sequence[asyncpg.Record]) -> list[Fault]:
    return [
        Fault(
            row["broken"],
            row["seat_id"],
            None if row["reservation_id"] is None else str(row["reservation_id"]),
            row["session_id"],
        )
        for row in rows
    ]

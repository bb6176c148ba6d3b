"""The customers whose holds of a session end unpaid, for managers."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from service.database import Connection
from service.errors import NotFound
from service.ledger.cooldown import first_id

RESERVATIONS_MAX = 20_000
"""The newest reservations of all sessions that are read at most."""


@dataclass(frozen=True, slots=True)
class Unpaid:
    """A customer's holds of the session that ended unpaid: their number, and seats and seat-seconds of all of them."""

    customer_id: UUID
    holds: int
    seats: int
    seat_seconds: float


@dataclass(frozen=True, slots=True)
class UnpaidHolds:
    """The customers with the most unpaid seat-seconds, among the holds that were made from `since` on."""

    since: datetime
    customers: list[Unpaid]


HAS_SESSION = """
select exists (select from sessions where id = $1)
"""

# By the primary key, whose ids (uuid7) are in the order of time: an index by session would make every expiry dearer.
TOP_UNPAID = """
with newest as materialized (
    select customer_id, session_id, seat_ids, state, created_at, least(settled_at, expires_at) as ended_at
    from reservations
    where id >= $2
    order by id desc
    limit $4
),
customers as (
    select customer_id, count(*) as holds, sum(cardinality(seat_ids)) as seats,
        sum(cardinality(seat_ids) * extract(epoch from ended_at - created_at))::float8 as seat_seconds
    from newest
    where session_id = $1
    and state in ('EXPIRED', 'CANCELLED')
    group by customer_id
    order by seat_seconds desc, customer_id
    limit $5
)
select covered.since, customers.*
from (
    select case when count(*) < $4 then clock_timestamp() - $3::interval else min(created_at) end as since
    from newest
) as covered
left join customers on true
order by seat_seconds desc, customer_id
"""


async def top_unpaid(
    connection: Connection, session_id: int, minutes: int, customers_max: int, reservations_max: int = RESERVATIONS_MAX
) -> UnpaidHolds:
    """Of the last minutes, or of a shorter time where there were too many reservations. Raises NotFound."""
    if not await connection.fetchval(HAS_SESSION, session_id):
        raise NotFound("session")
    oldest = first_id(time.time() - 60 * minutes)
    rows = await connection.fetch(
        TOP_UNPAID, session_id, oldest, timedelta(minutes=minutes), reservations_max, customers_max
    )
    customers = [
        Unpaid(row["customer_id"], row["holds"], row["seats"], row["seat_seconds"])
        for row in rows
        if row["customer_id"]
    ]
    return UnpaidHolds(rows[0]["since"], customers)

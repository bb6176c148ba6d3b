"""Deletes reservations that ended unpaid long ago, in a walk along the primary key.

Ids are in the order of time (uuid7), so the walk ends at the first one that is too young: an index of ended
reservations would make every expiry dearer.
"""

import time
from dataclasses import dataclass
from uuid import UUID

from service.database import Connection
from service.ledger.cooldown import first_id

FIRST_ID = UUID(int=0)
DAY_SECONDS = 86_400

# Ended unpaid is final, so the states of the slice hold when the rows are locked. Row by row (`limit 1`): for an
# unknown number of rows the planner would read all seats. Only a seat that the reservation lists can be its own.
DELETE_ENDED = """
with slice as materialized (
    select id, state, settled_at
    from reservations
    where id > $1
    and id < $2
    order by id
    limit $3
),
deleted as (
    delete from reservations
    where id = any(array(
        select id
        from reservations as r
        where id = any(array(
            select id
            from slice
            where state in ('EXPIRED', 'CANCELLED')
            and settled_at < clock_timestamp() - make_interval(days => $4)
        ))
        and (select id from payments where reservation_id = r.id limit 1) is null
        and (select id from seats where id = any(r.seat_ids) and reservation_id = r.id limit 1) is null
        order by id
        for update skip locked
    ))
    returning 1
)
select
    (select count(*) from deleted) as deleted,
    (select id from slice order by id offset $3 - 1) as last
"""


@dataclass(frozen=True, slots=True)
class Deleted:
    """How many reservations a slice has lost, and the id after which the next slice begins; None after the last one."""

    count: int
    last: UUID | None


async def delete_ended(connection: Connection, after: UUID, keep_days: int, batch_max: int) -> Deleted:
    """Reads `batch_max` reservations and deletes those that expired or were released more than `keep_days` ago.

    Those that are locked, or that a payment or a seat still names, are left to a later walk.
    """
    end = first_id(time.time() - keep_days * DAY_SECONDS)
    row = await connection.fetchrow(DELETE_ENDED, after, end, batch_max, keep_days)
    assert row is not None
    return Deleted(row["deleted"], row["last"])

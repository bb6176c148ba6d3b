"""Committed events get their numbers: without gaps, in the order of their ids, after their commit.

An identity is handed out before its commit, so a number that was given with it would be read too late or never.
"""

from service.database import Connection

LAST = "log"
"""The cursor whose number is the last one that was given. It outlives the events, which are trimmed."""

ADD_LAST = """
insert into cursors (name, number)
select 'log', greatest(coalesce(max(number), 0), (select coalesce(max(number), 0) from cursors))
from events
on conflict do nothing
"""

HAS_LAST = """
select exists (select from cursors where name = 'log')
"""

LOCK_LAST = """
select number
from cursors
where name = 'log'
for no key update skip locked
"""

# A statement after the lock: in the same one the events that somebody else has just numbered would look new.
FIND_UNNUMBERED = """
select id
from events
where number is null
order by id
limit $1
"""

# By ids as an array: of a limit that is not known the planner fears the worst, and reads the whole log.
NUMBER_EVENTS = """
with numbered_events as (
    update events
    set number = $2 + committed_events.n
    from unnest($1::bigint[]) with ordinality as committed_events (id, n)
    where events.id = committed_events.id
    returning 1
),
moved_cursor as (
    update cursors
    set number = $2 + cardinality($1), moved_at = clock_timestamp()
    where name = 'log'
)
select count(*)
from numbered_events
"""


async def number_committed(connection: Connection, batch_max: int) -> int:
    """Numbers up to `batch_max` committed events in the order of their ids; how many. 0 where somebody else does."""
    # Most often there is nothing to do, and a look writes nothing: a lock would be written down.
    if await connection.fetchval(FIND_UNNUMBERED, 1) is None:
        return 0
    last = await connection.fetchval(LOCK_LAST)
    if last is None and not await connection.fetchval(HAS_LAST):
        await connection.execute(ADD_LAST)
        last = await connection.fetchval(LOCK_LAST)
    if last is None:
        return 0
    ids = [row["id"] for row in await connection.fetch(FIND_UNNUMBERED, batch_max)]
    return int(await connection.fetchval(NUMBER_EVENTS, ids, last)) if ids else 0

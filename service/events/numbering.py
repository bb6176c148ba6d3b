"""The sequencer's work: committed events get numbers without gaps, in the order of their ids.

An identity is handed out before its commit. A reader by identity would see some events too late or never.
"""

from service.database import Connection

# The cursor `log` has the last number given. It outlives the events, which are trimmed.
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

# A statement after the lock: the locking one would still see events as new that another replica has just numbered.
FIND_UNNUMBERED = """
select id
from events
where number is null
order by id
limit $1
"""

# The ids come as an array: for a limit that it does not know the planner would read the whole log.
NUMBER_EVENTS = """
with numbered_events as (
    update events
    set number = $2 + committed_events.n
    from unnest($1::bigint[]) with ordinality as committed_events (id, n)
    where events.id = any($1)
    and events.id = committed_events.id
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


async def is_any_unnumbered(connection: Connection) -> bool:
    """Whether there is work. It writes nothing, while the lock of `number_committed` is written to disk."""
    return await connection.fetchval(FIND_UNNUMBERED, 1) is not None


async def number_committed(connection: Connection, batch_max: int) -> int:
    """Numbers up to `batch_max` committed events by id. Returns how many: 0 while another replica does it."""
    last = await connection.fetchval(LOCK_LAST)
    if last is None and not await connection.fetchval(HAS_LAST):
        await connection.execute(ADD_LAST)
        last = await connection.fetchval(LOCK_LAST)
    if last is None:
        return 0
    ids = [row["id"] for row in await connection.fetch(FIND_UNNUMBERED, batch_max)]
    return int(await connection.fetchval(NUMBER_EVENTS, ids, last)) if ids else 0

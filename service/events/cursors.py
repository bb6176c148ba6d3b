"""The position of each reader of the log, and the process that reads for it.

One process reads for each cursor, under a lease by PostgreSQL's clock. A process that resumes after its lease has ended
can only repeat events.
"""

from dataclasses import dataclass
from datetime import datetime

from service.database import Connection

# A reader that is switched on for the first time starts at the end: earlier events do not concern it.
ADD_CURSOR = """
insert into cursors (name, number)
select $1, greatest(
    coalesce((select number from cursors where name = 'log'), 0),
    coalesce((select max(number) from events), 0)
)
on conflict do nothing
"""

TAKE_LEASE = """
update cursors
set owner = $2, leased_until = clock_timestamp() + make_interval(secs => $3 / 1000.0)
where name = $1
and (owner = $2 or leased_until is null or leased_until <= clock_timestamp())
returning number
"""

# One statement, so one snapshot: an event that it does not see was not committed at `as_of`, as in `READ_COMMITTED`.
# Both ends of the log are found by index: for `exists` the planner would read all of it.
READ_CURSOR = """
select number, now() as as_of,
    coalesce(owner = $2, false) as is_ours,
    coalesce(leased_until > clock_timestamp(), false) as is_leased,
    coalesce(leased_until > clock_timestamp() + make_interval(secs => $3 / 2000.0), false) as is_fresh,
    coalesce((select max(events.number) from events) > number, false) as has_numbered,
    (select id from events where events.number is null order by id limit 1) is not null as has_unnumbered
from cursors
where name = $1
"""


@dataclass(frozen=True, slots=True)
class Look:
    """Where a cursor is that is leased to us, and whether unread events were committed `as_of`, by PostgreSQL's clock:
    with a number, or still without one.
    """

    number: int
    as_of: datetime
    has_numbered: bool
    has_unnumbered: bool


async def look(connection: Connection, name: str, owner: str, lease_ms: int) -> Look | None:
    """The cursor at the beginning of a reader's step. None where another process has the lease.

    Takes the lease if it is free, and renews our own once half of `lease_ms` is over: most calls write nothing.
    """
    cursor = await connection.fetchrow(READ_CURSOR, name, owner, lease_ms)
    if cursor is None:
        await connection.execute(ADD_CURSOR, name)
        cursor = await connection.fetchrow(READ_CURSOR, name, owner, lease_ms)
    if cursor is None or (cursor["is_leased"] and not cursor["is_ours"]):
        return None
    if not (cursor["is_fresh"] and cursor["is_ours"]):
        # Another process may have had the lease since, and moved the cursor.
        taken = await connection.fetchval(TAKE_LEASE, name, owner, lease_ms)
        if taken != cursor["number"]:
            return None
    return Look(cursor["number"], cursor["as_of"], cursor["has_numbered"], cursor["has_unnumbered"])


async def take_lease(connection: Connection, name: str, owner: str, lease_ms: int) -> int | None:
    """Where the cursor is. Takes or renews the lease as `look` does; None where another process has it."""
    found = await look(connection, name, owner, lease_ms)
    return None if found is None else found.number


MOVE_CURSOR = """
update cursors
set number = $4, moved_at = clock_timestamp()
where name = $1
and owner = $2
and number = $3
"""


async def move_cursor(connection: Connection, name: str, owner: str, previous: int, number: int) -> bool:
    """Whether the cursor moved. It does not where another owner has taken the lease meanwhile."""
    tag: str = await connection.execute(MOVE_CURSOR, name, owner, previous, number)
    return tag != "UPDATE 0"


RELEASE_LEASE = """
update cursors
set owner = null, leased_until = null
where name = $1
and owner = $2
"""


async def release_lease(connection: Connection, name: str, owner: str) -> None:
    """Lets another process continue at once."""
    await connection.execute(RELEASE_LEASE, name, owner)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A reader of the log: the number of unread events, the process that reads for it, and when it moved last."""

    name: str
    unread: int
    reader: str | None
    moved_at: datetime


LIST_CURSORS = """
select name,
    (select max(number) from cursors) - number as unread,
    case when leased_until > clock_timestamp() then owner end as reader,
    moved_at
from cursors
where name <> 'log'
order by name
"""

DROP_CURSOR = """
delete from cursors
where name = $1
and name <> 'log'
and (leased_until is null or leased_until <= clock_timestamp())
"""


async def list_cursors(connection: Connection) -> list[Cursor]:
    """Every reader of the log, by name. An event stays in the log until all of them have passed it."""
    return [Cursor(**row) for row in await connection.fetch(LIST_CURSORS)]


async def drop_cursor(connection: Connection, name: str) -> bool:
    """Drops the cursor of a reader that was switched off for good. False while a process reads for it."""
    tag: str = await connection.execute(DROP_CURSOR, name)
    return tag != "DELETE 0"

"""How far each reader of the log has come, and who reads for it now.

One process reads for each cursor, under a lease by PostgreSQL's clock; one that comes back from the dead only repeats.
"""

from dataclasses import dataclass
from datetime import datetime

from service.database import Connection

# Who is switched on for the first time starts at the end: what was before is nobody's business any more.
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

READ_LEASE = """
select number, owner,
    coalesce(leased_until > clock_timestamp(), false) as is_leased,
    coalesce(leased_until > clock_timestamp() + make_interval(secs => $2 / 2000.0), false) as is_fresh
from cursors
where name = $1
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """Where the cursor is, None where it is somebody else's, and whether the look has written something."""

    number: int | None
    has_written: bool


async def keep_lease(connection: Connection, name: str, owner: str, lease_ms: int) -> Lease:
    """Takes it where nobody has it.

    It is ours for `lease_ms` from when it was taken, and renewed when half of that is over: most looks write nothing.
    """
    lease = await connection.fetchrow(READ_LEASE, name, lease_ms)
    if lease is None:
        await connection.execute(ADD_CURSOR, name)
    elif lease["is_leased"] and lease["owner"] != owner:
        return Lease(None, has_written=False)
    elif lease["is_fresh"]:
        return Lease(int(lease["number"]), has_written=False)
    return Lease(await connection.fetchval(TAKE_LEASE, name, owner, lease_ms), has_written=True)


async def take_lease(connection: Connection, name: str, owner: str, lease_ms: int) -> int | None:
    """Where the cursor is, if it is ours to move; None where somebody else has the lease."""
    return (await keep_lease(connection, name, owner, lease_ms)).number


MOVE_CURSOR = """
update cursors
set number = $4, moved_at = clock_timestamp()
where name = $1
and owner = $2
and number = $3
"""


async def move_cursor(connection: Connection, name: str, owner: str, previous: int, number: int) -> bool:
    """Whether the cursor moved; it does not where another owner has taken it meanwhile."""
    tag: str = await connection.execute(MOVE_CURSOR, name, owner, previous, number)
    return tag != "UPDATE 0"


RELEASE_LEASE = """
update cursors
set owner = null, leased_until = null
where name = $1
and owner = $2
"""


async def release_lease(connection: Connection, name: str, owner: str) -> None:
    """Lets another process carry on at once."""
    await connection.execute(RELEASE_LEASE, name, owner)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A reader of the log: how many numbered events it has not read, who reads for it now, when it moved last."""

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
    """Everybody who reads the log, by name; until all of them have passed an event it stays."""
    return [Cursor(**row) for row in await connection.fetch(LIST_CURSORS)]


async def drop_cursor(connection: Connection, name: str) -> bool:
    """Forgets a reader that was switched off for good. Whether that was done: not while somebody reads for it."""
    tag: str = await connection.execute(DROP_CURSOR, name)
    return tag != "DELETE 0"

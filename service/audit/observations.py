"""Figures of the ledger as a whole for the operator, each by one bounded statement: how late, how far behind."""

from collections.abc import Mapping
from dataclasses import dataclass

from service.database import Connection

COUNT_MAX = 10_000
"""Further rows are not counted: the figure shows a trouble's magnitude."""

# The sale must not wait for the observer.
BOUND_STATEMENTS = """
set local statement_timeout = 1000
"""

OBSERVE_HOLDS = """
select
    (
        select coalesce(extract(epoch from clock_timestamp() - min(expires_at)), 0)::float
        from reservations
        where state = 'HELD'
        and expires_at <= statement_timestamp()
    ) as overdue_seconds,
    (
        select count(*)
        from (select from reservations where state = 'HELD' and expires_at <= statement_timestamp() limit $1) as overdue
    ) as overdue,
    (
        select count(*)
        from (select from reservations where state = 'HELD' limit $1) as held
    ) as held,
    (
        select count(*)
        from (select from sessions where showtime > statement_timestamp() limit $1) as sessions_on_sale
    ) as on_sale
"""


@dataclass(frozen=True, slots=True)
class Holds:
    """`overdue_seconds` of the oldest overdue hold; the counts end at COUNT_MAX."""

    overdue_seconds: float
    overdue: float
    held: float
    on_sale: float


async def holds(connection: Connection) -> Holds:
    """The open holds, and those that should have ended."""
    row = await connection.fetchrow(OBSERVE_HOLDS, COUNT_MAX)
    assert row is not None
    return Holds(**row)


OBSERVE_LOG = """
select
    (
        select count(*)
        from (select from events where number is null limit $1) as unnumbered
    ) as unnumbered,
    (
        select coalesce(extract(epoch from clock_timestamp() - (
            select at
            from events
            where number is null
            order by id
            limit 1
        )), 0)::float
    ) as unnumbered_seconds,
    (
        select coalesce(max(number) - min(number) + 1, 0)
        from events
    ) as kept
"""

# The first that is not read is the oldest: numbers are in the order of the ids.
OBSERVE_READERS = """
select name,
    (select max(number) from cursors) - number as unread,
    coalesce(extract(epoch from clock_timestamp() - (
        select at
        from events
        where events.number > cursors.number
        order by events.number
        limit 1
    )), 0)::float as unread_seconds,
    (
        select count(*)
        from (
            select at
            from events
            where events.number > cursors.number
            order by events.number
            limit $2
        ) as unread_events
        where at < statement_timestamp() - make_interval(hours => $1)
    ) as stuck
from cursors
where name <> 'log'
"""


@dataclass(frozen=True, slots=True)
class Reader:
    """How many events one reader has not read, the age of the first, and how many are kept only for it."""

    unread: float
    unread_seconds: float
    stuck: float


@dataclass(frozen=True, slots=True)
class Log:
    """The events that wait for their numbers, how many are kept, and the readers by name."""

    unnumbered: float
    unnumbered_seconds: float
    kept: float
    readers: Mapping[str, Reader]


async def log(connection: Connection, keep_hours: int) -> Log:
    """How far the readers of the log are behind."""
    row = await connection.fetchrow(OBSERVE_LOG, COUNT_MAX)
    assert row is not None
    readers = {
        reader["name"]: Reader(reader["unread"], reader["unread_seconds"], reader["stuck"])
        for reader in await connection.fetch(OBSERVE_READERS, keep_hours, COUNT_MAX)
    }
    return Log(**row, readers=readers)


# PostgreSQL shows this of other roles only to members of pg_monitor.
OBSERVE_SERVER = """
select
    coalesce(extract(epoch from clock_timestamp() - least(
        min(xact_start) filter (where backend_xid is not null),
        (
            select min(prepared)
            from pg_prepared_xacts
        )
    )), 0)::float as write_seconds,
    count(*) filter (where wait_event_type = 'Lock' and datname = current_database()) as waiting,
    coalesce(extract(epoch from clock_timestamp() - min(query_start) filter (
        where wait_event_type = 'Lock' and datname = current_database()
    )), 0)::float as waiting_seconds
from pg_stat_activity
"""


@dataclass(frozen=True, slots=True)
class Server:
    """Age of the oldest transaction that has written or was prepared (two-phase commit, which outlives its session).

    How many sessions wait for locks, the longest for how long.
    """

    write_seconds: float
    waiting: float
    waiting_seconds: float


async def server(connection: Connection) -> Server:
    """Transactions and waits of the whole server."""
    row = await connection.fetchrow(OBSERVE_SERVER)
    assert row is not None
    return Server(**row)

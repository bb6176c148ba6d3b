"""Whether the log knows of the beginning of each hold that is open, of the end of each of which it has told the
beginning, and of each of the newest reservations at all: asked once, after it was read.
"""

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from service.audit import log as logaudit
from service.audit.ledger import Slice
from service.audit.log import LogAudit
from service.audit.log_gaps import SURELY_TOLD
from service.audit.verdicts import Fault
from service.database import Connection
from service.events.log import READ_LOG_NAME

KEPT_SURELY = timedelta(minutes=59)
"""So long every log is kept (`log_keep_hours`), and hardly longer a hold may last (`hold_seconds`)."""

CHECK_OPEN = """
with held as materialized (
    select id, session_id, created_at
    from reservations
    where state = 'HELD'
    limit $3
)
select
    array(
        select row(id, session_id)
        from reservations
        where id = any($1::uuid[])
        and state <> 'HELD'
    ) as ended,
    array(
        select row(id, session_id)
        from held
        where created_at > coalesce($4::timestamptz, clock_timestamp() - $6::interval)
    ) as held,
    (select count(*) from held) as held_count,
    array(
        select row(id, session_id)
        from reservations
        where id = any($5::uuid[])
        and created_at > $4
    ) as newest,
    array(
        select reservation_id
        from events
        where number > $2
        order by number
        limit $3
    ) as told,
    array(
        select reservation_id
        from events
        where number is null
        order by id
        limit $3
    ) as told_last,
    (
        select min(number)
        from events
        where number > $2
    ) as first,
    (
        select number
        from cursors
        where name = 'log'
    ) as given
"""


async def check_open(connection: Connection, log: LogAudit) -> Slice:
    """Holds that have ended without a word in the log, or have begun without one, and any of the newest reservations of
    which it has no word; not where open holds are too many.
    """
    untold = await _find_untold(connection, log) if log.knows_open() else None
    if untold is None:
        return Slice([], 0, None, unlooked=max(1, len(log.open)))
    return Slice([Fault("log", None, str(id_), untold[id_]) for id_ in untold], len(log.open), None)


async def _find_untold(connection: Connection, log: LogAudit) -> Mapping[UUID, int] | None:
    """Their sessions by their ids; None where nobody can say."""
    row = await connection.fetchrow(
        CHECK_OPEN,
        list(log.open),
        log.last,
        logaudit.OPEN_MAX,
        log.first_at + SURELY_TOLD if log.first_at else None,
        list(log.newest.ids),
        KEPT_SURELY,
    )
    assert row is not None
    # Else some of what was told after `last` has been removed, or the numbers were given once more.
    is_whole = row["first"] == log.last + 1 if row["first"] else (row["given"] or 0) == log.last
    if not is_whole or await connection.fetchval(READ_LOG_NAME) != log.log:
        return None
    if max(row["held_count"], len(row["told"]), len(row["told_last"])) >= logaudit.OPEN_MAX:
        return None
    told = {*row["told"], *row["told_last"]}
    begun = [(id_, session_id) for id_, session_id in row["held"] if id_ not in log.open]
    return {id_: session_id for id_, session_id in (*row["ended"], *begun, *row["newest"]) if id_ not in told}

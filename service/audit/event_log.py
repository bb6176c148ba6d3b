"""Whether the ledger agrees with its log: no number is missing, the log mentions each of the newest reservations, and
the last event of each reservation agrees with its current state, and with the states and versions of its seats.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain
from uuid import UUID

import asyncpg

from service.audit.slices import Limits, Slice
from service.audit.verdicts import Fault
from service.database import Connection
from service.events.log import READ_LOG_NAME

SURELY_LOGGED = timedelta(minutes=1)
"""Whatever happened this long after the log's first event has its event after that one."""

# Ids of the service grow with time.
READ_NEWEST = """
select id as reservation_id, session_id, created_at
from reservations
order by id desc
limit $1
"""

READ_EVENTS = """
select number, reservation_id, session_id, at, at < clock_timestamp() - make_interval(hours => $3) as is_old
from events
where number > $1
order by number
limit $2
"""

# A seat has the version of its last change until it changes again. The owner of an available seat is not known, so a
# newer version is wrong only while the seat has the owner of the event.
CHECK_EVENTS = """
with slice as materialized (
    select distinct on (reservation_id) number, kind, reservation_id, seats
    from events
    where number > $1
    and number <= $2
    order by reservation_id, number desc
)
(
    select number, null::bigint as seat_id, r.id as reservation_id, r.session_id
    from slice
    cross join lateral (select * from reservations where id = slice.reservation_id limit 1) as r
    where kind <> 'reservation.' || lower(r.state)
)
union all
(
    select number, s.id, slice.reservation_id, s.session_id
    from slice
    cross join lateral jsonb_to_recordset(slice.seats) as logged ("seatId" bigint, state text, version int)
    cross join lateral (select * from seats where id = logged."seatId" limit 1) as s
    left join lateral (select * from reservations where id = slice.reservation_id limit 1) as r on true
    where s.version < logged.version
    or s.version = logged.version and s.state <> logged.state
    or s.version > logged.version and s.reservation_id = r.id and kind = 'reservation.' || lower(r.state)
)
"""

READ_END = """
select
    array(select number from events where number = any($1::bigint[])) as still_there,
    array(
        (select reservation_id from events where number > $2 order by number limit $3)
        union all
        (select reservation_id from events where number is null order by id limit $3)
    ) as late,
    coalesce(
        (select min(number) from events where number > $2),
        greatest($2, (select number from cursors where name = 'log')) + 1
    ) as next,
    clock_timestamp() - interval '59 minutes' as surely_kept_since
"""


@dataclass(slots=True)
class LogCheck:
    """One pass through the log, in its order: `look` is to be repeated until the slice has no `last`.

    `suspects` has the faults of each reservation whose last event so far does not agree with the ledger; a later event
    of the reservation clears them. The log begins with `first`; after the events in `gaps` some are missing.
    """

    keep_hours: int
    limits: Limits
    log_name: str = ""
    newest: dict[UUID, asyncpg.Record] = field(default_factory=dict)
    first: asyncpg.Record | None = None
    last: asyncpg.Record | None = None
    suspects: dict[UUID, list[Fault]] = field(default_factory=dict)
    gaps: dict[int, Fault] = field(default_factory=dict)
    has_too_many: bool = False
    is_read: bool = False

    async def look(self, connection: Connection, _after: object) -> Slice:
        """Reads a slice of the log. Names faults after the last one, when all later events are known."""
        if not self.log_name:
            newest = await connection.fetch(READ_NEWEST, self.limits.newest_reservations)
            self.newest = {row["reservation_id"]: row for row in newest}
            self.log_name = await connection.fetchval(READ_LOG_NAME)
            return Slice([], 0, 0)
        last = self.last["number"] if self.last else 0
        return await (self._decide(connection, last) if self.is_read else self._read(connection, last))

    async def _read(self, connection: Connection, after: int) -> Slice:
        rows = await connection.fetch(READ_EVENTS, after, self.limits.rows, self.keep_hours)
        is_checked = rows and not self.has_too_many
        wrong = await connection.fetch(CHECK_EVENTS, after, rows[-1]["number"]) if is_checked else []
        for row in rows:
            self._go_to(row)
        for row in wrong:
            if self.first and row["number"] >= self.first["number"]:
                self.suspects.setdefault(row["reservation_id"], []).append(Fault.of("log", row))
        self.has_too_many |= len(self.suspects) > self.limits.suspects
        self.is_read = len(rows) < self.limits.rows
        return Slice([], len(rows), 0)

    def _go_to(self, row: asyncpg.Record) -> None:
        if not self._goes_on_with(row["number"]):
            # The keeper has removed the events before this one, perhaps while we read.
            self.first = row
            self.suspects.clear()
        self.last = row
        self.newest.pop(row["reservation_id"], None)
        self.suspects.pop(row["reservation_id"], None)

    def _goes_on_with(self, number: int) -> bool:
        """Notes a gap before this number. False where the keeper may have made it: it removes old events and all before
        them. Where another keeper was configured to keep less, the log begins less than SURELY_LOGGED before the gap.
        """
        if not (self.first and self.last):
            return False
        if number == self.last["number"] + 1:
            return True
        if self.last["is_old"] or self.last["at"] < self.first["at"] + SURELY_LOGGED:
            return False
        if len(self.gaps) < self.limits.rows:
            self.gaps[self.last["number"]] = Fault.of("log", self.last)
        return True

    async def _decide(self, connection: Connection, last: int) -> Slice:
        (end,) = await connection.fetch(READ_END, [*self.gaps, last], last, self.limits.late_events)
        is_same_log = await connection.fetchval(READ_LOG_NAME) == self.log_name
        goes_on = not self.last or self._goes_on_with(end["next"])
        if not (is_same_log and goes_on and self.gaps.keys() <= set(end["still_there"])):
            # Events were removed while we read, or the database was replaced.
            return Slice([], 0, None, unlooked=1)
        if self.has_too_many or len(end["late"]) >= self.limits.late_events:
            return Slice(list(self.gaps.values()), 0, None, unlooked=1)
        for id_ in end["late"]:
            self.suspects.pop(id_, None)
            self.newest.pop(id_, None)
        since = self.first["at"] + SURELY_LOGGED if self.first else end["surely_kept_since"]
        unmentioned = [Fault.of("log", row) for row in self.newest.values() if row["created_at"] > since]
        return Slice([*self.gaps.values(), *chain(*self.suspects.values()), *unmentioned], 0, None)

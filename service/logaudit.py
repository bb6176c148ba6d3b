"""Whether the ledger is as the log tells it, as far back as the log is kept. The log is read once, in its order."""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

from service.audit import FAULTS_MAX, OPEN_MAX, SLICE_MAX, Slice
from service.database import Connection
from service.verdicts import Fault

SURELY_TOLD = timedelta(minutes=1)
"""So long after the first event that is kept, nothing can have happened whose event was before that one."""

CHECK_EVENTS = """
with slice as materialized (
    select kind, reservation_id, seats
    from events
    where number > $1
    and number <= $2
)
(
    select null::bigint as seat_id, r.id as reservation_id
    from slice
    cross join lateral (select * from reservations where id = slice.reservation_id limit 1) as r
    where kind <> 'reservation.held'
    and kind <> 'reservation.' || lower(r.state)
    limit $3
)
union all
(
    select s.id, slice.reservation_id
    from slice
    cross join lateral jsonb_to_recordset(slice.seats) as told ("seatId" bigint, state text, version int)
    cross join lateral (select * from seats where id = told."seatId" limit 1) as s
    where s.version < told.version
    or s.version = told.version and s.state <> told.state
    limit $3
)
"""

READ_EVENTS = """
select number, kind = 'reservation.held' as is_hold, reservation_id, at
from events
where number > $1
order by number
limit $2
"""

CHECK_OPEN = """
select
    array(
        select id
        from reservations
        where id = any($1::uuid[])
        and state <> 'HELD'
    ) as ended,
    array(
        select id
        from (
            select id, created_at
            from reservations
            where state = 'HELD'
            limit $3
        ) as held
        where created_at > $4
    ) as held,
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
    ) as told_last
"""


@dataclass(slots=True)
class LogAudit:
    """One pass through the log, up to `last`. `open` has the holds whose end was not told yet; not all of them where
    somebody else, who knew too many to write them down, has read the log before.
    """

    last: int = 0
    first_at: datetime | None = None
    open: set[UUID] = field(default_factory=set)
    has_all_open: bool = True

    def known(self) -> dict[str, Any]:
        """For JSON, so that `create` makes one that goes on: 22 bytes for each open hold, unless they are too many."""
        has_all = self.has_all_open and len(self.open) < OPEN_MAX
        packed = b64encode(b"".join(id_.bytes for id_ in self.open)).decode() if has_all else None
        return {"last": self.last, "first_at": self.first_at, "open": packed}

    @classmethod
    def create(cls, known: Mapping[str, Any]) -> Self:
        """One that goes on where `known` was said, after it was JSON."""
        packed = b64decode(known["open"] or "")
        ids = {UUID(bytes=packed[start : start + 16]) for start in range(0, len(packed), 16)}
        first_at = datetime.fromisoformat(known["first_at"]) if known["first_at"] else None
        return cls(known["last"], first_at, ids, has_all_open=known["open"] is not None)

    async def check_slice(self, connection: Connection, after: int) -> Slice:
        """What the events of the next slice tell that is not so; `last` of the slice is None after the last one."""
        rows = await connection.fetch(READ_EVENTS, after, SLICE_MAX)
        last = rows[-1]["number"] if rows else after
        faults = await connection.fetch(CHECK_EVENTS, after, last, FAULTS_MAX)
        if self.first_at is None or (rows and rows[0]["number"] != after + 1):
            # The log begins here: what was before has been removed, perhaps while we read.
            self.first_at = rows[0]["at"] if rows else None
            self.open.clear()
            self.has_all_open = True
        for row in rows:
            if row["reservation_id"] is not None:
                change = self.open.add if row["is_hold"] else self.open.discard
                change(row["reservation_id"])
        self.last = last
        found = [Fault("log", row["seat_id"], str(row["reservation_id"])) for row in faults]
        return Slice(found, len(rows), last if len(rows) == SLICE_MAX else None)

    async def check_open(self, connection: Connection) -> Slice:
        """Holds that have ended without a word in the log, or have begun without one."""
        if self.first_at is None or not self.has_all_open or len(self.open) >= OPEN_MAX:
            return Slice([], 0, None)
        since = self.first_at + SURELY_TOLD
        row = await connection.fetchrow(CHECK_OPEN, list(self.open), self.last, OPEN_MAX, since)
        assert row is not None
        if max(len(row["held"]), len(row["told"]), len(row["told_last"])) >= OPEN_MAX:
            return Slice([], 0, None)
        told = {*row["told"], *row["told_last"]}
        untold = (set(row["ended"]) - told) | (set(row["held"]) - self.open - told)
        return Slice([Fault("log", None, str(id_)) for id_ in untold], len(self.open), None)

"""Whether the ledger is as the log tells it, as far back as the log is kept. The log is read once, in its order.

What is told is compared, and no number may be missing; `service.audit.log_untold` asks for what is not told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from service.audit.ledger import FAULTS_MAX, Slice
from service.audit.log_gaps import Stretch
from service.audit.log_newest import Newest, pack, unpack
from service.audit.verdicts import Fault
from service.database import Connection
from service.events.log import READ_LOG_NAME

OPEN_MAX = 50_000
"""With more holds at once than so many the log is not asked whether it knows of each, and the verdict says so."""
AHEAD_MAX = 10_000
"""So many events are read at once where only their reservations are of interest."""

# A seat that somebody has still has the version with which that one got it. What an available one was before nobody can
# say without the whole log.
CHECK_EVENTS = """
with slice as materialized (
    select distinct on (reservation_id) kind, reservation_id, seats
    from events
    where number > $1
    and number <= $2
    order by reservation_id, number desc
)
(
    select null::bigint as seat_id, r.id as reservation_id, r.session_id
    from slice
    cross join lateral (select * from reservations where id = slice.reservation_id limit 1) as r
    where kind <> 'reservation.held'
    and kind <> 'reservation.' || lower(r.state)
    limit $3
)
union all
(
    select s.id, slice.reservation_id, s.session_id
    from slice
    cross join lateral jsonb_to_recordset(slice.seats) as told ("seatId" bigint, state text, version int)
    cross join lateral (select * from seats where id = told."seatId" limit 1) as s
    left join lateral (select * from reservations where id = slice.reservation_id limit 1) as r on true
    where s.version < told.version
    or s.version = told.version and s.state <> told.state
    or s.version > told.version and s.reservation_id = r.id and kind = 'reservation.' || lower(r.state)
    limit $3
)
"""

READ_AHEAD = """
with ahead as materialized (
    select number, reservation_id
    from events
    where number > $1
    order by number
    limit $2
),
unnumbered as materialized (
    select reservation_id
    from events
    where number is null
    order by id
    limit $2
)
select min(number) as first, max(number) as last, count(*) as read, (
    select count(*)
    from unnumbered
) as read_unnumbered, (
    select number
    from cursors
    where name = 'log'
) as given, array(
    select reservation_id
    from ahead
    where reservation_id = any($3::uuid[])
    union
    select reservation_id
    from unnumbered
    where reservation_id = any($3::uuid[])
) as told
from ahead
"""


@dataclass(slots=True)
class LogAudit:
    """One pass through the log of that name, up to `last`. `open` has the holds whose end was not told yet; not all of
    them where somebody else, who knew too many to write them down, has read the log before. `newest` are those of which
    it has told nothing so far.

    `suspected` is what the slice `stretch` tells otherwise than it is; the log is read up to `ahead` for later events.
    `gaps` are the numbers of the events after which some were missing at the last look.
    """

    last: int = 0
    first_at: datetime | None = None
    open: set[UUID] = field(default_factory=set)
    has_all_open: bool = True
    log: str = ""
    newest: Newest = field(default_factory=Newest)
    suspected: list[Fault] = field(default_factory=list)
    stretch: Stretch = field(default_factory=Stretch)
    gaps: frozenset[int] = frozenset()
    ahead: int = 0

    def known(self) -> dict[str, Any]:
        """For JSON, so that `create` makes one that goes on; without the open holds where they are too many."""
        return {
            "last": self.last,
            "first_at": self.first_at,
            "open": pack(self.open) if self.knows_open() else None,
            "log": self.log,
            "newest": pack(self.newest.ids),
        }

    @classmethod
    def create(cls, known: Mapping[str, Any]) -> Self:
        """One that goes on where `known` was said, after it was JSON."""
        first_at = datetime.fromisoformat(known["first_at"]) if known["first_at"] else None
        return cls(
            known["last"],
            first_at,
            set(unpack(known["open"] or "")),
            has_all_open=known["open"] is not None,
            # The release before does not say which log it was: what it knows may be of another one.
            log=known.get("log", ""),
            newest=Newest.create(known.get("newest", "")),
        )

    def knows_open(self) -> bool:
        """Whether `open` has all of them, and no more than can be written down or asked for."""
        return self.has_all_open and len(self.open) < OPEN_MAX

    async def check_slice(self, connection: Connection, after: int, keep_hours: int) -> Slice:
        """What the events of the next slice tell that is not so, and where some are missing that are not so old that
        they were removed; `last` of the slice is None after the last one.

        Of a reservation only the last event counts. Where something looks wrong the rest of the log is therefore read
        before it is a fault, AHEAD_MAX events with each call; the slice is looked at until then.
        """
        name = await connection.fetchval(READ_LOG_NAME)
        if name != self.log:
            self._begin(name)
            if after:
                # Its numbers are others.
                return Slice([], 0, 0)
        if self.suspected:
            return await self._read_ahead(connection, after)
        self.stretch = await Stretch.read(connection, after, keep_hours)
        gaps = frozenset(row["number"] for row in self.stretch.walk(self.first_at).gaps)
        if not gaps <= self.gaps:
            # Keepers who remove the first ones at once do so in any order: the next look sees the beginning gone too.
            self.gaps = gaps
            return Slice([], 0, after)
        if self.stretch.is_emptied:
            # Nothing is known of what it told.
            self._begin(name)
        self.ahead = self.stretch.last()
        suspected = await connection.fetch(CHECK_EVENTS, self.stretch.after, self.ahead, FAULTS_MAX)
        self.suspected = [
            Fault("log", row["seat_id"], str(row["reservation_id"]), row["session_id"]) for row in suspected
        ]
        return Slice([], 0, after) if self.suspected else self._pass_over([])

    def _begin(self, name: str) -> None:
        self.last, self.first_at, self.open, self.has_all_open, self.log = 0, None, set(), True, name
        self.suspected, self.gaps = [], frozenset()

    async def _read_ahead(self, connection: Connection, after: int) -> Slice:
        ids = [UUID(fault.reservation_id) for fault in self.suspected]
        row = await connection.fetchrow(READ_AHEAD, self.ahead, AHEAD_MAX, ids)
        assert row is not None
        told = {str(id_) for id_ in row["told"]}
        self.suspected = [fault for fault in self.suspected if fault.reservation_id not in told]
        is_removed = (row["given"] or 0) > self.ahead and row["first"] != self.ahead + 1
        if is_removed or row["read_unnumbered"] == AHEAD_MAX:
            # What was told meanwhile has been removed, or waits for its number among more than can be read.
            unlooked, self.suspected = len(self.suspected), []
            return replace(self._pass_over([]), unlooked=unlooked)
        self.ahead = row["last"] or self.ahead
        if self.suspected and row["read"] == AHEAD_MAX:
            return Slice([], 0, after)
        faults, self.suspected = self.suspected, []
        return self._pass_over(faults)

    def _pass_over(self, faults: Sequence[Fault]) -> Slice:
        stretch, self.stretch = self.stretch, Stretch()
        rows, walk = stretch.rows, stretch.walk(self.first_at)
        begin, self.last = walk.begin, walk.end
        if begin is not None:
            self.first_at = rows[begin]["at"]
            self.open.clear()
            self.has_all_open = True
        for row in rows[begin or 0 :]:
            if row["reservation_id"] is not None:
                self.newest.tell(row["reservation_id"])
                change = self.open.add if row["is_hold"] else self.open.discard
                change(row["reservation_id"])
        missing = [Fault("log", None, _text(row["reservation_id"]), row["session_id"]) for row in walk.gaps]
        return Slice([*faults, *missing], len(rows), self.last if stretch.is_full() else None)


def _text(id_: UUID | None) -> str | None:
    return None if id_ is None else str(id_)

"""Whether each hold that nobody paid for has ended: looked at again and again for as long as a round takes."""

from dataclasses import dataclass, field
from uuid import UUID

from service.audit.ledger import FAULTS_MAX, Slice
from service.audit.verdicts import Fault
from service.database import Connection

OVERDUE_SECONDS_MAX = 60
"""A hold must have ended so long after its deadline at the latest: the sweep comes round every few seconds."""
STUCK_SECONDS = 10.0
"""Who is seen to be overdue for so long is nobody's work. After an outage the sweep is at work on what is left of it,
the oldest first, and ends in this time far more than are looked at.
"""
LOOK_SECONDS = 1.0

CHECK_OVERDUE = """
select id, session_id
from reservations
where state = 'HELD'
and expires_at < statement_timestamp() - make_interval(secs => $1)
order by expires_at
limit $2
"""


@dataclass(slots=True)
class HoldAudit:
    """`seen` has when each of the oldest holds that are overdue was first seen so, `told` those that are a fault.

    Whoever has noted what a look found says so with `note`: until then the next look finds it once more.

    Times are by the clock of `look`. A hold that nobody ends is found OVERDUE_SECONDS_MAX after its deadline and at
    most STUCK_SECONDS and a look later, while a round goes on.
    """

    seen: dict[UUID, float] = field(default_factory=dict)
    told: set[UUID] = field(default_factory=set)
    looked_at: float | None = None

    def is_due(self, now: float) -> bool:
        """Whether it is time to look again."""
        return self.looked_at is None or now >= self.looked_at + LOOK_SECONDS

    def waits(self, since: float) -> bool:
        """Whether a hold that was overdue at `since` is still to be judged: true for at most STUCK_SECONDS."""
        return any(first <= since for id_, first in self.seen.items() if id_ not in self.told)

    async def look(self, connection: Connection, now: float) -> Slice:
        """The holds that have come to be a fault; `checked` counts those that are newly seen to be overdue."""
        rows = await connection.fetch(CHECK_OVERDUE, OVERDUE_SECONDS_MAX, FAULTS_MAX)
        overdue = {row["id"]: row["session_id"] for row in rows}
        if self.looked_at is not None and now > self.looked_at + STUCK_SECONDS:
            # Perhaps nobody could do anything meanwhile: the sweep gets its time anew.
            self.seen.clear()
        checked = len(overdue.keys() - self.seen.keys() - self.told)
        self.seen = {id_: self.seen.get(id_, now) for id_ in overdue}
        self.looked_at = now
        stuck = [id_ for id_, first in self.seen.items() if id_ not in self.told and now >= first + STUCK_SECONDS]
        return Slice([Fault("overdue", None, str(id_), overdue[id_]) for id_ in stuck], checked, None)

    def note(self, looked: Slice) -> None:
        """What it found is told, and is no fault of a later look."""
        self.told |= {UUID(fault.reservation_id) for fault in looked.faults}

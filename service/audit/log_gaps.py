"""A slice of the log, and which events are missing from it that the keeper can't have removed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self, TypeGuard

import asyncpg

from service.audit.ledger import SLICE_MAX
from service.database import Connection

SURELY_TOLD = timedelta(minutes=1)
"""So long after the first event that is kept, nothing can have happened whose event was before that one."""

# From the last one that was read: only while it is there can one after it be missing.
READ_EVENTS = """
select number, kind = 'reservation.held' as is_hold, reservation_id, session_id, at,
    at < clock_timestamp() - make_interval(hours => $3) as is_old
from events
where number >= $1
order by number
limit $2
"""

# In one look: else what is numbered between two of them would look removed.
READ_NEXT = """
select (
    select min(number)
    from events
    where number > $1
) as first, (
    select number
    from cursors
    where name = 'log'
) as given, exists (
    select
    from events
    where number = $1
) as is_there
"""


@dataclass(frozen=True, slots=True)
class Walk:
    """The events after which some are missing, and the place of the row with which the log begins where what was before
    that has been removed, perhaps while we read. `end` is the last number of the slice, or of what is missing after it.
    """

    gaps: Sequence[asyncpg.Record]
    begin: int | None
    end: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """The events after a number, as they were read; `before` is the one of that number, where it is still there.

    `cut_at` is the last number that was given, where the log ends before it. Where nothing was left, `after` is that.
    """

    after: int = 0
    rows: Sequence[asyncpg.Record] = ()
    before: asyncpg.Record | None = None
    cut_at: int | None = None
    is_emptied: bool = False

    @classmethod
    async def read(cls, connection: Connection, after: int, keep_hours: int) -> Self:
        """The next one."""
        rows = await connection.fetch(READ_EVENTS, after, SLICE_MAX + 1, keep_hours)
        before = rows.pop(0) if rows and rows[0]["number"] == after else None
        del rows[SLICE_MAX:]
        if len(rows) == SLICE_MAX:
            return cls(after, rows, before)
        last = rows[-1]["number"] if rows else after
        row = await connection.fetchrow(READ_NEXT, last)
        assert row is not None
        if row["first"] is not None or (row["given"] or 0) <= last:
            return cls(after, rows, before)
        if row["is_there"]:
            return cls(after, rows, before, cut_at=row["given"])
        # The end has been removed since it was read, as the keeper does with all before it.
        return cls(after, rows, before) if rows else cls(row["given"], is_emptied=True)

    def is_full(self) -> bool:
        """Whether another one may follow."""
        return len(self.rows) == SLICE_MAX

    def last(self) -> int:
        """The number after which the next one begins."""
        return self.rows[-1]["number"] if self.rows else self.after

    def walk(self, first_at: datetime | None) -> Walk:
        """Through a log that begins at that moment, as far as is known.

        The keeper removes only what is old, and what was before it. The one of the release before goes by the age of
        each, and another one may have been told to keep less: then the log has begun less than SURELY_TOLD before.
        """
        gaps: list[asyncpg.Record] = []
        begin: int | None = None
        last, before = self.after, self.before
        for place, row in enumerate(self.rows):
            if first_at is None or row["number"] != last + 1:
                if _is_kept(before, first_at):
                    gaps.append(before)
                else:
                    first_at, begin = row["at"], place
            last, before = row["number"], row
        if self.cut_at and _is_kept(before, first_at):
            gaps.append(before)
            last = self.cut_at
        return Walk(gaps, begin, last)


def _is_kept(row: asyncpg.Record | None, first_at: datetime | None) -> TypeGuard[asyncpg.Record]:
    """Whether what follows an event is kept for sure."""
    return row is not None and first_at is not None and not row["is_old"] and row["at"] >= first_at + SURELY_TOLD

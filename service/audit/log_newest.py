"""The newest reservations that a round of the self-audit has seen, for as long as the log has not mentioned them."""

from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from service.audit import ledger as audit
from service.database import Connection

NEWEST_MAX = 20_000
"""More are not written down with each step of a round. Older ones were asked for by earlier rounds, where no more than
so many were made from one round to the next.
"""

# Ids of the service grow with time, so the last ones are the newest. Of what was before its first event the log has no
# word, as a rule.
READ_SLICE = """
select id
from (
    select id, created_at
    from reservations
    where id > $1
    order by id
    limit $2
) as slice
where created_at > (
    select at
    from events
    order by number
    limit 1
)
order by id
"""


@dataclass(slots=True)
class Newest:
    """Noted in the order of their ids, before the log is read: whoever sees a reservation can read its event too."""

    ids: dict[UUID, None] = field(default_factory=dict)

    @classmethod
    def create(cls, packed: str) -> Self:
        """Those that `packed` was made of."""
        return cls(dict.fromkeys(unpack(packed)))

    async def note_slice(self, connection: Connection, after: UUID) -> None:
        """Adds those of the next slice of reservations."""
        for row in await connection.fetch(READ_SLICE, after, audit.SLICE_MAX):
            self.ids[row["id"]] = None
        while len(self.ids) > NEWEST_MAX:
            del self.ids[next(iter(self.ids))]

    def tell(self, reservation_id: UUID) -> None:
        """The log mentions it."""
        self.ids.pop(reservation_id, None)


def pack(ids: Iterable[UUID]) -> str:
    """For JSON: 22 bytes for each."""
    return b64encode(b"".join(id_.bytes for id_ in ids)).decode()


def unpack(packed: str) -> list[UUID]:
    """What `pack` was given."""
    together = b64decode(packed)
    return [UUID(bytes=together[start : start + 16]) for start in range(0, len(together), 16)]

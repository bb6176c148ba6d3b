"""Ends overdue holds in batches, for the house: what somebody else is at work on is passed over, never waited for.

See `service.ledger.booking` for the lock order.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from service.database import Connection
from service.errors import Refusal
from service.ledger.settling import Settled, SettleRequest, settle_locked
from service.reservation import Reservation, State

NEVER = datetime.max.replace(tzinfo=UTC)

# Never waits, so the order of the locks does not matter; the order of the deadlines is fair to whoever waits longest.
LOCK_OVERDUE = """
select id, expires_at
from reservations
where state = 'HELD'
and expires_at <= statement_timestamp()
and id <> all($2::uuid[])
order by expires_at
limit $1
for no key update skip locked
"""

# One that is locked is being paid, or ended by somebody else.
LOCK_DUE = """
select id
from reservations
where id = any($1::uuid[])
and state = 'HELD'
and expires_at <= statement_timestamp()
order by id
for no key update skip locked
"""

# How many there are before the last one that was locked: those among them that were not, somebody else is at work on.
# Not those that have come to be overdue since LOCK_OVERDUE looked, which the beginning leaves out.
COUNT_OVERDUE = """
select count(*)
from (
    select
    from reservations
    where state = 'HELD'
    and expires_at < least($1, transaction_timestamp())
    and id <> all($2::uuid[])
    order by expires_at
    limit $3
) as overdue
"""

COUNT_DUE = """
select count(*)
from reservations
where id = any($1::uuid[])
and state = 'HELD'
and expires_at <= transaction_timestamp()
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """The holds that have expired in a batch, and how many more would have: somebody else is at work on those."""

    reservations: tuple[Reservation, ...]
    skipped: int


async def lock_overdue(connection: Connection, batch_max: int, set_aside: Sequence[UUID] = ()) -> dict[UUID, datetime]:
    """Up to `batch_max` overdue holds that are not set aside and that nobody else is at work on, the oldest first, with
    their deadlines.
    """
    return {row["id"]: row["expires_at"] for row in await connection.fetch(LOCK_OVERDUE, batch_max, set_aside)}


async def settle_overdue(connection: Connection, batch_max: int, set_aside: Sequence[UUID] = ()) -> Ended:
    """Ends those that `lock_overdue` gets."""
    locked = await lock_overdue(connection, batch_max, set_aside)
    # Of several with one deadline a full batch may have left some for the next one.
    last = max(locked.values()) if len(locked) == batch_max else NEVER
    overdue = await connection.fetchval(COUNT_OVERDUE, last, set_aside, 2 * batch_max)
    skipped = overdue - sum(deadline < last for deadline in locked.values())
    return await _expire_locked(connection, locked.keys(), skipped)


async def settle_due(connection: Connection, reservation_ids: Iterable[UUID]) -> Ended:
    """Ends those of the holds that are overdue and that nobody else is at work on."""
    asked = list(reservation_ids)
    locked = {row["id"] for row in await connection.fetch(LOCK_DUE, asked)}
    # Most often the rest was paid for; that some of it is only locked is rare.
    due = await connection.fetchval(COUNT_DUE, asked) if len(locked) < len(asked) else len(locked)
    return await _expire_locked(connection, locked, due - len(locked))


async def _expire_locked(connection: Connection, locked: AbstractSet[UUID], skipped: int) -> Ended:
    answers: list[Settled | Refusal] = []
    if locked:
        requests = [SettleRequest(id_, None, State.EXPIRED) for id_ in locked]
        answers = await settle_locked(connection, requests, locked)
    ended = tuple(answer.reservation for answer in answers if isinstance(answer, Settled))
    # Between the two statements some may have been ended by somebody else.
    return Ended(ended, max(0, skipped))

"""Ends overdue holds in batches, for the house. Rows that another transaction has locked are skipped.

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

IS_ANY_OVERDUE = """
select id
from reservations
where state = 'HELD'
and expires_at <= statement_timestamp()
and id <> all($1::uuid[])
order by expires_at
limit 1
"""

# It never waits, so the order of the locks does not matter. The oldest deadline comes first.
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

# A locked hold is being paid, released or expired by another transaction.
LOCK_DUE = """
select id
from reservations
where id = any($1::uuid[])
and state = 'HELD'
and expires_at <= statement_timestamp()
order by id
for no key update skip locked
"""

# The overdue holds up to the last one that was locked: those among them that LOCK_OVERDUE skipped are locked by another
# transaction. Holds that have become overdue since then are left out by the time of the transaction's beginning.
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
    """The holds that expired in a batch, and the number of overdue holds that were skipped because they are locked."""

    reservations: tuple[Reservation, ...]
    skipped: int


async def is_any_overdue(connection: Connection, set_aside: Sequence[UUID] = ()) -> bool:
    """Whether there is a hold to end that is not set aside, locked or not."""
    return await connection.fetchval(IS_ANY_OVERDUE, set_aside) is not None


async def lock_overdue(connection: Connection, batch_max: int, set_aside: Sequence[UUID] = ()) -> dict[UUID, datetime]:
    """Locks up to `batch_max` overdue holds that are neither set aside nor locked, the oldest first. Returns their
    deadlines by id.
    """
    return {row["id"]: row["expires_at"] for row in await connection.fetch(LOCK_OVERDUE, batch_max, set_aside)}


async def settle_overdue(connection: Connection, batch_max: int, set_aside: Sequence[UUID] = ()) -> Ended:
    """Ends the holds that `lock_overdue` locks."""
    locked = await lock_overdue(connection, batch_max, set_aside)
    # A full batch may have left holds with the same deadline to the next one.
    last = max(locked.values()) if len(locked) == batch_max else NEVER
    overdue = await connection.fetchval(COUNT_OVERDUE, last, set_aside, 2 * batch_max)
    skipped = overdue - sum(deadline < last for deadline in locked.values())
    return await _expire_locked(connection, locked.keys(), skipped)


async def settle_due(connection: Connection, reservation_ids: Iterable[UUID]) -> Ended:
    """Ends those of the holds that are overdue and not locked by another transaction."""
    asked = list(reservation_ids)
    locked = {row["id"] for row in await connection.fetch(LOCK_DUE, asked)}
    # Usually the other holds were paid, and none of them is locked.
    due = await connection.fetchval(COUNT_DUE, asked) if len(locked) < len(asked) else len(locked)
    return await _expire_locked(connection, locked, due - len(locked))


async def _expire_locked(connection: Connection, locked: AbstractSet[UUID], skipped: int) -> Ended:
    answers: list[Settled | Refusal] = []
    if locked:
        requests = [SettleRequest(id_, None, State.EXPIRED) for id_ in locked]
        answers = await settle_locked(connection, requests, locked)
    ended = tuple(answer.reservation for answer in answers if isinstance(answer, Settled))
    # Other transactions may have ended some between the two statements.
    return Ended(ended, max(0, skipped))

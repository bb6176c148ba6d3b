"""The verdict of the self-audit: the last finished round, with the violations that the current one has added; and the
lease by which one replica audits at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

import asyncpg
import orjson

from service.database import Connection

LEASE_SECONDS = 30
"""When a replica has been silent for this long, another one begins a round."""
EXAMPLES_MAX = 20


@dataclass(frozen=True, slots=True)
class Fault:
    """A broken rule: the name of the check, and the ids as far as they are known."""

    check: str
    seat_id: int | None = None
    reservation_id: str | None = None
    session_id: int | None = None

    @classmethod
    def of(cls, check: str, row: asyncpg.Record) -> Self:
        """The fault of a row, which need not have a seat."""
        id_ = row["reservation_id"]
        return cls(check, row.get("seat_id"), str(id_) if id_ else None, row["session_id"])


@dataclass(frozen=True, slots=True)
class Found:
    """How many faults a check has found, and the first of them."""

    count: int
    examples: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Tally:
    """Of a round: how many rows were checked, the violations by check, and how many rows could not be checked."""

    checked: Mapping[str, int]
    violations: Mapping[str, Found]
    unlooked: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Without times before the first finished round."""

    began_at: datetime | None
    finished_at: datetime | None
    tally: Tally


UNKNOWN = Verdict(None, None, Tally({}, {}, {}))


def merged(found: Mapping[str, Found], last: Mapping[str, Found]) -> dict[str, Found]:
    """The violations that a round has found, and those before it, which stay until a whole round no longer finds them:
    the larger count of the two, and the newest examples first.
    """
    both = dict(last)
    for check, new in found.items():
        old = last.get(check, Found(0, ()))
        examples = [*new.examples, *(example for example in old.examples if example not in new.examples)]
        both[check] = Found(max(new.count, old.count), examples[:EXAMPLES_MAX])
    return both


READ_VERDICT = """
select began_at, finished_at, checked::text as checked, violations::text as violations, unlooked::text as unlooked
from audits
"""


async def read_verdict(connection: Connection) -> Verdict:
    """As it is committed now."""
    row = await connection.fetchrow(READ_VERDICT)
    if row is None:
        return UNKNOWN
    checked, violations, unlooked = (orjson.loads(row[part] or "{}") for part in ("checked", "violations", "unlooked"))
    found = {check: Found(**found) for check, found in violations.items()}
    return Verdict(row["began_at"], row["finished_at"], Tally(checked, found, unlooked))


IS_DUE = """
select coalesce(finished_at <= clock_timestamp() - make_interval(secs => $1), true)
    and coalesce(leased_until <= clock_timestamp(), true)
from audits
"""

TAKE_TURN = """
insert into audits (owner, leased_until)
values ($1, clock_timestamp() + make_interval(secs => $3))
on conflict (only_row) do update
set owner = excluded.owner, leased_until = excluded.leased_until
where coalesce(audits.finished_at <= clock_timestamp() - make_interval(secs => $2), true)
and coalesce(audits.leased_until <= clock_timestamp(), true)
returning clock_timestamp()
"""


async def take_turn(connection: Connection, owner: str, interval_seconds: float) -> datetime | None:
    """When our round begins; None where none is due, or another replica has the turn. Then nothing is written."""
    began_at: datetime | None = None
    if await connection.fetchval(IS_DUE, interval_seconds) is not False:
        began_at = await connection.fetchval(TAKE_TURN, owner, interval_seconds, LEASE_SECONDS)
    return began_at


KEEP_TURN = """
update audits
set leased_until = clock_timestamp() + make_interval(secs => $2), violations = $3
where owner = $1
returning true
"""


async def keep_turn(
    connection: Connection, owner: str, violations: Mapping[str, Found], lease_seconds: float = LEASE_SECONDS
) -> bool:
    """Whether the turn is still ours. Then it is for another `lease_seconds`, and all replicas show the violations."""
    return bool(await connection.fetchval(KEEP_TURN, owner, lease_seconds, _json(violations)))


WRITE_VERDICT = """
update audits
set owner = null, leased_until = null,
    began_at = $2, finished_at = clock_timestamp(), checked = $3, violations = $4, unlooked = $5
where owner = $1
"""


async def write_verdict(connection: Connection, owner: str, began_at: datetime, tally: Tally) -> None:
    """Ends our turn, if it is still ours."""
    await connection.execute(WRITE_VERDICT, owner, began_at, *map(_json, asdict(tally).values()))


def _json(value: Mapping[str, Any]) -> str:
    return orjson.dumps(value).decode()

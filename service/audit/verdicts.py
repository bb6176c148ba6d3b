"""The verdict of the self-audit: the last finished round, with the violations that the current one has added; and the
lease by which one replica audits at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

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


@dataclass(slots=True)
class Found:
    """How many faults a check has found, and the first of them."""

    count: int = 0
    examples: list[Fault] = field(default_factory=list)


@dataclass(slots=True)
class Verdict:
    """The results of a round so far, in rows by kind and violations by check. Without `finished_at` it is not over."""

    began_at: datetime | None = None
    finished_at: datetime | None = None
    checked: dict[str, int] = field(default_factory=dict)
    violations: dict[str, Found] = field(default_factory=dict)
    unlooked: dict[str, int] = field(default_factory=dict)


READ_VERDICT = """
select began_at, finished_at, checked::text as checked, violations::text as violations, unlooked::text as unlooked
from audits
"""


async def read_verdict(connection: Connection) -> Verdict:
    """As it is committed now."""
    row = await connection.fetchrow(READ_VERDICT)
    if row is None:
        return Verdict()
    checked, violations, unlooked = (orjson.loads(row[part] or "{}") for part in ("checked", "violations", "unlooked"))
    found = {
        check: Found(broken["count"], [Fault(**example) for example in broken["examples"]])
        for check, broken in violations.items()
    }
    return Verdict(row["began_at"], row["finished_at"], checked, found, unlooked)


CREATE_ROW = """
insert into audits default values on conflict do nothing
"""

TAKE_TURN = """
update audits
set owner = $1, leased_until = clock_timestamp() + make_interval(secs => $3)
where coalesce(finished_at <= clock_timestamp() - make_interval(secs => $2), true)
and coalesce(leased_until <= clock_timestamp(), true)
returning clock_timestamp()
"""


async def take_turn(connection: Connection, owner: str, interval_seconds: float) -> datetime | None:
    """When our round begins; None where none is due, or another replica has the turn. Then nothing is written."""
    await connection.execute(CREATE_ROW)
    began_at: datetime | None = await connection.fetchval(TAKE_TURN, owner, interval_seconds, LEASE_SECONDS)
    return began_at


KEEP_TURN = """
update audits
set leased_until = clock_timestamp() + make_interval(secs => $2), violations = coalesce(violations, '{}') || $3
where owner = $1
returning true
"""


async def keep_turn(
    connection: Connection, owner: str, violations: Mapping[str, Found], lease_seconds: float = LEASE_SECONDS
) -> bool:
    """Whether the turn is still ours. Then the violations are shown, and those before them until the round is over."""
    return bool(await connection.fetchval(KEEP_TURN, owner, lease_seconds, _json(violations)))


WRITE_VERDICT = """
update audits
set owner = null, leased_until = null,
    began_at = $2, finished_at = clock_timestamp(), checked = $3, violations = $4, unlooked = $5
where owner = $1
"""


async def write_verdict(connection: Connection, owner: str, verdict: Verdict) -> None:
    """Ends our turn, if it is still ours."""
    found = map(_json, (verdict.checked, verdict.violations, verdict.unlooked))
    await connection.execute(WRITE_VERDICT, owner, verdict.began_at, *found)


def _json(value: object) -> str:
    return orjson.dumps(value).decode()

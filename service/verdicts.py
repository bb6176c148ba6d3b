"""What the last finished round of the self-audit has found, and whose turn the next one is. One replica audits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from service.database import Connection

LEASE_SECONDS = 30
"""Another replica begins a round anew when whoever was at it is silent for so long."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What breaks a rule: by the name of the check, with the ids of what is at fault."""

    check: str
    seat_id: int | None = None
    reservation_id: str | None = None
    session_id: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """How many faults a check has found, and the first of them."""

    count: int
    examples: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A finished round: how many rows each check has looked at, and what it found where it found something."""

    began_at: datetime
    finished_at: datetime
    checked: Mapping[str, int]
    violations: Mapping[str, Found]


READ_VERDICT = """
select began_at, finished_at, checked::text as checked, violations::text as violations
from audits
where finished_at is not null
"""


async def read_verdict(connection: Connection) -> Verdict | None:
    """The last one; None before the first round is finished."""
    row = await connection.fetchrow(READ_VERDICT)
    if row is None:
        return None
    violations = {check: Found(**found) for check, found in orjson.loads(row["violations"]).items()}
    return Verdict(row["began_at"], row["finished_at"], orjson.loads(row["checked"]), violations)


ADD_ROW = """
insert into audits (only_row)
values (true)
on conflict do nothing
"""

IS_DUE = """
select coalesce(finished_at <= clock_timestamp() - make_interval(secs => $1), true)
    and coalesce(leased_until <= clock_timestamp(), true)
from audits
"""

TAKE_TURN = """
update audits
set owner = $1, leased_until = clock_timestamp() + make_interval(secs => $3)
where coalesce(finished_at <= clock_timestamp() - make_interval(secs => $2), true)
and coalesce(leased_until <= clock_timestamp(), true)
returning clock_timestamp() as now
"""


async def take_turn(connection: Connection, owner: str, interval_seconds: float) -> datetime | None:
    """When the round begins, where one is due and nobody is at it; else None. A look writes nothing."""
    is_due = await connection.fetchval(IS_DUE, interval_seconds)
    if is_due is None:
        await connection.execute(ADD_ROW)
    elif not is_due:
        return None
    now: datetime | None = await connection.fetchval(TAKE_TURN, owner, interval_seconds, LEASE_SECONDS)
    return now


KEEP_TURN = """
update audits
set leased_until = clock_timestamp() + make_interval(secs => $2)
where owner = $1
returning 1
"""


async def keep_turn(connection: Connection, owner: str) -> bool:
    """Whether it is still ours; then for another LEASE_SECONDS."""
    return await connection.fetchval(KEEP_TURN, owner, LEASE_SECONDS) is not None


GIVE_UP_TURN = """
update audits
set owner = null, leased_until = null
where owner = $1
"""


async def give_up_turn(connection: Connection, owner: str) -> None:
    """Lets another replica begin a round at once."""
    await connection.execute(GIVE_UP_TURN, owner)


WRITE_VERDICT = """
update audits
set owner = null, leased_until = null, began_at = $2, finished_at = clock_timestamp(), checked = $3, violations = $4
where owner = $1
"""


async def write_verdict(
    connection: Connection,
    owner: str,
    began_at: datetime,
    checked: Mapping[str, int],
    violations: Mapping[str, Found],
) -> None:
    """Ends our turn, if it is still ours."""
    await connection.execute(
        WRITE_VERDICT, owner, began_at, orjson.dumps(checked).decode(), orjson.dumps(violations).decode()
    )

"""What the last finished round of the self-audit has found, and whose turn the next one is. One replica audits."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import orjson

from service.database import Connection

LEASE_SECONDS = 30
"""Another replica takes a round up when whoever was at it is silent for so long."""
EXAMPLES_MAX = 20
FORMAT = 1
"""Of a round that is under way: another release's with another one is neither shown nor taken up, but begun anew."""


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


NOTHING = Found(0, ())


@dataclass(frozen=True, slots=True)
class Tally:
    """Of a round: how many rows each look has seen, what each check found where it found something, and how much of
    what could not be looked at.
    """

    checked: Mapping[str, int]
    violations: Mapping[str, Found]
    unlooked: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a round is: its next pass, None where none is left, after which row, and what its look at the log knows."""

    next_pass: str | None
    after: str
    log: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a round has come."""

    tally: Tally
    place: Place


@dataclass(frozen=True, slots=True)
class Begun:
    """The round that is ours now, and how far it has come where somebody else has begun it."""

    at: datetime
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A finished round."""

    began_at: datetime
    finished_at: datetime
    tally: Tally


@dataclass(frozen=True, slots=True)
class Standing:
    """The last finished round, None before the first, and what the one that is under way has found so far."""

    verdict: Verdict | None
    found: Mapping[str, Found]

    def violations(self) -> dict[str, Found]:
        """What is to be shown, by check: what was found stays until a whole round finds it mended; how many is then the
        larger number of the two, and the newest examples are the first.
        """
        last = self.verdict.tally.violations if self.verdict else {}
        return {
            check: _merged(self.found.get(check, NOTHING), last.get(check, NOTHING))
            for check in last.keys() | self.found.keys()
        }


def _merged(new: Found, old: Found) -> Found:
    examples = [*new.examples, *(example for example in old.examples if example not in new.examples)]
    return Found(max(new.count, old.count), examples[:EXAMPLES_MAX])


# What the release before has finished, it has finished without a word of the round that we had begun.
READ_STANDING = """
select began_at, finished_at, checked::text as checked, violations::text as violations, unlooked::text as unlooked,
    case when round_began_at > coalesce(finished_at, '-infinity') and round ->> 'format' = $1
        then round -> 'tally' ->> 'violations'
    end as found
from audits
"""


async def read_standing(connection: Connection) -> Standing:
    """What is known now."""
    row = await connection.fetchrow(READ_STANDING, str(FORMAT))
    if row is None:
        return Standing(None, {})
    found = _founds(orjson.loads(row["found"] or "{}"))
    if row["finished_at"] is None:
        return Standing(None, found)
    tally = _tally({part: orjson.loads(row[part] or "{}") for part in ("checked", "violations", "unlooked")})
    return Standing(Verdict(row["began_at"], row["finished_at"], tally), found)


def _tally(parts: Mapping[str, Any]) -> Tally:
    return Tally(parts["checked"], _founds(parts["violations"]), parts["unlooked"])


def _founds(violations: Mapping[str, Any]) -> dict[str, Found]:
    # The next release may know more of each.
    return {check: Found(found["count"], found["examples"]) for check, found in violations.items()}


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
returning clock_timestamp() as now, round::text as round,
    case when round_began_at > coalesce(finished_at, '-infinity') then round_began_at end as round_began_at
"""


async def take_turn(connection: Connection, owner: str, interval_seconds: float) -> Begun | None:
    """The round, where one is due and nobody is at it; else None. A look writes nothing."""
    is_due = await connection.fetchval(IS_DUE, interval_seconds)
    if is_due is None:
        await connection.execute(ADD_ROW)
    elif not is_due:
        return None
    row = await connection.fetchrow(TAKE_TURN, owner, interval_seconds, LEASE_SECONDS)
    if row is None:
        return None
    if row["round_began_at"] is None or (so_far := orjson.loads(row["round"]))["format"] != FORMAT:
        return Begun(row["now"], None)
    return Begun(row["round_began_at"], Progress(_tally(so_far["tally"]), Place(**so_far["place"])))


KEEP_TURN = """
update audits
set leased_until = clock_timestamp() + make_interval(secs => $2), round_began_at = $3, round = $4
where owner = $1
returning 1
"""


async def keep_turn(connection: Connection, owner: str, began_at: datetime, progress: Progress) -> bool:
    """Whether it is still ours; then for another LEASE_SECONDS. Everybody sees what was found so far, and whoever takes
    the round up goes on from there.
    """
    so_far = orjson.dumps({"format": FORMAT, **asdict(progress)}).decode()
    return await connection.fetchval(KEEP_TURN, owner, LEASE_SECONDS, began_at, so_far) is not None


GIVE_UP_TURN = """
update audits
set owner = null, leased_until = null
where owner = $1
"""


async def give_up_turn(connection: Connection, owner: str) -> None:
    """Lets another replica go on at once, or begin the next round."""
    await connection.execute(GIVE_UP_TURN, owner)


WRITE_VERDICT = """
update audits
set owner = null, leased_until = null, round_began_at = null, round = null,
    began_at = $2, finished_at = clock_timestamp(), checked = $3, violations = $4, unlooked = $5
where owner = $1
"""


async def write_verdict(connection: Connection, owner: str, began_at: datetime, tally: Tally) -> None:
    """Ends our turn, if it is still ours."""
    parts = (tally.checked, tally.violations, tally.unlooked)
    await connection.execute(WRITE_VERDICT, owner, began_at, *(orjson.dumps(part).decode() for part in parts))

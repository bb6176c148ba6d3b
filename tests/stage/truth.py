"""Checks maps that were read: each has every change that was certainly committed at its `asOf`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import orjson

from service.database import Connection

Letters = Mapping[int, Mapping[int, str]]
"""By position: the seat's letter at each version."""
Made = Mapping[tuple[UUID, str], list[tuple[int, int]]]
"""By reservation and kind of event: the positions and versions of the seats that it changed."""


@dataclass(slots=True)
class Seen:
    """The acknowledged changes, with PostgreSQL's time after each; and the maps, with their `asOf`."""

    acknowledged: list[tuple[datetime, UUID, str]] = field(default_factory=list)
    maps: list[tuple[datetime, str]] = field(default_factory=list)
    stored: list[tuple[datetime, str, list[int]]] = field(default_factory=list)
    """The bytes in Redis, with their versions."""


async def read_log(sql: Connection, session_id: int) -> tuple[Letters, Made]:
    """The letters and versions of the session's seats, by the log."""
    letters: dict[int, dict[int, str]] = defaultdict(lambda: {0: "A", 1: "A"})
    made: dict[tuple[UUID, str], list[tuple[int, int]]] = {}
    query = "select reservation_id, kind, seats::text as seats from events where session_id = $1"
    for row in await sql.fetch(query, session_id):
        seats = orjson.loads(row["seats"])
        made[row["reservation_id"], row["kind"]] = [(seat["position"], seat["version"]) for seat in seats]
        for seat in seats:
            letters[seat["position"]][seat["version"]] = seat["state"][0]
    return letters, made


def versions_at(as_of: datetime, seen: Seen, made: Made) -> Mapping[int, int]:
    """The version, by position, that was certainly committed then."""
    versions: dict[int, int] = defaultdict(int)
    for at, id_, kind in seen.acknowledged:
        if at <= as_of:
            for position, version in made[id_, kind]:
                versions[position] = max(versions[position], version)
    return versions


async def assert_true(sql: Connection, session_id: int, seen: Seen) -> None:
    """Fails where a map shows a seat as it never was, or at a version that had certainly passed at `asOf`."""
    letters, made = await read_log(sql, session_id)
    demanding = 0
    for as_of, states in seen.maps:
        versions = versions_at(as_of, seen, made)
        demanding += max(versions.values(), default=0) > 1
        for position, letter in enumerate(states):
            possible = {letters[position][n] for n in letters[position] if n >= versions[position]}
            assert letter in possible, (as_of, position, letter, versions[position])
    assert demanding > len(seen.maps) / 10, "most of the maps could not be wrong"
    for as_of, states, numbers in seen.stored:
        versions = versions_at(as_of, seen, made)
        assert all(number >= versions[position] for position, number in enumerate(numbers)), as_of
        assert states == shown(letters, numbers)


def shown(letters: Letters, versions: Sequence[int]) -> str:
    """The states at these versions."""
    return "".join(letters[position][version] for position, version in enumerate(versions))

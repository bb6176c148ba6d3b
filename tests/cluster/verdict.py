"""Invariants of the release's database after any fault, in SQL."""

from tests.cluster.kubernetes import Release, until
from tests.cluster.shoppers import Shoppers
from tests.stage.verdict import RULES

COUNT_OVERDUE = """
select count(*)
from reservations
where state = 'HELD'
and expires_at < clock_timestamp() - interval '5 s'
"""

COUNT_UNPUBLISHED = """
select count(*)
from events
where number is null
or number > (select number from cursors where name = 'broker')
"""

READ_STATES = """
select id, state
from reservations
where id in ({ids})
"""


def count(release: Release, query: str) -> int:
    """The only number that the query returns."""
    return int(release.sql(query)[0][0])


def schema(release: Release) -> str:
    """The schema's revision in the database."""
    return release.sql("select max(version_num) from alembic_version")[0][0]


def assert_true(release: Release, shoppers: Shoppers) -> None:
    """Fails on a seat with two owners, a lost acknowledged change, an overdue hold, or an unpublished event."""
    until(lambda: count(release, COUNT_OVERDUE) == 0, "no hold that is overdue")
    until(lambda: count(release, COUNT_UNPUBLISHED) == 0, "a log that is published")
    for rule, query in RULES.items():
        assert release.sql(query) == [], rule
    assert len(shoppers.acknowledged) > 0
    assert lost(release, shoppers.acknowledged) == []


def lost(release: Release, acknowledged: dict[str, str | None]) -> list[str]:
    """The reservations whose state contradicts the last answer to the customer."""
    ids = ", ".join(f"'{id_}'" for id_ in acknowledged)
    states = {row[0]: row[1] for row in release.sql(READ_STATES.format(ids=ids))}
    return [
        f"{id_}: acknowledged as {state}, is {states.get(id_)}"
        for id_, state in acknowledged.items()
        if not fits(state, states.get(id_))
    ]


def fits(acknowledged: str | None, state: str | None) -> bool:
    """A hold may have expired. If an answer is missing, any state fits, but the reservation must exist."""
    match acknowledged:
        case None:
            return state is not None
        case "HELD":
            return state in ("HELD", "EXPIRED")
        case _:
            return state == acknowledged

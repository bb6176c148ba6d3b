"""What must hold in the release's database after whatever happened, in SQL."""

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
    """The database's."""
    return release.sql("select max(version_num) from alembic_version")[0][0]


def assert_true(release: Release, shoppers: Shoppers) -> None:
    """No seat has two owners, nothing acknowledged is lost, no hold is overdue, and the log is published."""
    until(lambda: count(release, COUNT_OVERDUE) == 0, "no hold that is overdue")
    until(lambda: count(release, COUNT_UNPUBLISHED) == 0, "a log that is published")
    for rule, query in RULES.items():
        assert release.sql(query) == [], rule
    assert len(shoppers.told) > 0
    assert lost(release, shoppers.told) == []


def lost(release: Release, told: dict[str, str | None]) -> list[str]:
    """The reservations that are not what their customers were told."""
    ids = ", ".join(f"'{id_}'" for id_ in told)
    states = {row[0]: row[1] for row in release.sql(READ_STATES.format(ids=ids))}
    return [
        f"{id_}: told {state}, is {states.get(id_)}" for id_, state in told.items() if not fits(state, states.get(id_))
    ]


def fits(told: str | None, state: str | None) -> bool:
    """A hold that nobody ended expires by itself; where an answer is missing, any state may be right but none."""
    match told:
        case None:
            return state is not None
        case "HELD":
            return state in ("HELD", "EXPIRED")
        case _:
            return state == told

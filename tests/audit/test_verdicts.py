"""What is shown of the self-audit: the last round and what the current one has added, and nothing that is not known."""

import math
from collections import Counter
from datetime import UTC, datetime
from typing import NoReturn

import pytest
from prometheus_client import Gauge
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.loops.audit import LOOK_SECONDS, Audit, show
from service import database
from service.audit.slices import Limits
from service.audit.verdicts import EXAMPLES_MAX, Found, Tally, Verdict, keep_turn, merged, take_turn, write_verdict
from service.database import Connection
from service.errors import DatabaseAway
from service.settings import Settings
from tests.stage.audits import LET_A_ROUND_BE_DUE
from tests.stage.metering import gauge

pytestmark = pytest.mark.oldest_postgresql

UNFINISHED = ["violations log", "unlooked maps", "last_round_timestamp_seconds", "round_duration_seconds"]


def found(count: int, *seat_ids: int) -> Found:
    """So many, of which these are named."""
    return Found(count, [{"seat_id": seat_id} for seat_id in seat_ids])


def test_violations_of_two_rounds_are_shown_together() -> None:
    both = merged({"money": found(2, 7, 1), "cache": found(1, 8)}, {"money": found(3, 1, 2), "log": found(1, 5)})
    assert both == {"money": found(3, 7, 1, 2), "log": found(1, 5), "cache": found(1, 8)}
    assert merged({"money": found(2)}, {}) == {"money": found(2)}


def test_two_rounds_show_no_more_examples_than_one() -> None:
    many = range(100, 100 + EXAMPLES_MAX)
    assert merged({"money": found(1, 7)}, {"money": found(99, *many)}) == {"money": found(99, 7, *many[:-1])}


@pytest.mark.parametrize("known_seconds", [0, 60])
@pytest.mark.parametrize("is_its_turn", [False, True])
async def test_a_replica_without_postgresql_soon_shows_nothing(  # noqa: PLR0913 - fixtures
    engine: AsyncEngine,
    sql: Connection,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_its_turn: bool,
    known_seconds: float,
) -> None:
    began = await take_turn(sql, "a", 60)
    assert began is not None
    await write_verdict(sql, "a", began, Tally({}, {"money": found(2)}, {"maps": 3}))
    audit = Audit(engine, settings, "b", None, Limits(known_seconds=known_seconds, save_seconds=0))
    assert await audit.step() == LOOK_SECONDS
    if is_its_turn:
        await sql.execute(LET_A_ROUND_BE_DUE)
        assert await audit.step() == 0
    with monkeypatch.context() as patched:
        patched.setattr(database, "_connection", fail)
        with pytest.raises(DatabaseAway):
            await audit.step()
    shown = [math.isnan(gauge(f"audit_{name}")) for name in ("violations money", *UNFINISHED)]
    assert shown == [known_seconds == 0] * len(shown)
    await audit.step()
    assert (gauge("audit_violations money"), gauge("audit_violations log"), gauge("audit_unlooked maps")) == (2, 0, 3)
    assert gauge("audit_last_round_timestamp_seconds") > 0
    await audit.close()


async def test_before_the_first_verdict_only_violations_are_shown(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    await take_turn(sql, "a", 60)
    assert await keep_turn(sql, "a", {"money": found(1, 7)})
    await Audit(engine, settings, "b", None).step()
    assert all(math.isnan(gauge(f"audit_{name}")) for name in UNFINISHED)
    assert gauge("audit_violations money") == 1


async def test_a_replica_that_never_reached_postgresql_shows_nothing(
    engine: AsyncEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_connection", fail)
    with pytest.raises(DatabaseAway):
        await Audit(engine, settings, "a", None).step()
    assert math.isnan(gauge("audit_violations owners"))


def fail(*_: object) -> NoReturn:
    """In place of a connection."""
    raise DatabaseAway


@pytest.mark.parametrize("finished_at", [None, datetime.now(UTC)])
def test_each_gauge_is_set_once(monkeypatch: pytest.MonkeyPatch, finished_at: datetime | None) -> None:
    times: Counter[int] = Counter()
    set_to = Gauge.set

    def set_and_count(child: Gauge, value: float) -> None:
        times[id(child)] += 1
        set_to(child, value)

    monkeypatch.setattr(Gauge, "set", set_and_count)
    show(Verdict(finished_at, finished_at, Tally({}, {"money": found(1)}, {})))
    assert set(times.values()) == {1}

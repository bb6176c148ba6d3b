"""What is shown of the self-audit: the last finished round and what the one under way has found, never an older one."""

import math
import time
from collections import Counter
from typing import Any, NoReturn

import httpx
import pytest
from prometheus_client import Gauge
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.loops.audit import LOOK_SECONDS, SAVE_FOUND_SECONDS, SAVE_SECONDS, Audit, Turn
from service import database
from service.audit import verdicts
from service.audit.rounds import Round
from service.audit.verdicts import EXAMPLES_MAX, Found, Standing, Tally, Verdict
from service.database import Connection
from service.errors import DatabaseAway
from service.observability.metrics.values import KNOWN_SECONDS
from service.settings import Settings
from tests.stage.audits import LET_A_ROUND_BE_DUE, progress
from tests.stage.factories import make_manager
from tests.stage.metering import gauge

pytestmark = pytest.mark.oldest_postgresql


def found(count: int, *seat_ids: int) -> Found:
    """So many, of which these are named."""
    return Found(count, [{"seat_id": seat_id} for seat_id in seat_ids])


def standing(last: dict[str, Found], now: dict[str, Found]) -> Standing:
    """What the last round has found, and this one has already."""
    unimportant: Any = None
    return Standing(Verdict(unimportant, unimportant, Tally({}, last, {})), now)


def test_what_the_last_round_found_stays_and_what_this_one_finds_comes_first() -> None:
    both = standing({"money": found(3, 1, 2), "log": found(1, 5)}, {"money": found(2, 7, 1), "cache": found(1, 8)})
    assert both.violations() == {"money": found(3, 7, 1, 2), "log": found(1, 5), "cache": found(1, 8)}
    assert standing({}, {"money": found(2)}).violations() == {"money": found(2)}
    assert Standing(None, {"money": found(2)}).violations() == {"money": found(2)}


def test_no_more_examples_are_shown_of_two_rounds_than_of_one() -> None:
    many = range(100, 100 + EXAMPLES_MAX)
    assert standing({"money": found(99, *many)}, {"money": found(1, 7)}).violations() == {
        "money": found(99, 7, *many[:-1])
    }


async def test_a_round_that_is_older_than_the_last_verdict_is_not_shown(sql: Connection) -> None:
    began = await verdicts.take_turn(sql, "a", 60)
    assert began is not None
    assert await verdicts.keep_turn(sql, "a", began.at, progress(Tally({}, {"money": found(1, 7)}, {})))
    assert (await verdicts.read_standing(sql)).violations() == {"money": found(1, 7)}
    # The release before, which does not know of rounds under way, has finished one meanwhile.
    await sql.execute("update audits set began_at = now(), finished_at = now() + interval '1 s', violations = '{}'")
    assert (await verdicts.read_standing(sql)).violations() == {}


# What the next release may find, beside what this one knows of it.
ANOTHER_FORMAT = """
update audits
set round_began_at = clock_timestamp(), round = '{
    "format": 2,
    "tally": {"violations": {"money": {"count": 1, "examples": [], "first_at": "2030-01-02"}}}
}'
"""


async def test_a_round_that_another_release_writes_otherwise_is_not_shown_and_breaks_nothing(
    client: httpx.AsyncClient, engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    manager, watching = await make_manager(sql, settings), Audit(engine, settings, "old", None)
    for status in ("pending", "clean"):
        assert await verdicts.take_turn(sql, "new", 0) is not None
        await sql.execute(ANOTHER_FORMAT)
        assert await watching.step() == LOOK_SECONDS
        reply = await client.get("/manager/audit", headers=manager.headers)
        assert (reply.status_code, reply.json()["status"]) == (200, status)
        await verdicts.write_verdict(sql, "new", await sql.fetchval("select now()"), Tally({}, {}, {}))


async def test_what_another_release_has_found_is_shown_as_far_as_this_one_knows_it(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    manager = await make_manager(sql, settings)
    began = await verdicts.take_turn(sql, "new", 60)
    assert began is not None
    await verdicts.write_verdict(sql, "new", began.at, Tally({}, {"money": Found(2, [])}, {}))
    await sql.execute("update audits set violations = jsonb_set(violations, '{money,first_at}', '\"2030-01-02\"')")
    reply = (await client.get("/manager/audit", headers=manager.headers)).raise_for_status().json()
    assert [(violation["check"], violation["count"]) for violation in reply["violations"]] == [("money", 2)]


async def test_what_another_release_has_found_by_a_check_that_this_one_does_not_know_is_not_clean(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    manager = await make_manager(sql, settings)
    began = await verdicts.take_turn(sql, "new", 60)
    assert began is not None
    await verdicts.write_verdict(sql, "new", began.at, Tally({}, {"queues": Found(2, [])}, {}))
    reply = (await client.get("/manager/audit", headers=manager.headers)).raise_for_status().json()
    assert (reply["status"], reply["violations"]) == ("violated", [])


async def test_a_verdict_ends_what_was_shown_of_its_round(sql: Connection) -> None:
    began = await verdicts.take_turn(sql, "a", 60)
    assert began is not None
    assert await verdicts.keep_turn(sql, "a", began.at, progress(Tally({}, {"money": found(1, 7)}, {})))
    await verdicts.write_verdict(sql, "a", began.at, Tally({}, {}, {}))
    assert (await verdicts.read_standing(sql)).violations() == {}
    assert await sql.fetchval("select round is null and round_began_at is null from audits")


async def test_a_round_is_written_down_every_few_seconds_and_with_news_at_once_but_not_with_each_slice(
    engine: AsyncEngine, sql: Connection
) -> None:
    began = await sql.fetchval("select now()")
    turn = Turn(Round.create(engine, None, 72), began, saved=100, saved_count=0)
    assert not turn.is_to_save(100 + SAVE_SECONDS - 0.1)
    assert turn.is_to_save(100 + SAVE_SECONDS)
    turn.round.counts["money"] += 1
    assert not turn.is_to_save(100 + SAVE_FOUND_SECONDS - 0.1)
    assert turn.is_to_save(100 + SAVE_FOUND_SECONDS)


@pytest.mark.parametrize("is_its_turn", [False, True])
async def test_what_was_found_is_not_shown_for_long_by_a_replica_without_postgresql(
    engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch, *, is_its_turn: bool
) -> None:
    began = await verdicts.take_turn(sql, "a", 60)
    assert began is not None
    await verdicts.write_verdict(sql, "a", began.at, Tally({}, {"money": found(2)}, {"maps": 3}))
    audit = Audit(engine, settings, "b", None)
    await audit.step()
    if is_its_turn:
        await sql.execute(LET_A_ROUND_BE_DUE)
        await audit.step()
    assert (audit._turn is not None) == is_its_turn
    shown = ["violations money", "violations log", "unlooked maps", "last_round_timestamp_seconds"]
    shown.append("round_duration_seconds")
    with monkeypatch.context() as patched:
        patched.setattr(database, "_connection", fail)
        for seconds_ago, is_known in ((0, True), (KNOWN_SECONDS / 2, True), (KNOWN_SECONDS + 1, False)):
            audit._known_at = time.monotonic() - seconds_ago
            with pytest.raises(DatabaseAway):
                await audit.step()
            assert [math.isnan(gauge(f"audit_{name}")) for name in shown] == [not is_known] * len(shown)
    if audit._turn:
        audit._turn.saved -= SAVE_SECONDS
    await audit.step()
    assert (gauge("audit_violations money"), gauge("audit_violations log"), gauge("audit_unlooked maps")) == (2, 0, 3)
    assert gauge("audit_last_round_timestamp_seconds") > 0
    await audit.close()


async def test_before_the_first_verdict_nothing_is_shown_but_what_was_found(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    began = await verdicts.take_turn(sql, "a", 60)
    assert began is not None
    assert await verdicts.keep_turn(sql, "a", began.at, progress(Tally({}, {"money": found(1, 7)}, {})))
    await Audit(engine, settings, "b", None).step()
    shown = ["violations log", "unlooked maps", "last_round_timestamp_seconds", "round_duration_seconds"]
    assert all(math.isnan(gauge(f"audit_{name}")) for name in shown)
    assert gauge("audit_violations money") == 1


async def test_a_replica_that_has_begun_without_postgresql_says_nothing_of_the_ledger(
    engine: AsyncEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_connection", fail)
    with pytest.raises(DatabaseAway):
        await Audit(engine, settings, "a", None).step()
    assert math.isnan(gauge("audit_violations owners"))


def fail(*_: object) -> NoReturn:
    """In place of a connection."""
    raise DatabaseAway


@pytest.mark.parametrize("violations", [{}, {"money": found(1)}])
async def test_no_gauge_is_something_else_for_a_moment(
    engine: AsyncEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch, violations: dict[str, Found]
) -> None:
    told: Counter[int] = Counter()
    set_to = Gauge.set

    def set_and_count(child: Gauge, value: float) -> None:
        told[id(child)] += 1
        set_to(child, value)

    audit = Audit(engine, settings, "test", None)
    monkeypatch.setattr(Gauge, "set", set_and_count)
    audit._show(Standing(None, violations))
    assert set(told.values()) == {1}

"""The self-audit finds each thing that must not be, written by hand behind the service's back, and names it."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.loops.audit import Audit
from service.audit import holds as holdaudit
from service.audit import ledger as audit
from service.audit import log as logaudit
from service.audit import log_gaps as loggaps
from service.database import Connection
from service.ledger.settling import settle
from service.observability.metrics import catalogue
from service.reservation import State
from service.settings import Settings
from tests.conftest import EMPTY_TABLES
from tests.stage.audits import do_round, do_round_by_turns, faulty, last_verdict
from tests.stage.factories import make_customers, make_manager, make_session, settle_of
from tests.stage.faults import FAULTS, HARMLESS, UNTOLD_HOLD
from tests.stage.forcing import give
from tests.stage.holdings import number_all

pytestmark = pytest.mark.oldest_postgresql

Stage = dict[str, UUID | int]
"""Two holds, `first` and `second`, a `paid` reservation, and the seat of each."""


@pytest.fixture
async def stage(
    engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    """With its whole log numbered, to be looked at in slices of two. What a test has broken is gone after it; nobody is
    at work on what is overdue.
    """
    monkeypatch.setattr(holdaudit, "STUCK_SECONDS", 0)
    monkeypatch.setattr(audit, "SLICE_MAX", 2)
    monkeypatch.setattr(loggaps, "SLICE_MAX", 2)
    monkeypatch.setattr(logaudit, "AHEAD_MAX", 2)
    customer, other = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    first, second = await give(sql, customer, seats[0]), await give(sql, other, seats[1])
    paid = await give(sql, customer, seats[2])
    async with sql.transaction():
        await settle(sql, [settle_of(paid, State.CONFIRMED)])
    await number_all(engine, settings)
    yield {
        "first": first,
        "second": second,
        "paid": paid,
        "first_seat": seats[0],
        "second_seat": seats[1],
        "paid_seat": seats[2],
    }
    await sql.execute(EMPTY_TABLES)


@pytest.fixture
def _faults_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However soon after the last ones."""
    monkeypatch.setattr("expirer.loops.audit.SAVE_FOUND_SECONDS", 0)


@pytest.mark.parametrize("what", FAULTS)
async def test_what_must_not_be_is_found_and_named(
    engine: AsyncEngine, sql: Connection, settings: Settings, stage: Stage, what: str
) -> None:
    statements, expected = FAULTS[what]
    await sql.execute(statements.format(**stage))
    found = faulty(await do_round(engine, sql, settings))
    assert found == {check: {stage.get(name) or UUID(name) for name in names} for check, names in expected.items()}
    session_id = await sql.fetchval("select id from sessions")
    for checked in (await last_verdict(sql)).tally.violations.values():
        assert {fault["session_id"] for fault in checked.examples} == {session_id}
        assert all(checked.examples.count(fault) == 1 for fault in checked.examples), "each is told once"


@pytest.mark.parametrize("what", ["nothing", *FAULTS])
async def test_a_round_that_goes_from_replica_to_replica_sees_all_and_finds_the_same(
    engine: AsyncEngine, sql: Connection, settings: Settings, stage: Stage, what: str
) -> None:
    if what != "nothing":
        await sql.execute(FAULTS[what][0].format(**stage))
    await do_round(engine, sql, settings)
    by_one = (await last_verdict(sql)).tally
    assert bool(by_one.violations) == (what != "nothing")
    assert await do_round_by_turns(engine, sql, settings) == by_one


@pytest.mark.parametrize("what", HARMLESS)
async def test_what_may_be_is_no_fault(
    engine: AsyncEngine, sql: Connection, settings: Settings, stage: Stage, what: str
) -> None:
    await sql.execute(HARMLESS[what].format(**stage))
    assert faulty(await do_round(engine, sql, settings)) == {}
    assert (await last_verdict(sql)).tally.unlooked == {}


@pytest.mark.usefixtures("stage")
async def test_a_ledger_as_it_should_be_is_found_clean_and_all_of_it_was_looked_at_once(
    engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logaudit, "READ_AHEAD", "only where something looks wrong")
    assert await do_round(engine, sql, settings) == {}
    verdict = await last_verdict(sql)
    assert [verdict.tally.checked[what] for what in ("holds", "seats", "reservations", "events")] == [0, 16, 3, 5 + 2]
    assert verdict.began_at <= verdict.finished_at


TOO_MANY = {
    "holds that are open in the log": ("select", 2, 2),
    "open holds": (UNTOLD_HOLD, 3, 2),
    "events that come meanwhile": (
        "update events set number = null where number > 1; update cursors set number = 1 where name = 'log'",
        4,
        1,
    ),
}


@pytest.mark.parametrize("what", TOO_MANY)
async def test_what_was_too_much_to_be_looked_at_is_said_with_the_verdict(  # noqa: PLR0913, PLR0917 - fixtures
    client: httpx.AsyncClient, engine: AsyncEngine, sql: Connection, settings: Settings, stage: Stage, what: str
) -> None:
    statements, open_max, unlooked = TOO_MANY[what]
    await sql.execute(statements.format(**stage))
    await do_round(engine, sql, settings)
    assert (await last_verdict(sql)).tally.unlooked == {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(logaudit, "OPEN_MAX", open_max)
        assert await do_round(engine, sql, settings) == {}
        assert (await last_verdict(sql)).tally.unlooked == {"events": unlooked}
        assert shown(catalogue.AUDIT_UNLOOKED)["events"] == unlooked
        manager = await make_manager(sql, settings)
        reply = (await client.get("/manager/audit", headers=manager.headers)).json()
        assert reply["notLookedAt"] == {"events": unlooked}
        # Whoever takes the round up does not know how many they were.
        assert (await do_round_by_turns(engine, sql, settings)).unlooked.keys() == {"events"}
    await do_round(engine, sql, settings)
    assert shown(catalogue.AUDIT_UNLOOKED)["events"] == 0


@pytest.mark.usefixtures("stage")
async def test_the_gauge_shows_what_was_found_until_a_round_finds_it_mended(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    await sql.execute("update payments set amount = 1")
    await do_round(engine, sql, settings)
    assert shown() == {"owners": 0, "money": 1, "ownerless": 0, "overdue": 0, "log": 0, "cache": 0}
    await sql.execute("update payments set amount = 1250")
    await do_round(engine, sql, settings)
    assert set(shown().values()) == {0}


def shown(gauge: Any = catalogue.AUDIT_VIOLATIONS) -> dict[str, float]:
    """By its only label."""
    (family,) = gauge.metric.collect()
    return {"".join(sample.labels.values()): sample.value for sample in family.samples}


@pytest.mark.usefixtures("_faults_are_told_at_once")
async def test_what_a_slice_has_found_is_shown_at_once_and_stays_when_the_round_is_over(
    client: httpx.AsyncClient, engine: AsyncEngine, sql: Connection, settings: Settings, stage: Stage
) -> None:
    manager = await make_manager(sql, settings)
    await sql.execute("update payments set amount = 1")
    audit = Audit(engine, settings, "test", None)
    await audit.step()
    assert audit._turn is not None
    while not audit._turn.round.counts:
        await audit.step()
    passes = len(audit._turn.round.passes)
    await audit.step()
    assert len(audit._turn.round.passes) >= passes - 1 > 0
    assert shown()["money"] == 1
    reply = (await client.get("/manager/audit", headers=manager.headers)).json()
    assert (reply["status"], reply["finishedAt"]) == ("violated", None)
    assert [fault["reservationId"] for fault in reply["violations"][0]["examples"]] == [str(stage["paid"])]
    while audit._turn is not None:
        await audit.step()
    assert shown()["money"] == 1
    reply = (await client.get("/manager/audit", headers=manager.headers)).json()
    assert [violation["count"] for violation in reply["violations"]] == [1]


async def test_managers_see_the_verdict(
    client: httpx.AsyncClient, engine: AsyncEngine, sql: Connection, settings: Settings, stage: Stage
) -> None:
    manager = await make_manager(sql, settings)
    reply = (await client.get("/manager/audit", headers=manager.headers)).json()
    assert reply == {
        "status": "pending",
        "beganAt": None,
        "finishedAt": None,
        "checked": {},
        "notLookedAt": {},
        "violations": [],
    }
    await do_round(engine, sql, settings)
    reply = (await client.get("/manager/audit", headers=manager.headers)).json()
    assert (reply["status"], reply["violations"], reply["checked"]["seats"]) == ("clean", [], 16)
    assert reply["finishedAt"] >= reply["beganAt"]
    await sql.execute("update payments set amount = 1")
    await do_round(engine, sql, settings)
    reply = (await client.get("/manager/audit", headers=manager.headers)).json()
    assert reply["status"] == "violated"
    (violation,) = reply["violations"]
    assert (violation["check"], violation["count"]) == ("money", 1)
    session_id = await sql.fetchval("select id from sessions")
    assert violation["examples"] == [{"seatId": None, "reservationId": str(stage["paid"]), "sessionId": session_id}]

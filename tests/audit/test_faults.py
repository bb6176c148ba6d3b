"""The self-audit finds each kind of fault, written by hand behind the service's back, and names it."""

from collections.abc import AsyncIterator
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.loops.audit import Audit
from service.audit import event_log
from service.audit.slices import Limits
from service.database import Connection
from service.ledger.settling import settle
from service.reservation import State
from service.settings import Settings
from tests.conftest import EMPTY_TABLES
from tests.stage.audits import LET_A_ROUND_BE_DUE, do_round, faulty, finish
from tests.stage.factories import make_customers, make_manager, make_session, settle_of
from tests.stage.faults import FAULTS, HARMLESS
from tests.stage.forcing import give
from tests.stage.holdings import number_all
from tests.stage.metering import gauge

pytestmark = pytest.mark.oldest_postgresql

Stage = dict[str, UUID | int]
"""Two holds, `first` and `second`, a `paid` reservation, and the seat of each."""


@pytest.fixture
async def stage(engine: AsyncEngine, sql: Connection, settings: Settings) -> AsyncIterator[Stage]:
    """With its whole log numbered. The faults of a test are gone after it."""
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


@pytest.mark.parametrize("what", FAULTS)
async def test_each_fault_is_found_and_named_once(
    engine: AsyncEngine, sql: Connection, settings: Settings, stage: Stage, what: str
) -> None:
    statements, expected = FAULTS[what]
    await sql.execute(statements.format(**stage))
    tally = await do_round(engine, settings, rows=2)
    assert faulty(tally) == {
        check: {stage.get(name) or UUID(name) for name in names} for check, names in expected.items()
    }
    session_id = await sql.fetchval("select id from sessions")
    for found in tally.violations.values():
        assert {fault["session_id"] for fault in found.examples} == {session_id}
        assert found.count == len(found.examples) == len(set(map(str, found.examples)))


@pytest.mark.parametrize("what", HARMLESS)
async def test_harmless_data_is_not_reported(
    engine: AsyncEngine, sql: Connection, settings: Settings, stage: Stage, what: str
) -> None:
    await sql.execute(HARMLESS[what].format(**stage))
    tally = await do_round(engine, settings, rows=2)
    assert (faulty(tally), tally.unlooked) == ({}, {})


@pytest.mark.usefixtures("stage")
@pytest.mark.parametrize("rows", [1, 3, 1_000])
async def test_a_clean_ledger_is_checked_once_and_whole(engine: AsyncEngine, settings: Settings, rows: int) -> None:
    tally = await do_round(engine, settings, rows=rows)
    assert (tally.violations, tally.unlooked) == ({}, {})
    assert tally.checked == {"holds": 0, "seats": 16, "reservations": 3, "events": 5}


VERDICTS = ("violations money", "violations owners", "unlooked events")


async def test_the_verdict_is_shown_until_a_round_finds_another(
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
    audit = Audit(engine, settings, "test", None)
    for amount, status, count in ((1_250, "clean", 0), (1, "violated", 1), (1_250, "clean", 0)):
        await sql.execute("update payments set amount = $1", amount)
        await sql.execute(LET_A_ROUND_BE_DUE)
        await finish(audit)
        reply = (await client.get("/manager/audit", headers=manager.headers)).json()
        assert (reply["status"], reply["checked"]["seats"], len(reply["violations"])) == (status, 16, count)
        assert reply["finishedAt"] >= reply["beganAt"]
        assert [gauge(f"audit_{name}") for name in VERDICTS] == [count, 0, 0]
        for violation in reply["violations"]:
            session_id = await sql.fetchval("select id from sessions")
            assert (violation["check"], violation["count"]) == ("money", 1)
            assert violation["examples"] == [
                {"seatId": None, "reservationId": str(stage["paid"]), "sessionId": session_id}
            ]


async def test_a_violation_is_shown_before_the_round_is_over(
    client: httpx.AsyncClient, engine: AsyncEngine, sql: Connection, settings: Settings, stage: Stage
) -> None:
    manager = await make_manager(sql, settings)
    await sql.execute("update payments set amount = 1")
    audit = Audit(engine, settings, "test", None, Limits(save_seconds=0))
    shown = []
    for _ in range(5):
        await audit.step()
        shown.append(gauge("audit_violations money"))
    # The turn, holds, seats and reservations; then the next step writes what the last one has found.
    assert shown[-1] == 1
    reply = (await client.get("/manager/audit", headers=manager.headers)).json()
    assert (reply["status"], reply["finishedAt"]) == ("violated", None)
    assert [fault["reservationId"] for fault in reply["violations"][0]["examples"]] == [str(stage["paid"])]
    await finish(audit)
    reply = (await client.get("/manager/audit", headers=manager.headers)).json()
    assert [violation["count"] for violation in reply["violations"]] == [1]


async def test_an_unchecked_part_is_shown_with_the_verdict(
    client: httpx.AsyncClient, engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = await make_manager(sql, settings)
    audit = Audit(engine, settings, "test", None)
    await audit.step()
    with monkeypatch.context() as patched:
        patched.setattr(event_log, "READ_LOG_NAME", "select clock_timestamp()::text")
        await finish(audit)
    reply = (await client.get("/manager/audit", headers=manager.headers)).json()
    assert (reply["status"], reply["notLookedAt"]) == ("clean", {"events": 1})
    assert gauge("audit_unlooked events") == 1
    await sql.execute(LET_A_ROUND_BE_DUE)
    await finish(audit)
    assert gauge("audit_unlooked events") == 0

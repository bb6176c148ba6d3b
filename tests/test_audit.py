"""The self-audit finds each thing that must not be, written by hand behind the service's back, and names it."""
# ruff: noqa: S608 - the statements are the tests' own

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.audit import Audit
from service import audit, holdaudit, logaudit
from service.database import Connection
from service.metrics import catalogue
from service.reservation import State
from service.settings import Settings
from service.settling import settle
from tests.audits import do_round, do_round_by_turns, faulty, last_verdict
from tests.conftest import EMPTY_TABLES
from tests.factories import make_customers, make_manager, make_session, settle_of
from tests.forcing import give
from tests.holdings import number_all

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
    monkeypatch.setattr(logaudit, "SLICE_MAX", 2)
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
    monkeypatch.setattr("expirer.audit.SAVE_FOUND_SECONDS", 0)


FREE_FIRST_SEAT = "update seats set state = 'AVAILABLE', reservation_id = null where id = {first_seat};"
END_FIRST = "update reservations set state = 'CANCELLED', settled_at = now() where id = '{first}';"
NEXT_VERSION = "update seats set version = version + 1 where id = {first_seat};"
INSERT_PAYMENT = (
    "insert into payments (reservation_id, amount, currency, paid_at) values ('{first}', 1250, 'EUR', now());"
)
UNTOLD_HOLD = (
    "insert into reservations select '01926e2c-5a00-7000-8000-000000000001', customer_id, session_id,"
    " array[{first_seat} + 3], 'HELD', total, currency, now(), now() + interval '30 s', null, null, '', ''"
    " from reservations where id = '{first}';"
    "update seats set state = 'HELD', version = 2, reservation_id = '01926e2c-5a00-7000-8000-000000000001'"
    " where id = {first_seat} + 3"
)

CANCEL_PAID = (
    "update reservations set state = 'CANCELLED' where id = '{paid}'; delete from payments;"
    "update seats set state = 'AVAILABLE', reservation_id = null, version = version + 1 where id = {paid_seat};"
)
TELL = (
    "insert into events (kind, session_id, reservation_id, seats, at) select 'reservation.' || lower(r.state),"
    " r.session_id, r.id, jsonb_build_array(jsonb_build_object('seatId', s.id, 'position', s.position,"
    " 'state', s.state, 'version', s.version)), now() from reservations as r join seats as s on s.id = any(r.seat_ids)"
    " where r.id = '{id}';"
)
GO_ON = TELL.replace("{id}", "{second}") * 3
TELL_OF_PAID = TELL.replace("{id}", "{paid}")
NUMBER = (
    "update events set number = given.number from (select id, (select max(number) from events) +"
    " row_number() over (order by id) as number from events where number is null) as given where events.id = given.id"
)

# By what is wrong: how it came about, and what each check names.
FAULTS: dict[str, tuple[str, dict[str, set[str]]]] = {
    "a seat in two live reservations": (
        (
            "update reservations set seat_ids = seat_ids || {first_seat}, total = 2500 where id = '{second}';"
            "update seats set reservation_id = '{second}' where id = {first_seat}"
        ),
        {"owners": {"first", "first_seat"}},
    ),
    "an owner that does not know of the seat": (
        "update seats set reservation_id = '{second}' where id = {first_seat}",
        {"ownerless": {"first", "second", "first_seat"}},
    ),
    "a hold without its seat": (
        FREE_FIRST_SEAT + NEXT_VERSION,
        {"ownerless": {"first", "first_seat"}},
    ),
    "a hold whose seat is sold": (
        "update seats set state = 'SOLD' where id = {first_seat};" + NEXT_VERSION,
        {"ownerless": {"first", "first_seat"}, "log": {"first", "first_seat"}},
    ),
    "a held seat whose hold has ended": (
        END_FIRST,
        {"ownerless": {"first", "first_seat"}, "log": {"first"}},
    ),
    "a seat whose reservation is gone": (
        (
            "set session_replication_role = replica; delete from reservations where id = '{first}';"
            "set session_replication_role = origin"
        ),
        {"ownerless": {"first", "first_seat"}},
    ),
    "a hold whose seat belongs to one that has ended": (
        (
            "update reservations set state = 'CANCELLED', settled_at = now(), seat_ids = seat_ids || {first_seat}"
            " where id = '{second}'; update seats set reservation_id = '{second}' where id = {first_seat};"
            "update seats set state = 'AVAILABLE', reservation_id = null, version = 3 where id = {second_seat}"
        ),
        {"ownerless": {"first", "second", "first_seat"}, "log": {"second"}},
    ),
    "a sold seat that nobody has paid": ("delete from payments", {"money": {"paid", "paid_seat"}}),
    "a payment of another amount": ("update payments set amount = 1", {"money": {"paid"}}),
    "a payment in another currency": ("update payments set currency = 'USD'", {"money": {"paid"}}),
    "another price than the seats have": (
        "update payments set amount = 1; update reservations set total = 1 where id = '{paid}'",
        {"money": {"paid"}},
    ),
    "a payment for what is only held": (INSERT_PAYMENT, {"money": {"first", "first_seat"}}),
    "a payment for what has ended": (
        END_FIRST + FREE_FIRST_SEAT + NEXT_VERSION + INSERT_PAYMENT,
        {"money": {"first"}, "log": {"first"}},
    ),
    "a hold that nobody ends": (
        (
            "update reservations set created_at = created_at - interval '100 s',"
            " expires_at = expires_at - interval '100 s' where id = '{first}'"
        ),
        {"overdue": {"first"}},
    ),
    "an end that the log does not know": (
        END_FIRST + FREE_FIRST_SEAT + NEXT_VERSION,
        {"log": {"first"}},
    ),
    "an end that the log tells otherwise": (
        CANCEL_PAID,
        {"log": {"paid"}},
    ),
    "an end that the log tells otherwise, and goes on": (
        CANCEL_PAID + GO_ON + NUMBER,
        {"log": {"paid"}},
    ),
    "a held seat that was changed without a word": (
        NEXT_VERSION,
        {"log": {"first", "first_seat"}},
    ),
    "a sold seat that was changed without a word": (
        "update seats set version = version + 1 where id = {paid_seat}",
        {"log": {"paid", "paid_seat"}},
    ),
    "a seat that the log tells otherwise": (
        FREE_FIRST_SEAT,
        {"log": {"first", "first_seat"}, "ownerless": {"first", "first_seat"}},
    ),
    "a seat that has forgotten a change": (
        "update seats set version = 1 where id = {first_seat}",
        {"log": {"first", "first_seat"}},
    ),
    "a hold that the log does not know": (
        ("update events set at = at - interval '1 hour';" + UNTOLD_HOLD),
        {"log": {"01926e2c-5a00-7000-8000-000000000001"}},
    ),
}


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


# What looks like a fault and is none.
HARMLESS = {
    "a hold that is overdue for less than a minute": (
        "update reservations set created_at = created_at - interval '60 s', expires_at = expires_at - interval '60 s'"
        " where id = '{first}'"
    ),
    "a payment long ago": (
        "update reservations set created_at = created_at - interval '1 day', expires_at = expires_at - interval '1 day'"
        " where id = '{paid}'"
    ),
    "a hold as old as the first event that is kept": UNTOLD_HOLD,
    "an end that was mended, as the log tells at last": CANCEL_PAID + TELL_OF_PAID,
    "an end that was mended, as a later slice of the log tells": CANCEL_PAID + GO_ON + TELL_OF_PAID + GO_ON + NUMBER,
    "an end that was mended, as the same slice of the log tells": CANCEL_PAID + TELL_OF_PAID + NUMBER,
    "a sold seat that was mended, as a later slice of the log tells": (
        "update seats set version = 7 where id = {paid_seat};" + GO_ON + TELL_OF_PAID + NUMBER
    ),
}


@pytest.mark.parametrize("what", HARMLESS)
async def test_what_may_be_is_no_fault(
    engine: AsyncEngine, sql: Connection, settings: Settings, stage: Stage, what: str
) -> None:
    await sql.execute(HARMLESS[what].format(**stage))
    assert faulty(await do_round(engine, sql, settings)) == {}


async def test_a_ledger_as_it_should_be_is_found_clean_and_all_of_it_was_looked_at_once(
    engine: AsyncEngine, sql: Connection, settings: Settings, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logaudit, "READ_AHEAD", "only where something looks wrong")
    assert await do_round(engine, sql, settings) == {}
    verdict = await last_verdict(sql)
    assert len(stage) == 6
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


async def test_the_gauge_shows_what_was_found_until_a_round_finds_it_mended(
    engine: AsyncEngine, sql: Connection, settings: Settings, stage: Stage
) -> None:
    await sql.execute("update payments set amount = 1")
    await do_round(engine, sql, settings)
    assert shown() == {"owners": 0, "money": 1, "ownerless": 0, "overdue": 0, "log": 0, "cache": 0}
    await sql.execute("update payments set amount = 1250")
    assert stage["paid"]
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

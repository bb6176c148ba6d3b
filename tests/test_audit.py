"""The self-audit finds each thing that must not be, written by hand behind the service's back, and names it."""
# ruff: noqa: S608 - the statements are the tests' own

from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.audit import Audit
from service import audit, logaudit
from service.database import Connection
from service.metrics import catalogue
from service.reservation import State
from service.settings import Settings
from service.settling import settle
from service.verdicts import LEASE_SECONDS, read_verdict
from tests.audits import do_round, faulty, last_verdict
from tests.conftest import EMPTY_TABLES
from tests.factories import make_customer, make_customers, make_manager, make_session, settle_of
from tests.forcing import give
from tests.holdings import number_all

pytestmark = pytest.mark.oldest_postgresql

Stage = dict[str, UUID | int]
"""Two holds, `first` and `second`, a `paid` reservation, and the seat of each."""


@pytest.fixture
async def stage(
    engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    """With its whole log numbered, to be looked at in slices of two. What a test has broken is gone after it."""
    monkeypatch.setattr(audit, "SLICE_MAX", 2)
    monkeypatch.setattr(logaudit, "SLICE_MAX", 2)
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


FREE_FIRST_SEAT = "update seats set state = 'AVAILABLE', reservation_id = null where id = {first_seat};"
NEXT_VERSION = "update seats set version = version + 1 where id in ({first_seat}, {paid_seat});"
INSERT_PAYMENT = (
    "insert into payments (reservation_id, amount, currency, paid_at) values ('{first}', 1250, 'EUR', now());"
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
        {"ownerless": {"first", "first_seat"}},
    ),
    "a sold seat that nobody has paid": ("delete from payments", {"money": {"paid", "paid_seat"}}),
    "a payment of another amount": ("update payments set amount = 1", {"money": {"paid"}}),
    "a payment in another currency": ("update payments set currency = 'USD'", {"money": {"paid"}}),
    "another price than the seats have": (
        "update payments set amount = 1; update reservations set total = 1 where id = '{paid}'",
        {"money": {"paid"}},
    ),
    "a payment for what is only held": (INSERT_PAYMENT, {"money": {"first", "first_seat"}}),
    "a hold that nobody ends": (
        (
            "update reservations set created_at = created_at - interval '100 s',"
            " expires_at = expires_at - interval '100 s' where id = '{first}'"
        ),
        {"overdue": {"first"}},
    ),
    "an end that the log does not know": (
        "update reservations set state = 'CANCELLED', settled_at = now() where id = '{first}';"
        + FREE_FIRST_SEAT
        + NEXT_VERSION,
        {"log": {"first"}},
    ),
    "an end that the log tells otherwise": (
        "update reservations set state = 'CANCELLED' where id = '{paid}'; delete from payments;"
        "update seats set state = 'AVAILABLE', reservation_id = null where id = {paid_seat};" + NEXT_VERSION,
        {"log": {"paid"}},
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
        (
            "update events set at = at - interval '1 hour';"
            "insert into reservations select '01926e2c-5a00-7000-8000-000000000001', customer_id, session_id,"
            " array[{first_seat} + 3], 'HELD', total, currency, now(), now() + interval '30 s', null, null, '', ''"
            " from reservations where id = '{first}';"
            "update seats set state = 'HELD', version = 2, reservation_id = '01926e2c-5a00-7000-8000-000000000001'"
            " where id = {first_seat} + 3"
        ),
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


async def test_a_ledger_as_it_should_be_is_found_clean_and_all_of_it_was_looked_at(
    engine: AsyncEngine, sql: Connection, settings: Settings, stage: Stage
) -> None:
    assert await do_round(engine, sql, settings) == {}
    verdict = await last_verdict(sql)
    assert len(stage) == 6
    assert [verdict.checked[what] for what in ("holds", "seats", "reservations", "events")] == [0, 16, 3, 5 + 2]
    assert verdict.began_at <= verdict.finished_at


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


def shown() -> dict[str, float]:
    """The gauge, by check."""
    metric = catalogue.AUDIT_VIOLATIONS.metric
    assert metric is not None
    (family,) = metric.collect()
    return {sample.labels["check"]: sample.value for sample in family.samples}


async def test_managers_see_the_verdict(
    client: httpx.AsyncClient, engine: AsyncEngine, sql: Connection, settings: Settings, stage: Stage
) -> None:
    manager = await make_manager(sql, settings)
    reply = (await client.get("/manager/audit", headers=manager.headers)).json()
    assert reply == {"status": "pending", "beganAt": None, "finishedAt": None, "checked": {}, "violations": []}
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
    assert violation["examples"] == [{"seatId": None, "reservationId": str(stage["paid"]), "sessionId": None}]


async def test_one_replica_audits_and_another_begins_anew_when_that_one_is_silent(
    engine: AsyncEngine, sql: Connection, settings: Settings, stage: Stage
) -> None:
    first, second = Audit(engine, settings, "a", None), Audit(engine, settings, "b", None)
    assert await first.step() == 0
    assert await second.step() > 0
    assert second._turn is None
    await sql.execute("update audits set leased_until = now() - interval '1 s'")
    await second.step()
    assert second._turn is not None
    assert first._turn is not None
    first._turn.renewed -= LEASE_SECONDS
    await first.step()
    assert first._turn is None, "it has seen that the turn is another's"
    while second._turn is not None:
        await second.step()
    assert (await last_verdict(sql)).violations == {}
    await second.step()
    assert second._turn is None, "the next one is not due yet"
    assert stage


async def test_a_round_that_was_interrupted_is_taken_up_at_once(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    await make_customer(sql, settings)
    first, second = Audit(engine, settings, "a", None), Audit(engine, settings, "b", None)
    await first.step()
    await first.close()
    await second.step()
    assert second._turn is not None


async def step_on(audit: Audit) -> None:
    """Until something fails."""
    while True:
        await audit.step()


async def test_a_verdict_that_could_not_be_written_is_written_with_the_next_step(
    engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = Audit(engine, settings, "test", None)
    with monkeypatch.context() as patched:
        patched.setattr("service.verdicts.WRITE_VERDICT", "no statement")
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await step_on(audit)
    assert await read_verdict(sql) is None
    await audit.step()
    assert (await last_verdict(sql)).violations == {}
    await audit.close()

"""The manual repairs of the page on a failed audit: the audit finds the fault, and nothing after the repair."""

import json
import re
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.loops import sweep
from service.audit.verdicts import Found, keep_turn, take_turn
from service.database import Connection
from service.ledger.settling import settle
from service.reservation import State
from service.settings import Settings
from tests.conftest import EMPTY_TABLES
from tests.stage.audits import do_round
from tests.stage.factories import make_customers, make_session, settle_of
from tests.stage.faults import FAULTS, UNLOGGED
from tests.stage.forcing import give
from tests.stage.holdings import number_all

PAGE = (Path(__file__).parents[2] / "docs" / "runbooks" / "audit-failed.md").read_text()
((RESERVATION, SEAT, TRANSACTION),) = re.findall(
    r"```sql\n\\set reservation (\S+)\n\\set seat (\S+)\n(begin;.*?)```", PAGE, re.DOTALL
)
(LOOK_UP,) = re.findall(r"```sql\n\s*(select finished_at.*?from audits;)", PAGE, re.DOTALL)
(FIND_GONE,) = re.findall(r"```sql\n(select number \+ 1 as first_gone.*?;)\n```", PAGE, re.DOTALL)
(FIND_OWNERS,) = re.findall(r"```sql\n\s*(select id, state, seat_ids from reservations where SEAT = any.*?;)", PAGE)
REPAIRS = dict(re.findall(r"^\| (.+?) \| (?:`(.+?)`|nothing.*?) \|$", PAGE, re.MULTILINE))

STRAY = "The seat has a reservation that does not list it, or that is missing"
OVER = "A reservation that is over still has seats"
LOST = "A hold has lost a seat, or the seat does not name it"
SOLD = "A paid reservation has lost its seat, or the seat does not name it"
RIGHT = "The ledger is correct: only the event of a change is missing"
AMOUNT = "The payment has the wrong amount"
UNPAID = "The payment is missing"
UNSOLD = "A payment belongs to a reservation that is only held, or that ended unpaid"
TOTAL = "The total is not the price of the seats"
GONE = "Events are missing after an event of this reservation"

# By fault: the lines to go by, each with the reservation and the seat to put in.
FIRST_LOST = (LOST, "first", "first_seat")
REPAIRED = {
    "a seat in two live reservations": [FIRST_LOST],
    "a seat in two paid reservations": [(LOST, "second", "paid_seat"), (UNSOLD, "second", "paid_seat")],
    "an owner that does not list the seat": [(STRAY, "second", "first_seat"), FIRST_LOST],
    "a hold without its seat": [FIRST_LOST],
    "a hold whose seat is sold": [FIRST_LOST],
    "a paid reservation without its seat": [(SOLD, "paid", "paid_seat")],
    "a held seat whose hold has ended": [(OVER, "first", "first_seat")],
    "a seat whose reservation is missing": [(STRAY, "first", "first_seat"), (STRAY, "first", "other_seat")],
    "a hold whose seat belongs to one that has ended": [(OVER, "second", "first_seat"), FIRST_LOST],
    "a sold seat without a payment": [(UNPAID, "paid", "paid_seat")],
    "a payment of another amount": [(AMOUNT, "paid", "paid_seat")],
    "a payment in another currency": [(AMOUNT, "paid", "paid_seat")],
    "another price than the seats have": [(TOTAL, "paid", "paid_seat"), (AMOUNT, "paid", "paid_seat")],
    "a payment of an open hold": [(UNSOLD, "first", "first_seat")],
    "a payment of an ended hold": [(UNSOLD, "first", "first_seat"), (OVER, "first", "first_seat")],
    "an end without an event": [(OVER, "first", "first_seat")],
    "an end that differs from the log": [(RIGHT, "paid", "paid_seat")],
    "an end that differs from an early slice of the log": [(RIGHT, "paid", "paid_seat")],
    "a change of a held seat without an event": [(RIGHT, "first", "first_seat")],
    "a change of a sold seat without an event": [(RIGHT, "paid", "paid_seat")],
    "a seat that differs from the log": [FIRST_LOST],
    "a seat with an older version": [(RIGHT, "first", "first_seat")],
    "a hold without an event": [(RIGHT, "unlogged", "unlogged_seat")],
    "a sale without an event": [(RIGHT, "unlogged", "unlogged_seat")],
    "an ended hold without an event": [(RIGHT, "unlogged", "unlogged_seat")],
    "a missing event": [(GONE, "first", "first_seat")],
    "a missing last event": [(GONE, "paid", "paid_seat"), (GONE, "paid", "paid_seat")],
    "a missing log": [
        (RIGHT, "first", "first_seat"),
        (RIGHT, "second", "second_seat"),
        (RIGHT, "paid", "paid_seat"),
    ],
}
NOT_HERE = {"a hold that stays overdue"}
"""It has a page of its own."""
# The sequencer goes on after what a fault has numbered.
NUMBERED = "update cursors set number = greatest(number, (select max(number) from events)) where name = 'log'"


def _filled_in(reservation: object, seat: object, repair: str = "") -> str:
    """What psql makes of the page's transaction, which ends nothing by itself."""
    statements: str = TRANSACTION.replace("-- THE REPAIR", repair)
    return statements.replace(":'reservation'", f"'{reservation}'").replace(":seat", str(seat))


def test_each_repair_of_the_page_is_tried() -> None:
    assert REPAIRS.keys() == {line for lines in REPAIRED.values() for line, *_ in lines}
    assert REPAIRED.keys() == FAULTS.keys() - NOT_HERE


@pytest.mark.parametrize("what", REPAIRED)
async def test_the_repair_of_the_page_ends_the_fault(
    engine: AsyncEngine, sql: Connection, settings: Settings, what: str
) -> None:
    customer, other = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    paid = await give(sql, customer, seats[2])
    named: dict[str, int | UUID] = {
        "first": await give(sql, customer, seats[0], seats[4]),
        "second": await give(sql, other, seats[1]),
        "paid": paid,
        "unlogged": UUID(UNLOGGED),
        "first_seat": seats[0],
        "second_seat": seats[1],
        "paid_seat": seats[2],
        "unlogged_seat": seats[3],
        "other_seat": seats[4],
    }
    async with sql.transaction():
        await settle(sql, [settle_of(paid, State.CONFIRMED)])
    await number_all(engine, settings)
    await sql.execute(FAULTS[what][0].format(**named))
    await sql.execute(NUMBERED)
    assert (await do_round(engine, settings)).violations
    for line, reservation, seat in REPAIRED[what]:
        await sql.execute(_filled_in(named[reservation], named[seat], REPAIRS[line]) + "commit;")
        await number_all(engine, settings)
    assert (await do_round(engine, settings)).violations == {}
    await sweep.step(engine, settings)
    assert (await do_round(engine, settings)).violations == {}
    await sql.execute(EMPTY_TABLES)


async def test_the_event_of_a_repair_has_only_seats_of_its_session(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    (customer,) = await make_customers(sql, settings, 1)
    seats = (await make_session(sql, settings)).seat_ids
    foreign = (await make_session(sql, settings)).seat_ids[0]
    held = await give(sql, customer, *seats[:2])
    await sql.execute(_filled_in(held, foreign) + "commit;")
    told = await sql.fetchval("select seats::text from events order by id desc limit 1")
    assert [seat["seatId"] for seat in json.loads(told)] == seats[:2]
    await number_all(engine, settings)
    assert (await do_round(engine, settings)).violations == {}
    await sql.execute(EMPTY_TABLES)


async def test_violations_can_be_read_in_psql(sql: Connection) -> None:
    await take_turn(sql, "test", 1)
    await keep_turn(sql, "test", {"owners": Found(1, [{"seat_id": 7}])})
    row = await sql.fetchrow(LOOK_UP)
    assert row is not None
    assert json.loads(row["violations"]).keys() == {"owners"}


async def test_missing_numbers_are_listed_also_at_the_end(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 6)
    seats = (await make_session(sql, settings)).seat_ids
    for customer, seat in zip(customers, seats, strict=False):
        await give(sql, customer, seat)
    await number_all(engine, settings)
    assert await sql.fetch(FIND_GONE) == []
    await sql.execute("delete from events where number = any(array[3, 4, 7])")
    await give(sql, customers[0], seats[6])
    assert list(map(tuple, await sql.fetch(FIND_GONE))) == [(3, 4), (7, 7)]
    await sql.execute(EMPTY_TABLES)


async def test_both_owners_of_a_seat_are_listed(sql: Connection, settings: Settings) -> None:
    customers = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    owners = {await give(sql, customer, seat) for customer, seat in zip(customers, seats, strict=False)}
    await sql.execute("update reservations set seat_ids = array[$1::bigint, $2]", seats[0], seats[1])
    found = await sql.fetch(FIND_OWNERS.replace("SEAT", str(seats[0])))
    assert {row["id"] for row in found} == owners
    await sql.execute(EMPTY_TABLES)


async def test_the_transaction_without_ids_changes_nothing(sql: Connection, settings: Settings) -> None:
    (customer,) = await make_customers(sql, settings, 1)
    seats = (await make_session(sql, settings)).seat_ids
    held = await give(sql, customer, seats[0])
    for reservation, seat in ((held, SEAT), (RESERVATION, seats[0])):
        with pytest.raises(asyncpg.PostgresError):
            await sql.execute(_filled_in(reservation, seat))
        await sql.execute("rollback")


def test_the_operator_ends_the_transaction() -> None:
    assert "commit" not in TRANSACTION

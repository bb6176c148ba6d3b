"""What the page on a failed audit says to do by hand: the audit finds the fault, and nothing after the mend."""

import re
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer import sweep
from service.database import Connection
from service.reservation import State
from service.settings import Settings
from service.settling import settle
from tests.audits import do_round
from tests.conftest import EMPTY_TABLES
from tests.factories import make_customers, make_session, settle_of
from tests.forcing import give
from tests.holdings import number_all

PAGE = (Path(__file__).parents[1] / "docs" / "runbooks" / "audit-failed.md").read_text()
(TRANSACTION,) = re.findall(r"```sql\n\\set.*?\n(begin;.*?)```", PAGE, re.DOTALL)
MENDS = dict(re.findall(r"^\| (.+?) \| (?:`(.+?)`|nothing.*?) \|$", PAGE, re.MULTILINE))

FREE = "update seats set state = 'AVAILABLE', reservation_id = null where id = {seat}"
FAULTS = {
    "The seat has a reservation that does not know it, or that is over": (
        "update seats set state = 'SOLD', reservation_id = '{paid}' where id = {stray}",
        "paid",
        "stray",
    ),
    "A paid reservation has lost its seat, or the seat does not say so": (FREE, "paid", "seat"),
    "A hold has lost its seat": (FREE.replace("seat}", "held_seat}"), "held", "held_seat"),
    "The seat's version or state was changed, and is right as it is": (
        "update seats set version = version + 3 where id = {seat}",
        "paid",
        "seat",
    ),
    "What was paid is written down wrongly": ("update payments set amount = 1", "paid", "seat"),
    "What was paid is not written down": ("delete from payments", "paid", "seat"),
}


def test_each_line_of_the_page_is_tried_here() -> None:
    assert MENDS.keys() == FAULTS.keys()


@pytest.mark.parametrize("what", FAULTS)
async def test_what_the_page_says_ends_the_fault(
    engine: AsyncEngine, sql: Connection, settings: Settings, what: str
) -> None:
    (customer,) = await make_customers(sql, settings, 1)
    seat, other, held_seat, stray = (await make_session(sql, settings)).seat_ids[:4]
    paid, held = await give(sql, customer, seat, other), await give(sql, customer, held_seat)
    async with sql.transaction():
        await settle(sql, [settle_of(paid, State.CONFIRMED)])
    await number_all(engine, settings)
    named: dict[str, int | UUID] = {
        "paid": paid,
        "held": held,
        "seat": seat,
        "held_seat": held_seat,
        "stray": stray,
    }
    fault, reservation, of_seat = FAULTS[what]
    await sql.execute(fault.format(**named))
    assert await do_round(engine, sql, settings)
    statements = TRANSACTION.replace("-- THE MEND", MENDS[what])
    await sql.execute(
        statements.replace(":'reservation'", f"'{named[reservation]}'").replace(":seat", str(named[of_seat]))
    )
    assert await do_round(engine, sql, settings) == {}
    await number_all(engine, settings)
    await sweep.step(engine, settings)
    assert await do_round(engine, sql, settings) == {}
    await sql.execute(EMPTY_TABLES)

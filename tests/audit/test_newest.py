"""Which reservations the self-audit looks for in the log: the newest, as far back as the log goes."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.audit import ledger as audit
from service.audit import log_newest as newest
from service.audit.log import LogAudit
from service.audit.log_newest import Newest
from service.audit.log_untold import check_open
from service.database import Connection
from service.settings import Settings
from tests.conftest import EMPTY_TABLES
from tests.stage.audits import do_round, faulty
from tests.stage.factories import make_customers, make_session
from tests.stage.forcing import give
from tests.stage.holdings import number_all

FIRST = UUID(int=0)


@pytest.fixture
async def held(engine: AsyncEngine, sql: Connection, settings: Settings) -> AsyncIterator[list[UUID]]:
    """Four, of which the log tells nothing any more, though it began an hour before them."""
    (customer,) = await make_customers(sql, settings, 1)
    seats = (await make_session(sql, settings)).seat_ids
    ids = [await give(sql, customer, seat) for seat in seats[:4]]
    await number_all(engine, settings)
    await sql.execute("update events set at = at - interval '1 hour'")
    await sql.execute("update events set reservation_id = $1 where reservation_id is not null", ids[0])
    yield ids
    await sql.execute(EMPTY_TABLES)


async def test_no_more_than_newest_max_are_looked_for_and_those_are_the_newest(
    sql: Connection, held: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newest, "NEWEST_MAX", 2)
    monkeypatch.setattr(audit, "SLICE_MAX", 3)
    noted = Newest()
    await noted.note_slice(sql, FIRST)
    await noted.note_slice(sql, held[2])
    assert list(noted.ids) == held[2:]


async def test_what_was_before_the_first_event_that_is_kept_is_not_looked_for(
    sql: Connection, held: list[UUID]
) -> None:
    await sql.execute("update reservations set created_at = created_at - interval '2 hours' where id <> $1", held[1])
    noted = Newest()
    await noted.note_slice(sql, FIRST)
    assert list(noted.ids) == [held[1]]


@pytest.mark.parametrize("newest_max", [1, 4])
async def test_of_what_is_not_looked_for_nothing_is_found(  # noqa: PLR0913, PLR0917 - fixtures
    engine: AsyncEngine,
    sql: Connection,
    settings: Settings,
    held: list[UUID],
    monkeypatch: pytest.MonkeyPatch,
    newest_max: int,
) -> None:
    await sql.execute(
        "update reservations set state = 'EXPIRED', settled_at = now();"
        "update seats set state = 'AVAILABLE', reservation_id = null, version = 3 where reservation_id is not null;"
        "update events set kind = 'reservation.expired', seats = '[]' where reservation_id is not null"
    )
    monkeypatch.setattr(newest, "NEWEST_MAX", newest_max)
    assert faulty(await do_round(engine, sql, settings)) == {"log": {*held[1:][-newest_max:]}}


async def test_what_is_no_longer_there_when_the_log_was_read_is_not_missing_from_it(
    sql: Connection, settings: Settings, held: list[UUID]
) -> None:
    # As where a standby without the last commits has taken over.
    log = LogAudit(newest=Newest(dict.fromkeys([*held[1:], UUID(int=7)])))
    while (await log.check_slice(sql, log.last, settings.log_keep_hours)).last is not None:
        pass
    looked = await check_open(sql, log)
    assert {fault.reservation_id for fault in looked.faults} == {str(id_) for id_ in held[1:]}

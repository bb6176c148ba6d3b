"""A step of the sweep and of the keeper: its batch, its wait, and the failures that it survives."""

from collections.abc import Iterator, MutableMapping
from itertools import chain, repeat
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from dev.postgres import Postgres
from expirer.loops import keeper, sweep
from service.accounts.accounts import FORGET_FAILURES_MINUTES
from service.database import Connection, create_engine
from service.errors import Busy, BusyReason, DatabaseAway
from service.ledger.expiring import lock_overdue
from service.ledger.one_by_one import ONE_BY_ONE_SECONDS_MAX
from service.observability.failures import REMINDER_SECONDS
from service.settings import Settings
from tests.stage.factories import hold_of, make_customer, make_overdue, make_session, make_settings
from tests.stage.forcing import give_all, locked, state_of
from tests.stage.waiting import until

Lines = list[MutableMapping[str, Any]]

INTERVAL_SECONDS = 1.0
MEND = (
    "update seats set state = 'HELD', reservation_id = r.id from reservations as r"
    " where r.id = $1 and seats.id = any(r.seat_ids)"
)


@pytest.fixture
def log() -> Iterator[Lines]:
    """The lines that the sweep logs."""
    with capture_logs() as lines:
        yield lines


async def wait_in_vain(*_: object) -> None:
    """In place of a batch whose row lock times out."""
    raise Busy(BusyReason.ROW_LOCK)


async def make_overdue_holds(sql: Connection, settings: Settings, count: int) -> list[UUID]:
    """This many overdue holds of one seat each."""
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    held = await give_all(sql, [hold_of(customer, seat_id) for seat_id in seats[:count]])
    await make_overdue(sql, *held)
    return held


async def test_step_ends_the_oldest_and_goes_on_after_full_batches(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    held = await make_overdue_holds(sql, settings, 5)
    await make_overdue(sql, *held[3:])
    pairs = settings.model_copy(update={"sweep_batch_max": 2})
    assert await sweep.step(engine, pairs) == 0
    assert [await state_of(sql, id_) for id_ in held] == ["HELD", "HELD", "HELD", "EXPIRED", "EXPIRED"]
    assert await sweep.step(engine, pairs) == 0
    assert await sweep.step(engine, pairs) == INTERVAL_SECONDS
    assert {await state_of(sql, id_) for id_ in held} == {"EXPIRED"}
    assert await sweep.step(engine, pairs) == INTERVAL_SECONDS


async def test_a_step_neither_locks_nor_ends_what_is_not_overdue(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    await give_all(sql, [hold_of(customer, seat_id) for seat_id in seats[:2]])
    async with sql.transaction():
        assert await lock_overdue(sql, 10) == {}
    assert await sweep.step(engine, settings) == INTERVAL_SECONDS
    assert await sql.fetchval("select array_agg(distinct state) from reservations") == ["HELD"]


async def test_a_hold_that_can_not_be_ended_stops_no_other(
    engine: AsyncEngine, sql: Connection, settings: Settings, log: Lines
) -> None:
    held = await make_overdue_holds(sql, settings, 3)
    broken = held[1]
    await sql.execute("update seats set state = 'AVAILABLE', reservation_id = null where reservation_id = $1", broken)
    assert await sweep.step(engine, settings) == INTERVAL_SECONDS
    assert [await state_of(sql, id_) for id_ in held] == ["EXPIRED", "HELD", "EXPIRED"]
    assert [line["reservation_ids"] for line in log if line["log_level"] == "error"] == [[str(broken)]]
    await sql.execute(MEND, broken)
    await sweep.step(engine, settings)
    assert await state_of(sql, broken) == "EXPIRED"


async def test_hold_that_can_not_be_ended_is_logged_at_intervals(
    engine: AsyncEngine, sql: Connection, settings: Settings, log: Lines
) -> None:
    now = 0.0

    async def step() -> None:
        await sweep.step(engine, settings, set_aside, lambda: now)

    (broken,) = await make_overdue_holds(sql, settings, 1)
    await sql.execute("update seats set state = 'AVAILABLE', reservation_id = null where reservation_id = $1", broken)
    set_aside = sweep.SetAside()
    for _ in range(3):
        await step()
        set_aside.holds.clear()
    assert [line["log_level"] for line in log] == ["warning", "error"]
    now = REMINDER_SECONDS
    await step()
    assert [line["log_level"] for line in log] == ["warning", "error"] * 2
    await sql.execute(MEND, broken)
    await step()
    assert len(log) == 4, "it is still set aside"
    set_aside.holds.clear()
    await step()
    assert [line["event"] for line in log[4:]] == ["every hold can be ended again", "holds expired"]
    assert [line["failures"] for line in log[:5]] == [1, 1, 4, 4, 4], "once a step"


async def test_failed_batch_without_a_failing_hold_names_no_hold(
    engine: AsyncEngine, sql: Connection, settings: Settings, log: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_aside = sweep.SetAside()
    for _ in range(2):
        await make_overdue_holds(sql, settings, 2)
        with monkeypatch.context() as patched:
            patched.setattr(sweep, "settle_overdue", wait_in_vain)
            await sweep.step(engine, settings, set_aside)
        await sweep.step(engine, settings, set_aside)
    assert [line["event"] for line in log] == ["batch failed, trying one by one", "holds expired"] * 2
    assert [line["failures"] for line in log if line["log_level"] == "warning"] == [1, 1]


async def test_of_many_holds_that_can_not_be_ended_a_line_names_some(
    engine: AsyncEngine, sql: Connection, settings: Settings, log: Lines
) -> None:
    held = await make_overdue_holds(sql, settings, sweep.NAMED_MAX + 1)
    await sql.execute("update seats set state = 'AVAILABLE', reservation_id = null where state = 'HELD'")
    await sweep.step(engine, settings)
    (line,) = [line for line in log if line["log_level"] == "error"]
    assert (line["count"], len(line["reservation_ids"])) == (len(held), sweep.NAMED_MAX)
    for id_ in held:
        await sql.execute(MEND, id_)


async def test_sweep_without_postgresql_tries_nothing_one_by_one(log: Lines) -> None:
    nowhere = make_settings("postgresql://ada@127.0.0.1:1/rowlock")
    engine = create_engine(nowhere, "rowlock-test")
    with pytest.raises(DatabaseAway):
        await sweep.step(engine, nowhere)
    assert log == []
    await engine.dispose()


async def test_the_keeper_trims_failures_that_are_forgotten_in_batches(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    insert = (
        "insert into sign_in_failures select sha256(($1::int + n)::text::bytea), 1, now() - make_interval(mins => $2)"
        " from generate_series(1, $3::int) as n"
    )
    await sql.execute(insert, 0, FORGET_FAILURES_MINUTES + 1, keeper.BATCH_MAX + 2)
    await sql.execute(insert, 10_000, FORGET_FAILURES_MINUTES - 1, 3)
    assert await keeper.step(engine, settings) == 0
    assert await sql.fetchval("select count(*) from sign_in_failures") == 5
    assert await keeper.step(engine, settings) == keeper.INTERVAL_SECONDS
    assert await sql.fetchval("select count(*) from sign_in_failures") == 3
    assert await keeper.step(engine, settings) == keeper.INTERVAL_SECONDS
    assert await sql.fetchval("select count(*) from sign_in_failures") == 3


async def test_hold_with_a_locked_seat_delays_no_other(
    engine: AsyncEngine, sql: Connection, settings: Settings, postgres: Postgres
) -> None:
    held = await make_overdue_holds(sql, settings, 3)
    impatient = create_engine(settings.model_copy(update={"lock_timeout_ms": 50}), "rowlock-test")
    set_aside = sweep.SetAside()
    async with locked(postgres, "seats", await sql.fetchval("select seat_ids[1] from reservations limit 1")):
        await sweep.step(impatient, settings, set_aside)
        states = [await state_of(sql, id_) for id_ in held]
    assert sorted(states) == ["EXPIRED", "EXPIRED", "HELD"]
    assert [str(id_) for id_ in set_aside.holds] == [str(id_) for id_ in held if states[held.index(id_)] == "HELD"]
    await impatient.dispose()
    assert await sweep.step(engine, settings, set_aside) == INTERVAL_SECONDS
    assert "HELD" in [await state_of(sql, id_) for id_ in held], "set aside for a moment"

    async def all_ended() -> bool:
        await sweep.step(engine, settings, set_aside)
        return {await state_of(sql, id_) for id_ in held} == {"EXPIRED"}

    await until(all_ended, "the hold is tried again", sweep.SET_ASIDE_SECONDS + 1)


async def test_broken_holds_that_fill_a_batch_are_set_aside(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    held = await make_overdue_holds(sql, settings, 3)
    await make_overdue(sql, held[0])
    await sql.execute("update seats set state = 'AVAILABLE', reservation_id = null where reservation_id = $1", held[0])
    one_by_one = settings.model_copy(update={"sweep_batch_max": 1})
    set_aside = sweep.SetAside()
    assert [await sweep.step(engine, one_by_one, set_aside) for _ in range(3)] == [0, 0, 0]
    assert [await state_of(sql, id_) for id_ in held] == ["HELD", "EXPIRED", "EXPIRED"]
    await sql.execute(MEND, held[0])


async def test_one_by_one_ends_in_time_to_be_seen_alive(
    engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = await make_overdue_holds(sql, settings, 3)
    seconds = chain(repeat(0.0, 3), repeat(ONE_BY_ONE_SECONDS_MAX + 1.0))
    monkeypatch.setattr(sweep, "settle_overdue", wait_in_vain)
    await sweep.step(engine, settings, clock=lambda: next(seconds))
    assert sorted([await state_of(sql, id_) for id_ in held]) == ["EXPIRED", "HELD", "HELD"]

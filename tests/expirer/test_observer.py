"""The gauges of the observer for the ledger, the log, PostgreSQL and RabbitMQ, also while one is away."""

import asyncio
import math

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from dev.processes import free_port
from expirer.loops import sweep
from expirer.loops.observer import Observer
from service.audit import observations
from service.database import Connection, create_engine
from service.errors import Busy, BusyReason, DatabaseAway
from service.observability.metrics.values import KNOWN_SECONDS
from service.settings import Settings
from tests.stage.factories import make_overdue, make_settings
from tests.stage.forcing import locked
from tests.stage.holdings import make_holds, number_all
from tests.stage.inboxes import make_dead_letters
from tests.stage.metering import gauge
from tests.stage.relaying import Broker
from tests.stage.waiting import until


@pytest.fixture
def with_broker(postgres: Postgres, sql: Connection, rabbitmq: Broker) -> Settings:  # noqa: ARG001 - emptied first
    """With RabbitMQ."""
    return make_settings(postgres.url(), broker_url=rabbitmq.url)


async def observe(engine: AsyncEngine, settings: Settings) -> None:
    """One look."""
    observer = Observer(engine, settings)
    try:
        await observer.step()
    finally:
        await observer.close()


async def test_the_observer_shows_what_is_overdue_held_and_behind(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    ids = await make_holds(sql, settings, 5)
    await make_overdue(sql, *ids[:2])
    await sql.execute("insert into cursors (name, number) values ('broker', 0)")
    await sql.execute("update events set at = at - interval '20 s'")
    await observe(engine, settings)
    assert [gauge(name) for name in ("overdue_holds", "held_reservations", "sessions_on_sale")] == [2, 5, 1]
    assert 29 < gauge("overdue_hold_oldest_seconds") < 40
    assert (gauge("log_lag_events sequencer"), gauge("log_lag_events relay")) == (6, 6)
    assert 20 <= gauge("log_lag_seconds sequencer") < 30
    assert gauge("log_lag_seconds relay") == gauge("log_lag_seconds sequencer")
    await number_all(engine, settings)
    await sql.execute("update cursors set number = 4 where name = 'broker'")
    await sql.execute("update events set at = at - interval '100 hours' where number = 5")
    await observe(engine, settings)
    assert (gauge("log_lag_events sequencer"), gauge("log_lag_seconds sequencer")) == (0, 0)
    assert (gauge("log_lag_events relay"), gauge("log_events"), gauge("log_stuck_events relay")) == (2, 6, 1)
    assert gauge("log_lag_seconds relay") > 100 * 3600
    await sql.execute("update cursors set number = 6")
    await sweep.step(engine, settings)
    await number_all(engine, settings)
    await sql.execute("update cursors set number = 8")
    await observe(engine, settings)
    assert [gauge(name) for name in ("overdue_holds", "overdue_hold_oldest_seconds", "held_reservations")] == [0, 0, 3]
    assert [gauge(f"log_{name} relay") for name in ("lag_events", "lag_seconds", "stuck_events")] == [0, 0, 0]


async def test_observer_shows_lock_waiters_and_the_oldest_writer(
    engine: AsyncEngine, sql: Connection, settings: Settings, postgres: Postgres
) -> None:
    (id_,) = await make_holds(sql, settings, 1)
    await observe(engine, settings)
    assert [gauge(f"lock_{name}") for name in ("waiting_sessions", "wait_oldest_seconds")] == [0, 0]
    async with locked(postgres, "reservations", id_) as stranger:
        await stranger.execute("update reservations set total = total where id = $1", id_)
        waiting = asyncio.create_task(sql.execute("select from reservations where id = $1 for no key update", id_))

        async def seen() -> bool:
            await observe(engine, settings)
            return gauge("lock_wait_oldest_seconds") > 0.1

        await until(seen, "what is to be shown")
        assert gauge("lock_waiting_sessions") == 1
        assert gauge("write_transaction_oldest_seconds") > gauge("lock_wait_oldest_seconds")
    await waiting
    await observe(engine, settings)
    assert gauge("lock_waiting_sessions") == 0


async def test_observer_shows_a_prepared_transaction(engine: AsyncEngine, sql: Connection, settings: Settings) -> None:
    await sql.execute("begin; create table left_behind (); prepare transaction 'left behind'")
    try:

        async def seen() -> bool:
            await observe(engine, settings)
            return gauge("write_transaction_oldest_seconds") > 0.1

        await until(seen, "what is to be shown")
    finally:
        await sql.execute("rollback prepared 'left behind'")

    async def gone() -> bool:
        await observe(engine, settings)
        return gauge("write_transaction_oldest_seconds") == 0

    # PostgreSQL's own housekeeping may write at this moment.
    await until(gone, "the end of the write")


async def test_observer_shows_queue_lengths_while_rabbitmq_answers(
    engine: AsyncEngine, sql: Connection, with_broker: Settings, rabbitmq: Broker
) -> None:
    await make_dead_letters(sql, with_broker, rabbitmq.url, 3)
    observer = Observer(engine, with_broker)

    async def seen() -> bool:
        await observer.step()
        return gauge("broker_messages expired") == 3

    await until(seen, "what is to be shown")
    assert (gauge("broker_messages holds"), gauge("broker_messages parked")) == (0, 0)
    rabbitmq.stop()
    assert await observer.step() > 0
    assert gauge("broker_messages expired") != gauge("broker_messages expired"), "it is no number"
    await observer.close()


async def test_messages_are_counted_while_postgresql_is_away(
    sql: Connection, with_broker: Settings, rabbitmq: Broker
) -> None:
    await make_dead_letters(sql, with_broker, rabbitmq.url, 2)
    nowhere = f"postgresql://rowlock@127.0.0.1:{free_port()}/rowlock"
    engine = create_engine(make_settings(nowhere), "rowlock-test")
    observer = Observer(engine, with_broker)

    async def seen() -> bool:
        with pytest.raises(DatabaseAway):
            await observer.step()
        return gauge("broker_messages expired") == 2

    await until(seen, "what is to be shown")
    await observer.close()
    await engine.dispose()


async def test_a_reader_that_was_dropped_is_behind_nothing(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    await make_holds(sql, settings, 1)
    await sql.execute("insert into cursors (name, number) values ('broker', 0)")
    await sql.execute("update events set at = at - interval '100 s'")
    await observe(engine, settings)
    assert gauge("log_lag_seconds relay") >= 100
    await sql.execute("delete from cursors where name = 'broker'")
    await observe(engine, settings)
    assert all(math.isnan(gauge(f"log_{name} relay")) for name in ("lag_events", "lag_seconds", "stuck_events"))


async def test_old_observations_are_not_shown_any_longer(
    engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_overdue(sql, *await make_holds(sql, settings, 1))
    observer = Observer(engine, settings)
    shown = ("overdue_hold_oldest_seconds", "log_lag_seconds sequencer", "write_transaction_oldest_seconds")
    await observer.step(lambda: 0)
    monkeypatch.setattr(observations, "holds", fail)
    for clock, is_known in ((KNOWN_SECONDS, True), (KNOWN_SECONDS + 1, False)):
        with pytest.raises(DatabaseAway):
            await observer.step(lambda clock=clock: clock)  # type: ignore[misc]
        assert [math.isnan(gauge(name)) for name in shown] == [not is_known] * len(shown)
    monkeypatch.undo()
    await observer.step(lambda: 0)
    assert gauge("overdue_hold_oldest_seconds") > 29
    await observer.close()


async def test_a_look_that_takes_too_long_is_broken_off(
    engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_holds(sql, settings, 1)
    slow = observations.OBSERVE_HOLDS.rstrip() + "\nfrom pg_sleep(0.5)"
    monkeypatch.setattr(observations, "OBSERVE_HOLDS", slow)
    await observe(engine, settings)
    assert gauge("held_reservations") == 1
    monkeypatch.setattr(observations, "BOUND_STATEMENTS", "set local statement_timeout = 50")
    with pytest.raises(Busy) as broken_off:
        await observe(engine, settings)
    assert broken_off.value.reason is BusyReason.STATEMENT


async def fail(*_: object) -> None:
    """In place of a look."""
    raise DatabaseAway

"""The metrics of the expirer's loops: batches, lateness, skipped holds, and what the observer reads."""

import time

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from expirer.loops import keeper, sequencer, sweep
from expirer.loops.observer import Observer
from expirer.supervisor import Supervisor
from service.database import Connection, create_engine, transaction
from service.errors import BrokerAway, DatabaseAway
from service.ledger.expiring import settle_due, settle_overdue
from service.settings import Settings
from tests.stage.broker import FULL_AFTER_ONE, bound_queue, connected, send_hints
from tests.stage.factories import make_overdue, make_settings
from tests.stage.forcing import locked
from tests.stage.holdings import hints_of, make_holds, make_numbered
from tests.stage.inboxes import inbox_of, make_dead_letters, settle_all, tamper
from tests.stage.inboxes import mend as mend_hold
from tests.stage.metering import about, gauge, moved
from tests.stage.relaying import Broker, relaying
from tests.stage.seat_maps import projecting, with_redis

BATCH = ("batch", "holds", "expiry", "rows", "operation")


def batch(loop: str, items: int) -> dict[str, float]:
    """The growth by one batch that ends holds."""
    return {
        f"batch_items_count {loop}": 1,
        f"batch_duration_seconds_count {loop}": 1,
        f"holds_expired_total {loop}": items,
        f"expiry_lateness_seconds_count {loop}": items,
        "operation_duration_seconds_count expire done": 1,
    }


async def test_a_sweep_counts_its_batch_and_an_empty_one_nothing(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    await make_overdue(sql, *await make_holds(sql, settings, 3))
    items, late = gauge("batch_items_sum sweep"), gauge("expiry_lateness_seconds_sum sweep")
    with moved() as grown:
        await sweep.step(engine, settings)
    assert about(grown, *BATCH) == batch("sweep", 3)
    assert gauge("batch_items_sum sweep") - items == 3
    assert 3 * 29 < gauge("expiry_lateness_seconds_sum sweep") - late < 3 * 40
    with moved() as grown:
        await sweep.step(engine, settings)
    assert about(grown, *BATCH) == {}


@pytest.mark.parametrize("batch_max", [10, 2], ids=["a batch that is not full", "a full batch"])
async def test_locked_overdue_holds_are_counted_as_skipped(
    engine: AsyncEngine, sql: Connection, settings: Settings, postgres: Postgres, batch_max: int
) -> None:
    ids = await make_holds(sql, settings, 5)
    await make_overdue(sql, *ids)
    await make_overdue(sql, *ids[:2])
    few = settings.model_copy(update={"sweep_batch_max": batch_max})
    async with locked(postgres, "reservations", *ids[:2]):
        with moved() as grown:
            await sweep.step(engine, few)
    # Holds after the last one of a full batch were not skipped: the next batch takes them.
    assert about(grown, "rows") == {"rows_skipped_total sweep": 2}
    with moved() as grown:
        while await sweep.step(engine, few) == 0:
            pass
    assert about(grown, "rows") == {}


async def test_a_sweep_without_postgresql_counts_as_unavailable() -> None:
    nowhere = make_settings("postgresql://ada@127.0.0.1:1/rowlock")
    engine = create_engine(nowhere, "rowlock-test")
    with moved() as grown, pytest.raises(DatabaseAway):
        await sweep.step(engine, nowhere)
    assert grown == {
        "operation_duration_seconds_count expire unavailable": 1,
        "pool_wait_seconds_count": 1,
        "database_errors_total away": 1,
    }
    await engine.dispose()


async def test_sequencer_keeper_and_projector_count_their_batches(
    engine: AsyncEngine, sql: Connection, postgres: Postgres, redis: Redis | Container
) -> None:
    settings = with_redis(postgres.url(), redis, map_fresh_ms=60_000)
    async with projecting(settings) as projection:
        await projection.step()
        await make_holds(sql, settings, 3)
        items = {loop: gauge(f"batch_items_sum {loop}") for loop in ("sequencer", "keeper", "projector")}
        with moved() as grown:
            for _ in range(2):
                await sequencer.step(engine, settings, lambda: None)
            for _ in range(2):
                await projection.step()
            await sql.execute("update events set at = at - interval '100 hours'")
            for _ in range(2):
                await keeper.step(engine, settings)
        assert about(grown, "batch_items") == {f"batch_items_count {loop}": 1 for loop in items}
        assert {loop: gauge(f"batch_items_sum {loop}") - before for loop, before in items.items()} == {
            "sequencer": 4,
            "keeper": 4,
            "projector": 4,
        }
    await sql.execute("truncate accounts, sessions, reservations, seats, payments, events")


async def test_what_looks_and_finds_nothing_waits_for_no_disk(
    engine: AsyncEngine, sql: Connection, rabbitmq: Broker, postgres: Postgres, redis: Redis | Container
) -> None:
    settings = with_redis(postgres.url(), redis, map_fresh_ms=60_000, broker_url=rabbitmq.url, lease_ms=60_000)
    await sql.execute("insert into cursors (name, number) values ('cache', 0), ('broker', 0)")
    observer = Observer(engine, settings)
    async with projecting(settings) as projection, relaying(engine, settings) as relay:
        for _ in range(2):
            await projection.step()
            await relay.step()
        with moved() as grown:
            for _ in range(3):
                await projection.step()
                await relay.step()
                await sweep.step(engine, settings)
                await observer.step()
    await observer.close()
    assert about(grown, "commit") == {}


async def test_what_came_due_after_the_batch_began_was_not_skipped(
    engine: AsyncEngine, sql: Connection, settings: Settings, postgres: Postgres
) -> None:
    ids = await make_holds(sql, settings, 2)
    async with transaction(engine) as connection:
        await sql.execute("update reservations set created_at = expires_at - interval '1 hour'")
        await sql.execute("update reservations set expires_at = clock_timestamp()")
        async with locked(postgres, "reservations", *ids):
            assert (await settle_overdue(connection, 10)).skipped == 0
            assert (await settle_due(connection, ids)).skipped == 0


@pytest.fixture
def with_broker(postgres: Postgres, sql: Connection, rabbitmq: Broker) -> Settings:  # noqa: ARG001 - emptied first
    """With RabbitMQ."""
    return make_settings(postgres.url(), broker_url=rabbitmq.url)


async def test_the_inbox_counts_ended_acknowledged_and_parked_letters(
    engine: AsyncEngine, sql: Connection, with_broker: Settings, postgres: Postgres, rabbitmq: Broker
) -> None:
    ids = await make_dead_letters(sql, with_broker, rabbitmq.url, 3)
    async with inbox_of(engine, with_broker.model_copy(update={"inbox_tries_max": 1})) as inbox:
        async with locked(postgres, "reservations", ids[0]):
            with moved() as grown:
                await settle_all(inbox, rabbitmq.url)
        assert about(grown, *BATCH, "dead") == batch("inbox", 2) | {
            "rows_skipped_total inbox": 1,
            "dead_letters_total acknowledged": 3,
        }
        await tamper(sql, ids[0])
        with moved() as grown:
            send_hints(rabbitmq.url, await hints_of(sql, ids[:1]))
            await settle_all(inbox, rabbitmq.url)
        assert about(grown, "dead", "holds") == {"dead_letters_total failing": 1}
    await mend_hold(sql, ids[0])
    await sweep.step(engine, with_broker)


async def test_the_relay_counts_confirms_refusals_and_timeouts(
    engine: AsyncEngine, sql: Connection, with_broker: Settings, rabbitmq: Broker
) -> None:
    names = ("confirm", "events", "hints", "batch")
    async with relaying(engine, with_broker.model_copy(update={"confirm_timeout_ms": 2_000})) as relay:
        await make_numbered(engine, sql, with_broker, 3)
        with moved() as grown:
            await relay.step()
            await relay.step()
        assert about(grown, *names) == {
            "confirm_wait_seconds_count": 1,
            "events_published_total": 4,
            "batch_items_count relay": 1,
            "batch_duration_seconds_count relay": 1,
        }
        await make_numbered(engine, sql, with_broker, 1)
        rabbitmq.pause()
        with moved() as grown, pytest.raises(BrokerAway):
            await relay.step()
        rabbitmq.resume()
        assert about(grown, *names) == {"confirm_wait_seconds_count": 1, "confirm_timeouts_total": 1}


async def test_the_relay_counts_a_queue_that_refuses(
    engine: AsyncEngine, sql: Connection, with_broker: Settings, rabbitmq: Broker
) -> None:
    with connected(rabbitmq.url) as connection:
        bound_queue(connection, "tests.full", **FULL_AFTER_ONE)
        async with relaying(engine, with_broker) as relay:
            await make_numbered(engine, sql, with_broker, 3)
            with moved() as grown:
                await relay.step()
    assert about(grown, "events") == {"events_published_total": 1, "events_refused_total": 1}


async def test_the_supervisor_reports_durations_failures_and_successes() -> None:
    supervisor = Supervisor({})
    done = 0

    async def step() -> float:
        nonlocal done
        done += 1
        if done == 1:
            raise DatabaseAway
        supervisor.stop()
        return 0

    supervisor.steps["keeper"] = step
    began = time.time()
    with moved() as grown:
        await supervisor.run()
    assert grown == {"loop_step_duration_seconds_count keeper": 2, "loop_failures_total keeper": 1}
    assert began <= gauge("loop_last_success_timestamp_seconds keeper") <= time.time()

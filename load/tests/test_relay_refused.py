"""Full queues: hints are dropped and counted, events are retried with backoff, and nothing else waits."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from dev.postgres import Postgres
from expirer.loops import sweep
from service.broker.publisher import Publisher
from service.broker.topology import holds_queue
from service.database import Connection
from service.settings import Settings
from tests.stage.broker import FULL_AFTER_ONE, bound_queue, connected, first_time, listening, message_count, received
from tests.stage.factories import make_overdue, make_settings
from tests.stage.holdings import count_states, hints_of, make_holds, make_numbered, number_all
from tests.stage.relaying import Broker, cursor, relaying

HINTS = 1_500
LENGTH_MAX = 1_000


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, rabbitmq: Broker) -> Settings:  # noqa: ARG001 - emptied first
    """With a broker whose queue of holds is small."""
    return make_settings(postgres.url(), broker_url=rabbitmq.url, hold_queue_length_max=LENGTH_MAX)


async def test_full_hold_queue_drops_hints_but_no_events(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    with listening(rabbitmq.url) as listener:
        async with relaying(engine, settings) as relay:
            ids = await make_holds(sql, settings, 3)
            (hint, *_) = await hints_of(sql, ids)
            filling = Publisher(settings)
            dropped = filling.publish([], [hint] * HINTS).hints_dropped
            filling.close()
            assert 0 < dropped <= HINTS - LENGTH_MAX
            await number_all(engine, settings)
            with capture_logs() as logs:
                await relay.step()
                assert await cursor(sql) == 4
                await make_numbered(engine, sql, settings, 1)
                await relay.step()
                with connected(rabbitmq.url) as connection:
                    holds_queue(settings.hold_seconds * 1_000, LENGTH_MAX)(connection.channel()).purge()
                last = await make_numbered(engine, sql, settings, 1)
                await relay.step()
                assert await cursor(sql) == last
        assert first_time(await listener.until(4))[:4] == [1, 2, 3, 4]
    assert [(line["event"], line.get("count"), line["failures"]) for line in logs] == [
        ("hints dropped; the sweep releases these seats", 3, 1),
        ("hints are accepted again", None, 2),
    ]


async def test_missing_hold_queue_is_counted_and_declared_again(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    queue = holds_queue(30_000, LENGTH_MAX)
    async with relaying(engine, settings) as relay:
        await make_numbered(engine, sql, settings, 1)
        await relay.step()
        with connected(rabbitmq.url) as connection:
            # As an expirer of the release before does, to which this queue is of another time to pay.
            queue(connection.channel()).delete()
        last = await make_numbered(engine, sql, settings, 2)
        with capture_logs() as logs:
            await relay.step()
        assert [line["count"] for line in logs] == [2]
        assert await cursor(sql) == last
        await make_numbered(engine, sql, settings, 3)
        with capture_logs() as logs:
            await relay.step()
        assert [line["event"] for line in logs] == ["hints are accepted again"]
    assert message_count(rabbitmq.url, queue) == 3


async def test_refused_events_arrive_once_the_full_queue_is_emptied(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    with connected(rabbitmq.url) as connection:
        full = bound_queue(connection, "tests.full", **FULL_AFTER_ONE)
        async with relaying(engine, settings) as relay:
            last = await make_numbered(engine, sql, settings, 8)
            with capture_logs() as logs:
                await relay.step()
            assert await cursor(sql) == 1
            assert [(line["log_level"], line["number"]) for line in logs] == [("error", 2)]
            got = []
            while await cursor(sql) < last:
                got += received(full, 1)
                await relay.step()
        got += received(full, 1)
    assert first_time(got) == list(range(1, last + 1))


async def test_refusals_back_off_and_repeat_one_event_elsewhere(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    with listening(rabbitmq.url) as healthy, connected(rabbitmq.url) as connection:
        full = bound_queue(connection, "tests.full", **FULL_AFTER_ONE)
        async with relaying(engine, settings) as relay:
            await make_numbered(engine, sql, settings, 8)
            waits = [await relay.step() for _ in range(6)]
            assert waits == [0.5, 1, 2, 4, 4, 4]
            assert [event["number"] for event in healthy.read()] == [*range(1, 10), 2, 2, 2, 2, 2]
            received(full, 1)
            assert await relay.step() == 0, "what was refused has gone through"
            full.delete()
            assert [await relay.step() for _ in range(2)] == [0, 0], "two, and then four"
            await relay.step()
            assert await cursor(sql) == 9
        assert [event["number"] for event in healthy.read()][-8:] == [2, *range(3, 10)]


async def test_refusing_queue_is_logged_once_a_minute(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(rabbitmq.url) as connection:
        full = bound_queue(connection, "tests.full", **FULL_AFTER_ONE)
        async with relaying(engine, settings) as relay:
            await make_numbered(engine, sql, settings, 8)
            with capture_logs() as logs:
                for _ in range(5):
                    await relay.step()
                with monkeypatch.context() as patched:
                    patched.setattr("service.observability.failures.REMINDER_SECONDS", 0)
                    await relay.step()
                full.delete()
                for _ in range(2):
                    await relay.step()
    assert [(line["log_level"], line.get("number"), line["failures"]) for line in logs] == [
        ("error", 2, 1),
        ("error", 2, 6),
        ("info", None, 6),
    ]


async def test_slowly_read_full_queue_does_not_flood_others(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    with listening(rabbitmq.url) as healthy, connected(rabbitmq.url) as connection:
        full = bound_queue(connection, "tests.full", **FULL_AFTER_ONE)
        async with relaying(engine, settings) as relay:
            last = await make_numbered(engine, sql, settings, 40)
            while await cursor(sql) < last:
                await relay.step()
                received(full, 1)
        first_batch, of_each = last, 2
        assert len(healthy.read()) <= first_batch + of_each * last
        assert first_time(healthy.read()) == list(range(1, last + 1))


async def test_full_queue_of_another_reader_delays_no_booking(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    with connected(rabbitmq.url) as connection:
        bound_queue(connection, "tests.full", **FULL_AFTER_ONE)
        async with relaying(engine, settings) as relay:
            await make_numbered(engine, sql, settings, 8)
            await relay.step()
            ids = await make_holds(sql, settings, 4)
            await make_overdue(sql, *ids)
            await sweep.step(engine, settings)
            await relay.step()
    assert await count_states(sql) == {"EXPIRED": 4, "HELD": 8}

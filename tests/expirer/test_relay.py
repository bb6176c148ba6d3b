"""The relay publishes the log in its order, at least once; its cursor moves after the confirms, and only then."""

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from service.broker.topology import EXPIRED_QUEUE, holds_queue
from service.database import Connection, transaction
from service.errors import BrokerAway
from service.settings import Settings
from tests.stage.broker import bound_queue, connected, first_time, listening, message_count, received, until_waiting
from tests.stage.factories import make_settings
from tests.stage.holdings import make_holds, make_numbered, number_all
from tests.stage.relaying import Broker, cursor, relaying, until_published

OPEN_TRANSACTIONS = """
select count(*)
from pg_stat_activity
where application_name = 'rowlock-test'
and clock_timestamp() - xact_start > interval '1 s'
"""


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, rabbitmq: Broker) -> Settings:  # noqa: ARG001 - emptied first
    """With a broker."""
    return make_settings(postgres.url(), broker_url=rabbitmq.url, hold_seconds=1)


async def test_events_are_published_in_order_with_their_facts(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    three = settings.model_copy(update={"relay_batch_max": 3})
    with connected(rabbitmq.url) as connection:
        async with relaying(engine, three) as relay:
            queue = bound_queue(connection, "tests.all")
            (id_,) = await make_holds(sql, settings, 1)
            await make_numbered(engine, sql, settings, 6)
            waits = [await relay.step() for _ in range(4)]
        events = received(queue, 9)
    pause = settings.relay_interval_ms / 1000
    assert waits == [0, 0, 0, pause]
    assert [event["number"] for event in events] == list(range(1, 10))
    assert [event["kind"] for event in events[:2]] == ["session.created", "reservation.held"]
    seat = await sql.fetchrow("select id, session_id, position from seats where reservation_id = $1", id_)
    assert seat is not None
    assert events[1]["reservationId"] == str(id_)
    assert events[1]["sessionId"] == seat["session_id"]
    assert events[1]["seats"] == [{"seatId": seat["id"], "position": seat["position"], "state": "HELD", "version": 2}]
    assert await cursor(sql) == 9
    (log,) = {event["log"] for event in events}
    history = await sql.fetchval("select system_identifier || '-00000001' from pg_control_system()")
    assert log.startswith(history), "the server and its timeline: after a restore numbers mean something else"


async def test_standby_looks_again_soon_after_the_lease_may_have_ended(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    await make_numbered(engine, sql, settings, 1)
    slow = settings.model_copy(update={"relay_interval_ms": 10_000})
    async with relaying(engine, slow, "a") as active, relaying(engine, slow, "b") as standby:
        assert await active.step() == 10
        assert await standby.step() <= settings.lease_ms / 1000 / 4


async def test_event_is_persistent_and_named_by_its_properties(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    with connected(rabbitmq.url) as connection:
        async with relaying(engine, settings) as relay:
            queue = bound_queue(connection, "tests.one", "session.created.*")
            await make_numbered(engine, sql, settings, 1)
            await relay.step()
        message = queue.get(no_ack=True)
    assert message.content_type == "application/json"
    assert message.properties["delivery_mode"] == 2, "in a queue that is no quorum queue too"
    assert (message.properties["message_id"], message.properties["type"]) == ("1", "session.created")


async def test_queue_gets_only_the_kinds_and_sessions_it_binds(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    with connected(rabbitmq.url) as connection:
        async with relaying(engine, settings) as relay:
            holds = bound_queue(connection, "tests.holds", "reservation.held.*")
            await make_numbered(engine, sql, settings, 2)
            session_id = await sql.fetchval("select max(id) + 1 from sessions")
            second = bound_queue(connection, "tests.second", f"#.{session_id}")
            await make_numbered(engine, sql, settings, 2)
            await relay.step()
        assert [event["number"] for event in received(holds, 4)] == [2, 3, 5, 6]
        assert [event["number"] for event in received(second, 3)] == [4, 5, 6]


async def test_hint_becomes_a_dead_letter_when_its_hold_ends(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    async with relaying(engine, settings) as relay:
        (id_,) = await make_holds(sql, settings, 1, hold_seconds=1)
        await number_all(engine, settings)
        await relay.step()
    assert message_count(rabbitmq.url, EXPIRED_QUEUE) == 0
    with connected(rabbitmq.url) as connection:
        (hint,) = await asyncio.to_thread(received, EXPIRED_QUEUE(connection.channel()), 1)
    row = await sql.fetchrow("select expires_at, clock_timestamp() >= expires_at as due from reservations")
    assert row is not None
    assert hint == {"reservationId": str(id_), "expiresAt": row["expires_at"].isoformat()}
    assert row["due"], "not before it is due"


async def test_only_new_holds_give_hints(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    thirty = settings.model_copy(update={"hold_seconds": 30})
    async with relaying(engine, thirty) as relay:
        await make_numbered(engine, sql, settings, 5)
        await relay.step()
    assert await cursor(sql) == 6
    await until_waiting(rabbitmq.url, holds_queue(30_000, 1_000_000), 5)


async def test_cursor_moves_only_after_the_confirms(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    short = settings.model_copy(update={"confirm_timeout_ms": 2_000})
    with listening(rabbitmq.url) as listener:
        async with relaying(engine, short) as relay:
            last = await make_numbered(engine, sql, settings, 3)
            await relay.step()
            assert await cursor(sql) == last
            later = await make_numbered(engine, sql, settings, 3)
            rabbitmq.pause()
            with pytest.raises(BrokerAway, match=r"not confirmed|timed out|does not answer"):
                await relay.step()
            assert await cursor(sql) == last
            rabbitmq.resume()
            await until_published(relay, sql, later)
        events = await listener.until(later)
    assert first_time(events) == list(range(1, later + 1))


async def test_no_transaction_is_open_while_rabbitmq_is_waited_for(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    patient = settings.model_copy(update={"confirm_timeout_ms": 3_000})
    async with relaying(engine, patient) as relay:
        await make_numbered(engine, sql, settings, 1)
        await relay.step()
        await make_numbered(engine, sql, settings, 1)
        rabbitmq.pause()
        waiting = asyncio.create_task(relay.step())
        looks = 0
        while not waiting.done():
            assert await sql.fetchval(OPEN_TRANSACTIONS) == 0
            looks += 1
            await asyncio.sleep(0.02)
        with pytest.raises(BrokerAway):
            await waiting
        assert looks > 10
        rabbitmq.resume()


async def test_rabbitmq_is_not_talked_to_inside_of_a_transaction(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    async with relaying(engine, settings) as relay:
        await make_numbered(engine, sql, settings, 1)
        with pytest.raises(RuntimeError, match="RabbitMQ was called while a transaction is open"):
            async with transaction(engine):
                await relay.step()

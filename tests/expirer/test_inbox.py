"""The inbox settles dead letters in batches, acknowledges them after the commit, and parks what can't be settled."""

import asyncio
from itertools import chain, repeat
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs
from uuid_utils.compat import uuid7

from dev.postgres import Postgres
from expirer.loops import sweep
from service.broker.messages import Hint
from service.broker.topology import EXPIRED_QUEUE, PARKED_QUEUE
from service.database import Connection, create_engine, transaction
from service.errors import BrokerAway
from service.ledger.one_by_one import ONE_BY_ONE_SECONDS_MAX
from service.ledger.settling import settle
from service.reservation import State
from service.settings import Settings
from tests.stage.broker import send_hints, send_letter, until_waiting
from tests.stage.factories import settle_of
from tests.stage.forcing import locked, patient_settings, state_of, until_overdue
from tests.stage.holdings import count_states, hints_of, make_holds
from tests.stage.inboxes import inbox_of, make_dead_letters, mend, step_with, tamper, unsettled
from tests.stage.relaying import Broker
from tests.stage.waiting import until_lock_waits


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, rabbitmq: Broker) -> Settings:  # noqa: ARG001 - emptied first
    """With a broker."""
    return patient_settings(postgres, broker_url=rabbitmq.url)


async def test_a_batch_is_one_transaction_and_is_acknowledged(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    await make_dead_letters(sql, settings, rabbitmq.url, 20)
    async with inbox_of(engine, settings) as inbox:
        assert await step_with(inbox, 20) == 0
    assert await count_states(sql) == {"EXPIRED": 20}
    assert await sql.fetchval("select count(distinct xmin::text) from reservations") == 1
    assert unsettled(rabbitmq.url) == 0


async def test_a_batch_is_no_larger_than_its_setting(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    await make_dead_letters(sql, settings, rabbitmq.url, 20)
    async with inbox_of(engine, settings) as inbox:
        await step_with(inbox, 8)
        assert await count_states(sql) == {"EXPIRED": 8, "HELD": 12}
        await step_with(inbox, 8)
        await step_with(inbox, 4)
    assert await count_states(sql) == {"EXPIRED": 20}


async def test_letters_are_acknowledged_only_after_the_commit(
    engine: AsyncEngine, postgres: Postgres, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    ids = await make_dead_letters(sql, settings, rabbitmq.url, 3)
    (seat,) = await sql.fetchval("select seat_ids from reservations where id = $1", ids[1])
    async with inbox_of(engine, settings) as inbox:
        async with locked(postgres, "seats", seat):
            settling = asyncio.create_task(step_with(inbox, 3))
            await until_lock_waits(sql)
            inbox._letters._link.close()
            await until_waiting(rabbitmq.url, EXPIRED_QUEUE, 3)
        with pytest.raises(BrokerAway, match="the connection was lost; the messages are delivered again"):
            await settling
        assert await count_states(sql) == {"EXPIRED": 3}
        await step_with(inbox, 3)
    assert unsettled(rabbitmq.url) == 0
    assert await sql.fetchval("select count(*) from events where kind = 'reservation.expired'") == 3


async def test_early_paid_and_unknown_hints_change_nothing(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    (early,) = await make_holds(sql, settings, 1)
    paid, due = await make_holds(sql, settings, 2, hold_seconds=1)
    hints = await hints_of(sql, [early, paid, due])
    async with sql.transaction():
        await settle(sql, [settle_of(paid, State.CONFIRMED)])
    await until_overdue(sql, paid)
    send_hints(rabbitmq.url, [*hints, Hint(uuid7(), hints[0].expires_at)])
    async with inbox_of(engine, settings) as inbox:
        await step_with(inbox, 4)
    assert [await state_of(sql, id_) for id_ in (early, paid, due)] == ["HELD", "CONFIRMED", "EXPIRED"]
    assert unsettled(rabbitmq.url) == 0
    await until_waiting(rabbitmq.url, PARKED_QUEUE, 0)


async def test_repeated_and_reordered_hints_end_each_hold_once(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    ids = await make_dead_letters(sql, settings, rabbitmq.url, 5)
    send_hints(rabbitmq.url, reversed(await hints_of(sql, ids)))
    async with inbox_of(engine, settings) as inbox:
        await step_with(inbox, 10)
        send_hints(rabbitmq.url, await hints_of(sql, ids))
        await step_with(inbox, 5)
    assert await sql.fetchval("select count(*) from events where kind = 'reservation.expired'") == 5


async def test_hold_locked_by_a_payment_is_skipped_without_a_wait(
    engine: AsyncEngine, postgres: Postgres, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    ids = await make_dead_letters(sql, settings, rabbitmq.url, 3)
    async with inbox_of(engine, settings) as inbox, locked(postgres, "reservations", ids[1]), asyncio.timeout(10):
        await step_with(inbox, 3)
        assert [await state_of(sql, id_) for id_ in ids] == ["EXPIRED", "HELD", "EXPIRED"]
    assert unsettled(rabbitmq.url) == 0


async def test_locked_seat_is_left_to_the_sweep(
    postgres: Postgres, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    ids = await make_dead_letters(sql, settings, rabbitmq.url, 3)
    (seat,) = await sql.fetchval("select seat_ids from reservations where id = $1", ids[1])
    engine = create_engine(settings.model_copy(update={"lock_timeout_ms": 100}), "rowlock-test")
    async with inbox_of(engine, settings) as inbox, locked(postgres, "seats", seat):
        assert await step_with(inbox, 3) == 0
        assert [await state_of(sql, id_) for id_ in ids] == ["EXPIRED", "HELD", "EXPIRED"]
    assert unsettled(rabbitmq.url) == 0
    await until_waiting(rabbitmq.url, PARKED_QUEUE, 0)
    await sweep.step(engine, settings)
    assert await state_of(sql, ids[1]) == "EXPIRED"
    await engine.dispose()


async def test_one_by_one_goes_on_with_the_next_step_after_its_time(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    ids = await make_dead_letters(sql, settings, rabbitmq.url, 4)
    await tamper(sql, ids[1])
    over = float(ONE_BY_ONE_SECONDS_MAX + 1)
    seconds = chain([0.0], repeat(over))
    async with inbox_of(engine, settings, lambda: next(seconds)) as inbox:
        assert await step_with(inbox, 4) == 0
        assert await count_states(sql) == {"HELD": 4}
        await inbox.step()
        await until_waiting(rabbitmq.url, PARKED_QUEUE, 1)
    assert [await state_of(sql, id_) for id_ in ids] == ["EXPIRED", "HELD", "EXPIRED", "EXPIRED"]
    await mend(sql, ids[1])


UNREADABLE: dict[str, tuple[bytes, dict[str, Any]]] = {
    "no JSON": (b"expire", {}),
    "nothing": (b"", {}),
    "another JSON": (b"[1]", {}),
    "no id": (b'{"expiresAt": "2030-01-01T00:00:00Z"}', {}),
    "no time zone": (f'{{"reservationId": "{UUID(int=7)}", "expiresAt": "2030-01-01T00:00:00"}}'.encode(), {}),
    "a number for an id": (b'{"reservationId": 7, "expiresAt": "2030-01-01T00:00:00Z"}', {}),
    "not what its encoding says": (b"\xff\xfe\xfd", {}),
    "half a character": (b"+2AA-", {"content_encoding": "utf-7"}),
    "an unknown encoding": (b"{}", {"content_encoding": "rowlock"}),
    "an unknown compression": (b"{}", {"headers": {"compression": "rowlock"}}),
    "not what its compression says": (b"{}", {"headers": {"compression": "application/x-gzip"}}),
}


def lines_of(lines: list[Any], what: str) -> list[Any]:
    """The lines of the log about single dead letters."""
    return [line for line in lines if line["event"] == f"dead letter {what}"]


@pytest.mark.parametrize("letter", UNREADABLE.values(), ids=UNREADABLE)
async def test_unreadable_message_is_parked_alone(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker, letter: tuple[bytes, dict[str, Any]]
) -> None:
    await make_dead_letters(sql, settings, rabbitmq.url, 1)
    body, properties = letter
    send_letter(rabbitmq.url, body, **properties)
    await make_dead_letters(sql, settings, rabbitmq.url, 1)
    with capture_logs() as lines:
        async with inbox_of(engine, settings) as inbox:
            await step_with(inbox, 3)
            await until_waiting(rabbitmq.url, PARKED_QUEUE, 1)
    assert [(line["why"], line["reservation_id"]) for line in lines_of(lines, "parked")] == [("unreadable", None)]
    assert await count_states(sql) == {"EXPIRED": 2}
    assert unsettled(rabbitmq.url) == 0


async def test_message_that_keeps_failing_is_parked_alone(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    ids = await make_dead_letters(sql, settings, rabbitmq.url, 4)
    await tamper(sql, ids[1])
    with capture_logs() as lines:
        async with inbox_of(engine, settings) as inbox:
            await step_with(inbox, 4)
            await until_waiting(rabbitmq.url, PARKED_QUEUE, 1)
    assert {line["reservation_id"] for line in lines_of(lines, "failed")} == {str(ids[1])}
    assert [(line["why"], line["reservation_id"]) for line in lines_of(lines, "parked")] == [("failing", str(ids[1]))]
    assert [await state_of(sql, id_) for id_ in ids] == ["EXPIRED", "HELD", "EXPIRED", "EXPIRED"]
    assert unsettled(rabbitmq.url) == 0
    await mend(sql, ids[1])


async def test_failing_message_gets_as_many_tries_as_the_setting_says(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def note_pause(seconds: float) -> None:
        pauses.append(seconds)

    (id_,) = await make_dead_letters(sql, settings, rabbitmq.url, 1)
    await sql.execute(REFUSE)
    try:
        async with inbox_of(engine, settings.model_copy(update={"inbox_tries_max": 4})) as inbox:
            with monkeypatch.context() as patched:
                patched.setattr("expirer.loops.inbox.asyncio", SimpleNamespace(sleep=note_pause))
                await step_with(inbox, 1)
        await until_waiting(rabbitmq.url, PARKED_QUEUE, 1)
        assert await sql.fetchval("select last_value from tries") == 1 + 4, "together, and then four times alone"
        assert pauses == [0.05, 0.1, 0.2], "a little longer each time"
    finally:
        await sql.execute("drop trigger refuse on reservations; drop function refuse; drop sequence tries")
    assert await state_of(sql, id_) == "HELD"


# A sequence counts what is rolled back too.
REFUSE = """
create sequence tries;
create function refuse() returns trigger language plpgsql as $$
begin
    raise exception 'try %', nextval('tries');
end $$;
create trigger refuse before update on reservations for each row execute function refuse();
"""


async def test_rabbitmq_is_not_talked_to_inside_of_a_transaction(engine: AsyncEngine, settings: Settings) -> None:
    async with inbox_of(engine, settings) as inbox:
        with pytest.raises(RuntimeError, match="RabbitMQ was called while a transaction is open"):
            async with transaction(engine):
                await inbox.step()

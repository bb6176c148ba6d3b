"""Traces do not grow during an outage, and failed work is not shown as done."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from expirer.loops import sweep
from service.broker.consumer import Delivery
from service.database import Connection
from service.errors import CacheAway, DatabaseAway
from service.observability import tracing
from service.settings import Settings
from tests.stage.broker import send_hints
from tests.stage.collector import Collector
from tests.stage.factories import make_overdue, make_settings
from tests.stage.holdings import hints_of, make_holds
from tests.stage.inboxes import inbox_of, mend, step_with, tamper
from tests.stage.relaying import Broker
from tests.stage.seat_maps import projecting

TRACEPARENT = f"00-{'0a' * 16}-{'cd' * 8}-01"


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, rabbitmq: Broker, collector: Collector) -> Settings:  # noqa: ARG001 - emptied first
    """With RabbitMQ and a collector of traces."""
    return make_settings(postgres.url(), broker_url=rabbitmq.url, inbox_tries_max=2, trace_endpoint=collector.url)


async def make_traced(sql: Connection, settings: Settings, rabbitmq: Broker) -> list[UUID]:
    """Two overdue holds with a dead letter each, in traces `0a…` and `0b…`."""
    ids = await make_holds(sql, settings, 2)
    await make_overdue(sql, *ids)
    hints = {hint.reservation_id: hint for hint in await hints_of(sql, ids)}
    traced = [
        replace(hints[id_], traceparent=f"00-{trace * 16}-{'cd' * 8}-01")
        for id_, trace in zip(ids, ("0a", "0b"), strict=True)
    ]
    send_hints(rabbitmq.url, traced)
    return ids


def tries(collector: Collector) -> dict[str, list[bool]]:
    """Whether each `settle dead letter` failed, by trace."""
    found: dict[str, list[bool]] = {}
    for span in collector.named("settle dead letter"):
        found.setdefault(span.trace[:2], []).append(span.failed)
    return found


async def test_an_outage_adds_one_failed_try_to_a_trace(  # noqa: PLR0913, PLR0917 - fixtures
    engine: AsyncEngine,
    sql: Connection,
    settings: Settings,
    rabbitmq: Broker,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(_: object) -> int:
        raise DatabaseAway

    await make_traced(sql, settings, rabbitmq)
    async with inbox_of(engine, settings) as inbox, tracing.exported(settings, "inbox"):
        with monkeypatch.context() as patch:
            patch.setattr(inbox, "_settle", away)
            for _ in range(4):
                with pytest.raises(DatabaseAway):
                    await step_with(inbox, 2)
        await inbox.step()
    assert tries(collector) == {"0a": [True, False], "0b": [True, False]}
    assert [span.failed for span in collector.named("inbox")] == [True, False]


async def test_holds_settled_before_an_outage_have_not_failed(  # noqa: PLR0913, PLR0917 - fixtures
    engine: AsyncEngine,
    sql: Connection,
    settings: Settings,
    rabbitmq: Broker,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = await make_traced(sql, settings, rabbitmq)
    await tamper(sql, ids[1])
    async with inbox_of(engine, settings) as inbox, tracing.exported(settings, "inbox"):
        settle = inbox._settle

        async def then_go(deliveries: Sequence[Delivery]) -> int:
            if inbox._ids(deliveries) == {ids[1]}:
                raise DatabaseAway
            return await settle(deliveries)

        with monkeypatch.context() as patch:
            patch.setattr(inbox, "_settle", then_go)
            with pytest.raises(DatabaseAway):
                await step_with(inbox, 2)
        await mend(sql, ids[1])
        await inbox.step()
    assert tries(collector) == {"0a": [False], "0b": [True, False]}


async def test_a_parked_letter_failed_and_its_neighbour_did_not(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker, collector: Collector
) -> None:
    ids = await make_traced(sql, settings, rabbitmq)
    await tamper(sql, ids[0])
    async with inbox_of(engine, settings) as inbox, tracing.exported(settings, "inbox"):
        await step_with(inbox, 2)
    await mend(sql, ids[0])
    assert tries(collector) == {"0a": [True], "0b": [False]}
    (parked,) = [span for span in collector.named("settle dead letter") if span.failed]
    assert parked.attributes["error.type"] == "failing"


async def test_the_span_of_a_broken_hold_alone_has_failed(
    engine: AsyncEngine, sql: Connection, settings: Settings, collector: Collector
) -> None:
    ids = await make_holds(sql, settings, 2)
    await make_overdue(sql, *ids)
    await sql.execute("update reservations set traceparent = $1", TRACEPARENT)
    await tamper(sql, ids[0])
    async with tracing.exported(settings, "sweep"):
        await sweep.step(engine, settings)
    await mend(sql, ids[0])
    assert sorted(span.failed for span in collector.named("expire hold")) == [False, True]


async def test_holds_the_sweep_did_not_reach_in_an_outage_have_failed(
    engine: AsyncEngine,
    sql: Connection,
    settings: Settings,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = await make_holds(sql, settings, 4)
    for id_ in reversed(ids):
        # The first hold is the oldest.
        await make_overdue(sql, *ids[: ids.index(id_) + 1])
    await sql.execute("update reservations set traceparent = $1", TRACEPARENT)
    await tamper(sql, ids[3])
    settle_alone, went = sweep._settle_alone, []

    async def then_go(pool: AsyncEngine, id_: UUID) -> None:
        went.append(id_)
        if id_ == ids[1]:
            raise ValueError
        if id_ == ids[2]:
            raise DatabaseAway
        await settle_alone(pool, id_)

    monkeypatch.setattr(sweep, "_settle_alone", then_go)
    async with tracing.exported(settings, "sweep"):
        with pytest.raises(DatabaseAway):
            await sweep.step(engine, settings)
    await mend(sql, ids[3])
    assert went == ids[:3]
    spans = collector.named("expire hold")
    assert sorted(span.attributes.get("error.type", "") for span in spans) == [
        "", "DatabaseAway", "DatabaseAway", "ValueError",
    ]  # fmt: skip


async def test_holds_the_sweep_did_not_reach_in_time_fail_once(
    engine: AsyncEngine, sql: Connection, settings: Settings, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await make_holds(sql, settings, 2)
    await make_overdue(sql, *ids)
    await sql.execute("update reservations set traceparent = $1", TRACEPARENT)
    await tamper(sql, ids[1])
    set_aside = sweep.SetAside()
    async with tracing.exported(settings, "sweep"):
        with monkeypatch.context() as patched:
            patched.setattr(sweep, "ONE_BY_ONE_SECONDS_MAX", 0)
            for _ in range(3):
                await sweep.step(engine, settings, set_aside)
        await mend(sql, ids[1])
        await sweep.step(engine, settings, set_aside)
    spans = collector.named("expire hold")
    assert [span.attributes.get("error.type") for span in spans] == ["unsettled"] * 2 + [None] * 2


async def test_a_trace_has_the_sweeps_first_try_and_the_successful_one(
    engine: AsyncEngine, sql: Connection, settings: Settings, collector: Collector
) -> None:
    (broken,) = await make_holds(sql, settings, 1)
    await make_overdue(sql, broken)
    await sql.execute("update reservations set traceparent = $1", TRACEPARENT)
    await tamper(sql, broken)
    set_aside = sweep.SetAside()
    async with tracing.exported(settings, "sweep"):
        for _ in range(3):
            await sweep.step(engine, settings, set_aside)
            set_aside.holds.clear()
        await mend(sql, broken)
        await sweep.step(engine, settings, set_aside)
    assert [span.failed for span in collector.named("expire hold")] == [True, False]


async def test_a_trace_has_the_projectors_first_and_its_successful_try(
    sql: Connection, settings: Settings, redis: Redis | Container, collector: Collector
) -> None:
    await make_holds(sql, settings, 2)
    await sql.execute("update events set traceparent = $1 where kind = 'reservation.held'", TRACEPARENT)
    with_both = settings.model_copy(update={"redis_url": SecretStr(redis.url), "redis_timeout_ms": 5_000})
    async with projecting(with_both) as projection, tracing.exported(settings, "projector"):
        await projection.step()
        await projection.number()
        await projection.redis.config_set("maxmemory", 1)
        try:
            for _ in range(4):
                with pytest.raises(CacheAway):
                    await projection.projector.step()
        finally:
            await projection.redis.config_set("maxmemory", 0)
        await projection.step()
    assert [span.failed for span in collector.named("bring event to the cache")] == [True, True, False, False]

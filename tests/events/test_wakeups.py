"""Wake-ups after the commit: they are heard at once, are few, may be lost, and never delay a booking."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import RabbitMQ
from service.api.customer import render_hold
from service.database import Connection
from service.errors import SeatsTaken
from service.events import wakeups
from service.events.wakeups import Bell, Listener, News
from service.ledger.booking import BoxOffice
from service.ledger.claims import Held, Rules
from service.settings import Settings
from tests.stage.factories import hold_of, make_customers, make_session
from tests.stage.forcing import LIMITS, hold_one
from tests.stage.holdings import make_holds, make_numbered
from tests.stage.processes import Process, expirer_process
from tests.stage.relaying import cursor
from tests.stage.sources import statements
from tests.stage.waiting import until

AT_ONCE_SECONDS_MAX = 5


@dataclass(slots=True)
class Ears:
    """The news that a listener has called out."""

    news: list[News | str] = field(default_factory=list)

    async def until_heard(self, *expected: News | str) -> None:
        """Returns when exactly this was heard, and forgets it."""

        async def is_heard() -> bool:
            return len(self.news) >= len(expected)

        await until(is_heard, "the wake-up")
        assert sorted(self.news) == sorted(expected)
        self.news.clear()


@asynccontextmanager
async def listening(settings: Settings, ears: Ears, sender: str = "listener") -> AsyncIterator[Listener]:
    """A connected listener."""
    heard = {news: (lambda news=news: ears.news.append(news)) for news in News}
    listener = Listener(settings, sender, heard, lambda: ears.news.append("lost"))
    try:
        await listener.step()
        await ears.until_heard(*News)
        yield listener
    finally:
        await listener.close()


@asynccontextmanager
async def bell_of(settings: Settings, sender: str = "") -> AsyncIterator[Bell]:
    """A bell, closed at the end."""
    bell = Bell(settings, "rowlock-bell", sender)
    try:
        yield bell
    finally:
        await bell.close()


async def test_a_ring_is_heard_by_every_listener(settings: Settings) -> None:
    first, second = Ears(), Ears()
    async with listening(settings, first, "a"), listening(settings, second, "b"), bell_of(settings) as bell:
        bell.ring()
        await asyncio.gather(first.until_heard(News.COMMITTED), second.until_heard(News.COMMITTED))


async def test_a_sender_does_not_hear_itself(settings: Settings) -> None:
    own, other = Ears(), Ears()
    async with listening(settings, own, "a"), listening(settings, other, "b"), bell_of(settings, "a") as bell:
        bell.ring(News.NUMBERED)
        await other.until_heard(News.NUMBERED)
        async with bell_of(settings, "b") as others:
            others.ring(News.COMMITTED)
            await own.until_heard(News.COMMITTED)


async def test_rings_at_short_intervals_share_a_wake_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeups, "SPACING_SECONDS", 0.5)
    ears = Ears()
    async with listening(settings, ears), bell_of(settings) as bell:
        bell.ring()
        await ears.until_heard(News.COMMITTED)
        for _ in range(100):
            bell.ring()
            await asyncio.sleep(0)
        bell.ring(News.NUMBERED)
        await ears.until_heard(News.COMMITTED, News.NUMBERED)


async def test_a_bell_rings_again_after_its_connection_is_lost(
    settings: Settings, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "RETRY_SECONDS", 0.05)
    ears = Ears()
    async with listening(settings, ears), bell_of(settings) as bell:
        bell.ring()
        await ears.until_heard(News.COMMITTED)
        await end_sessions(sql, "rowlock-bell")

        async def is_heard() -> bool:
            bell.ring()
            await asyncio.sleep(0.02)
            return bool(ears.news)

        await until(is_heard, "a wake-up on another connection")


async def test_a_listener_connects_again_and_assumes_lost_wake_ups(settings: Settings, sql: Connection) -> None:
    ears = Ears()
    async with listening(settings, ears) as listener, bell_of(settings) as bell:
        await end_sessions(sql, "rowlock-listener")
        await ears.until_heard("lost")
        await listener.step()
        await ears.until_heard(*News)
        bell.ring()
        await ears.until_heard(News.COMMITTED)


async def end_sessions(sql: Connection, application_name: str) -> None:
    """Ends them as an administrator does."""
    await sql.fetch(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1", application_name
    )


async def test_a_hold_rings_once_after_its_transaction(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 2)
    seat_id = (await make_session(sql, settings)).seat_ids[0]
    connections_in_use: list[int] = []

    def ring() -> None:
        assert isinstance(engine.pool, QueuePool)
        connections_in_use.append(engine.pool.checkedout())

    box_office = BoxOffice(engine, Rules(30, 10), render_hold, LIMITS, ring)
    held, refused = [await hold_one(box_office, hold_of(customer, seat_id)) for customer in customers]
    assert isinstance(held, Held)
    assert isinstance(refused, SeatsTaken)
    assert connections_in_use == [0], "a refusal changes nothing, and a NOTIFY in a transaction serialises all commits"


def test_only_the_bell_notifies() -> None:
    notifying = {name for name, text in statements().items() if "notify" in text}
    assert notifying == {"service.events.wakeups.NOTIFY"}


async def test_an_expirer_that_is_woken_numbers_at_once_and_says_so(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    ears = Ears()
    async with (
        expirer_process(postgres.url(), sequencer_interval_ms=10_000) as expirer,
        listening(settings, ears),
        bell_of(settings) as bell,
    ):
        await until_listens(sql, expirer)
        await make_holds(sql, settings, 1)
        bell.ring()
        await ears.until_heard(News.COMMITTED, News.NUMBERED)
        assert await sql.fetchval("select count(*) from events where number is null") == 0


async def test_an_expirer_reads_at_once_what_another_has_numbered(
    postgres: Postgres, sql: Connection, engine: AsyncEngine, settings: Settings, rabbitmq: RabbitMQ | Container
) -> None:
    options = {"sequencer_interval_ms": 10_000, "relay_interval_ms": 10_000, "broker_url": rabbitmq.url}
    async with expirer_process(postgres.url(), **options) as expirer, bell_of(settings) as bell:
        await until_listens(sql, expirer)

        async def has_begun() -> bool:
            return await sql.fetchval("select owner from cursors where name = 'broker'") is not None

        await until(has_begun, "the relay")
        last = await make_numbered(engine, sql, settings, 1)
        bell.ring(News.NUMBERED)

        async def is_published() -> bool:
            return await cursor(sql) == last

        await until(is_published, "the publication", AT_ONCE_SECONDS_MAX)


async def until_listens(sql: Connection, expirer: Process) -> None:
    """Returns when the expirer's first steps are over, and only wake-ups are heard for ten seconds."""
    listens = "select count(*) from pg_stat_activity where application_name = 'rowlock-listener' and state = 'idle'"

    async def does() -> bool:
        return bool(await sql.fetchval(listens))

    await until(does, expirer.output())

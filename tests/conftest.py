"""Servers, an empty database for each test, the product in this process, and checks after each test."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis as AsyncRedis
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import RabbitMQ, Redis
from service.app import create_app
from service.database import Connection, create_engine
from service.settings import Settings
from tests.stage.broker import forget_everything
from tests.stage.factories import make_settings
from tests.stage.seat_maps import Projection, projecting, with_redis
from tests.stage.servers import NEWEST, OLDEST, Servers
from tests.stage.verdict import broken_rules

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

EMPTY_TABLES = """
truncate accounts, sign_in_failures, sessions, reservations, seats, payments, events, cursors, hold_queues, audits
restart identity
"""


def pytest_configure() -> None:
    """Makes the exporter send spans every 200 ms instead of every 5 s."""
    os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "200"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests marked `oldest_postgresql` run on both versions, the others on the newest."""
    if "postgres" in metafunc.fixturenames:
        majors = [NEWEST, OLDEST] if metafunc.definition.get_closest_marker("oldest_postgresql") else [NEWEST]
        metafunc.parametrize("postgres", majors, indirect=True, scope="session", ids=lambda major: f"pg{major}")


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """The servers of this worker."""
    started = Servers()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest, servers: Servers) -> Postgres:
    """A PostgreSQL with the schema."""
    return servers.get(request.param)


@pytest.fixture
async def sql(postgres: Postgres) -> AsyncIterator[Connection]:
    """The test's own connection to an empty database, in which every rule must hold after the test."""
    connection = await asyncpg.connect(postgres.url())
    await connection.execute(EMPTY_TABLES)
    yield connection
    try:
        assert await broken_rules(connection) == {}
    finally:
        await connection.close()


@pytest.fixture
async def redis(servers: Servers) -> AsyncIterator[Redis | Container]:
    """An empty Redis. After the test it works again, even if the test has killed or paused it."""
    server = servers.redis()
    client = AsyncRedis.from_url(server.url)
    await client.flushall()
    await client.aclose()
    yield server
    server.ensure_up()


@pytest.fixture
def rabbitmq(servers: Servers) -> Iterator[RabbitMQ | Container]:
    """A RabbitMQ without queues. After the test it works again, even if the test has killed or paused it."""
    server = servers.rabbitmq()
    forget_everything(server.url)
    yield server
    if isinstance(server, RabbitMQ) and not server.is_running():
        # A queue that was half declared at the crash can neither be used nor declared again.
        server.forget()
    server.ensure_up()


@pytest.fixture
def settings(postgres: Postgres, sql: Connection) -> Settings:  # noqa: ARG001 - the database is emptied first
    """The service's settings; `model_copy(update=...)` changes them."""
    return make_settings(postgres.url())


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """The service's own pool."""
    made = create_engine(settings, "rowlock-test")
    yield made
    await made.dispose()


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The API in this process, with its lifespan, and an HTTP client for it."""
    app = create_app(settings)
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: "Scope", receive: "Receive", send: "Send") -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        transport = httpx.ASGITransport(with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://rowlock") as client:
            yield client


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The API in this process."""
    async with serving(settings) as made:
        yield made


@pytest.fixture
async def projection(settings: Settings, redis: Redis | Container) -> AsyncIterator[Projection]:
    """A projector's batches on demand. The watermark in Redis outlives the test."""
    url = settings.database_url.get_secret_value()
    async with projecting(with_redis(url, redis, map_fresh_ms=60_000, map_wait_ms=5_000)) as made:
        yield made

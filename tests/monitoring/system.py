"""A running system with a Prometheus: an API, two expirers, all servers, and customers."""

import asyncio
import random
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from dev.containers import Container
from dev.monitoring.rules import rules
from dev.postgres import SUPERUSER, Postgres
from dev.processes import free_port
from dev.servers import RabbitMQ, Redis
from service.app import create_app
from service.database import Connection
from tests.monitoring.prometheus import Prometheus
from tests.stage.crowd import enter_all
from tests.stage.factories import Account, book, make_customers, make_session, make_settings, pay, release
from tests.stage.processes import Process, expirer_process, gunicorn_process

HOLD_SECONDS = 2
FACTOR = 20
CUSTOMERS = 40
PROBE_SECONDS = 0.2
STILL_SECONDS = 20
PATIENCE = "--timeout=120"
"""Otherwise gunicorn replaces a worker that is blocked for 15 to 30 seconds."""


@dataclass(frozen=True, slots=True)
class System:
    """`seat_ids` belong to one session that all customers want; `role` is the API's in PostgreSQL."""

    api: httpx.AsyncClient
    server: Process
    role: str
    expirers: Sequence[Process]
    prometheus: Prometheus
    customers: Sequence[Account]
    seat_ids: Sequence[int]

    async def storm(self, seconds: float) -> None:
        """All customers want the same few seats, and pay, release or abandon their holds."""
        until = time.monotonic() + seconds
        await asyncio.gather(*(self._shop(customer, until) for customer in self.customers))

    async def _shop(self, customer: Account, until: float) -> None:
        while time.monotonic() < until:
            reply = await book(self.api, customer, *random.sample(self.seat_ids[:16], 2))
            if reply.status_code != httpx.codes.CREATED:
                continue
            held = reply.json()["reservationId"]
            match random.choices(("pay", "release", "forget"), (1, 60, 39))[0]:
                case "pay":
                    await pay(self.api, customer, held)
                case "release":
                    await release(self.api, customer, held)

    async def browse(self, session_id: int, seconds: float) -> None:
        """Visitors read maps and lists, sign up, or fail to sign in."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await self.api.get(f"/customer/session/{session_id}")
            await self.api.get("/customer/list-sessions")
            address = f"{random.randint(0, 10**12)}@example.com"
            await self.api.post("/sign-up", json={"email": address, "password": "correct horse", "name": "Ada"})
            # After a wrong password the next attempt is delayed.
            await self.api.post("/sign-in", json={"email": "ada@example.com", "password": "not this one"})
            await asyncio.sleep(0.5)

    @asynccontextmanager
    async def probed(self) -> AsyncIterator[None]:
        """Polls the API's readiness during the block, as Kubernetes does."""
        probing = asyncio.create_task(self._probe())
        try:
            yield
        finally:
            probing.cancel()

    async def _probe(self) -> None:
        while True:
            with suppress(httpx.TransportError):
                await self.api.get("/readyz")
            await asyncio.sleep(PROBE_SECONDS)


def create_app_that_can_stand_still() -> FastAPI:
    """The API with an additional route that blocks the event loop."""

    async def stand_still(_: Request) -> Response:
        time.sleep(STILL_SECONDS)  # noqa: ASYNC251 - the event loop is stuck
        return Response()

    app = create_app()
    app.add_route("/stand-still", stand_still)
    return app


@asynccontextmanager
async def _role_of_the_api(postgres: Postgres, sql: Connection) -> AsyncIterator[str]:
    """A role with the owner's rights, so that a test can lock out only the API."""
    name = f"api_{secrets.token_hex(4)}"
    await sql.execute(f"create role {name} login password '{postgres.password}' in role current_user")
    try:
        yield name
    finally:
        await sql.execute(f"drop role {name}")


@asynccontextmanager
async def watched(
    postgres: Postgres, sql: Connection, redis: Redis | Container, rabbitmq: RabbitMQ | Container, factor: int = FACTOR
) -> AsyncIterator[tuple[System, int]]:
    """The system, and the id of the session that all customers want."""
    settings = make_settings(postgres.url())
    customers = await make_customers(sql, settings, CUSTOMERS)
    session = await make_session(sql, settings, seat_count=200)
    ports = [free_port() for _ in range(3)]
    shared = {
        "redis_url": redis.url,
        "broker_url": rabbitmq.url,
        "hold_seconds": HOLD_SECONDS,
        "lock_timeout_ms": 1_000,
        # A list waits as long, so that PostgreSQL sees its deadlock.
        "list_lock_timeout_ms": 1_000,
        "seats_per_customer_max": 1_000,
        "audit_interval_seconds": 1,
    }
    async with AsyncExitStack() as stack:
        role = await stack.enter_async_context(_role_of_the_api(postgres, sql))
        its_url = postgres.url().replace(SUPERUSER, role, 1)
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("GUNICORN_CMD_ARGS", PATIENCE)
        app = f"{__name__}:{create_app_that_can_stand_still.__name__}()"
        api = await stack.enter_async_context(gunicorn_process(app, its_url, metrics_port=ports[0], **shared))
        expirers = await enter_all(
            stack, [expirer_process(postgres.url(), expirer_metrics_port=port, **shared) for port in ports[1:]]
        )
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rowlock-prometheus-"))
        prometheus = Prometheus(Path(folder), targets={"api": ports[:1], "expirer": ports[1:]}, rules=rules(factor))
        prometheus.start()
        stack.callback(prometheus.stop)
        await prometheus.until_all_seen()
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=api.url, timeout=30))
        yield System(client, api, role, expirers, prometheus, customers, session.seat_ids), session.id

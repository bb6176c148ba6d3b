"""One campaign: starts everything, lets clients and nemesis loose, waits for quiet, reads the ledger, checks."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import httpx
import jwt

from expirer.loops.sweep import SET_ASIDE_SECONDS
from load.campaign import faults, subscriber
from load.campaign.checks import check
from load.campaign.device import TIMEOUT_SECONDS
from load.campaign.final import read_ledger
from load.campaign.ground import Customer, Field, OnSale
from load.campaign.history import Fault, History, Limits, Operation, last_line, line
from load.campaign.nemesis import Nemesis, heal
from load.campaign.plan import plan
from load.campaign.shoppers import Client
from load.campaign.system import System, started
from load.campaign.timeline import Violation
from service.database import IDLE_IN_TRANSACTION_SECONDS, Connection
from tests.stage.factories import TOKEN_SECRET, Account, make_customers, make_manager, make_session, make_settings

SESSIONS, SEATS, SOLD_MAX = 4, 24, 14
CUSTOMERS = 12
HOLD_SECONDS = 1
SEATS_PER_CUSTOMER_MAX = 4
LATE_SECONDS_MAX = IDLE_IN_TRANSACTION_SECONDS + SET_ASIDE_SECONDS + 2.0
"""A lost connection keeps the locks of its transaction until PostgreSQL ends it. If the sweep has met such a lock, it
sets the hold aside for a while.
"""
QUIET_POLL_SECONDS, QUIET_SECONDS_MAX = 0.2, 60
MAP_AGE_SECONDS_MAX = 3.0
TOKEN_AGE_SECONDS = 2 * 3_600
AUDIT_POLL_SECONDS, AUDIT_TRIES_MAX = 0.5, 120
NEW_SESSIONS_EVERY_SECONDS = 16
"""Seats that are sold stay sold, so sessions are added, and the oldest go out of use."""

START, SHOWTIME = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)

COUNT_UNSETTLED = """
select (select count(*) from reservations where state = 'HELD') + (select count(*) from events where number is null)
"""


@dataclass(frozen=True, slots=True)
class Options:
    """The command's options. `postgresql` None is the newest version."""

    seconds: float
    seed: int
    faults: Sequence[str]
    every_seconds: float = 3.0
    clients: int = 100
    postgresql: int | None = None
    synchronous: bool = True


@dataclass(slots=True)
class Result:
    """The outcome of a campaign."""

    history: History
    violations: list[Violation]
    postgresql: str
    skipped: list[tuple[str, str]] = field(default_factory=list)
    check_seconds: float = 0.0


async def run(options: Options, log: Path) -> Result:
    """The whole campaign; every operation is written to `log` as it ends."""
    history = History(Limits(HOLD_SECONDS, SEATS_PER_CUSTOMER_MAX, LATE_SECONDS_MAX, TIMEOUT_SECONDS))
    with log.open("wb") as file:
        file.write(line(history.limits))
        async with started(
            options.postgresql,
            synchronous=options.synchronous,
            three_brokers=not faults.NEED_THREE_BROKERS.isdisjoint(options.faults),
            own_disks="postgres-disk-full" in options.faults,
            hold_seconds=HOLD_SECONDS,
            seats_per_customer_max=SEATS_PER_CUSTOMER_MAX,
            audit_interval_seconds=1,
        ) as system:
            nemesis, postgresql = await _storm(options, system, history, file)
        for row in (*nemesis.done, *history.events, *history.reservations.values(), *history.seats.values()):
            file.write(line(row))
        file.write(last_line(history))
    began = time.monotonic()
    violations = await asyncio.to_thread(check, history)
    return Result(history, violations, postgresql, nemesis.skipped, time.monotonic() - began)


async def _storm(options: Options, system: System, history: History, file: IO[bytes]) -> tuple[Nemesis, str]:
    """The nemesis with its record, and the version of PostgreSQL."""
    await asyncio.to_thread(subscriber.subscribe, system.rabbitmq.url)
    ground = await _prepare(options, system, history, file)
    customers = await _customers(system)
    clients = [
        Client(ground, customers[number % len(customers)], f"{options.seed}-{number}")
        for number in range(options.clients)
    ]
    nemesis = Nemesis(system)
    planned = plan(options.seed, options.seconds, options.faults, every_seconds=options.every_seconds)
    progress = asyncio.create_task(_show_progress(ground, history, nemesis))
    renewal = asyncio.create_task(_renew_sessions(system, ground))
    await asyncio.gather(nemesis.run(planned), *(client.run() for client in clients))
    for task in (progress, renewal):
        task.cancel()
    history.defects += await heal(system)
    history.faults.append(Fault("heal", _now(), _now()))
    history.faults[:0] = nemesis.done
    await _settle_down(system, history, ground, clients)
    connection = await system.pair.connect()
    try:
        await read_ledger(connection, history)
        manager = await make_manager(connection, make_settings(system.pair.url))
        history.audit = await _audited(system, manager)
        history.deadlocks = system.pair.count_deadlocks()
        history.published = await asyncio.to_thread(subscriber.received, system.rabbitmq.url)
        postgresql: str = await connection.fetchval("show server_version")
    finally:
        await connection.close()
    return nemesis, postgresql


async def _prepare(options: Options, system: System, history: History, file: IO[bytes]) -> Field:
    def record(operation: Operation) -> None:
        history.operations.append(operation)
        file.write(line(operation))

    connection = await system.pair.connect()
    try:
        sessions = [await _session(system, connection) for _ in range(SESSIONS)]
    finally:
        await connection.close()
    urls = [process.url for process in system.apis]
    return Field(urls, sessions, HOLD_SECONDS, record, time.monotonic() + options.seconds)


async def _session(system: System, connection: Connection) -> OnSale:
    now = datetime.now(UTC)
    # A later session has an earlier showtime, so that those on sale are the first in the list.
    showtime = SHOWTIME - (now - START)
    made = await make_session(connection, make_settings(system.pair.url), SEATS, showtime)
    return OnSale(made.id, made.seat_ids, SOLD_MAX)


async def _customers(system: System) -> list[Customer]:
    connection = await system.pair.connect()
    try:
        made = await make_customers(connection, make_settings(system.pair.url), CUSTOMERS)
    finally:
        await connection.close()
    return [Customer(str(account.id), _issued_earlier(account.token)) for account in made]


def _issued_earlier(token: str) -> str:
    """The token as if it had been issued hours ago, so that a process with a wrong clock accepts it."""
    claims = jwt.decode(token, options={"verify_signature": False})
    return jwt.encode(claims | {"iat": claims["iat"] - TOKEN_AGE_SECONDS}, TOKEN_SECRET, "HS256")


async def _renew_sessions(system: System, ground: Field) -> None:
    """Puts a new session on sale now and then, also during a fault."""
    while True:
        await asyncio.sleep(NEW_SESSIONS_EVERY_SECONDS / SESSIONS)
        try:
            connection = await system.pair.connect()
        except OSError:
            continue
        try:
            new = await _session(system, connection)
        except Exception:  # noqa: BLE001, S112 - a fault was in the way: the next one comes soon
            continue
        finally:
            connection.terminate()
        ground.sessions = [*ground.sessions[1:], new]


async def _settle_down(system: System, history: History, ground: Field, clients: Sequence[Client]) -> None:
    """Resolves unknown outcomes, waits until no hold is left, and reads every map and list for the last time."""
    await asyncio.gather(*(client.device.resolve() for client in clients))
    connection = await system.pair.connect()
    try:
        for _ in range(int(QUIET_SECONDS_MAX / QUIET_POLL_SECONDS)):
            if not await connection.fetchval(COUNT_UNSETTLED):
                break
            await asyncio.sleep(QUIET_POLL_SECONDS)
        else:
            history.defects += (f"holds or unnumbered events are left after {QUIET_SECONDS_MAX:.0f} s without a fault",)
    finally:
        await connection.close()
    # Maps and counts may be as old as they say.
    await asyncio.sleep(MAP_AGE_SECONDS_MAX)
    history.on_sale = tuple(session.id for session in ground.sessions)
    for session in history.on_sale:
        await clients[0].read_last(session)


async def _audited(system: System, manager: Account) -> tuple[str, ...]:
    """The violations of the first self-audit that began after the campaign, a line each."""
    since = datetime.now(UTC)
    async with httpx.AsyncClient(base_url=system.apis[-1].url, headers=manager.headers) as client:
        for _ in range(AUDIT_TRIES_MAX):
            reply = (await client.get("/manager/audit")).json()
            if reply.get("beganAt") and datetime.fromisoformat(reply["beganAt"]) > since:
                return tuple(f"{found['check']}: {found['examples']}" for found in reply["violations"])
            await asyncio.sleep(AUDIT_POLL_SECONDS)
    return ("no round of the self-audit has finished after the campaign",)


async def _show_progress(ground: Field, history: History, nemesis: Nemesis) -> None:
    statuses: Counter[str] = Counter()
    while True:
        await asyncio.sleep(10)
        left = max(0.0, ground.ends_at - time.monotonic())
        statuses.update(str(operation.status) for operation in history.operations[statuses.total() :])
        shown = ", ".join(f"{status}: {count}" for status, count in statuses.most_common(6))
        print(f"{left:4.0f} s left, {len(history.operations)} operations ({shown}), {len(nemesis.done)} faults")  # noqa: T201


def _now() -> int:
    return time.time_ns() // 1_000

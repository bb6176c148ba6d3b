"""Reads the state of the ledger, the log, PostgreSQL and RabbitMQ every few seconds and sets gauges.

Prometheus may scrape at any rate, and several replicas: no scrape queries PostgreSQL.
"""

import math
import time
from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.thread import Thread
from service.audit import observations
from service.audit.observations import Holds, Log, Reader, Server
from service.broker.link import Link
from service.broker.topology import message_counts
from service.database import roll_back, transaction
from service.errors import BrokerAway
from service.observability.metrics import catalogue, values
from service.observability.metrics.values import KNOWN_SECONDS
from service.settings import Settings

INTERVAL_SECONDS = 5.0
READERS = {"broker": "relay", "cache": "projector"}
"""The loop that moves each cursor."""
NOBODY = Reader(math.nan, math.nan, math.nan)
UNKNOWN_HOLDS = Holds(math.nan, math.nan, math.nan, math.nan)
UNKNOWN_LOG = Log(math.nan, math.nan, math.nan, {})
UNKNOWN_SERVER = Server(math.nan, math.nan, math.nan)


class Observer:
    """One per process; `step` is for the supervisor."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._link = Link(settings) if settings.broker_url else None
        self._thread = Thread("observer")
        self._looked_at = -math.inf

    async def step(self, clock: Callable[[], float] = time.monotonic) -> float:
        """Observes once; seconds to wait. Raises as `transaction`. Old values stay for KNOWN_SECONDS then."""
        # RabbitMQ first: while PostgreSQL is away, dead letters accumulate.
        if self._link:
            await self._observe_broker(self._link)
        try:
            await self._look()
        except Exception:
            if clock() > self._looked_at + KNOWN_SECONDS:
                _show_nothing()
            raise
        self._looked_at = clock()
        catalogue.OBSERVED.of().set_to_current_time()
        return INTERVAL_SECONDS

    async def _look(self) -> None:
        async with transaction(self._engine) as connection:
            await connection.execute(observations.BOUND_STATEMENTS)
            holds = await observations.holds(connection)
            log = await observations.log(connection, self._settings.log_keep_hours)
            server = await observations.server(connection)
            await roll_back(connection)
        _show_holds(holds)
        _show_log(log)
        _show_server(server)

    async def close(self) -> None:
        """Ends the connection."""
        if self._link:
            await self._thread.run(self._link.close)
        self._thread.close()

    async def _observe_broker(self, link: Link) -> None:
        def count() -> dict[str, float]:
            with link.connected() as connection:
                connection.heartbeat_check()
                return dict(message_counts(connection, self._settings.hold_seconds * 1000))

        try:
            counts = await self._thread.run(count)
        except BrokerAway:
            # Unknown. The relay and the inbox log the reason.
            counts = dict.fromkeys(values.QUEUES, math.nan)
        for queue, number in counts.items():
            catalogue.MESSAGES.of(queue).set(number)


def _show_nothing() -> None:
    _show_holds(UNKNOWN_HOLDS)
    _show_log(UNKNOWN_LOG)
    _show_server(UNKNOWN_SERVER)


def _show_holds(holds: Holds) -> None:
    catalogue.OVERDUE_OLDEST_SECONDS.of().set(holds.overdue_seconds)
    catalogue.OVERDUE.of().set(holds.overdue)
    catalogue.HELD.of().set(holds.held)
    catalogue.ON_SALE.of().set(holds.on_sale)


def _show_log(log: Log) -> None:
    catalogue.LAG_EVENTS.of("sequencer").set(log.unnumbered)
    catalogue.LAG_SECONDS.of("sequencer").set(log.unnumbered_seconds)
    catalogue.LOG_EVENTS.of().set(log.kept)
    for name, loop in READERS.items():
        # A reader that was dropped has no lag.
        reader = log.readers.get(name, NOBODY)
        # The readers have not read events without a number either.
        catalogue.LAG_EVENTS.of(loop).set(reader.unread + log.unnumbered)
        catalogue.LAG_SECONDS.of(loop).set(max(reader.unread_seconds, log.unnumbered_seconds))
        catalogue.LOG_STUCK_EVENTS.of(loop).set(reader.stuck)


def _show_server(server: Server) -> None:
    catalogue.OLDEST_WRITE_SECONDS.of().set(server.write_seconds)
    catalogue.LOCK_WAITERS.of().set(server.waiting)
    catalogue.LOCK_OLDEST_SECONDS.of().set(server.waiting_seconds)

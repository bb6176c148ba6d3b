"""Wake-ups between processes: the expirer hears of committed events at once, and need not look for them often.

A booking transaction never sends NOTIFY, since that would serialise all commits. A `Bell` sends it afterwards, on a
connection of its own, for many commits at once. A wake-up may be lost: then the next poll finds the events.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextvars import Context
from enum import StrEnum

import structlog

from service.database import AWAY, PING, WAITED_TOO_LONG, Connection, connect
from service.errors import DatabaseAway, NotReady, Unavailable
from service.observability.failures import Failures, kind_of
from service.settings import Settings

SPACING_SECONDS = 0.01
"""Between two wake-ups of a process. The first one after a pause is sent at once."""
RETRY_SECONDS = 1.0
"""After a failure, to the next wake-up."""
CHECK_SECONDS = 15.0
"""How often a listener checks that its connection still works."""

log = structlog.stdlib.get_logger("rowlock.wakeups")


class News(StrEnum):
    """The channels: events were committed, or have got their numbers."""

    COMMITTED = "rowlock_committed"
    NUMBERED = "rowlock_numbered"


# The second argument is the sender, which need not hear itself. The wake-up's transaction has nothing to save, so it
# waits for no disk. That is for this transaction only: PgBouncer may give the session to bookings afterwards.
NOTIFY = """
select set_config('synchronous_commit', 'off', true), pg_notify($1, $2)
"""


class Bell:
    """Sends wake-ups. One per process; `sender` is its name."""

    def __init__(self, settings: Settings, application_name: str, sender: str = "") -> None:
        self._settings = settings
        self._application_name = application_name
        self._sender = sender
        self._news: set[News] = set()
        self._sending: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._failures = Failures()

    def ring(self, news: News = News.COMMITTED) -> None:
        """Sends a wake-up soon. The caller neither waits for it nor hears of its failure."""
        self._news.add(news)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send(), context=Context())

    async def close(self) -> None:
        """Ends the connection."""
        if self._sending:
            self._sending.cancel()
            await asyncio.wait([self._sending])
        self._drop()

    async def _send(self) -> None:
        while self._news:
            news, self._news = self._news, set()
            try:
                await self._notify(news)
            except (Unavailable, NotReady, *AWAY, *WAITED_TOO_LONG) as error:
                self._drop()
                if facts := self._failures.note(kind_of(error), time.monotonic()):
                    log.warning("no wake-ups: the expirer polls", error=repr(error), **facts)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                if facts := self._failures.end(time.monotonic()):
                    log.info("wake-ups are sent again", **facts)
                await asyncio.sleep(SPACING_SECONDS)

    async def _notify(self, news: set[News]) -> None:
        if self._connection is None:
            self._connection = await connect(self._settings, self._application_name)
        for each in news:
            await self._connection.execute(NOTIFY, each.value, self._sender)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


class Listener:
    """Hears the wake-ups of other senders, and calls the function for the news. `step` is for a supervisor.

    After each new connection it calls every function, since wake-ups may have been lost. `lost` is called when a
    connection ends, so that the next step need not wait.
    """

    def __init__(
        self, settings: Settings, sender: str, heard: Mapping[News, Callable[[], None]], lost: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._sender = sender
        self._heard = heard
        self._lost = lost
        self._connection: Connection | None = None

    async def step(self) -> float:
        """Connects where there is no connection, or checks it; seconds to wait. Raises DatabaseAway, NotReady."""
        try:
            if self._connection is None or self._connection.is_closed():
                await self._connect()
            else:
                await self._connection.execute(PING)
        except (*AWAY, *WAITED_TOO_LONG) as error:
            await self.close()
            raise DatabaseAway from error
        return CHECK_SECONDS

    async def close(self) -> None:
        """Ends the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _connect(self) -> None:
        self._connection = await connect(self._settings, "rowlock-listener")
        for news in self._heard:
            await self._connection.add_listener(news.value, self._hear)
        self._connection.add_termination_listener(lambda _: self._lost())
        for call in self._heard.values():
            call()

    def _hear(self, _connection: object, _pid: int, channel: str, sender: object) -> None:
        if sender != self._sender:
            self._heard[News(channel)]()

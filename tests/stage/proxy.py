"""A TCP proxy between the service and PostgreSQL, which does to one message of the service what a test wants."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from dev.postgres import Postgres

CHUNK_BYTES = 65_536
BEGIN, COMMIT = b"begin; set local", b"Q\x00\x00\x00\x0bcommit\x00"
"""Parts of the messages that begin and end a write."""
ANY_MESSAGE = b""
HOST = "127.0.0.1"


class Fault(Enum):
    """What happens to the message; everything else passes."""

    CUT_BEFORE = auto()
    """It is lost, and both sides are hung up on."""
    CUT_AFTER = auto()
    """PostgreSQL gets it; when it answers, both sides are hung up on instead."""
    SWALLOW = auto()
    """Neither it nor what comes after it arrives, not even that the service hangs up."""
    SWALLOW_ANSWER = auto()
    """PostgreSQL gets it; nothing that it says from then on arrives."""
    DELAY = auto()
    """PostgreSQL gets it when the test lets it through, even if the service has hung up meanwhile."""
    WITHHOLD = auto()
    """Neither it nor what comes after it arrives, until the service hangs up: then PostgreSQL is hung up on."""


@dataclass(slots=True)
class Strike:
    """A fault that waits for the first message with `needle` in it; `struck` when that has come."""

    fault: Fault
    needle: bytes
    struck: asyncio.Event = field(default_factory=asyncio.Event)
    let_through: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Side:
    """One of the two connections that the proxy joins."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def pass_on(self, data: bytes) -> None:
        """Sends it."""
        self.writer.write(data)
        await self.writer.drain()

    async def swallow_all(self) -> None:
        """Returns when it hangs up."""
        with suppress(ConnectionError):
            while await self.reader.read(CHUNK_BYTES):
                pass


@dataclass(slots=True)
class Proxy:
    """Listens on a port of its own; `accepted` counts the connections that were ever made to it."""

    postgres: Postgres
    port: int = 0
    accepted: int = 0
    strikes: list[Strike] = field(default_factory=list)
    _links: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """How to connect to PostgreSQL through the proxy."""
        return replace(self.postgres, port=self.port).url()

    @property
    def live(self) -> int:
        """How many connections there are now."""
        return len(self._links)

    def strike(self, fault: Fault, needle: bytes = COMMIT) -> Strike:
        """Does it once, to the next message with `needle` in it that no earlier strike waits for."""
        strike = Strike(fault, needle)
        self.strikes.append(strike)
        return strike

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Joins a new connection with one to PostgreSQL."""
        self.accepted += 1
        link = asyncio.create_task(self._join(Side(reader, writer)))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def close(self) -> None:
        """Closes all connections."""
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _join(self, service: Side) -> None:
        server = None
        with suppress(OSError):
            try:
                server = Side(*await asyncio.open_connection(HOST, self.postgres.port))
                await Link(self, service, server).run()
            finally:
                for side in filter(None, (service, server)):
                    side.writer.transport.abort()


@dataclass(slots=True)
class Link:
    """A connection through the proxy: bytes pass until one side hangs up or a fault ends it."""

    proxy: Proxy
    service: Side
    server: Side
    deaf: bool = False
    cut_at_answer: bool = False
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Returns when both sides are to be hung up on."""
        directions = [asyncio.create_task(self._to_server()), asyncio.create_task(self._to_service())]
        try:
            done, _ = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            for direction in done:
                direction.result()
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _to_server(self) -> None:
        while data := await self.service.reader.read(CHUNK_BYTES):
            strike = next((strike for strike in self.proxy.strikes if strike.needle in data), None)
            if strike is None:
                await self.server.pass_on(data)
                continue
            self.proxy.strikes.remove(strike)
            strike.struck.set()
            if strike.fault is Fault.CUT_BEFORE:
                return
            await self._do(strike, data)

    async def _do(self, strike: Strike, data: bytes) -> None:
        match strike.fault:
            case Fault.SWALLOW:
                await self.service.swallow_all()
                await asyncio.Event().wait()
            case Fault.WITHHOLD:
                await self.service.swallow_all()
            case Fault.DELAY:
                await strike.let_through.wait()
                self.answered.clear()
                await self.server.pass_on(data)
                # Before that, hanging up might take the message back.
                await self.answered.wait()
            case _:
                self.cut_at_answer = strike.fault is Fault.CUT_AFTER
                self.deaf = strike.fault is Fault.SWALLOW_ANSWER
                await self.server.pass_on(data)

    async def _to_service(self) -> None:
        while data := await self.server.reader.read(CHUNK_BYTES):
            self.answered.set()
            if self.cut_at_answer:
                return
            if not self.deaf:
                await self.service.pass_on(data)
        if self.deaf:
            await asyncio.Event().wait()


@asynccontextmanager
async def proxy_before(postgres: Postgres) -> AsyncIterator[Proxy]:
    """A proxy in front of this server, which may be away at times."""
    proxy = Proxy(postgres)
    listener = await asyncio.start_server(proxy.accept, HOST, 0)
    proxy.port = listener.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listener.close()
        await proxy.close()
        await listener.wait_closed()

"""A TCP proxy in front of PostgreSQL that counts the service's round trips and COMMITs, on the wire.

Wake-ups are not counted: a process sends at most one each 10 ms, whatever the number of its writes.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

from dev.postgres import Postgres

HOST = "127.0.0.1"
PROTOCOL_3 = 3 << 16
CHUNK_BYTES = 65_536
WAKE_UPS = b"rowlock-wakeups"
"""The application's name in the message that starts the session."""
ASKS = {b"Q", b"S", b"H"}
"""The messages after which the service waits for PostgreSQL: Query, Sync and Flush."""


@dataclass(slots=True)
class RoundTrips:
    """Counts until `forget`. `statements` are the texts of simple queries, such as `commit`."""

    url: str = ""
    count: int = 0
    statements: list[str] = field(default_factory=list)

    def forget(self) -> None:
        """Starts to count again at 0."""
        self.count = 0
        self.statements.clear()

    def note(self, kind: bytes, body: bytes) -> None:
        """Counts a message of the service."""
        self.count += kind in ASKS
        if kind == b"Q":
            self.statements.append(body.rstrip(b"\0").decode())

    async def join(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes on all messages of a connection."""
        server_reader, server_writer = await asyncio.open_connection(HOST, port)
        answers = asyncio.create_task(_pass_on(server_reader, writer))
        try:
            await self._listen(reader, server_writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            answers.cancel()
            for side in (writer, server_writer):
                side.transport.abort()

    async def _listen(self, service: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        started, is_counted = False, True
        while True:
            kind = await service.readexactly(1) if started else b""
            length = await service.readexactly(4)
            body = await service.readexactly(int.from_bytes(length) - 4)
            # A request for TLS may come before the message that starts the session; neither has a kind.
            started = started or int.from_bytes(body[:4]) == PROTOCOL_3
            if not kind and WAKE_UPS in body:
                is_counted = False
            if is_counted:
                self.note(kind, body)
            server.write(kind + length + body)
            await server.drain()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def counted(postgres: Postgres) -> AsyncIterator[RoundTrips]:
    """The counts of all connections that are made to its `url`."""
    trips, links = RoundTrips(), set[asyncio.Task[None]]()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.create_task(trips.join(postgres.port, reader, writer))
        links.add(link)

    listener = await asyncio.start_server(accept, HOST, 0)
    trips.url = replace(postgres, port=listener.sockets[0].getsockname()[1]).url()
    try:
        yield trips
    finally:
        listener.close()
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)
        await listener.wait_closed()

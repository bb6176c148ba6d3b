"""A small HTTP/1.1 client: one request at a time on a kept connection, which may hang up in the middle.

A campaign sends a million requests from the cores that the service needs; this costs a tenth of a full client.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

HEAD_BYTES_MAX = 16_384


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers in lower case, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """A connection to one address, opened when it is first needed and again after an error."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._timeout_seconds = timeout_seconds
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"", *, hang_up: bool = False
    ) -> Answer | None:
        """The answer, or None where none came: the service was gone, too slow, or `hang_up` was asked for."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._ask(method, path, headers, body, hang_up=hang_up)
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            self.close()
            return None

    def close(self) -> None:
        """Hangs up."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, *, hang_up: bool
    ) -> Answer | None:
        if self._streams is not None and _has_ended(self._streams[0]):
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=HEAD_BYTES_MAX)
        reader, writer = self._streams
        lines = [f"{method} {path} HTTP/1.1", "Host: rowlock", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()
        if hang_up:
            self.close()
            return None
        return await self._read(reader)

    async def _read(self, reader: asyncio.StreamReader) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
        length = int(headers.get("content-length", "0"))
        body = await reader.readexactly(length) if length else b""
        if headers.get("connection") == "close":
            self.close()
        return Answer(int(head[0].split(" ", 2)[1]), headers, body)


def _has_ended(reader: asyncio.StreamReader) -> bool:
    """Whether the service has closed the kept connection, after an answer or because it was killed."""
    return reader.at_eof() or reader.exception() is not None

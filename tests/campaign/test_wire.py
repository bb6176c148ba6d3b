"""The client of a campaign opens a connection again that the service has closed."""

import asyncio

from load.campaign.wire import Answer, Wire

ANSWER = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"


async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A service that closes each connection after its first answer, without saying so."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(ANSWER)
    await writer.drain()
    writer.close()


async def test_a_connection_that_was_closed_is_opened_again() -> None:
    async with await asyncio.start_server(answer_once, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        wire, other = (Wire(f"http://127.0.0.1:{port}", 5.0) for _ in range(2))
        assert await wire.ask("GET", "/", {}) == Answer(204, {"content-length": "0"}, b"")
        # Meanwhile the end of the first connection arrives.
        assert await other.ask("GET", "/", {}) is not None
        assert await wire.ask("GET", "/", {}) is not None
        wire.close()
        other.close()

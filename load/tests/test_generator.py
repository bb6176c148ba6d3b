"""The load generator sends each request once, counts every answer, and keeps to its times."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest

from load.bench import generator
from load.bench.generator import Answers, Load, request
from tests.stage.factories import Account


@dataclass(slots=True)
class Server:
    """Answers GET /N with status N, after `delay_seconds` and in two pieces; other methods with 201."""

    url: str = ""
    delay_seconds: float = 0
    asked: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        while head := await reader.readuntil(b"\r\n\r\n"):
            self.asked.append(head.decode())
            method, path, _ = head.decode().split(maxsplit=2)
            await asyncio.sleep(self.delay_seconds)
            writer.write(f"HTTP/1.1 {path[1:] if method == 'GET' else 201} x\r\nContent-Length: 4\r\n".encode())
            await writer.drain()
            writer.write(b"\r\nb")
            await writer.drain()
            writer.write(b"ody")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """The server, on a port of its own."""
    made = Server()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await made.serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    yield made
    listener.close()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled generator."""
    return generator.compiled(tmp_path_factory.mktemp("generator"))


async def send(program: Path, server: Server, load: Load, *requests: bytes) -> Answers:
    """The generator's report."""
    path = program.with_name("requests")
    generator.write(path, requests)
    return await generator.run(program, [server.url], load, path, {})


async def test_answers_are_counted_by_status(program: Path, server: Server) -> None:
    numbers = [200] * 30 + [409] * 20 + [503] * 10
    answers = await send(program, server, Load(4, 0, 10, rate=1_000), *(request("GET", f"/{n}") for n in numbers))
    assert answers.total == answers.measured == {200: 30, 409: 20, 503: 10}
    assert len(server.asked) == 60


async def test_answers_after_the_end_are_waited_for(program: Path, server: Server) -> None:
    server.delay_seconds = 0.3
    answers = await send(program, server, Load(8, 0, 0.1, repeated=True), request("GET", "/200"))
    assert answers.total == {200: 8} == {200: len(server.asked)}
    assert answers.measured == {}


async def test_warm_up_is_not_measured(program: Path, server: Server) -> None:
    answers = await send(program, server, Load(1, 0.2, 0.2, repeated=True), request("GET", "/200"))
    assert 0 < answers.measured[200] < answers.total[200]


async def test_latency_counts_from_the_requests_own_time(program: Path, server: Server) -> None:
    server.delay_seconds = 0.1
    answers = await send(program, server, Load(1, 0, 10, rate=1_000), *[request("GET", "/200")] * 10)
    # The requests are due within some milliseconds, and the only connection answers ten a second.
    assert answers.p50_ms > 350
    assert answers.backlog_max > 0


async def test_too_few_requests_fail(program: Path, server: Server) -> None:
    with pytest.raises(RuntimeError, match="too few"):
        await send(program, server, Load(1, 0, 1), request("GET", "/200"))


async def test_senseless_answer_fails(program: Path, server: Server) -> None:
    with pytest.raises(RuntimeError, match="status"):
        await send(program, server, Load(1, 0, 1), request("GET", "/0"))


async def test_hold_carries_token_and_key(program: Path, server: Server) -> None:
    await send(program, server, Load(1, 0, 5, rate=100), request("POST", "/x", Account(UUID(int=1), "token"), "key"))
    (asked,) = server.asked
    assert {"Authorization: Bearer token", "Idempotency-Key: key", "Content-Length: 0"} < set(asked.split("\r\n"))

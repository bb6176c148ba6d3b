"""The load generator sends each request once, counts every answer, and keeps to its times."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest

from load.bench import generator
from load.bench.answers import Answers
from load.bench.generator import Load, get_unless, request
from tests.stage.factories import Account


@dataclass(slots=True)
class Server:
    """Answers GET /N with status N and other methods with 201, after `delay_seconds` and in two pieces. The body is
    `ody` after the path's last byte.
    """

    url: str = ""
    delay_seconds: float = 0
    refusal_seconds: float = 0
    asked: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        while head := await reader.readuntil(b"\r\n\r\n"):
            self.asked.append(head.decode())
            method, path, _ = head.decode().split(maxsplit=2)
            await asyncio.sleep(self.refusal_seconds if path == "/503" else self.delay_seconds)
            writer.write(f"HTTP/1.1 {path[1:] if method == 'GET' else 201} x\r\nContent-Length: 4\r\n".encode())
            await writer.drain()
            writer.write(f"\r\n{path[-1]}".encode())
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


async def test_latencies_are_known_by_status(program: Path, server: Server) -> None:
    server.delay_seconds, server.refusal_seconds = 0.1, 0.3
    numbers = [200] * 3 + [503]
    answers = await send(program, server, Load(4, 0, 10, rate=1_000), *(request("GET", f"/{n}") for n in numbers))
    assert 100 <= answers.percentile_ms(0.99, 200) < 300 <= answers.percentile_ms(0.5, 503) == answers.max_ms
    assert answers.percentile_ms(0.99, 409) == 0


async def test_answers_name_their_requests(program: Path, server: Server) -> None:
    numbers = [200, 503, 200]
    answers = await send(program, server, Load(1, 0, 10, rate=1_000), *(request("GET", f"/{n}") for n in numbers))
    assert list(zip(answers.numbers, answers.statuses, strict=True)) == [(0, 200), (1, 503), (2, 200)]


async def test_longest_time_without_an_answer_is_known(program: Path, server: Server) -> None:
    server.refusal_seconds = 0.4
    numbers = [200, 503, 200]
    load = Load(1, 0, 10, to_the_end=True)
    answers = await send(program, server, load, *(request("GET", f"/{n}") for n in numbers))
    assert 0.4 <= answers.longest_without(200) <= answers.seconds


async def test_created_bodies_are_compared(program: Path, server: Server) -> None:
    paths = ["/a", "/b", "/a"]
    answers = await send(program, server, Load(1, 0, 10, rate=1_000), *(request("POST", path) for path in paths))
    first, other, again = answers.body_hashes
    assert first == again != other


async def test_load_to_the_end_answers_every_request(program: Path, server: Server) -> None:
    load = Load(4, 0, 10, to_the_end=True)
    answers = await send(program, server, load, *[request("GET", "/200")] * 20)
    assert answers.measured == {200: 20}
    assert answers.seconds < 10


async def test_load_that_does_not_end_fails(program: Path, server: Server) -> None:
    server.delay_seconds = 0.2
    with pytest.raises(RuntimeError, match="only 1"):
        await send(program, server, Load(1, 0, 0.1, to_the_end=True), *[request("GET", "/200")] * 2)


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


async def test_body_is_sent_as_json(program: Path, server: Server) -> None:
    await send(program, server, Load(1, 0, 5, rate=100), request("POST", "/x", body=b'{"a": 1}\r\n\r\n'))
    assert {"Content-Type: application/json", "Content-Length: 12"} < set(server.asked[0].split("\r\n"))


async def test_conditional_get_names_the_etag(program: Path, server: Server) -> None:
    await send(program, server, Load(1, 0, 5, rate=100), get_unless('"1"', "/304", Account(UUID(int=1), "token")))
    assert {"GET /304 HTTP/1.1", "Authorization: Bearer token", 'If-None-Match: "1"'} < set(
        server.asked[0].split("\r\n")
    )

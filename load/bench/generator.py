"""The load generator `generator.c`: compiled at the start, and run as a process of its own."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from dev.processes import ServerError
from load.bench import answers
from load.bench.answers import Answers
from load.bench.meter import reading
from tests.stage.factories import Account

SOURCE = Path(__file__).with_name("generator.c")
LATE_SHARE_MAX = 0.01
"""Requests that the generator may send more than a millisecond late. With more of them its latencies are void."""


@dataclass(frozen=True, slots=True)
class Load:
    """Without a `rate` each connection sends its next request when it has an answer. `repeated` requests never end. A
    load `to_the_end` is over when every request is answered, and `seconds` are its limit.
    """

    connections: int
    warm_up_seconds: float
    seconds: float
    rate: float = 0
    repeated: bool = False
    to_the_end: bool = False


def compiled(folder: Path) -> Path:
    """The generator's program. Raises ServerError."""
    program = folder / "generator"
    compiler = shutil.which("cc")
    if compiler is None:
        raise ServerError("a C compiler is missing: apt-get install gcc libc6-dev")
    command = [compiler, "-O2", "-std=gnu11", "-o", str(program), str(SOURCE), "-lm"]
    made = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own command
    if made.returncode != 0:
        raise ServerError(f"the load generator can't be compiled (apt-get install gcc libc6-dev): {made.stderr}")
    return program


def request(
    method: str, path: str, customer: Account | None = None, key: str | None = None, body: bytes = b""
) -> bytes:
    """A request as it is sent. The body is JSON."""
    lines = [f"{method} {path} HTTP/1.1", "Host: rowlock"]
    if customer:
        lines.append(f"Authorization: Bearer {customer.token}")
    if key:
        lines.append(f"Idempotency-Key: {key}")
    if body:
        lines.append("Content-Type: application/json")
    if method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def get_unless(etag: str, path: str, customer: Account) -> bytes:
    """A GET that is answered with 304 where the content still has this ETag."""
    line = f"If-None-Match: {etag}\r\n\r\n".encode()
    return request("GET", path, customer).removesuffix(b"\r\n") + line


def write(path: Path, requests: Iterable[bytes]) -> None:
    """Writes the requests for the generator."""
    with path.open("wb") as file:
        for text in requests:
            file.write(len(text).to_bytes(4, "little") + text)


async def run(
    program: Path, urls: Sequence[str], load: Load, requests: Path, parts: Mapping[str, Sequence[int]]
) -> Answers:
    """Sends the requests. `parts` are the processes whose CPU time counts.

    Raises RuntimeError where a connection was lost or the requests were too few.
    """
    ports = ",".join(str(urlsplit(url).port) for url in urls)
    numbers = (load.connections, load.warm_up_seconds, load.seconds, load.rate, int(load.repeated))
    process = await asyncio.create_subprocess_exec(
        program, ports, *map(str, numbers), requests, replies := requests.with_suffix(".answers"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    assert process.stderr
    parts = {**parts, "generator": [process.pid]}
    readings = []
    for mark in (b"begin\n", b"end\n"):
        if await process.stdout.readline() != mark:
            raise RuntimeError((await process.stderr.read()).decode())
        try:
            readings.append(reading(parts))
        except psutil.NoSuchProcess:
            raise RuntimeError(f"a process ended: {(await process.stderr.read()).decode()}") from None
    # This closes its input, for which it waits.
    output, errors = await process.communicate(b"")
    if process.returncode != 0:
        raise RuntimeError(errors.decode())
    found = json.loads(output)
    if found["exhausted"] and not load.rate and not load.to_the_end:
        raise RuntimeError(f"{found['sent']} requests were too few for {load.seconds} s")
    if load.to_the_end and not found["exhausted"]:
        raise RuntimeError(f"only {found['sent']} requests were sent within {load.seconds} s")
    return answers.read(replies, found, readings[0].until(readings[1]))

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
from load.bench.meter import Used, reading
from tests.stage.factories import Account

SOURCE = Path(__file__).with_name("generator.c")
LATE_SHARE_MAX = 0.01
"""Requests that the generator may send more than a millisecond late. With more of them its latencies are void."""


@dataclass(frozen=True, slots=True)
class Load:
    """Without a `rate` each connection sends its next request when it has an answer. `repeated` requests never end."""

    connections: int
    warm_up_seconds: float
    seconds: float
    rate: float = 0
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers by status: all of them, and those of the measured time, with their latencies.

    `late_share` of the requests was sent late by the generator itself.
    """

    total: Mapping[int, int]
    measured: Mapping[int, int]
    p50_ms: float
    p99_ms: float
    max_ms: float
    backlog_max: int
    late_share: float
    used: Used


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


def request(method: str, path: str, customer: Account | None = None, key: str | None = None) -> bytes:
    """A request without a body, as it is sent."""
    lines = [f"{method} {path} HTTP/1.1", "Host: rowlock"]
    if customer:
        lines.append(f"Authorization: Bearer {customer.token}")
    if key:
        lines.append(f"Idempotency-Key: {key}")
    if method != "GET":
        lines.append("Content-Length: 0")
    return "\r\n".join([*lines, "", ""]).encode()


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
        program, ports, *map(str, numbers), requests,
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
    return _answers(json.loads(output), load, readings[0].until(readings[1]))


def _answers(found: dict[str, object], load: Load, used: Used) -> Answers:
    total, measured = found["total"], found["measured"]
    assert isinstance(total, dict)
    assert isinstance(measured, dict)
    if found["exhausted"] and not load.rate:
        raise RuntimeError(f"{found['sent']} requests were too few for {load.seconds} s")
    return Answers(
        total={int(status): count for status, count in total.items()},
        measured={int(status): count for status, count in measured.items()},
        p50_ms=float(str(found["p50_ms"])),
        p99_ms=float(str(found["p99_ms"])),
        max_ms=float(str(found["max_ms"])),
        backlog_max=int(str(found["backlog_max"])),
        late_share=int(str(found["late"])) / int(str(found["sent"])),
        used=used,
    )

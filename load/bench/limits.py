"""The limits beside which holds are measured: N (HTTP alone), B (our SQL alone), P1 (one call a hold) and REF."""

import asyncio
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import asyncpg
from uuid_utils.compat import uuid7

from dev.postgres import Postgres
from dev.processes import ServerError
from load.bench import generator
from load.bench.generator import Load
from load.bench.ground import HOLD_SECONDS, Ground, check, fresh_database
from load.bench.measured import Measured, Timing
from load.bench.meter import Used, reading
from service.api.customer import render_hold
from service.database import Connection
from service.ledger import holding
from service.ledger.claims import Held, HoldRequest, Rules
from tests.stage.factories import Account
from tests.stage.processes import gunicorn_process

LIST_MEMBERS, LIST_CONNECTIONS = 64, 2
CALL_CONNECTIONS = 16
LOAD_CONNECTIONS = 64


async def nothing(ground: Ground, timing: Timing) -> Measured:
    """N: requests a second to a route that does nothing."""
    url = ground.settings.database_url.get_secret_value()
    async with gunicorn_process("load.bench.nothing:create_app()", url) as api:
        path = ground.folder / "requests"
        generator.write(path, [generator.request("GET", "/nothing")])
        load = Load(LOAD_CONNECTIONS, timing.warm_up_seconds, timing.seconds, repeated=True)
        answers = await generator.run(ground.generator, [api.url], load, path, {"API": [api.process.pid]})
    return Measured.of_answers("N", answers, 200)


async def reference(ground: Ground, timing: Timing) -> Measured:
    """REF: holds a second of the obvious version, over HTTP."""
    async with (
        fresh_database(ground) as url,
        gunicorn_process("load.bench.reference:app", url) as api,
    ):
        path = ground.folder / "requests"
        generator.write(path, hold_requests(ground.buyers))
        load = Load(LOAD_CONNECTIONS, timing.warm_up_seconds, timing.seconds)
        parts = {"API": [api.process.pid], **postgresql(ground)}
        answers = await generator.run(ground.generator, [api.url], load, path, parts)
        await check(url, held=answers.total.get(201, 0))
    return Measured.of_answers("REF", answers, 201)


def hold_requests(buyers: Iterable[tuple[Account, int]], first: int = 0) -> Iterator[bytes]:
    """A hold of one seat for each, with a key of its own. The keys are numbered from `first` on."""
    for n, (customer, seat_id) in enumerate(buyers, first):
        yield generator.request("POST", f"/customer/book/{seat_id}", customer, key_of(n))


def key_of(n: int) -> str:
    """The idempotency key of a hold."""
    return f"bench-{n}"


def postgresql(ground: Ground) -> dict[str, list[int]]:
    """The processes of PostgreSQL, for the CPU time of a measurement."""
    assert ground.postgres.process
    return {"PostgreSQL": [ground.postgres.process.pid]}


async def lists(ground: Ground, timing: Timing) -> Measured:
    """B: holds a second of our own ledger in lists, without HTTP."""
    async with fresh_database(ground) as url:
        connections = [await asyncpg.connect(url) for _ in range(LIST_CONNECTIONS)]
        waiting = iter(ground.buyers)
        warm = await _hold_lists(connections, waiting, timing.warm_up_seconds)
        before = reading(postgresql(ground))
        held = await _hold_lists(connections, waiting, timing.seconds)
        used = before.until(reading(postgresql(ground)))
        for connection in connections:
            await connection.close()
        await check(url, held=warm + held)
    return Measured.of_count("B", held, used)


async def _hold_lists(connections: Sequence[Connection], waiting: Iterator[tuple[Account, int]], seconds: float) -> int:
    end = time.perf_counter() + seconds

    async def keep_holding(connection: Connection) -> int:
        held = 0
        while time.perf_counter() < end:
            held += await hold_list(connection, [next(waiting) for _ in range(LIST_MEMBERS)])
        return held

    return sum(await asyncio.gather(*map(keep_holding, connections)))


async def hold_list(connection: Connection, buyers: Sequence[tuple[Account, int]]) -> int:
    """Holds the seats in one transaction, and returns their number. Raises RuntimeError if one is refused."""
    requests = [HoldRequest(id_ := uuid7(), customer.id, (seat_id,), str(id_)) for customer, seat_id in buyers]
    async with connection.transaction():
        answers = await holding.hold(connection, requests, Rules(HOLD_SECONDS, 10), render_hold)
    if not all(isinstance(answer, Held) for answer in answers):
        raise RuntimeError(f"a hold was refused: {answers}")
    return len(answers)


async def one_call(ground: Ground, timing: Timing) -> Measured:
    """P1: holds a second of pgbench, as one call of an SQL function each."""
    async with fresh_database(ground) as url:
        warm, _, _ = await _pgbench(ground, url, timing.warm_up_seconds)
        held, per_second, used = await _pgbench(ground, url, timing.seconds)
        await check(url, held=warm + held)
    return replace(Measured.of_count("P1", held, used), per_second=per_second)


async def _pgbench(ground: Ground, url: str, seconds: float) -> tuple[int, float, Used]:
    """The number of holds, and holds a second from when it had connected. It runs for whole seconds."""
    script = ground.folder / "one_call.pgbench"
    script.write_text("select bench_hold();\n")
    connections = ["--client", str(CALL_CONNECTIONS), "--jobs", "1", "--protocol", "prepared", "--no-vacuum"]
    process = await asyncio.create_subprocess_exec(
        _pgbench_program(ground.postgres), *connections, "--time", str(max(1, round(seconds))), "--file", script, url,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    before = reading(postgresql(ground))
    output, errors = await process.communicate()
    used = before.until(reading(postgresql(ground)))
    count = re.search(rb"transactions actually processed: (\d+)", output)
    per_second = re.search(rb"^tps = ([\d.]+)", output, re.MULTILINE)
    if process.returncode != 0 or count is None or per_second is None:
        raise RuntimeError(f"pgbench failed: {errors.decode()}")
    return int(count[1]), float(per_second[1]), used


def _pgbench_program(postgres: Postgres) -> str:
    """That of the running PostgreSQL, or Debian's. Raises ServerError."""
    own = postgres.binaries / "pgbench"
    program = str(own) if own.exists() else shutil.which("pgbench")
    if program is None:
        raise ServerError("pgbench is missing: apt-get install postgresql-contrib")
    return program

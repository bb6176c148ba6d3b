"""`make run` as a user meets it: it starts with demo data, keeps data, stops as a whole."""
# ruff: noqa: ASYNC240 - the few files do not delay the loop here

import asyncio
import errno
import os
import re
import shutil
import signal
import socket
import sys
from pathlib import Path

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis as AsyncRedis

from dev import demo
from dev.data_folder import opened
from dev.postgres import Postgres
from service.database import Connection
from tests.stage.processes import ROOT
from tests.stage.runs import (
    END_SECONDS_MAX,
    KINDS,
    OPTIONAL_KINDS,
    environment,
    kinds,
    running,
    start,
    started_with,
    welcome,
    with_servers,
)
from tests.stage.waiting import until


async def test_it_has_demo_data_and_a_second_run_keeps_what_was_held(folder: Path) -> None:
    variables = environment(folder)
    async with running(variables) as (_, text):
        commands = [line.strip() for line in text.splitlines() if line.startswith("  curl") or "token=$(" in line]
        assert len(commands) == 3
        for name in ("redis", "broker"):
            assert f"is off, because ROWLOCK_{name.upper()}_URL is empty" in text
        shell = await asyncio.create_subprocess_exec(
            "bash", "-euc", "\n".join(commands), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output = (await shell.communicate())[0].decode()
        assert '"state":"HELD"' in output
        for show in demo.SHOWS:
            seats = show.rows * show.seats_per_row
            assert f'"available":{seats},"held":0,"sold":0' in output
        assert kinds(folder) == set(KINDS)
    assert list(started_with(folder)) == []
    async with running(variables) as (_, text):
        token, before = await _sign_in(text)
        assert len(before) == 1
        api = httpx.AsyncClient(base_url=_address(text), headers={"Authorization": f"Bearer {token}"})
        async with api:
            sessions = (await api.get("/customer/list-sessions")).json()["sessions"]
            assert [session["movie"] for session in sessions] == [show.movie for show in demo.SHOWS]
            assert "swagger" in (await api.get("/api-docs")).text


async def test_it_starts_its_own_redis_and_rabbitmq(folder: Path) -> None:
    # The sweep comes once a minute: only a message of RabbitMQ releases the seat in time.
    variables = with_servers(environment(folder, hold_seconds=1, sweep_interval_ms=60_000))
    async with running(variables) as (_, text):
        (redis_url,) = re.findall(r"redis://\S+", text)
        async with AsyncRedis.from_url(redis_url) as redis:
            assert await redis.ping()
        assert kinds(folder) == set(KINDS + OPTIONAL_KINDS)
        await _hold_and_wait_for_release(text)
    assert list(started_with(folder)) == []
    # The broker of the second run is empty, and the database is not.
    async with running(variables) as (_, text):
        await _hold_and_wait_for_release(text)


async def _hold_and_wait_for_release(text: str) -> None:
    token, _ = await _sign_in(text)
    async with httpx.AsyncClient(base_url=_address(text), headers={"Authorization": f"Bearer {token}"}) as api:
        assert (await api.post("/customer/book/1")).status_code == 201

        async def is_released() -> bool:
            held = await api.get("/customer/list-history?state=HELD")
            return bool(held.json()["reservations"] == [])

        await until(is_released, "the release of the seat")


async def test_without_their_programs_it_names_the_packages(folder: Path, tmp_path: Path) -> None:
    redis_server = shutil.which("redis-server")
    assert redis_server
    (tmp_path / "redis-server").symlink_to(redis_server)
    variables = with_servers(environment(folder)) | {"PATH": str(tmp_path)}
    async with running(variables) as (_, text):
        assert "RabbitMQ is off, because" in text
        assert "apt-get install rabbitmq-server: unpaid seats are released by the sweep alone" in text
        assert "Redis is off" not in text
        assert kinds(folder) == {*KINDS, "redis-server"}


def _has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        return probe.connect_ex(("::1", 9)) != errno.EADDRNOTAVAIL


WITH_IPV6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no ::1")


@pytest.mark.parametrize(
    "host", ["127.0.0.2", pytest.param("::1", marks=WITH_IPV6), pytest.param("::", marks=WITH_IPV6)]
)
async def test_everything_answers_at_its_printed_address(folder: Path, host: str) -> None:
    async with running(environment(folder, host=host, metrics_port=0, expirer_port=0)) as (_, text):
        urls = re.findall(r"http://\S+/(?:readyz|livez|metrics)\b", text)
        assert [url.rpartition("/")[2] for url in urls] == ["readyz", "livez", "metrics"]
        by_ipv4 = [url.replace("[::1]", "127.0.0.1") for url in urls] if host == "::" else []
        async with httpx.AsyncClient() as client:
            assert {url: (await client.get(url)).status_code for url in urls + by_ipv4} == dict.fromkeys(
                urls + by_ipv4, 200
            )
        (database,) = re.findall(r"postgresql://\S+", text)
        connection = await asyncpg.connect(database)
        assert await connection.fetchval("select count(*) from sessions") == len(demo.SHOWS)
        await connection.close()


def _address(text: str) -> str:
    found = re.search(r"(http://\S+)/api-docs", text)
    assert found
    return found.group(1)


async def _sign_in(text: str) -> tuple[str, list[object]]:
    """The first demo customer's token and whole history."""
    async with httpx.AsyncClient(base_url=_address(text)) as api:
        body = {"email": demo.CUSTOMERS[0], "password": demo.PASSWORD}
        token = (await api.post("/sign-in", json=body)).json()["token"]
        history = await api.get("/customer/list-history?state=ALL", headers={"Authorization": f"Bearer {token}"})
        return token, history.json()["reservations"]


async def test_modes_and_owners_of_an_existing_folder_stay(folder: Path) -> None:
    folder.mkdir(mode=0o711)
    before = {path: path.stat() for path in (folder, folder.parent)}
    async with running(environment(folder)):
        pass
    for path, was in before.items():
        now = path.stat()
        assert (now.st_mode, now.st_uid, now.st_gid) == (was.st_mode, was.st_uid, was.st_gid)


async def test_a_variable_names_another_postgresql(folder: Path, postgres: Postgres, sql: Connection) -> None:
    async with running(environment(folder, database_url=postgres.url())) as (_, text):
        assert not [line for _, line in started_with(folder) if "postgres -D" in line]
        assert postgres.password not in text
        assert await sql.fetchval("select count(*) from sessions") == len(demo.SHOWS)


@pytest.mark.parametrize(("command", "log"), [("-m expirer", "expirer.log"), ("postgres -D", "postgresql/log")])
async def test_the_end_of_a_part_ends_the_run_and_shows_its_log(folder: Path, command: str, log: str) -> None:
    process = await start(environment(folder))
    await welcome(process)
    part = min(pid for pid, line in started_with(folder) if command in line)
    os.kill(part, signal.SIGKILL)
    rest, _ = await asyncio.wait_for(process.communicate(), END_SECONDS_MAX)
    assert process.returncode == 1
    assert f"{folder}/{log} ends with" in rest.decode()


@pytest.mark.parametrize("killed", ["-m dev.run", "-m gunicorn"])
async def test_after_a_hard_kill_no_process_is_left(folder: Path, killed: str) -> None:
    variables = environment(folder)
    process = await start(with_servers(variables) if "dev.run" in killed else variables)
    await welcome(process)
    os.kill(min(pid for pid, line in started_with(folder) if killed in line), signal.SIGKILL)
    await asyncio.wait_for(process.communicate(), END_SECONDS_MAX)

    async def all_gone() -> bool:
        return not list(started_with(folder))

    await until(all_gone, "the end of all its processes")


async def test_clean_refuses_the_data_folder_of_a_run(folder: Path) -> None:
    clean = [sys.executable, "-m", "dev.data_folder"]
    with opened(folder):
        refused = await asyncio.create_subprocess_exec(
            *clean, cwd=ROOT, env=environment(folder), stderr=asyncio.subprocess.PIPE
        )
        assert b"another make run uses" in (await refused.communicate())[1]
        assert refused.returncode == 1
    assert folder.exists()
    removed = await asyncio.create_subprocess_exec(*clean, cwd=ROOT, env=environment(folder))
    assert await removed.wait() == 0
    assert not folder.exists()


async def test_ctrl_c_during_the_start_leaves_no_process(folder: Path) -> None:
    process = await start(with_servers(environment(folder)))
    assert process.stdout is not None
    await process.stdout.readuntil(b"starting PostgreSQL")
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.communicate(), END_SECONDS_MAX)
    assert process.returncode == 0

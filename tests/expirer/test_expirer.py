"""The expirer as a process: it ends overdue holds once and never early, survives outages, and stops cleanly."""

import asyncio
import contextlib
import json
import signal
import socket
import sys
from pathlib import Path
from uuid import UUID

import asyncpg
import httpx
import pytest

from dev.postgres import Postgres
from expirer.__main__ import START_FAILED, create_app
from service.database import Connection
from service.migrate import migrate
from service.settings import Settings
from tests.stage.factories import hold_of, make_customer, make_overdue, make_session, make_settings
from tests.stage.forcing import give, give_all, locked, patient_settings, state_of
from tests.stage.processes import ROOT, Process, environment, expirer_process
from tests.stage.servers import Servers
from tests.stage.waiting import until, until_lock_waits

OFTEN_MS = 100
AT_ONCE_SECONDS_MAX = 10


@pytest.fixture
def settings(postgres: Postgres, sql: Connection) -> Settings:  # noqa: ARG001 - the database is emptied first
    """No request times out while the test keeps a lock."""
    return patient_settings(postgres)


async def until_ended(sql: Connection, *reservation_ids: UUID) -> None:
    """Returns when none of them is held any more."""
    query = "select count(*) from reservations where id = any($1) and state = 'HELD'"

    async def is_over() -> bool:
        return not await sql.fetchval(query, reservation_ids)

    await until(is_over, "the end of the holds")


async def until_written(process: Process, text: str) -> None:
    """Returns when its log has the text."""

    async def is_there() -> bool:
        return text in await asyncio.to_thread(Path(process.log.name).read_text)

    await until(is_there, text)


async def test_seats_come_back_soon_after_the_deadline_and_none_early(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    async with expirer_process(postgres.url(), sweep_interval_ms=OFTEN_MS) as expirer:
        held = [await give(sql, customer, seat_id, hold_seconds=1 + n % 2) for n, seat_id in enumerate(seats[:6])]
        later = await give(sql, customer, *seats[6:8])
        async with httpx.AsyncClient() as client:
            alive = await client.get(f"{expirer.url}/livez")
        await until_ended(sql, *held)
    assert (alive.status_code, alive.json()) == (200, {"status": "alive", "silent": []})
    waits = await sql.fetch("select settled_at - expires_at as wait from reservations where id <> $1", later)
    assert all(0 <= row["wait"].total_seconds() <= OFTEN_MS / 1000 + AT_ONCE_SECONDS_MAX for row in waits)
    assert await state_of(sql, later) == "HELD"
    free = await sql.fetchval("select array_agg(id order by id) from seats where state = 'AVAILABLE'")
    assert free == [*seats[:6], *seats[8:]]


async def test_three_expirers_end_a_thousand_overdue_holds_each_once(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings, 1_000)).seat_ids
    held = await give_all(sql, [hold_of(customer, seat_id) for seat_id in seats])
    variables = {"sweep_interval_ms": 50, "sweep_batch_max": 20}
    async with contextlib.AsyncExitStack() as stack:
        expirers = [expirer_process(postgres.url(), **variables) for _ in range(3)]
        await asyncio.gather(*map(stack.enter_async_context, expirers))
        await make_overdue(sql, *held)
        await until_ended(sql, *held)
    assert await sql.fetchval("select count(*) from events where kind = 'reservation.expired'") == 1_000
    assert await sql.fetchval("select count(*) from seats where state = 'AVAILABLE' and version = 3") == 1_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_sigterm_finishes_the_current_step_and_exits_with_zero(
    postgres: Postgres, sql: Connection, settings: Settings, number: signal.Signals
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    first, second = [await give(sql, customer, seat_id) for seat_id in seats[:2]]
    variables = {"lock_timeout_ms": 15_000, "statement_timeout_ms": 15_000, "sweep_batch_max": 1, "log_level": "info"}
    async with expirer_process(postgres.url(), **variables) as expirer:
        async with locked(postgres, "seats", seats[0]):
            await make_overdue(sql, first)
            await until_lock_waits(sql)
            await make_overdue(sql, second)
            expirer.process.send_signal(number)
            await until_written(expirer, "Waiting for application shutdown")
            assert (expirer.process.returncode, await state_of(sql, first)) == (None, "HELD")
        assert await asyncio.wait_for(expirer.process.wait(), AT_ONCE_SECONDS_MAX) == 0
        assert "Traceback" not in expirer.output()
    assert (await state_of(sql, first), await state_of(sql, second)) == ("EXPIRED", "HELD")


async def test_told_to_stop_while_it_waits_it_exits_at_once(settings: Settings) -> None:
    url = settings.database_url.get_secret_value()
    async with expirer_process(url, sweep_interval_ms=60_000) as expirer:
        expirer.process.terminate()
        assert await asyncio.wait_for(expirer.process.wait(), AT_ONCE_SECONDS_MAX) == 0


async def test_expirer_survives_postgresql_outages_from_the_start(servers: Servers) -> None:
    server = servers.make("of-the-expirer")
    try:
        await migrate(server.url())
        server.stop()
        async with expirer_process(server.url(), sweep_interval_ms=50) as expirer:
            await until_written(expirer, "step failed")
            server.start()
            await see_a_hold_end(server)
            server.kill()
            server.start()
            await see_a_hold_end(server)
            assert expirer.process.returncode is None
    finally:
        server.kill()


async def see_a_hold_end(server: Postgres) -> None:
    """Makes an overdue hold, and returns when an expirer has ended it."""
    connection = await asyncpg.connect(server.url())
    settings = make_settings(server.url())
    customer, session = await make_customer(connection, settings), await make_session(connection, settings)
    held = await give(connection, customer, session.seat_ids[0])
    await make_overdue(connection, held)
    await until_ended(connection, held)
    await connection.close()


async def test_livez_reports_dead_only_while_a_loop_hangs(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seat_id = (await make_session(sql, settings)).seat_ids[0]
    held = await give(sql, customer, seat_id)
    # Less than the settings allow, whose five seconds are too long for a test.
    app = create_app(settings.model_copy(update={"heartbeat_seconds_max": 0.2, "sweep_interval_ms": 50}))

    async def is_dead() -> bool:
        reply = await client.get("/livez")
        return (reply.status_code, reply.json()) == (503, {"status": "dead", "silent": ["sweep"]})

    async def is_alive() -> bool:
        return (await client.get("/livez")).status_code == 200

    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://it") as client:
        async with locked(postgres, "seats", seat_id):
            await until(is_alive, "the first steps")
            await make_overdue(sql, held)
            await until(is_dead, "the end of the patience")
        await until(is_alive, "the end of the step")
    assert await state_of(sql, held) == "EXPIRED"


async def test_a_port_that_can_not_be_had_is_named_and_nothing_starts(postgres: Postgres) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        expirer = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "expirer"),
            env=environment(postgres.url(), expirer_port=port),
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
        )
        _, output = await asyncio.wait_for(expirer.communicate(), 60)
    assert expirer.returncode == START_FAILED
    (line,) = map(json.loads, output.splitlines())
    assert (line["event"], line["level"]) == ("not starting", "critical")
    assert line["reason"].startswith(f"can't listen on 127.0.0.1:{port}: ")

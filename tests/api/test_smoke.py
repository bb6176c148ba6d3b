"""`python -m service.smoke`: its output for an API that works, and for one that does not."""

import asyncio
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from dev.postgres import Postgres
from dev.processes import free_port
from service import smoke
from service.database import Connection
from service.smoke import Limits
from tests.stage.commands import Result, run
from tests.stage.processes import api_process, environment

EMAIL, PASSWORD = "manager@example.com", "correct horse battery"
STEPS = """\
ok    it answers
ok    a manager signs in
ok    a session is put on sale
ok    two customers sign up
ok    the first one holds a seat
ok    the second one is refused
ok    the first one pays
ok    the second one is still refused
ok    the first one finds it in the history
"""


async def make_manager(client: httpx.AsyncClient) -> None:
    """The account that the smoke signs in with."""
    body = {"email": EMAIL, "password": PASSWORD, "name": "Thea", "role": "MANAGER"}
    assert (await client.post("/sign-up", json=body)).status_code == 201


async def run_smoke(url: str, **account: str) -> Result:
    """The command, which knows the address and the account alone."""
    variables = {name: value for name, value in environment("").items() if not name.startswith("ROWLOCK_")}
    variables |= {f"ROWLOCK_SMOKE_{name.upper()}": value for name, value in account.items()}
    return await run((sys.executable, "-m", "service.smoke", url), variables)


async def test_it_goes_through_a_sale_and_is_soon_off_sale(postgres: Postgres, sql: Connection) -> None:
    async with api_process(postgres.url()) as api:
        async with httpx.AsyncClient(base_url=api.url) as client:
            await make_manager(client)
        assert await run_smoke(api.url, email=EMAIL, password=PASSWORD) == Result(0, STEPS, "")
    assert await sql.fetchval("select array_agg(state) from reservations") == ["CONFIRMED"]
    minutes = timedelta(minutes=smoke.ON_SALE_MINUTES)
    assert await sql.fetchval("select max(showtime) from sessions") < datetime.now(UTC) + minutes


async def test_without_an_account_it_names_the_variables() -> None:
    result = await run_smoke("http://127.0.0.1:1", email=EMAIL)
    assert (result.code, result.output) == (2, "")
    assert "ROWLOCK_SMOKE_PASSWORD" in result.errors


async def failure(client: httpx.AsyncClient) -> str:
    """The line about the step that failed."""
    with pytest.raises(SystemExit) as ended:
        await smoke.smoke(client, EMAIL, PASSWORD, start_seconds_max=0)
    return str(ended.value.code)


async def test_a_wrong_password_is_reported(client: httpx.AsyncClient) -> None:
    said = await failure(client)
    assert said.startswith("FAIL  a manager signs in: POST /sign-in was answered 401 ")


async def test_where_nothing_listens_it_gives_up() -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{free_port()}") as nobody:
        assert (await failure(nobody)).startswith("FAIL  it answers: ")


@pytest.mark.parametrize(
    ("path", "status", "told", "step"),
    [
        ("/customer/book", 409, 201, "the second one is refused: "),
        ("/customer/pay", 200, 503, "the first one pays: "),
    ],
)
async def test_an_unexpected_status_fails_the_step(
    client: httpx.AsyncClient, path: str, status: int, told: int, step: str
) -> None:
    await make_manager(client)

    async def lie(response: httpx.Response) -> None:
        if response.request.url.path.startswith(path) and response.status_code == status:
            response.status_code = told

    client.event_hooks["response"].append(lie)
    assert (await failure(client)).startswith(f"FAIL  {step}")


async def test_a_refusal_for_another_reason_fails_the_step(client: httpx.AsyncClient) -> None:
    await make_manager(client)

    async def lie(response: httpx.Response) -> None:
        if response.status_code == 409:
            await response.aread()
            response._content = response.content.replace(b"seats-taken", b"sale-closed")

    client.event_hooks["response"].append(lie)
    assert "sale-closed instead of seats-taken" in await failure(client)


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


async def end_of_main(url: str, monkeypatch: pytest.MonkeyPatch, limits: Limits) -> str:
    """The message that the command exits with."""
    monkeypatch.setattr(sys, "argv", ["smoke", url])
    monkeypatch.setenv("ROWLOCK_SMOKE_EMAIL", EMAIL)
    monkeypatch.setenv("ROWLOCK_SMOKE_PASSWORD", PASSWORD)
    async with asyncio.timeout(20):
        with pytest.raises(SystemExit) as ended:
            # A thread, because the command has an event loop of its own.
            await asyncio.to_thread(smoke.main, limits)
    return str(ended.value.code)


async def test_the_whole_run_is_bounded_and_names_its_last_step(
    silent: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await end_of_main(silent, monkeypatch, Limits(seconds=0.3)) == "smoke: not done within 0.3 s"
    assert capsys.readouterr().err == "FAIL  it answers: it was still waiting\n"


async def test_each_request_has_a_timeout(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(start_seconds=0, request_seconds=0.3)
    assert await end_of_main(silent, monkeypatch, limits) == "FAIL  it answers: ReadTimeout"


async def test_it_waits_for_an_api_that_has_just_started(client: httpx.AsyncClient) -> None:
    await make_manager(client)
    statuses = iter([503, 503])

    async def be_away_at_first(response: httpx.Response) -> None:
        response.status_code = next(statuses, response.status_code)

    client.event_hooks["response"].append(be_away_at_first)
    await smoke.smoke(client, EMAIL, PASSWORD)
    assert next(statuses, None) is None


@pytest.mark.parametrize(
    ("path", "given", "told", "step"),
    [
        (
            "/customer/list-history",
            b'"reservations":[',
            b'"reservations":[{"reservationId":"another"},',
            "the first one f",
        ),
        ("/sign-in", b"{", b"<html>", "a manager signs in: POST /sign-in was answered 200 <html>"),
    ],
)
async def test_an_unexpected_body_fails_the_step(
    client: httpx.AsyncClient, path: str, given: bytes, told: bytes, step: str
) -> None:
    await make_manager(client)

    async def lie(response: httpx.Response) -> None:
        if response.request.url.path == path:
            await response.aread()
            response._content = response.content.replace(given, told)

    client.event_hooks["response"].append(lie)
    assert (await failure(client)).startswith(f"FAIL  {step}")

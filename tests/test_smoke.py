"""`python -m service.smoke`: what it says about an API that works, and about one that does not."""

import sys
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from dev.postgres import Postgres, free_port
from service import smoke
from service.database import Connection
from tests.commands import Result, run
from tests.processes import api_process, environment

EMAIL, PASSWORD = "manager@example.com", "correct horse battery"
STEPS = """\
ok    it answers
ok    a manager signs in
ok    a session is put on sale
ok    two customers sign up
ok    the first one holds a seat
ok    the second one is refused it
ok    the first one pays
ok    the second one is refused it as before
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


async def test_it_holds_is_refused_and_pays_through_the_real_service_and_is_soon_off_sale(
    postgres: Postgres, sql: Connection
) -> None:
    async with api_process(postgres.url()) as api:
        async with httpx.AsyncClient(base_url=api.url) as client:
            await make_manager(client)
        assert await run_smoke(api.url, email=EMAIL, password=PASSWORD) == Result(0, STEPS, "")
    assert await sql.fetchval("select array_agg(state) from reservations") == ["CONFIRMED"]
    minutes = timedelta(minutes=smoke.ON_SALE_MINUTES)
    assert await sql.fetchval("select max(showtime) from sessions") < datetime.now(UTC) + minutes


async def test_without_an_account_it_says_what_it_needs() -> None:
    result = await run_smoke("http://127.0.0.1:1", email=EMAIL)
    assert (result.code, result.output) == (2, "")
    assert "ROWLOCK_SMOKE_PASSWORD" in result.errors


async def failure(client: httpx.AsyncClient, password: str = PASSWORD) -> str:
    """The line about the step that failed."""
    with pytest.raises(SystemExit) as ended:
        await smoke.smoke(client, EMAIL, password)
    return str(ended.value.code)


async def test_a_wrong_password_is_told(client: httpx.AsyncClient) -> None:
    said = await failure(client)
    assert said.startswith("FAIL  a manager signs in: POST /sign-in was answered 401 ")


async def test_where_nobody_answers_it_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "START_SECONDS_MAX", 0)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{free_port()}") as nobody:
        assert (await failure(nobody)).startswith("FAIL  it answers: ")


@pytest.mark.parametrize(
    ("path", "status", "told", "step"),
    [
        ("/customer/book", 409, 201, "the second one is refused it: "),
        ("/customer/pay", 200, 503, "the first one pays: "),
    ],
)
async def test_a_service_that_answers_otherwise_fails_the_step(
    client: httpx.AsyncClient, path: str, status: int, told: int, step: str
) -> None:
    await make_manager(client)

    async def lie(response: httpx.Response) -> None:
        if response.request.url.path.startswith(path) and response.status_code == status:
            response.status_code = told

    client.event_hooks["response"].append(lie)
    assert (await failure(client)).startswith(f"FAIL  {step}")


async def test_a_refusal_for_another_reason_is_no_proof(client: httpx.AsyncClient) -> None:
    await make_manager(client)

    async def lie(response: httpx.Response) -> None:
        if response.status_code == 409:
            await response.aread()
            response._content = response.content.replace(b"seats-taken", b"sale-closed")

    client.event_hooks["response"].append(lie)
    assert "sale-closed instead of seats-taken" in await failure(client)

"""The log has one line a request, with its ids and the right level, and never a secret."""

import asyncio
import json
import re
from typing import Any

import httpx
import pytest

from dev.postgres import Postgres
from service.app import create_app
from service.database import Connection
from service.settings import Settings
from tests.conftest import serving
from tests.stage.factories import book, make_customer, make_manager, make_session, make_settings
from tests.stage.logged import Capture, lines
from tests.stage.processes import api_process, expirer_process
from tests.stage.seat_maps import unreadable
from tests.stage.waiting import until, until_lock_waits

SECRET = "marked-secret"
EMAIL = "marked-mail@example.com"
BODY = {"email": EMAIL, "password": f"{SECRET} password", "name": "Ada", "movie": SECRET, "seatIds": [SECRET]}
AWAY = f"postgresql://ada:{SECRET}@127.0.0.1:1/rowlock"


def of_requests(logged: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines that have a request's id."""
    return [line for line in logged if "request_id" in line]


def told(logged: list[dict[str, Any]]) -> list[tuple[str, str | None, int, str]]:
    """The method, route, status and level of each request."""
    return [(line["method"], line["route"], line["status"], line["level"]) for line in of_requests(logged)]


@pytest.fixture
def settings(postgres: Postgres, sql: Connection) -> Settings:  # noqa: ARG001 - emptied first
    """Logs everything."""
    return make_settings(postgres.url(), log_level="debug")


async def test_each_request_but_health_checks_has_one_line_with_ids(
    sql: Connection, settings: Settings, capsys: Capture
) -> None:
    customer = await make_customer(sql, settings)
    session = await make_session(sql, settings)
    given = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01", "X-Request-ID": "mine"}
    async with serving(settings) as client:
        await client.get("/customer/list-sessions", headers=given)
        await book(client, customer, session.seat_ids[0])
        await book(client, customer, session.seat_ids[0])
        for path in ("/livez", "/readyz", "/nowhere"):
            await client.get(path)
    logged = lines(capsys)
    assert told(logged) == [
        ("GET", "/customer/list-sessions", 200, "info"),
        ("POST", "/customer/book", 201, "info"),
        ("POST", "/customer/book", 409, "info"),
        ("GET", None, 404, "info"),
    ]
    requests = of_requests(logged)
    assert (requests[0]["request_id"], requests[0]["trace_id"]) == ("mine", "ab" * 16)
    for name in ("request_id", "trace_id"):
        assert len({line[name] for line in requests}) == len(requests)
    assert all(re.fullmatch("[0-9a-f]{32}", line["trace_id"]) for line in requests)


async def test_a_defect_is_one_error_line_with_its_traceback(
    sql: Connection, settings: Settings, capsys: Capture
) -> None:
    await sql.execute("alter table sign_in_failures rename to elsewhere")
    try:
        async with serving(settings) as client:
            reply = await client.post("/sign-in", json={"email": EMAIL, "password": SECRET})
    finally:
        await sql.execute("alter table elsewhere rename to sign_in_failures")
    logged = lines(capsys)
    assert told(logged) == [("POST", "/sign-in", 500, "error")]
    assert "UndefinedTableError" in of_requests(logged)[0]["exception"]
    assert of_requests(logged)[0]["request_id"] == reply.json()["requestId"]


async def test_an_outage_is_one_warning_line_with_its_cause(capsys: Capture) -> None:
    async with serving(make_settings(AWAY)) as client:
        assert (await client.get("/customer/list-sessions")).status_code == 503
    logged = lines(capsys)
    assert told(logged) == [("GET", "/customer/list-sessions", 503, "warning")]
    assert "Connect call failed" in of_requests(logged)[0]["cause"]
    assert SECRET not in str(logged)


async def test_an_unanswered_request_is_a_warning(
    sql: Connection, settings: Settings, capsys: Capture, postgres: Postgres
) -> None:
    async with serving(settings) as client, unreadable(postgres, "sessions"):
        asking = asyncio.create_task(client.get("/customer/list-sessions"))
        await until_lock_waits(sql)
        asking.cancel()
        await asyncio.wait([asking])
    assert told(lines(capsys)) == [("GET", "/customer/list-sessions", 0, "warning")]


async def test_no_route_logs_secrets_tokens_or_addresses(
    sql: Connection, settings: Settings, postgres: Postgres
) -> None:
    people = [await make_customer(sql, settings), await make_manager(sql, settings)]
    account = {name: BODY[name] for name in ("email", "password", "name")}
    answers = set()
    paths: dict[str, dict[str, Any]] = create_app(settings).openapi()["paths"]
    async with (
        api_process(postgres.url(), log_level="debug", redis_url=f"redis://:{SECRET}@127.0.0.1:1/0") as api,
        httpx.AsyncClient(base_url=api.url) as client,
    ):
        signed_up = await client.post("/sign-up", json=account)
        signed_in = await client.post("/sign-in", json={name: BODY[name] for name in ("email", "password")})
        tokens = [signed_up.json()["token"], signed_in.json()["token"], *(person.token for person in people)]
        for token in (*tokens, f"eyJ{SECRET}.{SECRET}.{SECRET}"):
            for path, methods in paths.items():
                for method, operation in methods.items():
                    answers.add(await ask(client, method, path, token))
                    answers.add(await ask(client, method, path, token, operation))
        await sql.execute("alter table sessions rename to elsewhere")
        try:
            answers.add(await ask(client, "get", "/customer/list-sessions", tokens[0], {}))
        finally:
            await sql.execute("alter table elsewhere rename to sessions")
        output = api.output()
    assert answers >= {200, 401, 403, 409, 422, 500}
    assert output.count('"event":"request"') > 50
    for secret in (SECRET, EMAIL, "marked-mail", *tokens, *(token.rpartition(".")[2] for token in tokens)):
        assert secret not in output


async def ask(
    client: httpx.AsyncClient, method: str, path: str, token: str, declared: dict[str, Any] | None = None
) -> int:
    """Asks with secrets in every part of the request, or only in those that are declared. Returns the status."""
    body = {name: value for name, value in BODY.items() if name in ("email", "password", "name") or "sign" not in path}
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": SECRET, "Cookie": f"session={SECRET}"}
    secrets = {} if declared is not None else {"password": SECRET, "token": token}
    content = body if declared is None or "requestBody" in declared else None
    asked = await client.request(method, re.sub(r"{\w+}", SECRET, path), params=secrets, json=content, headers=headers)
    return asked.status_code


async def test_a_defect_that_quotes_a_row_logs_nothing_of_it(
    sql: Connection, settings: Settings, capsys: Capture
) -> None:
    await sql.execute("alter table accounts add constraint no_ada check (name <> 'Ada')")
    try:
        async with serving(settings) as client:
            reply = await client.post("/sign-up", json={k: BODY[k] for k in ("email", "password", "name")})
    finally:
        await sql.execute("alter table accounts drop constraint no_ada")
    assert reply.status_code == 500
    output = capsys.readouterr().err
    assert "CheckViolationError" in output
    for secret in (EMAIL, "marked-mail", "argon2id", SECRET):
        assert secret not in output


async def test_expirer_lines_name_loop_and_batch_and_hide_passwords(
    postgres: Postgres,
    sql: Connection,  # noqa: ARG001 - emptied first
) -> None:
    variables = {
        "broker_url": f"amqp://ada:{SECRET}@127.0.0.1:1/rowlock",
        "redis_url": f"redis://ada:{SECRET}@127.0.0.1:1/0",
        "log_level": "debug",
    }
    async with expirer_process(postgres.url(), **variables) as expirer:

        async def failed() -> bool:
            return {"projector", "inbox"} <= {line.get("loop") for line in map(json.loads, whole(expirer.output()))}

        await until(failed, "a line of the projector and one of the inbox")
        await expirer.stop()
        output = expirer.output()
    of_loops = [line for line in map(json.loads, whole(output)) if "loop" in line]
    assert all(re.fullmatch("[0-9a-f]{8}", line["batch_id"]) for line in of_loops)
    assert SECRET not in output


def whole(output: str) -> list[str]:
    """The complete lines."""
    return output.split("\n")[:-1]

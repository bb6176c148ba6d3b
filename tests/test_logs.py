"""What stands in the log: one line a request, with its ids and the right level, and never a secret."""

import json
import logging
import re
import sys
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import structlog
from structlog.testing import capture_logs

from dev.postgres import Postgres
from service import telemetry
from service.app import create_app
from service.database import Connection
from service.settings import Settings
from tests.conftest import serving
from tests.factories import book, make_customer, make_manager, make_session, make_settings
from tests.processes import api_process, expirer_process
from tests.waiting import until

SECRET = "marked-secret"
EMAIL = "marked-mail@example.com"
BODY = {"email": EMAIL, "password": f"{SECRET} password", "name": "Ada", "movie": SECRET, "seatIds": [SECRET]}
AWAY = f"postgresql://ada:{SECRET}@127.0.0.1:1/rowlock"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbg"
Capture = pytest.CaptureFixture[str]


def lines(capture: Capture) -> list[dict[str, Any]]:
    """What we have logged since the last time; every line is JSON. The test's own client logs here too."""
    logged = [json.loads(line) for line in capture.readouterr().err.splitlines()]
    return [line for line in logged if line["logger"].startswith("rowlock")]


def of_requests(logged: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines that have a request's id."""
    return [line for line in logged if "request_id" in line]


def told(logged: list[dict[str, Any]]) -> list[tuple[str, str | None, int, str]]:
    """Of each request what, where, how it ended, and how bad that is."""
    return [(line["method"], line["route"], line["status"], line["level"]) for line in of_requests(logged)]


@pytest.fixture
def settings(postgres: Postgres, sql: Connection) -> Settings:  # noqa: ARG001 - emptied first
    """Tells everything."""
    return make_settings(postgres.url(), log_level="debug")


async def test_each_request_has_one_line_with_its_ids_and_health_checks_have_none(
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


async def test_a_defect_is_one_line_that_is_an_error_with_where_it_happened(
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


async def test_what_is_away_is_one_line_that_is_a_warning_and_says_why(capsys: Capture) -> None:
    async with serving(make_settings(AWAY)) as client:
        assert (await client.get("/customer/list-sessions")).status_code == 503
    logged = lines(capsys)
    assert told(logged) == [("GET", "/customer/list-sessions", 503, "warning")]
    assert "Connect call failed" in of_requests(logged)[0]["cause"]
    assert SECRET not in str(logged)


async def test_no_route_logs_a_secret_a_token_or_an_address_whatever_it_answers(
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
                answers |= {await ask(client, method, path, token) for method in methods}
        await sql.execute("alter table sessions rename to elsewhere")
        try:
            answers.add(await ask(client, "get", "/customer/list-sessions", tokens[0]))
        finally:
            await sql.execute("alter table elsewhere rename to sessions")
        output = api.output()
    assert answers >= {200, 401, 403, 409, 422, 500}
    assert output.count('"event":"request"') > 50
    for secret in (SECRET, EMAIL, "marked-mail", *tokens, *(token.rpartition(".")[2] for token in tokens)):
        assert secret not in output


async def ask(client: httpx.AsyncClient, method: str, path: str, token: str) -> int:
    """Asks with secrets wherever there is room; the answer's status."""
    body = {name: value for name, value in BODY.items() if name in ("email", "password", "name") or "sign" not in path}
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": SECRET, "Cookie": f"session={SECRET}"}
    secrets = {} if path == "/customer/list-sessions" else {"password": SECRET, "token": token}
    asked = await client.request(method, re.sub(r"{\w+}", SECRET, path), params=secrets, json=body, headers=headers)
    return asked.status_code


async def test_a_defect_that_quotes_a_row_shows_nothing_of_it(
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


async def test_the_expirer_s_lines_name_loop_and_batch_and_no_password_of_a_server_that_is_away(
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
    """The lines that are written to their ends."""
    return output.split("\n")[:-1]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://ada:pass@word@host/db is away", "postgresql://[hidden]@host/db is away"),
        ("amqp://ada:p%40ss@host:5672/v", "amqp://[hidden]@host:5672/v"),
        ("redis://:pass@host:6379", "redis://[hidden]@host:6379"),
        ("of ada.l+x@mail.example.com.", "of [hidden]."),
        (f"Bearer {TOKEN}", "Bearer [hidden]"),
        (repr(ValueError(f"bad token:\n{TOKEN}")), r"ValueError('bad token:\[hidden]')"),
        (f"Bearer%20{TOKEN}", "Bearer%[hidden]"),
        (f"token-{TOKEN}, token.{TOKEN}/", "[hidden], token.[hidden]/"),
        ("service.metrics.catalogue, eyJacket.md", "service.metrics.catalogue, eyJacket.md"),
        ("oops\nDETAIL: Key (email)=(ada) exists.\nHINT: none", "oops\n[hidden]\nHINT: none"),
        ("HTTP://host/path?at=1", "HTTP://host/path?at=1"),
    ],
)
def test_what_a_library_quotes_is_hidden(text: str, shown: str) -> None:
    assert telemetry.hidden(text) == shown
    line: dict[str, Any] = {"event": text, "count": 3}
    assert telemetry.hide_secrets(None, "error", line) == {"event": shown, "count": 3}
    inside: dict[str, Any] = {"event": [{text: (text,)}], "_record": text}
    assert telemetry.hide_secrets(None, "error", inside) == {"event": [{shown: [shown]}], "_record": text}


def test_what_is_no_text_is_hidden_as_it_would_be_shown() -> None:
    quoting = ValueError("of ada@example.com\nDETAIL: Key (email)=(ada) exists.")
    line: dict[str, Any] = {"event": "failed", "error": quoting}
    assert telemetry.hide_secrets(None, "error", line)["error"] == "ValueError('of [hidden]\\n[hidden]"


@pytest.mark.parametrize(
    "text",
    ["a" * 200_000 + " @", "://" + ":" * 200_000 + " @", "-eyJ" * 50_000, "neyJ" * 50_000, ".a-" * 70_000 + " eyJ"],
    ids=["a word", "colons", "tokens", "one that begins in the middle", "dotted words"],
)
def test_a_long_text_takes_no_long_time(text: str) -> None:
    begun = time.perf_counter()
    assert telemetry.hidden(text) == text
    assert time.perf_counter() - begun < 1


@pytest.mark.parametrize(("form", "is_json"), [("json", True), ("text", False)])
def test_lines_are_json_or_for_people(capsys: Capture, form: str, *, is_json: bool) -> None:
    telemetry.configure_logging("info", form)
    structlog.stdlib.get_logger("rowlock.test").info("seats sold", count=3)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("{") == is_json
    assert "seats sold" in line
    assert ("count=3" in line) != is_json


@pytest.mark.parametrize("value", [2**70, "\udcff", {"at": datetime(2026, 1, 2, tzinfo=UTC)}, object, float("nan")])
def test_whatever_is_logged_is_a_line(capsys: Capture, value: object) -> None:
    telemetry.configure_logging("info")
    structlog.stdlib.get_logger("rowlock.test").info("odd", value=value)
    (line,) = lines(capsys)
    assert line["event"] == "odd"


def test_what_is_below_the_level_is_not_told(capsys: Capture) -> None:
    telemetry.configure_logging("warning")
    log = structlog.stdlib.get_logger("rowlock.test")
    log.info("all is well")
    log.warning("something is")
    assert [line["event"] for line in lines(capsys)] == ["something is"]


@pytest.mark.parametrize("error", [BrokenPipeError, ValueError])
def test_a_line_that_can_t_be_written_is_nobody_s_error(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    class Gone:
        written = 0

        def write(self, _: str) -> None:
            self.written += 1
            raise error

    telemetry.configure_logging("info")
    gone = Gone()
    monkeypatch.setattr(sys, "stderr", gone)
    structlog.stdlib.get_logger("rowlock.test").info("lost")
    assert gone.written == 1


def test_a_library_s_line_looks_like_ours(capsys: Capture) -> None:
    telemetry.configure_logging("info")
    structlog.contextvars.bind_contextvars(request_id="mine")
    try:
        structlog.stdlib.get_logger("rowlock.test").warning("of ada@example.com")
        logging.getLogger("some.library").warning("of %s", "ada@example.com")
    finally:
        structlog.contextvars.clear_contextvars()
    ours, theirs = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert ours.keys() == theirs.keys()
    assert {**ours, "logger": "", "timestamp": ""} == {**theirs, "logger": "", "timestamp": ""}
    assert (ours["event"], theirs["logger"]) == ("of [hidden]", "some.library")


def test_a_logger_that_is_in_use_follows_when_it_is_configured_anew() -> None:
    log = structlog.stdlib.get_logger("rowlock.test")
    telemetry.configure_logging("info")
    log.info("before")
    telemetry.configure_logging("info")
    with capture_logs() as lines:
        log.info("after")
    assert [line["event"] for line in lines] == ["after"]

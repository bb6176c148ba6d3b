"""Refusals outside the routes: unknown paths and methods, bodies that are too long or not JSON, defects, 503."""

import json
import re
from collections.abc import AsyncIterator
from urllib.parse import urljoin

import asyncpg
import httpx
import pytest

from dev.postgres import Postgres
from dev.processes import free_port
from service.app import create_app
from service.database import Connection
from service.migrate import migrate
from service.settings import Settings
from tests.conftest import serving
from tests.stage.databases import own_database
from tests.stage.edge import Refused, ledger
from tests.stage.factories import book, make_customer, make_manager, make_session, make_settings
from tests.stage.forcing import locked
from tests.stage.processes import Process, api_process
from tests.stage.waiting import until

METHODS = ("get", "post", "put", "patch", "delete")
MAKER = {
    "movie": "Sunrise",
    "room": "Room 3",
    "showtime": "2100-06-01T18:00:00Z",
    "duration": 94,
    "price": 900,
    "currency": "EUR",
}
TOO_LARGE = Refused(413, "body-too-large", says="65536 bytes")
NOT_JSON = Refused(415, "unsupported-media-type", says="application/json")


UNKNOWN_PATHS = ("/livez/", "/nope", "/customer", "/customer/book/1/2", "/docs", "/redoc", "/api-docs/assets/x")


async def test_an_unknown_path_is_a_problem_too(client: httpx.AsyncClient) -> None:
    replies = {path: await client.get(path) for path in UNKNOWN_PATHS}
    complaints = {path: Refused(404, "route-not-found").complaint(reply) for path, reply in replies.items()}
    assert complaints == dict.fromkeys(UNKNOWN_PATHS)


async def test_other_methods_get_405_with_all_allowed_ones(client: httpx.AsyncClient, settings: Settings) -> None:
    tried = 0
    for path, operations in create_app(settings).openapi()["paths"].items():
        named = {method.upper() for method in operations}
        allow = ", ".join(sorted(named | ({"HEAD"} if "GET" in named else set())))
        for method in set(METHODS) - set(operations):
            reply = await client.request(method.upper(), path.replace("{", "").replace("}", ""))
            assert Refused(405, "method-not-allowed", says=allow).complaint(reply) is None
            assert reply.headers["Allow"] == allow
            tried += 1
    # A reservation has two methods, every other path has one.
    assert tried == 4 * 16 - 1


@pytest.fixture
async def api(postgres: Postgres, sql: Connection) -> AsyncIterator[Process]:  # noqa: ARG001 - emptied first
    """The real server."""
    async with api_process(postgres.url()) as started:
        yield started


async def test_head_is_answered_as_get_without_a_body(api: Process, sql: Connection, settings: Settings) -> None:
    session = await make_session(sql, settings)
    for path in ("/livez", "/readyz", "/openapi.json", "/customer/list-sessions", f"/customer/session/{session.id}"):
        # A body would be taken for the begin of the next answer.
        async with httpx.AsyncClient(base_url=api.url) as client:
            asked, got = await client.head(path), await client.get(path)
        assert (asked.status_code, asked.content, got.status_code) == (200, b"", 200)
        assert int(asked.headers["content-length"]) > 0
        assert asked.headers.keys() == got.headers.keys()


async def test_an_empty_body_has_no_type_to_be_wrong(api: Process, sql: Connection, settings: Settings) -> None:
    customer, seats = await make_customer(sql, settings), (await make_session(sql, settings)).seat_ids
    async with httpx.AsyncClient(base_url=api.url, headers=customer.headers) as client:
        held = await client.post(f"/customer/book/{seats[0]}", content=empty(), headers={"Content-Type": "text/plain"})
        assert held.status_code == 201
        path = f"/customer/pay/{held.json()['reservationId']}"
        assert (await client.put(path, content=empty(), headers={"Content-Type": ""})).status_code == 200
        refused = await client.put(path, content=empty(b"x"), headers={"Content-Type": ""})
    assert NOT_JSON.complaint(refused) is None


async def empty(*parts: bytes) -> AsyncIterator[bytes]:
    """A body without a known length."""
    for part in parts:
        yield part


async def test_every_answer_forbids_to_guess_its_type(client: httpx.AsyncClient) -> None:
    replies = [await client.get(path) for path in ("/livez", "/nope", "/api-docs", "/customer/list-sessions")]
    assert {reply.headers["x-content-type-options"] for reply in replies} == {"nosniff"}
    assert not any("strict-transport-security" in reply.headers for reply in replies)


@pytest.mark.parametrize(("trusted", "is_told"), [("127.0.0.0/8", True), ("", False)])
async def test_only_a_trusted_proxy_says_https(settings: Settings, trusted: str, is_told: bool) -> None:  # noqa: FBT001
    behind = make_settings(settings.database_url.get_secret_value(), trusted_proxies=trusted)
    async with serving(behind) as client:
        told = await client.get("/livez", headers={"X-Forwarded-Proto": "https"})
        plain = await client.get("/livez", headers={"X-Forwarded-Proto": "http"})
    assert ("strict-transport-security" in told.headers) is is_told
    assert "strict-transport-security" not in plain.headers


async def test_tokens_are_not_stored_on_the_way(client: httpx.AsyncClient) -> None:
    body = {"email": "ada@example.com", "password": "correct horse battery"}
    replies = [await client.post("/sign-up", json=body | {"name": "Ada"}), await client.post("/sign-in", json=body)]
    assert [reply.headers["cache-control"] for reply in replies] == ["no-store"] * 2


@pytest.mark.parametrize(("path", "to"), [("/", "/api-docs"), ("/api-docs/", "/api-docs")])
async def test_the_ways_to_the_documentation_lead_there(client: httpx.AsyncClient, path: str, to: str) -> None:
    reply = await client.get(path)
    assert reply.status_code == 307
    assert urljoin(f"http://rowlock/tickets{path}", reply.headers["location"]) == f"http://rowlock/tickets{to}"


CONTENT_TYPES = [
    ("application/json", None),
    ("application/json; charset=utf-8", None),
    ('Application/JSON;charset="UTF-8"', None),
    ("application/json; charset=latin-1", NOT_JSON),
    ("application/problem+json", NOT_JSON),
    ("application/json, text/plain", NOT_JSON),
    ("application/x-www-form-urlencoded", NOT_JSON),
    ("multipart/form-data; boundary=x", NOT_JSON),
    ("text/plain", NOT_JSON),
    ("", NOT_JSON),
    (None, NOT_JSON),
]


async def test_a_body_must_be_declared_as_json_in_utf_8(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seat_ids = (await make_session(sql, settings)).seat_ids
    for (content_type, refused), seat_id in zip(CONTENT_TYPES, seat_ids, strict=False):
        before = await ledger(sql)
        headers = customer.headers | ({} if content_type is None else {"Content-Type": content_type})
        reply = await client.post("/customer/book", content=json.dumps({"seatIds": [seat_id]}), headers=headers)
        if refused is None:
            assert reply.status_code == 201, content_type
        else:
            assert refused.complaint(reply) is None, content_type
            assert reply.headers["Accept"] == "application/json"
            assert await ledger(sql) == before


async def in_chunks(length: int) -> AsyncIterator[bytes]:
    """A body without a Content-Length."""
    for _ in range(length // 1_000):
        yield b" " * 1_000


async def test_bodies_are_bounded_with_and_without_content_length(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer, manager = await make_customer(sql, settings), await make_manager(sql, settings)
    json_type = {"Content-Type": "application/json"}
    for path in ("/customer/book", "/sign-in", "/sign-up", "/livez", "/nope"):
        for content in (b" " * 66_000, in_chunks(66_000)):
            reply = await client.post(path, content=content, headers=customer.headers | json_type)
            # A route without a body does not read a chunked one.
            if path in ("/livez", "/nope") and not isinstance(content, bytes):
                assert reply.status_code in {404, 405}
            else:
                assert TOO_LARGE.complaint(reply) is None
    over_four_megabytes = Refused(413, "body-too-large", says="4194304 bytes")
    for content in (b" " * 4_195_000, in_chunks(4_195_000)):
        reply = await client.post("/manager/create", content=content, headers=manager.headers | json_type)
        assert over_four_megabytes.complaint(reply) is None
    body = MAKER | {"placements": [f"{n:032}" for n in range(10_000)]}
    reply = await client.post("/manager/create", json=body, headers=manager.headers)
    assert (reply.status_code, reply.json()["seatCount"]) == (201, 10_000)


async def test_an_endless_body_is_not_read_to_its_end(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100_000_000:
            sent += 100_000
            yield b" " * 100_000

    reply = await client.post("/sign-in", content=endless(), headers={"Content-Type": "application/json"})
    assert TOO_LARGE.complaint(reply) is None
    assert 1_000_000 < sent < 20_000_000


async def test_the_real_server_bounds_bodies_and_closes_connections(postgres: Postgres, sql: Connection) -> None:
    assert await sql.fetchval("select count(*) from accounts") == 0
    async with api_process(postgres.url()) as api, httpx.AsyncClient(base_url=api.url) as client:
        for content in (b" " * 1_000_000, in_chunks(1_000_000)):
            reply = await client.post("/sign-in", content=content, headers={"Content-Type": "application/json"})
            assert TOO_LARGE.complaint(reply) is None
            assert reply.headers["Connection"] == "close"
        assert (await client.get("/livez")).status_code == 200


IDS = [
    ("abc-DEF_1.2", "abc-DEF_1.2"),
    ("x" * 64, "x" * 64),
    ("x" * 65, None),
    ("", None),
    ("two words", None),
    ('"quoted"', None),
    ("line%0abreak", None),
    ("schlüssel", None),
]


async def test_a_request_id_is_the_clients_or_a_new_one(client: httpx.AsyncClient) -> None:
    for given, kept in IDS:
        headers = [(b"X-Request-ID", given.encode())]
        replies = [await client.get(path, headers=headers) for path in ("/nope", "/livez")]
        ids = [reply.headers["X-Request-ID"] for reply in replies]
        assert replies[0].json()["requestId"] == ids[0]
        if kept is not None:
            assert ids == [kept, kept]
        else:
            assert all(re.fullmatch("[0-9a-f]{32}", id_) for id_ in ids), given
            assert ids[0] != ids[1]


async def test_a_defect_is_a_500_that_reveals_only_its_request_id(client: httpx.AsyncClient, sql: Connection) -> None:
    await sql.execute("alter table sign_in_failures rename to elsewhere")
    try:
        reply = await client.post("/sign-in", json={"email": "ada@example.com", "password": "correct horse"})
    finally:
        await sql.execute("alter table elsewhere rename to sign_in_failures")
    assert Refused(500, "internal-error").complaint(reply) is None
    assert set(reply.json()) == {"type", "title", "status", "detail", "requestId"}
    for inside in ("sign_in_failures", "relation", "Traceback", "asyncpg", "UndefinedTable", "ada@"):
        assert inside not in reply.text


async def test_a_lock_timeout_is_503_with_retry_after(postgres: Postgres, sql: Connection) -> None:
    impatient = make_settings(postgres.url(), lock_timeout_ms=50)
    customer = await make_customer(sql, impatient)
    seat_id = (await make_session(sql, impatient)).seat_ids[0]
    before = await ledger(sql)
    async with serving(impatient) as client, locked(postgres, "accounts", customer.id):
        reply = await book(client, customer, seat_id)
    assert Refused(503, "busy", says="lock").complaint(reply) is None
    assert int(reply.headers["Retry-After"]) >= 1
    assert await ledger(sql) == before


async def test_without_postgresql_the_process_is_alive_but_not_ready(sql: Connection, settings: Settings) -> None:
    customer = await make_customer(sql, settings)
    away = Refused(503, "database-away", says="Nothing was changed")
    async with serving(make_settings(f"postgresql://rowlock@127.0.0.1:{free_port()}/rowlock")) as client:
        assert (await client.get("/livez")).status_code == 200
        replies = [await client.get(path) for path in ("/readyz", "/customer/list-sessions", "/customer/session/1")]
        replies.append(await book(client, customer, 1))
        replies.append(await client.post("/sign-in", json={"email": "ada@example.com", "password": "correct horse"}))
    assert [away.complaint(reply) for reply in replies] == [None] * 5
    assert all(int(reply.headers["Retry-After"]) >= 1 for reply in replies)


async def test_readiness_follows_the_database(postgres: Postgres, sql: Connection) -> None:
    async with own_database(postgres, "comes_and_goes") as url:
        await migrate(url)
        async with serving(make_settings(url)) as client:
            assert (await client.get("/readyz")).json() == {"status": "ready"}
            await rename_database(postgres, "comes_and_goes", "gone")
            assert Refused(503, "database-away").complaint(await client.get("/readyz")) is None
            assert (await client.get("/livez")).json() == {"status": "alive"}
            await rename_database(postgres, "gone", "comes_and_goes")

            async def is_ready() -> bool:
                return (await client.get("/readyz")).status_code == 200

            await until(is_ready, "readiness")
    assert await sql.fetchval("select count(*) from accounts") == 0


async def rename_database(postgres: Postgres, old: str, new: str) -> None:
    """Renames it after ending all connections to it."""
    server = await asyncpg.connect(postgres.url())
    try:
        await server.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = $1", old)
        await server.execute(f"alter database {old} rename to {new}")
    finally:
        await server.close()

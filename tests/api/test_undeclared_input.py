"""Input that a route does not declare, or that comes twice: each kind on every route of the application."""

import json
from collections.abc import AsyncIterator, Callable
from time import process_time
from typing import Any

import httpx
import pytest

from service.api.undeclared import doubled_keys
from service.database import Connection
from service.settings import Settings
from tests.stage.document import Operation, operations
from tests.stage.edge import Case, invalid, wrongly_answered
from tests.stage.factories import Account, make_customer, make_manager, make_session

PROBED = ("/livez", "/readyz")
CHECKED = [each for each in operations() if each.template not in PROBED]
JSON = {"Content-Type": "application/json"}
ONCE = "only once"


@pytest.fixture
async def accounts(sql: Connection, settings: Settings) -> tuple[Account, Account]:
    """A customer and a manager. There is a session, so that what is accepted would write something."""
    await make_session(sql, settings)
    return await make_customer(sql, settings), await make_manager(sql, settings)


def request(
    client: httpx.AsyncClient, each: Operation, accounts: tuple[Account, Account], **more: Any
) -> httpx.Request:
    """The operation's request with its examples. `more` are other arguments, and headers beside its own."""
    headers = [*each.headers(*accounts).items(), *more.pop("headers", [])]
    body = {} if {"json", "content"} & more.keys() else {"json": each.body}
    return client.build_request(each.method, each.path, headers=headers, **body | more)


async def in_parts(*parts: bytes) -> AsyncIterator[bytes]:
    """A body without a known length."""
    for part in parts:
        yield part


async def test_unknown_parameters_are_refused_on_every_route(
    client: httpx.AsyncClient, sql: Connection, accounts: tuple[Account, Account]
) -> None:
    queries = [("movie=x", "movie", "not permitted"), ("page", "page", "not permitted"), ("=1", "", "not permitted")]
    queries += [("movie=x&movie=x", "movie", "not permitted"), ("%00=%F0%9F", "\x00", "not permitted")]
    cases = [
        Case(f"{each.template} {query}", request(client, each, accounts, params=query), invalid(field, says))
        for each in CHECKED
        for query, field, says in queries
    ]
    assert len(cases) >= 5 * 14
    assert await wrongly_answered(client, sql, cases) == {}


async def test_doubled_parameters_are_refused_on_every_route(
    client: httpx.AsyncClient, sql: Connection, accounts: tuple[Account, Account]
) -> None:
    cases = [
        Case(
            f"{each.template} {name}",
            request(client, each, accounts, params=[(name, "1"), (name, "1")]),
            invalid(name, ONCE),
        )
        for each in CHECKED
        for name in (one["name"] for one in each.described.get("parameters", []) if one["in"] == "query")
    ]
    assert len(cases) >= 7
    assert await wrongly_answered(client, sql, cases) == {}


async def test_the_nearest_parameter_is_named(client: httpx.AsyncClient) -> None:
    reply = await client.get("/customer/list-history?Limits=1")
    (error,) = reply.json()["errors"]
    assert error["message"].endswith("are cursor, limit, state; did you mean limit?")
    many = await client.get("/customer/list-history", params={f"{n}" * 200: "" for n in range(100, 200)})
    assert len(many.json()["errors"]) == 20
    assert {len(error["field"]) for error in many.json()["errors"]} == {100}


async def test_bodies_are_refused_where_none_is_taken(
    client: httpx.AsyncClient, sql: Connection, accounts: tuple[Account, Account]
) -> None:
    cases = [
        Case(
            f"{each.template} {content!r}",
            request(client, each, accounts, content=content, headers=JSON.items()),
            invalid("body", "takes no body"),
        )
        for each in CHECKED
        if each.body is None
        for content in (b"{}", b" ", in_parts(b"", b"{"))
    ]
    assert len(cases) >= 3 * 10
    assert await wrongly_answered(client, sql, cases) == {}


async def test_empty_bodies_are_accepted_where_none_is_taken(
    client: httpx.AsyncClient, accounts: tuple[Account, Account]
) -> None:
    for each in CHECKED:
        if each.body is None:
            for content in (b"", in_parts()):
                asked = request(client, each, accounts, content=content, headers=[("Content-Type", "text/plain")])
                assert (await client.send(asked)).status_code < 410, each


async def test_doubled_keys_are_refused_on_every_route(
    client: httpx.AsyncClient, sql: Connection, accounts: tuple[Account, Account]
) -> None:
    cases = []
    for each in (one for one in CHECKED if one.body):
        assert each.body
        name, value = next(iter(each.body.items()))
        first, whole = json.dumps({name: value})[:-1], json.dumps(each.body)[1:]
        bodies = [
            (f"{first}, {whole}", name),
            (f'{{"a": [0, {{"b": {{"c:": 1, "c:": 1}}}}], {whole}', "a.1.b.c:"),
            (f'{{"a": {{"b": 1}}, "a": 1, {whole}', "a"),
            (f'{{"\\u0061": 1, "a": 1, {whole}', "a"),
            (f'{{"\\ud800": 1, "\\ud800": 1, {whole}', "?"),
        ]
        for body, path in bodies:
            asked = request(client, each, accounts, content=body.encode(), headers=JSON.items())
            cases.append(Case(f"{each.template} {body[:60]}", asked, invalid(path, ONCE)))
    assert len(cases) >= 5 * 4
    assert await wrongly_answered(client, sql, cases) == {}


def seconds(work: Callable[[], object]) -> float:
    """The least CPU time of several runs."""
    found = []
    for _ in range(5):
        started = process_time()
        work()
        found.append(process_time() - started)
    return min(found)


@pytest.mark.parametrize("part", ["{}", "[]", '{"":1}', "1"])
@pytest.mark.parametrize("first", ["", '"a":1,'])
def test_doubled_keys_cost_little_more_than_parsing(first: str, part: str) -> None:
    # Anybody may send 64 KiB, and the loop serves nothing else meanwhile.
    body = f'{{{first}"a":[{",".join([part] * (65_000 // (len(part) + 1)))}]}}'.encode()
    assert list(doubled_keys(body)) == (["a"] if first else [])
    assert seconds(lambda: list(doubled_keys(body))) < 15 * seconds(lambda: json.loads(body))


async def test_doubled_headers_are_refused_on_every_route(
    client: httpx.AsyncClient, sql: Connection, accounts: tuple[Account, Account]
) -> None:
    cases = []
    for each in CHECKED:
        declared = [one["name"] for one in each.described.get("parameters", []) if one["in"] == "header"]
        for name in {"Authorization", "Content-Type", *declared} - {"if-none-match", "If-None-Match"}:
            value = "application/json" if name == "Content-Type" else "x"
            for other in (value, "y"):
                asked = request(client, each, accounts, headers=[(name, value), (name, other)])
                cases.append(Case(f"{each.template} {name} {other}", asked, invalid(name, ONCE)))
    assert len(cases) >= 2 * 2 * 14
    assert await wrongly_answered(client, sql, cases) == {}


async def test_lines_of_a_list_are_one_list(client: httpx.AsyncClient, sql: Connection, settings: Settings) -> None:
    path = f"/customer/session/{(await make_session(sql, settings)).id}"
    etag = (await client.get(path)).headers["etag"]
    lists = [("If-None-Match", '"x"'), ("If-None-Match", etag), ("X-Unknown", "a"), ("X-Unknown", "b")]
    assert (await client.get(path, headers=lists)).status_code == 304
    packed = await client.get(path, headers=[("Accept-Encoding", "br"), ("Accept-Encoding", "gzip")])
    assert packed.headers["content-encoding"] == "gzip"


async def test_probes_and_the_documentation_ignore_parameters(client: httpx.AsyncClient) -> None:
    paths = (*PROBED, "/openapi.json", "/api-docs", "/")
    statuses = [(await client.get(f"{path}?x=1&x=2")).status_code for path in paths]
    assert statuses == [200, 200, 200, 200, 307]

"""Lean routes: the same answers as FastAPI's own path gives, for good and bad requests, byte for byte."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from service.api.lean import LeanRoutes
from service.database import Connection
from service.settings import Settings
from tests.conftest import serving
from tests.stage.factories import make_customer, make_manager, make_session

ID = "01926e2c-5a00-7000-8000-000000000001"
JSON = {"content-type": "application/json"}
IN_PARTS = JSON | {"transfer-encoding": "chunked"}


@dataclass(frozen=True, slots=True)
class Sent:
    """One request of the corpus. Its first seat is 1."""

    method: str
    path: str
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = ()
    body: bytes = b""


def books(body: bytes, **headers: str) -> Sent:
    """A hold with a raw body."""
    return Sent("POST", "/customer/book", JSON | headers, body)


CORPUS = [
    books(b'{"seatIds": [1, 2]}'),
    books(b'{"seatIds": [2, 3]}'),
    books(b'{"seatIds": [4], "seatIds": [5]}'),
    books(b' {"seat\\u0049ds": [6]} '),
    books(b'{"seatIds": [7]}', **{"content-type": "application/json; charset=utf-8"}),
    books(b'{"seatIds": [7]}', **{"content-type": "text/plain"}),
    books(b'{"seatIds": [7]}', **{"content-type": "application/problem+json"}),
    books(b'{"seatIds": [8]}', **{"idempotency-key": "one"}),
    books(b'{"seatIds": [8]}', **{"idempotency-key": "one"}),
    books(b'{"seatIds": [9]}', **{"idempotency-key": "one"}),
    books(b'{"seatIds": [9]}', **{"idempotency-key": ""}),
    books(b'{"seatIds": [9]}', **{"idempotency-key": "a b"}),
    books(b'{"seatIds": [9]}', **{"idempotency-key": "k" * 256}),
    books(b'{"seatIds": [0, -1]}', **{"idempotency-key": "a b"}),
    books('{"seatIds": [10]}'.encode("utf-16")),
    books(b'\xef\xbb\xbf{"seatIds": [10]}'),
    Sent(
        "POST",
        "/customer/book",
        [*JSON.items(), ("idempotency-key", "two"), ("idempotency-key", "b c")],
        b'{"seatIds": [11]}',
    ),
    *(
        books(body)
        for body in (
            b"",
            b"null",
            b"[]",
            b'"x"',
            b"{",
            b"{}",
            b'{"seatIds": [1',
            b'{"seatIds": [NaN]}',
            b'{"seatIds": [1.0]}',
            b'{"seatIds": [true]}',
            b'{"seatIds": ["1"]}',
            b'{"seatIds": [1e0]}',
            b'{"seatIds": [-0]}',
            b'{"seatIds": []}',
            b'{"seatIds": [1, 1]}',
            b'{"seatIds": [18446744073709551616]}',
            b'{"seatIds": [9223372036854775808]}',
            b'{"seatIds": [9223372036854775807]}',
            b'{"seatIds": ["\xff"]}',
            b'{"seatIds": ["\\ud800"]}',
            b'{"seatIds": [12], "price": 0}',
            b'{"seat_ids": [12]}',
            b'{"seatIds": {"0": 1}}',
            b"[" * 2_000,
            b" " * 70_000,
            b'{"seatIds": [%s]}' % b",".join(b"%d" % n for n in range(1, 12)),
            b'{"seatIds": [%s]}' % b",".join(b"%d" % n for n in range(1, 102)),
        )
    ),
    *(
        Sent("POST", f"/customer/book/{seat}")
        for seat in ("13", "13", "0", "-1", "+1", "1_0", "1.0", " 1", "%31%34", "x", "", "1/2", "99999999999999999999")
    ),
    Sent("POST", "/customer/book/15", {"idempotency-key": "three"}),
    Sent("POST", "/customer/book/15", JSON, b"{"),
    Sent("POST", "/customer/book/15", IN_PARTS, b"{}"),
    books(b'{"seatIds": [15], "a": {"b": 1, "b": 2}}'),
    Sent("POST", "/customer/book/"),
    *(Sent(method, "/customer/book") for method in ("GET", "PUT", "DELETE", "HEAD", "OPTIONS")),
    Sent("PUT", "/customer/pay/{held}"),
    Sent("PUT", "/customer/pay/{held}"),
    Sent("DELETE", "/customer/reservation/{held}"),
    Sent("DELETE", "/customer/reservation/{other}"),
    Sent("DELETE", "/customer/reservation/{other}"),
    Sent("PUT", "/customer/pay/{other}"),
    *(
        Sent("PUT", f"/customer/pay/{name}")
        for name in (ID, ID.upper(), ID.replace("-", ""), "x", f"{{{ID}}}", "1", "")
    ),
    *(Sent("DELETE", f"/customer/reservation/{name}") for name in (ID, "x", "%00")),
    *(Sent("GET", f"/customer/session/{name}") for name in ("1", "0", "2", "x", "9223372036854775808", "1/", "1?x=1")),
    Sent("GET", "/customer/session/1", {"if-none-match": "*"}),
    Sent("GET", "/customer/session/1", [("if-none-match", '"x"'), ("if-none-match", "*")]),
    Sent("GET", "/customer/session/1", [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "192.0.2.2")]),
    Sent("GET", "/customer/session/1", {"accept-encoding": "gzip"}),
    Sent("HEAD", "/customer/session/1"),
    *(
        Sent("GET", f"/customer/list-sessions{query}")
        for query in (
            "",
            "?limit=1",
            "?limit=0",
            "?limit=201",
            "?limit=x",
            "?limit=",
            "?limit=1&limit=2",
            "?cursor=x",
            "?a=b",
        )
    ),
    *(
        Sent("GET", f"/customer/list-history{query}")
        for query in ("", "?state=ALL", "?state=HELD&limit=1", "?state=x", "?limit=%31", "?cursor=" + "c" * 300)
    ),
    *(Sent("GET", f"/customer/reservation/{id_}") for id_ in (ID, ID.replace("-", ""), "x", "", f"{ID}?a=b")),
    Sent("GET", "/customer/nothing"),
    Sent("POST", "/customer/book", IN_PARTS, b'{"seatIds": [16]}'),
    Sent("POST", "/customer/book", IN_PARTS, b'{"seatIds": ["16"]}'),
    Sent("POST", "/customer/book", IN_PARTS, b'{"seatIds": [16'),
]
TOKENS = ("customer", "manager", "nobody", "damaged", "basic")
TIMES = re.compile(rb"20\d\d-\d\d-\d\dT[0-9:.]+Z")
IDS = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@asynccontextmanager
async def plain(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """The API without lean routes."""
    with monkeypatch.context() as patched:
        patched.setattr(LeanRoutes, "_find", lambda *_: None)
        async with serving(settings) as client:
            yield client


async def in_parts(body: bytes) -> AsyncIterator[bytes]:
    """The body in several messages."""
    for n in range(0, len(body), 5):
        yield body[n : n + 5]


async def replay(client: httpx.AsyncClient, sql: Connection, settings: Settings) -> list[tuple[Any, ...]]:
    """What each request of the corpus is answered, on new rows, without what differs from one run to the next."""
    await sql.execute(EMPTIED)
    customer, manager = await make_customer(sql, settings), await make_manager(sql, settings)
    await make_session(sql, settings)
    authorizations = {
        "customer": f"Bearer {customer.token}", "manager": f"bearer  {manager.token}", "nobody": "",
        "damaged": f"Bearer {customer.token}x", "basic": "Basic eA==",
    }  # fmt: skip
    answers: list[tuple[Any, ...]] = []
    made: list[str] = []
    for token in TOKENS:
        for n, sent in enumerate(CORPUS):
            path = sent.path.replace("{held}", made[0] if made else ID).replace("{other}", made[-1] if made else ID)
            headers = httpx.Headers(sent.headers)
            headers["x-request-id"] = f"{token}-{n}"
            if authorizations[token]:
                headers["authorization"] = authorizations[token]
            content = in_parts(sent.body) if "transfer-encoding" in headers else sent.body
            reply = await client.request(sent.method, path, headers=headers, content=content)
            if reply.status_code == 201:
                made.append(reply.json()["reservationId"])
            answers.append((sent, token, *shown(reply)))
    return answers


EMPTIED = "truncate accounts, sessions, reservations, seats, payments, events, cursors restart identity"


def shown(reply: httpx.Response) -> tuple[Any, ...]:
    """Status, headers in their order, and body."""
    differing = ["rowlock-as-of", "rowlock-age-ms", "rowlock-time", "etag"]
    # The age has one digit or several.
    differing += ["content-length"] if "rowlock-age-ms" in reply.headers else []
    headers = [(name, b"" if name.decode() in differing else value) for name, value in reply.headers.raw]
    body = IDS.sub(b"ID", TIMES.sub(b"TIME", reply.content))
    return reply.status_code, headers, re.sub(rb'"ageMs":\d+', b"", body)


async def test_both_paths_give_the_same_answers(
    sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with plain(settings, monkeypatch) as client:
        expected = await replay(client, sql, settings)
    async with serving(settings) as client:
        found = await replay(client, sql, settings)
    assert [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]] == []
    statuses = {answer[2] for answer in expected}
    assert statuses == {200, 201, 304, 400, 401, 403, 404, 405, 409, 413, 415, 422}

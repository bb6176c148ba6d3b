"""Invalid seats, reservations and pages: one table of cases and answers."""

import json
from base64 import urlsafe_b64encode
from typing import Any

import httpx

from service.database import Connection
from service.settings import Settings
from tests.stage.edge import Case, Refused, invalid, wrongly_answered
from tests.stage.factories import Account, OnSale, make_customer, make_session

ID_MAX = 2**63 - 1
DIGITS = "whole number in decimal digits"
NOT_A_CURSOR = "is not one that a page gave"


def posts(client: httpx.AsyncClient, path: str, content: str | bytes, account: Account) -> httpx.Request:
    """A request with a raw body."""
    return client.build_request(
        "POST", path, content=content, headers=account.headers | {"Content-Type": "application/json"}
    )


def seat_cases(one: OnSale, other: OnSale) -> list[tuple[str, Any, Refused]]:
    """`seatIds` and their answers. Two sessions have 16 seats each."""
    return [
        ("zero", [0], invalid("seatIds.0", "must be at least 1")),
        ("negative", [one.seat_ids[0], -1], invalid("seatIds.1", "must be at least 1")),
        ("2**63", [2**63], invalid("seatIds.0", str(ID_MAX))),
        ("2**64", [2**64], invalid("seatIds.0", str(ID_MAX))),
        ("of 400 digits", [10**400], invalid("seatIds.0", str(ID_MAX))),
        ("the greatest, of no seat", [ID_MAX], Refused(404, "seats-unknown", says=str(ID_MAX))),
        ("one of them unknown", [one.seat_ids[0], 33], Refused(404, "seats-unknown", says="33")),
        ("repeated", [one.seat_ids[0]] * 2, invalid("seatIds", "must be distinct")),
        ("of two sessions", [one.seat_ids[0], other.seat_ids[0]], Refused(422, "seats-of-several-sessions")),
        ("none", [], invalid("seatIds", "at least 1 item")),
        ("11", list(range(1, 12)), invalid("seatIds", "at most 10 items")),
        ("1,000", list(range(1, 1_001)), invalid("seatIds", "at most 100 items")),
        ("string", ["1"], invalid("seatIds.0", "whole number")),
        ("bool", [True], invalid("seatIds.0", "whole number")),
        ("float", [1.0], invalid("seatIds.0", "whole number")),
        ("fraction", [1.5], invalid("seatIds.0", "whole number")),
        ("null inside", [None], invalid("seatIds.0", "whole number")),
        ("null", None, invalid("seatIds", "must be an array")),
        ("a number", 1, invalid("seatIds", "must be an array")),
        ("an object", {"0": 1}, invalid("seatIds", "must be an array")),
    ]


BODIES: list[tuple[str, str | bytes, Refused]] = [
    ("an empty object", "{}", invalid("seatIds", "required")),
    ("unknown field", '{"seatIds": [1], "price": 0}', invalid("price", "not permitted")),
    ("the field's name in Python", '{"seat_ids": [1]}', invalid("seat_ids", "not permitted")),
    ("a list", "[1]", invalid("body", "must be a JSON object")),
    ("a string", '"seatIds"', invalid("body", "object")),
    ("null alone", "null", invalid("body", "object")),
    ("empty", "", invalid("body", "required")),
    ("cut off", '{"seatIds": [1', Refused(400, "malformed-body", says="JSON")),
    ("no JSON", "seatIds=1", Refused(400, "malformed-body")),
    ("not UTF-8", b'{"seatIds": ["\xff"]}', Refused(400, "malformed-body")),
    ("not a number", '{"seatIds": [NaN]}', invalid("seatIds.0", "whole number")),
    ("a number of 5,000 digits", '{"seatIds": [%s]}' % ("9" * 5_000), Refused(400, "malformed-body")),
    ("60,000 lists in each other", "[" * 60_000, Refused(400, "malformed-body")),
    ("a NUL byte", '{"seatIds": ["\\u0000"]}', invalid("seatIds.0", "whole number")),
    ("a megabyte", " " * 1_000_000, Refused(413, "body-too-large", says="65536")),
]


async def test_invalid_seats_are_refused_by_name(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    one, other = await make_session(sql, settings), await make_session(sql, settings)
    cases = [
        Case(name, posts(client, "/customer/book", json.dumps({"seatIds": seat_ids}), customer), refused)
        for name, seat_ids, refused in seat_cases(one, other)
    ]
    cases += [Case(name, posts(client, "/customer/book", body, customer), refused) for name, body, refused in BODIES]
    assert await wrongly_answered(client, sql, cases) == {}


NUMBERS = [
    ("0", "must be at least 1"),
    ("-1", "must be at least 1"),
    (str(2**63), str(ID_MAX)),
    (str(2**64), str(ID_MAX)),
    ("abc", DIGITS),
    ("1.0", DIGITS),
    ("1_0", DIGITS),
    ("+1", DIGITS),
    ("%201", DIGITS),
    ("%D9%A1", DIGITS),
    ("%00", DIGITS),
    ("true", DIGITS),
]
NO_UUIDS = ["1", "abc", "%00", "01926e2c-5a00-7000-8000-00000000000", "01926e2c-5a00-7000-8000-00000000000g"]


async def test_invalid_ids_in_paths_are_refused_by_name(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    await make_session(sql, settings)

    def case(method: str, path: str, refused: Refused) -> Case:
        return Case(f"{method} {path}", client.build_request(method, path, headers=customer.headers), refused)

    cases = [case("POST", f"/customer/book/{number}", invalid("seatId", says)) for number, says in NUMBERS]
    cases += [case("GET", f"/customer/session/{number}", invalid("sessionId", says)) for number, says in NUMBERS]
    cases += [case("PUT", f"/customer/pay/{id_}", invalid("reservationId", "UUID")) for id_ in NO_UUIDS]
    cases += [
        case(method, f"/customer/reservation/{id_}", invalid("reservationId", "UUID"))
        for method in ("GET", "DELETE")
        for id_ in NO_UUIDS
    ]
    cases.append(case("POST", f"/customer/book/{ID_MAX}", Refused(404, "seats-unknown", says=str(ID_MAX))))
    cases.append(case("GET", f"/customer/session/{ID_MAX}", Refused(404, "not-found", says="session")))
    assert await wrongly_answered(client, sql, cases) == {}


async def test_invalid_idempotency_keys_are_refused(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seat_id = (await make_session(sql, settings)).seat_ids[0]
    keys = [b"", b"x" * 256, b"two words", b"a\tb", b"a\x7f", "schlüssel".encode(), b"schl\xfcssel"]

    def request(key: bytes, path: str, content: bytes | None) -> httpx.Request:
        headers = [(name.encode(), value.encode()) for name, value in customer.headers.items()]
        headers += [(b"Idempotency-Key", key), (b"Content-Type", b"application/json")]
        return client.build_request("POST", path, content=content, headers=headers)

    refused = invalid("Idempotency-Key", "1 to 255 visible ASCII characters")
    cases = [Case(f"by path: {key!r}", request(key, f"/customer/book/{seat_id}", None), refused) for key in keys]
    body = json.dumps({"seatIds": [seat_id]}).encode()
    cases += [Case(f"by body: {key!r}", request(key, "/customer/book", body), refused) for key in keys]
    assert await wrongly_answered(client, sql, cases) == {}


def cursor_of(text: str) -> str:
    """A cursor as a client might forge it."""
    return urlsafe_b64encode(text.encode()).decode()


SESSION_CURSORS = [
    "", "x", "abc", "é", "\x00", "00000000-0000-0000-0000-000000000001",
    cursor_of("a|b"),
    cursor_of("2030-01-01T00:00:00+00:00"),
    cursor_of("2030-01-01T00:00:00|1"),
    cursor_of("2030-01-01T00:00:00+00:00|-1"),
    cursor_of(f"2030-01-01T00:00:00+00:00|{2**63}"),
    cursor_of("2030-01-01T00:00:00+00:00|1|1"),
    # Outside the driver's years once they are in UTC.
    cursor_of("0001-01-01T00:00:00+14:00|1"),
    cursor_of("9999-12-31T23:59:59-14:00|1"),
]  # fmt: skip
HISTORY_CURSORS = ["", "x", "é", "\x00", "0" * 31, cursor_of("2030-01-01T00:00:00+00:00|1")]
LIMITS = [
    ("0", "must be at least 1"),
    ("201", "must be at most 200"),
    ("9" * 50, "must be at most 200"),
    ("abc", DIGITS),
    ("1.0", DIGITS),
    ("", DIGITS),
]


async def test_pages_that_can_not_be_asked_for_are_refused_by_name(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    sessions, history = "/customer/list-sessions", "/customer/list-history"

    def case(path: str, field: str, value: str, says: str) -> Case:
        request = client.build_request("GET", path, params={field: value}, headers=customer.headers)
        return Case(f"{path} {field}={value}", request, invalid(field, says))

    cases = [case(sessions, "cursor", cursor, NOT_A_CURSOR) for cursor in SESSION_CURSORS]
    cases += [case(history, "cursor", cursor, NOT_A_CURSOR) for cursor in HISTORY_CURSORS]
    cases += [case(path, "cursor", "x" * 201, "at most 200 characters") for path in (sessions, history)]
    cases += [case(path, "limit", limit, says) for path in (sessions, history) for limit, says in LIMITS]
    cases += [case(history, "state", state, "'CONFIRMED'") for state in ("PAID", "held", "")]
    assert await wrongly_answered(client, sql, cases) == {}


async def test_one_item_is_one_item(client: httpx.AsyncClient, sql: Connection, settings: Settings) -> None:
    customer = await make_customer(sql, settings)
    reply = await client.post("/customer/book", json={"seatIds": []}, headers=customer.headers)
    assert reply.json()["errors"] == [{"field": "seatIds", "message": "must have at least 1 item"}]

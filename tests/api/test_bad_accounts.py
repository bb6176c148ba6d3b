"""Invalid sign-ups and sign-ins: one table of cases and answers."""

import json
from typing import Any

import httpx

from service.database import Connection
from service.settings import Settings
from tests.stage.edge import Case, Refused, invalid, ledger, wrongly_answered
from tests.stage.factories import make_customer

EMAIL, PASSWORD = "ada@example.com", "correct horse battery"
SIGN_UP: dict[str, Any] = {"email": EMAIL, "password": PASSWORD, "name": "Ada"}
SIGN_IN: dict[str, Any] = {"email": EMAIL, "password": PASSWORD}
IN_USE = Refused(409, "address-in-use")
WRONG = Refused(401, "wrong-credentials")
NOT_PRINTABLE = "control characters"
NO_ADDRESS = "must be an e-mail address"
ROLES = "'CUSTOMER' or 'MANAGER'"

SIGN_UPS: list[tuple[dict[str, Any], Refused]] = [
    ({}, IN_USE),
    ({"email": "ADA@Example.COM"}, IN_USE),
    ({"email": "ada"}, invalid("email", NO_ADDRESS)),
    ({"email": "ada@localhost"}, invalid("email", NO_ADDRESS)),
    ({"email": ""}, invalid("email", NO_ADDRESS)),
    ({"email": "a" * 320 + "@example.com"}, invalid("email", "too long")),
    ({"email": "ada\x00@example.com"}, invalid("email", NO_ADDRESS)),
    ({"email": "\ud800@example.com"}, invalid("email", NO_ADDRESS)),
    ({"email": "Ada <ada@example.com>"}, invalid("email", "the address alone")),
    ({"email": 1}, invalid("email", "must be a string")),
    ({"password": "1234567"}, invalid("password", "at least 8 characters")),
    ({"password": "x" * 1_025}, invalid("password", "at most 1024")),
    ({"password": "é" * 513}, invalid("password", "at most 1024 bytes")),
    ({"password": "\ud800" * 8}, invalid("password", "surrogate")),
    ({"password": " " * 8}, invalid("password", "one character repeated")),
    ({"password": "\u00a0 " * 4}, invalid("password", "one character repeated")),
    ({"password": "\x00" * 8}, invalid("password", NOT_PRINTABLE)),
    ({"password": "correct\thorse"}, invalid("password", NOT_PRINTABLE)),
    ({"password": "PassWord1"}, invalid("password", "commonest")),
    ({"password": 12345678}, invalid("password", "must be a string")),
    ({"name": ""}, invalid("name", "at least 1 character")),
    ({"name": " "}, invalid("name", "at least 1 character")),
    ({"name": "x" * 201}, invalid("name", "at most 200 characters")),
    ({"name": "\ufb2c" * 67}, invalid("name", "at most 200 characters")),
    ({"name": "A\x00da"}, invalid("name", NOT_PRINTABLE)),
    ({"name": "A\x7fda"}, invalid("name", NOT_PRINTABLE)),
    ({"name": "A\ud800da"}, invalid("name", "surrogate")),
    ({"role": "ADMIN"}, invalid("role", ROLES)),
    ({"role": "customer"}, invalid("role", ROLES)),
    ({"role": None}, invalid("role", ROLES)),
    ({"isManager": True}, invalid("isManager", "not permitted")),
]
SIGN_INS: list[tuple[dict[str, Any], Refused]] = [
    ({"password": PASSWORD + " "}, WRONG),
    ({"password": PASSWORD.upper()}, WRONG),
    ({"password": "\x00"}, WRONG),
    ({"email": "grace@example.com"}, WRONG),
    ({"email": ""}, invalid("email", "at least 1 character")),
    ({"email": "x" * 321}, invalid("email", "at most 320 characters")),
    ({"email": EMAIL + "\x00"}, invalid("email", NOT_PRINTABLE)),
    ({"email": "\ud800"}, invalid("email", "surrogate")),
    ({"email": None}, invalid("email", "must be a string")),
    ({"password": ""}, invalid("password", "at least 1 character")),
    ({"password": "x" * 1_025}, invalid("password", "at most 1024")),
    ({"password": "\ud800"}, invalid("password", "surrogate")),
    ({"password": 1}, invalid("password", "must be a string")),
    ({"role": "MANAGER"}, invalid("role", "not permitted")),
]


async def test_invalid_sign_ups_and_sign_ins_name_the_field(client: httpx.AsyncClient, sql: Connection) -> None:
    assert (await client.post("/sign-up", json=SIGN_UP)).status_code == 201

    def case(path: str, body: dict[str, Any], change: dict[str, Any], refused: Refused) -> Case:
        headers = {"Content-Type": "application/json"}
        request = client.build_request("POST", path, content=json.dumps(body | change), headers=headers)
        return Case(f"{path} {change}"[:80], request, refused)

    cases = [case("/sign-up", SIGN_UP, change, refused) for change, refused in SIGN_UPS]
    cases += [case("/sign-in", SIGN_IN, change, refused) for change, refused in SIGN_INS]
    assert await wrongly_answered(client, sql, cases) == {}


async def test_the_longest_password_and_name_are_accepted(client: httpx.AsyncClient) -> None:
    body = SIGN_UP | {"password": "éà" * 256, "name": "e\u0301" + "x" * 198}
    reply = await client.post("/sign-up", json=body)
    assert (reply.status_code, reply.json()["name"]) == (201, "é" + "x" * 198)
    signed_in = await client.post("/sign-in", json={"email": EMAIL, "password": body["password"]})
    assert (signed_in.status_code, signed_in.json()["name"]) == (200, reply.json()["name"])


async def test_a_role_in_any_other_request_is_refused(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    before = await ledger(sql)
    refused = await client.post("/customer/book", json={"seatIds": [1], "role": "MANAGER"}, headers=customer.headers)
    assert invalid("role", "not permitted").complaint(refused) is None
    headers = customer.headers | {"Role": "MANAGER", "X-Role": "MANAGER"}
    assert (await client.post("/manager/create", json={}, headers=headers)).status_code == 403
    asked = await client.post("/manager/create?role=MANAGER", json={}, headers=headers)
    assert invalid("role", "not permitted").complaint(asked) is None
    assert await ledger(sql) == before

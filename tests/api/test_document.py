"""The OpenAPI document says what the routes really answer, route by route, and names things for generated clients."""

import re

import httpx

from service.database import Connection
from service.settings import Settings
from tests.conftest import serving
from tests.stage.document import (
    DOCUMENT,
    PROBLEM,
    answering,
    document_of,
    expected,
    operations,
    told,
)
from tests.stage.factories import (
    make_customer,
    make_manager,
)


def test_operations_have_the_names_of_what_they_do() -> None:
    names = [each.described["operationId"] for each in operations()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z]+([A-Z][a-z]+)*", name) for name in names)
    assert {"signUp", "signIn", "holdSeat", "holdSeats", "pay", "release", "seatMap", "listSessions"} <= set(names)


def test_the_document_says_who_answers_for_it_and_what_tags_mean() -> None:
    assert DOCUMENT["servers"]
    assert DOCUMENT["info"]["contact"]
    assert DOCUMENT["info"]["license"]["url"].startswith("https://")
    described = {tag["name"] for tag in DOCUMENT["tags"] if tag["description"]}
    assert described == {tag for each in operations() for tag in each.described["tags"]}


def test_headers_of_limits_and_retries_are_documented() -> None:
    for each in answering(429):
        assert {"Retry-After", "RateLimit", "RateLimit-Policy"} <= each.described["responses"]["429"]["headers"].keys()
    for each in answering(503):
        assert "Retry-After" in each.described["responses"]["503"]["headers"]
    for each in answering(401):
        assert "WWW-Authenticate" in each.described["responses"]["401"]["headers"]


def test_problems_have_schemas_with_their_own_fields() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    taken, expired = schemas["SeatsTakenProblem"], schemas["HoldExpiredProblem"]
    assert taken["properties"]["type"]["const"] == "urn:rowlock:problem:seats-taken"
    assert "seatIds" in taken["required"]
    assert "ownReservationIds" in taken["properties"].keys() - set(taken["required"])
    assert {"reservationId", "expiresAt"} <= set(expired["required"])
    assert expired["properties"]["expiresAt"] == {"type": "string", "format": "date-time"}


def test_one_seat_can_not_be_of_several_sessions() -> None:
    one = next(each for each in operations() if each.described["operationId"] == "holdSeat")
    documented = {
        name
        for answer in one.described["responses"].values()
        for name in answer.get("content", {}).get(PROBLEM, {}).get("examples", {})
    }
    assert documented & {"seats-of-several-sessions", "malformed-body"} == set()
    assert one.example(409, "seats-taken")["seatIds"] == [17]


async def test_refusals_of_the_caller_are_those_of_the_document(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer, manager = await make_customer(sql, settings), await make_manager(sql, settings)
    for each in answering(403):
        other = manager if each.headers(customer, manager) == customer.headers else customer
        reply = await client.request(each.method, each.path, headers=other.headers, json=each.body)
        assert told(reply) == expected(403, each.example(403)), each
    for each in answering(401):
        reply = await client.request(each.method, each.path, json=each.body)
        assert told(reply) == expected(401, each.example(401)), each


async def test_refusals_of_input_are_those_of_the_document(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer, manager = await make_customer(sql, settings), await make_manager(sql, settings)
    for each in answering(422):
        example = each.example(422, "invalid-request")
        path, arguments = each.wrong(example["errors"][0]["field"])
        reply = await client.request(each.method, path, headers=each.headers(customer, manager), **arguments)
        assert told(reply) == expected(422, example), each


async def test_refusals_of_undeclared_input_are_those_of_the_document(client: httpx.AsyncClient) -> None:
    for each in answering(422):
        examples = each.described["responses"]["422"]["content"][PROBLEM]["examples"].values()
        found = [example["value"] for example in examples if "errors" in example["value"]]
        of_query = [example for example in found if example["errors"][0]["field"] == "page"]
        of_body = [example for example in found if example["errors"][0]["message"].endswith("takes no body")]
        assert (len(of_query), len(of_body)) == (1, 0 if each.body else 1), each
        asked = await client.request(each.method, each.path, params={"page": 1}, json=each.body)
        assert told(asked) == expected(422, of_query[0]), each
        for example in of_body:
            sent = await client.request(each.method, each.path, json={})
            assert told(sent) == expected(422, example), each


async def test_refusals_of_bodies_are_those_of_the_document(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer, manager = await make_customer(sql, settings), await make_manager(sql, settings)
    longest = settings.session_body_bytes_max
    kinds = ((400, "application/json", b"{"), (415, "text/plain", b"{}"), (413, "application/json", b" " * longest * 2))
    for status, media_type, body in kinds:
        for each in answering(status):
            headers = each.headers(customer, manager) | {"Content-Type": media_type}
            reply = await client.request(each.method, each.path, headers=headers, content=body)
            assert told(reply) == expected(status, each.example(status)), each


async def test_refusals_of_unknown_things_are_those_of_the_document(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer, manager = await make_customer(sql, settings), await make_manager(sql, settings)
    for each in answering(404):
        headers = each.headers(customer, manager)
        reply = await client.request(each.method, each.path, headers=headers, json=each.body)
        assert told(reply) == expected(404, each.example(404)), each


async def test_refusals_of_many_requests_are_those_of_the_document(sql: Connection, settings: Settings) -> None:
    limits = (
        "account_requests_per_minute", "account_payments_per_minute", "address_requests_per_minute",
        "address_sign_ins_per_minute",
    )  # fmt: skip
    limited = settings.model_copy(update=dict.fromkeys(limits, 1))
    for each in operations(document_of(limited)):
        if "429" not in each.described["responses"]:
            continue
        customer, manager = await make_customer(sql, settings), await make_manager(sql, settings)
        async with serving(limited) as client:
            path, arguments = (
                each.wrong(each.example(422, "invalid-request")["errors"][0]["field"]) if each.body else (each.path, {})
            )
            for _ in range(2):
                headers = each.headers(customer, manager)
                reply = await client.request(each.method, path, headers=headers, **arguments)
        example = each.example(429, "too-many-requests")
        assert (reply.json()["limit"], reply.json()["requestsMax"]) == (example["limit"], example["requestsMax"]), each
        documented = each.described["responses"]["429"]["headers"]
        assert reply.headers["ratelimit-policy"] == documented["RateLimit-Policy"]["example"], each

"""The OpenAPI document says what the routes really answer, route by route, and names things for generated clients."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from service.app import create_app
from service.database import Connection
from service.settings import Settings
from tests.conftest import serving
from tests.stage.factories import (
    Account,
    book,
    make_customer,
    make_customers,
    make_manager,
    make_overdue,
    make_session,
    make_settings,
    pay,
    release,
)

PROBLEM = "application/problem+json"
UNKNOWN_VALUE = "x"
DIFFERING = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT[0-9:.]+Z")
Document = dict[str, Any]


def document_of(settings: Settings) -> Document:
    """The document of an API with these settings."""
    return create_app(settings).openapi()


DOCUMENT = document_of(make_settings("postgresql://rowlock@127.0.0.1/rowlock"))


@dataclass(frozen=True)
class Operation:
    """One operation, and the request that its examples describe."""

    method: str
    template: str
    described: Document = field(repr=False)

    @property
    def path(self) -> str:
        """The path with the examples of its parameters."""
        path = self.template
        for parameter in self._parameters("path"):
            path = path.replace(f"{{{parameter['name']}}}", str(parameter["schema"]["examples"][0]))
        return path

    @property
    def body(self) -> Document | None:
        """The body of the examples of its fields."""
        if "requestBody" not in self.described:
            return None
        reference = self.described["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema = DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]
        return {name: each["examples"][0] for name, each in schema["properties"].items() if "examples" in each}

    def wrong(self, name: str) -> tuple[str, Document]:
        """The path and the arguments of a request whose field `name` is wrong; all fields of a body are missing."""
        if self.body is not None:
            return self.path, {"json": {}}
        if f"{{{name}}}" in self.template:
            return self.template.replace(f"{{{name}}}", UNKNOWN_VALUE), {}
        return self.path, {"params": {name: UNKNOWN_VALUE}}

    def headers(self, customer: Account, manager: Account) -> dict[str, str]:
        """Those of an account that may use the operation."""
        if not self.described["security"]:
            return {}
        return (manager if "manager" in self.described["tags"] else customer).headers

    def example(self, status: int, name: str | None = None) -> Document:
        """The first example of the refusal with this status, or the one with this name."""
        examples = self.described["responses"][str(status)]["content"][PROBLEM]["examples"]
        example: Document = (examples[name] if name else next(iter(examples.values())))["value"]
        return example

    def _parameters(self, place: str) -> list[Document]:
        return [each for each in self.described.get("parameters", []) if each["in"] == place]


def operations(document: Document = DOCUMENT) -> Iterator[Operation]:
    """All operations of the document."""
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            yield Operation(method.upper(), path, described)


def answering(status: int) -> list[Operation]:
    """The operations whose answer with this status is documented."""
    return [each for each in operations() if str(status) in each.described["responses"]]


def told(reply: httpx.Response) -> tuple[int, Document]:
    """The refusal without its request's id."""
    return reply.status_code, {name: value for name, value in reply.json().items() if name != "requestId"}


def expected(status: int, example: Document) -> tuple[int, Document]:
    """The example in the same form."""
    return status, {name: value for name, value in example.items() if name != "requestId"}


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


@dataclass(frozen=True, slots=True)
class Shop:
    """Two customers, and two sessions whose seats are 1 to 16 and 17 to 32."""

    client: httpx.AsyncClient
    sql: Connection
    customer: Account
    other: Account

    async def held(self, *seat_ids: int) -> str:
        """The reservation of a new hold."""
        reply = await book(self.client, self.customer, *seat_ids)
        assert reply.status_code == 201, reply.text
        return str(reply.json()["reservationId"])


@pytest.fixture
async def shop(client: httpx.AsyncClient, sql: Connection, settings: Settings) -> Shop:
    """The API with something to sell."""
    customer, other = await make_customers(sql, settings, 2)
    for _ in range(2):
        await make_session(sql, settings)
    return Shop(client, sql, customer, other)


def same(found: Any, example: Any) -> bool:
    """Whether both are equal but for ids of reservations and times."""
    return DIFFERING.sub("", str(found)) == DIFFERING.sub("", str(example))


def named(operation_id: str) -> Operation:
    """The operation with this name."""
    return next(each for each in operations() if each.described["operationId"] == operation_id)


async def test_replies_of_pay_and_release_are_those_of_the_document(shop: Shop) -> None:
    for operation_id, settle, status in (("holdSeat", None, 201), ("pay", pay, 200), ("release", release, 200)):
        answer = named(operation_id).described["responses"][str(status)]
        if settle:
            reply = await settle(shop.client, shop.customer, await shop.held(17 if settle is pay else 18))
        else:
            reply = await shop.client.post("/customer/book/19", headers=shop.customer.headers)
        example, found = answer["content"]["application/json"]["example"], reply.json()
        assert reply.status_code == status
        assert (list(found), found["state"]) == (list(example), example["state"])
        assert {name: found[name] is None for name in found} == {name: example[name] is None for name in example}
        assert "rowlock-time" in reply.headers
        assert "Rowlock-Time" in answer["headers"]


async def test_refusals_of_holds_are_those_of_the_document(shop: Shop) -> None:
    holds = named("holdSeats")
    await book(shop.client, shop.other, 17, 18)
    taken = await book(shop.client, shop.customer, 17, 18)
    assert told(taken) == expected(409, holds.example(409, "seats-taken"))
    one = await shop.client.post("/customer/book/17", headers=shop.customer.headers)
    assert told(one) == expected(409, named("holdSeat").example(409, "seats-taken"))
    own = await book(shop.client, shop.other, 17, 18)
    assert same(told(own), expected(409, holds.example(409, "seats-taken-2")))
    several = await book(shop.client, shop.customer, 1, 19)
    assert told(several) == expected(422, holds.example(422, "seats-of-several-sessions"))
    await book(shop.client, shop.customer, *range(1, 10), key="one")
    reused = await book(shop.client, shop.customer, 10, key="one")
    assert told(reused) == expected(422, holds.example(422, "idempotency-key-reused"))
    limit = await book(shop.client, shop.customer, 10, 11)
    assert told(limit) == expected(409, holds.example(409, "seat-limit-reached"))


async def test_refusals_of_ended_sales_are_those_of_the_document(shop: Shop) -> None:
    await shop.sql.execute("update sessions set showtime = $1", datetime.now(UTC) - timedelta(hours=1))
    closed = await book(shop.client, shop.customer, 1)
    assert same(told(closed), expected(409, named("holdSeats").example(409, "sale-closed")))


async def test_refusals_of_settling_are_those_of_the_document(shop: Shop) -> None:
    paid, released, overdue = [await shop.held(seat_id) for seat_id in (1, 2, 3)]
    await pay(shop.client, shop.customer, paid)
    await release(shop.client, shop.customer, released)
    await make_overdue(shop.sql, UUID(overdue))
    for operation_id, settle, reservation_id, name in (
        ("release", release, paid, "reservation-paid"),
        ("pay", pay, released, "reservation-cancelled"),
        ("pay", pay, overdue, "hold-expired"),
        ("release", release, overdue, "hold-expired"),
    ):
        reply = await settle(shop.client, shop.customer, reservation_id)
        assert same(told(reply), expected(409, named(operation_id).example(409, name))), name

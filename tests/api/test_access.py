"""Access to every route without a token, as another customer, as the owner and as a manager, in one table."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import httpx
import pytest

from dev.postgres import Postgres
from service.app import create_app
from service.database import Connection
from service.settings import Settings
from tests.stage.edge import Refused, ledger
from tests.stage.factories import (
    Account,
    OnSale,
    book,
    make_customers,
    make_manager,
    make_session,
    make_settings,
    pay,
    release,
)
from tests.stage.forcing import locked

UNAUTHENTICATED = Refused(401, "unauthenticated")
NEEDS_CUSTOMER = Refused(403, "forbidden", says="CUSTOMER")
NEEDS_MANAGER = Refused(403, "forbidden", says="MANAGER")
NOT_YOURS = Refused(404, "not-found", says="reservation")
SESSION = {
    "movie": "Nosferatu",
    "room": "Room 2",
    "showtime": "2100-06-01T18:00:00Z",
    "duration": 94,
    "price": 900,
    "currency": "EUR",
    "placements": [f"B{number}" for number in range(16)],
}


@dataclass(frozen=True, slots=True)
class Stage:
    """The subjects of a request: a session with free seats, and a hold of the owner."""

    client: httpx.AsyncClient
    session: OnSale
    reservation_id: str

    @property
    def free_seat(self) -> int:
        """An available seat."""
        return self.session.seat_ids[-1]


Asker = Account | None
Request = Callable[[Stage], httpx.Request]


def request(method: str, path: str, body: Callable[[Stage], object] = lambda _: None) -> Request:
    """A request whose path and body are filled from the stage."""

    def build(stage: Stage) -> httpx.Request:
        filled = path.format(seatId=stage.free_seat, sessionId=stage.session.id, reservationId=stage.reservation_id)
        return stage.client.build_request(method, filled, json=body(stage))

    return build


def sign_up_body(stage: Stage) -> object:
    """The body of a valid sign-up."""
    return {"email": f"{stage.reservation_id}@example.com", "password": "correct horse", "name": "Ada"}


Row = tuple[int | Refused, int | Refused, int | Refused, int | Refused]
ANYBODY_GETS_200: Row = (200, 200, 200, 200)
CUSTOMERS_GET_201: Row = (UNAUTHENTICATED, 201, 201, NEEDS_CUSTOMER)
OWNER_GETS_200: Row = (UNAUTHENTICATED, NOT_YOURS, 200, NEEDS_CUSTOMER)
WRONG_PASSWORD = Refused(401, "wrong-credentials")

# The answers without a token, to another customer, to the owner of the hold, and to a manager.
WHO_MAY_WHAT: dict[tuple[str, str], tuple[Row, Request]] = {
    ("post", "/sign-up"): ((201, 201, 201, 201), request("POST", "/sign-up", sign_up_body)),
    ("post", "/sign-in"): (
        (WRONG_PASSWORD, WRONG_PASSWORD, WRONG_PASSWORD, WRONG_PASSWORD),
        request("POST", "/sign-in", lambda _: {"email": "nobody@example.com", "password": "correct horse"}),
    ),
    ("post", "/manager/create"): (
        (UNAUTHENTICATED, NEEDS_MANAGER, NEEDS_MANAGER, 201),
        request("POST", "/manager/create", lambda _: SESSION),
    ),
    ("get", "/customer/list-sessions"): (ANYBODY_GETS_200, request("GET", "/customer/list-sessions")),
    ("get", "/customer/session/{sessionId}"): (ANYBODY_GETS_200, request("GET", "/customer/session/{sessionId}")),
    ("post", "/customer/book/{seatId}"): (CUSTOMERS_GET_201, request("POST", "/customer/book/{seatId}")),
    ("post", "/customer/book"): (
        CUSTOMERS_GET_201,
        request("POST", "/customer/book", lambda stage: {"seatIds": [stage.free_seat]}),
    ),
    ("put", "/customer/pay/{reservationId}"): (OWNER_GETS_200, request("PUT", "/customer/pay/{reservationId}")),
    ("delete", "/customer/reservation/{reservationId}"): (
        OWNER_GETS_200,
        request("DELETE", "/customer/reservation/{reservationId}"),
    ),
    ("get", "/customer/list-history"): (
        (UNAUTHENTICATED, 200, 200, NEEDS_CUSTOMER),
        request("GET", "/customer/list-history"),
    ),
    ("get", "/manager/audit"): (
        (UNAUTHENTICATED, NEEDS_MANAGER, NEEDS_MANAGER, 200),
        request("GET", "/manager/audit"),
    ),
    ("get", "/customer/reservation/{reservationId}"): (
        OWNER_GETS_200,
        request("GET", "/customer/reservation/{reservationId}"),
    ),
    ("get", "/manager/session/{sessionId}/abuse"): (
        (UNAUTHENTICATED, NEEDS_MANAGER, NEEDS_MANAGER, 200),
        request("GET", "/manager/session/{sessionId}/abuse"),
    ),
    ("post", "/manager/session/{sessionId}/pause"): (
        (UNAUTHENTICATED, NEEDS_MANAGER, NEEDS_MANAGER, 200),
        request("POST", "/manager/session/{sessionId}/pause"),
    ),
    ("post", "/manager/session/{sessionId}/resume"): (
        (UNAUTHENTICATED, NEEDS_MANAGER, NEEDS_MANAGER, 200),
        request("POST", "/manager/session/{sessionId}/resume"),
    ),
    ("get", "/livez"): (ANYBODY_GETS_200, request("GET", "/livez")),
    ("get", "/readyz"): (ANYBODY_GETS_200, request("GET", "/readyz")),
}
ASKERS = ("without a token", "another customer", "the owner", "a manager")


def test_the_table_has_every_route() -> None:
    paths = create_app(make_settings("postgresql://rowlock@127.0.0.1/rowlock")).openapi()["paths"]
    assert {(method, path) for path, methods in paths.items() for method in methods} == set(WHO_MAY_WHAT)


@pytest.mark.parametrize("who", range(4), ids=lambda who: ASKERS[who])
async def test_each_route_answers_each_role_and_refusals_write_nothing(
    who: int, client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    owner, stranger = await make_customers(sql, settings, 2)
    asker = (None, stranger, owner, await make_manager(sql, settings))[who]
    wrong: dict[tuple[str, str], str] = {}
    for route, (row, build) in WHO_MAY_WHAT.items():
        session = await make_session(sql, settings)
        held = (await book(client, owner, session.seat_ids[0])).json()
        asked = build(Stage(client, session, held["reservationId"]))
        asked.headers.update(asker.headers if asker else {})
        before = await ledger(sql)
        reply = await client.send(asked)
        if complaint := complaint_about(reply, row[who]):
            wrong[route] = complaint
        elif isinstance(row[who], Refused) and await ledger(sql) != before:
            wrong[route] = "was refused and has written"
    assert wrong == {}


def complaint_about(reply: httpx.Response, expected: int | Refused) -> str | None:
    """The difference between the reply and the expectation; None if there is none."""
    if isinstance(expected, Refused):
        return expected.complaint(reply)
    return None if reply.status_code == expected else f"{reply.status_code} {reply.text[:300]}"


async def test_what_nobody_is_refused_says_how_to_sign_in(client: httpx.AsyncClient) -> None:
    for method, path in (("GET", "/customer/list-history"), ("POST", "/customer/book/1"), ("POST", "/manager/create")):
        assert (await client.request(method, path)).headers["WWW-Authenticate"] == "Bearer"


async def test_another_customers_paid_reservation_is_not_found(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    owner, stranger = await make_customers(sql, settings, 2)
    session = await make_session(sql, settings)
    paid = (await book(client, owner, session.seat_ids[0])).json()["reservationId"]
    await pay(client, owner, paid)
    before = await ledger(sql)
    unknown = "01926e2c-5a00-7000-8000-000000000001"
    for method, path in (("PUT", "/customer/pay"), ("DELETE", "/customer/reservation")):
        of_another, of_nobody = [
            (await client.request(method, f"{path}/{id_}", headers=stranger.headers)).json() for id_ in (paid, unknown)
        ]
        assert of_another | {"requestId": ""} == of_nobody | {"requestId": ""}
        assert of_another["status"] == 404
    assert await ledger(sql) == before


async def test_another_customer_can_neither_wait_for_nor_lock_a_hold(
    client: httpx.AsyncClient, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    owner, stranger = await make_customers(sql, settings, 2)
    session = await make_session(sql, settings)
    held = (await book(client, owner, session.seat_ids[0])).json()["reservationId"]
    # A request that waited for this lock would get "busy" in the end, which reveals that the reservation exists.
    async with locked(postgres, "reservations", UUID(held)):
        replies = [await pay(client, stranger, held), await release(client, stranger, held)]
    assert [NOT_YOURS.complaint(reply) for reply in replies] == [None, None]


async def test_a_history_has_only_ones_own_reservations(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    owner, stranger = await make_customers(sql, settings, 2)
    session = await make_session(sql, settings)
    own = {}
    for customer, seat_id in zip((owner, stranger), session.seat_ids, strict=False):
        own[customer] = (await book(client, customer, seat_id)).json()["reservationId"]
    for customer, reservation_id in own.items():
        page = await client.get("/customer/list-history?state=ALL", headers=customer.headers)
        assert [line["reservationId"] for line in page.json()["reservations"]] == [reservation_id]

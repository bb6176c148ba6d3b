"""Invalid sessions: one table of cases and answers."""

import json
from typing import Any
from uuid import uuid4

import httpx

from service.api.manager import PRICE_MAX
from service.database import Connection
from service.settings import Settings
from tests.stage.edge import Case, Refused, invalid, wrongly_answered
from tests.stage.factories import book, make_customer, make_manager, pay

# NFC makes it longer: three characters for one.
GROWS_BY_COMPOSING = "\ufb2c"
PLACEMENTS = [f"A{number}" for number in range(1, 17)]
SESSION: dict[str, Any] = {
    "movie": "Metropolis",
    "room": "Room 1",
    "showtime": "2100-06-01T18:00:00Z",
    "duration": 153,
    "price": 1250,
    "currency": "EUR",
    "placements": PLACEMENTS,
}
RFC_3339 = "RFC 3339"
NOT_PRINTABLE = "control characters"
INVISIBLE = (
    "\u200b",
    "\u2060 \u200e",
    "\u00ad\ufeff",
    "\u3164",
    "\u2800\u2800",
    "\u0301",
    "\u034f\ufe0f",
    "\U000e0001",
)

CHANGES: list[tuple[str, dict[str, Any], Refused]] = [
    ("15 placements", {"placements": PLACEMENTS[:15]}, invalid("placements", "must have at least 16 items")),
    (
        "100,001 placements",
        {"placements": list(map(str, range(100_001)))},
        invalid("placements", "have at most 100000 items"),
    ),
    ("no placement", {"placements": []}, invalid("placements", "must have at least 16 items")),
    ("doubled", {"placements": [*PLACEMENTS, "A7"]}, invalid("placements", "'A7' occurs more than once")),
    ("doubled, with blanks", {"placements": [*PLACEMENTS, " A7 "]}, invalid("placements", "'A7' occurs more")),
    ("doubled, composed", {"placements": [*PLACEMENTS, "Å", "A\u030a"]}, invalid("placements", "'Å' occurs more")),
    ("a placement is empty", {"placements": [*PLACEMENTS, ""]}, invalid("placements.16", "at least 1 character")),
    ("a placement is blank", {"placements": [*PLACEMENTS, " "]}, invalid("placements.16", "at least 1 character")),
    ("a placement is long", {"placements": ["x" * 65, *PLACEMENTS]}, invalid("placements.0", "at most 64 characters")),
    (
        "a placement is long, composed",
        {"placements": [GROWS_BY_COMPOSING * 22, *PLACEMENTS]},
        invalid("placements.0", "at most 64 characters"),
    ),
    ("a placement with NUL", {"placements": [*PLACEMENTS, "\x00"]}, invalid("placements.16", NOT_PRINTABLE)),
    ("a placement is half a pair", {"placements": [*PLACEMENTS, "\ud800"]}, invalid("placements.16", "surrogate")),
    ("a placement with nothing", {"placements": [*PLACEMENTS, "A1\u200b"]}, invalid("placements.16", "visible")),
    ("a joiner at the end", {"placements": [*PLACEMENTS, "A1\u200d"]}, invalid("placements.16", "joiners")),
    ("a joiner of Latin letters", {"placements": [*PLACEMENTS, "A\u200cB"]}, invalid("placements.16", "joiners")),
    ("only joiners", {"placements": [*PLACEMENTS, "\u200c\u200d"]}, invalid("placements.16", "a visible character")),
    ("a filler", {"placements": [*PLACEMENTS, "A1\u3164"]}, invalid("placements.16", "only visible")),
    ("a variant", {"placements": [*PLACEMENTS, "A1\ufe0f"]}, invalid("placements.16", "only visible")),
    ("a placement is a number", {"placements": [*PLACEMENTS, 1]}, invalid("placements.16", "must be a string")),
    ("a string of placements", {"placements": "A1 A2"}, invalid("placements", "must be an array")),
    ("in the past", {"showtime": "2020-06-01T18:00:00Z"}, invalid("showtime", "must be in the future")),
    ("in the year 1", {"showtime": "0001-01-01T00:00:00Z"}, invalid("showtime", "must be in the future")),
    ("before the year 1", {"showtime": "0001-01-01T00:00:00+14:00"}, invalid("showtime", "years 1 to 9999")),
    ("after the year 9999", {"showtime": "9999-12-31T23:59:59-14:00"}, invalid("showtime", "years 1 to 9999")),
    ("in the year 9999", {"showtime": "9999-12-31T23:59:59.999999Z"}, invalid("showtime", "at most 100 years ahead")),
    ("in the year 9998", {"showtime": "9998-12-31T23:59:59Z"}, invalid("showtime", "at most 100 years ahead")),
    ("in the year 10000", {"showtime": "10000-01-01T00:00:00Z"}, invalid("showtime", "such as 2030-06-01T18:00:00Z")),
    ("without offset", {"showtime": "2100-06-01T18:00:00"}, invalid("showtime", "add Z or +01:00")),
    ("a date", {"showtime": "2100-06-01"}, invalid("showtime", RFC_3339)),
    ("no date", {"showtime": "tomorrow"}, invalid("showtime", "such as 2030-06-01T18:00:00Z")),
    ("seconds since 1970", {"showtime": 4_115_000_000}, invalid("showtime", RFC_3339)),
    ("such seconds as a string", {"showtime": "4115000000"}, invalid("showtime", RFC_3339)),
    ("no showtime", {"showtime": None}, invalid("showtime", RFC_3339)),
    ("a negative price", {"price": -1}, invalid("price", "must be at least 0")),
    ("too dear", {"price": PRICE_MAX + 1}, invalid("price", "must be at most 10000000000000")),
    ("a price of 2**64", {"price": 2**64}, invalid("price", "must be at most 10000000000000")),
    ("a price in euros", {"price": 12.50}, invalid("price", "minor units: 1250 is 12.50")),
    ("a price as a float", {"price": 12.0}, invalid("price", "whole number")),
    ("a price as a string", {"price": "1250"}, invalid("price", "whole number")),
    ("a price as a bool", {"price": True}, invalid("price", "whole number")),
    ("an unknown currency", {"currency": "XYZ"}, invalid("currency", "ISO 4217")),
    ("no currency", {"currency": ""}, invalid("currency", "such as EUR")),
    ("a currency's name", {"currency": "Euro"}, invalid("currency", "an ISO 4217 code, such as EUR")),
    ("currencies", {"currency": ["EUR"]}, invalid("currency", "an ISO 4217 code")),
    ("a currency as a number", {"currency": 978}, invalid("currency", "such as EUR")),
    ("no minute", {"duration": 0}, invalid("duration", "must be at least 1")),
    ("more than a day", {"duration": 1_441}, invalid("duration", "must be at most 1440")),
    ("a duration as a string", {"duration": "153"}, invalid("duration", "whole number")),
    ("no movie", {"movie": ""}, invalid("movie", "at least 1 character")),
    ("a blank room", {"room": "\u2003"}, invalid("room", "at least 1 character")),
    ("a long movie", {"movie": "x" * 201}, invalid("movie", "at most 200 characters")),
    ("a long movie, composed", {"movie": GROWS_BY_COMPOSING * 67}, invalid("movie", "at most 200 characters")),
    ("a movie with NUL", {"movie": "Metro\x00polis"}, invalid("movie", NOT_PRINTABLE)),
    ("a room of two lines", {"room": "Room\n1"}, invalid("room", NOT_PRINTABLE)),
    ("a room with half a pair", {"room": "Room \udfff"}, invalid("room", "surrogate")),
    *(
        (f"a {field} that shows nothing: {name!a}", {field: name}, invalid(field, "a visible character"))
        for field in ("movie", "room")
        for name in INVISIBLE
    ),
    ("a movie as a number", {"movie": 1927}, invalid("movie", "must be a string")),
    ("a movie that is null", {"movie": None}, invalid("movie", "must be a string")),
    ("somebody else's name", {"createdBy": "ada"}, invalid("createdBy", "not permitted")),
    ("the field's name in Python", {"seat_count": 16}, invalid("seat_count", "not permitted")),
]


async def test_an_invalid_session_is_refused_by_name(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    manager = await make_manager(sql, settings)
    headers = manager.headers | {"Content-Type": "application/json"}

    def case(name: str, body: dict[str, Any], refused: Refused) -> Case:
        request = client.build_request("POST", "/manager/create", content=json.dumps(body), headers=headers)
        return Case(name, request, refused)

    cases = [case(name, SESSION | change, refused) for name, change, refused in CHANGES]
    for field in SESSION:
        rest = {name: value for name, value in SESSION.items() if name != field}
        cases.append(case(f"without {field}", rest, invalid(field, "required")))
    assert await wrongly_answered(client, sql, cases) == {}


async def test_of_100000_faults_in_a_body_twenty_are_answered(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    manager = await make_manager(sql, settings)
    body = SESSION | {"placements": [""] * 100_000}
    reply = await client.post("/manager/create", json=body, headers=manager.headers)
    assert reply.status_code == 422
    assert [error["field"] for error in reply.json()["errors"]] == [f"placements.{n}" for n in range(20)]


async def test_odd_but_printable_unicode_comes_back_as_it_was_composed(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    manager = await make_manager(sql, settings)
    names = {"movie": " Ame\u0301lie \U0001f3ac ", "room": "שלום \u202e 1", "placements": [*PLACEMENTS, "A\u030a1"]}
    reply = await client.post("/manager/create", json=SESSION | names, headers=manager.headers)
    assert reply.status_code == 201
    made = reply.json()
    assert (made["movie"], made["room"], made["seats"][-1]["placement"]) == (
        "Am\u00e9lie \U0001f3ac",
        "שלום \u202e 1",
        "\u00c51",
    )
    row = await sql.fetchrow("select movie, room from sessions")
    assert row is not None
    assert (row["movie"], row["room"]) == (made["movie"], made["room"])


LONG = "Parkett links, Loge 3 / Reihe 12 / Platz 104"
JOINED = (
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 1",
    "\u0915\u094d\u200d\u0937 1",
    "\u0915\u094d\u200c\u0937 1",
)
"""Words of Persian and Hindi that are written with a joiner."""


async def test_long_and_joined_placements_come_back_as_they_were(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    manager = await make_manager(sql, settings)
    placements = [*PLACEMENTS, LONG, str(uuid4()), "x" * 64, *JOINED]
    reply = await client.post("/manager/create", json=SESSION | {"placements": placements}, headers=manager.headers)
    assert reply.status_code == 201, reply.text
    assert [seat["placement"] for seat in reply.json()["seats"]] == placements


async def test_the_dearest_seats_are_held_and_paid_exactly(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    manager, customer = await make_manager(sql, settings), await make_customer(sql, settings)
    dear = SESSION | {"price": PRICE_MAX, "currency": "IRR"}
    made = (await client.post("/manager/create", json=dear, headers=manager.headers)).json()
    seat_ids = [seat["seatId"] for seat in made["seats"][:10]]
    held = (await book(client, customer, *seat_ids)).json()
    paid = (await pay(client, customer, held["reservationId"])).json()
    assert (paid["state"], paid["total"]) == ("CONFIRMED", 10 * PRICE_MAX)
    shown = (await client.get(f"/customer/session/{made['sessionId']}")).json()
    assert {seat["price"] for seat in shown["seats"]} == {PRICE_MAX}
    assert await sql.fetchval("select amount from payments") == 10 * PRICE_MAX


def test_the_largest_total_is_exact_as_a_double() -> None:
    most = PRICE_MAX * 100
    assert int(float(most - 1)) == most - 1
    assert most < 2**53

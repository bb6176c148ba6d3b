"""Invalid sessions: one table of cases and answers."""

import json
from typing import Any

import httpx

from service.database import Connection
from service.settings import Settings
from tests.stage.edge import Case, Refused, invalid, wrongly_answered
from tests.stage.factories import make_manager

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
    ("a placement is long", {"placements": ["x" * 33, *PLACEMENTS]}, invalid("placements.0", "at most 32 characters")),
    (
        "a placement is long, composed",
        {"placements": [GROWS_BY_COMPOSING * 11, *PLACEMENTS]},
        invalid("placements.0", "at most 32 characters"),
    ),
    ("a placement with NUL", {"placements": [*PLACEMENTS, "\x00"]}, invalid("placements.16", NOT_PRINTABLE)),
    ("a placement is half a pair", {"placements": [*PLACEMENTS, "\ud800"]}, invalid("placements.16", "surrogate")),
    ("a placement with nothing", {"placements": [*PLACEMENTS, "A1\u200b"]}, invalid("placements.16", "visible")),
    ("a placement is a number", {"placements": [*PLACEMENTS, 1]}, invalid("placements.16", "valid string")),
    ("a string of placements", {"placements": "A1 A2"}, invalid("placements", "valid list")),
    ("in the past", {"showtime": "2020-06-01T18:00:00Z"}, invalid("showtime", "must be in the future")),
    ("in the year 1", {"showtime": "0001-01-01T00:00:00Z"}, invalid("showtime", "must be in the future")),
    ("before the year 1", {"showtime": "0001-01-01T00:00:00+14:00"}, invalid("showtime", "years 1 to 9999")),
    ("after the year 9999", {"showtime": "9999-12-31T23:59:59-14:00"}, invalid("showtime", "years 1 to 9999")),
    ("in the year 9999", {"showtime": "9999-12-31T23:59:59.999999Z"}, invalid("showtime", "at most 100 years ahead")),
    ("in the year 9998", {"showtime": "9998-12-31T23:59:59Z"}, invalid("showtime", "at most 100 years ahead")),
    ("in the year 10000", {"showtime": "10000-01-01T00:00:00Z"}, invalid("showtime", "valid datetime")),
    ("without offset", {"showtime": "2100-06-01T18:00:00"}, invalid("showtime", "timezone")),
    ("a date", {"showtime": "2100-06-01"}, invalid("showtime", RFC_3339)),
    ("no date", {"showtime": "tomorrow"}, invalid("showtime", "valid datetime")),
    ("seconds since 1970", {"showtime": 4_115_000_000}, invalid("showtime", RFC_3339)),
    ("such seconds as a string", {"showtime": "4115000000"}, invalid("showtime", RFC_3339)),
    ("no showtime", {"showtime": None}, invalid("showtime", RFC_3339)),
    ("a negative price", {"price": -1}, invalid("price", "greater than or equal to 0")),
    ("too dear", {"price": 100_000_001}, invalid("price", "less than or equal to 100000000")),
    ("a price of 2**64", {"price": 2**64}, invalid("price", "less than or equal to 100000000")),
    ("a price as a float", {"price": 12.0}, invalid("price", "valid integer")),
    ("a price as a string", {"price": "1250"}, invalid("price", "valid integer")),
    ("a price as a bool", {"price": True}, invalid("price", "valid integer")),
    ("an unknown currency", {"currency": "XYZ"}, invalid("currency", "ISO 4217")),
    ("no currency", {"currency": ""}, invalid("currency", "3 characters")),
    ("a currency as a number", {"currency": 978}, invalid("currency", "valid string")),
    ("no minute", {"duration": 0}, invalid("duration", "greater than or equal to 1")),
    ("more than a day", {"duration": 1_441}, invalid("duration", "less than or equal to 1440")),
    ("a duration as a string", {"duration": "153"}, invalid("duration", "valid integer")),
    ("no movie", {"movie": ""}, invalid("movie", "at least 1 character")),
    ("a blank room", {"room": "\u2003"}, invalid("room", "at least 1 character")),
    ("a long movie", {"movie": "x" * 201}, invalid("movie", "at most 200 characters")),
    ("a long movie, composed", {"movie": GROWS_BY_COMPOSING * 67}, invalid("movie", "at most 200 characters")),
    ("a movie with NUL", {"movie": "Metro\x00polis"}, invalid("movie", NOT_PRINTABLE)),
    ("a room of two lines", {"room": "Room\n1"}, invalid("room", NOT_PRINTABLE)),
    ("a room with half a pair", {"room": "Room \udfff"}, invalid("room", "surrogate")),
    ("a movie as a number", {"movie": 1927}, invalid("movie", "valid string")),
    ("a movie that is null", {"movie": None}, invalid("movie", "valid string")),
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

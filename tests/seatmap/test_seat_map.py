"""The live map: every seat as in PostgreSQL, with its source and age; ETags and compression."""

import gzip
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import orjson
import pytest

from service.api.mapbody import accepts_gzip
from service.database import Connection
from service.seatmap.keys import WATERMARK
from service.settings import Settings
from tests.conftest import serving
from tests.stage.factories import OnSale, book, make_customer, make_manager, make_session, pay
from tests.stage.seat_maps import Projection, ask, assert_map_is_right

ODD = ['"A"', "\\", "Ä1", "座1", "💺", "<b>", "a'b", "}]", "{", "é", "\u00df\u0301", "%d", "A B", "\\u0041", "''", ","]


@pytest.fixture
async def api(projection: Projection) -> AsyncIterator[httpx.AsyncClient]:
    """The API with the same Redis."""
    async with serving(projection.settings) as client:
        yield client


async def make_odd_session(client: httpx.AsyncClient, sql: Connection, settings: Settings) -> OnSale:
    """Its seats have names that JSON must escape."""
    body = {
        "movie": "Metropolis",
        "room": "Room 1",
        "showtime": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
        "duration": 153,
        "price": 1250,
        "currency": "EUR",
        "placements": ODD,
    }
    manager = await make_manager(sql, settings)
    reply = await client.post("/manager/create", json=body, headers=manager.headers)
    assert reply.status_code == 201, reply.text
    return OnSale(reply.json()["sessionId"], [seat["seatId"] for seat in reply.json()["seats"]])


@pytest.mark.parametrize("source", ["redis", "postgresql"])
async def test_the_map_of_each_source_shows_every_seat_correctly(
    api: httpx.AsyncClient, projection: Projection, sql: Connection, source: str
) -> None:
    customer = await make_customer(sql, projection.settings)
    on_sale = await make_odd_session(api, sql, projection.settings)
    await book(api, customer, *on_sale.seat_ids[3:6])
    paid = (await book(api, customer, on_sale.seat_ids[15])).json()
    await pay(api, customer, paid["reservationId"])
    before = await sql.fetchval("select clock_timestamp()")
    if source == "redis":
        await projection.step()
    asked = await sql.fetchval("select clock_timestamp()")
    reply = await assert_map_is_right(api, sql, on_sale)
    after = await sql.fetchval("select clock_timestamp()")
    assert (reply["sessionId"], reply["currency"], reply["source"]) == (on_sale.id, "EUR", source)
    assert reply["asOf"].endswith("Z")
    as_of, age = datetime.fromisoformat(reply["asOf"]), timedelta(milliseconds=reply["ageMs"])
    assert before <= as_of <= after
    # The age counts from the beginning of the step or the read, by a clock that may be a little behind.
    assert age - timedelta(milliseconds=5) <= after - before
    assert as_of + age + timedelta(milliseconds=5) >= asked, "never younger than it is"
    states = [seat["state"] for seat in reply["seats"]]
    assert (states.count("HELD"), states.count("SOLD")) == (3, 1)


async def test_without_redis_the_map_comes_from_postgresql(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    on_sale = await make_session(sql, settings)
    await book(client, await make_customer(sql, settings), on_sale.seat_ids[4])
    assert (await assert_map_is_right(client, sql, on_sale))["source"] == "postgresql"


@pytest.mark.parametrize("fresh", [True, False])
async def test_a_session_that_does_not_exist_is_not_found(
    api: httpx.AsyncClient, projection: Projection, *, fresh: bool
) -> None:
    if fresh:
        await projection.step()
    reply = await api.get("/customer/session/12345")
    assert (reply.status_code, reply.json()["what"]) == (404, "session")
    assert await projection.redis.keys("rowlock:*:12345:*") == []


async def test_a_map_from_redis_has_its_age(api: httpx.AsyncClient, projection: Projection, sql: Connection) -> None:
    on_sale = await make_session(sql, projection.settings)
    await projection.step()
    first = (await ask(api, on_sale)).json()
    # As if 7 s had passed in Redis.
    epoch, began_ms, as_of = (await projection.redis.get(WATERMARK)).split(b"|")
    await projection.redis.set(WATERMARK, b"%b|%d|%b" % (epoch, int(began_ms) - 7_000, as_of))
    seen = await projection.get(on_sale)
    assert 7_000 <= seen.age_ms < 20_000
    assert seen.as_of == datetime.fromisoformat(first["asOf"])


async def test_an_unchanged_map_is_304_with_a_newer_time(
    api: httpx.AsyncClient, projection: Projection, sql: Connection
) -> None:
    on_sale = await make_session(sql, projection.settings)
    await projection.step()
    first = await ask(api, on_sale)
    etag = first.headers["etag"]
    assert first.headers["cache-control"] == "no-cache"
    await projection.step()
    same = await asked_until_newer(api, on_sale, first.headers["rowlock-as-of"], etag)
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert same.headers["rowlock-source"] == "redis"
    assert int(same.headers["rowlock-age-ms"]) >= 0
    await book(api, await make_customer(sql, projection.settings), on_sale.seat_ids[0])
    await projection.step()
    changed = await asked_until_newer(api, on_sale, same.headers["rowlock-as-of"], etag)
    assert changed.status_code == 200
    assert changed.headers["etag"] != etag
    body = changed.json()
    assert body["seats"][0]["state"] == "HELD"
    told = [changed.headers[f"rowlock-{name}"] for name in ("source", "as-of", "age-ms")]
    assert told == [body["source"], body["asOf"], str(body["ageMs"])]


async def asked_until_newer(client: httpx.AsyncClient, on_sale: OnSale, than: str, etag: str) -> httpx.Response:
    """The first answer with a later time. The process remembers each map for a moment."""
    while True:
        reply = await ask(client, on_sale, **{"If-None-Match": etag})
        if datetime.fromisoformat(reply.headers["rowlock-as-of"]) > datetime.fromisoformat(than):
            return reply


@pytest.mark.parametrize(
    ("form", "status"),
    [("{}", 304), ('"x", {}', 304), ("{strong}", 304), ("*", 304), ('"x"', 200), ("", 200), ("{bare}", 200)],
)
async def test_an_etag_is_recognised_in_every_form_that_clients_send(
    client: httpx.AsyncClient, sql: Connection, settings: Settings, form: str, status: int
) -> None:
    on_sale = await make_session(sql, settings)
    etag = (await ask(client, on_sale)).headers["etag"]
    strong = etag.removeprefix("W/")
    reply = await ask(client, on_sale, **{"If-None-Match": form.format(etag, strong=strong, bare=strong.strip('"'))})
    assert reply.status_code == status


async def test_two_sessions_with_equal_states_have_different_etags(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    one, other = [await make_session(sql, settings) for _ in range(2)]
    assert (await ask(client, one)).headers["etag"] != (await ask(client, other)).headers["etag"]


async def test_the_compressed_map_is_the_plain_one(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    on_sale = await make_session(sql, settings, 1_000)
    customer = await make_customer(sql, settings)
    for seat_id in on_sale.seat_ids[:3]:
        await book(client, customer, seat_id)
        plain = await ask(client, on_sale, **{"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        async with client.stream(
            "GET", f"/customer/session/{on_sale.id}", headers={"Accept-Encoding": "br, gzip"}
        ) as reply:
            packed = b"".join([part async for part in reply.aiter_raw()])
        assert (reply.headers["content-encoding"], reply.headers["vary"]) == ("gzip", "Accept-Encoding")
        assert int(reply.headers["content-length"]) == len(packed) < len(plain.content) / 8
        # The module checks length and checksum too.
        assert orjson.loads(gzip.decompress(packed))["seats"] == plain.json()["seats"]


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("br, GZIP ;q=0.5", True),
        ("deflate,gzip", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("br", False),
        ("x-gzip", False),
        ("", False),
    ],
)
def test_the_map_is_compressed_for_clients_that_accept_it(header: str, *, accepted: bool) -> None:
    assert accepts_gzip(header) is accepted

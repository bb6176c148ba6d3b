"""Pages by cursor: all of the list, nothing twice, also where many have the same showtime and while others come."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from service.api.cursors import decode_session, encode_session
from service.database import Connection
from service.settings import Settings
from tests.conftest import serving
from tests.stage.factories import OnSale, make_customer, make_session
from tests.stage.reservations import make_history

SOON = datetime(2100, 1, 1, 12, tzinfo=UTC)


async def all_pages(
    client: httpx.AsyncClient, path: str, items: str, limit: int, **more: dict[str, str]
) -> list[list[dict[str, Any]]]:
    """Follows `next` to the end."""
    pages: list[list[dict[str, Any]]] = []
    cursor: str | None = None
    while cursor is not None or not pages:
        parameters = {"limit": str(limit), "cursor": cursor} if cursor is not None else {"limit": str(limit)}
        reply = await client.get(path, params=parameters | more.get("params", {}), headers=more.get("headers"))
        assert reply.status_code == 200
        pages.append(reply.json()[items])
        cursor = reply.json()["next"]
        assert len(pages) < 100
    return pages


async def make_sessions(sql: Connection, settings: Settings, count: int) -> list[OnSale]:
    """In the order of the list; each five have the same showtime, to the microsecond."""
    return [
        await make_session(sql, settings, showtime=SOON + timedelta(microseconds=number // 5))
        for number in range(count)
    ]


@pytest.mark.parametrize("limit", [1, 4, 5, 22, 23, 24])
async def test_pages_of_sessions_have_each_one_once_and_in_order(
    limit: int, client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    sessions = await make_sessions(sql, settings, 23)
    pages = await all_pages(client, "/customer/list-sessions", "sessions", limit)
    assert [item["sessionId"] for page in pages for item in page] == [session.id for session in sessions]
    # Every page is full but the last one, which is never empty.
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert 1 <= len(pages[-1]) <= limit


async def test_a_page_has_twenty_sessions_or_up_to_the_servers_maximum(sql: Connection, settings: Settings) -> None:
    sessions = await make_sessions(sql, settings, 23)
    async with serving(settings.model_copy(update={"page_size_max": 21})) as client:
        first = (await client.get("/customer/list-sessions")).json()
        most = (await client.get("/customer/list-sessions?limit=200")).json()
        rest = (await client.get("/customer/list-sessions", params={"cursor": most["next"]})).json()
    assert [len(page["sessions"]) for page in (first, most, rest)] == [20, 21, 2]
    assert [item["sessionId"] for item in rest["sessions"]] == [session.id for session in sessions[21:]]
    assert rest["next"] is None


async def test_new_and_past_sessions_do_not_shift_the_next_page(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    sessions = await make_sessions(sql, settings, 8)
    first = (await client.get("/customer/list-sessions?limit=4")).json()
    await make_session(sql, settings, showtime=SOON - timedelta(days=1))
    await sql.execute("update sessions set showtime = clock_timestamp() where id = $1", sessions[0].id)
    later = await make_session(sql, settings, showtime=SOON + timedelta(days=1))
    rest = (await client.get("/customer/list-sessions", params={"cursor": first["next"]})).json()
    assert [item["sessionId"] for item in rest["sessions"]] == [*(session.id for session in sessions[4:]), later.id]


async def test_an_empty_list_is_one_empty_page(client: httpx.AsyncClient, sql: Connection, settings: Settings) -> None:
    customer = await make_customer(sql, settings)
    assert (await client.get("/customer/list-sessions")).json() == {"sessions": [], "next": None}
    history = await client.get("/customer/list-history", headers=customer.headers)
    assert history.json() == {"reservations": [], "next": None}


@pytest.mark.parametrize("limit", [1, 3, 7, 8])
async def test_pages_of_a_history_have_each_reservation_once(
    limit: int, client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    history = await make_history(client, sql, settings)
    more = {"params": {"state": "ALL"}, "headers": history.customer.headers}
    pages = await all_pages(client, "/customer/list-history", "reservations", limit, **more)
    assert [item["reservationId"] for page in pages for item in page] == [id_ for id_, _ in reversed(history.made)]


def test_a_cursor_is_what_it_was_made_of() -> None:
    moment = datetime(2100, 1, 1, 12, 30, 15, 123_456, tzinfo=UTC)
    assert decode_session(encode_session(moment, 2**63 - 1)) == (moment, 2**63 - 1)

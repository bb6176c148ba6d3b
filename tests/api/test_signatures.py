"""Compiled signatures: what can't be compiled stops the start. And replies made without their models."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import asyncpg
import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Body, Cookie, Query, Request, Response
from fastapi.routing import APIRoute

from service.api.customer import ReservationReply, SettledReply, render_hold, render_settled
from service.api.lean import LeanRoutes
from service.api.signature import Signature
from service.errors import TokenFault, Unauthenticated
from service.reservation import Reservation, Seat, State

ID = "01926e2c-5a00-7000-8000-000000000001"


async def takes_cookie(cookie: Annotated[str, Cookie()]) -> None:
    """Reads a cookie."""


async def takes_response(response: Response) -> None:
    """Changes a response."""


async def takes_tasks(tasks: BackgroundTasks) -> None:
    """Works after the answer."""


async def takes_two_bodies(one: Annotated[int, Body()], two: Annotated[int, Body()]) -> None:
    """Takes an object of two bodies."""


def takes_a_thread() -> None:
    """Runs beside the event loop."""


async def takes_a_list(several: Annotated[list[str], Query()]) -> None:
    """Takes a parameter several times."""


SEATS = [Seat(18, 1, "A\u00e9\u2028", 1250), Seat(17, 2, '"\\\x7f', 0)]
MOMENT = datetime(2030, 6, 1, 17, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize("settled_at", [None, MOMENT + timedelta(microseconds=5)])
@pytest.mark.parametrize("state", State)
def test_replies_have_the_bytes_of_their_models(state: State, settled_at: datetime | None) -> None:
    id_ = asyncpg.pgproto.pgproto.UUID(ID)
    reservation = Reservation(id_, id_, 2, (17, 18), state, 1250, "EUR", MOMENT, MOMENT, settled_at)
    for model, reply in (
        (ReservationReply, render_hold(reservation, SEATS).encode()),
        (SettledReply, render_settled(reservation, SEATS)),
    ):
        assert model.model_validate_json(reply).model_dump_json(by_alias=True).encode() == reply


@pytest.mark.parametrize(
    "endpoint", [takes_cookie, takes_response, takes_tasks, takes_two_bodies, takes_a_thread, takes_a_list]
)
def test_a_signature_that_is_not_supported_is_refused(endpoint: Callable[..., Any]) -> None:
    router = APIRouter()
    router.add_api_route("/path", endpoint)
    (route,) = router.routes
    assert isinstance(route, APIRoute)
    with pytest.raises(ValueError, match="can't be"):
        Signature(route)


@pytest.mark.parametrize("path", ["/{one}/x", "/{one}/{two}", "/x/{one:int}", "/x/a{one}"])
def test_a_path_that_is_not_supported_is_refused(path: str) -> None:
    router = APIRouter()
    router.add_api_route(path, nothing)
    (route,) = router.routes
    assert isinstance(route, APIRoute)
    with pytest.raises(ValueError, match="can't be"):
        Signature(route)


async def nothing() -> None:
    """Does nothing."""


ERROR = Unauthenticated(TokenFault.MISSING)


async def fails() -> None:
    """Raises one error for every request, as a list of bookings does."""
    raise ERROR


async def answer(_request: Request, _error: Exception) -> Response:
    """401."""
    return Response(status_code=401)


async def ask(root_path: str = "") -> httpx.Response:
    """The answer of a lean route that fails."""
    router = APIRouter()
    router.add_api_route("/path", fails)
    (route,) = router.routes
    assert isinstance(route, APIRoute)
    transport = httpx.ASGITransport(LeanRoutes(router, [route], answer), root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://rowlock") as client:
        return await client.get("/path")


async def test_an_error_of_many_requests_keeps_no_traceback() -> None:
    assert (await ask()).status_code == 401
    assert ERROR.__traceback__ is None


async def test_a_path_below_a_root_is_left_to_fastapi() -> None:
    assert (await ask(root_path="/path")).status_code == 404

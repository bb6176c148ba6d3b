"""The routes that read: the sessions on sale, the seat map of a session, and a customer's own reservations."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from service.api import httperrors, mapbody, refusals, shown
from service.api.context import AsCustomer, InContext, limit_read
from service.api.cursors import Cursor, decode_reservation, decode_session, encode_session
from service.api.customer import HeldSeat, ReservationId
from service.api.fields import ID_MAX, FromDigits, Reply
from service.api.largebody import SMALL_BYTES_MAX, Shared
from service.api.mapjson import SeatMapReply, end_of_body
from service.errors import Busy, DatabaseAway, Forbidden, NotFound, TooManyRequests, Unauthenticated
from service.ledger.history import Purchase
from service.moments import rfc3339
from service.reservation import State

router = APIRouter(prefix="/customer", tags=["customer"])

PAGE_SIZE = 20

Limit = Annotated[
    int, Query(ge=1, le=200, description="Items on the page; `ROWLOCK_PAGE_SIZE_MAX` limits them"), FromDigits
]


class Availability(Reply):
    """The number of seats in each state. Their sum is the number of seats in the session."""

    available: Annotated[int, Field(examples=[10])]
    held: Annotated[int, Field(examples=[2])]
    sold: Annotated[int, Field(examples=[4])]


class ListedSession(Reply):
    """A session on sale. Its counts of seats may be a few seconds old."""

    session_id: shown.SessionId
    movie: shown.Movie
    room: shown.Room
    showtime: shown.Showtime
    duration: shown.Duration
    price: shown.Price
    currency: shown.Currency
    paused: Annotated[bool, Field(description="A manager has taken it off sale for now", examples=[False])]
    seats: Availability


class SessionPage(Reply):
    """Sessions by showtime. `next` is the cursor of the next page; it is null on the last page."""

    sessions: list[ListedSession]
    next: Annotated[str | None, Field(examples=[encode_session(datetime(2030, 6, 1, 18, tzinfo=UTC), 1)])]


@router.get(
    "/list-sessions",
    summary="List the sessions on sale",
    responses=refusals.responses(httperrors.InvalidRequest, TooManyRequests, Busy, DatabaseAway),
    dependencies=[Depends(limit_read)],
)
async def list_sessions(context: InContext, cursor: Cursor = None, limit: Limit = PAGE_SIZE) -> SessionPage:
    """Sessions whose showtime is in the future, the next one first."""
    size = min(limit, context.settings.page_size_max)
    page = await context.sessions.page(decode_session(cursor), size + 1)
    sessions = [
        ListedSession(
            session_id=session.id,
            movie=session.movie,
            room=session.room,
            showtime=session.showtime,
            duration=session.duration_minutes,
            price=session.price,
            currency=session.currency,
            paused=session.paused_at is not None,
            seats=Availability(
                available=session.seat_count - counts.held - counts.sold, held=counts.held, sold=counts.sold
            ),
        )
        for session, counts in page[:size]
    ]
    last = page[size - 1][0] if len(page) > size else None
    return SessionPage(sessions=sessions, next=encode_session(last.showtime, last.id) if last else None)


SOURCE_HEADER, AS_OF_HEADER, AGE_HEADER = "Rowlock-Source", "Rowlock-As-Of", "Rowlock-Age-Ms"
MAP_HEADERS = {
    SOURCE_HEADER: {"description": "As `source` in the body", "schema": {"type": "string"}},
    AS_OF_HEADER: {"description": "As `asOf` in the body", "schema": {"type": "string"}},
    AGE_HEADER: {"description": "As `ageMs` in the body", "schema": {"type": "string"}},
    "ETag": {"description": "Identifies the seats' states, whenever they were read", "schema": {"type": "string"}},
}


@router.get(
    "/session/{sessionId}",
    summary="Show the seat map of a session",
    response_class=Response,
    responses={
        200: {"model": SeatMapReply, "headers": MAP_HEADERS},
        304: {"description": "The map of this ETag is current at the time in the headers", "headers": MAP_HEADERS},
        **refusals.responses(NotFound, httperrors.InvalidRequest, TooManyRequests, Busy, DatabaseAway),
    },
    dependencies=[Depends(limit_read)],
)
async def seat_map(
    session_id: Annotated[int, Path(alias="sessionId", ge=1, le=ID_MAX, examples=[1]), FromDigits],
    context: InContext,
    request: Request,
    if_none_match: Annotated[str, Header(description="The ETags of the maps that you have")] = "",
) -> Response:
    """The state of every seat, also after showtime. An available seat may be taken soon after: only a hold decides."""
    shown_map = await context.seat_maps.get(session_id)
    seats = await context.map_bodies.seats(session_id, shown_map)
    headers = {
        "ETag": seats.etag,
        "Cache-Control": "no-cache",
        "Vary": "Accept-Encoding",
        SOURCE_HEADER: shown_map.source,
        AS_OF_HEADER: rfc3339(shown_map.as_of),
        AGE_HEADER: str(shown_map.age_ms),
    }
    if seats.is_one_of(if_none_match):
        return Response(None, 304, headers)
    end = end_of_body(shown_map)
    if mapbody.accepts_gzip(request.headers.get("accept-encoding", "")):
        packed = await context.map_bodies.gzip(seats, end)
        return Response(packed, 200, headers | {"Content-Encoding": "gzip"}, "application/json")
    if len(seats.plain) > SMALL_BYTES_MAX:
        return Shared(context.large_bodies, seats.plain, end, headers)
    return Response(seats.plain + end, 200, headers, "application/json")


class HistoryLine(Reply):
    """A reservation with its session. `paidAt` is null unless the state is CONFIRMED."""

    reservation_id: shown.ReservationId
    state: State
    session_id: shown.SessionId
    movie: shown.Movie
    room: shown.Room
    showtime: shown.Showtime
    seats: list[HeldSeat]
    total: shown.Total
    currency: shown.Currency
    created_at: shown.Moment
    expires_at: shown.Deadline
    settled_at: shown.Moment | None
    paid_at: shown.Moment | None


class HistoryPage(Reply):
    """Reservations, the newest first. `next` is the cursor of the next page; it is null on the last page."""

    reservations: list[HistoryLine]
    next: Annotated[str | None, Field(examples=[shown.RESERVATION_ID])]


@router.get(
    "/list-history",
    summary="List my reservations",
    responses=refusals.responses(
        Unauthenticated, Forbidden, httperrors.InvalidRequest, TooManyRequests, Busy, DatabaseAway
    ),
)
async def list_history(
    context: InContext,
    customer: AsCustomer,
    state: Annotated[
        Literal["HELD", "CONFIRMED", "EXPIRED", "CANCELLED", "ALL"],
        Query(description="ALL includes held, expired and released reservations"),
    ] = "CONFIRMED",
    cursor: Cursor = None,
    limit: Limit = PAGE_SIZE,
) -> HistoryPage:
    """Paid reservations; `state` selects others."""
    size = min(limit, context.settings.page_size_max)
    wanted = None if state == "ALL" else State(state)
    page = await context.histories.page(customer.account_id, wanted, decode_reservation(cursor), size + 1)
    lines = [_line(purchase) for purchase in page[:size]]
    return HistoryPage(reservations=lines, next=str(lines[-1].reservation_id) if len(page) > size else None)


@router.get(
    "/reservation/{reservationId}",
    summary="Show one of my reservations",
    responses=refusals.responses(
        Unauthenticated, Forbidden, NotFound, httperrors.InvalidRequest, TooManyRequests, Busy, DatabaseAway
    ),
)
async def show_reservation(reservation_id: ReservationId, context: InContext, customer: AsCustomer) -> HistoryLine:
    """A reservation in any state, as the history lists it. Another customer's reservation is 404."""
    return _line(await context.histories.find(customer.account_id, reservation_id))


def _line(purchase: Purchase) -> HistoryLine:
    reservation = purchase.reservation
    return HistoryLine(
        reservation_id=reservation.id,
        state=reservation.state,
        session_id=reservation.session_id,
        movie=purchase.movie,
        room=purchase.room,
        showtime=purchase.showtime,
        seats=[HeldSeat(seat_id=seat.id, placement=seat.placement, price=seat.price) for seat in purchase.seats],
        total=reservation.total,
        currency=reservation.currency,
        created_at=reservation.created_at,
        expires_at=reservation.expires_at,
        settled_at=reservation.settled_at,
        paid_at=purchase.paid_at,
    )

"""The routes of managers: create a session, take it off sale, and put it back."""

from collections import Counter
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_extra_types.currency_code import ISO4217
from starlette.responses import Response

from service.api import httperrors, refusals, shown
from service.api.context import AsManager, InContext
from service.api.customer import REPLAYED, REPLAYED_HEADER, IdempotencyKey
from service.api.fields import ID_MAX, Body, FromDigits, Name, Placement, Reply, Time, broken
from service.database import transaction
from service.errors import (
    Busy,
    DatabaseAway,
    Forbidden,
    IdempotencyKeyReused,
    NotFound,
    OutcomeUnknown,
    RoomOccupied,
    TooManyRequests,
    Unauthenticated,
)
from service.sessions import creation, pausing
from service.sessions.creation import Created, NewSession

router = APIRouter(prefix="/manager", tags=["manager"])

CREATE_PATH = "/manager/create"
CURRENCIES = frozenset(ISO4217.allowed_currencies)
PLACEMENTS_MIN, PLACEMENTS_MAX = 16, 100_000
PRICE_MAX = 10_000_000_000_000
"""Some 70,000 USD in the currency of ISO 4217 whose minor unit is worth least. The seats of 100 such prices in a hold
are below 2**53, up to which a client that reads numbers as doubles is exact.
"""


def _distinct(placements: list[str]) -> list[str]:
    if len(set(placements)) < len(placements):
        doubled = next(placement for placement, count in Counter(placements).items() if count > 1)
        raise broken(f"must be distinct; {doubled!r} occurs more than once")
    return placements


def _in_minor_units(price: Any) -> Any:
    if isinstance(price, bool) or not isinstance(price, int):
        raise broken("must be a whole number of minor units: 1250 is 12.50 EUR")
    return price


def _known(currency: Any) -> Any:
    # Runs before the type, whose messages describe a string of three characters.
    if not isinstance(currency, str) or currency not in CURRENCIES:
        raise broken("must be an ISO 4217 code, such as EUR")
    return currency


Placements = Annotated[
    list[Placement],
    Field(min_length=PLACEMENTS_MIN, max_length=PLACEMENTS_MAX, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_distinct),
]


class CreateSession(Body):
    """One showing. The order of the placements is the order of the seats in its seat map."""

    movie: Annotated[Name, Field(examples=["Metropolis"])]
    room: Annotated[Name, Field(examples=["Room 1"])]
    showtime: Annotated[
        Time,
        Field(
            description=f"RFC 3339 with an offset, in the future, at most {creation.SHOWTIME_YEARS_MAX} years ahead",
            examples=["2030-06-01T18:00:00Z"],
        ),
    ]
    duration: Annotated[int, Field(ge=1, le=1_440, description="Minutes", examples=[153])]
    price: Annotated[
        int,
        Field(ge=0, le=PRICE_MAX, description="Price of one seat in minor units", examples=[1250]),
        BeforeValidator(_in_minor_units),
    ]
    currency: Annotated[ISO4217, Field(description="ISO 4217", examples=["EUR"]), BeforeValidator(_known)]
    allow_overlap: Annotated[
        bool,
        Field(description="Create it although another session is in this room at the same time", examples=[False]),
    ] = False
    placements: Annotated[Placements, Field(examples=[[f"{row}{number}" for row in "AB" for number in range(1, 9)]])]


class CreatedSeat(Reply):
    """A seat of the new session."""

    seat_id: shown.SeatId
    placement: shown.Placement
    price: shown.Price


class CreatedSession(Reply):
    """The new session, which is on sale now."""

    session_id: shown.SessionId
    movie: shown.Movie
    room: shown.Room
    showtime: shown.Showtime
    duration: shown.Duration
    price: shown.Price
    currency: shown.Currency
    seat_count: shown.SeatCount
    created_at: shown.Moment
    seats: list[CreatedSeat]


@router.post(
    "/create",
    status_code=201,
    summary="Create a session with its seats",
    response_class=Response,
    responses={
        201: {"model": CreatedSession, "headers": REPLAYED},
        **refusals.responses(
            RoomOccupied,
            IdempotencyKeyReused,
            Unauthenticated,
            Forbidden,
            *refusals.BODY,
            TooManyRequests,
            Busy,
            DatabaseAway,
            OutcomeUnknown,
        ),
    },
)
async def create_session(
    body: CreateSession, context: InContext, manager: AsManager, idempotency_key: IdempotencyKey = None
) -> Response:
    """All seats can be held at the session's price until showtime."""
    new = NewSession(body.movie, body.room, body.showtime, body.duration, body.price, body.currency, body.placements)
    async with transaction(context.engine) as connection:
        created = await creation.create_once(
            connection, new, manager.account_id, idempotency_key, allow_overlap=body.allow_overlap
        )
    headers = {REPLAYED_HEADER: "true"} if created.replayed else {}
    return Response(_rendered(created), 201, headers, "application/json")


def _rendered(created: Created) -> bytes:
    session = created.session
    # Without models: 100,000 seats as models would delay other requests by half a second.
    reply = {
        "sessionId": session.id,
        "movie": session.movie,
        "room": session.room,
        "showtime": session.showtime,
        "duration": session.duration_minutes,
        "price": session.price,
        "currency": session.currency,
        "seatCount": session.seat_count,
        "createdAt": session.created_at,
        "seats": [{"seatId": seat.id, "placement": seat.placement, "price": seat.price} for seat in created.seats],
    }
    return orjson.dumps(reply, option=orjson.OPT_UTC_Z)


class SalesState(Reply):
    """`pausedAt` is null while the session is on sale."""

    session_id: shown.SessionId
    paused_at: shown.Moment | None


SessionId = Annotated[int, Path(alias="sessionId", ge=1, le=ID_MAX, examples=[1]), FromDigits]
CHANGE_REFUSALS = refusals.responses(
    NotFound, Unauthenticated, Forbidden, httperrors.InvalidRequest, TooManyRequests, Busy, DatabaseAway, OutcomeUnknown
)


@router.post("/session/{sessionId}/pause", summary="Take a session off sale", responses=CHANGE_REFUSALS)
async def pause_session(session_id: SessionId, context: InContext, _manager: AsManager) -> SalesState:
    """New holds are refused. Live holds may be paid or released, and purchases stay."""
    async with transaction(context.engine) as connection:
        return SalesState(session_id=session_id, paused_at=await pausing.pause(connection, session_id))


@router.post("/session/{sessionId}/resume", summary="Put a session on sale again", responses=CHANGE_REFUSALS)
async def resume_session(session_id: SessionId, context: InContext, _manager: AsManager) -> SalesState:
    """Holds are granted again until showtime."""
    async with transaction(context.engine) as connection:
        await pausing.resume(connection, session_id)
    return SalesState(session_id=session_id, paused_at=None)

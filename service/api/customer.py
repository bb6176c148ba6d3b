"""The routes of customers that change something: hold seats, pay, release."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Header, Path
from pydantic import AfterValidator, BeforeValidator, Field
from starlette.responses import Response
from uuid_utils.compat import uuid7

from service.accounts.tokens import Principal
from service.api import httperrors, refusals, shown
from service.api.context import TIME_HEADER, AsCustomer, AsPayer, Context, InContext, time_header
from service.api.fields import Body, FromDigits, Reply, SeatId, broken
from service.errors import (
    Busy,
    DatabaseAway,
    Forbidden,
    HoldCooldown,
    HoldExpired,
    IdempotencyKeyReused,
    Invalid,
    NotFound,
    OutcomeUnknown,
    ReservationCancelled,
    ReservationPaid,
    SaleClosed,
    SalesPaused,
    SeatLimitReached,
    SeatsOfSeveralSessions,
    SeatsTaken,
    SeatsUnknown,
    SessionBusy,
    TooManyRequests,
    Unauthenticated,
)
from service.ledger.claims import HoldRequest
from service.ledger.settling import SettleRequest
from service.observability.metrics.recording import operation
from service.reservation import Reservation, Seat, State

router = APIRouter(prefix="/customer", tags=["customer"])

REPLAYED_HEADER = "Idempotency-Replayed"
IDEMPOTENCY_KEY = r"^[\x21-\x7e]{1,255}$"


def _visible(key: str) -> str:
    # Runs before the pattern, which is only for the OpenAPI document: a pattern is a poor message.
    if not re.fullmatch(IDEMPOTENCY_KEY, key):
        raise broken("must have 1 to 255 visible ASCII characters, without spaces")
    return key


IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=IDEMPOTENCY_KEY,
        description="1 to 255 visible ASCII characters; use a new key for each new request. The same request with"
        " the same key always gets the first reply again.",
        examples=["b6f1a2c4-first-try"],
    ),
    BeforeValidator(_visible),
]
ReservationId = Annotated[UUID, Path(alias="reservationId", examples=[shown.RESERVATION_ID])]
SIGNED_IN = (Unauthenticated, Forbidden, httperrors.InvalidRequest, TooManyRequests, Busy, DatabaseAway)
HOLD_REFUSALS = (
    SeatsUnknown, SeatsTaken, SaleClosed, SalesPaused, SeatLimitReached, IdempotencyKeyReused,
    OutcomeUnknown, SessionBusy, HoldCooldown, *SIGNED_IN,
)  # fmt: skip


def _distinct(seat_ids: list[int]) -> list[int]:
    if len(set(seat_ids)) < len(seat_ids):
        raise broken("must be distinct")
    return seat_ids


class Hold(Body):
    """Seats of one session, in any order. The setting `ROWLOCK_SEATS_PER_HOLD_MAX` limits their number."""

    seat_ids: Annotated[
        list[SeatId],
        Field(min_length=1, max_length=100, examples=[[17, 18]], json_schema_extra={"uniqueItems": True}),
        AfterValidator(_distinct),
    ]


class HeldSeat(Reply):
    """A seat of a reservation. Its price was fixed when the seat was held."""

    seat_id: shown.SeatId
    placement: shown.Placement
    price: shown.Price


class ReservationReply(Reply):
    """A reservation. `serverTime` is its time of creation, by the same clock as `expiresAt`."""

    reservation_id: shown.ReservationId
    session_id: shown.SessionId
    state: State
    seats: list[HeldSeat]
    total: shown.Total
    currency: shown.Currency
    expires_at: shown.Deadline
    server_time: shown.Moment


class SettledReply(ReservationReply):
    """A paid (`CONFIRMED`) or released (`CANCELLED`) reservation. `createdAt` is the time of the hold, as `serverTime`,
    and `settledAt` the time of the change.
    """

    created_at: shown.Moment
    settled_at: shown.Moment | None


def render_hold(reservation: Reservation, seats: Sequence[Seat]) -> str:
    """The reply to a hold. It is stored with the reservation."""
    return _json(_members(reservation, seats)).decode()


def render_settled(reservation: Reservation, seats: Sequence[Seat]) -> bytes:
    """The reply to a payment or a release."""
    times = {"createdAt": reservation.created_at, "settledAt": reservation.settled_at}
    return _json(_members(reservation, seats) | times)


def _members(reservation: Reservation, seats: Sequence[Seat]) -> dict[str, Any]:
    """The members of `ReservationReply`. To make the model and its JSON would take four times as long."""
    return {
        # As text: the driver's UUIDs are of a class of its own.
        "reservationId": str(reservation.id),
        "sessionId": reservation.session_id,
        "state": reservation.state,
        "seats": [{"seatId": seat.id, "placement": seat.placement, "price": seat.price} for seat in seats],
        "total": reservation.total,
        "currency": reservation.currency,
        "expiresAt": reservation.expires_at,
        "serverTime": reservation.created_at,
    }


def _json(members: Mapping[str, Any]) -> bytes:
    return orjson.dumps(members, option=orjson.OPT_UTC_Z)


TIMED = {TIME_HEADER: {"description": "PostgreSQL's current time", "schema": {"type": "string"}}}
REPLAYED = {REPLAYED_HEADER: {"description": "`true` if the reply is a repeated one", "schema": {"type": "string"}}}
HOLD_REPLY = {
    "model": ReservationReply,
    "headers": TIMED | REPLAYED,
    "content": shown.example(render_hold(shown.HELD, shown.SEATS).encode()),
}


@router.post(
    "/book/{seatId}",
    status_code=201,
    summary="Hold one seat",
    response_class=Response,
    responses={201: HOLD_REPLY, **refusals.responses(*HOLD_REFUSALS)},
)
async def hold_seat(
    seat_id: Annotated[SeatId, Path(alias="seatId", examples=[17]), FromDigits],
    context: InContext,
    customer: AsCustomer,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The seat is held for you until `expiresAt`. Pay before then."""
    return await _hold(context, customer, [seat_id], idempotency_key)


@router.post(
    "/book",
    status_code=201,
    summary="Hold several seats of one session",
    response_class=Response,
    responses={201: HOLD_REPLY, **refusals.responses(*HOLD_REFUSALS, SeatsOfSeveralSessions, *refusals.BODY)},
)
async def hold_seats(
    body: Hold, context: InContext, customer: AsCustomer, idempotency_key: IdempotencyKey = None
) -> Response:
    """Either all seats are held until `expiresAt`, or none. A refusal names every seat that is not available."""
    if len(body.seat_ids) > context.settings.seats_per_hold_max:
        raise Invalid("seatIds", f"must have at most {context.settings.seats_per_hold_max} items")
    return await _hold(context, customer, body.seat_ids, idempotency_key)


async def _hold(
    context: Context, customer: Principal, seat_ids: Sequence[int], idempotency_key: str | None
) -> Response:
    request = HoldRequest(uuid7(), customer.account_id, tuple(sorted(seat_ids)), idempotency_key)
    with operation("hold") as running:
        answer = await context.box_office.hold(request)
        running.changed = not answer.replayed
        running.seats = len(seat_ids)
    headers = time_header(answer.now) | ({REPLAYED_HEADER: "true"} if answer.replayed else {})
    return Response(answer.reply, 201, headers, "application/json")


def _settled_reply(reservation: Reservation) -> dict[str, Any]:
    example = shown.example(render_settled(reservation, shown.SEATS))
    return {"model": SettledReply, "headers": TIMED, "content": example}


@router.put(
    "/pay/{reservationId}",
    summary="Pay for a hold",
    response_class=Response,
    responses={
        200: _settled_reply(shown.PAID),
        **refusals.responses(NotFound, HoldExpired, ReservationCancelled, OutcomeUnknown, *SIGNED_IN),
    },
)
async def pay(reservation_id: ReservationId, context: InContext, customer: AsPayer) -> Response:
    """Pay before `expiresAt`. Paying again changes nothing and gets the same reply."""
    return await _settle(context, customer, reservation_id, State.CONFIRMED)


@router.delete(
    "/reservation/{reservationId}",
    summary="Release a hold",
    response_class=Response,
    responses={
        200: _settled_reply(shown.RELEASED),
        **refusals.responses(NotFound, HoldExpired, ReservationPaid, OutcomeUnknown, *SIGNED_IN),
    },
)
async def release(reservation_id: ReservationId, context: InContext, customer: AsPayer) -> Response:
    """The seats become available at once. Releasing again changes nothing and gets the same reply."""
    return await _settle(context, customer, reservation_id, State.CANCELLED)


async def _settle(context: Context, customer: Principal, reservation_id: UUID, target: State) -> Response:
    request = SettleRequest(reservation_id, customer.account_id, target)
    name = "pay" if target is State.CONFIRMED else "release"
    with operation(name) as running:
        answer = await context.box_office.settle(request)
        reservation = answer.reservation
        running.changed, running.seats = answer.changed, len(answer.seats)
        running.total, running.currency = reservation.total, reservation.currency
    reply = render_settled(reservation, answer.seats)
    return Response(reply, 200, time_header(answer.now), "application/json")

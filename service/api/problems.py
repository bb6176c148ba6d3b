"""From an error to its answer, in one table: RFC 9457, `application/problem+json`, with a stable `type`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.responses import Response

from service import errors
from service.api import httperrors as http
from service.errors import RowlockError
from service.moments import rfc3339

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:rowlock:problem:"
RETRY_AFTER_SECONDS = 1
FAULTS_MAX, FIELD_LENGTH_MAX, MESSAGE_LENGTH_MAX = 20, 100, 500
"""An answer repeats only this much of an invalid body, however long the body is."""


@dataclass(frozen=True, slots=True)
class Problem:
    """How an error is presented to the client. The functions take the error."""

    status: int
    name: str
    title: str
    detail: Callable[[Any], str]
    facts: Callable[[Any], dict[str, Any]] = lambda _error: {}
    headers: Callable[[Any], dict[str, str]] = lambda _error: {}


def _seat_ids(error: errors.SeatsTaken | errors.SeatsUnknown) -> dict[str, Any]:
    return {"seatIds": list(error.seat_ids)}


def _taken(error: errors.SeatsTaken) -> dict[str, Any]:
    own = [str(id_) for id_ in error.own_reservation_ids]
    return _seat_ids(error) | ({"ownReservationIds": own} if own else {})


def _taken_detail(error: errors.SeatsTaken) -> str:
    own = ", ".join(map(str, error.own_reservation_ids))
    return f"Not available: {', '.join(map(str, error.seat_ids))}." + (f" Your own reservations: {own}." if own else "")


def _cooldown(error: errors.HoldCooldown) -> dict[str, Any]:
    return {"until": rfc3339(error.until)} | ({"seatIds": list(error.seat_ids)} if error.seat_ids else {})


def _cooldown_detail(error: errors.HoldCooldown) -> str:
    of_seats, of_session = "you have just let these seats go", "too many of your holds in this session ended unpaid"
    return f"Wait {error.retry_after_seconds} s: {of_seats if error.seat_ids else of_session}."


def _reservation_id(error: errors.ReservationPaid | errors.ReservationCancelled) -> dict[str, Any]:
    return {"reservationId": str(error.reservation_id)}


def _retry_after(_error: RowlockError) -> dict[str, str]:
    return {"Retry-After": str(RETRY_AFTER_SECONDS)}


def _bearer(_error: RowlockError) -> dict[str, str]:
    return {"WWW-Authenticate": "Bearer"}


PROBLEMS: Mapping[type[RowlockError], Problem] = {
    http.MalformedBody: Problem(
        400, "malformed-body", "The body is not JSON", lambda _: "The body can't be read as JSON."
    ),
    errors.Unauthenticated: Problem(401, "unauthenticated", "Sign in first", lambda e: e.fault.value, headers=_bearer),
    errors.WrongCredentials: Problem(
        401, "wrong-credentials", "Wrong credentials", lambda _: "Wrong address or password.", headers=_bearer
    ),
    errors.Forbidden: Problem(
        403, "forbidden", "Wrong role", lambda e: f"This requires the role {e.role}.", lambda e: {"role": e.role}
    ),
    http.RouteNotFound: Problem(404, "route-not-found", "No such route", lambda _: "This path is unknown."),
    errors.NotFound: Problem(
        404, "not-found", "Not found", lambda e: f"This {e.what} does not exist.", lambda e: {"what": e.what}
    ),
    errors.SeatsUnknown: Problem(
        404, "seats-unknown", "Unknown seats", lambda e: f"Unknown seats: {', '.join(map(str, e.seat_ids))}.", _seat_ids
    ),
    http.MethodNotAllowed: Problem(
        405,
        "method-not-allowed",
        "Method not allowed",
        lambda e: f"This path allows {e.allow}.",
        headers=lambda e: {"Allow": e.allow},
    ),
    errors.SeatsTaken: Problem(409, "seats-taken", "Seats taken", _taken_detail, _taken),
    errors.SaleClosed: Problem(
        409,
        "sale-closed",
        "The sale is closed",
        lambda e: f"Selling ended at {rfc3339(e.showtime)}.",
        lambda e: {"showtime": rfc3339(e.showtime)},
    ),
    errors.SalesPaused: Problem(
        409,
        "sales-paused",
        "Sales are paused",
        lambda e: f"Session {e.session_id} is not on sale for now. Live holds may be paid.",
        lambda e: {"sessionId": e.session_id},
    ),
    errors.RoomOccupied: Problem(
        409,
        "room-occupied",
        "The room is occupied",
        lambda e: (
            f"Session {e.session_id} is in this room from {rfc3339(e.showtime)} on. Send allowOverlap: true to create"
            " this one nevertheless."
        ),
        lambda e: {"sessionId": e.session_id, "showtime": rfc3339(e.showtime)},
    ),
    errors.SeatLimitReached: Problem(
        409,
        "seat-limit-reached",
        "Too many seats for one customer",
        lambda e: f"A customer may have {e.seats_max} seats in a session. You already have {e.seats_claimed}.",
        lambda e: {"seatsMax": e.seats_max, "seatsClaimed": e.seats_claimed},
    ),
    errors.HoldExpired: Problem(
        409,
        "hold-expired",
        "The hold has expired",
        lambda e: f"The seats were held until {rfc3339(e.expires_at)}.",
        lambda e: {"reservationId": str(e.reservation_id), "expiresAt": rfc3339(e.expires_at)},
    ),
    errors.ReservationPaid: Problem(
        409, "reservation-paid", "Already paid", lambda _: "A paid reservation can't be released.", _reservation_id
    ),
    errors.ReservationCancelled: Problem(
        409, "reservation-cancelled", "Released", lambda _: "A released hold can't be paid.", _reservation_id
    ),
    errors.AddressInUse: Problem(
        409, "address-in-use", "The address is in use", lambda _: "An account has this e-mail address."
    ),
    http.BodyTooLarge: Problem(
        413,
        "body-too-large",
        "The body is too large",
        lambda e: f"The body may have at most {e.bytes_max} bytes.",
        lambda e: {"bytesMax": e.bytes_max},
    ),
    http.RequestTimeout: Problem(
        408, "request-timeout", "The request took too long", lambda e: f"The {e.part} did not come in time."
    ),
    http.HeadTooLarge: Problem(
        431,
        "head-too-large",
        "The headers are too large",
        lambda e: f"The request line and the headers may have at most {e.bytes_max} bytes.",
        lambda e: {"bytesMax": e.bytes_max},
    ),
    http.UnsupportedMediaType: Problem(
        415,
        "unsupported-media-type",
        "The body must be JSON",
        lambda _: "Send the body as application/json in UTF-8.",
        headers=lambda _: {"Accept": "application/json"},
    ),
    http.InvalidRequest: Problem(
        422,
        "invalid-request",
        "Invalid request",
        lambda e: "; ".join(f"{fault['field']}: {fault['message']}" for fault in e.faults),
        lambda e: {"errors": e.faults},
    ),
    errors.Invalid: Problem(
        422,
        "invalid-request",
        "Invalid request",
        lambda e: f"{e.field}: {e.message}",
        lambda e: {"errors": [{"field": e.field, "message": e.message}]},
    ),
    errors.SeatsOfSeveralSessions: Problem(
        422, "seats-of-several-sessions", "Seats of several sessions", lambda _: "All seats must belong to one session."
    ),
    errors.IdempotencyKeyReused: Problem(
        422,
        "idempotency-key-reused",
        "The idempotency key was used for another request",
        lambda _: "This key was used for another request. Use a new key.",
    ),
    errors.HoldCooldown: Problem(
        429,
        "hold-cooldown",
        "Wait before the next hold",
        _cooldown_detail,
        _cooldown,
        headers=lambda e: {"Retry-After": str(e.retry_after_seconds)},
    ),
    errors.TooManyRequests: Problem(
        429,
        "too-many-requests",
        "Too many requests",
        lambda e: f"At most {e.requests_max} requests a minute are allowed. Wait {e.retry_after_seconds} s.",
        lambda e: {"limit": e.limit, "requestsMax": e.requests_max},
        headers=lambda e: {
            "Retry-After": str(e.retry_after_seconds),
            # https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
            "RateLimit-Policy": f'"{e.limit}";q={e.requests_max};w=60',
            "RateLimit": f'"{e.limit}";r=0;t={e.retry_after_seconds}',
        },
    ),
    http.InternalError: Problem(
        500, "internal-error", "Internal error", lambda _: "This is a defect, logged under the request's id."
    ),
    errors.Busy: Problem(
        503,
        "busy",
        "Busy",
        lambda e: f"{e.reason.value}. Nothing was changed: try again.",
        headers=_retry_after,
    ),
    errors.SessionBusy: Problem(
        503,
        "session-busy",
        "The session is busy",
        lambda e: (
            f"Too many holds of session {e.session_id} are in progress. Nothing was changed: try again. Other sessions"
            " are not affected."
        ),
        lambda e: {"sessionId": e.session_id},
        headers=_retry_after,
    ),
    errors.DatabaseAway: Problem(
        503,
        "database-away",
        "The database is unavailable",
        lambda _: "The database does not answer. Nothing was changed: try again.",
        headers=_retry_after,
    ),
    errors.NotReady: Problem(
        503,
        "not-ready",
        "The service is not ready",
        # The log has the reason, for the operator.
        lambda _: "The database's schema does not fit the service. Nothing was changed: try again.",
        headers=_retry_after,
    ),
    errors.OutcomeUnknown: Problem(
        503,
        "outcome-unknown",
        "The outcome is unknown",
        lambda _: (
            "The change may or may not have been made. To find out, repeat the hold with its key, the payment or the"
            " release. Check the state before you repeat anything else."
        ),
        headers=_retry_after,
    ),
}


def render(error: RowlockError, request_id: str) -> Response:
    """The response to the client."""
    problem = PROBLEMS[type(error)]
    content = orjson.dumps(body(error, problem) | {"requestId": request_id})
    return Response(content, problem.status, problem.headers(error), MEDIA_TYPE)


def body(error: RowlockError, problem: Problem) -> dict[str, Any]:
    """The problem as JSON, without the request's id."""
    return {
        "type": TYPE_PREFIX + problem.name,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail(error),
        **problem.facts(error),
    }

"""The refusals of each route in the OpenAPI document, with an example of each."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from service import errors
from service.api import problems
from service.errors import RowlockError

BODY = (problems.MalformedBody, problems.BodyTooLarge, problems.UnsupportedMediaType, problems.InvalidRequest)
"""The refusals of every route that has a body."""

EXAMPLES: Mapping[type[RowlockError], RowlockError] = {
    type(example): example
    for example in (
        problems.InvalidRequest([{"field": "seatIds.0", "message": "Input should be greater than or equal to 1"}]),
        problems.MethodNotAllowed("GET"),
        problems.BodyTooLarge(65_536),
        problems.HeadTooLarge(65_536),
        problems.RequestTimeout("body"),
        errors.Forbidden("CUSTOMER"),
        errors.NotFound("reservation"),
        errors.SeatsUnknown((999,)),
        errors.SeatsTaken((17, 18)),
        errors.SalesPaused(3),
        errors.RoomOccupied(3, datetime(2030, 6, 1, 18, tzinfo=UTC)),
        errors.SaleClosed(datetime(2030, 6, 1, 18, tzinfo=UTC)),
        errors.SeatLimitReached(10, 9),
        errors.HoldCooldown(datetime(2030, 6, 1, 17, 2, tzinfo=UTC), 30),
        errors.HoldExpired(
            UUID("01926e2c-5a00-7000-8000-000000000001"), datetime(2030, 6, 1, 17, tzinfo=UTC) + timedelta(seconds=30)
        ),
        errors.ReservationPaid(UUID("01926e2c-5a00-7000-8000-000000000001")),
        errors.ReservationCancelled(UUID("01926e2c-5a00-7000-8000-000000000001")),
        errors.Busy(errors.BusyReason.ROW_LOCK),
        errors.SessionBusy(3),
        errors.TooManyRequests("account", 600, 3),
    )
}


def responses(*kinds: type[RowlockError]) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` for a route with these refusals, with an example of each."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        problem = problems.PROBLEMS[kind]
        answer = by_status.setdefault(
            problem.status, {"description": problem.title, "content": {problems.MEDIA_TYPE: {}}}
        )
        content = answer["content"][problems.MEDIA_TYPE]
        content["schema"] = {"$ref": "#/components/schemas/Problem"}
        examples = content.setdefault("examples", {})
        body = problems.body(EXAMPLES.get(kind) or kind(), problem) | {"requestId": "01926e2c5a007000"}
        examples[problem.name] = {"summary": problem.title, "value": body}
        answer["description"] = " / ".join(example["summary"] for example in examples.values())
    return by_status


SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "description": "RFC 9457. `type` is stable. Further members state the facts, such as `seatIds`.",
    "required": ["type", "title", "status", "detail", "requestId"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "requestId": {"type": "string"},
    },
}
"""The members of every refusal: `Problem` in the OpenAPI document."""

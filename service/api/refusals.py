"""The refusals of each route in the OpenAPI document. Their schemas, examples and headers come from real errors.

A route names the errors that it can be refused with (`responses`). A new error needs an entry in `problems.PROBLEMS`
and, if it carries facts, an example here: its schema has the facts of its examples, and those that not every example
has are optional.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from service import errors
from service.api import httperrors, problems, shown
from service.errors import RowlockError

BODY = (httperrors.MalformedBody, httperrors.BodyTooLarge, httperrors.UnsupportedMediaType, httperrors.InvalidRequest)
"""The refusals of every route that has a body."""

RESERVATION_ID = UUID(shown.RESERVATION_ID)
REQUEST_ID = "01926e2c5a007000"
EXAMPLES: tuple[RowlockError, ...] = (
    httperrors.InvalidRequest([{"field": "limit", "message": "must be at least 1"}]),
    httperrors.BodyTooLarge(65_536),
    *map(errors.Unauthenticated, errors.TokenFault),
    errors.Forbidden("CUSTOMER"),
    errors.NotFound("reservation"),
    errors.SeatsUnknown((17, 18)),
    errors.SeatsTaken((17, 18)),
    errors.SeatsTaken((17, 18), (RESERVATION_ID,)),
    errors.SalesPaused(1),
    errors.RoomOccupied(1, datetime(2030, 6, 1, 18, tzinfo=UTC)),
    errors.SaleClosed(datetime(2030, 6, 1, 18, tzinfo=UTC)),
    errors.SeatLimitReached(10, 9),
    errors.HoldCooldown(datetime(2030, 6, 1, 17, 2, tzinfo=UTC), 30),
    errors.HoldCooldown(datetime(2030, 6, 1, 17, 2, tzinfo=UTC), 30, (17, 18)),
    errors.HoldExpired(RESERVATION_ID, datetime(2030, 6, 1, 17, 0, 30, tzinfo=UTC)),
    errors.ReservationPaid(RESERVATION_ID),
    errors.ReservationCancelled(RESERVATION_ID),
    errors.Busy(errors.BusyReason.ROW_LOCK),
    errors.SessionBusy(1),
    errors.TooManyRequests("account", 600, 3),
)
KINDS: Mapping[str, type[RowlockError]] = {
    problem.name: kind for kind, problem in problems.PROBLEMS.items() if kind is not errors.Invalid
}
NAMED = "x-problems"
"""Where a route's answer has the names of its problems, until `document` puts their schemas and examples there."""

HEADERS: Mapping[str, tuple[str, str]] = {
    "Retry-After": ("integer", "Seconds to wait before the next try"),
    "RateLimit": ("string", "The limit, requests left in this minute (`r`), and seconds until there are more (`t`)"),
    "RateLimit-Policy": ("string", "The limit, and the requests (`q`) that it allows in a window of seconds (`w`)"),
    "WWW-Authenticate": ("string", "The scheme of authentication"),
    "Accept": ("string", "The media type that the body must have"),
}
"""The type and the meaning of each header that a documented refusal may carry."""

MEMBERS: Mapping[str, Any] = {
    "title": {"type": "string"},
    "detail": {"type": "string", "description": "For people"},
    "requestId": {"type": "string", "description": "As the header `X-Request-ID`"},
}
FORMATS = {
    "uuid": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "date-time": re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z"),
}


def responses(*kinds: type[RowlockError]) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` for a route with these refusals."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        problem = problems.PROBLEMS[kind]
        answer = by_status.setdefault(problem.status, {"description": problem.title, NAMED: []})
        if problem.name not in answer[NAMED]:
            answer[NAMED].append(problem.name)
    return by_status


def examples_of(kind: type[RowlockError]) -> list[RowlockError]:
    """One or more errors of this kind."""
    return [error for error in EXAMPLES if type(error) is kind] or [kind()]


def answer(refused: Iterable[RowlockError]) -> dict[str, Any]:
    """The answer with one status, which may be any of these errors."""
    examples: dict[str, Any] = {}
    headers: dict[str, Any] = {}
    for error in refused:
        problem = problems.PROBLEMS[type(error)]
        value = problems.body(error, problem) | {"requestId": REQUEST_ID}
        same = sum(example["value"]["type"] == value["type"] for example in examples.values())
        name = f"{problem.name}-{same + 1}" if same else problem.name
        examples[name] = {"summary": problem.title, "value": value}
        headers |= {name: _header(name, text) for name, text in problem.headers(error).items()}
    names = dict.fromkeys(example["value"]["type"].removeprefix(problems.TYPE_PREFIX) for example in examples.values())
    references = [{"$ref": f"#/components/schemas/{schema_name(name)}"} for name in names]
    return {
        "description": " / ".join(dict.fromkeys(example["summary"] for example in examples.values())),
        "content": {
            problems.MEDIA_TYPE: {
                "schema": references[0] if len(references) == 1 else {"oneOf": references},
                "examples": examples,
            }
        },
    } | ({"headers": headers} if headers else {})


def _header(name: str, text: str) -> dict[str, Any]:
    kind, description = HEADERS[name]
    return {
        "description": description,
        "schema": {"type": kind},
        "example": int(text) if kind == "integer" else text,
    }


def schema_name(name: str) -> str:
    """`SeatsTakenProblem` for `seats-taken`."""
    return "".join(word.capitalize() for word in name.split("-")) + "Problem"


def schema(name: str) -> dict[str, Any]:
    """The schema of one type of problem."""
    kind = KINDS[name]
    problem = problems.PROBLEMS[kind]
    facts = [problem.facts(error) for error in examples_of(kind)]
    properties = {
        "type": {"type": "string", "const": problems.TYPE_PREFIX + name},
        "status": {"type": "integer", "const": problem.status},
        **MEMBERS,
        **{member: _shape(value) for each in facts for member, value in each.items()},
    }
    always = [member for member in properties if member not in set().union(*facts)]
    always += [member for member in facts[0] if all(member in each for each in facts)]
    return {
        "type": "object",
        "description": f"{problem.title}. RFC 9457: `type` is stable.",
        "required": always,
        "properties": properties,
    }


def _shape(value: object) -> dict[str, Any]:
    """The schema of a fact like this one."""
    match value:
        case int():
            return {"type": "integer"}
        case list():
            return {"type": "array", "items": _shape(value[0])}
        case dict():
            shapes = {member: _shape(part) for member, part in value.items()}
            return {"type": "object", "required": list(shapes), "properties": shapes}
        case _:
            text = str(value)
            formats = [name for name, pattern in FORMATS.items() if pattern.fullmatch(text)]
            return {"type": "string"} | ({"format": formats[0]} if formats else {})

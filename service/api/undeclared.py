"""Input that a route does not declare, or that comes twice. Ignored, it would hide a mistake of the client.

FastAPI's routes depend on `refuse`. Lean routes only ask whether there may be something to refuse, and leave it to
FastAPI. Like the check of a body's type it comes before that of the token.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from service.api import httperrors, problems
from service.api.context import limit_refused
from service.api.rawheaders import LISTS

READ_EVERYWHERE = ("Authorization", "Content-Type")
"""Headers that no route declares."""
ONCE = "must be given only once"
NO_BODY = "must be empty: this route takes no body"

Fault = tuple[str, str]
"""A field and its message."""


@dataclass(frozen=True, slots=True)
class Declared:
    """The input of a route: parameters of the query string, headers of one value (shown names by raw ones), a body."""

    parameters: tuple[str, ...]
    headers: Mapping[bytes, str]
    has_body: bool


def declared_by(route: APIRoute) -> Declared:
    """The input of the route and its dependencies."""
    needed = flat(route.dependant)
    parameters = {field.alias for each in needed for field in each.query_params}
    headers = [*READ_EVERYWHERE, *(field.alias for each in needed for field in each.header_params)]
    raw = {name.lower().encode("latin-1"): name for name in headers}
    single = {name: shown for name, shown in raw.items() if name not in LISTS}
    return Declared(tuple(sorted(parameters)), single, route.body_field is not None)


def flat(dependant: Dependant) -> list[Dependant]:
    """The dependant after those that it needs."""
    return [*(each for needed in dependant.dependencies for each in flat(needed)), dependant]


async def refuse(request: Request) -> None:
    """Raises InvalidRequest with every fault, or TooManyRequests."""
    declared = declared_by(request.scope["route"])
    found = [
        *parameter_faults(declared.parameters, request.scope["query_string"]),
        *_header_faults(declared.headers, request.scope["headers"]),
        *body_faults(await _body_of(request), has_body=declared.has_body),
    ]
    if found:
        raise await limit_refused(request, refusal_of(found))


def refusal_of(found: Iterable[Fault]) -> httperrors.InvalidRequest:
    """The refusal, which names the first faults."""
    return httperrors.InvalidRequest(
        [
            {"field": _encodable(field)[: problems.FIELD_LENGTH_MAX], "message": message}
            for field, message in islice(found, problems.FAULTS_MAX)
        ]
    )


def is_possible(declared: Declared, scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
    """Whether something may have to be refused. Doubled keys of the body are not looked for."""
    if scope["query_string"] and parameter_faults(declared.parameters, scope["query_string"]):
        return True
    if len(headers) < len(scope["headers"]) and _header_faults(declared.headers, scope["headers"]):
        return True
    return not declared.has_body and (headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers)


def has_each_key_once(body: bytes, parsed: object) -> bool:
    """Whether this is sure for the body. A body with a colon in a text, or with objects in it, is not sure.

    To parse it again would take ten times as long.
    """
    return isinstance(parsed, dict) and body.count(b":") == len(parsed)


def parameter_faults(known: tuple[str, ...], query: bytes) -> list[Fault]:
    """The first faults of the query string."""
    if not query:
        return []
    given = Counter(name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    faults = (
        (name, ONCE if name in known else _unknown(name, known))
        for name, count in given.items()
        if count > 1 or name not in known
    )
    return list(islice(faults, problems.FAULTS_MAX))


def _unknown(name: str, known: tuple[str, ...]) -> str:
    if not known:
        return "is not permitted: this route has no query parameters"
    near = get_close_matches(name[: problems.FIELD_LENGTH_MAX].lower(), known, 1)
    rest = f"; did you mean {near[0]}?" if near else ""
    return f"is not permitted: the query parameters of this route are {', '.join(known)}{rest}"


def _header_faults(single: Mapping[bytes, str], lines: Iterable[tuple[bytes, bytes]]) -> list[Fault]:
    counts = Counter(name for name, _ in lines)
    return [(shown, ONCE) for name, shown in single.items() if counts[name] > 1]


async def _body_of(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect:
        raise httperrors.MalformedBody from None


def body_faults(body: bytes, *, has_body: bool) -> list[Fault]:
    """The first faults of a body that is JSON."""
    if not body:
        return []
    if not has_body:
        return [("body", NO_BODY)]
    return [(path, ONCE) for path in islice(doubled_keys(body), problems.FAULTS_MAX)]


def doubled_keys(body: bytes) -> Iterator[str]:
    """The paths of the keys that an object has more than once, at any depth.

    Paths are looked for only if there are any: that takes several times as long as to parse the body.
    """
    doubled = False

    def members(pairs: list[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
        nonlocal doubled
        doubled = doubled or len(dict(pairs)) < len(pairs)
        return tuple(pairs)

    parsed = json.loads(body, object_pairs_hook=members)
    return _doubled_in(parsed) if doubled else iter(())


def _doubled_in(parsed: Any) -> Iterator[str]:
    """As doubled_keys, for a value whose objects are tuples of pairs."""
    left: list[tuple[Any, Any]] = [((), parsed)]
    while left:
        place, value = left.pop()
        is_object = isinstance(value, tuple)
        if is_object and len(dict(value)) < len(value):
            counts = Counter(key for key, _ in value)
            yield from (_path((place, key)) for key, count in counts.items() if count > 1)
        parts = value if is_object else enumerate(value)
        left += [((place, name), part) for name, part in parts if part and isinstance(part, tuple | list)]


def _path(place: Any) -> str:
    """The names from the outside in. A place is that of the value around it, and a name."""
    names = []
    while place:
        place, name = place
        names.append(str(name))
    return ".".join(reversed(names))


def _encodable(text: str) -> str:
    """Without halves of surrogate pairs, which JSON may have."""
    return text.encode("utf-8", "replace").decode()

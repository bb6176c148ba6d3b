"""A route's declared signature, compiled once into direct calls of its fields, validators and dependencies.

The calls have FastAPI's order. `Unusual` is raised before any dependency has run, so FastAPI can solve the request.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any

from fastapi._compat import ModelField, is_scalar_field
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from service.api.undeclared import declared_by

ABSENT: Any = object()


class Unusual(Exception):
    """The request must be solved by FastAPI."""


@dataclass(slots=True)
class Received:
    """The parts of a request from which its fields are read. The first of several headers with one name counts."""

    path_value: str
    query: Mapping[str, str]
    headers: Mapping[bytes, bytes]
    body: Any


Read = Callable[[Received], Any]


@dataclass(frozen=True, slots=True)
class _Call:
    """A dependency or the endpoint: the fields that it declares, and the results of earlier calls that it needs."""

    call: Callable[..., Awaitable[Any]]
    fields: tuple[tuple[str, ModelField, Read], ...]
    needs: tuple[tuple[str, int], ...]
    request_name: str | None


class Signature:
    """A route whose signature is compiled. Raises ValueError where it has something that is not supported here."""

    def __init__(self, route: APIRoute) -> None:
        self.route = route
        self.prefix, has_parameter = _split(route.path)
        self.key = "" if has_parameter else route.path
        self.body_field = route.body_field
        self.declared = declared_by(route)
        self._calls: list[_Call] = []
        self._add(route.dependant, {})

    def _add(self, dependant: Dependant, places: dict[Any, int]) -> int:
        """Adds the call of the dependant after those that it needs. Returns its place."""
        needs = []
        for needed in dependant.dependencies:
            place = places.get(needed.call)
            if place is None:
                place = places[needed.call] = self._add(needed, places)
            if needed.name is not None:
                needs.append((needed.name, place))
        assert dependant.call is not None
        _refuse_unsupported(dependant)
        self._calls.append(_Call(dependant.call, _fields(dependant), tuple(needs), dependant.request_param_name))
        return len(self._calls) - 1

    def arguments(self, received: Received) -> list[dict[str, Any]]:
        """The values of each call's fields. Raises Unusual."""
        return [_values(call.fields, received) if call.fields else {} for call in self._calls]

    async def run(self, request: Request, arguments: Sequence[dict[str, Any]]) -> Response:
        """The endpoint's response, after the dependencies in FastAPI's order."""
        results: list[Any] = []
        for call, values in zip(self._calls, arguments, strict=True):
            for name, place in call.needs:
                values[name] = results[place]
            if call.request_name is not None:
                values[call.request_name] = request
            results.append(await call.call(**values))
        answer = results[-1]
        return answer if isinstance(answer, Response) else self._rendered(answer)

    def _rendered(self, answer: Any) -> Response:
        field = self.route.response_field
        assert field is not None
        assert isinstance(answer, self.route.response_model)
        return Response(field.serialize_json(answer), self.route.status_code or 200, media_type="application/json")


def _split(path: str) -> tuple[str, bool]:
    """The path before its parameter, and whether it has one, which must be its last segment."""
    prefix, _, last = path.rpartition("/")
    has_parameter = "{" in last
    if "{" in prefix or (has_parameter and not re.fullmatch(r"\{\w+\}", last)):
        raise ValueError(f"{path} can't be the path of a lean route: only its last segment may be a parameter")
    return prefix, has_parameter


def _refuse_unsupported(dependant: Dependant) -> None:
    call = dependant.call
    others = (
        dependant.cookie_params, dependant.response_param_name, dependant.background_tasks_param_name,
        dependant.http_connection_param_name, dependant.websocket_param_name, dependant.security_scopes_param_name,
        dependant.body_params[1:], not dependant.use_cache,
        not (iscoroutinefunction(call) or iscoroutinefunction(getattr(call, "__call__", None))),  # noqa: B004
        [field for field in (*dependant.query_params, *dependant.header_params) if not is_scalar_field(field)],
    )  # fmt: skip
    if any(others):
        raise ValueError(f"{call} can't be part of a lean route: its parameters are not supported")


def _fields(dependant: Dependant) -> tuple[tuple[str, ModelField, Read], ...]:
    """The fields in FastAPI's order, each with the way to read it."""
    return tuple(
        (field.name, field, read)
        for fields, make in (
            (dependant.path_params, lambda _alias: _path_value),
            (dependant.query_params, _query_reader),
            (dependant.header_params, _header_reader),
            (dependant.body_params, lambda _alias: _body_value),
        )
        for field in fields
        for read in (make(field.alias),)
    )


def _path_value(received: Received) -> Any:
    return received.path_value


def _body_value(received: Received) -> Any:
    return received.body


def _query_reader(alias: str) -> Read:
    return lambda received: received.query.get(alias, ABSENT)


def _header_reader(alias: str) -> Read:
    name = alias.lower().encode("latin-1")

    def read(received: Received) -> Any:
        value = received.headers.get(name, ABSENT)
        return value if value is ABSENT else value.decode("latin-1")

    return read


def _values(fields: Iterable[tuple[str, ModelField, Read]], received: Received) -> dict[str, Any]:
    values = {}
    for name, field, read in fields:
        given = read(received)
        if given is ABSENT:
            if field.field_info.is_required():
                raise Unusual
            values[name] = field.default
            continue
        values[name], faults = field.validate(given)
        if faults:
            raise Unusual
    return values

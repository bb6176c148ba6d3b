"""Faults of a request before any rule of sale is asked: its body, its headers, its path."""

from dataclasses import dataclass

from service.errors import Refusal, RowlockError


class MalformedBody(Refusal):
    """The body is not JSON."""


class UnsupportedMediaType(Refusal):
    """The body is not declared as JSON."""


@dataclass(eq=False)
class BodyTooLarge(Refusal):
    """The body is longer than `bytes_max`."""

    bytes_max: int


@dataclass(eq=False)
class HeadTooLarge(Refusal):
    """The request line and the headers are longer than `bytes_max`."""

    bytes_max: int


@dataclass(eq=False)
class RequestTimeout(Refusal):
    """The `part` of the request, headers or body, did not come in time."""

    part: str


class RouteNotFound(Refusal):
    """The path is unknown."""


@dataclass(eq=False)
class MethodNotAllowed(Refusal):
    """The path is known, but only for the methods `allow`."""

    allow: str


class InternalError(RowlockError):
    """A defect of the service. The log has it under the request's id."""


@dataclass(eq=False)
class InvalidRequest(Refusal):
    """One or more fields break a rule. Each fault is {field, message}."""

    faults: list[dict[str, str]]

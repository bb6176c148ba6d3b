"""Answers as bytes, for requests that the application never sees."""

from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus

from service.api import problems
from service.api.requestlog import HEADERS
from service.errors import Busy, BusyReason, RowlockError, SessionBusy

PLACE = "{place of the request's id}"
CLOSE = (b"connection", b"close")


def refusal(error: Busy | SessionBusy, request_id: str, default_headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The same answer as on the whole way through the API."""
    template = _of_session(error.session_id) if isinstance(error, SessionBusy) else _of_reason(error.reason)
    return _filled(template, request_id, default_headers)


def last(error: RowlockError, request_id: str, default_headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The last answer of a connection."""
    return _filled(_template(error, CLOSE), request_id, default_headers)


Template = tuple[bytes, bytes, bytes]
"""The status and the headers that do not depend on the request; the body before and after the request's id."""


@lru_cache(maxsize=1_000)
def _of_session(session_id: int) -> Template:
    return _template(SessionBusy(session_id))


@lru_cache
def _of_reason(reason: BusyReason) -> Template:
    return _template(Busy(reason))


def _template(error: RowlockError, *more: tuple[bytes, bytes]) -> Template:
    response = problems.render(error, PLACE)
    before, _, after = bytes(response.body).partition(PLACE.encode())
    headers = [header for header in response.raw_headers if header[0] != b"content-length"]
    status = HTTPStatus(response.status_code)
    head = b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode())
    return head + _lines([*headers, *HEADERS, *more]), before, after


def _filled(template: Template, request_id: str, default_headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    head, before, after = template
    id_ = request_id.encode()
    return b"%b%bcontent-length: %d\r\nx-request-id: %b\r\n\r\n%b%b%b" % (
        head, _lines(default_headers), len(before) + len(id_) + len(after), id_, before, id_, after,
    )  # fmt: skip


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)

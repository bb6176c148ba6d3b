"""Refuses holds beyond the queue before they are parsed, so that an overload leaves the time for those in the queue.

A refusal by the whole way through the API costs about half of a hold. At twice the capacity refusals alone would fill
the process, and the lists of holds, which share its loop, would wait for them. Here a refusal costs a tenth. It asks
neither for the token nor for limits, and many refusals share a log line. A request that is unusual in any way, or comes
in parts, takes the whole way.
"""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
import structlog
from uuid_utils import uuid7
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api import problems
from service.api.context import Context
from service.api.requestlog import HEADERS
from service.errors import Busy, BusyReason, SessionBusy
from service.observability.metrics import recording

START = b"POST /customer/book"
START_OF_ONE = START + b"/"
FIRST_LINE = re.compile(rb"POST /customer/book(?:/(\d{1,18}))? HTTP/1\.1\r\n")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,9})\r\n", re.IGNORECASE)
REQUEST_ID = re.compile(rb"\r\nx-request-id: *([A-Za-z0-9._-]{1,64})\r\n", re.IGNORECASE)
UNUSUAL = re.compile(rb"\r\n(?:transfer-encoding|expect|upgrade|connection(?!: *keep-alive\r\n)):", re.IGNORECASE)
END = b"\r\n\r\n"
PLACE = "{place of the request's id}"
LOG_SECONDS = 10.0

log = structlog.stdlib.get_logger("rowlock.http")


@dataclass(slots=True)
class Refusals:
    """Those of a process since the last log line. Times are monotonic seconds."""

    count: int = 0
    logged_at: float = -LOG_SECONDS

    def note(self, error: Exception) -> None:
        """Writes a line now and then."""
        self.count += 1
        now = time.monotonic()
        if now - self.logged_at >= LOG_SECONDS:
            log.warning("holds refused unread", count=self.count, error=repr(error))
            self.count, self.logged_at = 0, now


refusals = Refusals()


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which refuses such holds at once."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        context = self.app_state.get("context")
        self._box_office = context.box_office if isinstance(context, Context) else None
        self._in_message = False

    def data_received(self, data: bytes) -> None:
        """A part of the connection's bytes, most often one whole request."""
        if data.startswith(START) and self._box_office and not self._in_message and not self._is_answering():
            error = self._box_office.refusal_of_hold(lambda: first_seat(data))
            if error:
                self._refuse(data, error)
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """The parser has the first byte of a request."""
        self._in_message = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """The parser has the last one."""
        self._in_message = False
        super().on_message_complete()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, data: bytes, error: Busy | SessionBusy) -> None:
        given = REQUEST_ID.search(data)
        request_id = given[1].decode() if given else uuid7().hex
        self.transport.write(answer(error, request_id, self.server_state.default_headers))
        refusals.note(error)
        recording.hold_refused_unread(
            "/customer/book/{seatId}" if data.startswith(START_OF_ONE) else "/customer/book", error
        )
        # As after any other answer: the connection is kept for the next request.
        self.on_response_complete()


def first_seat(data: bytes) -> int | None:
    """The smallest seat that a whole and usual request wants, else None."""
    line = FIRST_LINE.match(data)
    first, end, body = data.partition(END)
    head = first + b"\r\n"
    if not line or not end or UNUSUAL.search(head):
        return None
    length = LENGTH.search(head)
    if len(body) != (int(length[1]) if length else 0):
        return None
    if line[1]:
        return int(line[1]) if not body else None
    try:
        return int(min(orjson.loads(body)["seatIds"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None


def answer(error: Busy | SessionBusy, request_id: str, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    """The bytes of the response: the same as the whole way would give."""
    fixed, before, after = _template(error.session_id if isinstance(error, SessionBusy) else error.reason)
    id_ = request_id.encode()
    return b"HTTP/1.1 503 Service Unavailable\r\n%b%bcontent-length: %d\r\nx-request-id: %b\r\n\r\n%b%b%b" % (
        _lines(default_headers), fixed, len(before) + len(id_) + len(after), id_, before, id_, after,
    )  # fmt: skip


@lru_cache(maxsize=1_000)
def _template(what: int | BusyReason) -> tuple[bytes, bytes, bytes]:
    """The headers that do not depend on the request, and the body before and after the request's id. `what` is the full
    session, or the reason.
    """
    response = problems.render(SessionBusy(what) if isinstance(what, int) else Busy(what), PLACE)
    before, _, after = bytes(response.body).partition(PLACE.encode())
    headers = [header for header in response.raw_headers if header[0] != b"content-length"]
    return _lines([*headers, *HEADERS]), before, after


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)

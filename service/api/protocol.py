"""The API's connections: uvicorn's protocol with bounds on what clients send late, too long, or do not read."""

import re
from asyncio import AbstractEventLoop, BaseTransport
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Any
from weakref import WeakSet

from uuid_utils import uuid7
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api import early, httperrors, openfiles, rawanswers
from service.api.context import Context
from service.errors import RowlockError
from service.settings import Settings

HEAD_BYTES_MAX = 65_536
FRAMING_BYTES = 16
"""For each byte of a body, the bytes of chunk sizes and ends of lines that are allowed beside it."""
DRAIN_SECONDS = 1.0
"""How long a connection without a request is kept at the end of the process: one may be on its way."""
LOOK_SECONDS = 0.5
"""Between two checks of all connections. A timer for each of them would cost every request."""
REQUEST_ID = re.compile(rb"\r\nx-request-id: *([A-Za-z0-9._-]{1,64})\r\n", re.IGNORECASE)


class Awaits(Enum):
    """The parts of a request for which a connection waits. Between two requests the server's own timer runs."""

    NOTHING = 0
    HEAD = 1
    BODY = 2


@dataclass(frozen=True, slots=True)
class Waits:
    """The longest waits in seconds: for a head and for a body from their first byte on, and for a client that reads."""

    head: float
    body: float
    write: float


def waits_of(settings: Settings) -> Waits:
    """Those of this process."""
    return Waits(settings.request_head_seconds, settings.request_body_seconds, settings.write_stall_seconds)


class Protocol(HttpToolsProtocol):
    """A connection."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        context = self.app_state.get("context")
        self._box_office = context.box_office if isinstance(context, Context) else None
        self._waits = waits_of(context.settings) if isinstance(context, Context) else None
        self._awaits, self._since = Awaits.HEAD, self.loop.time()
        self._in_message = False
        self._head_bytes = 0
        self._is_last = False
        self._unwritten, self._stalled_since = 0, 0.0

    def connection_made(self, transport: BaseTransport) -> None:
        """The client has connected, and has sent nothing."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if self._waits:
            watch(self.loop, self.connections)

    def data_received(self, data: bytes) -> None:
        """A part of the connection's bytes, most often one whole request."""
        if data.startswith(early.START) and self._refuses_early(data):
            return
        self._head_bytes += len(data)
        is_in_body = self._awaits is Awaits.BODY
        if not is_in_body and self._head_bytes > HEAD_BYTES_MAX and data.find(early.END, 0, HEAD_BYTES_MAX) < 0:
            # The parser would join the parts of an endless header again and again.
            self._end(httperrors.HeadTooLarge(HEAD_BYTES_MAX))
            return
        super().data_received(data)
        if is_in_body and self._head_bytes > HEAD_BYTES_MAX:
            self._end(None if self.cycle.response_started else httperrors.HeadTooLarge(HEAD_BYTES_MAX))

    def on_message_begin(self) -> None:
        """The parser has the first byte of a request."""
        self._in_message, self._head_bytes = True, 0
        self._awaits, self._since = Awaits.HEAD, self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The parser has the empty line after the headers."""
        self._awaits, self._head_bytes = Awaits.BODY, 0
        super().on_headers_complete()
        if self._is_last:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A part of the body. It pays for itself and its framing, but not for long extensions of chunks, nor for
        headers after the last one.
        """
        self._head_bytes = max(0, self._head_bytes - len(body) * (1 + FRAMING_BYTES))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The parser has the last byte."""
        self._in_message, self._awaits, self._head_bytes = False, Awaits.NOTHING, 0
        super().on_message_complete()

    def shutdown(self) -> None:
        """The process ends. A request that has begun, or begins now, is answered, with `Connection: close`."""
        if self._is_answering():
            super().shutdown()
            return
        self._is_last = True
        self.loop.call_later(DRAIN_SECONDS, self._close_if_idle)

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        self._unwritten, self._stalled_since = self.transport.get_write_buffer_size(), self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It has read nearly everything."""
        self._unwritten = 0
        super().resume_writing()

    def look(self, now: float) -> None:
        """Ends the connection where the client is late."""
        assert self._waits
        waited = now - self._since
        if self._unwritten and (left := self.transport.get_write_buffer_size()) < self._unwritten:
            self._unwritten, self._stalled_since = left, now
        elif self._unwritten and now - self._stalled_since > self._waits.write:
            # A closing handshake would wait for the client to read.
            self.transport.abort()
        if self._awaits is Awaits.HEAD and waited > self._waits.head:
            self._end(httperrors.RequestTimeout("headers") if self._in_message else None)
        elif self._awaits is Awaits.BODY and waited > self._waits.head + self._waits.body:
            self._end(None if self.cycle.response_started else httperrors.RequestTimeout("body"))

    def _refuses_early(self, data: bytes) -> bool:
        if not self._box_office or self._in_message or self._is_last or self._is_answering():
            return False
        error = self._box_office.refusal_of_hold(lambda: early.first_seat(data))
        if not error:
            return False
        given = REQUEST_ID.search(data)
        request_id = given[1].decode() if given else uuid7().hex
        self.transport.write(rawanswers.refusal(error, request_id, self.server_state.default_headers))
        early.refusals.note(data, error)
        # As after any other answer: the connection is kept for the next request.
        self._awaits = Awaits.NOTHING
        self.on_response_complete()
        return True

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _close_if_idle(self) -> None:
        if not self._in_message and not self._is_answering():
            self.transport.close()

    def _end(self, error: RowlockError | None) -> None:
        """Closes the connection, after an answer if there is one."""
        if error and not self.transport.is_closing():
            self.transport.write(rawanswers.last(error, uuid7().hex, self.server_state.default_headers))
        self._awaits = Awaits.NOTHING
        self.transport.close()


watched: WeakSet[AbstractEventLoop] = WeakSet()


def watch(loop: AbstractEventLoop, connections: Collection[Any]) -> None:
    """Checks all connections of the server now and then, as long as there are any, and whether more are possible."""
    if loop in watched:
        return
    watched.add(loop)

    def look() -> None:
        now = loop.time()
        openfiles.check(now)
        for connection in [one for one in connections if isinstance(one, Protocol)]:
            connection.look(now)
        if connections:
            loop.call_later(LOOK_SECONDS, look)
        else:
            watched.discard(loop)

    loop.call_later(LOOK_SECONDS, look)

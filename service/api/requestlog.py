"""The first middleware of every request: its id, its log line, its trace, and the answer to a defect.

Plain ASGI: Starlette's BaseHTTPMiddleware makes a task and two streams for each request.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from service.api import httperrors, problems
from service.api.rawheaders import first_of_each
from service.observability import logs, sampling, tracing
from service.observability.metrics import catalogue, recording

Headers = tuple[tuple[bytes, bytes], ...]

REQUEST_ID_HEADER = b"x-request-id"
TRACE_HEADER = tracing.HEADER.encode()
ACCEPTABLE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
QUIET_PATHS = ("/livez", "/readyz")
SERVER_ERRORS = 500
PROTO_HEADER = b"x-forwarded-proto"
HEADERS: Headers = ((b"x-content-type-options", b"nosniff"),)
HTTPS_HEADERS: Headers = (*HEADERS, (b"strict-transport-security", b"max-age=31536000"))
"""Where a trusted proxy says that the client came by https."""
FROM_ELSEWHERE = {"exc_info", "cause"}
"""The error of a library may contain a secret. The line is searched, which costs more than the rest of a refusal."""

LOGGER = "rowlock.http"

log = structlog.stdlib.get_logger(LOGGER)
output = logs.Output(LOGGER)


@dataclass(slots=True)
class _Answering:
    """A request in progress. `status` is 0 until the answer begins."""

    request_id: str
    traced: sampling.Request
    began: float
    answer: Send
    headers: Headers
    status: int = 0

    async def send(self, message: Message) -> None:
        """Sends a part of the answer, with the headers of every answer and the request's id."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self.headers, (REQUEST_ID_HEADER, self.request_id.encode())]
        await self.answer(message)


class RequestLog:
    """Gives each request an id, the client's where it is acceptable, and writes one log line when it is answered.

    An exception that has no answer becomes a 500 with that id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            # The server leaves out the body, whatever is sent.
            scope = {**scope, "method": "GET"}
        answering = _begin(scope, send)
        try:
            await self._app(scope, receive, answering.send)
        except Exception as error:
            scope["state"]["failure"] = {"exc_info": error}
            if answering.status:
                raise
            await problems.render(httperrors.InternalError(), answering.request_id)(scope, receive, answering.send)
        finally:
            _end(answering, scope)


def _begin(scope: Scope, send: Send) -> _Answering:
    headers = first_of_each(scope)
    given = headers.get(REQUEST_ID_HEADER, b"").decode("latin-1")
    request_id = given if given and ACCEPTABLE_REQUEST_ID.fullmatch(given) else uuid7().hex
    scope.setdefault("state", {})["request_id"] = request_id
    traced = _begin_trace(scope, headers)
    # Both each time: a pipelined request begins in the context of the request before it.
    structlog.contextvars.bind_contextvars(request_id=request_id, trace_id=traced.trace_id)
    catalogue.HTTP_IN_PROGRESS.of().inc()
    is_https = headers.get(PROTO_HEADER) == b"https" and _is_from_proxy(scope)
    return _Answering(request_id, traced, time.perf_counter(), send, HTTPS_HEADERS if is_https else HEADERS)


def _end(answering: _Answering, scope: Scope) -> None:
    catalogue.HTTP_IN_PROGRESS.of().dec()
    # The template: a path with ids in it would make each line, and each series, its own kind.
    route: str | None = getattr(scope.get("route"), "path", None)
    seconds = time.perf_counter() - answering.began
    recording.request_answered(scope["method"], route, answering.status, seconds)
    _write_line(answering, scope, route, seconds)
    sampling.end_request(answering.traced, scope["method"], route, answering.status)


def _begin_trace(scope: Scope, headers: Mapping[bytes, bytes]) -> sampling.Request:
    if scope["path"] in QUIET_PATHS:
        # A pipelined request begins in the context of the request before it.
        tracing.current.set(None)
        return sampling.Request("")
    given = headers.get(TRACE_HEADER, b"").decode("latin-1")
    is_trusted = bool(given) and _is_from_proxy(scope)
    return sampling.begin_request(scope["method"], given, is_trusted=is_trusted)


def _is_from_proxy(scope: Scope) -> bool:
    peer, context = scope.get("client"), scope["state"]["context"]
    trusted: bool = context.limits.is_proxy(peer[0] if peer else None)
    return trusted


def _write_line(answering: _Answering, scope: Scope, route: str | None, seconds: float) -> None:
    status = answering.status
    if scope["path"] in QUIET_PATHS and status < SERVER_ERRORS:
        return
    failure = scope["state"].get("failure", {})
    level = _level(status, failure)
    facts = {"method": scope["method"], "route": route, "status": status, "duration_ms": round(seconds * 1000, 1)}
    if failure.keys() & FROM_ELSEWHERE:
        log.log(structlog.processors.NAME_TO_LEVEL[level], "request", **facts, **failure)
        return
    # The client chooses only the method, which the parser knows, and the request's id, which may look like a token.
    ids = {"request_id": logs.hidden(answering.request_id), "trace_id": answering.traced.trace_id}
    logs.write_plain(output, level, {**facts, **failure, "event": "request", **ids})


def _level(status: int, failure: Mapping[str, Any]) -> str:
    """A defect is an error, a store that is down a warning, and a refusal neither."""
    if "exc_info" in failure or status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return "error"
    # Without a status the client got no answer.
    return "warning" if status > SERVER_ERRORS or not status else "info"

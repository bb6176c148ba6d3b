"""What every request passes, as plain ASGI: its id, its line in the log, the bounds of its body, the last resort."""

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from service.accounts.tokens import Role, Tokens
from service.api import problems
from service.errors import RowlockError, Unauthenticated
from service.observability import tracing
from service.observability.metrics import catalogue, recording

REQUEST_ID_HEADER = "X-Request-ID"
ACCEPTABLE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
QUIET_PATHS = ("/livez", "/readyz")
LINGER_BYTES_MAX = 16_777_216
LINGER_SECONDS_MAX = 5

log = structlog.stdlib.get_logger("rowlock.http")


class RequestLog:
    """Gives each request an id, the client's where it is acceptable, and writes one line when it is answered.

    An exception that nobody has turned into an answer becomes a 500 with that id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if ACCEPTABLE_REQUEST_ID.fullmatch(given) else uuid7().hex
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        traced = _begin_trace(scope)
        structlog.contextvars.bind_contextvars(request_id=request_id, trace_id=traced.trace_id)
        status = 0
        began = time.perf_counter()
        in_progress = catalogue.HTTP_IN_PROGRESS.of()
        in_progress.inc()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            scope["state"]["failure"] = {"exc_info": error}
            if status:
                raise
            await problems.render(problems.InternalError(), request_id)(scope, receive, send_with_id)
        finally:
            in_progress.dec()
            # The template: a path with ids in it would make each line, and each series, its own kind.
            route: str | None = getattr(scope.get("route"), "path", None)
            seconds = time.perf_counter() - began
            recording.request_answered(scope["method"], route, status, seconds)
            _write_line(scope, route, status, seconds)
            tracing.end_request(traced, scope["method"], route, status)


def _begin_trace(scope: Scope) -> tracing.Request:
    if scope["path"] in QUIET_PATHS:
        # A request that was sent before the last one's answer begins in that one's context.
        tracing.current.set(None)
        return tracing.Request("")
    peer, context = scope.get("client"), scope["state"]["context"]
    is_trusted = context.limits.is_proxy(peer[0] if peer else None)
    return tracing.begin_request(scope["method"], Headers(scope=scope).get(tracing.HEADER, ""), is_trusted=is_trusted)


def _write_line(scope: Scope, route: str | None, status: int, seconds: float) -> None:
    if scope["path"] in QUIET_PATHS and status < 500:  # noqa: PLR2004 - server errors
        return
    failure = scope["state"].get("failure", {})
    log.log(
        _level(status, failure),
        "request",
        method=scope["method"],
        route=route,
        status=status,
        duration_ms=round(seconds * 1000, 1),
        **failure,
    )


def _level(status: int, failure: Mapping[str, Any]) -> int:
    """Errors are ours to mend; what is away is a warning, and a refusal is no trouble at all."""
    if "exc_info" in failure or status == 500:  # noqa: PLR2004 - an internal error
        return logging.ERROR
    # Without a status nobody was answered.
    return logging.WARNING if status > 500 or not status else logging.INFO  # noqa: PLR2004 - server errors


class BodyLimit:
    """Refuses a body that is not JSON by its header, or too long, before anybody parses it.

    What a path allows beyond the usual is for managers: who sends megabytes should have something to lose.
    """

    def __init__(self, app: ASGIApp, bytes_max: int, bytes_max_by_path: dict[str, int]) -> None:
        self._app = app
        self._bytes_max = bytes_max
        self._bytes_max_by_path = bytes_max_by_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        bytes_max = self._bound(scope, headers)
        if refusal := _refusal(headers, bytes_max):
            await _refuse(refusal, scope, receive, send)
            return
        received = 0
        ended = started = False

        async def receive_bounded() -> Message:
            nonlocal received, ended
            message = await receive()
            received += len(message.get("body", b""))
            ended = not message.get("more_body", False)
            if received > bytes_max:
                raise problems.BodyTooLarge(bytes_max)
            return message

        async def send_bounded(message: Message) -> None:
            nonlocal started
            # The framework takes what is raised above for a body that can't be read, and answers that.
            if received > bytes_max and not started:
                return
            started = True
            await send(message)

        try:
            await self._app(scope, receive_bounded, send_bounded)
        except problems.BodyTooLarge:
            if started:
                raise
        if received > bytes_max and not started:
            await _refuse(problems.BodyTooLarge(bytes_max), scope, None if ended else receive, send)

    def _bound(self, scope: Scope, headers: Headers) -> int:
        larger = self._bytes_max_by_path.get(scope["path"])
        return larger if larger and _is_manager(scope, headers) else self._bytes_max


def _is_manager(scope: Scope, headers: Headers) -> bool:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    tokens: Tokens = scope["state"]["context"].tokens
    try:
        return scheme.lower() == "bearer" and tokens.check(token.strip()).role is Role.MANAGER
    except Unauthenticated:
        return False


def _refusal(headers: Headers, bytes_max: int) -> RowlockError | None:
    length = headers.get("content-length", "0")
    has_body = length != "0" or "transfer-encoding" in headers
    if not has_body:
        return None
    if int(length) > bytes_max:
        return problems.BodyTooLarge(bytes_max)
    media_type, _, parameters = re.sub('[ "]', "", headers.get("content-type", "").lower()).partition(";")
    if media_type != "application/json" or parameters not in ("", "charset=utf-8"):
        return problems.UnsupportedMediaType()
    return None


async def _refuse(error: RowlockError, scope: Scope, rest: Receive | None, send: Send) -> None:
    """Answers, reads on for a while, and closes: if it closed at once, who is still sending would be cut off (RST)
    before the answer is read. `rest` is None where the body has ended.
    """
    response = problems.render(error, scope["state"]["request_id"])
    # The rest of a longer body stays unread, so the connection can't be used again.
    response.headers["Connection"] = "close"
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    if rest is not None:
        await _read_on(rest)
    await send({"type": "http.response.body", "body": b""})


async def _read_on(receive: Receive) -> None:
    left = LINGER_BYTES_MAX
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS_MAX):
            while left > 0:
                message = await receive()
                if not message.get("more_body", False):
                    return
                left -= len(message["body"])

"""The second middleware: a body must be JSON and not too long. Plain ASGI, as `requestlog`."""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.accounts.tokens import Role, Tokens
from service.api import httperrors, problems
from service.api.context import limit_refused
from service.api.rawheaders import again, first_of_each
from service.errors import RowlockError, Unauthenticated

JSON = b"application/json"
LINGER_BYTES_MAX, LINGER_SECONDS_MAX = 16_777_216, 5
"""How much of a refused body is read, and for how long, so that the client reads the answer."""


class BodyLimit:
    """Refuses a body before it is parsed if its header does not say JSON, or if it is too long.

    Only a manager may send more than `bytes_max`, on the paths of `bytes_max_by_path`: large bodies cost memory.
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
        headers = first_of_each(scope)
        bytes_max = self._bound(scope, headers)
        refusal = _refusal(headers, bytes_max)
        if isinstance(refusal, httperrors.UnsupportedMediaType) and b"content-length" not in headers:
            # Only the body itself tells whether there is one.
            first = await receive()
            receive = again([first], receive)
            refusal = refusal if first.get("body") or first.get("more_body") else None
        if refusal:
            await _refuse(refusal, scope, receive, send)
            return
        exchange = _Exchange(receive, send, bytes_max)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except httperrors.BodyTooLarge:
            if exchange.is_answered:
                raise
        if exchange.must_be_refused():
            rest = None if exchange.has_ended else receive
            await _refuse(httperrors.BodyTooLarge(bytes_max), scope, rest, send)

    def _bound(self, scope: Scope, headers: Mapping[bytes, bytes]) -> int:
        larger = self._bytes_max_by_path.get(scope["path"])
        return larger if larger and _is_manager(scope, headers) else self._bytes_max


class _Exchange:
    """A request's body, counted as it is received, and its answer."""

    __slots__ = ("_bytes_max", "_receive", "_received", "_send", "has_ended", "is_answered")

    def __init__(self, receive: Receive, send: Send, bytes_max: int) -> None:
        self._receive = receive
        self._send = send
        self._bytes_max = bytes_max
        self._received = 0
        self.has_ended = False
        self.is_answered = False

    async def receive(self) -> Message:
        """The next part of the body. Raises BodyTooLarge."""
        message = await self._receive()
        self._received += len(message.get("body", b""))
        self.has_ended = not message.get("more_body", False)
        if self._received > self._bytes_max:
            raise httperrors.BodyTooLarge(self._bytes_max)
        return message

    async def send(self, message: Message) -> None:
        """A part of the answer. It is dropped if the body is too long: the framework takes BodyTooLarge for a body
        that can't be read, and answers that.
        """
        if self.must_be_refused():
            return
        self.is_answered = True
        await self._send(message)

    def must_be_refused(self) -> bool:
        """Whether the body was too long, and no answer has begun."""
        return self._received > self._bytes_max and not self.is_answered


def _is_manager(scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    tokens: Tokens = scope["state"]["context"].tokens
    try:
        return scheme.lower() == "bearer" and tokens.check(token.strip()).role is Role.MANAGER
    except Unauthenticated:
        return False


def _refusal(headers: Mapping[bytes, bytes], bytes_max: int) -> RowlockError | None:
    length = headers.get(b"content-length", b"0")
    has_body = length != b"0" or b"transfer-encoding" in headers
    if not has_body:
        return None
    if int(length) > bytes_max:
        return httperrors.BodyTooLarge(bytes_max)
    given = headers.get(b"content-type", b"")
    return None if given == JSON or _is_json(given.decode("latin-1")) else httperrors.UnsupportedMediaType()


def _is_json(content_type: str) -> bool:
    media_type, _, parameters = re.sub('[ "]', "", content_type.lower()).partition(";")
    return media_type == "application/json" and parameters in ("", "charset=utf-8")


async def _refuse(error: RowlockError, scope: Scope, rest: Receive | None, send: Send) -> None:
    """Answers, reads the rest of the body for a bounded time, and closes. Closing at once would reset the connection
    of a client that is still sending, before it reads the answer. Without `rest` the body has ended.
    """
    refusal = await limit_refused(Request(scope), error)
    response = problems.render(refusal, scope["state"]["request_id"])
    # Part of a longer body stays unread, so the connection can't be used again.
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

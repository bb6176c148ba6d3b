"""Lean routes: requests of customers' routes pass FastAPI by.

FastAPI solves a signature for each request, which costs several times as much as the rest of the API. Here the
signature is compiled (`signature`), and the OpenAPI document still comes from it. A request that is unusual in any way
goes on to FastAPI before any dependency has run: an unknown path, a value that a validator refuses, a body that is not
plain JSON, and input that the route does not declare. So FastAPI alone refuses these.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping

import orjson
from fastapi.routing import APIRoute
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import undeclared
from service.api.rawheaders import again, first_of_each, join_lists
from service.api.signature import Received, Signature, Unusual
from service.errors import RowlockError

Answer = Callable[[Request, Exception], Awaitable[Response]]
Table = Mapping[tuple[str, str], Signature]


class LeanRoutes:
    """The innermost middleware: answers requests of lean routes, and hands all others on to FastAPI."""

    def __init__(self, app: ASGIApp, routes: Iterable[APIRoute], answer: Answer) -> None:
        self._app = app
        self._answer = answer
        signatures = [Signature(route) for route in routes]
        self._whole = _table(each for each in signatures if each.key)
        self._prefixes = _table(each for each in signatures if not each.key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        join_lists(scope)
        found = self._find(scope)
        if found is None:
            await self._app(scope, receive, send)
            return
        signature, value = found
        messages: list[Message] = []
        try:
            arguments = signature.arguments(await _received(signature, value, scope, receive, messages))
        except Unusual:
            await self._app(scope, again(messages, receive), send)
            return
        scope["route"] = signature.route
        request = Request(scope, receive)
        try:
            response = await signature.run(request, arguments)
        except RowlockError as error:
            response = await self._answer(request, error)
            # One error may be the answer to many requests, and its traceback would grow with each.
            error.__traceback__ = None
        await response(scope, receive, send)

    def _find(self, scope: Scope) -> tuple[Signature, str] | None:
        """The route, and the value of the parameter in its path."""
        method, path = scope["method"], scope["path"]
        if scope.get("root_path"):
            return None
        if signature := self._whole.get((method, path)):
            return signature, ""
        prefix, _, value = path.rpartition("/")
        signature = self._prefixes.get((method, prefix))
        return (signature, value) if signature and value else None


def _table(signatures: Iterable[Signature]) -> Table:
    return {(method, each.key or each.prefix): each for each in signatures for method in each.route.methods or ()}


async def _received(
    signature: Signature, value: str, scope: Scope, receive: Receive, messages: list[Message]
) -> Received:
    """The parts of the request. Raises Unusual, with the messages that were received until then in `messages`."""
    headers = first_of_each(scope)
    if undeclared.is_possible(signature.declared, scope, headers):
        raise Unusual
    body = None
    if signature.body_field is not None:
        if headers.get(b"content-type") != b"application/json":
            raise Unusual
        body = _parsed(await _body(receive, messages))
    query = QueryParams(scope["query_string"]) if scope["query_string"] else {}
    return Received(value, query, headers, body)


async def _body(receive: Receive, messages: list[Message]) -> bytes:
    while True:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request":
            raise Unusual
        if not message.get("more_body", False):
            return b"".join(part.get("body", b"") for part in messages)


def _parsed(body: bytes) -> object:
    """The body as FastAPI's parser reads it. Where the two could differ, this one refuses, or a validator does."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Unusual from None
    if not undeclared.has_each_key_once(body, parsed):
        raise Unusual
    return parsed

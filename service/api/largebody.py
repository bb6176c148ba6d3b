"""Large answers: their bytes are shared by all who get the same ones, and those that are being sent have a bound.

A client that reads slowly keeps the bytes of its answer in memory until it has them. Each version of a seat map of
100,000 seats has nine million.
"""

from collections import Counter
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.errors import Busy, BusyReason

SMALL_BYTES_MAX = 262_144
"""Answers up to this length are not large."""
BYTES_MAX = 134_217_728


class LargeBodies:
    """The large bodies that are being sent, by identity: many answers with the same body count once."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._answers: Counter[int] = Counter()
        self._bytes = 0

    def enter(self, body: bytes) -> None:
        """An answer with this body begins. Raises Busy where there are too many bytes of others."""
        if id(body) not in self._answers:
            if self._bytes + len(body) > self._bytes_max:
                raise Busy(BusyReason.LARGE_ANSWERS)
            self._bytes += len(body)
        self._answers[id(body)] += 1

    def leave(self, body: bytes) -> None:
        """The answer has been sent, or its client is gone."""
        self._answers[id(body)] -= 1
        if not self._answers[id(body)]:
            del self._answers[id(body)]
            self._bytes -= len(body)


class Shared(Response):
    """An answer whose body has two parts: `first`, which others share and which is never copied, and `rest`.

    Raises Busy where too much is being sent.
    """

    def __init__(self, bodies: LargeBodies, first: bytes, rest: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(rest, 200, {**headers, "Content-Length": str(len(first) + len(rest))}, "application/json")
        self._bodies, self._first = bodies, first
        bodies.enter(first)

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """ASGI. The second part waits until the client has read nearly all of the first."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            await send({"type": "http.response.body", "body": bytes(self.body)})
        finally:
            self._bodies.leave(self._first)

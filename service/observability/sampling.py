"""Which requests are traced, and their spans."""

import random
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.observability import tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span

FORCED_PER_SECOND_MAX = 50
"""Traces that trusted proxies may force. Beyond that our own ratio decides."""


@dataclass(slots=True)
class _Forced:
    second: int = 0
    count: int = 0


_forced = _Forced()


@dataclass(frozen=True, slots=True)
class Request:
    """The log has `trace_id` whether or not the request is traced."""

    trace_id: str
    span: "Span | None" = None


def begin_request(method: str, given: str, *, is_trusted: bool) -> Request:
    """Decides whether the request is traced, and begins its span. `given` is the client's traceparent.

    Any client's trace continues here, but only a trusted proxy decides whether it is recorded.
    """
    parent = tracing.TRACEPARENT.fullmatch(given)
    spans = tracing.recording.spans
    if spans is None or not _is_sampled(parent, is_trusted=is_trusted):
        tracing.current.set(None)
        return Request(parent[1] if parent else f"{random.getrandbits(128):032x}")
    span = spans.begin(method, "server", given if parent else None)
    tracing.current.set(span)
    return Request(f"{span.get_span_context().trace_id:032x}", span)


def _is_sampled(parent: re.Match[str] | None, *, is_trusted: bool) -> bool:
    if parent and is_trusted:
        if not int(parent[2], 16) & 1:
            return False
        second = int(time.monotonic())
        if second != _forced.second:
            _forced.second, _forced.count = second, 0
        _forced.count += 1
        if _forced.count <= FORCED_PER_SECOND_MAX:
            return True
    return random.random() < tracing.recording.sample_ratio  # noqa: S311 - not a secret


def end_request(request: Request, method: str, route: str | None, status: int) -> None:
    """Ends the request's span. Its name is the route's template: a path with ids would give each span its own name."""
    if request.span is None:
        return
    tracing.current.set(None)
    request.span.set_attributes({"http.request.method": method, "http.response.status_code": status})
    if route is not None:
        request.span.update_name(f"{method} {route}")
        request.span.set_attribute("http.route", route)
    tracing.end_span(request.span, str(status) if status >= 500 or not status else None)  # noqa: PLR2004 - server errors

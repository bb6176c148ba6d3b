"""Traces: what a request or a batch has done, one span for each step, where somebody wants to see it.

Whether a request is traced is decided first, by us. Where it is not, no object is made, here or later: everything
below looks at `current`, which is None then. Without an endpoint not even the exporter is imported
(`service.observability.spans`).

A trace goes on wherever its `traceparent` (W3C Trace Context) goes: with the reservation and its events in PostgreSQL,
in the headers of RabbitMQ's messages. A batch serves many traces, so it is one of its own that links to theirs, and
each of theirs gets a span for its part.
"""

import random
import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import structlog

from service.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from service.observability.spans import Spans

P = ParamSpec("P")
T = TypeVar("T")
Step = Callable[P, Coroutine[Any, Any, T]]

HEADER = "traceparent"
TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")
FORCED_PER_SECOND_MAX = 50
"""Traces that others have decided on; what is beyond that is left to our own ratio."""

current: ContextVar["Span | None"] = ContextVar("current_span", default=None)
"""The span that whatever happens now is a part of; None where nothing is recorded."""
_batch: ContextVar["Batch | None"] = ContextVar("batch", default=None)


@dataclass(slots=True)
class _State:
    spans: "Spans | None" = None
    ratio: float = 0
    second: int = 0
    forced: int = 0


_state = _State()


@asynccontextmanager
async def exported(settings: Settings, part: str) -> AsyncIterator[None]:
    """Traces are recorded and sent during the block, by the name of the process, where there is an endpoint.

    At the end what is recorded is sent for a bounded time.
    """
    if settings.trace_endpoint is None:
        yield
        return
    from service.observability.spans import Spans  # noqa: PLC0415 - whoever traces nothing needs no exporter

    spans = Spans(settings.trace_endpoint.get_secret_value(), part)
    _state.spans, _state.ratio = spans, settings.trace_sample_ratio
    try:
        yield
    finally:
        _state.spans = None
        await spans.close()


@dataclass(frozen=True, slots=True)
class Request:
    """`trace_id` is for the log, whether it is traced or not."""

    trace_id: str
    span: "Span | None" = None


def begin_request(method: str, given: str, *, is_trusted: bool) -> Request:
    """Decides, and begins the span if it is to be. `given` is the client's traceparent.

    Everybody's trace goes on here, but who is not a trusted proxy does not decide what is recorded.
    """
    parent = TRACEPARENT.fullmatch(given)
    spans = _state.spans
    if spans is None or not _is_sampled(parent, is_trusted=is_trusted):
        current.set(None)
        return Request(parent[1] if parent else f"{random.getrandbits(128):032x}")
    span = spans.begin(method, "server", given if parent else None)
    current.set(span)
    return Request(f"{span.get_span_context().trace_id:032x}", span)


def _is_sampled(parent: re.Match[str] | None, *, is_trusted: bool) -> bool:
    if parent and is_trusted:
        if not int(parent[2], 16) & 1:
            return False
        second = int(time.monotonic())
        if second != _state.second:
            _state.second, _state.forced = second, 0
        _state.forced += 1
        if _state.forced <= FORCED_PER_SECOND_MAX:
            return True
    return random.random() < _state.ratio  # noqa: S311 - nothing secret


def end_request(request: Request, method: str, route: str | None, status: int) -> None:
    """Ends its span. The route's template names it: a path with ids in it would make each span its own kind."""
    if request.span is None:
        return
    current.set(None)
    request.span.set_attributes({"http.request.method": method, "http.response.status_code": status})
    if route is not None:
        request.span.update_name(f"{method} {route}")
        request.span.set_attribute("http.route", route)
    _end(request.span, str(status) if status >= 500 or not status else None)  # noqa: PLR2004 - server errors


def traceparent_of(key: object = None) -> str | None:
    """What to store or send so that the trace goes on there; None where nothing is recorded.

    In a batch each member, by its key, has its own.
    """
    batch, spans = _batch.get(), _state.spans
    span = batch.members.get(key) if batch else current.get()
    return spans.traceparent(span) if span and spans else None


def note_tried(keys: Collection[Any]) -> None:
    """Says which members of the batch, here or to come, were tried before: they get a span only if it comes to its end.
    However often one fails, its trace doesn't grow.
    """
    if batch := _batch.get():
        batch.tried.update(keys)


def note_members(traceparents: Mapping[Any, str | None]) -> None:
    """Says which traces are concerned by what goes on, by key: a batch takes them up, a request links to them."""
    batch, span, spans = _batch.get(), current.get(), _state.spans
    if batch:
        batch.join(traceparents)
    elif span and spans:
        spans.link(span, *(traceparent for traceparent in traceparents.values() if traceparent))


def note_failed(keys: Collection[Any], error_type: str) -> None:
    """Says which members of the batch did not come to their end, where the others did."""
    if batch := _batch.get():
        batch.failed.update(dict.fromkeys(keys, error_type))


def note_done(keys: Collection[Any]) -> None:
    """Says which members of the batch have come to their end, whatever becomes of the others."""
    if batch := _batch.get():
        batch.done.update(keys)


@dataclass(slots=True)
class Batch:
    """A step of a loop. `span` is None, and there are no members, as long as no member is traced."""

    name: str
    member_name: str
    kind: str
    span: "Span | None" = None
    members: dict[object, "Span"] = field(default_factory=dict)
    tried: set[object] = field(default_factory=set)
    failed: dict[object, str] = field(default_factory=dict)
    done: set[object] = field(default_factory=set)

    def join(self, traceparents: Mapping[Any, str | None]) -> None:
        """Takes up those that are traced and are not here yet; each gets a span in its own trace."""
        spans = _state.spans
        traced = {key: value for key, value in traceparents.items() if value and key not in self.members}
        if spans is None or not traced:
            return
        if self.span is None:
            self.span = spans.begin(self.name, "internal", None)
        if current.get() is not self.span and traced.keys() - self.tried:
            # Else nothing may be recorded below a span that is perhaps dropped.
            current.set(self.span)
            structlog.contextvars.bind_contextvars(trace_id=f"{self.span.get_span_context().trace_id:032x}")
        for key, traceparent in traced.items():
            member = spans.begin(self.member_name, self.kind, traceparent)
            spans.link(member, spans.traceparent(self.span))
            self.members[key] = member

    def end(self, error: BaseException | None = None) -> None:
        """Ends what was begun. What was tried before and has failed again is dropped: nobody gets a span that does not
        end.
        """
        if self.span is None:
            return
        current.set(None)
        if error:
            left = self.members.keys() - self.failed.keys() - self.done
            self.failed.update(dict.fromkeys(left, type(error).__name__))
        kept = {key: span for key, span in self.members.items() if key not in self.failed or key not in self.tried}
        if not kept:
            return
        if _state.spans is not None:
            _state.spans.link(self.span, *map(_state.spans.traceparent, kept.values()))
        for key, span in kept.items():
            _end(span, self.failed.get(key))
        _end(self.span, type(error).__name__ if error else next(iter(self.failed.values()), None))


def batched(name: str, member_name: str, kind: str) -> Callable[[Step[P, T]], Step[P, T]]:
    """Makes a batch of each call of a loop's step; its members' spans, named so, end with it."""

    def decorate(work: Step[P, T]) -> Step[P, T]:
        @wraps(work)
        async def batch(*arguments: P.args, **options: P.kwargs) -> T:
            made = Batch(name, member_name, kind)
            token = _batch.set(made)
            try:
                result = await work(*arguments, **options)
            except BaseException as error:
                made.end(error)
                raise
            else:
                made.end()
            finally:
                _batch.reset(token)
            return result

        return batch

    return decorate


@contextmanager
def step(name: str, kind: str = "client") -> Iterator["Span | None"]:
    """A span of what the block does; None, and nothing is made, where nothing is recorded."""
    parent, spans = current.get(), _state.spans
    if parent is None or spans is None:
        yield None
        return
    span = spans.begin_child(name, kind, parent)
    error_type = None
    try:
        yield span
    except BaseException as error:
        error_type = type(error).__name__
        raise
    finally:
        _end(span, error_type)


def _end(span: "Span", error_type: str | None) -> None:
    if error_type is not None and _state.spans is not None:
        # No more of it: an exception's text may hold what nobody should export.
        _state.spans.fail(span, error_type)
    span.end()

"""Traces of sampled requests and batches, with a span for each step.

Whether a request is traced is decided first, in `sampling`. If it is not, it creates no object: all code below checks
`current`, which is then None. Without an endpoint the exporter is not even imported (`spans`).

OpenTelemetry's propagator reads and writes headers for traced requests only. For every request it would cost ten times
as much as the pattern here (about 30 µs instead of 3), and so would OpenTelemetry's context instead of `current` (about
0.5 µs for each look-up instead of 0.04).

A trace continues wherever its `traceparent` (W3C Trace Context) goes: with the reservation and its events in
PostgreSQL, and in the headers of RabbitMQ's messages. A batch serves many traces. It is a trace of its own that links
to theirs, and each of them gets a span for its part.
"""

import re
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

current: ContextVar["Span | None"] = ContextVar("current_span", default=None)
"""The span that contains the current work; None where nothing is recorded."""
_batch: ContextVar["Batch | None"] = ContextVar("batch", default=None)


@dataclass(slots=True)
class Recording:
    """How this process records. Without `spans` it does not."""

    spans: "Spans | None" = None
    sample_ratio: float = 0


recording = Recording()


@asynccontextmanager
async def exported(settings: Settings, part: str) -> AsyncIterator[None]:
    """Records traces during the block, under the process's name, if there is an endpoint.

    At the end the recorded spans are sent within a bounded time.
    """
    if settings.trace_endpoint is None:
        yield
        return
    from service.observability.spans import Spans  # noqa: PLC0415 - without traces there is no exporter

    spans = Spans(settings.trace_endpoint.get_secret_value(), part)
    recording.spans, recording.sample_ratio = spans, settings.trace_sample_ratio
    try:
        yield
    finally:
        recording.spans = None
        await spans.close()


def traceparent_of(key: object = None) -> str | None:
    """The header to store or send so that the trace continues there; None where nothing is recorded.

    In a batch each member, identified by its key, has its own.
    """
    batch, spans = _batch.get(), recording.spans
    span = batch.members.get(key) if batch else current.get()
    return spans.traceparent(span) if span and spans else None


def note_tried(keys: Collection[Any]) -> None:
    """Notes members of the batch, present or future, that were tried before. They get a span only if they succeed: a
    trace does not grow with each failure.
    """
    if batch := _batch.get():
        batch.tried.update(keys)


def note_members(traceparents: Mapping[Any, str | None]) -> None:
    """Notes the traces that the work belongs to, by key. A batch adds them as members, and a request links to them."""
    batch, span, spans = _batch.get(), current.get(), recording.spans
    if batch:
        batch.join(traceparents)
    elif span and spans:
        for traceparent in filter(None, traceparents.values()):
            spans.link(span, traceparent)


def note_failed(keys: Collection[Any], error_type: str) -> None:
    """Notes members of the batch that failed although the batch did not."""
    if batch := _batch.get():
        batch.failed.update(dict.fromkeys(keys, error_type))


def note_done(keys: Collection[Any]) -> None:
    """Notes members of the batch that succeeded even if the batch fails later."""
    if batch := _batch.get():
        batch.done.update(keys)


@dataclass(slots=True)
class Batch:
    """A step of a loop. It has a span only if it has traced members."""

    name: str
    member_name: str
    kind: str
    span: "Span | None" = None
    members: dict[object, "Span"] = field(default_factory=dict)
    tried: set[object] = field(default_factory=set)
    failed: dict[object, str] = field(default_factory=dict)
    done: set[object] = field(default_factory=set)

    def join(self, traceparents: Mapping[Any, str | None]) -> None:
        """Adds the traced members that are new. Each gets a span in its own trace. One that is known, such as the
        payment of a hold, gets a link.
        """
        spans = recording.spans
        if spans:
            for key in self.members.keys() & traceparents.keys():
                traceparent = traceparents[key]
                if traceparent and f"{self.members[key].get_span_context().trace_id:032x}" not in traceparent:
                    spans.link(self.members[key], traceparent)
        traced = {key: value for key, value in traceparents.items() if value and key not in self.members}
        if spans is None or not traced:
            return
        if self.span is None:
            self.span = spans.begin(self.name, "internal", None)
        if current.get() is not self.span and traced.keys() - self.tried:
            # Otherwise the batch's span may be dropped later, and nothing may be recorded below it.
            current.set(self.span)
            structlog.contextvars.bind_contextvars(trace_id=f"{self.span.get_span_context().trace_id:032x}")
        for key, traceparent in traced.items():
            member = spans.begin(self.member_name, self.kind, traceparent)
            member.add_link(self.span.get_span_context())
            self.members[key] = member

    def end(self, error: BaseException | None = None) -> None:
        """Ends the spans. Those of members that were tried before and have failed again are dropped."""
        if self.span is None:
            return
        current.set(None)
        if error:
            left = self.members.keys() - self.failed.keys() - self.done
            self.failed.update(dict.fromkeys(left, type(error).__name__))
        kept = {key: span for key, span in self.members.items() if key not in self.failed or key not in self.tried}
        if not kept:
            return
        for key, span in kept.items():
            self.span.add_link(span.get_span_context())
            end_span(span, self.failed.get(key))
        end_span(self.span, type(error).__name__ if error else next(iter(self.failed.values()), None))


def batched(name: str, member_name: str, kind: str) -> Callable[[Step[P, T]], Step[P, T]]:
    """Makes each call of a loop's step a batch. The spans of its members have `member_name`, and end with the call."""

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
    """A span of the block; None, without any cost, where nothing is recorded."""
    parent, spans = current.get(), recording.spans
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
        end_span(span, error_type)


def end_span(span: "Span", error_type: str | None) -> None:
    """Ends the span, as failed if there is an error."""
    if error_type is not None and recording.spans is not None:
        # Only the type: the exception's text may contain secrets.
        recording.spans.fail(span, error_type)
    span.end()

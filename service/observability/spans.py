"""OpenTelemetry's part of `service.observability.tracing`, which imports this only where traces have somewhere to go.

Spans wait in a bounded queue for a thread that sends them by OTLP (http/protobuf). Where nobody takes them they are
dropped. The library's own variables count for the rest, such as OTEL_EXPORTER_OTLP_HEADERS and _CERTIFICATE, and
OTEL_BSP_SCHEDULE_DELAY (5,000 ms: each send costs the CPU that answers requests).
"""

import asyncio
import logging
import threading
from collections.abc import Sequence

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

QUEUE_SPANS_MAX = 2_048
BATCH_SPANS_MAX = 512
LINKS_MAX = 10_000
"""As many as the largest batch has members; the library's own limit is 128."""
SEND_SECONDS_MAX = 5
CLOSE_SECONDS_MAX = 3

log = structlog.stdlib.get_logger("rowlock.traces")


class Exporter(SpanExporter):
    """Says once that nobody takes the traces, and once that somebody does again: the library says it for each batch,
    and names the address with whatever is in it.
    """

    def __init__(self, endpoint: str) -> None:
        url = f"{endpoint.rstrip('/')}/v1/traces"
        self._inner = OTLPSpanExporter(url, timeout=SEND_SECONDS_MAX)
        self._is_away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """In the processor's thread."""
        result = self._inner.export(spans)
        is_away = result is not SpanExportResult.SUCCESS
        if is_away and not self._is_away:
            log.warning("traces can't be sent and are dropped")
        elif self._is_away and not is_away:
            log.info("traces are sent again")
        self._is_away = is_away
        return result

    def shutdown(self) -> None:
        """Ends a send that is tried again."""
        self._inner.shutdown()  # type: ignore[no-untyped-call]  # the library's


class Spans:
    """One per process. Its threads begin here, so after any fork."""

    def __init__(self, endpoint: str, part: str) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        resource = Resource.create({"service.name": part}).merge(OTELResourceDetector().detect())
        limits = SpanLimits(max_links=LINKS_MAX)
        self._provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, span_limits=limits)
        self._exporter = Exporter(endpoint)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter,
                max_queue_size=QUEUE_SPANS_MAX,
                max_export_batch_size=BATCH_SPANS_MAX,
            )
        )
        self._tracer = self._provider.get_tracer("rowlock")

    def begin(self, name: str, kind: str, traceparent: str | None) -> Span:
        """A span of the trace, or of a new one."""
        context = set_span_in_context(NonRecordingSpan(_parsed(traceparent)), Context()) if traceparent else Context()
        return self._tracer.start_span(name, context, SpanKind[kind.upper()])

    def begin_child(self, name: str, kind: str, parent: Span) -> Span:
        """A span below another of this process."""
        return self._tracer.start_span(name, set_span_in_context(parent, Context()), SpanKind[kind.upper()])

    def link(self, span: Span, *traceparents: str) -> None:
        """Says that they have to do with each other."""
        for traceparent in traceparents:
            span.add_link(_parsed(traceparent))

    def fail(self, span: Span, error_type: str) -> None:
        """Says that its work came to nothing."""
        span.set_attribute("error.type", error_type)
        span.set_status(StatusCode.ERROR)

    def traceparent(self, span: Span) -> str:
        """Of the span, for whoever goes on."""
        context = span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    async def close(self) -> None:
        """Sends what is recorded; gives up after CLOSE_SECONDS_MAX, whatever the other end does."""
        ending = threading.Thread(target=self._provider.shutdown, name="traces-end", daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, CLOSE_SECONDS_MAX)
        if ending.is_alive():
            log.warning("not all traces could be sent before the end")
            self._exporter.shutdown()


def _parsed(traceparent: str) -> SpanContext:
    """What was checked when it came in, or written by us."""
    _, trace_id, span_id, _ = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))

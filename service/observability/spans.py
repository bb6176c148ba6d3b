"""OpenTelemetry's part of `service.observability.tracing`, imported only if traces have an endpoint.

Spans wait in a bounded queue for a thread that sends them by OTLP (http/protobuf). If the receiver does not take them
they are dropped. The library's own variables configure the rest, such as OTEL_EXPORTER_OTLP_HEADERS and _CERTIFICATE,
and OTEL_BSP_SCHEDULE_DELAY (5,000 ms: each send costs CPU time of requests).
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
from opentelemetry.trace import Span, SpanKind, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.observability.tracing import HEADER

QUEUE_SPANS_MAX = 2_048
BATCH_SPANS_MAX = 512
LINKS_MAX = 10_000
"""The size of the largest batch. The library's own limit is 128."""
SEND_SECONDS_MAX = 5
CLOSE_SECONDS_MAX = 3

propagator = TraceContextTextMapPropagator()
log = structlog.stdlib.get_logger("rowlock.traces")


class Exporter(SpanExporter):
    """Logs once that the receiver is down, and once that it is back. The library would log it for each batch, with the
    URL and the password in it.
    """

    def __init__(self, endpoint: str, send_seconds_max: float = SEND_SECONDS_MAX) -> None:
        url = f"{endpoint.rstrip('/')}/v1/traces"
        self._inner = OTLPSpanExporter(url, timeout=send_seconds_max)
        self._is_away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Runs in the processor's thread."""
        result = self._inner.export(spans)
        is_away = result is not SpanExportResult.SUCCESS
        if is_away and not self._is_away:
            log.warning("traces can't be sent and are dropped")
        elif self._is_away and not is_away:
            log.info("traces are sent again")
        self._is_away = is_away
        return result

    def shutdown(self) -> None:
        """Ends the retries of a send."""
        self._inner.shutdown()  # type: ignore[no-untyped-call]  # the library's


class Spans:
    """One per process. Its threads begin here, so after any fork."""

    def __init__(
        self,
        endpoint: str,
        part: str,
        *,
        queue_spans_max: int = QUEUE_SPANS_MAX,
        send_seconds_max: float = SEND_SECONDS_MAX,
    ) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        resource = Resource.create({"service.name": part}).merge(OTELResourceDetector().detect())
        limits = SpanLimits(max_links=LINKS_MAX)
        self._provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, span_limits=limits)
        self._exporter = Exporter(endpoint, send_seconds_max)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter,
                max_queue_size=queue_spans_max,
                max_export_batch_size=min(queue_spans_max, BATCH_SPANS_MAX),
            )
        )
        self._tracer = self._provider.get_tracer("rowlock")

    def begin(self, name: str, kind: str, traceparent: str | None) -> Span:
        """A span of the given trace, or of a new one."""
        return self._tracer.start_span(name, _extracted(traceparent), SpanKind[kind.upper()])

    def begin_child(self, name: str, kind: str, parent: Span) -> Span:
        """A span below another span of this process."""
        return self._tracer.start_span(name, set_span_in_context(parent, Context()), SpanKind[kind.upper()])

    def link(self, span: Span, traceparent: str) -> None:
        """Links the span to a span of another trace."""
        span.add_link(get_current_span(_extracted(traceparent)).get_span_context())

    def fail(self, span: Span, error_type: str) -> None:
        """Marks the span as failed."""
        span.set_attribute("error.type", error_type)
        span.set_status(StatusCode.ERROR)

    def traceparent(self, span: Span) -> str:
        """The span's header, with which another process continues the trace."""
        carrier: dict[str, str] = {}
        propagator.inject(carrier, set_span_in_context(span, Context()))
        return carrier[HEADER]

    async def close(self, seconds_max: float = CLOSE_SECONDS_MAX) -> None:
        """Sends the recorded spans, and gives up after `seconds_max` even if the receiver never answers."""
        ending = threading.Thread(target=self._provider.shutdown, name="traces-end", daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, seconds_max)
        if ending.is_alive():
            log.warning("not all traces could be sent before the end")
            self._exporter.shutdown()


def _extracted(traceparent: str | None) -> Context:
    return propagator.extract({HEADER: traceparent}, Context()) if traceparent else Context()

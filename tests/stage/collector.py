"""A receiver of OTLP: an HTTP server that takes traces as a collector does, and keeps them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.stage.waiting import until


@dataclass(frozen=True, slots=True)
class Received:
    """A received span. Its ids are in hex; `links` are pairs of (trace, span)."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    seconds: float
    attributes: dict[str, Any]
    links: list[tuple[str, str]]
    failed: bool


@dataclass(slots=True)
class Collector:
    """Its URL, and the spans received so far."""

    url: str
    spans: list[Received] = field(default_factory=list)
    pauses: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Answers no request during the block."""
        with self.pauses:
            yield

    def named(self, name: str) -> list[Received]:
        """The spans with this name."""
        return [span for span in self.spans if span.name == name]

    def trace(self, id_: str) -> list[Received]:
        """The spans of a trace."""
        return [span for span in self.spans if span.trace == id_]

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Returns when the received spans fulfil the condition."""

        async def came() -> bool:
            return bool(condition())

        await until(came, f"{what} among {sorted(span.name for span in self.spans)}")


def ids_in(traceparent: str) -> tuple[str, str]:
    """The (trace, span) in the header of a sampled trace. Another flag marks random ids."""
    _, trace, span, flags = traceparent.split("-")
    assert int(flags, 16) & 1
    return trace, span


@contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    """Receives traces during the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
            with collector.pauses:
                collector.spans.extend(_decoded(body))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_arguments: object) -> None:
            """No log."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    running = threading.Thread(target=server.serve_forever, args=(0.02,))
    running.start()
    try:
        yield collector
    finally:
        server.shutdown()
        running.join()
        server.server_close()


def _decoded(body: bytes) -> Iterator[Received]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = _values(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Received(
                    service,
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                    _values(span.attributes),
                    [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                    span.status.code == span.status.STATUS_CODE_ERROR,
                )


def _values(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}

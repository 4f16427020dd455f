"""Traces: which traceparent is one (W3C Trace Context), and a span for each request where OpenTelemetry is set up.

    pip install 'modelport[otel]'
    OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 modelport serve iris

Without an endpoint nothing of OpenTelemetry is imported, and a request pays for nothing but its own header.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelport import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.id_generator import IdGenerator

_TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(-.*)?")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


@dataclass(frozen=True, slots=True)
class Trace:
    """Where a request stands in a trace, as traceparent headers; both are empty where it came without one."""

    parent: bytes
    """The caller's span."""
    own: bytes
    """What goes out: the span of the request, or the caller's where no spans are made."""


NO_TRACE = Trace(b"", b"")


def traceparent(given: bytes) -> bytes:
    """A traceparent header as it is passed on: in version 00, which a later one can be read as; b"" for what is none.

    https://www.w3.org/TR/trace-context/#traceparent-header
    """
    match = _TRACEPARENT.fullmatch(given)
    if match is None or (match[1] == b"00" and match[3]):
        return b""
    return b"00-" + match[2]


def from_environment(environment: Mapping[str, str], told: Callable[[str], None]) -> Tracer | None:
    """A tracer, if the environment names an endpoint for OTLP over HTTP, as the OpenTelemetry specification has it.

    `told` is called with the reason when spans cannot be sent there: platforms set these variables for every container, and a model must
    not be down for want of spans.
    """
    if not any(environment.get(name) for name in _ENDPOINTS) or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if environment.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return None
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        told(f"no spans are sent: OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}, and only http/protobuf is spoken")
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        told(f"no spans are sent: pip install 'modelport[otel]' ({error})")
        return None
    named = "OTEL_SERVICE_NAME" in environment or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {"service.name": "modelport"})
    ids = _ids()
    provider = TracerProvider(resource=resource, id_generator=ids, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracer(provider, ids)


class Tracer:
    """Makes a span of each request, once it is answered; which are kept is for OpenTelemetry's sampler to say."""

    def __init__(self, provider: TracerProvider, ids: Any) -> None:
        self._provider, self._ids = provider, ids
        self._tracer = provider.get_tracer("modelport", __version__)

    def own(self, parent: bytes) -> bytes:
        """The traceparent that the answer to a request with `parent` has: the same trace, and the span that this request will be."""
        return b"%b-%016x-%b" % (parent[:35], random.getrandbits(64) or 1, parent[53:])

    def request(
        self, *, method: str, path: str, route: str, status: int, seconds: float, attributes: Mapping[str, Any], trace: Trace
    ) -> None:
        """A request that was just answered."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        end_ns = time.time_ns()
        self._ids.next_span = int(trace.own[36:52], 16) if trace.own else 0
        span = self._tracer.start_span(
            f"{method} {path}" if route == "predict" else f"{method} {route}",
            context=_context(trace.parent),
            kind=SpanKind.SERVER,
            start_time=end_ns - round(seconds * 1e9),
            attributes={"http.request.method": method, "url.path": path, "http.response.status_code": status, **attributes},
        )
        if status >= 500:
            span.set_attribute("error.type", str(status))
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_ns)

    def close(self, timeout_s: float = 2.0) -> bool:
        """Send what is left; False when the endpoint does not take it in time. The process can end in any case."""
        # shutdown() tries again and again when nobody is there
        ending = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        ending.start()
        ending.join(timeout_s)
        return not ending.is_alive()


def _context(parent: bytes) -> Context:
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    if not parent:
        return Context()
    trace_id, span_id, flags = (int(part, 16) for part in parent.split(b"-")[1:])
    caller = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return set_span_in_context(NonRecordingSpan(caller), Context())


def _ids() -> IdGenerator:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        """Gives the span the id that the answer's header has named already."""

        next_span = 0

        def generate_span_id(self) -> int:
            chosen, self.next_span = self.next_span, 0
            return chosen or super().generate_span_id()

    return Ids()

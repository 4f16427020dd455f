"""Traces: which traceparent is taken, what goes out, and the spans that a real receiver of OTLP gets."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from modelport.serving.tracing import from_environment, traceparent
from serving_world import FLOWER, Live, live, make_service

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{CALLER}-01"


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        (PARENT, PARENT),
        (f"00-{TRACE}-{CALLER}-00", f"00-{TRACE}-{CALLER}-00"),
        (f"cc-{TRACE}-{CALLER}-01", PARENT),
        (f"cc-{TRACE}-{CALLER}-01-what-will-be", PARENT),
        (f"cc-{TRACE}-{CALLER}-01.what-will-be", ""),
        (f"00-{TRACE}-{CALLER}-01-more", ""),
        (f"ff-{TRACE}-{CALLER}-01", ""),
        (f"00-{'0' * 32}-{CALLER}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (PARENT.upper(), ""),
        (PARENT + "\n", ""),
        (PARENT[:-1], ""),
        ("", ""),
        ("00", ""),
    ],
)
def test_what_is_no_traceparent_is_not_passed_on(given: str, passed_on: str) -> None:
    assert traceparent(given.encode()) == passed_on.encode()


@given(st.binary(max_size=80))
def test_what_is_passed_on_is_always_one(header: bytes) -> None:
    passed_on = traceparent(header)
    assert passed_on == b"" or traceparent(passed_on) == passed_on


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_without_an_endpoint_there_are_no_spans(environment: dict[str, str]) -> None:
    told: list[str] = []
    assert from_environment(environment, told.append) is None
    assert told == []


def test_a_protocol_that_is_not_spoken_is_told_and_the_service_goes_on() -> None:
    told: list[str] = []
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert from_environment(environment, told.append) is None
    assert told == ["no spans are sent: OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc', and only http/protobuf is spoken"]


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported() -> None:
    code = "import sys, modelport.serving.worker, modelport.serving.supervisor; print([one for one in sys.modules if 'opentel' in one])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env={})
    assert ended.stdout == "[]\n"


def test_where_opentelemetry_is_not_installed_that_is_told_and_the_service_goes_on() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from modelport.serving.tracing import from_environment\n"
        "print(from_environment({'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://127.0.0.1:9'}, print))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env={})
    assert ended.stdout.startswith("no spans are sent: pip install 'modelport[otel]' (")
    assert ended.stdout.endswith("None\n")


def test_without_spans_the_callers_own_traceparent_goes_out_and_into_the_log() -> None:
    with live(make_service()) as running, running.client() as client:
        for path in ("/predict", "/v1/models/iris:predict"):
            body: Any = FLOWER if path == "/predict" else {"instances": [FLOWER]}
            assert client.post(path, json=body, headers={"traceparent": PARENT}).headers["traceparent"] == PARENT
            assert "traceparent" not in client.post(path, json=body, headers={"traceparent": "00-nonsense"}).headers
            assert "traceparent" not in client.post(path, json=body).headers
        assert "traceparent" not in client.get("/livez", headers=[("traceparent", PARENT), ("traceparent", PARENT)]).headers
    entries = running.log.entries()
    assert [entry.get("traceparent") for entry in entries] == [PARENT, None, None] * 2 + [None]


# Spans


@dataclass
class Receiver:
    """Where spans are sent to."""

    url: str
    spans: list[Span] = field(default_factory=list)
    resources: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def receiver() -> Iterator[Receiver]:
    """An endpoint for OTLP over HTTP (https://opentelemetry.io/docs/specs/otlp/#otlphttp)."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            for resource in request.resource_spans:
                received.resources.append({one.key: one.value.string_value for one in resource.resource.attributes})
                for scope in resource.scope_spans:
                    received.spans.extend(scope.spans)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received = Receiver(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def traced(monkeypatch: pytest.MonkeyPatch, endpoint: str, **environment: str) -> Iterator[Live]:
    """A service that sends spans to `endpoint`."""
    for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **environment}.items():
        monkeypatch.setenv(name, value)
    with live(make_service()) as running:
        yield running


def attributes(span: Span) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_each_request_is_a_span_of_the_callers_trace_which_the_answer_and_the_log_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as received:
        with traced(monkeypatch, received.url) as running, running.client() as client:
            headers = {"traceparent": PARENT, "X-Request-Id": "an-id"}
            fast = client.post("/predict", json=[FLOWER] * 2, headers=headers).headers["traceparent"]
            slow = client.post("/predict", json=FLOWER, headers=headers | {"Accept": "text/csv"}).headers["traceparent"]
            root = client.post("/predict", json=FLOWER)
            refused = client.post("/predict", json={}, headers=headers).headers["traceparent"]
            client.get("/livez")
            assert "traceparent" not in root.headers
        assert [entry.get("traceparent") for entry in running.log.entries()] == [fast, slow, None, refused, None]
    assert received.resources[0]["service.name"] == "modelport"
    spans = {span.span_id.hex(): span for span in received.spans}
    assert len(spans) == 4, "health is not traced"
    for header in (fast, slow, refused):
        version, trace, own, flags = header.split("-")
        assert (version, trace, flags) == ("00", TRACE, "01")
        span = spans.pop(own)
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, CALLER)
        assert span.kind == Span.SpanKind.SPAN_KIND_SERVER
        assert span.end_time_unix_nano > span.start_time_unix_nano
        assert span.name == "POST /predict"
        if header == fast:
            about = attributes(span)
            assert about.pop("modelport.validate_seconds") > 0
            assert about.pop("modelport.encode_seconds") > 0
            assert about == {
                "http.request.method": "POST", "url.path": "/predict", "http.route": "predict", "http.response.status_code": 200,
                "client.address": "127.0.0.1", "modelport.request_id": "an-id", "modelport.model": "iris:3", "modelport.rows": 2,
            }  # fmt: skip
        assert attributes(span)["http.response.status_code"] == (422 if header == refused else 200)
    ((_, alone),) = spans.items()
    assert alone.parent_span_id == b""
    assert alone.trace_id.hex() != TRACE


def test_a_failure_inside_is_an_error_in_its_span_and_the_callers_wish_not_to_be_traced_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as received:
        for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": received.url, "OTEL_SERVICE_NAME": "flowers"}.items():
            monkeypatch.setenv(name, value)

        def model(columns: Any) -> Any:
            raise RuntimeError("secret")

        with live(make_service(model, golden=False, warm=False)) as running, running.client() as client:
            unwanted = client.post("/predict", json=FLOWER, headers={"traceparent": PARENT[:-1] + "0"}).headers["traceparent"]
            assert client.post("/predict", json=FLOWER, headers={"traceparent": PARENT}).status_code == 500
    assert unwanted.endswith("-00")
    (span,) = received.spans
    assert span.status.code == Status.StatusCode.STATUS_CODE_ERROR
    assert attributes(span)["error.type"] == "500"
    assert received.resources[0]["service.name"] == "flowers"
    assert "secret" not in str(span)


def test_an_endpoint_that_is_not_there_hurts_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as gone:
        pass
    with traced(monkeypatch, gone.url) as running, running.client() as client:
        for _ in range(10):
            assert client.post("/predict", json=FLOWER, headers={"traceparent": PARENT}).status_code == 200


def test_spans_of_a_real_service_are_sent_before_its_processes_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as received:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.url)
        words = [sys.executable, "-c", "from modelport.cli.main import main; main()", "demo", "--port", "0", "--workers", "1"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        running = Live(f"http://127.0.0.1:{port}", port, None, None)  # type: ignore[arg-type]  what is behind it is in its process
        with running.client() as client:
            own = client.post("/predict", json=FLOWER, headers={"traceparent": PARENT}).headers["traceparent"]
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert [span.span_id.hex() for span in received.spans] == [own.split("-")[2]]

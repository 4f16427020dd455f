"""What the service counts: the numbers are right, no total ever goes back, and Prometheus' own parsers read what is exposed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from modelport.errors import UsageError
from modelport.serving import exporter
from modelport.serving.batching import Pace
from modelport.serving.metrics import FAMILIES, SECONDS, SHED_REASONS, SIZES, Metrics, Snapshot, Totals, expose, merge, of_processes
from modelport.serving.settings import Settings, hash_key
from modelport.serving.telemetry import ROUTES, route_of
from modelport.signature import Columns
from serving_world import FLOWER, by_petal, live, make_service

OPENMETRICS = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5"


@dataclass
class Known:
    """A model as metrics know it."""

    name: str = "iris"
    version: str = "3"
    digest: str = "sha256:ab"
    framework: str = "sklearn"
    engine_name: str = "onnx"
    waiting: tuple[int, float] = (0, 0.0)


def samples(text: str, parse: Callable[[str], Any] = parse_text) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of an exposition by its name and labels."""
    return {(one.name, frozenset(one.labels.items())): one.value for family in parse(text) for one in family.samples}


def value(text: str, name: str, **labels: str) -> float:
    return samples(text)[name, frozenset(labels.items())]


def counted(snapshot: Snapshot) -> dict[tuple[str, tuple[str, ...]], list[float]]:
    """The numbers of a snapshot that must never go back."""
    return {
        (name, tuple(labels)): list(numbers)
        for name, series in snapshot.items()
        if FAMILIES[name].kind != "gauge"
        for labels, numbers in series
    }


# Counting


def test_a_request_is_counted_once_in_each_family_it_belongs_to() -> None:
    metrics = Metrics([Known()])
    metrics.answered("iris", "predict", 200, 0.0003, 5, 0.00001, 0.00002)
    metrics.answered("iris", "predict", 422, 0.0001, -1, 0.0, 0.0)
    metrics.answered("", "health", 200, 99.0, -1, 0.0, 0.0)
    text = expose(metrics.snapshot())[0].decode()
    assert value(text, "modelport_requests_total", model="iris", route="predict", status="200") == 1
    assert value(text, "modelport_requests_total", model="iris", route="predict", status="422") == 1
    duration = {"model": "iris", "route": "predict", "status": "200"}
    assert value(text, "modelport_request_duration_seconds_bucket", **duration, le="0.0002") == 0
    assert value(text, "modelport_request_duration_seconds_bucket", **duration, le="0.0005") == 1
    assert value(text, "modelport_request_duration_seconds_sum", **duration) == 0.0003
    late = {"model": "", "route": "health", "status": "200"}
    assert value(text, "modelport_request_duration_seconds_bucket", **late, le="60.0") == 0
    assert value(text, "modelport_request_duration_seconds_bucket", **late, le="+Inf") == 1
    assert value(text, "modelport_request_rows_sum", model="iris") == 5
    assert value(text, "modelport_request_rows_count", model="iris") == 1
    assert value(text, "modelport_stage_duration_seconds_bucket", model="iris", stage="validate", le="1e-05") == 1
    assert value(text, "modelport_stage_duration_seconds_count", model="iris", stage="encode") == 1


def test_a_value_on_a_bound_is_in_the_bucket_below_it() -> None:
    metrics = Metrics([Known()])
    for bound in SECONDS:
        metrics.answered("iris", "predict", 200, bound, -1, 0, 0)
    text = expose(metrics.snapshot())[0].decode()
    for index, bound in enumerate(SECONDS):
        labels = {"model": "iris", "route": "predict", "status": "200", "le": str(bound)}
        assert value(text, "modelport_request_duration_seconds_bucket", **labels) == index + 1
    assert (SECONDS[0], SECONDS[-1]) == (0.0001, 60.0)


def test_calls_of_the_model_and_what_was_not_computed_are_counted() -> None:
    metrics = Metrics([Known(waiting=(7, 0.25))])
    of = metrics.models["iris"]
    of.batch(rows=24, requests=8, queue_s=0.003, predict_s=0.04)
    of.shed("wait")
    of.shed("wait")
    text = expose(metrics.snapshot())[0].decode()
    assert value(text, "modelport_batch_rows_sum", model="iris") == 24
    assert value(text, "modelport_batch_requests_bucket", model="iris", le="8.0") == 1
    assert value(text, "modelport_stage_duration_seconds_sum", model="iris", stage="queue") == 0.003
    assert value(text, "modelport_stage_duration_seconds_sum", model="iris", stage="predict") == 0.04
    shed = {reason: value(text, "modelport_requests_shed_total", model="iris", reason=reason) for reason in SHED_REASONS}
    assert shed == {"wait": 2, "full": 0, "expired": 0, "left": 0}
    assert value(text, "modelport_requests_waiting", model="iris") == 7
    assert value(text, "modelport_queue_age_seconds", model="iris") == 0.25
    assert value(text, "modelport_model_info", model="iris", version="3", digest="sha256:ab", framework="sklearn", engine="onnx") == 1


@given(st.text(st.sampled_from("/abcmodelspredictv12:.-_"), max_size=40) | st.text(max_size=40))
def test_whatever_path_is_asked_for_there_are_few_routes(path: str) -> None:
    assert route_of(path) in ROUTES
    assert route_of("/" + path) in ROUTES


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/predict", "predict"), ("/models/iris/predict", "predict"), ("/x/predict", "other"), ("/livez", "health"), ("/ping", "health"),
        ("/v2/health/ready", "health"), ("/v2/models/iris/infer", "v2"), ("/v1/models/iris:predict", "v1"), ("/invocations", "invocations"),
        ("/metrics", "metrics"), ("/", "page"), ("/models/iris/docs", "page"), ("/static/page.js", "page"), ("/wp-login.php", "other"),
    ],
)  # fmt: skip
def test_a_path_is_counted_by_its_kind(path: str, route: str) -> None:
    assert route_of(path) == route


# One truth for all workers


Event = tuple[int, str, int, float, int]
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from(["predict", "v1"]), st.sampled_from([200, 503]), st.sampled_from([0.0009765625, 0.5, 99.0]),
        st.integers(-1, 4),
    )
)  # fmt: skip


def tell(metrics: Metrics, event: Event) -> None:
    _, route, status, seconds, rows = event
    metrics.answered("iris", route, status, seconds, rows, 0.25, 0.5)
    metrics.models["iris"].batch(2, 1, 0.5, 0.25)


@given(EVENTS)
def test_the_sum_of_workers_is_what_one_would_have_counted(events: list[Event]) -> None:
    workers, alone, totals = [Metrics([Known()]) for _ in range(3)], Metrics([Known()]), Totals()
    for event in events:
        tell(workers[event[0]], event)
        tell(alone, event)
    for number, worker in enumerate(workers):
        totals.update(number, json.loads(json.dumps(worker.snapshot())))
    assert counted(totals.merged()) == counted(alone.snapshot())


@given(EVENTS, st.integers())
def test_no_total_goes_back_when_workers_die_and_others_take_their_place(events: list[Event], seed: int) -> None:
    chance, totals = random.Random(seed), Totals()
    workers = {number: Metrics([Known()]) for number in range(3)}
    names = iter(range(3, 10_000))
    before = counted(totals.merged())
    for event in events:
        name = list(workers)[event[0]]
        tell(workers[name], event)
        if chance.random() < 0.7:
            totals.update(name, workers[name].snapshot())
        if chance.random() < 0.3:
            del workers[name]
            totals.retire(name)
            workers[next(names)] = Metrics([Known()])
        after = counted(totals.merged())
        for key, numbers in before.items():
            assert all(new >= old for old, new in zip(numbers, after[key], strict=True)), key
        before = after


def test_what_a_dead_worker_counted_stays_and_its_gauges_leave() -> None:
    first, second, totals = Metrics([Known(waiting=(5, 2.0))]), Metrics([Known(waiting=(1, 3.0))]), Totals()
    first.in_flight.append(lambda: 7)
    second.in_flight.append(lambda: 2)
    first.answered("iris", "predict", 200, 0.001, 1, 0.1, 0.1)
    second.answered("iris", "predict", 200, 0.001, 1, 0.1, 0.1)
    totals.update("a", first.snapshot())
    totals.update("b", second.snapshot())
    outside = of_processes(restarts={"crash": 1}, workers={"ready": 2}, memory={"supervisor": 10, "worker-1": 20})
    text = expose(totals.merged(outside))[0].decode()
    assert value(text, "modelport_requests_in_flight") == 9
    assert value(text, "modelport_requests_waiting", model="iris") == 6
    assert value(text, "modelport_queue_age_seconds", model="iris") == 3
    assert value(text, "modelport_model_info", model="iris", version="3", digest="sha256:ab", framework="sklearn", engine="onnx") == 1
    assert value(text, "modelport_worker_restarts_total", reason="crash") == 1
    assert value(text, "modelport_workers", state="ready") == 2
    assert value(text, "modelport_resident_memory_bytes", process="worker-1") == 20
    totals.retire("a")
    text = expose(totals.merged())[0].decode()
    assert value(text, "modelport_requests_total", model="iris", route="predict", status="200") == 2
    assert value(text, "modelport_requests_in_flight") == 2
    assert value(text, "modelport_queue_age_seconds", model="iris") == 3
    totals.retire("b")
    totals.retire("never heard of")
    text = expose(totals.merged())[0].decode()
    assert value(text, "modelport_requests_total", model="iris", route="predict", status="200") == 2
    assert "modelport_requests_in_flight" not in text


def test_merging_changes_none_of_what_is_merged() -> None:
    metrics = Metrics([Known()])
    tell(metrics, (0, "predict", 200, 0.5, 1))
    snapshot = metrics.snapshot()
    text = json.dumps(snapshot)
    merge([snapshot, snapshot], snapshot)
    assert json.dumps(snapshot) == text


# Exposition


def test_both_forms_are_read_by_the_parsers_of_prometheus_and_say_the_same() -> None:
    metrics = Metrics([Known(), Known('with"quotes\\and\nlines')], lambda: {"written": 3, "sampled_out": 2, "dropped": 1})
    tell(metrics, (0, "predict", 200, 0.5, 1))
    everything = merge([metrics.snapshot(), of_processes(restarts={"hang": 1}, workers={"ready": 1}, memory={"worker": 1})], {})
    assert set(everything) == set(FAMILIES), "a family is documented and never given, or the other way round"
    plain, plain_type = expose(everything, "text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
    open_, open_type = expose(everything, OPENMETRICS)
    assert plain_type.startswith("text/plain; version=0.0.4")
    assert open_type.startswith("application/openmetrics-text; version=1.0.0")
    assert samples(plain.decode()) == samples(open_.decode(), parse_openmetrics)
    assert value(plain.decode(), "modelport_log_lines_total", fate="dropped") == 1
    for family in parse_openmetrics(open_.decode()):
        assert family.documentation


def test_names_and_units_are_as_prometheus_wants_them() -> None:
    for name, family in FAMILIES.items():
        assert name.startswith("modelport_")
        assert name.endswith("_total") == (family.kind == "counter")
        assert bool(family.bounds) == (family.kind == "histogram")
        assert list(family.bounds) == sorted(family.bounds)
        assert not {"job", "instance", "endpoint", "service", "pod", "namespace", "container"} & set(family.labels), "scrapers set these"
    assert list(SIZES) == sorted(SIZES)


# The service


def test_requests_of_both_ways_are_counted_and_the_metrics_need_the_key() -> None:
    with live(make_service(), keys=frozenset({hash_key("canary")})) as running, running.client() as client:
        key = {"X-API-Key": "canary"}
        for _ in range(3):
            client.post("/predict", json=FLOWER, headers=key)
        client.post("/predict", json=[FLOWER] * 2, headers=key | {"Accept": "text/csv"})
        client.post("/predict", json=FLOWER | {"petal_width": "wide"}, headers=key)
        client.post("/v1/models/iris:predict", json={"instances": [FLOWER]}, headers=key)
        assert client.get("/metrics").status_code == 401
        assert client.get("/livez").status_code == 200
        answer = client.get("/metrics", headers=key | {"Accept": OPENMETRICS})
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert samples(answer.text, parse_openmetrics)
        text = client.get("/metrics", headers=key).text
    assert value(text, "modelport_requests_total", model="iris", route="predict", status="200") == 4
    assert value(text, "modelport_requests_total", model="iris", route="predict", status="422") == 1
    assert value(text, "modelport_requests_total", model="iris", route="v1", status="200") == 1
    assert value(text, "modelport_requests_total", model="", route="metrics", status="401") == 1
    assert value(text, "modelport_requests_total", model="", route="health", status="200") == 1
    assert value(text, "modelport_request_rows_sum", model="iris") == 3 + 2 + 1
    assert value(text, "modelport_batch_rows_sum", model="iris") == 6
    assert value(text, "modelport_stage_duration_seconds_count", model="iris", stage="encode") == 5
    assert value(text, "modelport_workers", state="ready") == 1
    assert value(text, "modelport_resident_memory_bytes", process="worker") > 1e6
    assert "canary" not in text + running.log.getvalue()
    assert "5.1" not in text


def test_requests_that_wait_and_how_long_the_first_has_are_seen() -> None:
    entered, let_go = threading.Event(), threading.Event()

    def model(columns: Columns) -> Columns:
        if columns["petal_length"].max() > 5:
            entered.set()
            assert let_go.wait(30)
        return by_petal(columns)

    service = make_service(model)
    service.pace = Pace([(1, 0.01)])  # so it is called on a thread
    with live(service) as running, running.client() as client, ThreadPoolExecutor(4) as callers:
        calls = [callers.submit(client.post, "/predict", json=FLOWER | {"petal_length": 6.0})]
        assert entered.wait(30)
        calls += [callers.submit(client.post, "/predict", json=FLOWER) for _ in range(2)]
        try:
            text = ""
            while not text or value(text, "modelport_requests_waiting", model="iris") < 2:
                text = client.get("/metrics").text
            assert value(text, "modelport_requests_in_flight") == 4, "the scrape is one"
            assert value(text, "modelport_queue_age_seconds", model="iris") > 0
        finally:
            let_go.set()
        assert [call.result().status_code for call in calls] == [200] * 3


# --metrics-port


@pytest.fixture(name="port")
def _port() -> Iterator[int]:
    """Where an exporter listens."""

    async def totals() -> Snapshot:
        return of_processes(workers={"ready": 2})

    with Exporting(Settings(metrics_port=0, keys=frozenset({hash_key("k")})), totals) as port:
        yield port


class Exporting:
    """The exporter on a loop in a thread."""

    def __init__(self, settings: Settings, totals: Callable[[], Awaitable[Snapshot]]) -> None:
        listener = exporter.bind_metrics(settings)
        assert listener is not None
        self._listener, self._settings, self._totals = listener, settings, totals
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        server = self._loop.run_until_complete(exporter.serve(self._listener, self._settings, self._totals))
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def __enter__(self) -> int:
        self._thread.start()
        port: int = self._listener.getsockname()[1]
        return port

    def __exit__(self, *raised: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


def test_a_port_of_their_own_needs_no_key_and_answers_nothing_else(port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
        answer = client.get("/metrics")
        assert (answer.status_code, value(answer.text, "modelport_workers", state="ready")) == (200, 2)
        assert client.get("/metrics", headers={"Accept": OPENMETRICS}).text.endswith("# EOF\n")
        head = client.head("/metrics")
        assert (head.status_code, head.content) == (200, b"")
        assert client.get("/").json()["type"] == "urn:modelport:not-found"
        assert client.get("/predict").status_code == 404
        assert client.post("/metrics").status_code == 405
        assert client.get("/metrics", headers={"Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize("nonsense", [b"", b"\r\n\r\n", b"GET /metrics HTTP/1.1\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"GET " + b"x" * 10**5])
def test_nonsense_on_that_port_hurts_nobody(port: int, nonsense: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(nonsense)
        connection.shutdown(socket.SHUT_WR)
        try:
            said = b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionResetError:
            said = b""
    assert said == b"" or said.startswith(b"HTTP/1.1 4")
    assert httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=30).status_code == 200


def test_only_this_machine_reaches_that_port_unless_the_service_is_public() -> None:
    key = frozenset({hash_key("k")})
    for settings, address in [
        (Settings(metrics_port=0), "127.0.0.1"),
        (Settings(host="0.0.0.0", keys=key, metrics_port=0), "127.0.0.1"),
        (Settings(host="0.0.0.0", keys=key, public=True, metrics_port=0), "0.0.0.0"),
    ]:
        listener = exporter.bind_metrics(settings)
        assert listener is not None
        with listener:
            assert listener.getsockname()[0] == address
    assert exporter.bind_metrics(Settings()) is None
    with pytest.raises(UsageError, match="70000 is no port"):
        Settings(metrics_port=70000)


# Several workers


@contextmanager
def demo(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """`modelport demo` as a process, and what it says of itself when it listens."""
    words = [sys.executable, "-c", "from modelport.cli.main import main; main()", "demo", "--port", "0", *arguments]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate(timeout=60)


def scrape(port: int) -> str:
    """The metrics, over a connection of its own."""
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=30)
    assert answer.status_code == 200
    return answer.text


def predictions(text: str) -> float:
    return samples(text).get(
        ("modelport_requests_total", frozenset({"model": "iris", "route": "predict", "status": "200"}.items())), 0.0
    )  # fmt: skip


def test_every_worker_tells_the_same_truth_and_the_death_of_one_takes_nothing_from_it() -> None:
    with demo("--workers", "2", "--metrics-port", "0") as (process, serving):
        port, own_port = serving["port"], serving["metrics_port"]
        while value(scrape(own_port), "modelport_workers", state="ready") < 2:
            pass
        for _ in range(6):
            assert httpx.post(f"http://127.0.0.1:{port}/predict", json=FLOWER, trust_env=False, timeout=30).status_code == 200
        assert [predictions(scrape(asked)) for asked in (port, port, port, own_port)] == [6, 6, 6, 6]
        text = scrape(own_port)
        assert value(text, "modelport_resident_memory_bytes", process="supervisor") > 1e6
        assert value(text, "modelport_resident_memory_bytes", process="worker-2") > 1e6
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        while value(scrape(own_port), "modelport_worker_restarts_total", reason="killed") < 1:
            pass
        assert predictions(scrape(own_port)) == 6
        while value(scrape(own_port), "modelport_workers", state="ready") < 2:
            pass
        assert httpx.post(f"http://127.0.0.1:{port}/predict", json=FLOWER, trust_env=False, timeout=30).status_code == 200
        assert [predictions(scrape(asked)) for asked in (port, own_port)] == [7, 7]

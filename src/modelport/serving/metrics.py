"""What the service counts, and how Prometheus reads it.

A worker counts in plain numbers (`Metrics`), which cost a request less than a microsecond; a `Snapshot` of them is plain JSON. Whoever
watches over the workers adds their snapshots up (`Totals`), also those of workers that are gone, so that no total ever goes back; and
`expose` writes them in the form that the scraper asks for.
"""

from __future__ import annotations

import operator
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from modelport import __version__

if TYPE_CHECKING:
    from prometheus_client.core import Metric

SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)
"""The upper bounds of a latency's buckets."""
STAGE_SECONDS = (0.00001, 0.00002, 0.00005, *SECONDS)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0, 65536.0)
SHED_REASONS = ("wait", "full", "expired", "left")
STAGES = ("validate", "queue", "predict", "encode")

Snapshot: TypeAlias = dict[str, list[tuple[list[str], list[int | float]]]]
"""A family's name -> for each of its series the values of its labels, and its numbers: one, or those of a histogram (the count of each
bucket alone, of what is over the last bound, and the sum of what was observed). As JSON the same with lists for tuples."""


@dataclass(frozen=True, slots=True)
class Family:
    """Series of one name. Those of several processes are added, but for the largest of them where `largest` is set."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    largest: bool = False


FAMILIES = {
    "modelport_requests_total": Family(
        "counter",
        "Answered requests, by the model (empty where none was asked), the kind of path and the status; 499 is a caller who left.",
        ("model", "route", "status"),
    ),
    "modelport_request_duration_seconds": Family(
        "histogram", "From a request's last byte to its answer.", ("model", "route", "status"), SECONDS
    ),
    "modelport_request_rows": Family("histogram", "Rows of a request.", ("model",), SIZES),
    "modelport_batch_rows": Family("histogram", "Rows of a call of the model.", ("model",), SIZES),
    "modelport_batch_requests": Family("histogram", "Requests that shared a call of the model.", ("model",), SIZES),
    "modelport_stage_duration_seconds": Family(
        "histogram",
        "Where time goes: validate and encode of each request; predict of each call of the model; queue, the wait of its first request.",
        ("model", "stage"),
        STAGE_SECONDS,
    ),
    "modelport_requests_shed_total": Family(
        "counter",
        "Requests that were not computed: wait (their answer would have come too late), full (too many wait), expired (their time passed "
        "while they waited), left (their caller did).",
        ("model", "reason"),
    ),
    "modelport_requests_in_flight": Family("gauge", "Requests that have come and are not answered."),
    "modelport_requests_waiting": Family("gauge", "Requests that wait for a call of the model to begin.", ("model",)),
    "modelport_queue_age_seconds": Family(
        "gauge", "How long the request that waits longest has waited; 0 where none waits.", ("model",), largest=True
    ),
    "modelport_fetches_total": Family(
        "counter",
        "Pictures that callers named by their URL: ok, refused (by the URL itself), failed (what became of it stands in the log).",
        ("result",),
    ),
    "modelport_log_lines_total": Family(
        "counter",
        "Lines of the log: written, sampled_out (others stand for them), dropped (nobody took them, or writing failed).",
        ("fate",),
    ),
    "modelport_worker_restarts_total": Family("counter", "Workers that were replaced, by the reason.", ("reason",)),
    "modelport_workers": Family("gauge", "Worker processes, by their state.", ("state",)),
    "modelport_resident_memory_bytes": Family("gauge", "Resident memory of each process.", ("process",), largest=True),
    "modelport_model_info": Family(
        "gauge",
        "A model that is served, and what answers: onnx, native, or onnx+native, which is either by the size of a call; 1.",
        ("model", "version", "digest", "framework", "engine"),
        largest=True,
    ),
    "modelport_build_info": Family("gauge", "What serves; 1.", ("version", "python"), largest=True),
}
"""Everything that is measured, by name. The names and units are Prometheus' conventions (https://prometheus.io/docs/practices/naming/)."""


class Model(Protocol):
    """What is known of a model that is served; `modelport.serving.service.Service` has it."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def framework(self) -> str: ...
    @property
    def engine_name(self) -> str: ...
    @property
    def waiting(self) -> tuple[int, float]:
        """How many requests wait for it, and for how many seconds the first of them has."""
        ...


class Metrics:
    """What one worker counts. All methods are called on its loop."""

    def __init__(self, models: Sequence[Model] = (), log: Callable[[], Mapping[str, int]] = dict) -> None:
        self.models = {model.name: ModelMetrics(model) for model in models}
        self.in_flight: list[Callable[[], int]] = []
        """What knows of requests that have come and are not answered, and is asked how many they are."""
        self._series: dict[tuple[str, str, int], tuple[list[float], ModelMetrics | None]] = {}
        """By model, route and status: how long answers took, and what else is counted of the model."""
        self._log = log
        self._fetches: dict[str, int] = {}

    def fetched(self, result: str) -> None:
        """A picture was fetched, or was not."""
        self._fetches[result] = self._fetches.get(result, 0) + 1

    def answered(self, model: str, route: str, status: int, seconds: float, rows: int, validate_s: float, encode_s: float) -> None:
        """A request was answered. Stages that it did not reach took 0 seconds; where no rows are known they are -1."""
        known = self._series.get((model, route, status))
        if known is None:
            known = self._series[model, route, status] = _histogram(SECONDS), self.models.get(model)
        durations, of = known
        durations[bisect_left(SECONDS, seconds)] += 1
        durations[-1] += seconds
        if rows > 0 and of is not None:
            numbers = of.rows
            numbers[bisect_left(SIZES, rows)] += 1
            numbers[-1] += rows
            numbers = of.validate
            numbers[bisect_left(STAGE_SECONDS, validate_s)] += 1
            numbers[-1] += validate_s
            if encode_s:
                numbers = of.encode
                numbers[bisect_left(STAGE_SECONDS, encode_s)] += 1
                numbers[-1] += encode_s

    def snapshot(self) -> Snapshot:
        """All that was counted so far, and the gauges as they are now."""
        durations = [([model, route, str(status)], list(numbers)) for (model, route, status), (numbers, _) in list(self._series.items())]
        snapshot: Snapshot = {
            "modelport_requests_total": [(labels, [sum(numbers[:-1])]) for labels, numbers in durations],
            "modelport_request_duration_seconds": durations,
            "modelport_requests_in_flight": [([], [sum(count() for count in self.in_flight)])],
            "modelport_fetches_total": [([result], [count]) for result, count in list(self._fetches.items())],
            "modelport_log_lines_total": [([fate], [count]) for fate, count in self._log().items()],
            "modelport_build_info": [([__version__, "{}.{}.{}".format(*sys.version_info)], [1])],
        }
        for model in self.models.values():
            for name, series in model.snapshot().items():
                snapshot.setdefault(name, []).extend(series)
        return snapshot


class ModelMetrics:
    """What is counted of one model: the Observer of its batcher (`modelport.serving.batching`), and the stages outside it."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.rows, self.batch_rows, self.batch_requests = _histogram(SIZES), _histogram(SIZES), _histogram(SIZES)
        self.validate, self.queue, self.predict, self.encode = (_histogram(STAGE_SECONDS) for _ in STAGES)
        self.shed_counts = dict.fromkeys(SHED_REASONS, 0)

    def batch(self, rows: int, requests: int, queue_s: float, predict_s: float) -> None:
        """A call is over."""
        for numbers, bounds, value in (
            (self.batch_rows, SIZES, rows),
            (self.batch_requests, SIZES, requests),
            (self.queue, STAGE_SECONDS, queue_s),
            (self.predict, STAGE_SECONDS, predict_s),
        ):
            numbers[bisect_left(bounds, value)] += 1
            numbers[-1] += value

    def shed(self, reason: str) -> None:
        """A request was not computed."""
        self.shed_counts[reason] = self.shed_counts.get(reason, 0) + 1

    def snapshot(self) -> Snapshot:
        model = self._model
        name = model.name
        waiting, age_s = model.waiting
        stages = zip(STAGES, (self.validate, self.queue, self.predict, self.encode), strict=True)
        return {
            "modelport_request_rows": [([name], list(self.rows))],
            "modelport_batch_rows": [([name], list(self.batch_rows))],
            "modelport_batch_requests": [([name], list(self.batch_requests))],
            "modelport_stage_duration_seconds": [([name, stage], list(numbers)) for stage, numbers in stages],
            "modelport_requests_shed_total": [([name, reason], [count]) for reason, count in list(self.shed_counts.items())],
            "modelport_requests_waiting": [([name], [waiting])],
            "modelport_queue_age_seconds": [([name], [age_s])],
            "modelport_model_info": [([name, model.version, model.digest, model.framework, model.engine_name], [1])],
        }


def of_processes(
    *, restarts: Mapping[str, int] | None = None, workers: Mapping[str, int] | None = None, memory: Mapping[str, int] | None = None
) -> Snapshot:
    """What is known from outside the workers: replaced ones by reason, their number by state, bytes of memory by process."""
    tables = {"modelport_worker_restarts_total": restarts, "modelport_workers": workers, "modelport_resident_memory_bytes": memory}
    return {name: [([label], [number]) for label, number in table.items()] for name, table in tables.items() if table}


class Totals:
    """The snapshots of all workers as one, whose counters never go back.

    Of a worker that is gone, what it had counted when it was last heard stays in the sum for ever, and its gauges leave it.
    """

    def __init__(self) -> None:
        self._latest: dict[Any, Snapshot] = {}
        self._retired: Snapshot = {}

    def update(self, worker: Any, snapshot: Snapshot) -> None:
        """What `worker` counted up to now."""
        self._latest[worker] = snapshot

    def retire(self, worker: Any) -> None:
        """`worker` is gone. A process that takes its place must have another name, or be told of only after this."""
        last = self._latest.pop(worker, {})
        self._retired = merge([{name: series for name, series in last.items() if FAMILIES[name].kind != "gauge"}], self._retired)

    def merged(self, *others: Snapshot) -> Snapshot:
        """The sum, with `others` added."""
        return merge([*self._latest.values(), *others], self._retired)


def merge(snapshots: Iterable[Snapshot], retired: Snapshot) -> Snapshot:
    """Snapshots as one: series of the same name and labels are added, or the largest is taken, as their family says."""
    sums: dict[str, dict[tuple[str, ...], list[int | float]]] = {}
    for snapshot in (retired, *snapshots):
        for name, series in snapshot.items():
            combine: Callable[[float, float], float] = max if FAMILIES[name].largest else operator.add
            known = sums.setdefault(name, {})
            for labels, numbers in series:
                key = tuple(labels)
                if key in known:
                    known[key] = [combine(one, other) for one, other in zip(known[key], numbers, strict=True)]
                else:
                    known[key] = list(numbers)
    return {name: [(list(labels), numbers) for labels, numbers in known.items()] for name, known in sums.items()}


def expose(snapshot: Snapshot, accept: str = "") -> tuple[bytes, str]:
    """A snapshot as Prometheus reads it, and its media type: the text format, or OpenMetrics for an Accept header that asks for it."""
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import CollectorRegistry

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(snapshot))
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


class _Collector:
    """A snapshot as prometheus_client wants to be given it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        for name, family in FAMILIES.items():
            if name in self._snapshot:
                yield _metric(name, family, self._snapshot[name])


def _metric(name: str, family: Family, series: list[tuple[list[str], list[int | float]]]) -> Metric:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.utils import floatToGoString

    if family.kind == "histogram":
        bounds = [*map(floatToGoString, family.bounds), "+Inf"]
        histogram = HistogramMetricFamily(name, family.help, labels=family.labels)
        for labels, numbers in sorted(series):
            histogram.add_metric(labels, list(zip(bounds, accumulate(numbers[:-1]), strict=True)), numbers[-1])
        return histogram
    metric = (CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily)(name, family.help, labels=family.labels)
    for labels, numbers in sorted(series):
        metric.add_metric(labels, numbers[0])
    return metric


def _histogram(bounds: Sequence[float]) -> list[float]:
    """Numbers of a histogram in which nothing was observed yet."""
    return [0] * (len(bounds) + 1) + [0.0]

"""What is told of each request once it is answered: counted, logged, traced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelport.serving.logs import Log
from modelport.serving.metrics import Metrics, Model
from modelport.serving.tracing import NO_TRACE, Trace, Tracer, traceparent


class Telemetry:
    """What a worker tells of its requests. Called on its loop."""

    def __init__(self, models: Sequence[Model], log: Log, tracer: Tracer | None, routes: Mapping[str, str]) -> None:
        self.log, self.tracer = log, tracer
        self.metrics = Metrics(models, lambda: log.counts)
        self._labels = {model.name: f"{model.name}:{model.version}" if model.version else model.name for model in models}
        self._routes = {"/predict": "predict", **{f"/models/{model.name}/predict": "predict" for model in models}, **routes}

    def trace(self, given: bytes) -> Trace:
        """The trace of a request, by its traceparent header."""
        parent = traceparent(given) if given else b""
        if not parent:
            return NO_TRACE
        return Trace(parent, self.tracer.own(parent) if self.tracer else parent)

    def answered(
        self,
        service: str,
        path: str,
        status: int,
        rows: int,
        seconds: float,
        validate_s: float,
        encode_s: float,
        request_id: str,
        client: str,
        trace: Trace,
        method: str = "POST",
    ) -> None:
        """A request was answered, or its caller left (499). `rows` is -1 where none are known."""
        route = self._routes.get(path) or route_of(path)
        self.metrics.answered(service, route, status, seconds, rows, validate_s, encode_s)
        one_in = self.log.sample(status)
        if one_in:
            self.log.request(
                request_id=request_id,
                method=method,
                path=path,
                status=status,
                seconds=seconds,
                rows=rows if rows >= 0 else None,
                model=self._labels.get(service, service),
                client=client,
                traceparent=trace.own.decode(),
                one_in=one_in,
            )
        if self.tracer is not None and (route not in ("health", "metrics") or trace.parent):
            attributes: dict[str, Any] = {"http.route": route, "client.address": client, "modelport.request_id": request_id}
            if service:
                attributes["modelport.model"] = self._labels.get(service, service)
            if rows >= 0:
                attributes["modelport.rows"] = rows
                attributes["modelport.validate_seconds"] = validate_s
                attributes["modelport.encode_seconds"] = encode_s
            self.tracer.request(method=method, path=path, route=route, status=status, seconds=seconds, attributes=attributes, trace=trace)

    def close(self) -> None:
        """Write and send what is left, within a few seconds."""
        if self.tracer is not None:
            self.tracer.close()
        self.log.close()


ROUTES = ("predict", "invocations", "v1", "v2", "page", "health", "metrics", "other")
"""The kinds of paths; the first four are predictions in Modelport's own form and those of other servers."""
_HEALTH = frozenset({"/livez", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready"})


def route_of(path: str) -> str:
    """The kind of a path: one of few words, whatever callers ask for."""
    if path.endswith("/predict"):
        return "predict" if path == "/predict" or path.startswith("/models/") else "other"
    if path in _HEALTH:
        return "health"
    if path.startswith("/v2"):
        return "v2"
    if path.startswith("/v1/"):
        return "v1"
    if path in ("/metrics", "/invocations"):
        return path[1:]
    if path in ("/", "/docs", "/openapi.json") or path.startswith(("/static/", "/models/")):
        return "page"
    return "other"

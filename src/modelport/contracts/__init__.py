"""The contracts of platforms that run services, played against one that runs: each asks as its platform would.

The sources: Modelport's own is DESIGN section 5. SageMaker https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html,
Vertex AI https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements, Cloud Run
https://cloud.google.com/run/docs/container-contract, Heroku https://devcenter.heroku.com/articles/container-registry-and-runtime, Knative
https://github.com/knative/specs/blob/main/specs/serving/runtime-contract.md, KServe https://kserve.github.io/website/docs/concepts/architecture/data-plane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from modelport.contracts.container import Container
from modelport.contracts.probe import (
    Check,
    Line,
    Probe,
    answers,
    as_csv,
    as_tensors,
    holds,
    is_plain,
    of_type,
    predictions,
    problem,
    refused,
    status,
    within,
)

_CONCURRENT = 80
"""Requests that Cloud Run sends an instance at once, where nothing else is said."""
_PROBE_S = 5
"""How long the probes of `modelport export knative` wait."""
_LARGEST_BYTES = 32 * 2**20
"""Of a request to Cloud Run over HTTP/1."""


@dataclass(frozen=True)
class Contract:
    """What one platform wants of a service."""

    container: Container
    ready: str
    """The path at which something else than a 5xx says that the service is ready."""
    play: Callable[[Probe], Iterator[Line]]


# The contracts


def _own(probe: Probe) -> Iterator[Line]:
    first, many = dict(probe.rows[0]), [dict(row) for row in probe.rows]
    yield probe.ask("GET /livez", "GET", "/livez", status(200))
    yield probe.ask("GET /readyz", "GET", "/readyz", status(200))
    about = {"Accept": "application/json"}
    named = holds(lambda told: bool(told["name"] and told["digest"] and told["signature"]), "name, digest and signature")
    yield probe.ask("GET / says what is served", "GET", "/", status(200), named, headers=about)
    described = holds(_is_described, "OpenAPI 3.1 with /predict")
    yield probe.ask("GET /openapi.json", "GET", "/openapi.json", status(200), described)
    yield probe.ask("GET /docs", "GET", "/docs", status(200), of_type("text/html"))
    yield probe.ask("GET /metrics", "GET", "/metrics", status(200), of_type("text/plain"))
    known = "its recorded answer" if probe.answers else "a record"
    yield probe.ask(f"POST /predict, a record: {known}", "POST", "/predict", status(200), answers(probe), json=first)
    each = f"POST /predict, a list of {len(many)}: in order"
    yield probe.ask(each, "POST", "/predict", status(200), answers(probe, len(many)), json=many)
    if is_plain(probe):
        text = as_csv(probe, header=True)
        yield probe.ask("POST /predict, CSV", "POST", "/predict", status(200), of_type("text/csv"), content=text, headers=_CSV)
    yield _request_id(probe)
    broken = {"content": b'{"cut', "headers": _JSON}
    yield probe.ask("JSON that does not parse: 400", "POST", "/predict", status(400), problem("malformed-body"), **broken)
    strange = {**first, "no-such-field": 1}
    yield probe.ask("an unknown field: 422", "POST", "/predict", status(422), problem("invalid-input"), json=strange)
    other = {"content": b"x", "headers": {"Content-Type": "application/x-unknown"}}
    yield probe.ask("an unknown type: 415", "POST", "/predict", status(415), problem("unsupported-media-type"), **other)
    yield probe.ask("an unknown path: 404", "GET", "/no-such-path", status(404), problem("not-found"))
    yield probe.ask("a wrong method: 405", "DELETE", "/predict", status(405), problem("method-not-allowed"))


def _is_described(told: Any) -> bool:
    return bool(told["openapi"].startswith("3.1") and told["paths"]["/predict"]["post"])


def _request_id(probe: Probe) -> Line:
    kept: Check = lambda answer: "" if answer.headers.get("x-request-id") == "check-42" else "expected the X-Request-Id that was sent"  # noqa: E731
    return probe.ask("X-Request-Id comes back", "GET", "/livez", kept, headers={"X-Request-Id": "check-42"})


def _sagemaker(probe: Probe) -> Iterator[Line]:
    first = dict(probe.rows[0])
    yield probe.ask("GET /ping: 200 within 2 s", "GET", "/ping", status(200), within(2))
    own = {"X-Amzn-SageMaker-Custom-Attributes": "trace=1", "Accept": "application/json"}
    yield probe.ask("POST /invocations, JSON", "POST", "/invocations", status(200), within(60), answers(probe), json=first, headers=own)
    if is_plain(probe):
        headless = {"content": as_csv(probe, header=False), "headers": _CSV}
        yield probe.ask("POST /invocations, CSV without a header", "POST", "/invocations", status(200), of_type("text/csv"), **headless)
    yield probe.ask("a body that does not parse: 4xx", "POST", "/invocations", refused, content=b"{", headers=_JSON)


def _vertex(probe: Probe) -> Iterator[Line]:
    health, predict = probe.health_route or "/ping", probe.predict_route or f"/v1/models/{probe.name}:predict"
    yield probe.ask(f"GET {health}: 200 within 10 s", "GET", health, status(200), within(10))
    small: Check = lambda answer: "" if len(answer.content) <= 1.5 * 2**20 else "expected at most 1.5 MB"  # noqa: E731
    asked = {"instances": [dict(row) for row in probe.rows], "parameters": {}}
    yield probe.ask(f"POST {predict}: predictions", "POST", predict, status(200), predictions(probe), small, json=asked)
    yield probe.ask("no instances: 4xx", "POST", predict, refused, json={"rows": []})


def _behind_a_router(host: str) -> Callable[[Probe], Iterator[Line]]:
    """What platforms want that bring requests from outside under a name of their own."""

    def play(probe: Probe) -> Iterator[Line]:
        first = dict(probe.rows[0])
        forwarded = {"Host": host, "X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Forwarded-Port": "443"}
        asked = {"json": first, "headers": forwarded}
        yield probe.ask(f"POST /predict as {host}", "POST", "/predict", status(200), answers(probe), within(30), **asked)
        yield probe.ask("GET /", "GET", "/", status(200), within(30), headers=forwarded)
        yield probe.ask("a body that does not parse: 4xx", "POST", "/predict", refused, content=b"{", headers={**_JSON, **forwarded})

    return play


def _cloudrun(probe: Probe) -> Iterator[Line]:
    yield from _behind_a_router("iris-abcdefghij-ew.a.run.app")(probe)
    yield _at_once(probe, _CONCURRENT)
    large = b" " * _LARGEST_BYTES
    yield probe.ask("a body of 32 MB gets an answer", "POST", "/predict", refused, content=large, headers=_JSON)


def _at_once(probe: Probe, count: int) -> Line:
    """Requests that come together are all answered."""
    what = f"{count} requests at once"
    with ThreadPoolExecutor(count) as threads:
        lines = list(threads.map(lambda _: probe.ask(what, "POST", "/predict", status(200), json=dict(probe.rows[0])), range(count)))
    failed = [line for line in lines if not line.passed]
    return failed[0] if failed else Line(what, True, "all answered with 200")


def _knative(probe: Probe) -> Iterator[Line]:
    kubelet = {"User-Agent": "kube-probe/1.33", "Connection": "close"}
    yield probe.ask("GET /readyz, as the probe asks", "GET", "/readyz", status(200), within(_PROBE_S), headers=kubelet)
    yield probe.ask("GET /livez, as the probe asks", "GET", "/livez", status(200), within(_PROBE_S), headers=kubelet)
    yield from _behind_a_router("iris.default.example.com")(probe)
    yield _at_once(probe, 20)


def _kserve(probe: Probe) -> Iterator[Line]:
    model = f"/v1/models/{probe.name}"
    yield probe.ask(f"v1: GET {model}", "GET", model, status(200), of_type("application/json"))
    asked = {"instances": [dict(row) for row in probe.rows]}
    yield probe.ask(f"v1: POST {model}:predict", "POST", f"{model}:predict", status(200), predictions(probe), json=asked)
    yield probe.ask("v1: an unknown model: 404", "POST", "/v1/models/no-such-model:predict", status(404), json=asked)
    yield probe.ask("v2: GET /v2", "GET", "/v2", status(200), holds(lambda told: bool(told["name"]), "the server's name"))
    yield probe.ask("v2: GET /v2/health/live", "GET", "/v2/health/live", status(200))
    yield probe.ask("v2: GET /v2/health/ready", "GET", "/v2/health/ready", status(200))
    model = f"/v2/models/{probe.name}"
    described = holds(lambda told: bool(told["name"] and told["inputs"] and told["outputs"]), "name, inputs and outputs")
    yield probe.ask(f"v2: GET {model}", "GET", model, status(200), described)
    yield probe.ask(f"v2: GET {model}/ready", "GET", f"{model}/ready", status(200))
    tensors = as_tensors(probe)
    if tensors:
        count = len(probe.rows)
        outputs = holds(lambda told: all(one["shape"][0] == count for one in told["outputs"]), f"outputs of {count} rows")
        own = holds(lambda told: told["model_name"] == probe.name and told["id"] == "42", "the model's name, and the id that was sent")
        whole = [status(200), own, outputs]
        yield probe.ask(f"v2: POST {model}/infer", "POST", f"{model}/infer", *whole, json={"id": "42", "inputs": tensors})
    nothing: dict[str, Any] = {"inputs": []}
    wrong = holds(lambda told: isinstance(told["error"], str), '{"error": "..."}')
    yield probe.ask("v2: no tensors: 4xx", "POST", f"{model}/infer", refused, wrong, json=nothing)


_JSON = {"Content-Type": "application/json"}
_CSV = {"Content-Type": "text/csv"}


_UNPRIVILEGED = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only", "--tmpfs", "/tmp")  # noqa: S108  a place in the container
_VERTEX = "/v1/endpoints/42/deployedModels/7"

CONTRACTS: Mapping[str, Contract] = {
    "modelport": Contract(Container(), "/readyz", _own),
    "sagemaker": Contract(Container(arguments=("serve",), start_s=480, stop_s=30), "/ping", _sagemaker),
    "vertex": Contract(
        Container(
            port=8090,
            environment={"AIP_HTTP_PORT": "8090", "AIP_HEALTH_ROUTE": _VERTEX, "AIP_PREDICT_ROUTE": f"{_VERTEX}:predict"},
            start_s=40,
        ),
        _VERTEX,
        _vertex,
    ),
    "cloudrun": Contract(
        Container(
            port=8082,
            environment={"PORT": "8082", "K_SERVICE": "iris", "K_REVISION": "iris-00001-abc", "K_CONFIGURATION": "iris"},
            start_s=240,
            amd64=True,
        ),
        "/",
        _cloudrun,
    ),
    "heroku": Contract(
        Container(
            port=34567, environment={"PORT": "34567", "DYNO": "web.1"}, flags=("--user", "54321:54321"), start_s=60, stop_s=30, amd64=True
        ),
        "/",
        _behind_a_router("iris-0123456789ab.herokuapp.com"),
    ),
    "knative": Contract(
        Container(
            environment={"PORT": "8080", "K_SERVICE": "iris", "K_REVISION": "iris-00001", "K_CONFIGURATION": "iris"},
            flags=("--user", "65532:65532", *_UNPRIVILEGED),
            stop_s=30,
        ),
        "/readyz",
        _knative,
    ),
    "kserve": Contract(Container(flags=("--user", "1000:0", *_UNPRIVILEGED), stop_s=30), "/v2/health/ready", _kserve),
}
"""By the platform's name; "modelport" is the service's own."""

"""Write docs/reference/ from the code, or with --check say which page is out of date."""

from __future__ import annotations

import inspect
import re
import sys
from importlib import resources
from pathlib import Path

import click

from modelport import errors, project
from modelport.cli.main import VERBS, modelport
from modelport.serving import metrics, telemetry

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "reference"
MADE = "<!-- Made from the code by `make docs`; `make lint` checks that it is up to date. -->"

ENVIRONMENT = {
    "AIP_HEALTH_ROUTE": "The path at which Vertex AI asks for health; answered as `/readyz`.",
    "AIP_HTTP_PORT": "The port that Vertex AI wants; used where neither --port nor PORT is given.",
    "AIP_PREDICT_ROUTE": 'The path at which Vertex AI sends `{"instances": [...]}`.',
    "HOME": "Where `~` is, for the store and the cache.",
    "KERAS_BACKEND": "What Keras computes with; else what its keras.json says, or what is installed, PyTorch first.",
    "KERAS_HOME": "Where Keras keeps its keras.json; `~/.keras` otherwise.",
    "MODELPORT_API_KEY": "The API key that requests must bring; several are separated by commas.",
    "MODELPORT_CACHE": "Where model files that are served directly are kept as bundles; `~/.cache/modelport` otherwise.",
    "MODELPORT_REF": "What `modelport serve` serves where it is not told.",
    "MODELPORT_REGISTRY_MIRROR": "A mirror of Docker Hub that `build` takes bases from: `https://mirror.example.com`.",
    "MODELPORT_STORE": "The store: a folder, or an fsspec URL such as `s3://bucket/models`; `~/.modelport` otherwise.",
    "MODELPORT_URL": "Where the service is, for modules that `modelport client` writes; `http://127.0.0.1:8000` otherwise.",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "Where spans of requests are sent by OTLP over HTTP, with `modelport[otel]`; none are made otherwise.",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "`http/protobuf`; with any other no spans are sent.",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "As OTEL_EXPORTER_OTLP_ENDPOINT, with the whole path.",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "As OTEL_EXPORTER_OTLP_PROTOCOL.",
    "OTEL_RESOURCE_ATTRIBUTES": "What OpenTelemetry says of the service with every span.",
    "OTEL_SDK_DISABLED": "`true`: no spans.",
    "OTEL_SERVICE_NAME": "The service's name in its spans; `modelport` otherwise.",
    "OTEL_TRACES_EXPORTER": "`none`: no spans.",
    "PIP_FIND_LINKS": "Where wheels lie beside the package index, as pip has it; UV_FIND_LINKS comes first.",
    "PIP_INDEX_URL": "The package index, as pip has it, for environments of old models; uv's own settings come first.",
    "PORT": "The port to listen on, where --port is not given.",
    "PYENV_ROOT": "Where pyenv keeps Pythons, for environments of old models; `~/.pyenv` otherwise.",
    "SOURCE_DATE_EPOCH": "The bundle's `created`, in seconds since 1970; the time of the git commit otherwise.",
    "SUBTITLE": "As --subtitle.",
    "TITLE": "As --title.",
    "UV_PYTHON_INSTALL_DIR": "Where uv keeps Pythons; `uv/python` in XDG_DATA_HOME otherwise.",
    "XDG_CACHE_HOME": "The folder of all caches, in which Modelport makes `modelport/`.",
    "XDG_DATA_HOME": "The folder of all programs' data, where uv keeps Pythons; `~/.local/share` otherwise.",
}
"""Every environment variable that the code reads; the check compares the names with the source."""

QUERIES = {
    "Requests a second": "sum by (model, status) (rate(modelport_requests_total[5m]))",
    "The latency that 99 % of the answers keep": "histogram_quantile(0.99, sum by (model, le) "
    '(rate(modelport_request_duration_seconds_bucket{route="predict", status="200"}[5m])))',
    "The share that fails": 'sum(rate(modelport_requests_total{status=~"5.."}[5m])) / sum(rate(modelport_requests_total[5m]))',
    "Predictions a second": "sum by (model) (rate(modelport_request_rows_sum[5m]))",
    "Rows of one call of the model, on average": "rate(modelport_batch_rows_sum[5m]) / rate(modelport_batch_rows_count[5m])",
    "Where the time goes": "rate(modelport_stage_duration_seconds_sum[5m]) / rate(modelport_stage_duration_seconds_count[5m])",
    "Whether the service is too small": "sum by (reason) (rate(modelport_requests_shed_total[5m])) > 0",
    "Whether workers die": "increase(modelport_worker_restarts_total[1h]) > 0",
}


def main() -> int:
    pages = {"cli.md": cli(), "errors.md": error_tree(), "settings.md": settings(), "http.md": http(), "metrics.md": metrics_page()}
    if "--check" in sys.argv:
        stale = [name for name, text in pages.items() if not (PAGES / name).is_file() or (PAGES / name).read_text() != text]
        for name in stale:
            print(f"docs/reference/{name} is out of date: run `make docs`")
        return 1 if stale else 0
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (PAGES / name).write_text(text)
    return 0


def cli() -> str:
    """The help of every verb, as `--help` prints it at 100 columns."""
    context = click.Context(modelport, info_name="modelport", terminal_width=100, max_content_width=100)
    parts = [f"# The command line\n\n{MADE}\n\n```text\n{modelport.get_help(context)}\n```"]
    for verb in VERBS:
        command = modelport.get_command(context, verb)
        assert command is not None
        inner = click.Context(command, info_name=verb, parent=context, terminal_width=100, max_content_width=100)
        parts.append(f"## {verb}\n\n```text\n{command.get_help(inner)}\n```")
    return "\n\n".join(parts) + "\n"


def error_tree() -> str:
    """Every class of errors.py with its exit code, HTTP status and sentence."""
    lines = [
        "# Errors",
        "",
        MADE,
        "",
        "The command line prints `error:` and `hint:` and exits with the code; HTTP answers with the status and",
        "`application/problem+json` (RFC 9457) whose `type` is `urn:modelport:<type>`. Exit codes: 0 done, 1 failed, 2 wrong use,",
        "3 refused by a gate.",
        "",
        "| class | type | exit code | status | raised |",
        "|---|---|---|---|---|",
    ]
    for value in vars(errors).values():
        if inspect.isclass(value) and issubclass(value, errors.ModelportError):
            sentence = " ".join(inspect.getdoc(value).split("\n\n")[0].split()) if value.__doc__ else ""
            lines.append(f"| `{value.__name__}` | `{value.code}` | {value.exit_code} | {value.status} | {sentence} |")
    return "\n".join(lines) + "\n"


def settings() -> str:
    """The environment variables and the keys of modelport.toml."""
    source = "\n".join(path.read_text() for path in sorted((ROOT / "src").rglob("*.py")))
    owners = "MODELPORT|AIP|XDG|KERAS|SOURCE|OTEL|PIP|PYENV|UV_PYTHON_INSTALL"
    used = set(re.findall(rf"""["']((?:{owners})_[A-Z_]+|[A-Z_]*PORT|[A-Z]*TITLE)["']""", source))
    serve = modelport.get_command(click.Context(modelport), "serve")
    assert serve is not None
    named = {one.envvar: one.name.replace("_", "-") for one in serve.params if isinstance(one.envvar, str) and one.name}
    flags = {variable: f"As --{flag} of `serve`." for variable, flag in named.items()}
    undocumented, unused = used - set(ENVIRONMENT) - set(flags), set(ENVIRONMENT) - used - {"HOME"}
    assert not undocumented, f"tools/reference.py does not document {sorted(undocumented)}"
    assert not unused, f"tools/reference.py documents {sorted(unused)}, which nothing reads"
    rows = [f"| `{name}` | {meaning} |" for name, meaning in sorted({**flags, **ENVIRONMENT}.items())]
    head = ["# Settings", "", MADE, "", "## Environment", "", "| variable | meaning |", "|---|---|", *rows, "", "## modelport.toml", ""]
    keys = f"Its keys: {', '.join(f'`{key}`' for key in project.KEYS)}."
    return "\n".join(head) + "\n" + (inspect.getdoc(project) or "").replace("\n    ", "\n    ") + "\n\n" + keys + "\n"


PATHS = {
    "/": "The page to a browser; to anything that asks for JSON: name, version, digest, signature, endpoints.",
    "/docs": "The API reference, with a form to try it. Works offline.",
    "/openapi.json": "The OpenAPI 3.1 document.",
    "/static/{file}": "The files of the two pages.",
    "/predict": "A record in, a record out; a list in, a list out; `text/csv` in, CSV out.",
    "/livez": "200 while the loop turns.",
    "/readyz": "200 once the golden rows are reproduced, and until it is told to stop.",
    "/metrics": "What all workers have counted, for Prometheus: [metrics](metrics.md).",
    "/ping": "As `/readyz`, for Amazon SageMaker.",
    "/invocations": "As `/predict`, for Amazon SageMaker; CSV may come without a header.",
    "/models/{name}": "What GET / says, of one of several models.",
    "/models/{name}/": "The page of one of several models.",
    "/models/{name}/docs": "The API reference of one of several models.",
    "/models/{name}/openapi.json": "The OpenAPI document of one of several models.",
    "/models/{name}/static/{file}": "The files of the two pages.",
    "/models/{name}/predict": "As `/predict`, for one of several models.",
    "/v1/models/{name}": "TensorFlow Serving: the model's state.",
    "/v1/models/{name}/versions/{version}": "TensorFlow Serving: the model's state.",
    "/v1/models/{name}:predict": 'TensorFlow Serving: `{"instances": [...]}` in, `{"predictions": [...]}` out.',
    "/v1/models/{name}/versions/{version}:predict": "TensorFlow Serving: the same.",
    "/v2": "Open Inference Protocol: the server's metadata.",
    "/v2/": "Open Inference Protocol: the server's metadata.",
    "/v2/health/live": "Open Inference Protocol: as `/livez`.",
    "/v2/health/ready": "Open Inference Protocol: as `/readyz`.",
    "/v2/models/{name}": "Open Inference Protocol: the model's metadata.",
    "/v2/models/{name}/ready": "Open Inference Protocol: whether the model is ready.",
    "/v2/models/{name}/infer": "Open Inference Protocol: tensors in, tensors out.",
    "/v2/models/{name}/versions/{version}": "Open Inference Protocol: the model's metadata.",
    "/v2/models/{name}/versions/{version}/ready": "Open Inference Protocol: whether the model is ready.",
    "/v2/models/{name}/versions/{version}/infer": "Open Inference Protocol: tensors in, tensors out.",
}
"""Every path of a service; the check compares them with its routes."""
HEADERS = {
    "Authorization": "in: `Bearer KEY`, where the service has keys; or `X-API-Key: KEY`",
    "X-Request-Id": "in and out: the caller's own, or a UUID of version 7",
    "X-Model": "out: name, version and digest of the model that answered",
    "traceparent": "in and out: W3C Trace Context; the caller's own, or the span made of the request where spans are sent",
    "Retry-After": "out, with 503: seconds",
}


def http() -> str:
    """The paths of a service with their methods, from its routes."""
    from modelport import engines
    from modelport.bundle import open_bundle
    from modelport.serving.app import create_app
    from modelport.serving.service import Service
    from modelport.serving.settings import Settings

    with resources.as_file(resources.files("modelport") / "demo") as folder:
        bundle = open_bundle(folder)
        routes = create_app([Service(bundle.name, "", bundle, engines.load(bundle))], Settings()).methods
    missing, gone = set(routes) - set(PATHS), set(PATHS) - set(routes)
    assert not missing, f"tools/reference.py does not document {sorted(missing)}"
    assert not gone, f"tools/reference.py documents {sorted(gone)}, which is no path"
    lines = ["# HTTP", "", MADE, "", "`/openapi.json` of a service describes its inputs and outputs; this page names all its paths.", ""]
    lines += ["| | path | |", "|---|---|---|"]
    lines += [f"| {', '.join(methods)} | `{path}` | {PATHS[path]} |" for path, methods in sorted(routes.items())]
    lines += [
        "",
        "A file of functions is asked at `POST /<function>`, and where all inputs of a function or a table are single values also at",
        "`GET /<function>?name=value&...`; with several models below `/models/<name>/`: [functions and tables](../functions.md).",
        "To the other protocols each function beside the first is a model of its own, called `<name>.<function>`.",
    ]
    lines += ["", "## Headers", "", "| header | |", "|---|---|", *(f"| `{name}` | {meaning} |" for name, meaning in HEADERS.items())]
    lines += ["", "Errors are problem documents (RFC 9457): see [errors](errors.md). The dialects answer in their own form."]
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    """Every family of metrics."""
    lines = [
        "# Metrics",
        "",
        MADE,
        "",
        "`GET /metrics` answers in the text format of Prometheus, or in OpenMetrics where the scraper asks for it. It needs the API key",
        "like every path that tells something; `--metrics-port` serves it on a port of its own too, without a key, which only this machine",
        "reaches unless the service is `--public`. Whichever worker is asked, the numbers are those of all of them, and no counter goes",
        "back when a worker dies or is replaced; what one that died had counted in its last second may be missing.",
        "",
        "| name | kind | labels | |",
        "|---|---|---|---|",
    ]
    for name, family in metrics.FAMILIES.items():
        labels = ", ".join(f"`{label}`" for label in family.labels)
        lines.append(f"| `{name}` | {family.kind} | {labels} | {family.help} |")
    lines += ["", "Bounds of the buckets:", ""]
    for title, bounds in (("latency", metrics.SECONDS), ("stages", metrics.STAGE_SECONDS), ("sizes", metrics.SIZES)):
        lines.append(f"- {title}: {', '.join(f'{bound:g}' for bound in bounds)}")
    lines += ["", "Routes: " + ", ".join(f"`{route}`" for route in telemetry.ROUTES) + ".", "", "## Questions to ask them", ""]
    for question, query in QUERIES.items():
        lines += [f"{question}:", "", f"    {query}", ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(main())

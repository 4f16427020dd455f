"""A service that runs, what it says of its model, and what an answer of it must be."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx

from modelport.engines import difference
from modelport.errors import ModelportError, Unavailable, UsageError
from modelport.signature import Signature

_TOLERANCE = 1e-4
"""How far an answer may be from the recorded one, where the bundle with its own tolerance is not at hand."""
_LONGEST = 200
_PLAIN = frozenset({"number", "integer", "boolean", "string", "category"})

Check: TypeAlias = Callable[[httpx.Response], str]
"""Says what is wrong with an answer; "" where nothing is."""


@dataclass(frozen=True)
class Line:
    """One line of the table: what was asked, whether the contract was kept, and what was answered."""

    what: str
    passed: bool
    said: str


@dataclass(frozen=True)
class Probe:
    """A service that runs, and what is known of its model."""

    http: httpx.Client
    name: str
    """The model's."""
    rows: Sequence[Mapping[str, Any]]
    """Records that the model takes, at least one."""
    answers: Sequence[Mapping[str, Any]] = ()
    """What it answers to them, where that is known."""
    tolerance: float = _TOLERANCE
    signature: Signature | None = None
    """None where the service does not say what its model takes."""
    health_route: str = ""
    """What Vertex AI is told as the health route; /ping where nothing is said."""
    predict_route: str = ""
    """What Vertex AI is told as the predict route; /v1/models/<name>:predict where nothing is said."""

    def ask(self, what: str, method: str, path: str, *checks: Check, **request: Any) -> Line:
        """Ask, and look at the answer."""
        begun = time.perf_counter()
        try:
            answer = self.http.request(method, path, **request)
        except httpx.HTTPError as error:
            return Line(what, False, f"no answer: {str(error) or type(error).__name__}")
        took = f"{answer.status_code} in {(time.perf_counter() - begun) * 1000:,.0f} ms"
        wrong = next(filter(None, (check(answer) for check in checks)), "")
        if not wrong:
            return Line(what, True, took)
        told = _parsed(answer)
        detail = str(told.get("detail") or told.get("error") or "") if isinstance(told, dict) and answer.status_code >= 400 else ""
        return Line(what, False, f"{took}: {wrong}{f' ({detail})' if detail else ''}"[:_LONGEST])


def learn(http: httpx.Client, *, name: str = "", rows: Sequence[Mapping[str, Any]] = ()) -> Probe:
    """What a service says of its model: its name, and records with the answers that they had. `name` and `rows` come first where given.

    UsageError where the service tells no example and none was given; Unavailable where it does not answer.
    """
    about = get_json(http, "/")
    signature = _signature(about)
    if rows:
        return Probe(http, name or about.get("name") or "model", rows, signature=signature)
    if signature is None:
        several = [one["name"] for one in about.get("models", ()) if isinstance(one, dict) and "name" in one]
        if several:
            raise UsageError(f"{http.base_url} serves several models: {', '.join(several)}", hint="Check a service of one model.")
        raise UsageError(f"{http.base_url} does not say what its model takes", hint="--example FILE names a JSON file with a record.")
    asked, answers = _examples(get_json(http, "/openapi.json"))
    if not asked or any(one.kind == "image" for one in signature.inputs):  # the document's picture is not the one with the answer
        asked, answers = [*asked, signature.example()][:1], []
    return Probe(http, name or about.get("name") or "model", asked, answers, signature=signature)


def get_json(http: httpx.Client, path: str) -> dict[str, Any]:
    """The object at a path; {} where there is none."""
    try:
        answer = http.get(path, headers={"Accept": "application/json"})
    except httpx.HTTPError as error:
        hint = "Is it running, and is the address right?"
        raise Unavailable(f"{http.base_url} does not answer: {str(error) or type(error).__name__}", hint=hint) from error
    if answer.status_code in (401, 403):
        raise UsageError(f"{http.base_url} wants an API key, or another", hint="MODELPORT_API_KEY in the environment is sent.")
    try:
        value = answer.json() if answer.status_code == 200 else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _signature(about: Mapping[str, Any]) -> Signature | None:
    raw = about.get("signature")
    if not isinstance(raw, dict):
        return None
    try:
        return Signature.from_dict(raw)
    except ModelportError:
        return None


def _examples(document: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """The records of an OpenAPI document's /predict, and the answers they had."""
    post: Any = document.get("paths", {}).get("/predict", {}).get("post", {})
    try:
        asked = post["requestBody"]["content"]["application/json"]["examples"]["many"]["value"]
        answers = post["responses"]["200"]["content"]["application/json"]["examples"]["many"]["value"]
    except (KeyError, TypeError):
        return [], []
    return list(asked), list(answers) if len(answers) == len(asked) else []


# What an answer must be


def status(*wanted: int) -> Check:
    """One of these statuses."""
    right = " or ".join(map(str, wanted))
    return lambda answer: "" if answer.status_code in wanted else f"expected {right}"


def refused(answer: httpx.Response) -> str:
    """The caller's mistake, said as such."""
    return "" if 400 <= answer.status_code < 500 else "expected a 4xx"


def within(seconds: float) -> Check:
    """Answered in so many seconds."""
    return lambda answer: "" if answer.elapsed.total_seconds() <= seconds else f"expected within {seconds:g} s"


def of_type(wanted: str) -> Check:
    """Of this content type."""

    def check(answer: httpx.Response) -> str:
        given = answer.headers.get("content-type", "")
        return "" if given.partition(";")[0].strip().lower() == wanted else f"its type is {given or 'not said'}, expected {wanted}"

    return check


def problem(code: str) -> Check:
    """A problem document (RFC 9457) of this type."""

    def check(answer: httpx.Response) -> str:
        told = _parsed(answer)
        kind = told.get("type") if isinstance(told, dict) else None
        return "" if kind == f"urn:modelport:{code}" else f"expected a problem of type urn:modelport:{code}"

    return check


def holds(wanted: Callable[[Any], bool], what: str) -> Check:
    """JSON of which `wanted` is true."""

    def check(answer: httpx.Response) -> str:
        try:
            return "" if wanted(_parsed(answer)) else f"expected {what}"
        except (KeyError, IndexError, TypeError, AttributeError):
            return f"expected {what}"

    return check


def answers(probe: Probe, count: int | None = None) -> Check:
    """The recorded answers to the first `count` rows in a list, or to the first row alone; where they are not known, answers at all."""

    def check(answer: httpx.Response) -> str:
        told = _parsed(answer)
        if count is None:
            if not isinstance(told, dict):
                return "expected a record"
            return difference(dict(probe.answers[0]), told, probe.tolerance) if probe.answers else ""
        if not isinstance(told, list) or len(told) != count:
            return f"expected a list of {count}"
        return difference([dict(one) for one in probe.answers[:count]], told, probe.tolerance) if probe.answers else ""

    return check


def predictions(probe: Probe) -> Check:
    """{"predictions": [...]} with one for each row; the recorded ones, where they are known."""

    def check(answer: httpx.Response) -> str:
        told = _parsed(answer)
        given = told.get("predictions") if isinstance(told, dict) else None
        if not isinstance(given, list) or len(given) != len(probe.rows):
            return f'expected {{"predictions": [{len(probe.rows)} of them]}}'
        if not probe.answers:
            return ""
        recorded = [dict(one) if len(one) > 1 else next(iter(one.values())) for one in probe.answers]
        return difference(recorded, given, probe.tolerance)

    return check


def _parsed(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except (ValueError, RecursionError):
        return None


# The rows in the forms of other protocols


def is_plain(probe: Probe) -> bool:
    """Whether a record of the model is a line of CSV."""
    return probe.signature is not None and all(one.kind in _PLAIN and not one.shape for one in probe.signature.inputs)


def as_csv(probe: Probe, *, header: bool) -> bytes:
    """The rows as CSV, in the order of the model's fields."""
    assert probe.signature is not None, "only where the fields are known"
    names = [one.name for one in probe.signature.inputs]
    out = io.StringIO()
    lines = csv.writer(out)
    if header:
        lines.writerow(names)
    for row in probe.rows:
        values = [row.get(name) for name in names]
        lines.writerow([value if isinstance(value, str) or value is None else json.dumps(value) for value in values])
    return out.getvalue().encode()


def as_tensors(probe: Probe) -> list[dict[str, Any]]:
    """The rows as tensors of the Open Inference Protocol, as the model's metadata want them; none where the rows have gaps."""
    told = get_json(probe.http, f"/v2/models/{probe.name}").get("inputs")
    if not isinstance(told, list):
        return []
    tensors = []
    for one in told:
        values = [row.get(one["name"]) for row in probe.rows]
        if any(value is None for value in values):
            return []
        texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
        shape = [len(values), *_shape(values[0])]
        data = texts if one["datatype"] == "BYTES" else values
        tensors.append({"name": one["name"], "datatype": one["datatype"], "shape": shape, "data": data})
    return tensors


def _shape(value: Any) -> list[int]:
    return [len(value), *_shape(value[0])] if isinstance(value, list) and value else []

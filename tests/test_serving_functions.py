"""The functions of a file are asked at paths of their own, by POST and by GET, and are told apart in all that is counted and said."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from textwrap import dedent

import httpx
import pytest
from openapi_spec_validator import validate

from modelport import Client, engines
from modelport.client_source import client_source
from modelport.errors import InvalidInput
from modelport.packing import Options, pack_file
from modelport.serving.control import Model, fingerprint
from modelport.serving.service import Service, services_of
from serving_world import Live, live, make_service

SOURCE = '''
    """Two functions."""
    from dataclasses import dataclass
    from datetime import date
    from typing import Annotated, Literal

    from modelport import InvalidInput
    from msgspec import Meta

    @dataclass
    class Point:
        day: int
        count: float

    def predict(region: Literal["north", "south"], days: Annotated[int, Meta(ge=0, le=1000)] = 2, label: str | None = None) -> list[Point]:
        """The curve of a region.

        Args:
            region: where
            days: how long
        """
        if region == "south" and days == 13:
            raise InvalidInput("days", "nothing is known of day 13 in the south")
        if days == 666:
            raise RuntimeError("secret")
        return [Point(day, 2.0 * day) for day in range(days)]

    def peak(region: str = "north", since: date = date(2024, 1, 1), exact: bool = False) -> float:
        """When it is highest."""
        return 0.5 if exact else float(since.year)

    def total(counts: list[float]) -> float:
        return sum(counts)
'''


def serve(source: str = SOURCE, name: str = "growth") -> list[Service]:
    folder = Path(tempfile.mkdtemp(prefix="modelport-test-"))
    (folder / "service.py").write_text(dedent(source), encoding="utf-8")
    (folder / "bundle").mkdir()
    bundle = pack_file(folder / "service.py", folder / "bundle", Options(name=name))
    loaded = services_of(name, "3", bundle, engines.load(bundle))
    for service in loaded:
        service.warm_up()
    return loaded


@pytest.fixture(scope="module")
def growth() -> Iterator[Live]:
    with live(serve()) as server:
        yield server


@pytest.fixture(scope="module")
def client(growth: Live) -> Iterator[httpx.Client]:
    with growth.client() as http:
        yield http


TWO = [{"day": 0, "count": 0.0}, {"day": 1, "count": 2.0}]


def test_each_function_has_a_path(client: httpx.Client) -> None:
    for base in ("", "/models/growth"):
        assert client.post(f"{base}/predict", json={"region": "north"}).json() == {"prediction": TWO}
        assert client.post(f"{base}/peak", json={}).json() == {"peak": 2024.0}
        assert client.post(f"{base}/peak", json=[{}, {"since": "2020-05-05"}]).json() == [{"peak": 2024.0}, {"peak": 2020.0}]
        assert client.post(f"{base}/total", json={"counts": [1, 2.5]}).json() == {"total": 3.5}


def test_simple_functions_are_asked_by_get(client: httpx.Client) -> None:
    for base in ("", "/models/growth"):
        assert client.get(f"{base}/predict?region=north").json() == {"prediction": TWO}
        assert client.get(f"{base}/peak?since=2021-01-01&exact=false&region=caf%C3%A9+1").json() == {"peak": 2021.0}
        assert client.get(f"{base}/peak").json() == {"peak": 2024.0}
        answer = client.get(f"{base}/total?counts=1")
        assert (answer.status_code, answer.json()["detail"]) == (405, f"{base}/total takes POST, OPTIONS, not GET")
    answer = client.get("/peak", headers={"Accept": "text/csv"})
    assert (answer.headers["content-type"], answer.text) == ("text/csv; charset=utf-8", "peak\r\n2024.0\r\n")
    assert client.get("/peak").headers["cache-control"] == "no-store"
    assert client.head("/peak").status_code == 200


WRONG_QUERIES = {
    "": [("/region", "is missing")],
    "region=north&days=2.5": [("/days", "expected an integer, got the number 2.5")],
    "region=north&days=true": [("/days", 'expected an integer, got the string "true"')],
    "region=north&days=": [("/days", 'expected an integer, got the string ""')],
    "region=west&days=-1": [
        ("/region", 'expected one of "north", "south", got the string "west"'),
        ("/days", "expected an integer of at least 0, got -1"),
    ],
    "region=north&dayz=1": [("/dayz", 'there is no field "dayz"; did you mean "days"?')],
    "region=north&days=1&days=2": [("/days", "stands twice in the query")],
    "region=south&days=13": [("/days", "nothing is known of day 13 in the south")],
}


@pytest.mark.parametrize("query", WRONG_QUERIES)
def test_a_query_is_typed_as_strictly_as_a_cell(query: str, client: httpx.Client) -> None:
    answer = client.get(f"/predict?{query}")
    assert answer.status_code == 422
    assert [(wrong["pointer"], wrong["detail"]) for wrong in answer.json()["errors"]] == WRONG_QUERIES[query]


@pytest.mark.parametrize("query", ["region=%FF", "region=north&" + "&".join(f"a{index}=" for index in range(1100))])
def test_a_query_that_does_not_parse_is_refused(query: str, client: httpx.Client) -> None:
    answer = client.get(f"/predict?{query}")
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:modelport:malformed-body")


def test_what_a_function_raises_for_its_caller_names_the_place_in_the_body(client: httpx.Client) -> None:
    answer = client.post("/predict", json=[{"region": "north"}, {"region": "south", "days": 13}])
    assert answer.status_code == 422
    assert [wrong["pointer"] for wrong in answer.json()["errors"]] == ["/1/days"]


def test_what_else_it_raises_stands_in_the_log_only(growth: Live, client: httpx.Client) -> None:
    answer = client.post("/predict", json={"region": "north", "days": 666}, headers={"X-Request-Id": "the-bad-one"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["request_id"] == "the-bad-one"
    failures = [entry for entry in growth.log.entries() if entry["event"] == "failure" and entry["request_id"] == "the-bad-one"]
    assert len(failures) == 1
    assert 'RuntimeError("secret")' in failures[0]["traceback"]
    assert "service.py" in failures[0]["traceback"]


def test_a_bad_call_fails_alone_among_those_that_came_with_it(growth: Live) -> None:
    rows = [{"region": "south", "days": 13 if index % 7 == 3 else 1} for index in range(40)]
    bodies = [json.dumps(row).encode() for row in rows]
    heads = [
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        for body in bodies
    ]
    closing = [b""] * 39 + [b"Connection: close\r\n"]
    answers = growth.raw(b"".join(head + end + b"\r\n" + body for head, end, body in zip(heads, closing, bodies, strict=True)))
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]+) ", answers)]
    assert statuses == [422 if index % 7 == 3 else 200 for index in range(40)]


def test_functions_speak_the_other_protocols_under_the_models_name_and_theirs(client: httpx.Client) -> None:
    tensors = {"inputs": [{"name": "region", "shape": [1], "datatype": "BYTES", "data": ["north"]}]}
    answer = client.post("/v2/models/growth/infer", json=tensors).json()["outputs"][0]
    assert (answer["datatype"], answer["shape"], json.loads(answer["data"][0])) == ("BYTES", [1], TWO)
    answer = client.post("/v2/models/growth.peak/infer", json=tensors).json()["outputs"][0]
    assert answer == {"name": "peak", "shape": [1], "datatype": "FP64", "data": [2024.0]}
    assert client.post("/v1/models/growth.peak:predict", json={"instances": [{}]}).json() == {"predictions": [2024.0]}
    assert client.get("/v2/models/growth.peak").json()["name"] == "growth.peak"


def test_rows_of_lists_that_differ_in_length_are_no_tensor() -> None:
    with live(serve("def predict(n: int) -> list[float]:\n    return [1.0] * n\n")) as server, server.client() as http:
        about = http.get("/v2/models/growth").json()["outputs"]
        assert about == [{"name": "prediction", "datatype": "BYTES", "shape": [-1]}]
        tensors = {"inputs": [{"name": "n", "shape": [2], "datatype": "INT64", "data": [1, 2]}]}
        answer = http.post("/v2/models/growth/infer", json=tensors).json()["outputs"][0]
        assert (answer["shape"], answer["data"]) == ([2], ["[1.0]", "[1.0,1.0]"])


def test_get_tells_of_all_functions(client: httpx.Client) -> None:
    about = client.get("/").json()
    assert about["description"] == "The curve of a region."
    assert [(one["name"], one["endpoint"], one["description"]) for one in about["functions"]] == [
        ("predict", "/predict", "The curve of a region."),
        ("peak", "/peak", "When it is highest."),
        ("total", "/total", ""),
    ]
    assert about["functions"][0]["signature"] == about["signature"]
    assert client.get("/models/growth").json()["functions"][1]["endpoint"] == "/models/growth/peak"
    assert client.get("/nosuch").json()["hint"] == "Models are asked at /predict, /peak, /total."


def test_a_file_of_one_function_has_no_list_of_them() -> None:
    with live(serve("def growth(x: float) -> float:\n    return x\n")) as server, server.client() as http:
        assert "functions" not in http.get("/").json()
        for path in ("/growth", "/predict", "/models/growth/growth", "/invocations"):
            assert http.post(path, json={"x": 1}).json() == {"growth": 1.0}
        assert http.get("/growth?x=1").json() == {"growth": 1.0}


def test_several_models_keep_their_functions_below_their_names() -> None:
    with live([*serve(), make_service()]) as server, server.client() as http:
        assert http.post("/models/growth/peak", json={}).json() == {"peak": 2024.0}
        assert http.post("/peak", json={}).status_code == 404
        assert [model["name"] for model in http.get("/").json()["models"]] == ["growth", "iris"]
        assert http.get("/nosuch").json()["hint"] == (
            "Models are asked at /models/growth/predict, /models/growth/peak, /models/growth/total, /models/iris/predict."
        )
        paths = http.get("/openapi.json").json()["paths"]
        assert {"/models/growth/predict", "/models/growth/peak", "/models/iris/predict"} <= paths.keys()


def test_the_openapi_document_has_every_route_with_its_parameters(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    validate(document)
    assert {path: sorted(item) for path, item in document["paths"].items() if path not in ("/", "/livez", "/readyz")} == {
        "/predict": ["get", "post"],
        "/peak": ["get", "post"],
        "/total": ["post"],
    }
    asked = document["paths"]["/predict"]["get"]
    assert asked["parameters"][:2] == [
        {
            "name": "region",
            "in": "query",
            "required": True,
            "description": "where",
            "schema": {"enum": ["north", "south"], "examples": ["north"]},
            "example": "north",
        },
        {
            "name": "days",
            "in": "query",
            "required": False,
            "description": "how long",
            "schema": {"type": "integer", "minimum": 0, "maximum": 1000, "examples": [2], "default": 2},
            "example": 2,
        },
    ]
    assert asked["responses"]["200"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Output"}
    output = document["components"]["schemas"]["Output"]["properties"]["prediction"]
    assert output["items"]["properties"].keys() == {"day", "count"}
    assert document["components"]["schemas"]["Input"]["required"] == ["region"]
    operations = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(operations) == len(set(operations))


def test_requests_to_functions_are_counted_as_predictions_of_their_own(client: httpx.Client) -> None:
    client.post("/peak", json={}).raise_for_status()
    client.get("/peak").raise_for_status()
    metrics = client.get("/metrics").text
    assert 'modelport_requests_total{model="growth.peak",route="predict",status="200"}' in metrics
    assert client.post("/peak", json={}).headers["x-model"].startswith("growth.peak:3 sha256:")


def test_defaults_are_filled_in_whichever_way_a_record_comes(client: httpx.Client) -> None:
    assert client.post("/predict", json=[{"region": "north"}, {"region": "north", "days": 0}]).json()[1] == {"prediction": []}
    assert client.post("/predict", content="region\nnorth\n", headers={"Content-Type": "text/csv"}).text.startswith(
        'prediction\r\n"[{""day"": 0'
    )
    answer = client.post("/predict", json={"region": "north", "days": None})
    assert (answer.status_code, answer.json()["errors"][0]["detail"]) == (422, "is null: expected an integer")
    twice = client.post("/predict", content=b'{"region": "north", "days": 1, "days": 2}', headers={"Content-Type": "application/json"})
    assert (twice.status_code, twice.json()["type"]) == (400, "urn:modelport:malformed-body")
    slowly = client.post("/predict", content=b'{"region": "n\\u006frth"}', headers={"Content-Type": "application/json"})
    assert slowly.json() == {"prediction": TWO}


def test_the_client_calls_functions_by_name(growth: Live) -> None:
    with Client(growth.url) as one:
        assert one.predict({"region": "north"}) == {"prediction": TWO}
        assert one.predict([{}], function="peak") == [{"peak": 2024.0}]
        with pytest.raises(InvalidInput, match="/counts"):
            one.predict({}, function="total")
    with Client(growth.url, model="growth") as one:
        assert one.predict({"exact": True}, function="peak") == {"peak": 0.5}


def test_a_written_client_has_a_function_for_each(growth: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = client_source(serve()[0].bundle)
    (tmp_path / "growth_client.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    module = import_module("growth_client")
    assert module.predict(module.Input(region="north"), url=growth.url).prediction == TWO
    assert module.peak(module.PeakInput(exact=True), url=growth.url) == module.PeakOutput(peak=0.5)
    assert module.total([module.TotalInput(counts=[1.0])], url=growth.url) == [module.TotalOutput(total=1.0)]


def test_what_ended_a_process_is_denied_of_the_function_that_was_asked() -> None:
    first, peak, _ = serve()
    body = b'{"region":"north"}'
    first.denied.add(fingerprint(first.digest, "growth", body))
    with pytest.raises(Exception, match="has ended the model's process"):
        first.check(body)
    peak.denied.update(first.denied)
    peak.check(body)
    assert Model("growth", "3", "", "").answers("growth.peak")
    assert not Model("growth", "3", "", "").answers("growths")


def test_a_service_that_wants_a_key_wants_it_of_functions_too() -> None:
    from modelport.serving.settings import hash_key

    with live(serve(), keys=frozenset({hash_key("secret")})) as server, server.client() as http:
        assert http.get("/peak").status_code == http.post("/peak", json={}).status_code == 401
        assert http.get("/peak", headers={"X-API-Key": "secret"}).status_code == 200

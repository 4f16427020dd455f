"""The protocols of other servers: each asks the same model and gets the same answers, in its own form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest
import yaml

from modelport.errors import UsageError
from modelport.serving.settings import Settings, keys_of
from modelport.signature import Field, Signature
from serving_world import CLASSES, EVERY_KIND, FLOWER, by_petal, counted, live, make_service

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]
SCHEMAS = yaml.safe_load((Path(__file__).parent / "data" / "open-inference-rest.yaml").read_text())["components"]["schemas"]


def conforms(value: Any, schema: str) -> Any:
    """`value`, after the published schema of the Open Inference Protocol has been held to it."""
    text = json.dumps(SCHEMAS).replace("#/components/schemas/", "#/$defs/")
    jsonschema.validate(value, {"$ref": f"#/$defs/{schema}", "$defs": json.loads(text)})
    return value


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with live(make_service(), predict_route="/v1/endpoints/7:predict", health_route="/health/7") as running, running.client() as opened:
        yield opened


@pytest.fixture(scope="module")
def every_kind() -> Iterator[httpx.Client]:
    with live(make_service(counted, EVERY_KIND, name="every", version="")) as running, running.client() as opened:
        yield opened


def tensor(name: str, datatype: str, data: list[Any], *shape: int) -> dict[str, Any]:
    return {"name": name, "shape": list(shape) or [len(data)], "datatype": datatype, "data": data}


def per_field(datatype: str = "FP64") -> list[dict[str, Any]]:
    return [tensor(name, datatype, [row[index] for row in ROWS]) for index, name in enumerate(FLOWER)]


def infer(client: httpx.Client, body: Any, model: str = "iris") -> httpx.Response:
    if isinstance(body, dict) and "inputs" in body:
        conforms(body, "inference_request")
    return client.post(f"/v2/models/{model}/infer", json=body)


# V2


def test_v2_tells_of_the_server_and_the_model(client: httpx.Client) -> None:
    for path in ("/v2", "/v2/"):
        assert conforms(client.get(path).json(), "metadata_server_response")["name"] == "modelport"
    for path in ("/v2/models/iris", "/v2/models/iris/versions/3"):
        about = conforms(client.get(path).json(), "metadata_model_response")
        assert about["versions"] == ["3"]
        assert about["inputs"] == [{"name": name, "datatype": "FP64", "shape": [-1]} for name in FLOWER]
        assert about["outputs"] == [
            {"name": "prediction", "datatype": "BYTES", "shape": [-1]}, {"name": "probabilities", "datatype": "FP64", "shape": [-1, 3]},
        ]  # fmt: skip
        assert json.loads(about["properties"]["probabilities.labels"]) == list(CLASSES)


def test_v2_health(client: httpx.Client) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/iris/ready", "/v2/models/iris/versions/3/ready"):
        assert client.get(path).status_code == 200
    for path in ("/v2/models/none/ready", "/v2/models/iris/versions/4/ready"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert list(answer.json()) == ["error"]


@pytest.mark.parametrize(
    "inputs",
    [
        per_field(),
        per_field("FP32"),
        list(reversed(per_field())),
        [tensor(name, "FP64", [[row[index]] for row in ROWS], 2, 1) for index, name in enumerate(FLOWER)],
        [tensor("input-0", "FP64", ROWS, 2, 4)],
        [tensor("X", "FP32", [*ROWS[0], *ROWS[1]], 2, 4)],
    ],
    ids=["a tensor a field", "single precision", "in another order", "columns", "a nested matrix", "a flat matrix"],
)
def test_v2_infers_what_predict_predicts(client: httpx.Client, inputs: list[dict[str, Any]]) -> None:
    answer = infer(client, {"id": "42", "inputs": inputs})
    assert answer.status_code == 200, answer.text
    assert conforms(answer.json(), "inference_response") == {
        "model_name": "iris",
        "model_version": "3",
        "id": "42",
        "outputs": [
            {"name": "prediction", "shape": [2], "datatype": "BYTES", "data": ["setosa", "virginica"]},
            {"name": "probabilities", "shape": [2, 3], "datatype": "FP64", "data": [0.9, 0.05, 0.05, 0.05, 0.05, 0.9]},
        ],
    }
    assert answer.headers["x-model"].startswith("iris:3 ")


def test_v2_gives_the_outputs_that_are_asked_for(client: httpx.Client) -> None:
    answer = infer(client, {"inputs": per_field(), "outputs": [{"name": "probabilities"}], "parameters": {"x": 1}}).json()
    assert [output["name"] for output in answer["outputs"]] == ["probabilities"]
    assert "id" not in answer


def test_v2_of_no_rows_gives_no_rows(client: httpx.Client) -> None:
    answer = infer(client, {"inputs": [tensor("X", "FP64", [], 0, 4)]}).json()
    assert [output["shape"] for output in answer["outputs"]] == [[0], [0, 3]]


@pytest.mark.parametrize("datatype", ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"])
def test_v2_takes_every_width_of_integer(client: httpx.Client, datatype: str) -> None:
    answer = infer(client, {"inputs": [tensor("X", datatype, [[5, 3, 1, 0]], 1, 4)]})
    assert answer.json()["outputs"][0]["data"] == ["setosa"]


def test_v2_single_precision_reaches_the_model_as_such() -> None:
    signature = Signature((Field("x", "number", example=1.0),), (Field("y", "number"),))
    with live(make_service(lambda columns: {"y": columns["x"]}, signature, name="same")) as running, running.client() as client:
        answer = infer(client, {"inputs": [tensor("x", "FP32", [0.1])]}, "same")
        assert answer.json()["outputs"][0]["data"] == [float(np.float32(0.1))]


def kinds(**changes: dict[str, Any]) -> list[dict[str, Any]]:
    tensors = {
        "a number": tensor("a number", "FP64", [1.5, None]),
        "class": tensor("class", "INT64", [3, 4]),
        "is.it": tensor("is.it", "BOOL", [True, False]),
        "näme": tensor("näme", "BYTES", ["x", "ü"]),
        "color": tensor("color", "BYTES", ["red", "blue"]),
        "size": tensor("size", "INT64", [1, 3]),
        "vector": tensor("vector", "FP32", list(range(8)), 2, 2, 2),
        "any": tensor("any", "BYTES", ["1", "2"]),
    }
    return list((tensors | changes).values())


def test_v2_takes_tensors_of_every_kind(every_kind: httpx.Client) -> None:
    answer = every_kind.post("/v2/models/every/infer", json={"inputs": kinds()})
    assert answer.status_code == 200, answer.text
    outputs = {output["name"]: output for output in answer.json()["outputs"]}
    assert outputs["rows"] == tensor("rows", "INT64", [2, 2])
    assert outputs["echo"] == tensor("echo", "BYTES", ['"x"', '"ü"'])
    assert outputs["maybe"]["data"] == [1.5, None]


WRONG: list[tuple[str, Any, str]] = [
    ("no inputs", {}, "expected a list of tensors"),
    ("empty inputs", {"inputs": []}, "expected a list of tensors"),
    ("unknown key", {"inputs": per_field(), "output": []}, 'unknown key \'output\'; did you mean "outputs"?'),
    ("unknown tensor", {"inputs": [*per_field()[:3], tensor("petal_widht", "FP64", [1, 2])]}, 'did you mean "petal_width"?'),
    ("missing tensor", {"inputs": per_field()[:3]}, "/0/petal_width: is missing"),
    ("a tensor twice", {"inputs": [*per_field(), per_field()[0]]}, "stands there twice"),
    ("different rows", {"inputs": [*per_field()[:3], tensor("petal_width", "FP64", [1])]}, "different numbers of rows: 1, 2"),
    ("half", {"inputs": [tensor("X", "FP16", ROWS, 2, 4)]}, "'FP16' is not taken (JSON has no half-precision numbers: send FP32)"),
    ("unknown datatype", {"inputs": [tensor("X", "FLOAT", ROWS, 2, 4)]}, "'FLOAT' is not taken"),
    ("too few values", {"inputs": [tensor("X", "FP64", [1.0], 2, 4)]}, "/inputs/0/data: 1 values do not fill the shape [2, 4]"),
    ("another width", {"inputs": [tensor("X", "FP64", [[1, 2, 3]], 1, 3)]}, "no matrix of shape [rows, 4]"),
    ("text for a number", {"inputs": [tensor("X", "FP64", [["a", 1, 1, 1]], 1, 4)]}, "/inputs/0/data/0: is no FP64 value"),
    ("true for a number", {"inputs": [tensor("X", "FP64", [[1, True, 1, 1]], 1, 4)]}, "/inputs/0/data/1: is no FP64 value"),
    ("fraction for an integer", {"inputs": [tensor("X", "INT64", [[1.5, 1, 1, 1]], 1, 4)]}, "is no INT64 value"),
    ("integer out of range", {"inputs": [tensor("X", "INT8", [[128, 1, 1, 1]], 1, 4)]}, "is no INT8 value"),
    ("too large for single precision", {"inputs": [tensor("X", "FP32", [[1e39, 1, 1, 1]], 1, 4)]}, "is no FP32 value"),
    ("null", {"inputs": [tensor("X", "FP64", [[1, None, 1, 1]], 1, 4)]}, "/0/sepal_width: is null"),
    ("texts", {"inputs": [tensor("X", "BYTES", [["1", "1", "1", "1"]], 1, 4)]}, 'got the string "1"'),
    ("unknown output", {"inputs": per_field(), "outputs": [{"name": "predictoin"}]}, 'did you mean "prediction"?'),
    ("id of a number", {"id": 4, "inputs": per_field()}, "/id: expected a string"),
    ("a list", [], "the body is not an object"),
    ("shape of texts", {"inputs": [{"name": "X", "shape": ["2", 4], "datatype": "FP64", "data": ROWS}]}, "/inputs/0/shape"),
    ("negative size", {"inputs": [{"name": "X", "shape": [-1, 4], "datatype": "FP64", "data": ROWS}]}, "/inputs/0/shape"),
    ("no data", {"inputs": [{"name": "X", "shape": [2, 4], "datatype": "FP64"}]}, "/inputs/0/data"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "said"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_v2_refuses_in_its_own_form(client: httpx.Client, body: Any, said: str) -> None:
    answer = client.post("/v2/models/iris/infer", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
    assert said in conforms(answer.json(), "inference_error_response")["error"]


def test_v2_gives_its_own_form_to_every_error() -> None:
    def raises(columns: Any) -> Any:
        if columns["petal_length"][0] > 5:
            raise RuntimeError("secret")
        return by_petal(columns)

    with live(make_service(raises), keys=keys_of("key"), max_rows=2) as running, running.client() as client:
        key = {"X-API-Key": "key"}
        body = {"inputs": [tensor("X", "FP64", [[1, 1, 6, 1]], 1, 4)]}
        answers = {
            401: client.post("/v2/models/iris/infer", json=body),
            404: client.post("/v2/models/none/infer", json=body, headers=key),
            405: client.get("/v2/models/iris/infer", headers=key),
            413: client.post("/v2/models/iris/infer", json={"inputs": [tensor("X", "FP64", [[1, 1, 1, 1]] * 3, 3, 4)]}, headers=key),
            415: client.post("/v2/models/iris/infer", content=b"{}", headers=key | {"Content-Type": "application/octet-stream"}),
            500: client.post("/v2/models/iris/infer", json=body, headers=key),
        }
    for status, answer in answers.items():
        assert answer.status_code == status
        assert list(conforms(answer.json(), "inference_error_response")) == ["error"]
        assert "secret" not in answer.text
    assert answers[500].headers["x-request-id"] in answers[500].json()["error"]


def test_v2_of_a_deeply_nested_tensor_is_refused(client: httpx.Client) -> None:
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    assert client.post("/v2/models/iris/infer", json={"inputs": [tensor("X", "FP64", deep, 1, 4)]}).status_code == 400


# V1


@pytest.mark.parametrize(
    "instances",
    [[dict(zip(FLOWER, row, strict=True)) for row in ROWS], ROWS],
    ids=["records", "lists"],
)
@pytest.mark.parametrize("path", ["/v1/models/iris:predict", "/v1/models/iris/versions/3:predict", "/v1/endpoints/7:predict"])
def test_v1_instances_give_predictions(client: httpx.Client, path: str, instances: Any) -> None:
    answer = client.post(path, json={"instances": instances})
    assert [row["prediction"] for row in answer.json()["predictions"]] == ["setosa", "virginica"]


def test_v1_gives_the_bare_value_of_an_only_output() -> None:
    signature = Signature((Field("x", "number", example=1.0),), (Field("y", "number"),))
    with live(make_service(lambda columns: {"y": columns["x"] + 1}, signature, name="next")) as running, running.client() as client:
        for instances in ([1, 2], [{"x": 1}, {"x": 2}], [[1], [2]]):
            assert client.post("/v1/models/next:predict", json={"instances": instances}).json() == {"predictions": [2.0, 3.0]}
        assert client.post("/v1/models/next:predict", json={"instances": []}).json() == {"predictions": []}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"inputs": ROWS}, 'has no list "instances"'),
        ([1], 'has no list "instances"'),
        ({"instances": [[1, 2]]}, "/0: expected an object"),
        ({"instances": [{"sepal_length": 1}]}, "is missing"),
        ({"instances": ROWS, "x": 1}, "unknown key 'x'"),
    ],
)
def test_v1_refuses_in_its_own_form(client: httpx.Client, body: Any, said: str) -> None:
    answer = client.post("/v1/models/iris:predict", json=body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert said in answer.json()["error"]


def test_v1_tells_the_state_of_a_model(client: httpx.Client) -> None:
    state = {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in ("/v1/models/iris", "/v1/models/iris/versions/3"):
        assert client.get(path).json() == {"model_version_status": [state]}
    assert client.get("/v1/models/none").status_code == 404


# SageMaker and Vertex AI


def test_sagemaker_pings_and_invokes_with_json(client: httpx.Client) -> None:
    assert client.get("/ping").status_code == 200
    assert client.post("/invocations", json=FLOWER).json() == client.post("/predict", json=FLOWER).json()


def test_sagemaker_invokes_with_csv_with_and_without_a_header(client: httpx.Client) -> None:
    lines = "5.1,3.5,1.4,0.2\n6.3,3.3,6.0,2.5\n"
    headers = {"Content-Type": "text/csv"}
    bare = client.post("/invocations", content=lines, headers=headers)
    assert bare.text == "setosa,0.9,0.05,0.05\r\nvirginica,0.05,0.05,0.9\r\n"
    headed = client.post("/invocations", content=",".join(FLOWER) + "\n" + lines, headers=headers)
    assert headed.text.partition("\r\n")[2] == bare.text
    wrong = client.post("/invocations", content="5.1,3.5,1.4\n", headers=headers)
    assert (wrong.status_code, wrong.headers["content-type"]) == (422, "application/problem+json")


def test_vertex_finds_the_routes_that_it_names(client: httpx.Client) -> None:
    assert client.get("/health/7").json() == {"status": "ready"}
    with live(make_service(), health_route="/health/7", keys=keys_of("key")) as running, running.client() as locked:
        assert locked.get("/health/7").status_code == 200


def test_a_route_that_is_no_path_is_refused() -> None:
    with pytest.raises(UsageError, match="no path to serve"):
        Settings(predict_route="/a b")

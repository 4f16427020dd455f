"""The OpenAPI document says what the service does: valid, with real examples, and schemathesis finds no difference."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import given as hypothesis_given
from openapi_spec_validator import validate
from schemathesis.checks import CHECKS

from modelport.serving.settings import keys_of
from modelport.signature import Field, Signature
from serving_world import EVERY_KIND, FLOWER, IRIS, Live, counted, live, make_service
from test_serving_functions import serve
from test_serving_pictures import ALONE, BESIDE, by_colour, with_factor

KEY = "a-key-for-this-test"


@pytest.fixture(scope="module")
def iris() -> Iterator[Live]:
    with live(make_service(), keys=keys_of(KEY)) as running:
        yield running


@pytest.fixture(scope="module")
def every() -> Iterator[Live]:
    with live(make_service(counted, EVERY_KIND, name="every")) as running:
        yield running


STAYS = """
    from dataclasses import dataclass
    from datetime import date
    from typing import Annotated, Literal
    from msgspec import Meta

    @dataclass
    class Stay:
        arrival: date
        nights: Annotated[int, Meta(ge=1, le=60)] = 1
        breakfast: bool = False

    @dataclass
    class Night:
        day: date
        price: float
        note: str | None = None

    def predict(stay: Stay, guests: Annotated[int, Meta(ge=1, le=4)] = 2, code: str | None = None) -> list[Night]:
        return [Night(stay.arrival, 80.0 * guests, code)] * stay.nights

    def rate(season: Literal["high", "low"], weight: Annotated[float, Meta(ge=0, le=1)] = 0.5, day: date = date(2024, 1, 1)) -> float:
        return weight + (season == "high") + day.month

    def count(values: list[float], names: dict[str, int], exact: bool = True) -> int:
        return len(values) + len(names)
"""


@pytest.fixture(scope="module")
def stays() -> Iterator[Live]:
    with live(serve(STAYS, "stays")) as running:
        yield running


def document(running: Live, path: str = "/openapi.json") -> Any:
    with running.client(headers={"X-API-Key": KEY}) as client:
        answer = client.get(path)
        assert answer.status_code == 200
        return answer.json()


def test_the_document_is_valid_openapi(iris: Live, every: Live) -> None:
    for running in (iris, every):
        made = document(running)
        assert made["openapi"] == "3.1.0"
        validate(made)
        validate(document(running, "/models/" + ("iris" if running is iris else "every") + "/openapi.json"))
    with live([make_service(), make_service(counted, EVERY_KIND, name="every")]) as both:
        validate(document(both))


def test_the_examples_are_real_rows_and_the_answers_they_get(iris: Live) -> None:
    made = document(iris)
    predict = made["paths"]["/predict"]["post"]
    asked = predict["requestBody"]["content"]
    answered = predict["responses"]["200"]["content"]
    with iris.client(headers={"X-API-Key": KEY}) as client:
        for name in ("one", "many"):
            example = asked["application/json"]["examples"][name]["value"]
            assert client.post("/predict", json=example).json() == answered["application/json"]["examples"][name]["value"]
        table = client.post("/predict", content=predict["x-csv"]["example"], headers={"Content-Type": "text/csv"})
        assert table.text == answered["text/csv"]["example"]
    assert asked["application/json"]["examples"]["one"]["value"] == FLOWER


def test_every_error_is_described_with_its_code(iris: Live) -> None:
    responses = document(iris)["paths"]["/predict"]["post"]["responses"]
    described = {"400", "401", "406", "408", "413", "415", "421", "422", "431", "500", "503", "504"}
    assert set(responses) == {"200"} | described
    assert "urn:modelport:invalid-input" in responses["422"]["description"]
    assert "urn:modelport:model-contract" in responses["500"]["description"]


def test_a_key_is_described_where_one_is_needed(iris: Live, every: Live) -> None:
    made = document(iris)
    assert set(made["components"]["securitySchemes"]) == {"bearer", "key"}
    assert made["security"]
    assert made["paths"]["/livez"]["get"]["security"] == []
    assert "security" not in document(every)


def test_the_schema_of_the_input_is_that_of_the_signature(every: Live) -> None:
    schemas = document(every)["components"]["schemas"]
    assert schemas["Input"] == {"title": "every input", **json.loads(json.dumps(EVERY_KIND.input_schema()))}
    jsonschema.Draft202012Validator(schemas["Input"]).validate(EVERY_KIND.example())


HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "javascript:alert(1)", "{{7*7}}", "../../etc/passwd", "__proto__",
    "a/b~c", "ü\u202e", " ",
]  # fmt: skip


def test_hostile_names_are_data_everywhere() -> None:
    inputs = tuple(Field(name, "number", example=1.0, description=name) for name in HOSTILE)
    signature = Signature(inputs, (Field("prediction", "category", choices=tuple(HOSTILE)),))
    service = make_service(
        lambda columns: {"prediction": np.array([HOSTILE[0]] * len(columns[HOSTILE[0]]), dtype=object)}, signature, title=HOSTILE[0]
    )
    with live(service) as running, running.client() as client:
        validate(document(running))
        record = dict.fromkeys(HOSTILE, 1.0)
        assert client.post("/predict", json=record).json() == {"prediction": HOSTILE[0]}
        wrong = client.post("/predict", json=record | {"<b>": 1, HOSTILE[0]: "<i>"})
        assert (wrong.status_code, wrong.headers["content-type"]) == (422, "application/problem+json")
        for path in ("/", "/docs"):
            assert "<script>alert" not in client.get(path, headers={"Accept": "text/html"}).text
        missing = client.get("/%3Cscript%3Ealert(1)%3C/script%3E")
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")


def test_five_thousand_columns_are_described_and_answered() -> None:
    names = [f"c{index}" for index in range(5000)]
    signature = Signature(tuple(Field(name, "number", example=float(index)) for index, name in enumerate(names)), (Field("sum", "number"),))
    service = make_service(lambda columns: {"sum": np.sum([columns[name] for name in names], axis=0)}, signature, name="wide")
    with live(service) as running, running.client() as client:
        assert len(document(running)["components"]["schemas"]["Input"]["properties"]) == 5000
        assert client.post("/predict", json=[signature.example()] * 2).json() == [{"sum": 12497500.0}] * 2
        wrong = client.post("/predict", json=signature.example() | {"c4999": "x", "d1": 2}).json()
        assert [error["pointer"] for error in wrong["errors"]] == ["/d1", "/c4999"]
        table = ",".join(names) + "\n" + ",".join(["1"] * 5000) + "\n"
        assert client.post("/predict", content=table, headers={"Content-Type": "text/csv"}).text == "sum\r\n5000.0\r\n"


# schemathesis asks what the document allows and what it forbids, and holds each answer to the document with all of its checks.


def operations(running: Live) -> list[Any]:
    schema = schemathesis.openapi.from_dict(document(running))
    schema.config.update(base_url=running.url)
    # one right key is enough, whatever stands in the other header: the check takes a made-up second one for the only one
    schema.config.generation.update(with_security_parameters=False)
    return [found.ok() for found in schema.get_all_operations()]


@pytest.mark.parametrize("name", ["iris", "every", "stays"])
@pytest.mark.parametrize("mode", [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE])
def test_schemathesis_finds_nothing(request: pytest.FixtureRequest, name: str, mode: schemathesis.GenerationMode) -> None:
    running: Live = request.getfixturevalue(name)
    headers = {"X-API-Key": KEY} if name == "iris" else {}
    asked = 0
    for operation in operations(running):
        if mode is schemathesis.GenerationMode.NEGATIVE and operation.method == "get" and not operation.query:
            continue  # there is nothing in it that could be wrong

        @settings(
            max_examples=60,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        @hypothesis_given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            nonlocal asked
            case.call_and_validate(headers=headers)
            asked += 1

        ask()
    assert asked > 15
    with httpx.Client(base_url=running.url, headers=headers, trust_env=False) as client:
        assert client.get("/readyz").status_code == 200


def test_schemathesis_has_the_checks_that_matter() -> None:
    names = set(CHECKS.get_all_names())
    assert names >= {
        "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
        "negative_data_rejection", "positive_data_acceptance", "ignored_auth", "unsupported_method",
    }  # fmt: skip


def test_the_models_of_these_tests_answer_every_finite_number() -> None:
    """Otherwise what schemathesis finds would be the model's."""
    service = make_service()
    extreme = [dict.fromkeys(FLOWER, value) for value in (1.7976931348623157e308, -1.7976931348623157e308, 5e-324)]
    assert len(service.engine.answer(extreme)) == 3
    assert {field.kind for field in IRIS.inputs} == {"number"}


# Pictures


def test_bodies_with_pictures_are_described() -> None:
    with live(make_service(by_colour, ALONE, name="colours"), allow_url=("*",)) as running:
        made = document(running)
        validate(made)
        predict = made["paths"]["/predict"]
        content = predict["post"]["requestBody"]["content"]
        assert list(content) == ["application/json", "image/jpeg", "image/png", "image/webp", "multipart/form-data"]
        assert "`photo` becomes 8 x 8 RGB, middle cut out" in predict["post"]["description"]
        assert "by its URL" in predict["post"]["description"]
        assert [parameter["name"] for parameter in predict["get"]["parameters"]] == ["url"]
        example = content["application/json"]["examples"]["one"]["value"]
        assert len(json.dumps(made)) < 40_000
        with running.client() as client:
            assert client.post("/predict", json=example).status_code == 200
    with live(make_service(with_factor, BESIDE, name="beside")) as running:
        made = document(running)
        validate(made)
        content = made["paths"]["/predict"]["post"]["requestBody"]["content"]
        assert list(content) == ["application/json", "multipart/form-data"]
        assert content["multipart/form-data"]["schema"]["required"] == ["photo", "factor"]
        assert "get" not in made["paths"]["/predict"]

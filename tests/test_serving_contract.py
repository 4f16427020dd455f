"""The HTTP contract of DESIGN section 5, row by row, asked through real sockets and free of how it is served."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from modelport.errors import InvalidInput
from modelport.signature import Field, Signature
from serving_world import CLASSES, EVERY_KIND, FLOWER, IRIS, Live, by_petal, counted, live, make_service

JSON = {"Content-Type": "application/json"}
CSV = {"Content-Type": "text/csv"}
ROWS = "sepal_length,sepal_width,petal_length,petal_width\n5.1,3.5,1.4,0.2\n6.3,3.3,6.0,2.5\n"


@pytest.fixture(scope="module")
def service() -> Iterator[Live]:
    with live(make_service()) as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Live) -> Iterator[httpx.Client]:
    with service.client() as opened:
        yield opened


@pytest.fixture(scope="module")
def every_kind() -> Iterator[httpx.Client]:
    with live(make_service(counted, EVERY_KIND, name="every")) as running, running.client() as opened:
        yield opened


def told(answer: httpx.Response) -> str:
    """All that a problem says in words."""
    problem = answer.json()
    errors = [f"{error['pointer']}: {error['detail']}" for error in problem.get("errors", ())]
    return "\n".join([problem["detail"], problem.get("hint", ""), *errors])


def flower(**changes: Any) -> dict[str, Any]:
    return FLOWER | changes


# What comes out


def test_a_record_gives_a_record(client: httpx.Client) -> None:
    answer = client.post("/predict", json=FLOWER)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == {"prediction": "setosa", "probabilities": {"setosa": 0.9, "versicolor": 0.05, "virginica": 0.05}}


def test_a_list_gives_a_list_in_the_same_order(client: httpx.Client) -> None:
    lengths = [1.0, 6.0, 3.0, 1.0, 6.0]
    answer = client.post("/predict", json=[flower(petal_length=length) for length in lengths])
    kinds = ["setosa", "virginica", "versicolor", "setosa", "virginica"]
    assert [row["prediction"] for row in answer.json()] == kinds


def test_an_empty_list_gives_an_empty_list(client: httpx.Client) -> None:
    answer = client.post("/predict", json=[])
    assert (answer.status_code, answer.json()) == (200, [])


def test_csv_gives_csv_with_one_column_a_class(client: httpx.Client) -> None:
    answer = client.post("/predict", content=ROWS, headers=CSV)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.text == (
        "prediction,probabilities.setosa,probabilities.versicolor,probabilities.virginica\r\n"
        "setosa,0.9,0.05,0.05\r\nvirginica,0.05,0.05,0.9\r\n"
    )


def test_csv_is_read_with_any_quoting_and_the_mark_that_excel_writes(client: httpx.Client) -> None:
    quoted = "\ufeff" + '"petal_width","petal_length",sepal_width,"sepal_length"\r\n"0.2",1.4,"3.5",5.1\r\n\r\n'
    answer = client.post("/predict", content=quoted.encode(), headers={"Content-Type": 'text/csv; charset="UTF-8"'})
    assert answer.text.splitlines()[1] == "setosa,0.9,0.05,0.05"


def test_csv_of_no_rows_gives_the_header_alone(client: httpx.Client) -> None:
    answer = client.post("/predict", content=ROWS.splitlines()[0], headers=CSV)
    assert (answer.status_code, len(answer.text.splitlines())) == (200, 1)


@pytest.mark.parametrize(
    ("sent", "accept", "gives"),
    [
        ("application/json", "*/*", "application/json"),
        ("application/json", "text/csv", "text/csv; charset=utf-8"),
        ("text/csv", "application/json", "application/json"),
        ("text/csv", "*/*", "text/csv; charset=utf-8"),
        ("application/json", "application/*;q=0.5, text/csv;q=0.4", "application/json"),
        ("application/json", "text/html, text/csv;q=0.1", "text/csv; charset=utf-8"),
    ],
)
def test_accept_chooses_the_form_of_the_answer(client: httpx.Client, sent: str, accept: str, gives: str) -> None:
    body = ROWS if sent == "text/csv" else json.dumps(FLOWER)
    answer = client.post("/predict", content=body, headers={"Content-Type": sent, "Accept": accept})
    assert answer.headers["content-type"] == gives


def test_a_named_output_is_the_key_of_the_answer() -> None:
    signature = Signature((Field("price", "number", example=3.0),), (Field("shipping_estimated_price", "number"),))
    priced = make_service(lambda columns: {"shipping_estimated_price": columns["price"] * 2}, signature, name="shipping")
    with live(priced) as running, running.client() as client:
        assert client.post("/predict", json={"price": 10.7}).json() == {"shipping_estimated_price": 21.4}


def test_every_kind_of_field_is_taken_and_numpy_values_come_back_as_json(every_kind: httpx.Client) -> None:
    example = EVERY_KIND.example()
    answer = every_kind.post("/predict", json=[example, example | {"a number": None, "color": None}])
    assert answer.json() == [{"rows": 2, "echo": "Łódź", "maybe": 1.5}, {"rows": 2, "echo": "Łódź", "maybe": None}]


def test_a_nullable_field_may_be_left_out(every_kind: httpx.Client) -> None:
    example = EVERY_KIND.example()
    del example["a number"], example["color"], example["notes"]
    assert every_kind.post("/predict", json=example).json()["maybe"] is None


def test_an_integer_may_be_written_with_a_fraction_of_zero(every_kind: httpx.Client) -> None:
    assert every_kind.post("/predict", json=EVERY_KIND.example() | {"class": 3.0}).status_code == 200


def test_answers_name_the_request_and_the_model(client: httpx.Client) -> None:
    answer = client.post("/predict", json=FLOWER)
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", answer.headers["x-request-id"])
    assert re.fullmatch(r"iris:3 sha256:[0-9a-f]{64}", answer.headers["x-model"])
    assert answer.headers["cache-control"] == "no-store"
    assert "traceparent" not in answer.headers


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("X-Request-Id", "order-42/7", True),
        ("X-Request-Id", "x" * 128, True),
        ("X-Request-Id", "x" * 129, False),
        ("X-Request-Id", "two words", False),
        ("X-Request-Id", "caf\u00e9", False),
        ("traceparent", TRACE, True),
        ("traceparent", TRACE.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), False),
        ("traceparent", TRACE.upper(), False),
        ("traceparent", "ff" + TRACE[2:], False),
    ],
)
def test_an_id_that_the_caller_sends_comes_back_when_it_is_sane(client: httpx.Client, name: str, value: str, kept: bool) -> None:
    answer = client.post("/predict", json=FLOWER, headers={name: value.encode("latin-1")})
    assert answer.status_code == 200
    assert (answer.headers.get(name) == value) is kept


# What bad input gets

DEEP = 100_000
BAD: list[tuple[str, Any, int, str, str]] = [
    # what, body, status, code, what the answer says
    ("unknown field", flower(petal_lenght=1.0), 422, "invalid-input", 'there is no field "petal_lenght"; did you mean "petal_length"?'),
    ("missing field", {k: v for k, v in FLOWER.items() if k != "petal_width"}, 422, "invalid-input", "is missing: expected a number"),
    ("string", flower(petal_width="1.5"), 422, "invalid-input", 'expected a number, got the string "1.5"'),
    ("boolean", flower(petal_width=True), 422, "invalid-input", "expected a number, got true"),
    ("null", flower(petal_width=None), 422, "invalid-input", "is null: expected a number"),
    ("NaN", '{"sepal_length": NaN, "sepal_width": 1, "petal_length": 1, "petal_width": 1}', 422, "invalid-input", "/sepal_length"),
    ("Infinity", '{"sepal_length": -Infinity, "sepal_width": 1, "petal_length": 1, "petal_width": 1}', 422, "invalid-input", "finite"),
    ("1e400", '{"sepal_length": 1e400, "sepal_width": 1, "petal_length": 1, "petal_width": 1}', 422, "invalid-input", "finite"),
    ("huge integer", flower(petal_width=10**400), 422, "invalid-input", "/petal_width"),
    ("integer just beyond the largest number", flower(petal_width=17976931348623157 * 10**292 + 1), 422, "invalid-input", "at most"),
    (
        "integer of 10,000 digits",
        '{"sepal_length": %s, "sepal_width": 1, "petal_length": 1, "petal_width": 1}' % ("1" * 10_000),
        422,
        "invalid-input",
        "/sepal_length",
    ),
    ("lone surrogate as a value", '{"sepal_length": "\\ud800"}', 400, "malformed-body", "/sepal_length"),
    ("lone surrogate as a key", '{"\\udfff": 1}', 400, "malformed-body", "surrogate"),
    ("duplicate key", '{"sepal_length": 1, "sepal_length": 1, "sepal_width": 1, "petal_length": 1, "petal_width": 1}', 400,
     "malformed-body", 'the key "sepal_length" stands twice'),
    ("duplicate key far inside", json.dumps([FLOWER])[:-2] + ', "petal_width": 0.2}]', 400, "malformed-body", '"/0"'),
    ("duplicate key with an escape", json.dumps(FLOWER)[:-1] + ', "petal_widt\\u0068": 0.2}', 400, "malformed-body", "stands twice"),
    ("nesting", "[" * DEEP, 400, "malformed-body", "nested too deeply"),
    ("nesting that closes", "[" * DEEP + "]" * DEEP, 400, "malformed-body", "nested too deeply"),
    ("nested value", '{"sepal_length": ' + "[" * DEEP + "]" * DEEP + "}", 400, "malformed-body", "nested too deeply"),
    ("empty body", "", 400, "malformed-body", "Send a record"),
    ("white space", " \n", 400, "malformed-body", "Send a record"),
    ("not JSON", '{"sepal_length": 5.1,\n "sepal_width" 3.5}', 400, "malformed-body", "line 2, column 16 (character 37)"),
    ("cut short", '{"sepal_length": 5.1', 400, "malformed-body", "line 1"),
    ("trailing garbage", json.dumps(FLOWER) + " x", 400, "malformed-body", "Extra data"),
    ("byte order mark", b"\xef\xbb\xbf" + json.dumps(FLOWER).encode(), 400, "malformed-body", "byte order mark"),
    ("UTF-16", json.dumps(FLOWER).encode("utf-16"), 400, "malformed-body", "UTF-8"),
    ("Latin-1", '{"größe": 1}'.encode("latin-1"), 400, "malformed-body", "UTF-8: byte 4 is 0xf6"),
    ("null body", "null", 422, "invalid-input", "got null"),
    ("a number", "3", 422, "invalid-input", "expected an object"),
    ("a text", '"x"', 422, "invalid-input", "expected an object"),
    ("a list of lists", "[[1,2,3,4]]", 422, "invalid-input", "got a list"),
    ("single quotes", "{'sepal_length': 1}", 400, "malformed-body", "line 1, column 2"),
    ("a NUL in a text", '{"a": "\x00"}', 400, "malformed-body", "line 1"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status", "code", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_json_is_refused_with_the_reason(client: httpx.Client, body: Any, status: int, code: str, said: str) -> None:
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    answer = client.post("/predict", content=content, headers=JSON)
    problem = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (problem["type"], problem["status"]) == (f"urn:modelport:{code}", status)
    assert said in told(answer)
    assert problem["request_id"] == answer.headers["x-request-id"]


BAD_KINDS: list[tuple[str, dict[str, Any], str]] = [
    (
        "category never seen",
        {"color": "gren"},
        'expected one of "red", "green", "blue" or null, got the string "gren"; did you mean "green"?',
    ),
    ("category of numbers", {"size": 4}, "expected one of 1, 2, 3, got the number 4"),
    ("category of numbers as text", {"size": "2"}, 'expected one of 1, 2, 3, got the string "2"'),
    ("true for a category of numbers", {"size": True}, "expected one of 1, 2, 3, got true"),
    ("fraction", {"class": 1.5}, "expected an integer, got the number 1.5"),
    ("integer over its maximum", {"class": 1001}, "expected an integer of at most 1000, got 1001"),
    ("integer of thirty digits", {"class": 10**29}, "got 100000000000000000000000000000"),
    ("number for a boolean", {"is.it": 1}, "expected true or false, got the number 1"),
    ("number for a string", {"näme": 1}, "expected a string, got the number 1"),
    ("null for a string", {"näme": None}, "is null: expected a string"),
    ("tensor of another shape", {"vector": [[1, 2, 3], [4, 5, 6]]}, "got a list of 3 at depth 1"),
    ("tensor with a text in it", {"vector": [[1, 2], [3, "4"]]}, 'got the string "4" in it'),
    ("tensor beyond single precision", {"vector": [[1, 2], [3, 1e300]]}, "got the number 1e+300 in it"),
]


@pytest.mark.parametrize(("changes", "said"), [row[1:] for row in BAD_KINDS], ids=[row[0] for row in BAD_KINDS])
def test_a_value_of_the_wrong_kind_is_refused_with_its_place(every_kind: httpx.Client, changes: dict[str, Any], said: str) -> None:
    answer = every_kind.post("/predict", json=[EVERY_KIND.example(), EVERY_KIND.example() | changes])
    (error,) = answer.json()["errors"]
    assert answer.status_code == 422
    assert error["pointer"] == f"/1/{next(iter(changes))}"
    assert said in error["detail"]


@pytest.mark.parametrize("number", ["NaN", "1e400", "-Infinity"])
def test_what_is_no_json_is_refused_inside_a_field_of_any_json_too(every_kind: httpx.Client, number: str) -> None:
    body = json.dumps(EVERY_KIND.example()).replace('{"a": [1]}', f'{{"a": [{number}]}}')
    answer = every_kind.post("/predict", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:modelport:malformed-body")
    assert '"/0/any/a/0"' in answer.json()["detail"] or '"/any/a/0"' in answer.json()["detail"]


def test_every_bad_field_is_listed_not_the_first(client: httpx.Client) -> None:
    body = [FLOWER, {"sepal_length": "1.5", "sepal_width": True, "petal_length": 1.0, "x": 0}, FLOWER, 3]
    problem = client.post("/predict", json=body).json()
    assert [error["pointer"] for error in problem["errors"]] == ["/1/x", "/1/sepal_length", "/1/sepal_width", "/1/petal_width", "/3"]
    assert problem["errors"][1] == {
        "pointer": "/1/sepal_length",
        "detail": 'expected a number, got the string "1.5"',
        "expected": "a number",
        "got": "1.5",
    }
    assert problem["title"] == "The input does not fit the model"
    assert problem["detail"] == '/1/x: there is no field "x" (and 4 more)'


def test_one_bad_row_in_the_middle_of_10_001_is_named(client: httpx.Client) -> None:
    rows = [FLOWER] * 10_001
    rows[5000] = flower(petal_length="long")
    problem = client.post("/predict", json=rows).json()
    assert [error["pointer"] for error in problem["errors"]] == ["/5000/petal_length"]


def test_10_001_good_rows_are_answered(client: httpx.Client) -> None:
    answer = client.post("/predict", json=[FLOWER] * 10_001)
    assert (answer.status_code, len(answer.json())) == (200, 10_001)


def test_a_body_of_nothing_but_mistakes_gets_an_answer_of_bounded_size(client: httpx.Client) -> None:
    answer = client.post("/predict", content="[" + ",".join(["0"] * 99_000) + "]", headers=JSON)
    assert (answer.status_code, len(answer.json()["errors"])) == (422, 1000)


def test_a_record_of_a_hundred_thousand_unknown_fields_gets_an_answer_of_bounded_size(client: httpx.Client) -> None:
    answer = client.post("/predict", json={f"petal_{number}": 1 for number in range(100_000)})
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 1000 + len(IRIS.inputs)


BAD_CSV: list[tuple[str, str | bytes, int, str]] = [
    ("missing column", "sepal_length,sepal_width,petal_length\n1,2,3\n", 422, "the column is missing"),
    ("unknown column", "sepal_length,sepal_width,petal_length,petal_widht\n1,2,3,4\n", 422, 'did you mean "petal_width"?'),
    ("ragged row", ROWS + "1,2,3\n", 422, "/2: the row has 3 cells, and the header 4"),
    ("wrong cell", ROWS + "1,2,x,4\n", 422, "/2/petal_length: "),
    ("empty cell", ROWS + "1,2,,4\n", 422, "/2/petal_length: "),
    ("NaN in a cell", ROWS + "1,2,NaN,4\n", 422, "/2/petal_length: "),
    ("infinite cell", ROWS + "1,2,1e999,4\n", 422, "/2/petal_length: "),
    ("one column twice", "sepal_length,sepal_length\n1,2\n", 400, "stands twice in the header"),
    ("open quote", 'sepal_length\n"1', 400, "line 2"),
    ("quote in the middle", 'sepal_length\n"1"2', 400, "line 2"),
    ("empty", "", 400, "header"),
    ("Latin-1", "größe\n1\n".encode("latin-1"), 400, "UTF-8"),
    ("semicolons", ROWS.replace(",", ";"), 422, "Cells are separated by commas."),
]


@pytest.mark.parametrize(("body", "status", "said"), [row[1:] for row in BAD_CSV], ids=[row[0] for row in BAD_CSV])
def test_bad_csv_is_refused_with_the_reason(client: httpx.Client, body: str | bytes, status: int, said: str) -> None:
    answer = client.post("/predict", content=body, headers=CSV)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert said in told(answer)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "has no Content-Type"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "application/x-www-form-urlencoded"),
        ({"Content-Type": "text/plain"}, "text/plain"),
        ({"Content-Type": "application/x-pickle"}, "application/x-pickle"),
        ({"Content-Type": "application/octet-stream"}, "application/octet-stream"),
        ({"Content-Type": "application/json; charset=latin-1"}, "latin-1"),
        ({"Content-Type": "text/csv; charset=utf-16"}, "utf-16"),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, "gzip"),
        ({"Content-Type": "application/json", "Content-Encoding": "zstd"}, "zstd"),
    ],
)
def test_other_content_types_and_encodings_are_refused(client: httpx.Client, headers: dict[str, str], said: str) -> None:
    answer = client.post("/predict", content=json.dumps(FLOWER).encode(), headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (415, "urn:modelport:unsupported-media-type")
    assert said in answer.json()["detail"]


def test_identity_is_no_encoding(client: httpx.Client) -> None:
    headers = JSON | {"Content-Encoding": "identity"}
    assert client.post("/predict", content=json.dumps(FLOWER), headers=headers).status_code == 200


def test_406_when_the_answer_has_no_form_that_the_caller_takes(client: httpx.Client) -> None:
    answer = client.post("/predict", json=FLOWER, headers={"Accept": "image/png, application/json;q=0"})
    assert (answer.status_code, answer.json()["type"]) == (406, "urn:modelport:not-acceptable")


def test_a_body_of_50_mb_is_refused_and_the_service_goes_on(client: httpx.Client) -> None:
    answer = client.post("/predict", content=b"[" + b" " * 50_000_000, headers=JSON)
    assert (answer.status_code, answer.json()["type"]) == (413, "urn:modelport:too-large")
    assert client.post("/predict", json=FLOWER).status_code == 200


def test_a_body_is_measured_by_what_arrives(client: httpx.Client) -> None:
    answer = client.post("/predict", content=(b" " * 1_000_000 for _ in range(20)), headers=JSON)
    assert (answer.status_code, answer.json()["type"]) == (413, "urn:modelport:too-large")


def test_more_rows_than_the_limit_are_refused() -> None:
    with live(make_service(), max_rows=3) as running, running.client() as client:
        assert client.post("/predict", json=[FLOWER] * 3).status_code == 200
        for content, headers in ((json.dumps([FLOWER] * 4), JSON), (ROWS + "1,2,3,4\n1,2,3,4\n", CSV)):
            answer = client.post("/predict", content=content, headers=headers)
            assert (answer.status_code, answer.json()["detail"]) == (413, "the body has 4 rows; at most 3 are taken at once")


# Paths and methods


@pytest.mark.parametrize(
    "path", ["/predct", "/predict/", "//predict", "/predict;x", "/docs/", "/static/none.js", "/static/../app.py", "/v3"]
)
def test_404_is_a_problem_and_names_a_near_path(client: httpx.Client, service: Live, path: str) -> None:
    answer = service.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert json.loads(body)["type"] == "urn:modelport:not-found"
    if path == "/predct":
        assert json.loads(body)["detail"] == "there is no path '/predct'; did you mean \"/predict\"?"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE", "HEAD"])
def test_405_names_the_methods(client: httpx.Client, method: str) -> None:
    answer = client.request(method, "/predict")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")


def test_head_is_get_without_the_body(client: httpx.Client) -> None:
    for path in ("/livez", "/openapi.json", "/"):
        got, headed = client.get(path), client.head(path)
        assert (headed.status_code, headed.content) == (200, b"")
        assert headed.headers["content-length"] == got.headers["content-length"]


def test_options_names_the_methods(client: httpx.Client) -> None:
    answer = client.options("/livez")
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, "GET, HEAD, OPTIONS", b"")


def test_the_root_is_a_page_to_a_browser_and_json_to_anything_else(client: httpx.Client) -> None:
    browser = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    assert client.get("/", headers=browser).headers["content-type"] == "text/html; charset=utf-8"
    about = client.get("/").json()
    assert {key: about[key] for key in ("name", "version", "title", "framework", "engine")} == {
        "name": "iris", "version": "3", "title": "iris", "framework": "tests", "engine": "native",
    }  # fmt: skip
    assert Signature.from_dict(about["signature"]) == IRIS
    for name, path in about["endpoints"].items():
        assert client.get(path).status_code == (405 if name == "predict" else 200), path


def test_title_and_subtitle_of_the_settings_stand_before_those_of_the_bundle() -> None:
    with live(make_service(title="Bundle", subtitle="below"), title="Set") as running, running.client() as client:
        about = client.get("/").json()
        assert (about["title"], about["subtitle"]) == ("Set", "below")
        assert client.get("/openapi.json").json()["info"]["title"] == "Set"


def test_the_page_and_its_files_come_from_memory_with_a_type_and_an_etag(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    files = re.findall(r'(?:href|src)="(static/[^"]+)"', page.text)
    assert files
    for file in files:
        answer = client.get("/" + file)
        assert answer.status_code == 200, file
        assert answer.headers["content-type"].split(";")[0] in ("text/css", "text/javascript", "image/svg+xml")
        again = client.get("/" + file, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", answer.headers["etag"])


# Health


def test_a_service_is_ready_when_its_golden_rows_are_reproduced(client: httpx.Client) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    with live(make_service(warm=False)) as running, running.client() as cold:
        assert cold.get("/livez").status_code == 200
        answer = cold.get("/readyz")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["type"] == "urn:modelport:unavailable"


# A model that fails


def broken(how: str) -> Any:
    def predict(columns: Any) -> Any:
        rows = len(columns["petal_length"])
        if columns["petal_length"][0] < 2:
            return by_petal(columns)
        if how == "raises":
            raise RuntimeError("secret: /home/me/weights")
        if how == "input":
            raise InvalidInput("petal_length", "no figures for so long a petal")
        good = by_petal(columns)
        return {
            "short": good | {"prediction": good["prediction"][:-1]},
            "missing": {"prediction": good["prediction"]},
            "nan": good | {"probabilities": np.full((rows, 3), np.nan)},
            "infinite": good | {"probabilities": np.full((rows, 3), np.inf)},
            "none": good | {"prediction": np.array([None] * rows)},
            "object": good | {"prediction": np.array([object()] * rows)},
            "exotic": good | {"prediction": np.array(["\ud800"] * rows, dtype=object)},
        }[how]

    return predict


@pytest.mark.parametrize("how", ["short", "missing", "nan", "infinite", "none", "object", "exotic"])
@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
def test_an_answer_that_breaks_the_contract_is_a_500_and_never_a_200(how: str, accept: str) -> None:
    with live(make_service(broken(how))) as running, running.client() as client:
        answer = client.post("/predict", json=[FLOWER | {"petal_length": 6.0}] * 2, headers={"Accept": accept})
        assert (answer.status_code, answer.json()["type"]) == (500, "urn:modelport:model-contract")
        assert client.post("/predict", json=FLOWER).status_code == 200


def test_a_model_that_raises_is_a_500_whose_story_stands_in_the_log_only() -> None:
    with live(make_service(broken("raises"))) as running, running.client() as client:
        answer = client.post("/predict", json=FLOWER | {"petal_length": 6.0})
        problem = answer.json()
        assert (answer.status_code, problem["type"]) == (500, "urn:modelport:model-failed")
        assert "secret" not in answer.text
        assert "RuntimeError" not in answer.text
        (failure,) = [entry for entry in running.log.entries() if entry["event"] == "failure"]
        assert failure["request_id"] == problem["request_id"] == answer.headers["x-request-id"]
        assert "secret: /home/me/weights" in failure["traceback"]


def test_a_model_may_refuse_input_in_its_own_words() -> None:
    with live(make_service(broken("input"))) as running, running.client() as client:
        answer = client.post("/predict", json=FLOWER | {"petal_length": 6.0})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/petal_length"


# Several models


def test_several_models_are_served_below_their_names() -> None:
    with live([make_service(), make_service(counted, EVERY_KIND, name="every", version="")]) as running, running.client() as client:
        assert client.post("/models/iris/predict", json=FLOWER).json()["prediction"] == "setosa"
        assert client.post("/models/every/predict", json=EVERY_KIND.example()).json()["rows"] == 1
        assert client.post("/models/every/predict", json=EVERY_KIND.example()).headers["x-model"].startswith("every sha256:")
        missing = client.post("/predict", json=FLOWER)
        assert missing.status_code == 404
        assert missing.json()["hint"] == "Models are asked at /models/iris/predict, /models/every/predict."
        assert client.post("/models/irs/predict", json=FLOWER).json()["detail"] == "there is no model 'irs'; did you mean \"iris\"?"
        assert [model["name"] for model in client.get("/").json()["models"]] == ["iris", "every"]
        assert client.get("/models/iris/").json()["endpoints"]["predict"] == "/models/iris/predict"
        assert set(client.get("/openapi.json").json()["paths"]) >= {"/models/iris/predict", "/models/every/predict"}
        assert "/predict" in client.get("/models/every/openapi.json").json()["paths"]
        assert client.get("/models/every/docs").headers["content-type"].startswith("text/html")
        assert client.get("/models/every/", headers={"Accept": "text/html"}).headers["content-type"].startswith("text/html")
        assert client.get("/models/none/", headers={"Accept": "text/html"}).status_code == 404


def test_one_model_is_served_below_its_name_too(client: httpx.Client) -> None:
    assert client.post("/models/iris/predict", json=FLOWER).json() == client.post("/predict", json=FLOWER).json()


def test_labels_that_a_spreadsheet_would_run_are_made_harmless_in_csv_and_left_alone_in_json() -> None:
    labels = ("=cmd|' /C calc'!A0", "-1.5e3", "plain")
    signature = Signature(IRIS.inputs, (Field("prediction", "category", choices=labels),))
    service = make_service(
        lambda columns: {"prediction": np.array(labels, dtype=object)[np.arange(len(columns["sepal_width"])) % 3]}, signature
    )
    with live(service) as running, running.client() as client:
        assert [row["prediction"] for row in client.post("/predict", json=[FLOWER] * 3).json()] == list(labels)
        table = client.post("/predict", json=[FLOWER] * 3, headers={"Accept": "text/csv"}).text
        assert table == "prediction\r\n'=cmd|' /C calc'!A0\r\n-1.5e3\r\nplain\r\n"


def test_the_log_has_one_line_a_request_and_neither_bodies_nor_queries() -> None:
    with live(make_service()) as running, running.client() as client:
        client.post("/predict?token=canary", json=[FLOWER] * 2, headers={"X-Request-Id": "mine"})
        client.get("/canary%0Aline")
    first, second = running.log.entries()
    assert {key: first[key] for key in ("event", "request_id", "method", "path", "status", "rows", "model", "client")} == {
        "event": "request", "request_id": "mine", "method": "POST", "path": "/predict", "status": 200, "rows": 2, "model": "iris:3",
        "client": "127.0.0.1",
    }  # fmt: skip
    assert (second["status"], second["path"]) == (404, "/canary%0Aline")
    assert "canary" not in json.dumps(first)
    assert "setosa" not in json.dumps(first)
    assert "petal" not in json.dumps(first)


def test_class_names_are_the_keys_of_probabilities(client: httpx.Client) -> None:
    assert tuple(client.post("/predict", json=FLOWER).json()["probabilities"]) == CLASSES

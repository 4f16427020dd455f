"""Bodies become columns: the quick decoder and the slow one agree, and nothing that is sent breaks them."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport.errors import InvalidInput, MalformedBody, RequestError
from modelport.serving.inputs import Inputs, parse_json
from modelport.signature import Field, Signature
from serving_world import EVERY_KIND, FLOWER, IRIS

MOST = 100_000

SIGNATURES = {
    "iris": IRIS,
    "every kind": EVERY_KIND,
    "nullable": Signature(tuple(Field(name, "number", nullable=True) for name in "abc"), ()),
    "texts": Signature((Field("a", "string"), Field("b", "text", nullable=True), Field("c", "category", choices=('x"', "y\\", "ü"))), ()),
    "odd names": Signature((Field('b"\\', "number"), Field("\n", "number"), Field(" ", "number")), ()),
    "dates": Signature((Field("when", "datetime"), Field("then", "datetime", nullable=True)), ()),
    "odd choices": Signature((Field("a", "category", choices=(True, 2, 2.5, "x")), Field("b", "category", choices=(False, True))), ()),
    "bounded": Signature(
        (Field("a", "number", minimum=0.5, maximum=1.5), Field("b", "integer", minimum=0.5), Field("c", "integer", dtype="uint8")), ()
    ),
    "single precision": Signature((Field("a", "number", dtype="float32"), Field("b", "tensor", dtype="int32", shape=(-1,))), ()),
    "wide": Signature(tuple(Field(f"c{index}", "number", nullable=index == 7) for index in range(260)), ()),
    "wide and single": Signature(tuple(Field(f"c{index}", "number", dtype="float32") for index in range(260)), ()),
    "wide and mixed": Signature((Field("text", "string"), *(Field(f"c{index}", "number") for index in range(300))), ()),
}  # fmt: skip
READERS = {name: Inputs(signature) for name, signature in SIGNATURES.items()}


def verdict(read: Any, body: bytes) -> Any:
    """What comes of a body: the columns, or the error's name and places."""
    try:
        rows = read(body, MOST)
    except InvalidInput as error:
        return "422", [wrong.pointer for wrong in error.errors]
    except RequestError as error:
        return error.status, error.message
    return (
        rows.single,
        rows.count,
        {name: (str(column.dtype), column.shape, repr(column.tolist())) for name, column in rows.columns.items()},
    )


def good_value(field: Field) -> st.SearchStrategy[Any]:
    low, high = field.minimum, field.maximum
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "number": st.floats(low, high, allow_nan=False, allow_infinity=False, width=32 if field.dtype == "float32" else 64)
        | st.integers(-9, 9),
        "integer": st.integers(-5, 300) | st.sampled_from([2**63 - 1, -(2**63), 3.0, 2**53 + 1]),
        "boolean": st.booleans(),
        "string": st.text(max_size=8),
        "text": st.text(max_size=8),
        "category": st.sampled_from(field.choices or (None,)),
        "datetime": st.datetimes().map(lambda moment: moment.isoformat())
        | st.sampled_from(["2024-02-30", "2024-01-01T00:00:00+02:00", "x"]),
        "tensor": st.lists(st.lists(st.floats(-9, 9), min_size=2, max_size=2), min_size=2, max_size=2)
        | st.lists(st.integers(-9, 9), max_size=3),
        "json": st.recursive(
            st.none() | st.integers() | st.text(max_size=3), lambda part: st.lists(part) | st.dictionaries(st.text(max_size=3), part)
        ),
    }
    return kinds[field.kind] | (st.none() if field.nullable else st.nothing())


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(10**25), 10**25) | st.text(max_size=5),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3),
    max_leaves=6,
)


@st.composite
def bodies(draw: st.DrawFn, name: str) -> bytes:
    """Bodies that are mostly right: records with a field too many, too few, twice, or of another kind; then perhaps a byte changed."""

    signature = SIGNATURES[name]

    def record() -> str:
        pairs = [(field.name, draw(good_value(field)) if index < 10 else index) for index, field in enumerate(signature.inputs)]
        if draw(st.booleans()):
            index = draw(st.integers(0, len(pairs) - 1))
            change = draw(st.sampled_from(["drop", "twice", "else", "rename", "order"]))
            if change == "drop":
                del pairs[index]
            elif change == "twice":
                pairs.insert(draw(st.integers(0, len(pairs))), pairs[index])
                if draw(st.booleans()):
                    del pairs[draw(st.integers(0, len(pairs) - 1))]
            elif change == "else":
                pairs[index] = (pairs[index][0], draw(ANY_JSON))
            elif change == "rename":
                pairs[index] = (draw(st.text(max_size=4)), pairs[index][1])
            else:
                pairs.reverse()
        ascii_only = draw(st.booleans())
        return (
            "{"
            + ",".join(f"{json.dumps(key, ensure_ascii=ascii_only)}: {json.dumps(value, ensure_ascii=ascii_only)}" for key, value in pairs)
            + "}"
        )

    rows = [record() for _ in range(draw(st.integers(0, 3)))]
    text = record() if draw(st.booleans()) else "[" + ", ".join(rows) + "]"
    body = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0 and body:
        index = draw(st.integers(0, len(body) - 1))
        body = body[:index] + draw(st.binary(max_size=2)) + body[index + 1 :]
    return body


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_quick_decoder_and_the_slow_one_give_the_same_verdict(name: str) -> None:
    inputs = READERS[name]

    @settings(max_examples=10 if name.startswith("wide") else 100, deadline=None)
    @given(bodies(name))
    def agree(body: bytes) -> None:
        assert verdict(inputs.json, body) == verdict(inputs._json_slowly, body)

    agree()


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=60)
    | ANY_JSON.map(lambda value: json.dumps(value).encode())
    | st.text('{}[]",:0123456789.eE+-nulltrefas \\ud8', max_size=40).map(str.encode)
)
@pytest.mark.parametrize("name", ["iris", "every kind", "texts"])
def test_whatever_is_sent_as_json_gives_columns_or_an_error_of_the_request(name: str, body: bytes) -> None:
    verdict(READERS[name].json, body)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text('abc,"\n\r;\t\x00\ufeff0.-', max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
@pytest.mark.parametrize("name", ["nullable", "texts"])
@pytest.mark.parametrize("headless", [False, True])
def test_whatever_is_sent_as_csv_gives_columns_or_an_error_of_the_request(name: str, headless: bool, body: bytes) -> None:
    verdict(lambda sent, most: READERS[name].csv(sent, most, headless=headless)[0], body)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.fixed_dictionaries({field.name: good_value(field) for field in IRIS.inputs}), min_size=1, max_size=5))
def test_csv_and_json_of_the_same_rows_give_the_same_columns(rows: list[dict[str, float]]) -> None:
    out = io.StringIO(newline="")
    table = csv.DictWriter(out, list(FLOWER))
    table.writeheader()
    table.writerows(rows)
    from_csv, header = READERS["iris"].csv(out.getvalue().encode(), MOST)
    from_json = READERS["iris"].json(json.dumps(rows).encode(), MOST)
    assert header
    for name in FLOWER:
        np.testing.assert_array_equal(from_csv.columns[name], from_json.columns[name])


@pytest.mark.parametrize("name", SIGNATURES)
def test_an_ordinary_body_takes_the_quick_way_where_there_is_one(name: str) -> None:
    signature = SIGNATURES[name]
    values: dict[str, Any] = {
        "number": 1.0,
        "integer": 1,
        "boolean": True,
        "string": 'a "b"',
        "text": "ü",
        "datetime": "2024-01-01",
        "json": {"a": [1]},
    }
    record = {
        field.name: field.choices[0]
        if field.choices
        else [[1.0, 2.0], [3.0, 4.0]]
        if field.shape == (2, 2)
        else [1]
        if field.shape
        else values[field.kind]
        for field in signature.inputs
    }
    fast = READERS[name]._fast
    rows = fast(json.dumps(record).encode()) if fast else None
    assert (rows is None) is (name in ("wide and mixed", "odd names"))


@pytest.mark.parametrize("order", ["in order", "reversed"])
def test_five_thousand_fields_are_read(order: str) -> None:
    names = [f"c{index}" for index in range(5000)]
    inputs = Inputs(Signature(tuple(Field(name, "number") for name in names), ()))
    record = {name: index / 2 for index, name in enumerate(names)}
    sent = dict(reversed(record.items())) if order == "reversed" else record
    rows = inputs.json(json.dumps([sent] * 3).encode(), MOST)
    assert list(rows.columns) == names
    assert {name: column.tolist() for name, column in rows.columns.items()} == {name: [value] * 3 for name, value in record.items()}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"a": 1, "a": 2}', '""'),
        (b'[{"b": {"c": [0, {"d": 1, "d": 1}]}}]', '"/0/b/c/1"'),
        (b'{"x/y": {"~": {"a": 1, "\\u0061": 2}}}', '"/x~1y/~0"'),
    ],
)
def test_a_key_that_stands_twice_is_named_with_its_place(body: bytes, pointer: str) -> None:
    with pytest.raises(MalformedBody, match="stands twice") as caught:
        parse_json(body)
    assert pointer in caught.value.message


def test_a_header_is_told_from_a_first_row_only_where_both_are_taken() -> None:
    inputs = READERS["iris"]
    rows, header = inputs.csv(b"5.1,3.5,1.4,0.2\n6,3,5,2\n", MOST, headless=True)
    assert (header, rows.count, rows.columns["petal_length"].tolist()) == (False, 2, [1.4, 5.0])
    rows, header = inputs.csv(b"petal_width,petal_length,sepal_width,sepal_length\n5.1,3.5,1.4,0.2\n", MOST, headless=True)
    assert (header, rows.count, rows.columns["petal_length"].tolist()) == (True, 1, [3.5])
    with pytest.raises(InvalidInput):
        inputs.csv(b"5.1,3.5,1.4,0.2\n6,3,5,2\n", MOST)


def test_an_integer_too_long_to_read_is_refused_in_a_field_of_any_json_too() -> None:
    body = json.dumps(EVERY_KIND.example()).replace('{"a": [1]}', '{"a": [' + "1" * 5000 + "]}")
    with pytest.raises(MalformedBody, match='"/0/any/a/0" has over 4000 digits'):
        READERS["every kind"].json(body.encode(), MOST)

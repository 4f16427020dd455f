"""The signature: wrong values are named, columns and JSON are the same thing in two forms, and the JSON Schema says what is taken."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from modelport import pictures
from modelport.errors import InvalidInput, ModelContract, SignatureError
from modelport.pictures import PictureError
from modelport.preprocessing import Preprocessing
from modelport.signature import (
    MAX_ERRORS,
    MAX_INTEGER,
    MAX_NUMBER,
    Field,
    Signature,
    WrongValue,
    check,
    did_you_mean,
    from_cell,
    is_null,
    to_array,
    to_plain,
)

FIELDS = {
    "number": Field("f", "number"),
    "integer": Field("f", "integer"),
    "boolean": Field("f", "boolean"),
    "string": Field("f", "string"),
    "text": Field("f", "text"),
    "category": Field("f", "category", choices=("red", "green", "blue")),
    "datetime": Field("f", "datetime"),
    "tensor": Field("f", "tensor", shape=(2,)),
}


def detail(field: Field, value: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        Signature((field,), ()).columns([{field.name: value}], single=True)
    assert [error.pointer for error in caught.value.errors] == [f"/{field.name}"]
    return caught.value.errors[0].detail


@pytest.mark.parametrize(
    ("kind", "value", "column"),
    [
        ("number", 1.5, np.array([1.5])),
        ("number", 2, np.array([2.0])),
        ("number", -MAX_NUMBER, np.array([-MAX_NUMBER])),
        ("integer", MAX_INTEGER, np.array([MAX_INTEGER])),
        ("integer", -(2**63), np.array([-(2**63)])),
        ("integer", 3.0, np.array([3])),
        ("boolean", True, np.array([True])),
        ("string", "", np.array([""], dtype=object)),
        ("string", "NaN", np.array(["NaN"], dtype=object)),
        ("text", "two\nlines", np.array(["two\nlines"], dtype=object)),
        ("category", "green", np.array(["green"], dtype=object)),
        ("datetime", "2024-02-29", np.array(["2024-02-29"], dtype="datetime64[us]")),
        ("datetime", "2024-02-29T12:00:00+02:00", np.array(["2024-02-29T10:00"], dtype="datetime64[us]")),
        ("datetime", "2024-02-29T12:00:00Z", np.array(["2024-02-29T12:00"], dtype="datetime64[us]")),
        ("tensor", [1, 2.5], np.array([[1, 2.5]])),
    ],
)
def test_a_right_value_becomes_a_column_of_its_kind(kind: str, value: Any, column: np.ndarray) -> None:
    made = Signature((FIELDS[kind],), ()).columns([{"f": value}])["f"]
    assert made.dtype == column.dtype
    assert made.tolist() == column.tolist()


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("number", "1.5", 'expected a number, got the string "1.5"'),
        ("number", True, "expected a number, got true"),
        ("number", [1], "expected a number, got a list"),
        ("number", {"a": 1}, "expected a number, got an object"),
        ("number", math.nan, "expected a finite number, got nan"),
        ("number", -math.inf, "expected a finite number, got -inf"),
        ("number", 10**400, "expected a finite number, got an integer of 401 digits"),
        ("number", None, "is null: expected a number"),
        ("integer", 1.5, "expected an integer, got the number 1.5"),
        ("integer", False, "expected an integer, got false"),
        ("integer", "1", 'expected an integer, got the string "1"'),
        ("integer", 2**63, "expected an integer of at most 9223372036854775807, got 9223372036854775808"),
        ("integer", math.nan, "expected an integer, got the number nan"),
        ("boolean", 1, "expected true or false, got the number 1"),
        ("boolean", "true", 'expected true or false, got the string "true"'),
        ("string", 1, "expected a string, got the number 1"),
        ("string", "a\ud800", "holds half of a surrogate pair, which is not text"),
        ("text", None, "is null: expected a string"),
        ("category", "gren", 'expected one of "red", "green", "blue", got the string "gren"; did you mean "green"?'),
        ("category", 1, 'expected one of "red", "green", "blue", got the number 1'),
        ("category", ["red"], 'expected one of "red", "green", "blue", got a list'),
        ("datetime", "yesterday", 'expected an ISO 8601 date or date-time, got the string "yesterday"'),
        ("datetime", "2023-02-29", 'expected an ISO 8601 date or date-time, got the string "2023-02-29"'),
        ("datetime", 1700000000, "expected an ISO 8601 date or date-time, got the number 1700000000"),
        ("tensor", [1], "expected numbers of shape 2, got a list of 1"),
        ("tensor", [1, "2"], 'expected numbers of shape 2, got the string "2" in it'),
        ("tensor", [1, math.nan], "expected numbers of shape 2, got the number nan in it"),
        ("tensor", [1, True], "expected numbers of shape 2, got true in it"),
        ("tensor", 1, "expected numbers of shape 2, got the number 1"),
        ("number", "\ud800", 'expected a number, got the string "\ufffd"'),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(kind: str, value: Any, words: str) -> None:
    assert detail(FIELDS[kind], value) == words


def test_an_integer_too_long_to_print_is_described() -> None:
    assert detail(FIELDS["integer"], 10**5000) == "expected an integer of at most 9223372036854775807, got an integer of over 4000 digits"


def test_a_value_out_of_range_is_told_the_bound_it_crosses() -> None:
    field = Field("f", "number", minimum=0.1, maximum=5, nullable=True)
    assert detail(field, -1) == "expected a number of at least 0.1, got -1"
    assert detail(field, 5.0000001) == "expected a number of at most 5, got 5.0000001"
    assert detail(Field("f", "number", dtype="float32"), 1e39) == "expected a number of at most 3.4028234663852886e+38, got 1e+39"
    assert detail(Field("f", "integer", dtype="uint8"), -1) == "expected an integer of at least 0, got -1"
    assert detail(Field("f", "integer", minimum=0.5), 0) == "expected an integer of at least 1, got 0"
    assert check(field, 0.1) == 0.1


def test_null_is_taken_where_a_field_is_nullable_and_has_the_form_of_its_kind() -> None:
    for kind, field in FIELDS.items():
        nullable = Field(**{slot: getattr(field, slot) for slot in ("name", "kind", "choices", "shape")}, nullable=True)
        column = Signature((nullable,), ()).columns([{"f": None}, {}])["f"]
        null = {"number": np.isnan, "integer": np.isnan, "datetime": np.isnat}.get(kind, lambda values: [value is None for value in values])
        assert np.all(null(column)), kind


def test_true_is_no_1_in_a_category_and_1_is_no_string() -> None:
    assert check(Field("f", "category", choices=(0, 1)), 1.0) == 1
    assert type(check(Field("f", "category", choices=(0, 1)), 1.0)) is int
    assert check(Field("f", "category", choices=(False, True)), True) is True
    for choices, value in (((0, 1), True), ((False, True), 1), (("1",), 1), ((1,), "1")):
        with pytest.raises(WrongValue):
            check(Field("f", "category", choices=choices), value)


def test_unknown_and_missing_fields_are_named_with_the_nearest_name() -> None:
    signature = Signature((Field("petal_width", "number"), Field("petal_length", "number", nullable=True)), ())
    with pytest.raises(InvalidInput) as caught:
        signature.columns([{"petal_width": 1}, {"petal_widht": 1}, 7, None, [1]])
    assert [(error.pointer, error.detail) for error in caught.value.errors] == [
        ("/1/petal_widht", 'there is no field "petal_widht"; did you mean "petal_width"?'),
        ("/1/petal_width", "is missing: expected a number"),
        ("/2", "expected an object with the fields petal_width, petal_length, got the number 7"),
        ("/3", "expected an object with the fields petal_width, petal_length, got null"),
        ("/4", "expected an object with the fields petal_width, petal_length, got a list"),
    ]


def test_an_unknown_name_with_half_a_surrogate_pair_gives_an_error_that_utf_8_can_hold() -> None:
    with pytest.raises(InvalidInput) as caught:
        Signature((Field("a", "number"),), ()).columns([{"a": 1, "\ud800": "\udfff"}])
    assert json.dumps(caught.value.errors[0].to_dict(), ensure_ascii=False).encode()


NAMES = ["a b", "a.b", "a/b", "a~b", 'a"b', "a'b", "ñ", "Größe (m²)", "class", "0", " ", "日本", "a\nb", "__class__", "$ref", "example"]


def test_any_column_name_works() -> None:
    signature = Signature(tuple(Field(name, "number", example=1.0) for name in NAMES), ())
    assert Signature.from_dict(json.loads(json.dumps(signature.to_dict()))) == signature
    assert list(signature.columns([signature.example()])) == NAMES
    jsonschema.Draft202012Validator(signature.input_schema()).validate(signature.example())
    with pytest.raises(InvalidInput) as caught:
        signature.columns([dict.fromkeys(NAMES, "x")])
    assert [error.pointer for error in caught.value.errors][:4] == ["/0/a b", "/0/a.b", "/0/a~1b", "/0/a~0b"]


def test_examples_that_are_empty_or_false_survive_the_manifest() -> None:
    for field in (Field("f", "string", example=""), Field("f", "boolean", example=False), Field("f", "integer", example=0, minimum=0)):
        again = Field.from_dict(json.loads(json.dumps(field.to_dict())))
        assert again == field
        assert type(again.example) is type(field.example)


def test_a_record_with_thousands_of_wrong_values_is_read_to_a_limit() -> None:
    fields = tuple(Field(f"column_{index}", "number") for index in range(5000))
    with pytest.raises(InvalidInput) as caught:
        Signature(fields, ()).columns([{f"colunm_{index}": 1 for index in range(5000)} for _ in range(3)])
    assert MAX_ERRORS <= len(caught.value.errors) <= MAX_ERRORS + 5000
    assert sum("did you mean" in error.detail for error in caught.value.errors) <= 20


def test_five_thousand_fields_are_read_and_described() -> None:
    fields = tuple(Field(f"c{index}", "number") for index in range(5000))
    signature = Signature(fields, fields)
    columns = signature.columns([{f"c{index}": index for index in range(5000)}] * 3)
    assert signature.records(columns)[2]["c4999"] == 4999.0
    assert len(signature.input_schema()["required"]) == 5000


def test_csv_cells_are_read_by_the_kind_of_their_field() -> None:
    cases: list[tuple[Field, str, Any]] = [
        (FIELDS["number"], " 1.5 ", 1.5),
        (FIELDS["number"], "-.5e-3", -0.0005),
        (FIELDS["integer"], "7.0", 7),
        (FIELDS["integer"], "007", 7),
        (FIELDS["integer"], "9223372036854775807", MAX_INTEGER),
        (FIELDS["boolean"], "TRUE", True),
        (FIELDS["boolean"], "0", False),
        (FIELDS["string"], "007", "007"),
        (FIELDS["string"], "NA", "NA"),
        (FIELDS["string"], "", ""),
        (FIELDS["category"], "red", "red"),
        (Field("f", "category", choices=(1, 2)), "2.0", 2),
        (Field("f", "category", choices=(True, False)), "false", False),
        (Field("f", "category", choices=("None", "Some"), nullable=True), "None", "None"),
        (Field("f", "category", choices=("None", "Some"), nullable=True), "", None),
        (Field("f", "string", nullable=True), "NA", "NA"),
        (Field("f", "string", nullable=True), "", None),
        (Field("f", "number", nullable=True), "NaN", None),
        (Field("f", "datetime", nullable=True), "", None),
        (FIELDS["tensor"], "[1, 2]", [1, 2]),
        (Field("f", "json"), '{"a": [1]}', {"a": [1]}),
        (Field("f", "json"), "bare words", "bare words"),
    ]
    for field, cell, value in cases:
        read = check(field, from_cell(field, cell)) if value is not None else from_cell(field, cell)
        assert read == value
        assert type(read) is type(value), (field, cell)


BAD_CELLS = {
    "number": ["", "nan", "inf", "1e400", "1_000", "0x10", "\u0661", "1,5", "9" * 5000],
    "integer": ["", "1.5", "9" * 5000],
    "boolean": ["", "yes", "2"],
    "category": ["", "Red"],
    "datetime": ["", "31.1.2024"],
    "tensor": ["", "[1, NaN]", "1 2", "[" * 100_000],
}


@pytest.mark.parametrize("kind", BAD_CELLS)
def test_a_cell_that_stands_for_no_value_of_its_field_is_refused(kind: str) -> None:
    for cell in BAD_CELLS[kind]:
        with pytest.raises(InvalidInput):
            Signature((FIELDS[kind],), ()).columns_from_text({"f": [cell]})


def test_csv_errors_name_row_and_column_and_the_header_is_checked() -> None:
    signature = Signature((Field("price", "number"), Field("note", "string", nullable=True)), ())
    assert signature.columns_from_text({"price": ["1", "2"]})["note"].tolist() == [None, None]
    with pytest.raises(InvalidInput) as caught:
        signature.columns_from_text({"price": ["1", "x"], "notes": ["", ""]}, first_row=10)
    assert [(error.pointer, error.detail) for error in caught.value.errors] == [
        ("/notes", 'there is no field "notes"; did you mean "note"?'),
        ("/11/price", 'expected a number, got the string "x"'),
    ]
    with pytest.raises(InvalidInput) as caught:
        signature.columns_from_text({"note": ["a"]})
    assert [(error.pointer, error.detail) for error in caught.value.errors] == [("/price", "the column is missing")]


# Properties

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@st.composite
def fields(draw: st.DrawFn) -> Field:
    kind = draw(st.sampled_from(["number", "integer", "boolean", "string", "category", "tensor", "json"]))
    nullable = draw(st.booleans())
    name = draw(names)
    if kind in ("number", "integer"):
        low, high = sorted((draw(finite), draw(finite)))
        bounds = draw(st.sampled_from([(None, None), (low, None), (None, high), (low, high)]))
        dtype = draw(st.sampled_from([None, "float32"] if kind == "number" else [None, "int8", "uint64"]))
        made = Field(name, kind, dtype=dtype, nullable=nullable, minimum=bounds[0], maximum=bounds[1])
        assume(made._lowest() <= made._highest())
        return made
    if kind == "category":
        choices = draw(st.lists(st.text(max_size=3) | st.integers(-3, 3), min_size=1, max_size=4, unique=True))
        return Field(name, kind, nullable=nullable, choices=tuple(choices))
    if kind == "tensor":
        shape = draw(st.lists(st.sampled_from([-1, 1, 2]), min_size=1, max_size=2))
        return Field(name, kind, dtype=draw(st.sampled_from(["float32", "int8", "float64"])), shape=tuple(shape), nullable=nullable)
    return Field(name, kind, nullable=nullable)


signatures = st.lists(fields(), min_size=1, max_size=4, unique_by=lambda field: field.name).map(lambda made: Signature(tuple(made), ()))
scalars = st.none() | st.booleans() | st.integers(-300, 300) | st.integers() | finite | st.text(st.characters(codec="utf-8"), max_size=4)
values = (
    scalars
    | st.lists(st.integers(-2, 300) | finite, max_size=2)
    | st.lists(st.lists(st.integers(-2, 2), min_size=1, max_size=2), max_size=2)
)


def fitting(field: Field) -> st.SearchStrategy[Any]:
    """Values that are likely to fit the field."""
    likely: dict[str, st.SearchStrategy[Any]] = {
        "boolean": st.booleans(),
        "string": st.text(st.characters(codec="utf-8"), max_size=4),
        "category": st.sampled_from(field.choices) if field.choices else st.none(),
        "json": values,
    }
    return likely.get(field.kind, values)


@st.composite
def signature_and_record(draw: st.DrawFn) -> tuple[Signature, Any]:
    signature = draw(signatures)
    record = {field.name: draw(fitting(field) | values) for field in signature.inputs if draw(st.integers(0, 9))}
    if draw(st.integers(0, 9)) == 0:
        record[draw(names)] = draw(values)
    return signature, record


def ragged(value: Any) -> bool:
    return isinstance(value, list) and len({len(part) for part in value if isinstance(part, list)}) > 1


@given(signature_and_record())
@settings(max_examples=250, deadline=None)
def test_the_json_schema_takes_a_record_if_and_only_if_the_signature_does(made: tuple[Signature, Any]) -> None:
    signature, record = made
    schema = signature.input_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    schema_takes_it = jsonschema.Draft202012Validator(schema).is_valid(record)
    try:
        signature.columns([record])
        signature_takes_it = True
    except InvalidInput:
        signature_takes_it = False
    if any(ragged(record.get(field.name)) for field in signature.inputs if field.kind == "tensor"):
        assert not signature_takes_it  # JSON Schema has no words for this
    else:
        assert schema_takes_it == signature_takes_it


@given(signatures)
@settings(max_examples=100, deadline=None)
def test_a_signature_survives_json(signature: Signature) -> None:
    assert Signature.from_dict(json.loads(json.dumps(signature.to_dict()))) == signature


def as_cell(value: Any) -> str:
    """A value as a person writes it into a CSV file."""
    if isinstance(value, list | dict):
        return json.dumps(value)
    return "" if value is None else str(value)


@given(signature_and_record())
@settings(max_examples=250, deadline=None)
def test_a_value_written_as_csv_and_as_json_gives_the_same_column(made: tuple[Signature, Any]) -> None:
    signature, record = made
    for field in signature.inputs:
        value = record.get(field.name)
        try:
            column = Signature((field,), ()).columns([{field.name: value}])[field.name]
        except InvalidInput:
            continue
        if field.kind == "json" and not isinstance(value, list | dict):
            continue  # the cell 1 is a number and a text
        if value is None and field.kind == "category" and "" in field.choices:
            continue  # the empty cell is the choice
        if value == "" and field.kind == "string" and field.nullable:
            continue  # the empty cell is null
        if field.kind == "category" and len({str(choice) for choice in field.choices}) < len(field.choices):
            continue  # the cell 1 is the choice "1" and the choice 1
        if field.kind == "category" and isinstance(value, str) and any(not isinstance(choice, str) for choice in field.choices):
            continue
        from_text = Signature((field,), ()).columns_from_text({field.name: [as_cell(value)]})[field.name]
        assert from_text.dtype == column.dtype
        assert repr(from_text.tolist()) == repr(column.tolist())


@given(signature_and_record())
@settings(max_examples=200, deadline=None)
def test_input_records_are_the_reverse_of_columns(made: tuple[Signature, Any]) -> None:
    signature, record = made
    try:
        columns = signature.columns([record, record])
    except InvalidInput:
        return
    records = signature.input_records(columns)
    again = signature.columns(records)
    assert all(repr(again[name].tolist()) == repr(columns[name].tolist()) for name in columns)
    assert json.dumps(records, allow_nan=False)


# Columns out


@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64", "longdouble"]
)
def test_numbers_of_every_dtype_become_plain_numbers(dtype: str) -> None:
    plain = to_plain(Field("f", "number"), np.array([1, 2, 100], dtype=dtype))
    assert json.dumps(plain) in ("[1, 2, 100]", "[1.0, 2.0, 100.0]")
    assert {type(value) for value in plain} <= {int, float}


@pytest.mark.parametrize(
    ("column", "plain"),
    [
        (np.array([True, False]), [True, False]),
        (np.array(["a", "ñ"]), ["a", "ñ"]),
        (np.array([b"a", b"b"]), ["a", "b"]),
        (np.array([np.str_("a"), np.int64(1), np.float32(0.5), np.bool_(True), None], dtype=object), ["a", 1, 0.5, True, None]),
        (np.array([{"a": np.float64(1)}, (1, np.uint8(2)), [np.nan]], dtype=object), [{"a": 1.0}, [1, 2], [None]]),
        (np.array(["2024-01-31T12:00", "NaT"], dtype="datetime64[m]"), ["2024-01-31T12:00:00Z", None]),
        (np.array(["2024-01-31T12:00:00.5"], dtype="datetime64[ns]"), ["2024-01-31T12:00:00.500000Z"]),
        (np.array([np.datetime64("2024-01-31T12", "ns"), np.datetime64("NaT", "us")], dtype=object), ["2024-01-31T12:00:00Z", None]),
        (np.array([pd.Timestamp("2024-01-31T12:00+02:00"), pd.NaT], dtype=object), ["2024-01-31T10:00:00Z", None]),
        (np.array([datetime(2024, 1, 31, tzinfo=timezone(timedelta(hours=1)))], dtype=object), ["2024-01-30T23:00:00Z"]),
        (np.array([date(2024, 1, 31)], dtype=object), ["2024-01-31"]),
        (np.array([90061_000_001, "NaT"], dtype="timedelta64[us]"), ["P1DT3661.000001S", None]),
        (np.array([pd.Timedelta(hours=-36), np.timedelta64(5, "ns")], dtype=object), ["-P1DT43200S", "P0DT0S"]),
        (np.asarray(pd.array([1, None], dtype="Int64")), [1, None]),
        (np.asarray(pd.array([True, None], dtype="boolean")), [True, None]),
        (np.asarray(pd.array(["a", None], dtype="string")), ["a", None]),
        (np.asarray(pd.Series(["a", None], dtype="string")), ["a", None]),
        (np.asarray(pd.Categorical(["a", None, "b"])), ["a", None, "b"]),
        (np.asarray(pd.period_range("2024-01", periods=2, freq="M")), ["2024-01", "2024-02"]),
        (np.asarray(pd.interval_range(0, 2)), ["(0, 1]", "(1, 2]"]),
        (np.array([np.longdouble(1.5), math.nan], dtype=object), [1.5, None]),
        (np.array([1.5, np.nan]), [1.5, None]),
        (np.array([[1.5, np.nan], [2, 3]]), [[1.5, None], [2.0, 3.0]]),
    ],
)  # fmt: skip
def test_numpy_and_pandas_values_become_json(column: np.ndarray, plain: list[Any]) -> None:
    made = to_plain(Field("f", "json", nullable=True), column)
    assert made == plain
    assert json.loads(json.dumps(made, allow_nan=False)) == plain


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (np.array([1.0, np.nan]), "output 'f' of row 1 is nan, which is no number"),
        (np.array([[1.0], [np.inf]]), "output 'f' of row 1 is inf, which is no number"),
        (np.array(["NaT"], dtype="datetime64[us]"), "output 'f' holds None, which is no answer"),
        (np.array([None], dtype=object), "output 'f' holds None, which is no answer"),
        (np.array([pd.NA], dtype=object), "output 'f' holds <NA>, which is no answer"),
        (np.array([math.inf], dtype=object), "output 'f' holds inf, which is no answer"),
        (np.array([[math.nan]], dtype=object), "output 'f' holds nan, which is no answer"),
        (np.array([1 + 2j]), "output 'f' holds a builtins.complex, which JSON cannot hold"),
        (np.array([object], dtype=object), "output 'f' holds a builtins.type, which JSON cannot hold"),
    ],
)  # fmt: skip
def test_an_answer_that_json_cannot_hold_breaks_the_contract(column: np.ndarray, words: str) -> None:
    with pytest.raises(ModelContract) as caught:
        to_plain(Field("f", "number"), column)
    assert caught.value.message == words


def test_infinity_is_no_answer_even_where_null_is() -> None:
    with pytest.raises(ModelContract, match="row 1 is inf"):
        to_plain(Field("f", "number", nullable=True), np.array([np.nan, np.inf]))


def test_a_named_vector_is_an_object_and_its_length_is_checked() -> None:
    field = Field("p", "number", shape=(2,), choices=("no", True))
    assert to_plain(field, np.array([[0.25, 0.75]])) == [{"no": 0.25, "True": 0.75}]
    for column in (np.array([[1.0, 2.0, 3.0]]), np.array([1.0])):
        with pytest.raises(ModelContract, match="2 names"):
            to_plain(field, column)


def test_integers_that_travelled_as_floats_come_back_whole() -> None:
    made = to_plain(Field("f", "integer", nullable=True), np.array([3.0, np.nan]))
    assert made == [3, None]
    assert type(made[0]) is int


def test_json_lists_of_one_length_stay_values_of_their_row() -> None:
    column = to_array(Field("f", "json"), [[1, 2], [3, 4]])
    assert column.shape == (2,)
    assert column.tolist() == [[1, 2], [3, 4]]


def test_tensors_of_different_shapes_share_a_column_and_no_rows_make_an_empty_one() -> None:
    field = Field("f", "tensor", shape=(-1, 2), dtype="float32")
    assert to_array(field, []).shape == (0, 0, 2)
    assert to_array(field, [[[1, 2]], [[3, 4]]]).shape == (2, 1, 2)
    assert [part.shape for part in to_array(field, [[[1, 2]], [[3, 4], [5, 6]]])] == [(1, 2), (2, 2)]
    with pytest.raises(WrongValue, match="lists of different lengths"):
        check(Field("f", "tensor", shape=(-1, -1)), [[1], [2, 3]])


# What may be stated


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"kind": "number"}, "schema: a field needs a name and a kind, got {'kind': 'number'}"),
        ({"name": ""}, "schema: a field needs a name and a kind, got {'name': ''}"),
        ({"name": 3, "kind": "number"}, "schema: a field needs a name and a kind, got {'name': 3, 'kind': 'number'}"),
        ("age", 'schema: a field needs a name and a kind, got "age"'),
        ({"name": "a"}, "schema: field 'a' has no kind"),
        ({"name": "a", "kind": "float"}, "field 'a' has the kind 'float'"),
        ({"name": "a", "kind": ["number"]}, "field 'a' has the kind ['number']"),
        ({"name": "a", "kind": "number", "minimun": 1}, "schema: field 'a' has no 'minimun'; did you mean \"minimum\"?"),
        ({"name": "a", "kind": "number", "minimum": "1"}, "schema: minimum of field 'a' is \"1\""),
        ({"name": "a", "kind": "number", "minimum": True}, "schema: minimum of field 'a' is True"),
        ({"name": "a", "kind": "number", "maximum": math.inf}, "schema: maximum of field 'a' is inf"),
        ({"name": "a", "kind": "number", "maximum": 10**400}, "schema: maximum of field 'a' is 1" + "0" * 55 + "..."),
        ({"name": "a", "kind": "number", "minimum": 2, "maximum": 1}, "schema: minimum 2 and maximum 1 of 'a' leave no number"),
        ({"name": "a", "kind": "integer", "minimum": 1.2, "maximum": 1.8}, "schema: minimum 1.2 and maximum 1.8 of 'a' leave no integer"),
        ({"name": "a", "kind": "string", "minimum": 2}, "schema: 'a' has a minimum or maximum and is a string"),
        ({"name": "a", "kind": "number", "dtype": "float99"}, "schema: dtype of field 'a' is \"float99\""),
        ({"name": "a", "kind": "number", "dtype": 3}, "schema: dtype of field 'a' is 3"),
        ({"name": "a", "kind": "tensor", "shape": "2x2"}, "schema: shape of field 'a' is \"2x2\""),
        ({"name": "a", "kind": "tensor", "shape": [1.5]}, "schema: shape of field 'a' is [1.5]"),
        ({"name": "a", "kind": "category", "choices": "abc"}, "schema: choices of field 'a' is \"abc\""),
        ({"name": "a", "kind": "category", "choices": [None]}, "schema: choices of field 'a' is [None]"),
        ({"name": "a", "kind": "category"}, "field 'a' is a category without choices"),
        ({"name": "a", "kind": "category", "choices": []}, "field 'a' is a category without choices"),
        ({"name": "a", "kind": "number", "nullable": "yes"}, "schema: nullable of field 'a' is \"yes\""),
        ({"name": "a", "kind": "number", "description": 7}, "schema: description of field 'a' is 7"),
        ({"name": "\ud800", "kind": "number"}, "the name of field '\\ud800' holds half of a surrogate pair, which is not text"),
    ],
)
def test_a_field_stated_wrongly_is_refused_by_name(raw: Any, words: str) -> None:
    with pytest.raises(SignatureError) as caught:
        Field.from_dict(raw)
    assert caught.value.message == words


def test_a_signature_stated_wrongly_is_refused_by_name() -> None:
    for raw, words in (
        ({"input": []}, "schema has no 'input'; did you mean \"inputs\"?"),
        ({"inputs": {"a": "number"}}, "schema: inputs is {'a': 'number'}"),
        ({"inputs": [{"name": "a", "kind": "number"}] * 2}, "two inputs are called 'a'"),
    ):
        with pytest.raises(SignatureError) as caught:
            Signature.from_dict(raw)
        assert caught.value.message == words


def test_the_nearest_name_is_found_or_nothing_is_said() -> None:
    assert did_you_mean("petal", ["petals", "sepals"]) == '; did you mean "petals"?'
    assert did_you_mean("x", ["petals"]) == ""
    assert did_you_mean("x" * 10**6, ["petals"]) == ""


def test_every_way_to_say_nothing_is_null() -> None:
    for value in (None, math.nan, np.nan, np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT", "us")):
        assert is_null(value)
    for value in (0, "", False, np.array([1.0, 2.0]), pd.DataFrame({"a": [1]}), datetime.now(UTC)):
        assert not is_null(value)


# Pictures, and tensors as bytes


def picture(width: int = 8, height: int = 6) -> str:
    return pictures.to_base64(pictures.png(np.full((height, width, 3), 7, np.uint8)))


IMAGE = Field("image", "image", example=picture(), preprocessing=Preprocessing(4, 5))


def test_pictures_become_one_column_of_pixels() -> None:
    columns = Signature((IMAGE, Field("note", "text")), ()).columns(
        [{"image": picture(), "note": "a"}, {"image": picture(90, 9), "note": "b"}]
    )
    assert (columns["image"].shape, columns["image"].dtype) == ((2, 4, 5, 3), np.uint8)
    assert (columns["image"] == 7).all()
    assert Signature((IMAGE,), ()).columns([])["image"].shape == (0, 4, 5, 3)


def test_every_picture_that_is_wrong_is_named() -> None:
    ready = np.zeros((4, 5, 3), np.uint8)
    sent = [picture(), "!", b"%!PS", None, {"a": 1}, ready, np.zeros((4, 5)), PictureError("could not be fetched"), picture()[:-9]]
    with pytest.raises(InvalidInput) as caught:
        Signature((IMAGE,), ()).columns([{"image": one} for one in sent])
    assert {error.pointer: error.detail for error in caught.value.errors} == {
        "/1/image": "is no picture in base64",
        "/2/image": "is PostScript, and no JPEG, PNG or WEBP picture",
        "/3/image": "is null: expected a JPEG, PNG or WEBP picture in base64",
        "/4/image": "expected a JPEG, PNG or WEBP picture in base64, got an object",
        "/6/image": "expected numbers of shape 4x5x3, got the shape 4x5",
        "/7/image": "could not be fetched",
        "/8/image": "is no picture in base64",
    }
    assert all(len(json.dumps(error.to_dict())) < 300 for error in caught.value.errors)


def test_a_picture_may_be_missing_where_it_is_nullable_and_have_any_size_where_none_is_said() -> None:
    free = Field("image", "image", nullable=True)
    column = Signature((free,), ()).columns([{"image": picture(3, 2)}, {"image": None}, {}, {"image": picture(5, 4)}])["image"]
    assert [None if pixels is None else pixels.shape for pixels in column] == [(2, 3, 3), None, None, (4, 5, 3)]


def test_a_picture_in_a_cell_is_base64_too() -> None:
    signature = Signature((IMAGE,), ())
    assert signature.columns_from_text({"image": [picture()] * 2})["image"].shape == (2, 4, 5, 3)
    with pytest.raises(InvalidInput, match="/0/image: is no picture in base64"):
        signature.columns_from_text({"image": ["cat.png"]})


def test_pixels_are_given_back_as_a_picture() -> None:
    signature = Signature((IMAGE,), ())
    columns = signature.columns([{"image": picture()}])
    (record,) = signature.input_records(columns)
    np.testing.assert_array_equal(signature.columns([record])["image"], columns["image"])


def test_the_preprocessing_stands_in_the_signature_as_json() -> None:
    assert Field.from_dict(json.loads(json.dumps(IMAGE.to_dict()))) == IMAGE
    assert IMAGE.to_dict()["preprocessing"] == {"height": 4, "width": 5}
    schema = IMAGE.json_schema()
    assert (schema["type"], schema["contentEncoding"], schema["contentMediaType"]) == ("string", "base64", "image/*")
    for raw, words in (
        ({"name": "a", "kind": "number", "preprocessing": {"height": 1, "width": 1}}, "field 'a' is a number and has a preprocessing"),
        ({"name": "a", "kind": "image", "shape": [2]}, "the image 'a' has a shape"),
        ({"name": "a", "kind": "image", "preprocessing": {"height": 1}}, "schema: field 'a': the preprocessing has no width"),
    ):
        with pytest.raises(SignatureError) as caught:
            Field.from_dict(raw)
        assert caught.value.message == words


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint8"])
def test_a_tensor_may_come_as_its_bytes(dtype: str) -> None:
    values = np.arange(6, dtype=dtype).reshape(2, 3)
    sent = {"dtype": dtype, "shape": [2, 3], "data": pictures.to_base64(values.astype(values.dtype.newbyteorder("<")).tobytes())}
    column = Signature((Field("t", "tensor", "float64", (2, -1)),), ()).columns([{"t": sent}, {"t": values.tolist()}])["t"]
    np.testing.assert_array_equal(column, np.stack([values, values]).astype("float64"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": [3, 2]}, "got the shape 3x2"),
        ({"shape": [2, 4]}, "its data has 24 bytes; float32 of shape [2, 4] has 32"),
        ({"shape": [2, -3]}, "got the shape [2, -3]"),
        ({"shape": 6}, "got an object"),
        ({"dtype": "float99"}, "got an object"),
        ({"dtype": "object"}, "got an object"),
        ({"dtype": "int32"}, "expected numbers that float32 holds, got int32"),
        ({"data": "###"}, "its data is no base64"),
        ({"data": pictures.to_base64(np.full(6, np.nan, "float32").tobytes())}, "got NaN or infinity"),
        ({"more": 1}, 'or {"dtype": "float32", "shape": [...], "data": base64}, got an object'),
    ],
)
def test_bytes_that_are_not_that_tensor_are_refused(change: dict[str, Any], words: str) -> None:
    sent = {"dtype": "float32", "shape": [2, 3], "data": pictures.to_base64(np.zeros(6, "float32").tobytes())}
    assert words in detail(Field("t", "tensor", "float32", (2, 3)), {**sent, **change})

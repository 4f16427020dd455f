"""A dict, a list of records or a DataFrame is served by its keys, and what it does not have is told with what is near."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelport import engines, inspection
from modelport.bundle import Bundle
from modelport.engines import Engine
from modelport.errors import InvalidInput, ModelFileError, ModelportError, SignatureError, Untrusted, UsageError
from modelport.frameworks import Card, lookup
from modelport.packing import Options, pack_file
from modelport.serving.service import Service
from modelport.signature import Field
from modelport.testing import check_framework
from serving_world import live

CITIES = [
    {"city": "Oslo", "year": 2020, "people": 693_000, "rate": 0.5, "capital": True},
    {"city": "Oslo", "year": 2021, "people": 697_000, "rate": None, "capital": True},
    {"city": "Bergen", "year": 2020, "people": 283_000, "rate": 1.25, "capital": False},
]
KEYS = {"city": "Bergen", "year": 2020}
ANSWER = {"people": 283_000, "rate": 1.25, "capital": False}


def as_json(path: Path) -> None:
    path.write_text(json.dumps(CITIES))


def as_json_lines(path: Path) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in CITIES))


def as_csv(path: Path) -> None:
    pd.DataFrame(CITIES).to_csv(path, index=False)


def as_parquet(path: Path) -> None:
    pd.DataFrame(CITIES).to_parquet(path)


def as_frame(path: Path) -> None:
    pd.DataFrame(CITIES).to_pickle(path)


def as_indexed_frame(path: Path) -> None:
    pd.DataFrame(CITIES).set_index(["city", "year"]).to_pickle(path)


def as_pickled_dict(path: Path) -> None:
    rest = {(one["city"], one["year"]): {key: one[key] for key in ("people", "rate", "capital")} for one in CITIES}
    path.write_bytes(pickle.dumps(rest))


FILES: dict[str, Callable[[Path], None]] = {
    "rows.json": as_json,
    "rows.jsonl": as_json_lines,
    "rows.csv": as_csv,
    "rows.parquet": as_parquet,
    "frame.pkl": as_frame,
    "indexed.pkl": as_indexed_frame,
    "dict.pkl": as_pickled_dict,
}


def pack(path: Path, **options: Any) -> Bundle:
    folder = path.parent / f"bundle of {path.name}"
    folder.mkdir()
    return pack_file(path, folder, Options(**options))


def table(folder: Path, value: Any, **options: Any) -> Engine:
    path = folder / "table.json"
    path.write_text(json.dumps(value))
    return engines.load(pack(path, **options))


def refused(engine: Engine, **key: Any) -> tuple[str, str]:
    with pytest.raises(InvalidInput) as raised:
        engine.answer([key])
    (wrong,) = raised.value.errors
    return wrong.pointer, wrong.detail


@pytest.mark.parametrize("name", FILES)
def test_a_table_answers_by_its_keys_whatever_file_it_came_in(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    FILES[name](path)
    bundle = pack(path, key=("city", "year"))
    assert bundle.model == "model/table.json"
    assert [(field.name, field.kind) for field in bundle.signature.inputs] == [("city", "string"), ("year", "integer")]
    assert [(field.name, field.kind, field.nullable) for field in bundle.signature.outputs] == [
        ("people", "integer", False),
        ("rate", "number", True),
        ("capital", "boolean", False),
    ]
    engine = engines.load(bundle)
    assert engine.answer([KEYS, {"city": "Oslo", "year": 2021}]) == [ANSWER, {"people": 697_000, "rate": None, "capital": True}]
    assert (bundle.folder / "requirements.txt").read_text() == ""
    assert bundle.card == Card("lookup", "table", "", None, ("city", "year"), 2, details={"rows": 3})


def test_every_file_becomes_the_same_table(tmp_path: Path) -> None:
    made = set()
    for name, write in FILES.items():
        path = tmp_path / name
        write(path)
        made.add(pack(path, key=("city", "year")).model_path.read_bytes())
    assert len(made) == 1


def test_the_key_of_a_dict_is_its_own_and_so_is_an_index_with_names(tmp_path: Path) -> None:
    assert [field.name for field in table(tmp_path, {"a": {"x": 1}}).signature.inputs] == ["key"]
    as_indexed_frame(tmp_path / "frame.pkl")
    assert [field.name for field in pack(tmp_path / "frame.pkl").signature.inputs] == ["city", "year"]
    as_pickled_dict(tmp_path / "dict.pkl")
    assert [field.name for field in pack(tmp_path / "dict.pkl").signature.inputs] == ["key_0", "key_1"]


def test_a_dict_of_plain_values_answers_with_the_value(tmp_path: Path) -> None:
    engine = table(tmp_path, {"DE": 0.19, "AT": 0.2}, key="country")
    assert engine.answer([{"country": "AT"}]) == [{"value": 0.2}]


def test_nested_values_and_times_are_answered_as_they_are(tmp_path: Path) -> None:
    value = {"a": {"curve": [1.0, 2.0], "about": {"unit": "m"}}, "b": {"curve": [3.0], "about": {}}}
    assert table(tmp_path, value).answer([{"key": "b"}, {"key": "a"}]) == [value["b"], value["a"]]
    frame = pd.DataFrame({"day": pd.to_datetime(["2024-01-31", "2024-02-01"]), "next": pd.to_datetime(["2024-02-01", None])})
    frame.to_pickle(tmp_path / "days.pkl")
    engine = engines.load(pack(tmp_path / "days.pkl", key="day"))
    assert engine.answer([{"day": "2024-01-31"}, {"day": "2024-02-01T00:00:00Z"}]) == [{"next": "2024-02-01T00:00:00Z"}, {"next": None}]


def test_numpy_values_in_a_pickled_dict_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "dict.pkl"
    path.write_bytes(pickle.dumps({"a": {"x": np.float32(0.5), "n": np.int64(3)}}))
    assert engines.load(pack(path)).answer([{"key": "a"}]) == [{"x": 0.5, "n": 3}]


def test_an_unknown_key_is_named_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    as_json(path)
    engine = engines.load(pack(path, key=("city", "year")))
    assert refused(engine, city="Bergn", year=2020) == ("/city", 'the table has no city "Bergn"; the nearest is "Bergen"')
    assert refused(engine, city="Atlantis", year=2020) == ("/city", 'the table has no city "Atlantis"')
    assert refused(engine, city="Oslo", year=2030) == ("/year", "the table has no year 2030; the nearest are 2020, 2021")
    assert refused(engine, city="Bergen", year=2021) == ("", 'the table has no row with city "Bergen", year 2021')


def test_keys_are_offered_while_they_are_few(tmp_path: Path) -> None:
    few = table(tmp_path, {"a": 1, "b": 2})
    assert few.signature.inputs == (Field("key", "string", choices=("a", "b"), example="a"),)
    (tmp_path / "many").mkdir()
    many = table(tmp_path / "many", {str(number): number for number in range(1001)})
    assert many.signature.inputs == (Field("key", "string", example="0"),)


def test_golden_rows_are_rows_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"n": number, "square": number**2} for number in range(1000)]))
    golden = pack(path, key="n").golden()
    assert golden is not None
    assert len(golden["rows"]) == 20
    assert golden["rows"][-1]["output"] == {"square": golden["rows"][-1]["input"]["n"] ** 2}


def test_a_table_of_more_rows_than_a_sample_has_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("n,square\n" + "".join(f"{number},{number * number}\n" for number in range(100_100)))
    assert engines.load(pack(path, key="n")).answer([{"n": 100_099}]) == [{"square": 100_099**2}]


def test_a_pickled_frame_is_loaded_only_with_imports_that_are_allowed(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": ["x"], "b": [print]})
    frame.to_pickle(tmp_path / "frame.pkl")
    with pytest.raises(Untrusted, match=r"builtins\.print"):
        pack(tmp_path / "frame.pkl", key="a")


MISTAKES: dict[str, tuple[Any, dict[str, Any], type[ModelportError], str]] = {
    "no key": (CITIES, {}, SignatureError, "does not say by which column it is asked"),
    "a key that is not there": (CITIES, {"key": "town"}, UsageError, "has no column 'town'"),
    "a key that stands twice": (CITIES, {"key": "city"}, UsageError, "rows 0 and 1 have the same key: city 'Oslo'"),
    "a key with nulls": (CITIES, {"key": "rate"}, UsageError, "the key 'rate' has nulls"),
    "a key of fractions": ([{"a": 1.5, "b": 1}], {"key": "a"}, UsageError, "the key 'a' holds a number"),
    "nothing but keys": ([{"a": 1}], {"key": "a"}, UsageError, "nothing but its keys"),
    "too many names": ({"a": {"x": 1}}, {"key": ("a", "b")}, UsageError, "keys of 1 part, and 2 are named"),
    "a name that is taken": ({"a": {"key": 1}}, {}, UsageError, "has a field 'key' itself"),
    "no records": ([1, 2], {}, ModelFileError, "no model that is known"),
    "nothing": ({}, {}, ModelFileError, "no model that is known"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_asked_by_keys_says_why(name: str, tmp_path: Path) -> None:
    value, options, kind, words = MISTAKES[name]
    with pytest.raises(ModelportError) as raised:
        table(tmp_path, value, **options)
    assert type(raised.value) is kind
    assert words in raised.value.message


def test_a_file_of_rows_without_a_key_says_what_it_may_be(tmp_path: Path) -> None:
    as_csv(tmp_path / "rows.csv")
    with pytest.raises(ModelFileError) as raised:
        pack(tmp_path / "rows.csv")
    assert raised.value.hint == "--key COLUMN serves it as a table, by that column; rows for a model are a --sample."


def test_a_key_for_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text("def predict(x: int) -> int:\n    return x\n")
    with pytest.raises(UsageError, match="is no table, and a key is named"):
        pack(tmp_path / "service.py", key="x")


def test_a_dict_that_holds_models_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "dict.pkl"
    path.write_bytes(pickle.dumps({"model": np.random.default_rng(0), "name": "x"}))
    card = inspection.inspect(path).card
    assert card is None or card.framework != "lookup"


def test_a_table_is_asked_by_get_and_over_http_its_errors_name_the_row(tmp_path: Path) -> None:
    path = tmp_path / "cities.json"
    as_json(path)
    bundle = pack(path, key=("city", "year"))
    service = Service("cities", "", bundle, engines.load(bundle))
    service.warm_up()
    with live(service) as server, server.client() as http:
        assert http.get("/predict?city=Bergen&year=2020").json() == ANSWER
        assert http.get("/models/cities/predict?city=Bergen&year=2020").json() == ANSWER
        wrong = http.post("/predict", json=[KEYS, {"city": "Bergn", "year": 2020}])
        assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/1/city")
        assert sorted(http.get("/openapi.json").json()["paths"]["/predict"]) == ["get", "post"]


def test_the_framework_keeps_the_contract(tmp_path: Path) -> None:
    as_json(tmp_path / "rows.json")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    check_framework(
        "lookup", pack(tmp_path / "rows.json", key=("city", "year")).model_path, scratch, [KEYS, {"city": "Oslo", "year": 2020}]
    )


def test_a_file_that_only_says_it_is_a_table_does_not_load(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text('{"modelport": "lookup", "keys": []}')
    with pytest.raises(ModelFileError, match="is no table of Modelport"):
        lookup.load(path, Card("lookup", "table", ""))

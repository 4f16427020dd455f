"""A sample of input rows: every form people keep one in gives the same fields, and what cannot be read is named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from modelport import samples
from modelport.errors import SignatureError, UsageError
from modelport.samples import Sample
from modelport.signature import Field, to_array

ROWS = [
    {"age": 31, "height (m)": 1.75, "member": True, "city": "Köln"},
    {"age": 45, "height (m)": 1.6, "member": False, "city": "Łódź"},
    {"age": 22, "height (m)": 2.0, "member": True, "city": "Köln"},
    {"age": 51, "height (m)": 1.8, "member": True, "city": "Köln"},
]
KINDS = {"age": "integer", "height (m)": "number", "member": "boolean", "city": "string"}


def kinds(sample: Sample) -> dict[str, str]:
    return {field.name: field.kind for field in sample.fields}


def csv(tmp_path: Path, text: str | bytes, name: str = "rows.csv") -> Sample:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return samples.read(path)


def column(tmp_path: Path, cells: Sequence[str]) -> tuple[Field, list[Any]]:
    """A CSV column read: its field and values."""
    sample = csv(tmp_path, "a,b\n" + "".join(f'"{cell}",x\n' for cell in cells))
    return sample.fields[0], sample.columns["a"]


def test_one_table_in_every_form_gives_the_same_sample(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS)
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.set_index("age", drop=False).rename_axis(None).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    (tmp_path / "b.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.csv").read_bytes().replace(b"\n", b"\r\n"))
    expected = Sample({name: [row[name] for row in ROWS] for name in KINDS}, samples.from_object(ROWS).fields)
    assert kinds(expected) == KINDS
    assert expected.fields[3].choices == ("Köln", "Łódź")
    for path in sorted(tmp_path.iterdir()):
        assert samples.read(path) == expected, path
    for table in (frame, frame.convert_dtypes(), frame.astype({"city": "category"}), ROWS, expected.columns):
        assert samples.from_object(table) == expected


def test_tables_without_names_get_x0_x1() -> None:
    rows = [[1, 2.5], [3, 4.5]]
    for table in (np.array(rows), rows, [tuple(row) for row in rows], pd.DataFrame(rows)):
        sample = samples.from_object(table)
        assert (list(sample.columns), sample.named, sample.columns["x1"]) == (["x0", "x1"], False, [2.5, 4.5])
    texts = samples.from_object(["good", "bad"])
    assert (texts.columns, texts.named) == ({"text": ["good", "bad"]}, False)
    assert samples.from_object(pd.Series(["good"], name="review")).columns == {"review": ["good"]}
    assert not samples.from_object(pd.Series(["good"])).named


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "2"], "integer", [1, 2]),
        (["1", "", "NaN"], "integer", [1, None, None]),
        (["0", "1"], "integer", [0, 1]),
        (["1", "2.5"], "number", [1.0, 2.5]),
        (["1.0", "2.0"], "number", [1.0, 2.0]),
        (["1e3", "-2"], "number", [1000.0, -2.0]),
        (["007", "010"], "string", ["007", "010"]),
        (["0", "10", "0.5"], "number", [0.0, 10.0, 0.5]),
        (["99999999999999999999", "1"], "number", [1e20, 1.0]),
        (["True", "false", ""], "boolean", [True, False, None]),
        (["true", "1"], "string", ["true", "1"]),
        (["1", "one"], "string", ["1", "one"]),
        (["NA", "x"], "string", ["NA", "x"]),
        (["", "x"], "string", [None, "x"]),
        (["", "NA"], "unknown", [None, None]),
        (["2024-01-01", "2024-01-02"], "string", ["2024-01-01", "2024-01-02"]),
        (["inf", "1"], "string", ["inf", "1"]),
    ],
)
def test_csv_cells_are_the_narrowest_kind_that_all_of_them_are(tmp_path: Path, cells: list[str], kind: str, values: list[Any]) -> None:
    field, read = column(tmp_path, cells)
    assert (field.kind, read) == (kind, values)
    assert [type(value) for value in read] == [type(value) for value in values]
    assert field.nullable == (None in values)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "has no rows"),
        ("a,b\n", "has no rows"),
        ("a,b\n1\n", "row 1 has 1 cells, the header 2"),
        ("a,b\n1,2\n\n1,2,3\n", "row 2 has 3 cells, the header 2"),
        ("a,a\n1,2\n", "the header has two columns called 'a'"),
        (",a\n0,2\n", "the header has an empty column name"),
        ('a\n"x\n', "does not read as csv: unexpected end of data"),
        (b"a\n\xfc\n", "does not read as csv: 'utf-8' codec can't decode byte 0xfc"),
        ("a\n" + "x" * 200_000 + "\n", "field larger than field limit"),
    ],
    ids=range(9),
)
def test_a_csv_file_that_is_none_is_named_with_the_row(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        csv(tmp_path, content)
    assert words in caught.value.message
    assert str(tmp_path / "rows.csv") in caught.value.message


def test_an_index_that_pandas_wrote_is_explained(tmp_path: Path) -> None:
    pd.DataFrame(ROWS).to_csv(tmp_path / "rows.csv")
    with pytest.raises(UsageError) as caught:
        samples.read(tmp_path / "rows.csv")
    assert "index=False" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", "[", "does not read as json"),
        ("a.json", "[" * 100_000, "does not read as json"),
        ("a.json", "[]", "has no rows"),
        ("a.json", "[{}]", "has no rows"),
        ("a.json", "[1, 2]", "row 0 is no record"),
        ("a.json", '[{"a": 1}, [2]]', "row 1 is no record"),
        ("a.jsonl", '{"a": 1}\n{"a": \n', "does not read as jsonl"),
        ("a.parquet", "no parquet", "does not read as parquet"),
        ("a.xlsx", "", "is of no known kind"),
    ],
    ids=range(9),
)
def test_another_file_that_is_not_what_it_says_is_named(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError) as caught:
        samples.read(tmp_path / name)
    assert words in caught.value.message
    assert str(tmp_path / name) in caught.value.message


def test_a_sample_that_does_not_exist_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(UsageError, match="is no file"):
            samples.read(path)


def test_json_records_may_lack_fields_and_say_null_and_nan(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"a": 1, "b": NaN}, {"a": null, "b": 2.5, "c": "x"}]')
    sample = samples.read(tmp_path / "a.json")
    assert sample.columns == {"a": [1, None], "b": [None, 2.5], "c": [None, "x"]}
    assert kinds(sample) == {"a": "integer", "b": "number", "c": "string"}
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert samples.read(tmp_path / "a.json").columns == {"a": [1]}


def test_parquet_is_read_with_its_kinds_and_without_the_index(tmp_path: Path) -> None:
    table = pa.table(
        {
            "when": pa.array([datetime(2024, 1, 31, 12, tzinfo=UTC), None]),
            "day": pa.array([date(2024, 1, 31), None]),
            "price": pa.array([Decimal("1.50"), None]),
            "city": pa.array(["a", "b"]).dictionary_encode(),
            "vector": pa.array([[1.0, 2.0], [3.0, 4.0]]),
            "__index_level_0__": pa.array([0, 1]),
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    sample = samples.read(tmp_path / "a.parquet")
    assert kinds(sample) == {"when": "datetime", "day": "datetime", "price": "number", "city": "string", "vector": "tensor"}
    assert sample.columns["when"] == [datetime(2024, 1, 31, 12), None]  # noqa: DTZ001 columns of times are in UTC
    assert sample.fields[0].example == "2024-01-31T12:00:00Z"
    assert sample.columns["price"] == [1.5, None]
    parquet.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="has no rows"):
        samples.read(tmp_path / "a.parquet")


def test_times_of_every_library_become_utc() -> None:
    moments = [pd.Timestamp("2024-01-31T13:00:00.123456789+01:00"), np.datetime64("2024-01-31T12:00:00.123456"), pd.NaT]
    sample = samples.from_object({"a": moments})
    assert sample.columns["a"] == [datetime(2024, 1, 31, 12, 0, 0, 123456)] * 2 + [None]  # noqa: DTZ001
    assert to_array(sample.fields[0], sample.columns["a"]).dtype == "datetime64[us]"


def test_every_null_of_a_live_table_is_none() -> None:
    frame = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": pd.Categorical(["x", None]), "c": [1.5, np.nan]})
    assert samples.from_object(frame).columns == {"a": [1, None], "b": ["x", None], "c": [1.5, None]}
    array = samples.from_object(np.array([[1.0, np.nan], [2.0, 3.0]]))
    assert array.columns == {"x0": [1.0, 2.0], "x1": [None, 3.0]}
    assert [field.nullable for field in array.fields] == [False, True]


def test_lists_of_one_length_have_a_shape_and_others_a_free_one() -> None:
    shapes = {"a": [[1, 2], [3, 4]], "b": [[1.5], [2, 3]], "c": [[[1], [2]], [[3], [4]]], "d": [["x"], []], "e": [{"a": 1}, {}]}
    assert {field.name: (field.kind, field.shape) for field in samples.from_object(shapes).fields} == {
        "a": ("tensor", (2,)),
        "b": ("tensor", (-1,)),
        "c": ("tensor", (2, 1)),
        "d": ("json", ()),
        "e": ("json", ()),
    }


def test_a_column_of_two_kinds_is_refused_with_one_value_of_each() -> None:
    with pytest.raises(SignatureError, match=r"column 'a' of the sample mixes kinds: 1 \(integer\), 'x' \(string\)"):
        samples.from_object([{"a": 1}, {"a": "x"}])
    with pytest.raises(SignatureError, match="mixes kinds"):
        samples.from_object([{"a": True}, {"a": 2}])
    with pytest.raises(SignatureError, match=r"holds a builtins\.bytes"):
        samples.from_object([{"a": b"x"}])


@pytest.mark.parametrize("table", [7, "rows", b"rows", [], np.zeros(3), np.zeros((0, 3)), object()])
def test_what_is_no_table_is_refused(table: Any) -> None:
    with pytest.raises(UsageError) as caught:
        samples.from_object(table)
    assert "DataFrame" in caught.value.hint


def test_frames_with_doubtful_columns_are_refused() -> None:
    for frame, words in (
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns called 'a'"),
        (pd.DataFrame([[1, 2]], columns=["1", 1]), "two columns called '1'"),
        (pd.DataFrame({"a": []}), "no rows"),
    ):
        with pytest.raises(UsageError, match=words):
            samples.from_object(frame)
    with pytest.raises(UsageError, match="different lengths"):
        samples.from_object({"a": [1], "b": [1, 2]})


def test_the_target_is_left_out_or_the_nearest_column_named() -> None:
    sample = samples.from_object(ROWS)
    assert list(sample.without("city").columns) == ["age", "height (m)", "member"]
    with pytest.raises(UsageError, match=r'no column \'ctiy\'; did you mean "city"\?'):
        sample.without("ctiy")


def test_only_the_first_rows_of_a_huge_sample_are_looked_at() -> None:
    count = samples.MAX_ROWS + 10
    assert samples.from_object(np.zeros((count, 1))).rows == samples.MAX_ROWS
    assert samples.from_object(pd.DataFrame({"a": range(count)})).rows == samples.MAX_ROWS
    assert samples.from_object({"a": range(count)}).rows == samples.MAX_ROWS


def test_five_thousand_columns_are_read(tmp_path: Path) -> None:
    names = [f"c{index}" for index in range(5000)]
    sample = csv(tmp_path, ",".join(names) + "\n" + ",".join("1" for _ in names) + "\n")
    assert len(sample.fields) == 5000


def test_the_baseline_is_json_also_of_infinite_and_huge_values() -> None:
    fields = (Field("a", "number", nullable=True), Field("b", "string", nullable=True), Field("c", "number"), Field("d", "json"))
    columns = {
        "a": np.array([1.0, 2.0, np.nan, 6.0]),
        "b": np.array(["x", None, "x", "y"], dtype=object),
        "c": np.array([1e308, -1e308, np.inf, 1e308]),
        "d": np.array([{}, {}, {}, {}], dtype=object),
    }
    summary = json.loads(json.dumps(samples.baseline(fields, columns), allow_nan=False))
    assert summary["a"]["count"] == 4
    assert summary["a"]["nulls"] == 1
    assert summary["a"]["mean"] == pytest.approx(3.0)
    assert summary["a"]["quantiles"]["0.5"] == 2.0
    assert summary["b"] == {"count": 4, "nulls": 1, "distinct": 2, "values": {"x": 2, "y": 1}}
    assert summary["c"]["quantiles"]["1.0"] == 1e308
    assert summary["d"] == {"count": 4}

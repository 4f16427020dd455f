"""Predictions for files: what goes in and comes out, bad rows, killed runs, and the same verdict as a request gets."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
import math
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bundles
import models
from modelport.batch import Options, Progress, Summary, cells, predict, sources
from modelport.bundle import Bundle
from modelport.cli.predict import Bar, bar_line
from modelport.engines import Engine
from modelport.errors import InvalidInput, ModelContract, ModelFailed, ModelportError, UnknownReference, UsageError
from modelport.signature import Columns, Field, Signature, WrongValue, check, from_cell, to_array

NAMES = ("petal length (cm)", "petal width (cm)")
SETOSA, VERSICOLOR = "setosa", "versicolor"


class Petals:
    """A framework whose model says versicolor beyond 2.5 cm, and fails where it is told to."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def predict(self, model: Any, columns: Columns, signature: Signature) -> Columns:
        length = columns[NAMES[0]]
        self.rows.append(len(length))
        if (length == 13).any():
            raise ValueError("13 is unlucky")
        share = np.where(length == 14, np.nan, np.clip(length / 5, 0, 1))
        labels = np.where(length > 2.5, VERSICOLOR, SETOSA).astype(object)
        return {"prediction": labels, "probabilities": np.stack([1 - share, share], axis=1)}


def engine(signature: Signature = bundles.IRIS, framework: Any = None) -> Engine:
    return Engine(framework or Petals(), None, signature, signature)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return bundles.write(tmp_path / "bundle")


def answer(
    bundle: Bundle, data: Path | list[str], output: Path | str, report: Any = None, framework: Any = None, **options: Any
) -> Summary:
    words = [str(data)] if isinstance(data, Path) else data
    return predict(bundle, words, str(output), Options(**options), engine=engine(bundle.signature, framework), report=report)


def test_a_csv_file_comes_out_with_the_predictions_beside_its_own_cells(bundle: Bundle, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_bytes(
        b'\xef\xbb\xbfnote,petal length (cm),petal width (cm),\xc3\xbc\r\n"a, ""b""\nc",1.50,,0012\r\n\r\n=1+1,+2.6e0,NaN,\r\n'
    )
    summary = answer(bundle, data, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == (
        "note,petal length (cm),petal width (cm),ü,prediction,probabilities.setosa,probabilities.versicolor\n"
        '"a, ""b""\nc",1.50,,0012,setosa,0.7,0.3\n'
        "=1+1,+2.6e0,NaN,,versicolor,0.48,0.52\n"
    )
    assert summary == Summary(2, 0, 0, (str(tmp_path / "out.csv"),))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "data.csv", "out.csv"]


def test_only_predictions_leaves_the_files_columns_out(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "data.tsv").write_text("petal length (cm)\tpetal width (cm)\tprediction\n1\t2\tx\n")
    answer(bundle, tmp_path / "data.tsv", tmp_path / "out.tsv", only_predictions=True)
    assert (tmp_path / "out.tsv").read_text() == "prediction\tprobabilities.setosa\tprobabilities.versicolor\nsetosa\t0.8\t0.2\n"


def test_every_format_goes_in_and_every_format_comes_out(bundle: Bundle, tmp_path: Path) -> None:
    rows = [{NAMES[0]: 1.0, NAMES[1]: None, "id": "7"}, {NAMES[0]: 4.0, NAMES[1]: 0.5, "id": "8"}]
    with (tmp_path / "data.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "data.tsv").write_text((tmp_path / "data.csv").read_text().replace(",", "\t"))
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    expected = [
        {**rows[0], "prediction": SETOSA, "probabilities.setosa": 0.8, "probabilities.versicolor": 0.2},
        {**rows[1], "prediction": VERSICOLOR, "probabilities.setosa": 1 - 0.8, "probabilities.versicolor": 0.8},
    ]
    nested = [
        {**row, "prediction": one["prediction"], "probabilities": {name: one[f"probabilities.{name}"] for name in (SETOSA, VERSICOLOR)}}
        for row, one in zip(rows, expected, strict=True)
    ]
    for form in ("csv", "tsv", "jsonl", "parquet"):
        for other in ("csv", "tsv", "jsonl", "parquet"):
            target = tmp_path / f"{form}.{other}"
            answer(bundle, tmp_path / f"data.{form}", target)
            if other == "parquet":
                assert pq.read_table(target).to_pylist() == expected
            elif other == "jsonl":
                assert [json.loads(line) for line in target.read_text().splitlines()] == nested
            else:
                read = list(csv.DictReader(io.StringIO(target.read_text()), delimiter="\t" if other == "tsv" else ","))
                assert [{name: cell or None for name, cell in row.items() if name in ("id", "prediction")} for row in read] == [
                    {"id": row["id"], "prediction": row["prediction"]} for row in expected
                ]
                for row, one in zip(read, expected, strict=True):
                    assert float(row["probabilities.versicolor"]) == one["probabilities.versicolor"]
                    assert (float(row[NAMES[1]]) if row[NAMES[1]] else None) == one[NAMES[1]]


def test_json_lines_keep_their_own_values_and_keys(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"petal length (cm)": 1, "extra": {"a": [1, null]}}\n\n{"petal length (cm)": 4.0, "more": true}')
    answer(bundle, tmp_path / "data.jsonl", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text().splitlines() == [
        '{"petal length (cm)":1,"extra":{"a":[1,null]},"prediction":"setosa","probabilities":{"setosa":0.8,"versicolor":0.2}}',
        '{"petal length (cm)":4.0,"more":true,"prediction":"versicolor","probabilities":{"setosa":0.19999999999999996,"versicolor":0.8}}',
    ]
    answer(bundle, tmp_path / "data.jsonl", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith('1,"{""a"": [1, null]}",')


def test_a_parquet_file_keeps_the_types_of_its_columns(bundle: Bundle, tmp_path: Path) -> None:
    zoned = dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    table = pa.table(
        {
            NAMES[0]: pa.array([1, 3], pa.int8()),
            NAMES[1]: pa.array([Decimal("1.5"), None], pa.decimal128(5, 2)),
            "when": pa.array([zoned, None], pa.timestamp("ns", "Europe/Berlin")),
            "day": pa.array([dt.date(2024, 1, 2), None]),
            "kind": pa.array(["a", None]).dictionary_encode(),
            "list": pa.array([[1, 2], None]),
            "raw": pa.array([b"x", None]),
            "view": pa.array(["a", None], pa.string_view()),
        }
    )
    pq.write_table(table, tmp_path / "data.parquet")
    answer(bundle, tmp_path / "data.parquet", tmp_path / "out.parquet")
    out = pq.read_table(tmp_path / "out.parquet")
    assert out.schema.names == [*table.schema.names, "prediction", "probabilities.setosa", "probabilities.versicolor"]
    assert out.select(table.schema.names).to_pylist() == table.to_pylist()
    assert out.schema.field("when").type == pa.timestamp("ns", "Europe/Berlin")
    answer(bundle, tmp_path / "data.parquet", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith('1,1.50,2024-01-02T04:04:05+01:00,2024-01-02,a,"[1, 2]",')
    answer(bundle, tmp_path / "data.parquet", tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["when"] == "2024-01-02T04:04:05+01:00"


def test_a_gzip_file_is_looked_through(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "data.csv.gz").write_bytes(gzip.compress(b"petal length (cm),petal width (cm)\n1,1\n"))
    answer(bundle, tmp_path / "data.csv.gz", f"{tmp_path}/out/")
    assert (tmp_path / "out" / "data.csv").read_text().endswith("\n1,1,setosa,0.8,0.2\n")


def test_a_file_without_rows_gives_a_file_without_rows(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("petal length (cm),petal width (cm)\n")
    answer(bundle, tmp_path / "data.csv", tmp_path / "out.csv")
    assert (
        tmp_path / "out.csv"
    ).read_text() == "petal length (cm),petal width (cm),prediction,probabilities.setosa,probabilities.versicolor\n"
    answer(bundle, tmp_path / "data.csv", tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0
    answer(bundle, tmp_path / "out.parquet", tmp_path / "only.parquet", only_predictions=True)
    assert pq.read_schema(tmp_path / "only.parquet").names == ["prediction", "probabilities.setosa", "probabilities.versicolor"]
    (tmp_path / "data.jsonl").write_text("")
    answer(bundle, tmp_path / "data.jsonl", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == ""


def test_several_files_go_into_one_in_order_or_each_into_its_own(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("petal width (cm),petal length (cm)\n1,2\n")
    (tmp_path / "a.csv").write_text("petal length (cm),petal width (cm)\n3,4\n")
    assert answer(bundle, [f"{tmp_path}/*.csv"], tmp_path / "out.jsonl").rows == 2
    assert [json.loads(line)[NAMES[0]] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [3, 2]
    summary = answer(bundle, [f"{tmp_path}/*.csv"], f"{tmp_path}/each/", output_form="parquet")
    assert summary.outputs == (f"{tmp_path}/each/a.parquet", f"{tmp_path}/each/b.parquet")
    assert pq.read_table(tmp_path / "each" / "b.parquet").column(NAMES[0]).to_pylist() == [2.0]
    (tmp_path / "c.csv").write_text("petal length (cm),petal width (cm),id\n3,4,5\n")
    with pytest.raises(UsageError, match=r"a\.csv and .*c\.csv have different columns: 'id' is in one of them only"):
        answer(bundle, [f"{tmp_path}/*.csv"], tmp_path / "out.jsonl")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.csv").write_text("")
    with pytest.raises(UsageError, match="would both be written to"):
        answer(bundle, [f"{tmp_path}/a.csv", f"{tmp_path}/deep/a.csv"], f"{tmp_path}/each/")


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.csv", b"", UsageError, "a.csv is empty"),
        ("a.csv", b"petal width (cm)\n1\n", UsageError, "a.csv has no column 'petal length (cm)'"),
        ("a.csv", b"petal length (cm);petal width (cm)\n1;2\n", UsageError, "a.csv has no column 'petal length (cm)'"),
        (
            "a.csv",
            b"petal length (cm),petal widht (cm)\n1,2\n",
            UsageError,
            "no column 'petal width (cm)'; did you mean \"petal widht (cm)\"?",
        ),
        ("a.csv", b"a,b,a\n1,2,3\n", UsageError, "a.csv has two columns called 'a'"),
        ("a.csv", b"petal length (cm),petal width (cm),prediction\n1,2,3\n", UsageError, "a.csv has a column 'prediction'"),
        ("a.csv", "größe,petal length (cm)\n".encode("latin1"), UsageError, "a.csv is not UTF-8 text: its header holds b'gr\\xf6\\xdfe'"),
        ("a.csv", b"PAR1....", UsageError, "a.csv is a Parquet file"),
        ("a.parquet", b"petal length (cm)\n", ModelportError, "a.parquet does not read as parquet"),
        ("a.jsonl", b'[{"a": 1}]', UsageError, "a.jsonl is one JSON list, not JSON lines"),
        ("a.jsonl", b"x" * 2**24, ModelportError, "a.jsonl line 1 is longer than 4194304 bytes"),
        ("a.txt", b"", UsageError, "a.txt is of no known format"),
        ("a.csv.gz", b"no gzip", ModelportError, "cannot read"),
    ],
)
def test_a_file_that_cannot_be_taken_is_one_clear_line(
    name: str, content: bytes, error: type[ModelportError], message: str, bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    framework = Petals()
    with pytest.raises(error) as raised:
        answer(bundle, tmp_path / name, tmp_path / "out.csv", framework=framework)
    assert message in raised.value.message
    assert raised.value.hint or error is ModelportError
    assert framework.rows == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "bundle"])


def test_a_csv_file_with_other_separators_is_read_when_told(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("petal length (cm);petal width (cm)\n1;2\n")
    with pytest.raises(UsageError) as raised:
        answer(bundle, tmp_path / "a.csv", tmp_path / "out.csv")
    assert raised.value.hint == "Its cells seem to be separated by something else: --delimiter ';'"
    answer(bundle, tmp_path / "a.csv", tmp_path / "out.csv", delimiter=";")
    assert (tmp_path / "out.csv").read_text().endswith("\n1,2,setosa,0.8,0.2\n")


def test_files_and_flags_that_do_not_go_together(bundle: Bundle, tmp_path: Path) -> None:
    data = tmp_path / "a.csv"
    data.write_text("petal length (cm),petal width (cm)\n1,2\n")
    (tmp_path / "b.jsonl").write_text("")
    for words, output, options, message in (
        ([str(data)], data, {}, "is read and cannot be written at once"),
        ([str(data)], tmp_path / "o.csv", {"rejects": data}, "is read and cannot be written at once"),
        ([str(data)], tmp_path / "o.csv", {"rejects": tmp_path / "o.csv"}, "cannot go to the output itself"),
        ([str(data)], tmp_path / "o.xlsx", {}, "o.xlsx is of no known format"),
        ([str(data)], tmp_path / "o.csv.gz", {}, "compressed output is not written"),
        ([str(data), str(tmp_path / "b.jsonl")], tmp_path / "o.csv", {}, "of several formats"),
        ([str(tmp_path)], tmp_path / "o.csv", {"form": "csv"}, "is a folder"),
        (["-"], tmp_path / "o.csv", {}, "standard input has no name that says its format"),
        (["-"], tmp_path / "o.csv", {"form": "csv", "resume": True}, "standard input cannot be read again"),
        (["-"], f"{tmp_path}/", {"form": "csv"}, "standard input has no name for a file"),
        ([str(data)], "-", {"resume": True}, "--resume goes on with a file"),
        ([str(data)], tmp_path / "a.csv" / "o.csv", {}, "cannot write to"),
    ):
        with pytest.raises(UsageError) as raised:
            answer(bundle, words, output, **options)
        assert message in raised.value.message
    for missing in ("no.csv", "no*.csv"):
        with pytest.raises(UnknownReference, match="there is no file"):
            answer(bundle, [str(tmp_path / missing)], tmp_path / "o.csv")


def test_a_nullable_field_without_a_column_is_null_and_said_so(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("petal length (cm),id\n1,2\n")
    assert answer(bundle, tmp_path / "a.csv", tmp_path / "out.csv").absent == ("petal width (cm)",)


BAD_CSV = (
    b"petal length (cm),petal width (cm),note\n"
    b"1.0,0.1,first\n"
    b"-1,,below\n"
    b'2.0,0.2,"two\nlines"\n'
    b"\n"
    b"x,y,both\n"
    b"3.0,0.3\n"
    b"inf,,\n"
    b"4.0,0.4,\xff\n"
    b"13,0.5,fails\n"
    b"14,0.6,nothing\n"
    b"5.0,0.5,last\n"
    b"6.0,0.5,ragged,\n"
)
REJECTED = [
    ("2", NAMES[0], "expected a number of at least 0, got -1.0", "-1"),
    ("4", NAMES[0], 'expected a number, got the string "x"', "x"),
    ("4", NAMES[1], 'expected a number or null, got the string "y"', "y"),
    ("5", "", "the row has 2 cells, and the header 3", "3.0,0.3"),
    ("6", NAMES[0], 'expected a number, got the string "inf"', "inf"),
    ("7", "", "the cell 'note' is not UTF-8 text", "\ufffd"),
    ("8", "", "the model raised ValueError: 13 is unlucky", ""),
    ("9", "", "output 'probabilities' of row 0 is nan, which is no number", ""),
    ("11", "", "the row has 4 cells, and the header 3", "6.0,0.5,ragged,"),
]


def test_bad_rows_go_apart_with_their_reasons(bundle: Bundle, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_bytes(BAD_CSV)
    summary = answer(bundle, data, tmp_path / "out.csv", rejects=tmp_path / "rejects.csv")
    with (tmp_path / "rejects.csv").open(newline="") as text:
        header, *rows = csv.reader(text)
    assert header == ["file", "row", "field", "reason", "value"]
    assert [tuple(row) for row in rows] == [(str(data), *row) for row in REJECTED]
    with (tmp_path / "out.csv").open(newline="") as text:
        assert [row["note"] for row in csv.DictReader(text)] == ["first", "two\nlines", "last"]
    assert (summary.rows, summary.rejected, summary.rejects) == (11, 8, str(tmp_path / "rejects.csv"))


def test_rows_are_counted_right_across_chunks_blank_lines_and_quoted_line_ends(bundle: Bundle, tmp_path: Path) -> None:
    bad, kept, row = [], [], 0
    with (tmp_path / "data.csv").open("w") as out:
        out.write("petal length (cm),petal width (cm),note\n")
        for number in range(300_000):
            if number % 1009 == 3:
                out.write("\n")
                continue
            row += 1
            if number % 997 == 5:
                bad.append((str(row), "" if number % 2 else NAMES[0]))
                out.write("1,2\n" if number % 2 else "x,2,3\n")
            else:
                kept.append(str(row))
                out.write(f'1,2,"{row}\nmore ""q"", end"\n' if number % 5 == 0 else f"1,2,{row}\n")
    answer(bundle, tmp_path / "data.csv", tmp_path / "out.csv", rejects=tmp_path / "rejects.csv")
    with (tmp_path / "rejects.csv").open(newline="") as text:
        assert [(each["row"], each["field"]) for each in csv.DictReader(text)] == bad
    with (tmp_path / "out.csv").open(newline="") as text:
        assert [each["note"].partition("\n")[0] for each in csv.DictReader(text)] == kept
    (source,) = sources.find([str(tmp_path / "data.csv")], None, None)
    line = sources.line_of(source, int(bad[-1][0]))
    assert line is not None
    assert (tmp_path / "data.csv").read_text().split("\n")[line - 1] in ("1,2", "x,2,3")


def test_without_bad_rows_the_rejects_of_an_earlier_run_are_gone(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "rejects.csv").write_text("old")
    (tmp_path / "data.jsonl").write_text('{"petal length (cm)": 1}\n')
    answer(bundle, tmp_path / "data.jsonl", tmp_path / "out.csv", rejects=tmp_path / "rejects.csv")
    assert (tmp_path / "rejects.csv").read_text() == "file,row,field,reason,value\n"


@pytest.mark.parametrize(
    ("skipped", "message"),
    [
        (0, "row 2 (line 3), 'petal length (cm)': expected a number of at least 0, got -1.0"),
        (1, "row 3 (line 6), 'petal length (cm)': expected a number, got the string \"x\""),
        (2, "row 3 (line 6): the row has 2 cells, and the header 3"),
        (3, "row 3 (line 6), 'petal length (cm)': expected a number, got the string \"inf\""),
        (4, "row 3 (line 6): the cell 'note' is not UTF-8 text"),
        (5, "row 3 (line 6): the model raised ValueError: 13 is unlucky"),
        (6, "row 3 (line 6): output 'probabilities' of row 0 is nan, which is no number"),
        (7, "row 4 (line 7): the row has 4 cells, and the header 3"),
    ],
)
def test_the_first_bad_row_stops_the_run_with_its_line_and_leaves_nothing(
    skipped: int, message: str, bundle: Bundle, tmp_path: Path
) -> None:
    lines = BAD_CSV.split(b"\n")
    bad = [2, 6, 7, 8, 9, 10, 11, 13]
    data = tmp_path / "data.csv"
    data.write_bytes(b"\n".join(line for index, line in enumerate(lines) if index not in bad[:skipped]))
    (tmp_path / "out.csv").write_text("of an earlier run")
    with pytest.raises(InvalidInput) as raised:
        answer(bundle, data, tmp_path / "out.csv")
    assert raised.value.message == f"{data} {message}"
    assert raised.value.exit_code == 1
    assert "--rejects" in raised.value.hint
    assert (tmp_path / "out.csv").read_text() == "of an earlier run"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "data.csv", "out.csv"]


def test_bad_lines_of_json_and_parquet_are_named(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(
        '{"petal length (cm)": 1}\n\n[1]\n{"petal length (cm)": "1"}\n{"petal length (cm)"\n{"a": NaN}\n{}\n'
    )
    answer(bundle, tmp_path / "data.jsonl", tmp_path / "out.jsonl", rejects=tmp_path / "rejects.csv")
    with (tmp_path / "rejects.csv").open(newline="") as text:
        rows = [(row["row"], row["field"], row["reason"].partition(":")[0]) for row in csv.DictReader(text)]
    wrong = [("3", "", "is no JSON object"), ("4", NAMES[0], 'expected a number, got the string "1"'), ("5", "", "is no JSON object")]
    assert rows == [*wrong, ("6", "", "is no JSON object"), ("7", NAMES[0], "is null")]
    with pytest.raises(InvalidInput, match=r"data\.jsonl line 3: is no JSON object"):
        answer(bundle, tmp_path / "data.jsonl", tmp_path / "out.jsonl")
    pq.write_table(pa.table({NAMES[0]: [1.0, math.nan, 2.0], NAMES[1]: [math.nan, 1.0, math.inf]}), tmp_path / "data.parquet")
    with pytest.raises(InvalidInput, match=r"data\.parquet row 2, 'petal length \(cm\)': is null: expected a number"):
        answer(bundle, tmp_path / "data.parquet", tmp_path / "out.jsonl")


def test_a_model_that_fails_with_everything_is_not_asked_for_ever(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("petal length (cm),petal width (cm)\n" + "13,1\n" * 5000)
    with pytest.raises(ModelFailed, match="the model failed with 1000 rows"):
        answer(bundle, tmp_path / "a.csv", tmp_path / "out.csv", rejects=tmp_path / "rejects.csv")


def test_a_model_that_gives_too_few_answers_stops_the_run(bundle: Bundle, tmp_path: Path) -> None:
    class Short(Petals):
        def predict(self, model: Any, columns: Columns, signature: Signature) -> Columns:
            return {name: column[:1] for name, column in super().predict(model, columns, signature).items()}

    (tmp_path / "a.csv").write_text("petal length (cm),petal width (cm)\n1,1\n2,2\n")
    with pytest.raises(ModelContract, match="the model gave 1 values for output 'prediction' of 2 rows"):
        answer(bundle, tmp_path / "a.csv", tmp_path / "out.csv", framework=Short(), rejects=tmp_path / "rejects.csv")


def test_a_quote_that_is_never_closed_is_told(bundle: Bundle, tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w") as out:
        out.write('petal length (cm),petal width (cm),note\n1,1,a\n2,2,"b\n')
        out.writelines("3,3,c\n" for _ in range(3_000_000))
    with pytest.raises(ModelportError, match=r"a\.csv does not read as csv after row"):
        answer(bundle, tmp_path / "a.csv", tmp_path / "out.csv")


def test_chunks_are_small_and_progress_is_told(bundle: Bundle, tmp_path: Path) -> None:
    rows = 150_000
    (tmp_path / "a.csv").write_text("petal length (cm),petal width (cm)\n" + "1,1\n" * rows)
    framework, told = Petals(), []
    assert answer(bundle, tmp_path / "a.csv", tmp_path / "out.csv", told.append, framework).rows == rows
    assert sum(framework.rows) == rows
    assert max(framework.rows) == sources.MAX_ROWS
    assert [one.rows for one in told] == [65_536, 131_072, rows]
    assert told[-1].fraction == 1.0
    told.clear()
    answer(bundle, [f"{tmp_path}/*.csv"], tmp_path / "o.parquet", told.append, only_predictions=True)
    assert [one.fraction for one in told[2::3]] == [0.5, 1.0]


def test_the_bar_says_rows_rate_and_time_left() -> None:
    assert bar_line(Progress(1_000, 0, 0.5), 2.0, 10) == "[=====     ]  50%  1,000 rows  500 rows/s  0:02 left"
    assert bar_line(Progress(1_000, 500, 0.1), 1.0, 10) == "[=         ]  10%  1,000 rows  500 rows/s  0:18 left"
    assert bar_line(Progress(1_000_000, 0, 0.001), 100.0, 10) == "[          ]   0%  1,000,000 rows  10,000 rows/s  27:45:00 left"
    assert bar_line(Progress(5, 0, None), 1.0) == "5 rows  5 rows/s"
    assert bar_line(Progress(0, 0, 0.0), 0.0, 4) == "[    ]   0%  0 rows  0 rows/s"
    out = io.StringIO()
    times = iter([0.0, 2.0, 4.0])
    bar = Bar(out, lambda: next(times))
    bar(Progress(1_000, 0, None))
    bar(Progress(20, 0, None))
    bar.clear()
    assert out.getvalue().split("\r") == ["", "1,000 rows  500 rows/s", "20 rows  5 rows/s     ", " " * 17, ""]


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import bundles, test_batch
from modelport.batch import Options, predict
from modelport.bundle import open_bundle

class Halting(test_batch.Petals):
    def predict(self, model, columns, signature):
        if len(self.rows) == 2:
            print("half way", flush=True)
            sys.stdin.read()
        return super().predict(model, columns, signature)

folder, target = Path(sys.argv[2]), sys.argv[3]
options = Options(rejects=folder / "rejects.csv", resume=True)
predict(open_bundle(folder / "bundle"), [str(folder / "data.csv")], target, options, engine=test_batch.engine(framework=Halting()))
"""


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_a_killed_run_leaves_no_output_and_resume_gives_what_an_uninterrupted_run_gives(form: str, bundle: Bundle, tmp_path: Path) -> None:
    lines = (f"{'x' if number % 1000 == 0 else number % 7},{number / 10},{number}" for number in range(200_000))
    (tmp_path / "data.csv").write_text("petal length (cm),petal width (cm),id\n" + "\n".join(lines))
    target = tmp_path / f"out.{form}"
    words = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path), str(target)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half way\n"
        with pytest.raises(UsageError, match="another run is writing"):
            answer(bundle, tmp_path / "data.csv", target)
        process.send_signal(signal.SIGKILL)
    assert not target.exists()
    assert not (tmp_path / "rejects.csv").exists()
    for options, wrong in (
        ({"rejects": tmp_path / "rejects.csv", "only_predictions": True}, "only-predictions was false and is true"),
        ({"rejects": tmp_path / "other.csv"}, "rejects was "),
    ):
        with pytest.raises(UsageError, match=f"cannot go on with .*: {wrong}"):
            answer(bundle, tmp_path / "data.csv", target, resume=True, **options)
    other = bundles.write(tmp_path / "other", content=b"another model")
    with pytest.raises(UsageError, match="bundle was "):
        answer(other, tmp_path / "data.csv", target, resume=True, rejects=tmp_path / "rejects.csv")

    framework = Petals()
    summary = answer(bundle, tmp_path / "data.csv", target, framework=framework, resume=True, rejects=tmp_path / "rejects.csv")
    assert (summary.rows, summary.rejected, summary.resumed) == (200_000, 200, 2 * 65_536)
    assert sum(framework.rows) == 200_000 - 2 * 65_536 - 68
    (tmp_path / "whole").mkdir()
    answer(bundle, tmp_path / "data.csv", tmp_path / "whole" / target.name, rejects=tmp_path / "whole" / "rejects.csv")
    assert target.read_bytes() == (tmp_path / "whole" / target.name).read_bytes()
    assert (tmp_path / "rejects.csv").read_bytes() == (tmp_path / "whole" / "rejects.csv").read_bytes()
    assert not (tmp_path / f".{target.name}.work").exists()


def test_resume_refuses_a_file_that_changed_or_another_engine_and_a_new_run_begins_anew(bundle: Bundle, tmp_path: Path) -> None:
    class Interrupted(Petals):
        def predict(self, model: Any, columns: Columns, signature: Signature) -> Columns:
            if self.rows:
                raise KeyboardInterrupt
            return super().predict(model, columns, signature)

    data = tmp_path / "a.csv"
    data.write_text("petal length (cm),petal width (cm)\n" + "1,1\n" * 70_000)
    with pytest.raises(KeyboardInterrupt):
        answer(bundle, data, tmp_path / "out.csv", framework=Interrupted())
    onnx = replace(engine(bundle.signature), name="onnx")
    with pytest.raises(UsageError, match=r"cannot go on with .*: engine was \"native\" and is \"onnx\""):
        predict(bundle, [str(data)], str(tmp_path / "out.csv"), Options(resume=True), engine=onnx)
    with data.open("a") as more:
        more.write("2,2\n")
    with pytest.raises(UsageError, match=r"cannot go on with .*: inputs was"):
        answer(bundle, data, tmp_path / "out.csv", resume=True)
    assert answer(bundle, data, tmp_path / "out.csv").resumed == 0
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 70_002


# The fast way and signature.check give the same verdict

FIELDS = [
    Field("f", "number"),
    Field("f", "number", nullable=True, minimum=-5, maximum=1e3),
    Field("f", "number", dtype="float32"),
    Field("f", "integer"),
    Field("f", "integer", nullable=True, minimum=0.5, maximum=100.5),
    Field("f", "boolean"),
    Field("f", "boolean", nullable=True),
    Field("f", "string"),
    Field("f", "text", nullable=True),
    Field("f", "category", choices=("a", "b c", "1", "é")),
    Field("f", "category", choices=(1, 2, 30), nullable=True),
    Field("f", "category", choices=(0.5, 1.0)),
    Field("f", "category", choices=(True, False)),
    Field("f", "category", choices=(1, "b")),
    Field("f", "datetime"),
    Field("f", "datetime", nullable=True),
    Field("f", "json", nullable=True),
    Field("f", "tensor", shape=(2,), nullable=True),
    Field("f", "number", shape=(1,), choices=("x",)),
]
INTERESTING = [
    *(
        "",
        "NA",
        "nan",
        "null",
        "None",
        "inf",
        "-Infinity",
        "1",
        "-0",
        "+1",
        "007",
        " 1",
        "1 ",
        "1.",
        ".5",
        "1.0",
        "1.50",
        "1e5",
        "1E400",
        "1e-400",
    ),
    *("0x1F", "1_000", "\u0661", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "9007199254740993", "3.5e38", "1,5"),
    *("true", "True", "TRUE", "false", "yes", "a", "b c", "b", "é", "e\u0301", "30", "30.0", "0.5", "[1,2]", '"x"', "\x00", "\u3000"),
    *("2024-01-02", "2024-01-02 03:04:05", "2024-01-02T03:04:05.123456", "2024-01-02T03:04:05.1234567", "2024-01-02T03:04:05Z", "20240102"),
    *(
        "2024-02-30",
        "2024-01-02T24:00:00",
        "2024-01-02T03:04",
        "2024-01-02T03:04:60",
        "0000-01-01",
        "0001-01-01T00:00:00+05:00",
        "2024-W01-1",
    ),
    *(
        "9999-12-31T23:59:59-05:00",
        "2024-01-02T03:04:05+25:00",
        "2024-01-02T03:04:05.5+01:00",
        "2024-01-02 03:04:05.",
        "1969-12-31T23:59:59.999999Z",
    ),
]
TEXTS = st.one_of(
    st.sampled_from(INTERESTING),
    st.text(max_size=8).filter(lambda text: text.isascii() or text.encode("utf-8", "replace")),
    st.from_regex(r"[+-]?[0-9]{0,20}\.?[0-9]{0,20}([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.datetimes().map(str),
    st.datetimes(timezones=st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=5, minutes=30))])).map(dt.datetime.isoformat),
    st.integers().map(str),
    st.floats().map(str),
).filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text))


def same_verdict(field: Field, column: Any, values: list[Any], *, text: bool) -> None:
    """`convert` refuses what `check` refuses, in the same words, and gives the array of the others that `to_array` gives."""
    accepted, refused = [], []
    for index, value in enumerate(values):
        try:
            accepted.append(check(field, value))
        except WrongValue as wrong:
            refused.append((index, str(wrong)))
    converted = cells.convert([field], {"f": column}, len(values), text=text)
    assert [(cell.index, cell.reason) for cell in converted.wrong] == refused
    expected, got = to_array(field, accepted), converted.columns["f"]
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    if expected.dtype == object:
        assert [(type(value), str(value)) for value in got] == [(type(value), str(value)) for value in expected]
    else:
        np.testing.assert_array_equal(got, expected)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(FIELDS), st.lists(TEXTS, max_size=6))
def test_a_csv_cell_gets_the_verdict_that_signature_gives_it(field: Field, texts: list[str]) -> None:
    same_verdict(field, pa.array(texts, type=pa.string()), [from_cell(field, text) for text in texts], text=True)


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_each_interesting_csv_cell_gets_the_verdict_that_signature_gives_it(field: Field) -> None:
    for text in INTERESTING:
        same_verdict(field, pa.array([text]), [from_cell(field, text)], text=True)
    same_verdict(field, pa.array(INTERESTING), [from_cell(field, text) for text in INTERESTING], text=True)


def typed_arrays() -> dict[str, Any]:
    """A column of every type that a Parquet file may have."""
    moments = [dt.datetime.fromisoformat("2024-01-02T03:04:05.678901"), dt.datetime.fromisoformat("1969-12-31T23:59:59.999999"), None]
    arrays = {
        f"{kind}": pa.array([0, 1, 30, None], kind) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16())
    }
    arrays |= {f"{kind}": pa.array([0, 1, 2**31, None], kind) for kind in (pa.uint32(), pa.int64())}
    arrays["uint64"] = pa.array([1, 2**63 - 1, 2**63, 2**64 - 1, None], pa.uint64())
    for kind in (pa.float16(), pa.float32(), pa.float64()):
        arrays[str(kind)] = pa.array([0.5, 1.0, -3.25, math.nan, math.inf, None], kind)
    arrays["large"] = pa.array([1e300, 2.0**53, 2.0**63, -(2.0**63), 1e18])
    arrays["decimal"] = pa.array([Decimal("1.50"), Decimal("2.00"), Decimal("-0.01"), None], pa.decimal128(10, 2))
    arrays["decimal256"] = pa.array([Decimal(10) ** 30, Decimal(2), None], pa.decimal256(50, 0))
    arrays["bool"] = pa.array([True, False, None])
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        arrays[str(kind)] = pa.array(["a", "b c", "2024-01-02", "", "1", "true", None], kind)
    arrays["dictionary"] = pa.array(["a", "é", None, "a"]).dictionary_encode()
    arrays["dictionary of numbers"] = pa.array([1, 2, None, 1]).dictionary_encode()
    for unit in ("s", "ms", "us", "ns"):
        arrays[f"timestamp[{unit}]"] = pa.array(moments, pa.timestamp("us")).cast(pa.timestamp(unit), safe=False)
        arrays[f"timestamp[{unit}, tz]"] = pa.array(moments, pa.timestamp("us")).cast(pa.timestamp(unit, "Asia/Kolkata"), safe=False)
    arrays["far timestamp"] = pa.array([2**60], pa.timestamp("us"))
    arrays["further timestamp"] = pa.array([2**60], pa.timestamp("s"))
    arrays["date32"] = pa.array([dt.date(2024, 1, 2), dt.date(1, 1, 1), None], pa.date32())
    arrays["date64"] = pa.array([dt.date(2024, 1, 2), None], pa.date64())
    arrays["null"] = pa.nulls(2)
    arrays["list"] = pa.array([[1.0, 2.0], [1], None, [1.0, None]])
    arrays["fixed list"] = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    arrays["struct"] = pa.array([{"a": 1}, None])
    arrays["binary"] = pa.array([b"x", None])
    arrays["time"] = pa.array([dt.time(1, 2, 3), None])
    return arrays


@pytest.mark.parametrize("name", typed_arrays())
def test_a_typed_column_is_refused_as_a_whole_or_each_value_gets_the_verdict_that_signature_gives_it(name: str) -> None:
    array = typed_arrays()[name]
    values = [cells.plain_value(value) for value in cells._python(array)]
    for field in FIELDS:
        try:
            cells.check_type(field, array.type, "data.parquet")
        except UsageError:
            assert field.kind in ("string", "text") or not any(fits(field, value) for value in values if value is not None)
            continue
        same_verdict(field, array, values, text=False)
        same_verdict(field, array.slice(1), values[1:], text=False)


def fits(field: Field, value: Any) -> bool:
    try:
        check(field, value)
    except WrongValue:
        return False
    return True


# The verb


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pickled model of strings, categories and missing values, its data, and a cache of its own."""
    folder = tmp_path_factory.mktemp("shop")
    trained = models.MODELS["pipeline"]()
    (folder / "model.pkl").write_bytes(pickle.dumps(trained.model))
    trained.frame.to_csv(folder / "data.csv", index=False)
    return folder


def run(folder: Path, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MODELPORT_CACHE": str(folder / "cache"), "MODELPORT_STORE": str(folder / "store")}
    command = [sys.executable, "-c", "from modelport.cli.main import main; main()", "predict", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize(("engine", "tolerances"), [("native", {"rtol": 1e-9}), ("auto", {"rtol": 0, "atol": 1e-4})])
def test_a_model_file_predicts_a_file_as_its_library_does(engine: str, tolerances: dict[str, float], shop: Path) -> None:
    trained = models.MODELS["pipeline"]()
    done = run(shop, "model.pkl", "data.csv", "-o", "out.parquet", "--sample", "data.csv", "--engine", engine)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"{len(trained.frame):,} rows predicted: out.parquet\n"
    out = pq.read_table(shop / "out.parquet").to_pandas()
    assert list(out["prediction"]) == list(trained.model.predict(trained.frame))
    probabilities = trained.model.predict_proba(trained.frame)
    for index, label in enumerate(trained.model.classes_):
        np.testing.assert_allclose(out[f"probabilities.{label}"], probabilities[:, index], **tolerances)
    assert list(out.columns[: len(trained.frame.columns)]) == list(trained.frame.columns)


def test_standard_input_goes_to_standard_output(shop: Path) -> None:
    data = (shop / "data.csv").read_text()
    done = run(shop, "model.pkl", "-", "--format", "csv", "--sample", "data.csv", input=data)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].startswith(data.splitlines()[0] + ",prediction,")
    assert len(done.stdout.splitlines()) == len(data.splitlines())
    done = run(shop, "model.pkl", "data.csv", "-o", "out.jsonl", "--sample", "data.csv", "--json")
    assert json.loads(done.stdout)["outputs"] == ["out.jsonl"]


def test_exit_codes_tell_a_scheduler_what_happened(shop: Path) -> None:
    (shop / "bad.csv").write_text((shop / "data.csv").read_text().splitlines()[0] + "\n" + ",".join("?" * 7) + "\n")
    (shop / "other.csv").write_text("a,b\n1,2\n")
    for words, code, message in (
        (("model.pkl", "bad.csv", "-o", "o.csv", "--sample", "data.csv"), 1, "error: bad.csv row 1 (line 2), "),
        (("model.pkl", "bad.csv", "-o", "o.csv", "--sample", "data.csv", "--rejects", "r.csv"), 1, "0 rows predicted: o.csv\n"),
        (("model.pkl", "other.csv", "-o", "o.csv", "--sample", "data.csv"), 2, "error: other.csv has no column "),
        (("model.pkl", "no.csv", "--sample", "data.csv"), 2, "error: there is no file no.csv"),
        (("model.pkl",), 2, "error: Missing argument 'DATA...'"),
        (("model.pkl", "data.csv", "--delimiter", "||"), 2, "error: Invalid value for --delimiter: one ASCII character"),
        (("nothing", "data.csv"), 2, "error: there is no 'nothing'"),
    ):
        done = run(shop, *words)
        assert (done.returncode, done.stderr[: len(message)]) == (code, message), done.stderr
        assert "Traceback" not in done.stderr
    (shop / "evil.pkl").write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    assert run(shop, "evil.pkl", "data.csv").returncode in (1, 3)


def test_a_terminal_shows_how_far_the_run_is(shop: Path) -> None:
    """On a pseudo-terminal there is a bar on stderr, and it is gone at the end."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "MODELPORT_CACHE": str(shop / "cache")}
    words = [sys.executable, "-c", "from modelport.cli.main import main; main()", "predict", "model.pkl", "data.csv", "-o", "out.csv"]
    with subprocess.Popen([*words, "--sample", "data.csv"], cwd=shop, env=environment, stderr=theirs):
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # Linux: the other side is closed
            pass
    os.close(ours)
    rows = len(models.MODELS["pipeline"]().frame)
    lines = shown.decode().replace("\r\n", "\n").split("\r")
    assert lines[1].startswith(f"[========================] 100%  {rows:,} rows  ")
    assert lines[-1] == f"{rows:,} rows predicted: out.csv\n"

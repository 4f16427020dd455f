"""A sample of a model's input rows: read from a file or a live table, described as fields, summarised as the baseline."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from modelport.errors import MissingLibrary, SignatureError, UsageError
from modelport.signature import NULL_CELLS, Columns, Field, Kind, did_you_mean, from_cell, is_null

MAX_ROWS = 100_000
"""How many rows of a sample are looked at: enough for kinds, categories and quantiles."""
MAX_CHOICES = 30


@dataclass(frozen=True)
class Sample:
    """Rows of plain Python values by column, None for null, and the field that each column is."""

    columns: Mapping[str, list[Any]]
    fields: tuple[Field, ...]
    named: bool = True
    """False when the table had no column names and x0, x1, ... were given."""

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def without(self, target: str) -> Sample:
        """The sample without the column that the model predicts. UsageError when there is no such column."""
        if target not in self.columns:
            raise UsageError(f"the sample has no column {target!r}{did_you_mean(target, self.columns)}", hint="--target names one of them.")
        columns = {name: values for name, values in self.columns.items() if name != target}
        return replace(self, columns=columns, fields=tuple(field for field in self.fields if field.name != target))

    def records(self, indices: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
        """The rows at `indices` as records of the columns `names`."""
        return [{name: self.columns[name][index] for name in names} for index in indices]


def read(path: Path) -> Sample:
    """A sample out of a .csv, .parquet, .json or .jsonl file. UsageError for another kind or a file that is not what it says."""
    if not path.is_file():
        raise UsageError(f"the sample {path} is no file", hint="--sample takes a .csv, .parquet, .json or .jsonl file of input rows.")
    suffix = path.suffix.lower()
    try:
        if suffix in (".csv", ".tsv"):
            columns = _read_csv(path, "\t" if suffix == ".tsv" else ",")
        elif suffix == ".parquet":
            columns = _read_parquet(path)
        elif suffix in (".json", ".jsonl", ".ndjson"):
            columns = _columns_of(_read_json(path), str(path))
        else:
            raise UsageError(f"the sample {path} is of no known kind", hint="--sample takes a .csv, .parquet, .json or .jsonl file.")
    except (ValueError, csv.Error, OSError) as error:
        raise UsageError(f"the sample {path} does not read as {suffix[1:]}: {error}") from error
    if not next(iter(columns.values()), []):
        raise UsageError(f"the sample {path} has no rows", hint="A handful of real input rows is enough.")
    return _sample(columns)


def from_object(table: Any) -> Sample:
    """A sample out of a live table: DataFrame, 2-d numpy array, list of records or of texts, or mapping of columns.

    UsageError for anything else.
    """
    if hasattr(table, "to_dict") and hasattr(table, "columns"):
        frame = table.iloc[:MAX_ROWS]
        columns = {str(name): [_plain(value) for value in frame[name].tolist()] for name in frame.columns}
        return _sample(columns)
    if hasattr(table, "to_list") and hasattr(table, "name"):
        return _sample({str(table.name or "text"): [_plain(value) for value in table.to_list()[:MAX_ROWS]]}, named=table.name is not None)
    if isinstance(table, np.ndarray) and table.ndim == 2:
        return _sample({f"x{index}": table[:MAX_ROWS, index].tolist() for index in range(table.shape[1])}, named=False)
    if isinstance(table, Mapping):
        return _sample({str(name): [_plain(value) for value in values][:MAX_ROWS] for name, values in table.items()})
    if isinstance(table, Sequence) and table and all(isinstance(row, str) for row in table):
        return _sample({"text": list(table[:MAX_ROWS])}, named=False)
    if isinstance(table, Sequence) and not isinstance(table, str):
        return _sample(_columns_of(list(table[:MAX_ROWS]), "the sample"))
    raise UsageError(
        f"the sample is a {type(table).__module__}.{type(table).__qualname__}",
        hint="sample= takes a DataFrame, a 2-d array, a list of records, a list of texts, or a path.",
    )


def baseline(fields: Sequence[Field], columns: Columns) -> dict[str, Any]:
    """Per-field summary of columns, JSON values only: counts, nulls, quantiles of numbers, the commonest values of the others."""
    return {field.name: _summary(field, columns[field.name]) for field in fields}


def _summary(field: Field, column: np.ndarray[Any, np.dtype[Any]]) -> dict[str, Any]:
    rows = len(column)
    if field.kind in ("number", "integer") and not field.shape:
        values = column.astype(np.float64)
        present = values[~np.isnan(values)]
        summary: dict[str, Any] = {"count": rows, "nulls": rows - len(present)}
        if len(present):
            points = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
            quantiles = dict(zip(map(str, points), np.quantile(present, points).tolist(), strict=True))
            summary |= {"mean": float(present.mean()), "std": float(present.std()), "quantiles": quantiles}
        return summary
    if field.kind in ("string", "category", "boolean"):
        counts: dict[str, int] = {}
        nulls = 0
        for value in column.tolist():
            if value is None:
                nulls += 1
            else:
                counts[str(value)] = counts.get(str(value), 0) + 1
        common = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:50])
        return {"count": rows, "nulls": nulls, "distinct": len(counts), "values": common}
    return {"count": rows}


def _sample(columns: Mapping[str, list[Any]], *, named: bool = True) -> Sample:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise UsageError(f"the sample's columns have different lengths: {lengths}")
    fields = tuple(_field(name, values) for name, values in columns.items())
    return Sample(dict(columns), fields, named)


def _field(name: str, values: list[Any]) -> Field:
    """What a column of plain values is: its kind, whether it has nulls, the strings it is known to hold."""
    present = [value for value in values if value is not None]
    nullable = len(present) < len(values)
    if not present:
        return Field(name, "unknown", nullable=True)
    kinds = {_kind(value) for value in present}
    kind: Kind
    if len(kinds) == 1:
        kind = kinds.pop()
    elif kinds <= {"number", "integer"}:
        kind = "number"
    else:
        shown = ", ".join(f"{value!r} ({_kind(value)})" for value in {_kind(value): value for value in present}.values())
        raise SignatureError(f"column {name!r} of the sample mixes kinds: {shown}", hint="Make the column one kind.")
    choices: tuple[Any, ...] = ()
    if kind == "string":
        distinct = sorted(set(present))
        if len(distinct) <= MAX_CHOICES and len(present) >= 2 * len(distinct):
            choices = tuple(distinct)
    shape = np.asarray(present[0]).shape if kind == "tensor" else ()
    example = present[0].isoformat() if kind == "datetime" else present[0]
    return Field(name, kind, nullable=nullable, choices=choices, shape=shape, example=example)


def _kind(value: Any) -> Kind:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, datetime | date):
        return "datetime"
    if isinstance(value, list):
        try:
            numeric = np.asarray(value).dtype.kind in "iuf"
        except ValueError:
            numeric = False
        return "tensor" if numeric else "json"
    return "json"


def _plain(value: Any) -> Any:
    """A cell of a live table as a plain Python value; every kind of null is None."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    return None if not isinstance(value, list | dict) and is_null(value) else value


def _read_csv(path: Path, delimiter: str) -> dict[str, list[Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header = next(reader, [])
        _check_header(header, str(path))
        rows = list(islice((row for row in reader if row), MAX_ROWS))
    for index, row in enumerate(rows):
        if len(row) != len(header):
            raise UsageError(f"{path}: row {index + 1} has {len(row)} cells, the header {len(header)}")
    return {name: _typed([row[index] for row in rows]) for index, name in enumerate(header)}


def _typed(cells: list[str]) -> list[Any]:
    """CSV cells as the narrowest kind that all of them are: boolean, integer, number, else string."""
    for kind in ("boolean", "integer", "number"):
        field = Field("", kind, nullable=True)
        values = [None if cell in NULL_CELLS else from_cell(field, cell) for cell in cells]
        words = kind != "boolean" or not {"0", "1"} & set(cells)
        if words and not any(isinstance(value, str) for value in values) and any(value is not None for value in values):
            whole = kind != "integer" or not any("." in cell for cell in cells)
            if whole:
                return values
    return [cell or None for cell in cells]


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingLibrary("pyarrow is not installed, which reads Parquet", hint="pip install 'modelport[batch]'") from error
    table = parquet.read_table(path).slice(0, MAX_ROWS)
    return {name: [_plain(value) for value in table.column(name).to_pylist()] for name in table.column_names}


def _read_json(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".json":
        records = json.loads(text)
        return records if isinstance(records, list) else [records]
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _columns_of(records: list[Any], where: str) -> dict[str, list[Any]]:
    for index, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise UsageError(f"{where}: row {index} is no record", hint='A list of records: [{"age": 31, "city": "Oslo"}, ...].')
    names = list(dict.fromkeys(str(name) for record in records for name in record))
    return {name: [_plain(record.get(name)) for record in records[:MAX_ROWS]] for name in names}


def _check_header(header: list[str], where: str) -> None:
    for name in header:
        if not name or header.count(name) > 1:
            what = "an empty column name" if not name else f"two columns called {name!r}"
            raise UsageError(f"{where}: the header has {what}", hint="The first line names each column once.")

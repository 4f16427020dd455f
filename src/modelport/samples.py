"""A sample of a model's input rows: read from a file or a live table, described as fields, summarised as the baseline."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from modelport import pictures
from modelport.errors import MissingLibrary, SignatureError, UsageError
from modelport.signature import MAX_INTEGER, NULL_CELLS, Columns, Field, Kind, did_you_mean, from_cell, is_null, moment_text

MAX_ROWS = 100_000
"""How many rows of a sample are looked at: enough for kinds, categories and quantiles."""
MAX_CHOICES = 30
MAX_PICTURES = 20
_PICTURE_SIDE = 256
"""Pictures of a sample are kept with a shorter side of so many pixels: they go into the bundle."""
_CODE = re.compile(r"[+-]?0[0-9]+")
_INDEX = re.compile("__index_level_[0-9]+__")
"""The columns in which pandas keeps its index."""


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


def read(path: Path, most: int | None = MAX_ROWS) -> Sample:
    """A sample out of a .csv, .parquet, .json or .jsonl file, of a picture, or of a folder of pictures.

    UsageError for another kind or a file that is not what it says.
    """
    suffix = path.suffix.lower()
    if path.is_dir() or suffix in pictures.SUFFIXES:
        return _read_pictures(path)
    if not path.is_file():
        raise UsageError(f"the sample {path} is no file", hint="--sample takes a .csv, .parquet, .json or .jsonl file of input rows.")
    try:
        if suffix in (".csv", ".tsv"):
            columns = _read_csv(path, "\t" if suffix == ".tsv" else ",", most)
        elif suffix == ".parquet":
            columns = _read_parquet(path, most)
        elif suffix in (".json", ".jsonl", ".ndjson"):
            columns = _columns_of(_read_json(path), str(path), most)
        else:
            raise UsageError(f"the sample {path} is of no known kind", hint="--sample takes a .csv, .parquet, .json or .jsonl file.")
    except (ValueError, RecursionError, csv.Error, OSError) as error:
        hint = "Save it as UTF-8." if isinstance(error, UnicodeDecodeError) else ""
        raise UsageError(f"the sample {path} does not read as {suffix[1:]}: {error}", hint=hint) from error
    if not next(iter(columns.values()), []):
        raise UsageError(f"the sample {path} has no rows", hint="A handful of real input rows is enough.")
    return _sample(columns)


def with_pictures(sample: Sample, folder: Path) -> Sample:
    """The first rows of a sample, with the pictures whose paths, from `folder`, its columns hold. UsageError for one that does not read."""
    columns = {name: values[:MAX_PICTURES] for name, values in sample.columns.items()}
    fields = []
    for field in sample.fields:
        values = columns[field.name]
        if all(isinstance(value, str) and Path(value).suffix.lower() in pictures.SUFFIXES for value in values):
            columns[field.name] = [_picture(folder / value) for value in values]
            field = replace(field, choices=(), example=columns[field.name][0])
        fields.append(field)
    return replace(sample, columns=columns, fields=tuple(fields))


def _read_pictures(path: Path) -> Sample:
    """Pictures spread over a folder, or one, as the column of an input that has no name yet."""
    found = pictures.find(path) if path.is_dir() else [path]
    if not found:
        hint = f"It is a file of rows, or a folder of {', '.join(pictures.SUFFIXES)} files."
        raise UsageError(f"the sample {path} is no file, and holds no pictures", hint=hint)
    kept = [_picture(each) for each in found[:: max(1, len(found) // MAX_PICTURES)][:MAX_PICTURES]]
    return Sample({"image": kept}, (Field("image", "string", example=kept[0]),), named=False)


def _picture(path: Path) -> str:
    """A picture made smaller, in base64."""
    try:
        return pictures.to_base64(pictures.smaller(path.read_bytes(), _PICTURE_SIDE))
    except OSError as error:
        raise UsageError(f"the picture {path} cannot be read: {error.strerror}") from error
    except pictures.PictureError as error:
        raise UsageError(f"the picture {path} of the sample {error}") from error


def from_object(table: Any, most: int | None = MAX_ROWS) -> Sample:
    """A sample out of a live table: DataFrame, Series, 2-d array, list of records, of rows or of texts, or mapping of columns.

    UsageError for anything else.
    """
    if hasattr(table, "iloc") and hasattr(table, "columns"):
        return _from_frame(table.iloc[:most])
    if hasattr(table, "iloc") and hasattr(table, "name"):
        return _sample({str(table.name or "text"): _plain_values(table, most)}, named=table.name is not None)
    if isinstance(table, Mapping):
        return _sample({str(name): _plain_values(values, most) for name, values in table.items()})
    if isinstance(table, Sequence) and not isinstance(table, str | bytes) and table:
        if all(isinstance(row, str) for row in table):
            return _sample({"text": list(table[:most])}, named=False)
        if all(isinstance(row, list | tuple) for row in table) and len({len(row) for row in table}) == 1:
            return _from_rows(table[:most])
        return _sample(_columns_of(table, "the sample", most))
    if isinstance(table, np.ndarray) and table.ndim == 2 and len(table):
        return _from_rows(table[:most])
    raise UsageError(
        f"the sample is a {type(table).__module__}.{type(table).__qualname__} that holds no rows",
        hint="sample= takes a DataFrame, a 2-d array, a list of records, a list of texts, or a path.",
    )


def _from_frame(frame: Any) -> Sample:
    """A DataFrame's columns. Those that pandas numbered itself have no names."""
    _check_header([str(name) for name in frame.columns], "the sample")
    if not len(frame):
        raise UsageError("the sample has no rows", hint="A handful of real input rows is enough.")
    if list(frame.columns) == list(range(len(frame.columns))):
        return _sample({f"x{index}": _plain_values(frame[index], None) for index in frame.columns}, named=False)
    return _sample({str(name): _plain_values(frame[name], None) for name in frame.columns})


def _from_rows(rows: Any) -> Sample:
    return _sample({f"x{index}": _plain_values((row[index] for row in rows), None) for index in range(len(rows[0]))}, named=False)


def _plain_values(values: Iterable[Any], most: int | None) -> list[Any]:
    return [_plain(value) for value in islice(values, most)]


def baseline(fields: Sequence[Field], columns: Columns) -> dict[str, Any]:
    """Per-field summary of columns, JSON values only: counts, nulls, quantiles of numbers, the commonest values of the others."""
    return {field.name: _summary(field, columns[field.name]) for field in fields}


def _summary(field: Field, column: np.ndarray[Any, np.dtype[Any]]) -> dict[str, Any]:
    rows = len(column)
    if field.kind in ("number", "integer") and not field.shape:
        values = column.astype(np.float64)
        present = values[np.isfinite(values)]
        summary: dict[str, Any] = {"count": rows, "nulls": int(np.isnan(values).sum())}
        if len(present):
            points = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
            quantiles = np.quantile(present, points, method="nearest").tolist()
            scale = float(np.abs(present).max()) or 1.0  # so that the squares of large numbers do not overflow
            mean, std = float((present / scale).mean()) * scale, float((present / scale).std()) * scale
            summary |= {"mean": mean, "std": std, "quantiles": dict(zip(map(str, points), quantiles, strict=True))}
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
    elif kinds <= {"tensor", "json"}:
        kind = "json"
    else:
        shown = ", ".join(f"{value!r} ({_kind(value)})" for value in {_kind(value): value for value in present}.values())
        raise SignatureError(f"column {name!r} of the sample mixes kinds: {shown}", hint="Make the column one kind.")
    choices: tuple[Any, ...] = ()
    if kind == "string":
        distinct = sorted(set(present))
        if len(distinct) <= MAX_CHOICES and len(present) >= 2 * len(distinct):
            choices = tuple(distinct)
    shape: tuple[int, ...] = ()
    if kind == "tensor":
        shapes = {np.shape(value) for value in present}
        if len({len(one) for one in shapes}) > 1:
            raise SignatureError(f"column {name!r} of the sample holds lists of different depths", hint="Make the column one kind.")
        shape = tuple(sizes[0] if len(set(sizes)) == 1 else -1 for sizes in zip(*shapes, strict=True))
    example = next((value for value in present if not isinstance(value, float) or math.isfinite(value)), None)
    if isinstance(example, datetime):
        example = moment_text(example)
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
    if isinstance(value, datetime):
        return "datetime"
    if isinstance(value, list):
        try:
            numeric = np.asarray(value).dtype.kind in "iuf"
        except ValueError:
            numeric = False
        return "tensor" if numeric else "json"
    if isinstance(value, dict):
        return "json"
    raise SignatureError(
        f"the sample holds a {type(value).__module__}.{type(value).__qualname__}: {str(value)[:60]}",
        hint="It may hold numbers, booleans, strings, times, lists and objects.",
    )


def _plain(value: Any) -> Any:
    """A cell of a live table as a plain Python value: every kind of null is None, every time a datetime in UTC."""
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").astype(object)
    elif isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | dict):
        return value
    if isinstance(value, tuple):
        return list(value)
    if is_null(value):
        return None
    if isinstance(value, datetime):
        moment = datetime.fromisoformat(value.isoformat(timespec="microseconds"))  # pandas' own has nanoseconds
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)  # noqa: DTZ001 columns of times have no zone: they are in UTC
    return float(value) if isinstance(value, Decimal) else value


def _read_csv(path: Path, delimiter: str, most: int | None) -> dict[str, list[Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header = next(reader, [])
        _check_header(header, str(path))
        rows = list(islice((row for row in reader if row), most))
    for index, row in enumerate(rows):
        if len(row) != len(header):
            raise UsageError(f"{path}: row {index + 1} has {len(row)} cells, the header {len(header)}")
    return {name: _typed([row[index] for row in rows]) for index, name in enumerate(header)}


def _typed(cells: list[str]) -> list[Any]:
    """CSV cells as the narrowest kind that all of them are: boolean, integer, number, else string.

    0 and 1 are integers, digits after a leading zero are a code and no number, and an integer too long for a column is a number.
    """
    given = {cell for cell in cells if cell not in NULL_CELLS}
    kinds: list[Kind] = ["boolean"] if not {"0", "1"} & given else []
    if not any(_CODE.fullmatch(cell) for cell in given):
        kinds += ["integer"] if not any("." in cell for cell in given) else []
        kinds += ["number"]
    for kind in kinds if given else []:
        field = Field("", kind)
        values = {cell: from_cell(field, cell) for cell in given}
        if all(isinstance(value, bool) or _fits(kind, value) for value in values.values()):
            return [values.get(cell) for cell in cells]
    return [cell or None for cell in cells] if given else [None] * len(cells)


def _fits(kind: Kind, value: Any) -> bool:
    return abs(value) <= MAX_INTEGER if isinstance(value, int) and kind == "integer" else isinstance(value, float) and kind == "number"


def _read_parquet(path: Path, most: int | None) -> dict[str, list[Any]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingLibrary("pyarrow is not installed, which reads Parquet", hint="pip install 'modelport[batch]'") from error
    with parquet.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if not _INDEX.fullmatch(name)]
        _check_header(names, str(path))
        batch = next(file.iter_batches(most or max(1, file.metadata.num_rows), columns=names), None)
    return {} if batch is None else {name: [_plain(value) for value in batch.column(name).to_pylist()] for name in names}


def _read_json(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".json":
        records = json.loads(text)
        return records if isinstance(records, list) else [records]
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _columns_of(records: Sequence[Any], where: str, most: int | None) -> dict[str, list[Any]]:
    for index, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise UsageError(f"{where}: row {index} is no record", hint='A list of records: [{"age": 31, "city": "Oslo"}, ...].')
    records = records[:most]
    names = list(dict.fromkeys(str(name) for record in records for name in record))
    return {name: [_plain(record.get(name)) for record in records] for name in names}


def _check_header(header: list[str], where: str) -> None:
    for name, times in Counter(header).items():
        if not name:
            hint = "The first line names each column. pandas wrote its index there? Save with index=False."
            raise UsageError(f"{where}: the header has an empty column name", hint=hint)
        if times > 1:
            raise UsageError(f"{where}: the header has two columns called {name!r}", hint="Give each column a name of its own.")

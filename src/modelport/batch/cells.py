"""A chunk's columns, as a file holds them, become the columns that a model takes.

Most cells are converted all at once by pyarrow. What that does not take without doubt goes through `modelport.signature.check`, one cell
at a time: it has the last word, so that a file gets the same verdict as a request, and it finds the words for what is wrong.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelport import pictures
from modelport.errors import UsageError
from modelport.pictures import PictureError
from modelport.signature import NULL_CELLS, Columns, Field, WrongValue, check, from_cell, to_array

Cells: TypeAlias = Any
"""One column of a chunk: a pyarrow Array out of CSV (strings) or Parquet (any type), or a list of JSON values."""

Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

_MOST_DISTINCT = 10_000
_NULLS = pa.array(sorted(NULL_CELLS))
_EMPTY = pa.array([""])
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_INTEGER = r"^-?[0-9]{1,18}$"
_MOMENT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?)?$"
_ZONED_MOMENT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$"
_FIRST_MOMENT = dt.datetime(1, 1, 2)  # noqa: DTZ001 - the column is UTC without saying so
_LAST_MOMENT = dt.datetime(9999, 12, 30)  # noqa: DTZ001


@dataclass(frozen=True)
class WrongCell:
    """A cell that does not fit its field: the row's index in the chunk, and what is wrong in words."""

    index: int
    field: str
    reason: str
    value: str


@dataclass(frozen=True)
class Converted:
    """A chunk as the model takes it, without the rows that hold a wrong cell."""

    columns: Columns
    typed: dict[str, Any]
    """The same as pyarrow arrays, for the fields that have such a type."""
    good: Mask
    """Which of the chunk's rows these are."""
    wrong: list[WrongCell]


def convert(fields: Sequence[Field], cells: dict[str, Cells], rows: int, *, text: bool, folder: Path | None = None) -> Converted:
    """The columns of `fields` out of a chunk of `rows` rows; `text` says that the cells are those of a CSV file.

    A column that is not there is null, or the field's default, throughout. Paths of pictures begin in `folder`.
    """
    judged = [
        _judge_pictures(field, cells.get(field.name, [None] * rows), folder or Path())
        if field.kind == "image"
        else _judge(field, cells.get(field.name, [field.default] * rows), text=text and field.name in cells)
        for field in fields
    ]
    good = np.ones(rows, dtype=np.bool_)
    for _, errors in judged:
        for error in errors:
            good[error.index] = False
    columns, typed = {}, {}
    for field, (values, _) in zip(fields, judged, strict=True):
        kept = _filtered(values, good)
        columns[field.name] = _to_numpy(field, kept)
        if not isinstance(kept, list):
            typed[field.name] = kept
    return Converted(columns, typed, good, sorted((error for _, errors in judged for error in errors), key=lambda error: error.index))


def check_type(field: Field, kind: Any, where: str) -> None:
    """UsageError when no value of the pyarrow type `kind` can be one of `field`."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind) or field.kind == "json":
        return
    textual = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    takes = {
        "number": number,
        "integer": number,
        "boolean": pa.types.is_boolean(kind),
        "string": textual,
        "text": textual,
        "category": textual or number or pa.types.is_boolean(kind),
        "datetime": pa.types.is_timestamp(kind) or pa.types.is_date(kind) or textual,
        "tensor": pa.types.is_nested(kind),
        "image": textual or pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_struct(kind),
    }.get(field.kind, False)
    if field.shape:
        takes = pa.types.is_nested(kind)
    if not takes:
        raise UsageError(
            f"{where}: the column {field.name!r} is of type {kind}: expected {field.expected()}",
            hint="Convert the column in the file: values are not converted behind your back.",
        )


def arrow_type(field: Field) -> Any:
    """The pyarrow type of a field's column in a typed file; None for one that pyarrow has no simple type for."""
    if field.shape:
        return None
    if field.kind == "category":
        kinds = {type(choice) for choice in field.choices}
        return {(str,): pa.string(), (bool,): pa.bool_(), (int,): pa.int64(), (float,): pa.float64(), (float, int): pa.float64()}.get(
            tuple(sorted(kinds, key=lambda kind: kind.__name__))
        )
    return {
        "number": pa.float64(),
        "integer": pa.int64(),
        "boolean": pa.bool_(),
        "string": pa.string(),
        "text": pa.string(),
        "datetime": pa.timestamp("us"),
    }.get(field.kind)


def plain_value(value: Any) -> Any:
    """A value out of a typed file as the JSON value it stands for: NaN is null, a decimal a number, a time its ISO 8601 text."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, list):
        return [plain_value(part) for part in value]
    if isinstance(value, dict):
        return {key: plain_value(part) for key, part in value.items()}
    return value


def _judge(field: Field, cells: Cells, *, text: bool) -> tuple[Any, list[WrongCell]]:
    """The column's values (null, or anything, where a cell is wrong) and its wrong cells."""
    kind = arrow_type(field)
    read: Callable[[Any], Any] = (
        (lambda cell: check(field, from_cell(field, cell))) if text else (lambda cell: check(field, plain_value(cell)))
    )
    if not isinstance(cells, list):
        cells = _decoded(cells)
    fast = None if kind is None or isinstance(cells, list) else _fast(field, cells, kind, read, text=text)
    if fast is None:
        values, wrong = _slowly(field, cells if isinstance(cells, list) else _python(cells), range(len(cells)), read)
        return (values if kind is None else pa.array(values, type=kind)), wrong
    values, doubtful = fast
    places = np.flatnonzero(doubtful)
    if not len(places):
        return values, []
    settled, wrong = _slowly(field, _python(cells.take(pa.array(places))), places.tolist(), read)
    return pc.replace_with_mask(values, pa.array(doubtful), pa.array(settled, type=kind)), wrong


def _judge_pictures(field: Field, cells: Cells, folder: Path) -> tuple[list[Any], list[WrongCell]]:
    """The pixels of pictures, and which cells are none: each is a path, base64, or a file's bytes (alone, or as datasets keep them)."""
    given = cells if isinstance(cells, list) else _python(cells)
    values: list[Any] = [None] * len(given)
    found: dict[int, bytes] = {}
    wrong: list[WrongCell] = []
    for place, cell in enumerate(given):
        try:
            data = _picture_bytes(field, cell, folder)
            if data is not None:
                found[place] = data
        except PictureError as error:
            wrong.append(WrongCell(place, field.name, str(error), _shown(cell)))
    for place, pixels in zip(found, pictures.decode_all(list(found.values()), field.preprocessing), strict=True):
        if isinstance(pixels, PictureError):
            wrong.append(WrongCell(place, field.name, str(pixels), _shown(given[place])))
        else:
            values[place] = pixels
    return values, sorted(wrong, key=lambda cell: cell.index)


def _picture_bytes(field: Field, cell: Any, folder: Path) -> bytes | None:
    """The file that a cell stands for; None for null. PictureError when there is none."""
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if cell is None or cell == "":
        if field.nullable:
            return None
        raise PictureError(f"is null: expected {field.expected()}")
    if isinstance(cell, bytes):
        return cell
    if not isinstance(cell, str):
        raise PictureError("is no path, and no picture in base64")
    if cell.startswith("data:") or Path(cell).suffix.lower() not in pictures.SUFFIXES:
        return pictures.from_base64(cell)
    try:
        return (folder / cell).read_bytes()
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror}") from error


def _slowly(field: Field, cells: Sequence[Any], places: Sequence[int], read: Callable[[Any], Any]) -> tuple[list[Any], list[WrongCell]]:
    values: list[Any] = []
    wrong: list[WrongCell] = []
    for place, cell in zip(places, cells, strict=True):
        try:
            values.append(read(cell))
        except WrongValue as error:
            values.append(None)
            suggest = len(wrong) < 20  # looking for a near word takes its time
            wrong.append(WrongCell(place, field.name, str(error) if suggest else error.message, _shown(cell)))
    return values, wrong


def _fast(field: Field, cells: Any, kind: Any, read: Callable[[Any], Any], *, text: bool) -> tuple[Any, Mask] | None:
    """Values by pyarrow, and which of them are in doubt; None when all are. What is not in doubt is what `read` would give."""
    if text:
        if field.nullable:
            cells = pc.if_else(
                pc.is_in(cells, value_set=_EMPTY if field.kind in ("string", "text") else _NULLS), pa.scalar(None, cells.type), cells
            )
    else:
        if pa.types.is_floating(cells.type):
            cells = pc.if_else(pc.is_nan(cells), pa.scalar(None, cells.type), cells)
    if pa.types.is_null(cells.type):
        values = pa.nulls(len(cells), kind)
    elif field.kind in ("boolean", "category"):
        values = _by_distinct(cells, kind, read)
    else:
        values = _FAST[field.kind](field, cells)
    if values is None:
        return None
    if not values.null_count:
        return values, np.zeros(len(values), dtype=np.bool_)
    doubtful = _bools(values.is_null())
    return values, doubtful & ~_bools(cells.is_null()) if field.nullable else doubtful


def _numbers(field: Field, cells: Any) -> Any:
    if _is_text(cells.type):
        try:
            values = pc.cast(cells, pa.float64())
        except pa.ArrowInvalid:
            values = pc.cast(_where(pc.match_substring_regex(cells, _NUMBER), cells), pa.float64())
    else:
        values = pc.cast(cells, pa.float64(), safe=False)
    return _within(field, _where(pc.is_finite(values), values))


def _integers(field: Field, cells: Any) -> Any:
    if _is_text(cells.type):
        whole = pc.replace_substring_regex(cells, r"\.0*$", "")
        values = pc.cast(_where(pc.match_substring_regex(whole, _INTEGER), whole), pa.int64())
    elif pa.types.is_floating(cells.type):
        cells = pc.cast(cells, pa.float64())
        exact = pc.and_(pc.equal(cells, pc.floor(cells)), pc.less(pc.abs(cells), 2.0**53))
        values = pc.cast(_where(exact, cells), pa.int64())
    else:
        try:
            values = pc.cast(cells, pa.int64())
        except pa.ArrowInvalid:  # a decimal with a fraction, or an unsigned integer that is too large
            return None
    return _within(field, values)


def _strings(field: Field, cells: Any) -> Any:
    return pc.cast(cells, pa.string())


def _moments(field: Field, cells: Any) -> Any:
    if _is_text(cells.type):
        try:
            naive = pc.cast(_where(pc.match_substring_regex(cells, _MOMENT), cells), pa.timestamp("us"))
            zoned = pc.cast(_where(pc.match_substring_regex(cells, _ZONED_MOMENT), cells), pa.timestamp("us", "UTC"))
        except pa.ArrowInvalid:  # a 30th of February
            return None
        values = pc.coalesce(naive, pc.cast(zoned, pa.timestamp("us")))
    elif pa.types.is_timestamp(cells.type) and cells.type.tz is not None:
        values = pc.cast(pc.cast(cells, pa.timestamp("us", "UTC"), safe=False), pa.timestamp("us"))
    else:
        try:
            values = pc.cast(cells, pa.timestamp("us"), safe=cells.type != pa.timestamp("ns"))  # nanoseconds are cut off
        except pa.ArrowInvalid:  # further away than microseconds reach
            return None
    return _where(pc.and_(pc.greater_equal(values, _FIRST_MOMENT), pc.less_equal(values, _LAST_MOMENT)), values)


_FAST: dict[str, Callable[[Field, Any], Any]] = {
    "number": _numbers,
    "integer": _integers,
    "string": _strings,
    "text": _strings,
    "datetime": _moments,
}


def _by_distinct(cells: Any, kind: Any, read: Callable[[Any], Any]) -> Any:
    """Each distinct cell is read once; None when they are too many."""
    encoded = cells.dictionary_encode()
    if len(encoded.dictionary) > _MOST_DISTINCT:
        return None
    known = []
    for cell in _python(encoded.dictionary):
        try:
            known.append(read(cell))
        except WrongValue:
            known.append(None)
    return pa.array(known, type=kind).take(encoded.indices)


def _within(field: Field, values: Any) -> Any:
    low, high = field._lowest(), field._highest()
    if pa.types.is_integer(values.type):
        low, high = math.ceil(low), math.floor(high)
    within = pc.and_(pc.greater_equal(values, pa.scalar(low, values.type)), pc.less_equal(values, pa.scalar(high, values.type)))
    return _where(within, values)


def _where(condition: Any, values: Any) -> Any:
    """The values, null where the condition is not true."""
    return pc.if_else(condition, values, pa.scalar(None, values.type))


def _to_numpy(field: Field, values: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """Checked values as `modelport.signature.to_array` gives them."""
    if isinstance(values, list):
        return to_array(field, values)
    nulls = values.null_count
    if field.kind == "number":
        return np.asarray(_nan_for_null(values), dtype=np.dtype(field.dtype or "float64"))
    if field.kind == "integer":
        return _nan_for_null(pc.cast(values, pa.float64(), safe=False)) if nulls else np.asarray(values.to_numpy(zero_copy_only=False))
    if field.kind == "boolean" and not nulls:
        return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.bool_)
    if field.kind == "datetime":
        return np.asarray(values.to_numpy(zero_copy_only=False), dtype="datetime64[us]")
    if field.kind == "category":
        return _choices(field, values)
    column = np.empty(len(values), dtype=object)
    column[:] = values.to_pylist() if field.kind == "boolean" else values.to_numpy(zero_copy_only=False)
    return column


def _nan_for_null(values: Any) -> np.ndarray[Any, np.dtype[Any]]:
    return np.asarray(pc.fill_null(values, math.nan).to_numpy(zero_copy_only=False))


def _choices(field: Field, values: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """A category's own choices, of their own types, None for null."""
    known = np.empty(len(field.choices) + 1, dtype=object)
    known[:-1] = field.choices
    places = pc.fill_null(pc.index_in(values, value_set=pa.array(field.choices, type=values.type)), len(field.choices))
    return np.asarray(known[places.to_numpy(zero_copy_only=False)])


def _filtered(values: Any, good: Mask) -> Any:
    if good.all():
        return values
    return [value for value, keep in zip(values, good, strict=True) if keep] if isinstance(values, list) else values.filter(pa.array(good))


def _decoded(cells: Any) -> Any:
    """The same cells in the plainest type that holds them."""
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    if _is_text(cells.type):
        return pc.cast(cells, pa.string())
    return pc.cast(cells, pa.float32()) if pa.types.is_float16(cells.type) else cells


def _python(cells: Any) -> list[Any]:
    """Cells as Python values; a time that Python has no value for as text."""
    try:
        return list(cells.to_pylist())
    except (ValueError, OverflowError):
        return [_python_value(cell) for cell in cells]


def _python_value(cell: Any) -> Any:
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        return "a time beyond the years 1 to 9999"


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _bools(array: Any) -> Mask:
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _shown(cell: Any) -> str:
    if isinstance(cell, bytes) or (isinstance(cell, dict) and "bytes" in cell):
        return "bytes"
    text = cell if isinstance(cell, str) else "" if cell is None else json.dumps(cell, default=str, ensure_ascii=False)
    return text if len(text) <= 200 else text[:197] + "..."

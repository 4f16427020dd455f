"""Request bodies become columns: JSON records and CSV.

A body is first read by a decoder that msgspec compiles from the signature. It takes only what is right beyond doubt; whatever it does not
take is read again, slowly, by `Signature.columns`, which has the last word and names every wrong value.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import parse_qsl

import msgspec
import numpy as np

from modelport.errors import BodyTooLarge, FieldError, InvalidInput, MalformedBody, pointer
from modelport.pictures import PictureError
from modelport.serving import uploads
from modelport.signature import MAX_ERRORS, Columns, Field, MatrixColumns, Signature, WrongValue, check, to_array

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_HALF_PAIR = re.compile(r"\\u[dD][89abcdefABCDEF]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_INTEGER = 4000
"""Digits. Python refuses to read integers much longer than this; no field holds one anyway."""
_LARGEST_INTEGER = 10**_LONGEST_INTEGER
_EXACT = 2.0**53
"""Up to here a double is the integer that was written."""
_MAX_STRUCT_FIELDS = 256
"""A struct looks its fields up one after the other: beyond this a body in another order would cost too much."""
STRUCT_NAME = re.compile(r'[^"\\\x00-\x1f]+')
"""What msgspec takes as the name of a struct's field in JSON."""
_SCALAR = bool | int | float | str


@dataclass(slots=True, eq=False)
class Rows:
    """A body that was read: how many rows it holds, whether it was one record rather than a list, and its values.

    The values are columns; or cells, row by row, of which columns are made when they are needed: then those of many requests at once.
    """

    count: int
    single: bool
    made: Columns | None = None
    cells: tuple[tuple[Any, ...], ...] = ()
    make: Callable[[Sequence[tuple[Any, ...]]], Columns] | None = None

    @property
    def columns(self) -> Columns:
        if self.made is None:
            assert self.make is not None
            self.made = self.make(self.cells)
        return self.made

    def part(self, start: int, stop: int) -> Rows:
        """Some of the rows."""
        return Rows(stop - start, False, {name: column[start:stop] for name, column in self.columns.items()})


def join(parts: Sequence[Rows]) -> Columns:
    """The rows of several requests to one model, one after the other, as columns."""
    if len(parts) == 1:
        return parts[0].columns
    make = parts[0].make
    if make is not None and all(part.cells for part in parts):
        return make([cells for part in parts for cells in part.cells])
    columns = [part.columns for part in parts]
    return {name: _joined([one[name] for one in columns]) for name in columns[0]}


def _joined(columns: Sequence[np.ndarray[Any, np.dtype[Any]]]) -> np.ndarray[Any, np.dtype[Any]]:
    if len({column.shape[1:] for column in columns}) == 1:
        return np.concatenate(columns)
    joined = np.empty(sum(map(len, columns)), dtype=object)  # tensors of different shapes
    for index, value in enumerate(chain.from_iterable(columns)):
        joined[index] = value
    return joined


_Reader: TypeAlias = Callable[[bytes], "Rows | None"]
"""Reads a body if it is right beyond doubt; None when somebody else must look."""


class Inputs:
    """Reads the bodies that are sent to one model."""

    def __init__(self, signature: Signature, example: Any = None) -> None:
        self.signature = signature
        self.example = _shortened(json.dumps(signature.example() if example is None else example, ensure_ascii=False))
        self._fast = _reader(signature)
        self._holds_json = any(field.kind == "json" for field in signature.inputs)
        self.has_pictures = any(field.kind == "image" for field in signature.inputs)
        """Whether reading a body takes long, as pictures are decoded."""
        self.picture = uploads.picture_field(signature)
        """The field that a picture alone is for."""

    def json(self, body: bytes, max_rows: int, fetched: Mapping[str, bytes | PictureError] | None = None) -> Rows:
        """One record or a list of them; `fetched` are the pictures behind the URLs in it.

        MalformedBody, InvalidInput (it lists every wrong value), BodyTooLarge for too many rows.
        """
        rows = self.quick(body)
        if rows is None:
            rows = self._json_slowly(body, max_rows, fetched)
        elif rows.count > max_rows:
            raise _too_many(rows.count, max_rows)
        return rows

    def quick(self, body: bytes) -> Rows | None:
        """What `json` gives, if the body is right beyond doubt; None where it has to be looked at more closely."""
        try:
            return None if self._fast is None else self._fast(body)
        except MalformedBody:  # a key stands twice: `json` says so in full
            return None

    def _json_slowly(self, body: bytes, max_rows: int, fetched: Mapping[str, bytes | PictureError] | None = None) -> Rows:
        value = parse_json(body, f"Send a record, {self.example}, or a list of records.")
        single = not isinstance(value, list)
        return self.records([value] if single else value, max_rows, single=single, fetched=fetched)

    def records(
        self, records: Sequence[Any], max_rows: int, *, single: bool = False, fetched: Mapping[str, bytes | PictureError] | None = None
    ) -> Rows:
        """Records that `parse_json` has read, or that hold pictures as bytes."""
        if len(records) > max_rows:
            raise _too_many(len(records), max_rows)
        if self.has_pictures:
            records = uploads.resolved(records, self.signature, fetched or {})
        columns = self.signature.columns(records, single=single)
        if self._holds_json:
            _refuse_numbers_beyond_json(records)
        return Rows(len(records), single, columns)

    def csv(self, body: bytes, max_rows: int, *, headless: bool = False) -> tuple[Rows, bool]:
        """A header and one line a row; and whether there was a header.

        Without a header the cells are the fields in the signature's order: taken only where `headless` says so, and only when no cell of
        the first line is a field's name. Raises as `json` does.
        """
        table = self._table(body)
        names = [field.name for field in self.signature.inputs]
        if headless and table and len(table[0]) == len(names) and not set(table[0]) & set(names):
            header = names
            lines = table
        elif table:
            header, lines = table[0], table[1:]
        else:
            raise MalformedBody("the body is empty", hint=f"Send CSV whose first line is the header: {_shortened(','.join(names))}")
        twice = [name for name, times in Counter(header).items() if times > 1]
        if twice:
            raise MalformedBody(f"the column {_shortened(twice[0])!r} stands twice in the header")
        if len(lines) > max_rows:
            raise _too_many(len(lines), max_rows)
        ragged = [(index, line) for index, line in enumerate(lines) if len(line) != len(header)]
        if ragged:
            width = len(header)
            raise InvalidInput(
                [
                    FieldError(pointer(index), f"the row has {len(line)} cells, and the header {width}", f"{width} cells", len(line))
                    for index, line in ragged[:MAX_ERRORS]
                ]
            )
        cells = dict(zip(header, zip(*lines, strict=True), strict=True)) if lines else dict.fromkeys(header, ())
        try:
            columns = self.signature.columns_from_text(cells)
        except InvalidInput as error:
            if len(header) == 1 < len(names) and re.search("[;\t]", header[0]):
                raise InvalidInput(error.errors, hint="Cells are separated by commas.") from error
            raise
        return Rows(len(lines), False, columns), lines is not table

    def query(self, query: bytes) -> Rows:
        """The parameters of a GET: one record, each value as in a cell of CSV. Raises as `csv` does."""
        most = len(self.signature.inputs) + MAX_ERRORS
        try:
            pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=most)
        except ValueError as error:  # also what is no UTF-8
            raise MalformedBody(f"the query does not parse: {error}") from error
        twice = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
        if twice:
            raise InvalidInput(_shortened(twice[0]), "stands twice in the query")
        return Rows(1, True, self.signature.columns_from_text({name: [cell] for name, cell in pairs}, single=True))

    def _table(self, body: bytes) -> list[list[str]]:
        text = _text(body.removeprefix(_BYTE_ORDER_MARK))
        lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            return [line for line in lines if line]
        except csv.Error as error:
            raise MalformedBody(f"the CSV does not parse at line {lines.line_num}: {error}") from error


def parse_json(body: bytes, hint: str = "") -> Any:
    """The JSON value of a body; `hint` says what to send. MalformedBody says where the body does not parse.

    NaN, Infinity and numbers too large are read here, so that whoever knows the field can name it. Duplicate keys and halves of surrogate
    pairs are refused.
    """
    text = _json_text(body, hint)
    twice: list[_Twice] = []

    def made(pairs: list[tuple[str, Any]]) -> Any:
        value = dict(pairs)
        if len(value) == len(pairs):
            return value
        twice.append(_Twice(pairs))
        return twice[-1]

    try:
        value = json.loads(text, object_pairs_hook=made, parse_int=_integer)
    except json.JSONDecodeError as error:
        detail = f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno} (character {error.pos})"
        raise MalformedBody(detail, hint=hint) from error
    except RecursionError as error:
        raise MalformedBody("the body is nested too deeply", hint=hint) from error
    for path, part in _walk(value, _Twice) if twice else ():
        raise MalformedBody(f'the key "{_shortened(part.key)}" stands twice in the object at "{pointer(*path)}"')
    if _HALF_PAIR.search(text):
        for path, part in _walk(value, str):
            if _SURROGATE.search(part):
                where = _SURROGATE.sub("?", pointer(*path))
                raise MalformedBody(f'the text at "{where}" holds half of a surrogate pair, which is no character')
    return value


class _Twice:
    """Stands for an object in which a key stands twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.key = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)


def _integer(digits: str) -> int:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else int(digits[: _LONGEST_INTEGER + 2])


def _walk(root: Any, kind: type) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value (and key) of `kind` in a JSON value, with the way to it."""
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), root)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, kind):
            yield path, value
        if isinstance(value, dict):
            if kind is str:
                yield from (((*path, key), key) for key in value)
            waiting.extend(((*path, key), part) for key, part in value.items())
        elif isinstance(value, list):
            waiting.extend(((*path, index), part) for index, part in enumerate(value))


def _refuse_numbers_beyond_json(records: Sequence[Any]) -> None:
    for path, number in _walk(records, float):
        if not math.isfinite(number):
            raise MalformedBody(f'the number at "{pointer(*path)}" is {number}, which JSON does not have')
    for path, number in _walk(records, int):
        if abs(number) >= _LARGEST_INTEGER:
            raise MalformedBody(f'the number at "{pointer(*path)}" has over {_LONGEST_INTEGER} digits')


def _json_text(body: bytes, hint: str) -> str:
    if not body.strip():
        raise MalformedBody("the body is empty", hint=hint)
    if body.startswith(_BYTE_ORDER_MARK):
        raise MalformedBody("the body begins with a byte order mark", hint="Send UTF-8 without one (RFC 8259, section 8.1).")
    return _text(body)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise MalformedBody(f"the body is not UTF-8: byte {error.start} is 0x{body[error.start]:02x}") from error


def _too_many(rows: int, most: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has {rows:,} rows; at most {most:,} are taken at once", hint="Send it in parts, or raise --max-rows.")


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else text[:197] + "..."


# The fast decoder


def _reader(signature: Signature) -> _Reader | None:
    """The decoder compiled for `signature`; None where only the slow one will do."""
    fields = signature.inputs
    if len(fields) > _MAX_STRUCT_FIELDS:
        numbers = all(_is_plain_number(field) and field.minimum is field.maximum is None for field in fields)
        same = len({field.dtype for field in fields}) == 1
        return _WideReader(fields) if numbers and same else None
    types = [_type(field) for field in fields]
    if not fields or None in types or not all(STRUCT_NAME.fullmatch(field.name) for field in fields):
        return None
    numbers = all(map(_is_plain_number, fields)) and len({field.dtype for field in fields}) == 1
    return _NumbersReader(fields, types) if numbers else _StructReader(fields, types)


def _is_plain_number(field: Field) -> bool:
    return field.kind == "number" and not field.shape and field.default is None


class _NumbersReader:
    """Reads records that are all numbers: rows of a matrix."""

    def __init__(self, fields: Sequence[Field], types: Sequence[Any]) -> None:
        self._names = [field.name for field in fields]
        self._dtype = np.dtype(fields[0].dtype or "float64")
        self._nullable = any(field.nullable for field in fields)
        self._quotes = 2 * len(fields)
        # JSON has no infinity: so it can stand for what is not there
        self._decode = _struct_decoder(fields, types, math.inf).decode

    def __call__(self, body: bytes) -> Rows | None:
        try:
            decoded = self._decode(body)
        except (ValueError, RecursionError):
            return None
        if type(decoded) is not list:
            cells = _cells(decoded)
            # (if so few quotes are enough for the keys, none of them is a character of a string)
            if body.count(b'"') != self._quotes or (self._nullable and math.inf in cells):
                cells = self._closer(body, cells)
            return Rows(1, True, None, (cells,), self._make)
        matrix = self._matrix(list(map(_cells, decoded)))
        absent = np.isinf(matrix)
        matrix[absent] = math.nan
        if _quotes(body) != 2 * (matrix.size - int(np.count_nonzero(absent))):
            parse_json(body)
        return Rows(len(decoded), False, self._columns(matrix))

    def _closer(self, body: bytes, cells: tuple[Any, ...]) -> tuple[Any, ...]:
        """The cells of a single record in which fields are missing, or that is written unusually."""
        if _quotes(body) != 2 * (len(cells) - cells.count(math.inf)):
            parse_json(body)
        return tuple(None if cell == math.inf else cell for cell in cells)

    def _make(self, cells: Sequence[tuple[Any, ...]]) -> Columns:
        return self._columns(self._matrix(cells))

    def _matrix(self, cells: Sequence[tuple[Any, ...]]) -> np.ndarray[Any, np.dtype[Any]]:
        width = len(self._names)
        return np.fromiter(chain.from_iterable(cells), self._dtype, len(cells) * width).reshape(len(cells), width)

    def _columns(self, matrix: np.ndarray[Any, np.dtype[Any]]) -> Columns:
        return MatrixColumns(self._names, matrix)


class _StructReader:
    """Reads records into structs, whose fields are the signature's."""

    def __init__(self, fields: Sequence[Field], types: Sequence[Any]) -> None:
        self._fields, self._types = fields, types
        self._count_texts = [field.kind in ("string", "text", "category", "datetime") for field in fields]
        self._must_look_twice = any(field.kind == "json" for field in fields)
        self._sure = all(_is_sure(field, one) for field, one in zip(fields, types, strict=True))
        self._decoder = _struct_decoder(fields, types, msgspec.UNSET)
        self._defaults = [field.default for field in fields]

    def __call__(self, body: bytes) -> Rows | None:
        try:
            decoded = self._decoder.decode(body)
        except (ValueError, RecursionError):
            return None
        single = not isinstance(decoded, list)
        records = [decoded] if single else decoded
        if self._must_look_twice and records:
            parse_json(body)
        if single and self._sure:
            return self._one(body, _cells(decoded))
        keys = len(records) * len(self._fields)
        texts = 0
        columns = {}
        cells = zip(*map(_cells, records), strict=True) if records else ((),) * len(self._fields)
        for field, one, values, has_texts in zip(self._fields, self._types, cells, self._count_texts, strict=True):
            if has_texts:
                texts += sum(isinstance(value, str) for value in values)
            if field.optional:
                absent = sum(value is msgspec.UNSET for value in values)
                keys -= absent
                if absent:
                    values = tuple(field.default if value is msgspec.UNSET else value for value in values)
            column = _column(field, one, values)
            if column is None:
                return None
            columns[field.name] = column
        if not self._must_look_twice and _quotes(body) != 2 * (keys + texts):
            parse_json(body)
        return Rows(len(records), single, columns)

    def _one(self, body: bytes, cells: tuple[Any, ...]) -> Rows:
        """A single record none of whose values needs another look."""
        absent = cells.count(msgspec.UNSET)
        texts = sum(map(isinstance, cells, repeat(str)))
        if absent:
            cells = tuple(default if cell is msgspec.UNSET else cell for cell, default in zip(cells, self._defaults, strict=True))
        if _quotes(body) != 2 * (len(cells) - absent + texts):
            parse_json(body)
        return Rows(1, True, None, (cells,), self._make)

    def _make(self, cells: Sequence[tuple[Any, ...]]) -> Columns:
        return {field.name: to_array(field, values) for field, values in zip(self._fields, zip(*cells, strict=True), strict=True)}


class _WideReader:
    """Reads records of very many numbers into dictionaries."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._names = [field.name for field in fields]
        self._required = [index for index, field in enumerate(fields) if not field.nullable]
        self._dtype = np.dtype(fields[0].dtype or "float64")
        nullable = len(self._required) < len(fields)
        record: Any = dict[str, float | None] if nullable else dict[str, float]
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(record | list[record])

    def __call__(self, body: bytes) -> Rows | None:
        try:
            decoded = self._decoder.decode(body)
        except (ValueError, RecursionError):
            return None
        single = not isinstance(decoded, list)
        records = [decoded] if single else decoded
        keys = len(records) * len(self._names)
        if sum(map(len, records)) != keys or _quotes(body) != 2 * keys:
            return None
        try:
            numbers = np.array([[record[name] for name in self._names] for record in records], dtype=np.float64)
        except KeyError:
            return None
        numbers = np.ascontiguousarray(numbers.reshape(len(records), len(self._names)).T)
        if np.isnan(numbers[self._required]).any() or (np.abs(numbers) >= np.finfo(self._dtype).max).any():
            return None
        numbers = numbers.astype(self._dtype, copy=False)
        return Rows(len(records), single, dict(zip(self._names, numbers, strict=True)))


_cells = msgspec.structs.astuple


def _struct_decoder(fields: Sequence[Field], types: Sequence[Any], missing: Any) -> msgspec.json.Decoder[Any]:
    """A decoder of a record or a list of them; `missing` stands for a field that may be left out and was."""
    keys = {f"f{index}": field.name for index, field in enumerate(fields)}
    members: list[Any] = []
    for key, field, one in zip(keys, fields, types, strict=True):
        kind = one | None if field.nullable else one
        if missing is msgspec.UNSET and field.optional:
            kind |= msgspec.UnsetType
        members.append((key, kind, missing) if field.optional else (key, kind))
    struct: Any = msgspec.defstruct("Record", members, rename=keys, forbid_unknown_fields=True, kw_only=True, gc=False)
    return msgspec.json.Decoder(struct | list[struct])


def _is_sure(field: Field, one: Any) -> bool:
    """Whether whatever is decoded as type `one` is right, with nothing left to look at."""
    return not field.shape and field.kind in ("number", "integer", "boolean", "string", "text", "category") and one is not _SCALAR


def _quotes(body: bytes) -> int:
    """How many quotes in a JSON body open or close a string: two for each key and each text.

    More of them than the values explain means that a key stands twice, of which msgspec keeps the last without a word. -1 where a count of
    bytes cannot tell.
    """
    quotes = body.count(b'"')
    if b"\\" not in body:
        return quotes
    return -1 if b"\\\\" in body else quotes - body.count(b'\\"')


def _type(field: Field) -> Any:
    """The type that takes values of `field`: never more than `check` takes, sometimes less. None when there is none."""
    if field.kind in ("number", "tensor"):
        if field.shape and field.nullable:
            return None
        number: Any = int if _is_whole(field) else float
        limits = _limits(field)
        one: Any = Annotated[number, msgspec.Meta(**limits)]
        for _ in field.shape:
            one = list[one]
        return one
    if field.kind == "integer" and not field.shape:
        return Annotated[int, msgspec.Meta(**_limits(field))]
    if field.kind == "category":
        return _choices(field.choices)
    simple: dict[str, Any] = {"boolean": bool, "string": str, "text": str, "datetime": str, "json": Any}
    return None if field.shape else simple.get(field.kind)


def _limits(field: Field) -> dict[str, Any]:
    """The field's least and greatest value for msgspec.

    A double as large as these may stand for an integer beyond them, so that the limit itself is left to who compares exactly.
    """
    low, high = field._lowest(), field._highest()
    if _is_whole(field):
        return {"ge": math.ceil(low), "le": math.floor(high)}
    least = {"gt" if abs(low) > _EXACT else "ge": float(low)}
    return least | {"lt" if abs(high) > _EXACT else "le": float(high)}


def _is_whole(field: Field) -> bool:
    return field.kind == "integer" or (field.kind == "tensor" and np.dtype(field.dtype or "float64").kind in "iu")


def _choices(choices: Sequence[Any]) -> Any:
    """A type that takes the choices and no more, where msgspec has one."""
    texts = all(isinstance(choice, str) for choice in choices)
    integers = all(isinstance(choice, int) and not isinstance(choice, bool) and abs(choice) < 2**63 for choice in choices)
    return Literal[tuple(choices)] if texts or integers else _SCALAR


def _column(field: Field, one: Any, values: Sequence[Any]) -> np.ndarray[Any, np.dtype[Any]] | None:
    """Values decoded as type `one`, as a column; None when one of them is wrong after all."""
    try:
        if field.kind in ("number", "tensor") and field.shape:
            column = np.array(values, dtype=field.dtype or "float64")
            if not values:
                return to_array(field, ())
            fits = all(wanted in (-1, size) for wanted, size in zip(field.shape, column.shape[1:], strict=True))
            return column if fits else None
        if field.kind == "number":
            return np.array(values, dtype=field.dtype or "float64")
        if field.kind == "json" and not field.nullable and any(value is None for value in values):
            return None
        if field.kind == "datetime" or one is _SCALAR:
            return to_array(field, [check(field, value) for value in values])
        return to_array(field, values)
    except (ValueError, TypeError, OverflowError, WrongValue):
        return None

"""The inputs and outputs of a model: the one description that validation, OpenAPI, the page, the client and the record of predictions read.

Values travel as `Columns`: a mapping from field name to a numpy array whose first axis is the row. JSON records and CSV cells become
columns here, with every wrong value named, and columns become records here.

| kind     | column                                         | in JSON                       |
|----------|------------------------------------------------|-------------------------------|
| number   | float64 (or the field's dtype), NaN for null   | number                        |
| integer  | int64; float64 with NaN when nullable          | number without a fraction     |
| boolean  | bool; object with None when nullable           | true, false                   |
| string   | object of str, None for null                   | string                        |
| category | object of the choices' own type, None for null | one of the choices            |
| text     | as string; prose, not a code                   | string                        |
| datetime | datetime64[us] in UTC, NaT for null            | ISO 8601 date or date-time    |
| tensor   | the field's dtype, (rows, *shape)              | nested lists of numbers       |
| json     | object                                         | anything                      |
| image    | uint8 (rows, height, width, 3)                 | base64 of a JPEG, PNG or WEBP |

A tensor may also come as its bytes: {"dtype": "float32", "shape": [2, 3], "data": base64 of them, row by row, little-endian}.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from itertools import islice
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from modelport import pictures
from modelport.errors import FieldError, InvalidInput, ModelContract, SignatureError, pointer
from modelport.pictures import PictureError
from modelport.preprocessing import Preprocessing

Columns: TypeAlias = Mapping[str, np.ndarray[Any, np.dtype[Any]]]
"""Field name -> array of shape (rows, ...): the one form in which values travel inside Modelport."""


class MatrixColumns(dict[str, "np.ndarray[Any, np.dtype[Any]]"]):
    """Columns that are those of one `matrix` (rows, columns), in their order: for models that take it whole."""

    def __init__(self, names: Sequence[str], matrix: np.ndarray[Any, np.dtype[Any]]) -> None:
        super().__init__(zip(names, matrix.T, strict=True))
        self.matrix = matrix


Kind: TypeAlias = Literal["number", "integer", "boolean", "string", "category", "datetime", "image", "text", "tensor", "json", "unknown"]
"""What a field holds. "unknown" stands only in what a model says of itself, until a sample or the user says more."""

MAX_NUMBER = 1.7976931348623157e308
MAX_INTEGER = 2**63 - 1
_EXACT = 2**53
"""Up to here a double is the integer that was written."""
MAX_ERRORS = 1000
"""Reading stops at so many wrong values: a list of them that is longer than the body itself helps nobody."""
_MAX_SUGGESTIONS = 20
NULL_CELLS = frozenset({"", "NA", "N/A", "NaN", "nan", "null", "None", "<NA>"})
"""The cells of a CSV file that mean null in a nullable field; in a field of strings only the empty cell does."""
_INTEGER_CELL = re.compile(r"[+-]?[0-9]+(\.0*)?")
_NUMBER_CELL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BOOLEAN_CELLS = {"true": True, "false": False, "1": True, "0": False}
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Field:
    """One input or output of a model.

    `choices` are the only values a category may have; the values a string is known to have (others are taken too); or, for a vector of
    numbers, the names of its elements, in which case it is an object in JSON. `shape` is that of one row: () is a single value.
    `minimum` and `maximum` are inclusive. `preprocessing` says what the model takes of an image, and so the shape of its column;
    None is a picture as it is, of any size. A field with a `default` may be left out. `schema` is the JSON Schema of a value, where it says
    more than the kind.
    """

    name: str
    kind: Kind
    dtype: str | None = None
    shape: tuple[int, ...] = ()
    nullable: bool = False
    choices: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    example: Any = None
    description: str = ""
    preprocessing: Preprocessing | None = None
    default: Any = None
    schema: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise SignatureError(f"field {self.name!r} has the kind {self.kind!r}", hint=f"Kinds: {', '.join(get_args(Kind)[:-1])}.")
        if self.kind == "category" and not self.choices:
            raise SignatureError(f"field {self.name!r} is a category without choices", hint="Give its choices, or make it a string.")
        if self.preprocessing is not None and self.kind != "image":
            raise SignatureError(f"field {self.name!r} is a {self.kind} and has a preprocessing", hint="Only images have one.")
        if self.kind == "image" and self.shape:
            raise SignatureError(f"the image {self.name!r} has a shape", hint="Its size stands in its preprocessing: height and width.")
        if _SURROGATE.search(self.name):
            raise SignatureError(f"the name of field {self.name!r} holds half of a surrogate pair, which is not text")
        if self.default is not None:
            try:
                check(self, self.default)
            except WrongValue as wrong:
                raise SignatureError(
                    f"the default of field {self.name!r}: {wrong}", hint="A default is a value that the field takes."
                ) from wrong

    @property
    def optional(self) -> bool:
        """Whether it may be left out of a record."""
        return self.nullable or self.default is not None

    @property
    def absent(self) -> Any:
        """What stands in the column where it is left out."""
        return None if self.default is None else check(self, self.default)

    def to_dict(self) -> dict[str, Any]:
        """As JSON, leaving out what is not set."""
        raw: dict[str, Any] = {"name": self.name, "kind": self.kind}
        for slot in fields(self)[2:]:
            value = getattr(self, slot.name)
            if isinstance(value, Preprocessing):
                raw[slot.name] = value.to_dict()
            elif value != slot.default or type(value) is not type(slot.default):
                raw[slot.name] = list(value) if isinstance(value, tuple) else value
        return raw

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], where: str = "schema") -> Field:
        """Out of JSON or TOML. SignatureError names the place for an unknown key or a wrong value."""
        if not isinstance(raw, Mapping) or not isinstance(raw.get("name"), str) or not raw["name"]:
            raise SignatureError(f"{where}: a field needs a name and a kind, got {_shown(raw)}")
        if "kind" not in raw:
            raise SignatureError(f"{where}: field {raw['name']!r} has no kind", hint=f"Kinds: {', '.join(get_args(Kind)[:-1])}.")
        known = cls.__dataclass_fields__
        for key in raw:
            if key not in known:
                raise SignatureError(f"{where}: field {raw['name']!r} has no {key!r}{did_you_mean(key, known)}")
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) and key in _LISTS else value for key, value in raw.items()}
        for key, (right, fits) in _STATED.items():
            if values.get(key) is not None and not fits(values[key]):
                raise SignatureError(f"{where}: {key} of field {raw['name']!r} is {_shown(raw[key])}", hint=f"It is {right}.")
        if values.get("preprocessing") is not None:
            values["preprocessing"] = Preprocessing.from_dict(values["preprocessing"], f"{where}: field {raw['name']!r}")
        field = cls(**values)
        field._check_bounds(where)
        return field

    def _check_bounds(self, where: str) -> None:
        if self.minimum is None and self.maximum is None:
            return
        if self.kind not in ("number", "integer"):
            raise SignatureError(f"{where}: {self.name!r} has a minimum or maximum and is a {self.kind}", hint="Only numbers have them.")
        if self._lowest() > self._highest():
            raise SignatureError(f"{where}: minimum {self.minimum} and maximum {self.maximum} of {self.name!r} leave no {self.kind}")

    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema (2020-12) of one value of this field."""
        schema = self._array_schema() if self.shape else self._scalar_schema()
        if self.nullable and self.schema is not None:
            schema = {"anyOf": [schema, {"type": "null"}]}
        elif self.nullable and self.kind == "category":
            schema["enum"].append(None)
        elif self.nullable and "type" in schema:
            schema["type"] = [schema["type"], "null"]
        if self.description:
            schema["description"] = self.description
        if self.example is not None:
            schema["examples"] = [self.example]
        if self.default is not None:
            schema["default"] = self.default
        return schema

    def _scalar_schema(self) -> dict[str, Any]:
        if self.schema is not None:
            return dict(self.schema)
        if self.kind == "number":
            low, high = self._lowest(), self._highest()
            above, below = _excluded(low, -math.inf), _excluded(high, math.inf)
            return {
                "type": "number",
                **({"minimum": low} if above is None else {"exclusiveMinimum": above}),
                **({"maximum": high} if below is None else {"exclusiveMaximum": below}),
            }
        if self.kind == "integer":
            return {"type": "integer", "minimum": self._lowest(), "maximum": self._highest()}
        if self.kind == "category":
            return {"enum": list(self.choices)}
        if self.kind == "datetime":
            return {"type": "string", "format": "date-time"}
        if self.kind == "json":
            return {} if self.nullable else {"type": ["object", "array", "string", "number", "boolean"]}
        if self.kind == "image":
            return {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/*"}
        return {"type": "boolean" if self.kind == "boolean" else "string"}

    def _array_schema(self) -> dict[str, Any]:
        if self.choices:
            names = [str(choice) for choice in self.choices]
            properties = {name: {"type": "number"} for name in names}
            return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}
        low, high = _limits(self.kind, self.dtype)
        schema: dict[str, Any] = {"type": "integer" if isinstance(low, int) else "number", "minimum": low, "maximum": high}
        for size in reversed(self.shape):
            schema = {"type": "array", "items": schema, **({"minItems": size, "maxItems": size} if size >= 0 else {})}
        return schema

    def expected(self) -> str:
        """What a value of this field must be, in words for a message."""
        if self.kind == "category":
            shown = ", ".join(_shown(choice) for choice in self.choices[:8])
            words = f"one of {shown}" + (", ..." if len(self.choices) > 8 else "")
        elif self.kind == "datetime":
            words = "an ISO 8601 date or date-time"
        elif self.shape:
            words = f"numbers of shape {'x'.join(str(size) for size in self.shape)}"
        else:
            words = {
                "integer": "an integer",
                "boolean": "true or false",
                "json": "any JSON",
                "image": "a JPEG, PNG or WEBP picture in base64",
            }.get(self.kind, f"a {'string' if self.kind == 'text' else self.kind}")
        return words + (" or null" if self.nullable else "")

    def _lowest(self) -> float:
        limit = _limits(self.kind, self.dtype)[0]
        lowest = limit if self.minimum is None else max(limit, self.minimum)
        return math.ceil(lowest) if isinstance(limit, int) else lowest

    def _highest(self) -> float:
        limit = _limits(self.kind, self.dtype)[1]
        highest = limit if self.maximum is None else min(limit, self.maximum)
        return math.floor(highest) if isinstance(limit, int) else highest


@cache
def _limits(kind: str, dtype: str | None) -> tuple[float, float]:
    """The lowest and the highest number that the column of a field can hold; of type int where it holds whole numbers only."""
    stated = np.dtype(dtype or "float64")
    if kind == "integer" or (kind == "tensor" and stated.kind in "iu"):
        integers = np.iinfo(stated if stated.kind in "iu" else np.int64)
        return int(integers.min), min(int(integers.max), MAX_INTEGER)
    floats = np.finfo(stated if stated.kind == "f" else np.float64)
    return float(floats.min), float(floats.max)


def _is_dtype(value: Any) -> bool:
    try:
        return isinstance(value, str) and np.dtype(value).kind in "biuf"
    except TypeError:
        return False


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def _is_choice(value: Any) -> bool:
    return isinstance(value, str | bool) or _is_finite(value)


_LISTS = ("shape", "choices")
_STATED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "dtype": ("a numpy dtype of numbers, such as float32", _is_dtype),
    "shape": (
        "a list of sizes, -1 for any",
        lambda value: isinstance(value, tuple) and all(isinstance(size, int) and size >= -1 for size in value),
    ),
    "nullable": ("true or false", lambda value: isinstance(value, bool)),
    "choices": ("a list of strings, numbers or booleans", lambda value: isinstance(value, tuple) and all(map(_is_choice, value))),
    "minimum": ("a finite number", _is_finite),
    "maximum": ("a finite number", _is_finite),
    "description": ("a string", lambda value: isinstance(value, str)),
    "schema": ("a table: the JSON Schema of the value", lambda value: isinstance(value, Mapping)),
}
"""What may be stated of a field: in words, and as a test."""


class WrongValue(Exception):
    """A value that does not fit its field; the message is the detail of the FieldError.

    A suggestion is made of `value` and `known` only when the message is asked for: looking through many names takes its time.
    """

    def __init__(self, message: str, value: Any = None, known: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.message, self.value, self.known = message, value, known

    def __str__(self) -> str:
        return self.message + (did_you_mean(self.value, self.known) if self.known else "")

    def detail(self, errors: Sequence[FieldError]) -> str:
        """The message; with a suggestion only among the first of many `errors`."""
        return str(self) if len(errors) < _MAX_SUGGESTIONS else self.message


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model, in the order in which the model takes and gives them."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]

    def __post_init__(self) -> None:
        for side, named in (("input", self.inputs), ("output", self.outputs)):
            seen: set[str] = set()
            for field in named:
                if field.name in seen:
                    raise SignatureError(f"two {side}s are called {field.name!r}", hint="Give each a name of its own.")
                seen.add(field.name)

    def to_dict(self) -> dict[str, Any]:
        return {"inputs": [field.to_dict() for field in self.inputs], "outputs": [field.to_dict() for field in self.outputs]}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], where: str = "schema") -> Signature:
        """Out of JSON or TOML: {"inputs": [...], "outputs": [...]}; outputs may be left out. SignatureError names what is wrong."""
        for key in raw:
            if key not in ("inputs", "outputs"):
                raise SignatureError(f"{where} has no {key!r}{did_you_mean(key, ('inputs', 'outputs'))}")
        sides = {}
        for side in ("inputs", "outputs"):
            stated = raw.get(side, [])
            if not isinstance(stated, list):
                raise SignatureError(f"{where}: {side} is {_shown(stated)}", hint='It is a list of fields: [{"name": ..., "kind": ...}].')
            sides[side] = tuple(Field.from_dict(field, where) for field in stated)
        return cls(**sides)

    def example(self) -> dict[str, Any]:
        """One record made from the fields' examples."""
        return {field.name: field.example for field in self.inputs}

    def input_schema(self) -> dict[str, Any]:
        """The JSON Schema of one input record."""
        return _record_schema(self.inputs, [field.name for field in self.inputs if not field.optional])

    def output_schema(self) -> dict[str, Any]:
        """The JSON Schema of one output record."""
        return _record_schema(self.outputs, [field.name for field in self.outputs])

    def columns(self, records: Sequence[Any], *, single: bool = False) -> Columns:
        """Input records as columns. InvalidInput lists every wrong value of every record.

        Pointers begin with the record's index unless `single` says that the body was one record. Reading stops at MAX_ERRORS.
        """
        errors: list[FieldError] = []
        rows: list[list[Any]] = []
        for index, record in enumerate(records):
            if len(errors) >= MAX_ERRORS:
                break
            rows.append(check_record(self.inputs, record, () if single else (index,), errors))
        columns = {field.name: [row[place] for row in rows if row] for place, field in enumerate(self.inputs)}
        for field in self.inputs:
            columns[field.name] = _decoded(field, columns[field.name], errors) if field.kind == "image" else columns[field.name]
        if errors:
            raise InvalidInput(errors)
        return {field.name: to_array(field, columns[field.name]) for field in self.inputs}

    def columns_from_text(self, cells: Mapping[str, Sequence[str]], *, first_row: int = 0, single: bool = False) -> Columns:
        """Columns of CSV cells as columns. InvalidInput lists every wrong cell; its pointers count rows from `first_row`.

        `single` says that there is one row, and no row in the pointers.
        """
        errors = self._header_errors(cells, missing="is missing" if single else "the column is missing")
        arrays = {}
        for field in self.inputs:
            values: list[Any] = []
            for index, cell in enumerate(cells.get(field.name, ())):
                if len(errors) >= MAX_ERRORS:
                    break
                try:
                    values.append(check(field, from_cell(field, cell)))
                except WrongValue as wrong:
                    detail, at = wrong.detail(errors), () if single else (first_row + index,)
                    errors.append(FieldError(pointer(*at, field.name), detail, field.expected(), _short(cell)))
            if not errors:
                rows = max((len(column) for column in cells.values()), default=int(single))
                arrays[field.name] = to_array(field, values if field.name in cells else [field.absent] * rows)
        if errors:
            raise InvalidInput(errors)
        return arrays

    def _header_errors(self, header: Iterable[str], missing: str) -> list[FieldError]:
        names = tuple(field.name for field in self.inputs)
        given, known = set(header), set(names)
        unknown: list[FieldError] = []
        for name in islice((name for name in header if name not in known), MAX_ERRORS):
            near = did_you_mean(name, names) if len(unknown) < _MAX_SUGGESTIONS else ""
            unknown.append(FieldError(pointer(name), f"there is no field {_shown(name)}{near}", f"one of {_listed(names)}"))
        absent = [
            FieldError(pointer(field.name), missing, field.expected())
            for field in self.inputs
            if field.name not in given and not field.optional
        ]
        return unknown + absent

    def records(self, columns: Columns) -> list[dict[str, Any]]:
        """Output columns as records of plain Python values, ready for JSON.

        ModelContract for a NaN or infinity where the field is not nullable, and for what JSON cannot hold.
        """
        plain = {field.name: to_plain(field, columns[field.name]) for field in self.outputs}
        names = list(plain)
        return [dict(zip(names, row, strict=True)) for row in zip(*plain.values(), strict=True)]

    def input_records(self, columns: Columns) -> list[dict[str, Any]]:
        """Input columns as records of plain Python values: the reverse of `columns`, with null for what is missing."""
        nullable = [replace(field, nullable=True) for field in self.inputs]
        return Signature((), tuple(nullable)).records(columns)


def _refuse_unknown(record: Mapping[str, Any], known: Mapping[str, Any], at: tuple[str | int, ...], errors: list[FieldError]) -> None:
    """Put what a record has beside the known fields into `errors`."""
    for name in islice((name for name in record if name not in known), MAX_ERRORS):
        near = did_you_mean(name, known) if len(errors) < _MAX_SUGGESTIONS else ""
        detail = f"there is no field {_shown(name)}{near}"
        errors.append(FieldError(pointer(*at, name), detail, f"one of {_listed(list(known))}", _short(record[name])))


def check_record(fields: Sequence[Field], record: Any, at: tuple[str | int, ...], errors: list[FieldError]) -> list[Any]:
    """The values of a record in the order of `fields`, each as `check` gives it, a picture as `_read` does; `at` is where it stands.

    What is wrong is added to `errors`: None stands in its place, and nothing at all in that of what is no record.
    """
    names = tuple(field.name for field in fields)
    if not isinstance(record, Mapping):
        detail = f"expected an object with the fields {_listed(names)}, got {_typed(record)}"
        errors.append(FieldError(pointer(*at), detail, "an object", _short(record)))
        return []
    _refuse_unknown(record, dict.fromkeys(names), at, errors)
    values: list[Any] = []
    for field in fields:
        value = (at, None) if field.kind == "image" else None
        try:
            if field.name in record:
                value = _read(field, record[field.name], at)
            elif field.default is not None:
                value = field.absent
            elif not field.nullable:
                errors.append(FieldError(pointer(*at, field.name), f"is missing: expected {field.expected()}", field.expected()))
        except WrongValue as wrong:
            detail = wrong.detail(errors)
            errors.append(FieldError(pointer(*at, field.name), detail, field.expected(), _short(record[field.name])))
        values.append(value)
    return values


def made_example(field: Field) -> Any:
    """A value that the field takes, where nobody has given one: its default, else the plainest."""
    if field.default is not None:
        return field.default
    if field.kind == "image":
        return pictures.to_base64(pictures.example())
    if field.shape:
        return np.zeros([abs(size) for size in field.shape]).tolist()
    if field.kind in ("number", "integer"):
        low, high = field._lowest(), field._highest()
        plainest = next((number for number in (0, 1) if low <= number <= high), min(max(0, low), high))
        return plainest if field.kind == "integer" else float(plainest)
    if field.kind == "datetime" and (field.schema or {}).get("format") == "date":
        return "2024-01-01"
    return field.choices[0] if field.choices else _PLAINEST.get(field.kind)


_PLAINEST: Mapping[str, Any] = {
    "boolean": False,
    "string": "text",
    "text": "some text",
    "datetime": "2024-01-01T00:00:00Z",
    "json": {},
}


def check(field: Field, value: Any) -> Any:
    """`value` as the column holds it. WrongValue, with the words for the caller, when it does not fit the field."""
    if value is None:
        if field.nullable:
            return None
        raise WrongValue(f"is null: expected {field.expected()}")
    return _CHECKS[field.kind](field, value)


def _check_number(field: Field, value: Any) -> Any:
    if field.shape:
        return _check_tensor(field, value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _mismatch(field, value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise WrongValue(f"expected a finite number, got {_short(value)}")
    _check_range(field, value)
    return number


def _check_integer(field: Field, value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _mismatch(field, value)
    _check_range(field, value)
    return value


def _check_range(field: Field, value: float) -> None:
    low, high = field._lowest(), field._highest()
    low_enough = not _is_below(-value, -high)
    if _is_below(value, low) or not low_enough:
        limit, excluded = (low, _excluded(low, -math.inf)) if low_enough else (high, _excluded(high, math.inf))
        words = ("at least", "more than") if low_enough else ("at most", "less than")
        bound = f"{words[0]} {_number(limit)}" if excluded is None else f"{words[1]} {_number(excluded)}"
        raise WrongValue(f"expected {field.expected().removesuffix(' or null')} of {bound}, got {_short(value)}")


def _excluded(limit: float, outside: float) -> float | None:
    """The number that a limit lies beside, where it is there to exclude that: 0 for the least number above 0."""
    beyond = math.nextafter(limit, outside) if isinstance(limit, float) else limit
    shorter = len(repr(beyond)) + 8 < len(repr(limit)) or beyond == 0.0 != limit
    return beyond if shorter and math.isfinite(beyond) else None


def _is_below(value: float, limit: float) -> bool:
    """Whether `value` is less than `limit` as both are written: an integer may lie between a limit's digits and the double they mean."""
    if isinstance(value, int) and abs(value) > _EXACT:
        return Decimal(value) < Decimal(repr(limit))
    return value < limit


def _number(value: float) -> str:
    return f"{value:g}" if float(f"{value:g}") == value else str(value)


def _check_boolean(field: Field, value: Any) -> Any:
    if not isinstance(value, bool):
        raise _mismatch(field, value)
    return value


def _check_string(field: Field, value: Any) -> Any:
    if not isinstance(value, str):
        raise _mismatch(field, value)
    if _SURROGATE.search(value):
        raise WrongValue("holds half of a surrogate pair, which is not text")
    return value


def _check_category(field: Field, value: Any) -> Any:
    if isinstance(value, str) and value in field.choices:
        return value
    for choice in field.choices:
        numbers = isinstance(choice, int | float) and isinstance(value, int | float)
        if choice == value and isinstance(choice, bool) == isinstance(value, bool) and (numbers or type(choice) is type(value)):
            return choice
    raise WrongValue(f"expected {field.expected()}, got {_typed(value)}", value, field.choices if isinstance(value, str) else ())


def _check_datetime(field: Field, value: Any) -> Any:
    if not isinstance(value, str):
        raise _mismatch(field, value)
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        raise _mismatch(field, value) from None


def _check_tensor(field: Field, value: Any) -> Any:
    if isinstance(value, Mapping):
        value = _tensor_of_bytes(field, value)
    if isinstance(value, np.ndarray):
        return _check_array(field, value)
    low, high = _limits(field.kind, field.dtype)
    whole = isinstance(low, int)

    def shape_of(part: Any, depth: int) -> None:
        if depth == len(field.shape):
            if isinstance(part, bool) or not isinstance(part, int | float) or not low <= part <= high or (whole and part != int(part)):
                raise WrongValue(f"expected {field.expected()}, got {_typed(part)} in it")
            return
        if not isinstance(part, list) or (field.shape[depth] >= 0 and len(part) != field.shape[depth]):
            got = f"a list of {len(part)}" if isinstance(part, list) else _typed(part)
            raise WrongValue(f"expected {field.expected()}, got {got}" + (f" at depth {depth}" if depth else ""))
        for inner in part:
            shape_of(inner, depth + 1)

    shape_of(value, 0)
    if -1 in field.shape[1:]:
        try:
            np.asarray(value)
        except ValueError:
            raise WrongValue(f"expected {field.expected()}, got lists of different lengths") from None
    return value


def _tensor_of_bytes(field: Field, value: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[Any]]:
    """A tensor that came as {"dtype", "shape", "data"}."""
    dtype, shape, data = (value.get(key) for key in ("dtype", "shape", "data"))
    right = f'{field.expected()}, or {{"dtype": "{field.dtype or "float64"}", "shape": [...], "data": base64}}'
    if set(value) != {"dtype", "shape", "data"} or not _is_dtype(dtype) or not isinstance(data, str) or not isinstance(shape, list):
        raise WrongValue(f"expected {right}, got an object")
    if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape):
        raise WrongValue(f"expected {right}, got the shape {_shown(shape)}")
    try:
        raw = base64.b64decode(data.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise WrongValue("its data is no base64") from None
    kind = np.dtype(str(dtype)).newbyteorder("<")
    if len(raw) != math.prod(shape) * kind.itemsize:
        raise WrongValue(f"its data has {len(raw):,} bytes; {dtype} of shape {_shown(shape)} has {math.prod(shape) * kind.itemsize:,}")
    return np.frombuffer(raw, kind).reshape(shape)


def _check_array(field: Field, value: np.ndarray[Any, np.dtype[Any]]) -> Any:
    """An array as the column holds it: of the field's shape, and of numbers that its dtype holds exactly."""
    fits = len(value.shape) == len(field.shape) and all(want in (-1, size) for want, size in zip(field.shape, value.shape, strict=True))
    if not fits:
        raise WrongValue(f"expected {field.expected()}, got the shape {'x'.join(map(str, value.shape))}")
    wanted = np.dtype(field.dtype or "float64")
    if not np.can_cast(value.dtype, wanted, "safe"):
        raise WrongValue(f"expected numbers that {wanted} holds, got {value.dtype.name}")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise WrongValue("expected finite numbers, got NaN or infinity")
    return value.astype(wanted)


def _check_json(field: Field, value: Any) -> Any:
    return value


def _check_image(field: Field, value: Any) -> Any:
    found = _sent_picture(field, value)
    if not isinstance(found, bytes):
        return found
    try:
        return pictures.decode(found, field.preprocessing)
    except PictureError as error:
        raise WrongValue(str(error)) from error


def _read(field: Field, value: Any, at: tuple[str | int, ...]) -> Any:
    """As `check`; but of a picture where it stands and what was sent, so that they can be decoded together, and in parallel."""
    return (at, _sent_picture(field, value)) if field.kind == "image" else check(field, value)


def _sent_picture(field: Field, value: Any) -> Any:
    """A picture to be decoded: its bytes, out of base64 where they came in JSON; pixels as they are; None for null.

    WrongValue for anything else, also for what went wrong while it was fetched.
    """
    if value is None and field.nullable:
        return None
    if isinstance(value, bytes):
        return value
    if isinstance(value, np.ndarray):
        shape = field.preprocessing.shape if field.preprocessing else (-1, -1, 3)
        return _check_array(Field(field.name, "tensor", "uint8", shape), value)
    if isinstance(value, PictureError):
        raise WrongValue(str(value))
    if not isinstance(value, str):
        raise WrongValue(f"is null: expected {field.expected()}") if value is None else _mismatch(field, value)
    try:
        return pictures.from_base64(value)
    except PictureError as error:
        raise WrongValue(str(error)) from error


def _decoded(field: Field, sent: Sequence[tuple[tuple[str | int, ...], Any]], errors: list[FieldError]) -> list[Any]:
    """The pixels of pictures, each sent at its place; what is wrong with one goes into `errors`."""
    values = [value for _, value in sent]
    waiting = [index for index, value in enumerate(values) if isinstance(value, bytes)]
    for index, pixels in zip(waiting, pictures.decode_all([values[index] for index in waiting], field.preprocessing), strict=True):
        if isinstance(pixels, PictureError):
            place = pointer(*sent[index][0], field.name)
            errors.append(FieldError(place, str(pixels), field.expected(), _short(values[index])))
        values[index] = pixels
    return values


_CHECKS: dict[str, Callable[[Field, Any], Any]] = {
    "number": _check_number,
    "integer": _check_integer,
    "boolean": _check_boolean,
    "string": _check_string,
    "text": _check_string,
    "category": _check_category,
    "datetime": _check_datetime,
    "tensor": _check_tensor,
    "json": _check_json,
    "image": _check_image,
}


def from_cell(field: Field, cell: str) -> Any:
    """A CSV cell as the JSON value it stands for; a cell that stands for none is returned as it is, for `check` to refuse."""
    if field.kind == "category":
        for choice in field.choices:
            if _same_cell(choice, cell):
                return choice
    if field.nullable and (cell == "" or (field.kind not in ("string", "text") and cell in NULL_CELLS)):
        return None
    if field.shape or field.kind in ("tensor", "json"):
        return _json_cell(cell)
    if field.kind in ("number", "integer"):
        return _number_cell(field, cell)
    return _BOOLEAN_CELLS.get(cell.strip().lower(), cell) if field.kind == "boolean" else cell


def _number_cell(field: Field, cell: str) -> float | str:
    if _INTEGER_CELL.fullmatch(cell.strip()) and len(cell) < 400:
        return int(cell.strip().split(".")[0]) if field.kind == "integer" else float(cell)
    return float(cell) if _NUMBER_CELL.fullmatch(cell.strip()) else cell


def _json_cell(cell: str) -> Any:
    try:
        return json.loads(cell, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return cell


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _same_cell(choice: Any, cell: str) -> bool:
    if isinstance(choice, bool):
        return _BOOLEAN_CELLS.get(cell.strip().lower()) is choice
    if isinstance(choice, int | float):
        return bool(_NUMBER_CELL.fullmatch(cell.strip())) and float(cell) == choice
    return bool(choice == cell)


def to_array(field: Field, values: Sequence[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    """Checked values (None for null) as the column of `field`."""
    if field.kind == "number" or field.kind == "tensor":
        dtype = np.dtype(field.dtype or "float64")
        if field.shape:
            return _tensors(field.shape, values, dtype)
        return np.asarray([math.nan if value is None else value for value in values], dtype=dtype)
    if field.kind == "image":
        return _tensors(field.preprocessing.shape if field.preprocessing else (0, 0, 3), values, np.dtype("uint8"))
    if field.kind == "integer":
        if any(value is None for value in values):
            return np.asarray([math.nan if value is None else value for value in values], dtype=np.float64)
        return np.asarray(values, dtype=np.int64)
    if field.kind == "boolean" and not any(value is None for value in values):
        return np.asarray(values, dtype=np.bool_)
    if field.kind == "datetime":
        return np.asarray([np.datetime64("NaT", "us") if value is None else value for value in values], dtype="datetime64[us]")
    return np.fromiter(values, dtype=object, count=len(values))


def _tensors(shape: Sequence[int], values: Sequence[Any], dtype: np.dtype[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    """Nested lists of numbers, or arrays, as one array; as an array of arrays where the rows differ in shape or one is null."""
    parts = [None if value is None else np.asarray(value, dtype=dtype) for value in values]
    if not parts:
        return np.empty((0, *(max(size, 0) for size in shape)), dtype=dtype)
    present = [part for part in parts if part is not None]
    if len(present) == len(parts) and len({part.shape for part in present}) == 1:
        return np.stack(present)
    column = np.empty(len(parts), dtype=object)
    for row, part in enumerate(parts):
        column[row] = part
    return column


def to_plain(field: Field, column: np.ndarray[Any, np.dtype[Any]]) -> list[Any]:
    """A column as plain Python values for JSON, one a row. ModelContract when one has no JSON form."""
    values = to_values(field, column)
    if is_named_vector(field):
        names = [str(choice) for choice in field.choices]
        return [dict(zip(names, row, strict=True)) for row in values]
    return values


def is_named_vector(field: Field) -> bool:
    """Whether a value of the field is several numbers, each with a name: an object in JSON."""
    return field.kind == "number" and bool(field.shape) and bool(field.choices)


def to_values(field: Field, column: np.ndarray[Any, np.dtype[Any]]) -> list[Any]:
    """As `to_plain`, but a vector whose elements have names is a list of numbers."""
    if field.kind == "image":
        return [None if pixels is None else pictures.to_base64(pictures.png(pixels)) for pixels in column]
    if is_named_vector(field) and column.shape[1:] != (len(field.choices),):
        raise ModelContract(f"output {field.name!r} has rows of shape {column.shape[1:]}, and {len(field.choices)} names")
    if column.dtype.kind == "f":
        return _plain_floats(field, column)
    if column.dtype.kind in "Mm":  # datetime and timedelta objects hold microseconds
        column = column.astype(f"{column.dtype.kind}8[us]").astype(object)
    values: list[Any] = column.tolist()
    if column.dtype.kind in "iubU" or {str, int, bool}.issuperset(map(type, values)):
        return values
    return [_plain(field, value) for value in values]


def _plain_floats(field: Field, column: np.ndarray[Any, np.dtype[Any]]) -> list[Any]:
    wide = column.astype(np.float64) if column.dtype.itemsize > 8 else column
    bad = ~np.isfinite(wide) if not field.nullable else np.isinf(wide)
    if bad.any():
        row = int(np.argwhere(bad)[0][0])
        raise ModelContract(f"output {field.name!r} of row {row} is {wide[bad][0]}, which is no number")
    values: list[Any] = wide.tolist()
    if field.kind == "integer":
        values = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
    return [_without_nan(value) for value in values] if field.nullable and np.isnan(wide).any() else values


def _without_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return None if value != value else value


def _plain(field: Field, value: Any) -> Any:
    """A value of an object column as JSON holds it: numpy and pandas scalars, times, bytes, mappings and sequences of any depth."""
    if isinstance(value, np.datetime64 | np.timedelta64):
        value = value.astype(f"{value.dtype.kind}8[us]").astype(object)
    elif isinstance(value, np.floating):
        value = float(value)
    elif isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(_plain(field, key)): _plain_part(field, part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain_part(field, part) for part in value]
    return _plain_scalar(field, value)


def _plain_part(field: Field, part: Any) -> Any:
    """What stands inside a value: in any JSON that may well be null."""
    return None if part is None and field.kind == "json" else _plain(field, part)


def _plain_scalar(field: Field, value: Any) -> Any:
    if isinstance(value, float) and math.isfinite(value):
        return value
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, float) or is_null(value):
        if field.nullable and not (isinstance(value, float) and math.isinf(value)):
            return None
        raise ModelContract(f"output {field.name!r} holds {value}, which is no answer")
    if isinstance(value, timedelta):
        return _duration(value)
    if isinstance(value, datetime):
        return moment_text(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if kind.startswith("pandas.") and not hasattr(value, "__len__"):  # Period, Interval
        return str(value)
    raise ModelContract(f"output {field.name!r} holds a {kind}, which JSON cannot hold")


def _duration(value: timedelta) -> str:
    """An ISO 8601 duration in days and seconds: P1DT43200S."""
    sign, length = ("-", -value) if value < timedelta(0) else ("", value)
    seconds = f"{length.seconds}.{length.microseconds:06}".rstrip("0").rstrip(".") if length.microseconds else str(length.seconds)
    return f"{sign}P{length.days}DT{seconds}S"


def moment_text(value: datetime) -> str:
    """A date-time of RFC 3339 in UTC, which a time without a zone is taken to be in: 2024-01-31T12:00:00Z."""
    moment = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    return moment.isoformat() + "Z"


def is_null(value: Any) -> bool:
    """Whether a scalar is one of the many ways to say that there is no value: None, NaN, NaT, pandas.NA."""
    if value is None or type(value).__name__ == "NAType":
        return True
    unequal = value != value
    return isinstance(unequal, bool | np.bool_) and bool(unequal)


def did_you_mean(name: Any, known: Iterable[Any]) -> str:
    """'; did you mean "petal_width"?' when one of `known` is near, else ''."""
    near = difflib.get_close_matches(str(name)[:200], [str(other) for other in known][:10_000], n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def _record_schema(side: Iterable[Field], required: list[str]) -> dict[str, Any]:
    properties = {field.name: field.json_schema() for field in side}
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _mismatch(field: Field, value: Any) -> WrongValue:
    return WrongValue(f"expected {field.expected()}, got {_typed(value)}")


def _typed(value: Any) -> str:
    """`value` in words that tell a string from a number: 'the string "1.5"'."""
    if isinstance(value, bytes | np.ndarray):
        return f"{len(value):,} bytes" if isinstance(value, bytes) else f"{value.dtype.name} of shape {'x'.join(map(str, value.shape))}"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the string {_shown(value)}"
    if isinstance(value, int | float):
        return f"the number {_short(value)}"
    return "a list" if isinstance(value, list) else "an object"


def _shown(value: Any) -> str:
    text = _SURROGATE.sub("\ufffd", f'"{value}"' if isinstance(value, str) else str(value))
    return text if len(text) <= 60 else text[:56] + "..." + ('"' if isinstance(value, str) else "")


def _short(value: Any) -> Any:
    """`value` as an error carries it: itself when small, else its beginning as text."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**30:
        return f"an integer of {len(str(value)) if abs(value) < 10**4000 else 'over 4000'} digits"
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value if len(value) <= 80 else value[:77] + "...")
    return _typed(value) if isinstance(value, list | Mapping | bytes | np.ndarray) else str(value)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

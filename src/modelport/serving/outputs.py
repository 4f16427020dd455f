"""A model's columns become the bytes of an answer: JSON records or CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from modelport.errors import ModelContract
from modelport.serving.inputs import STRUCT_NAME
from modelport.signature import Columns, Field, Signature, is_named_vector, to_values

_encoder = msgspec.json.Encoder()
_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?[0-9.]+([eE][+-]?[0-9]+)?")


def to_json(value: Any) -> bytes:
    """A value as JSON. ModelContract for what JSON cannot hold; NaN must have been dealt with."""
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ModelContract(f"the model's answer has no JSON form: {error}") from error


class Encoder:
    """The JSON form of one model's answers, compiled once from its signature."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._record = _struct([field.name for field in signature.outputs])
        self._vectors = [
            _struct([str(choice) for choice in field.choices]) if is_named_vector(field) else None for field in signature.outputs
        ]

    def records(self, columns: Columns) -> list[Any]:
        """Something for each row that becomes its record in JSON. ModelContract as `Signature.records` says."""
        values = []
        for field, vector in zip(self._signature.outputs, self._vectors, strict=True):
            column = to_values(field, columns[field.name])
            values.append([vector(*row) for row in column] if vector else column)
        return list(map(self._record, *values))

    def json(self, columns: Columns | None, *, single: bool) -> bytes:
        """The answer to a record or a list of records; no columns is the answer to no rows."""
        records = [] if columns is None else self.records(columns)
        return to_json(records[0] if single else records)


class Answers:
    """What a model answered to the rows of many callers; each takes its own."""

    def __init__(self, columns: Columns, encoder: Encoder) -> None:
        self._columns, self._encoder = columns, encoder
        self._records: list[Any] | None = None
        self._sound = True

    def part(self, start: int, stop: int) -> Columns:
        """The answers to some of the rows."""
        return {name: column[start:stop] for name, column in self._columns.items()}

    def json(self, start: int, stop: int, *, single: bool) -> bytes:
        """The same as JSON. What has no JSON form is the ModelContract of the caller whose row it is, and of no other."""
        records = self._records or self._all()
        if records is None:
            return self._encoder.json(self.part(start, stop), single=single)
        return to_json(records[start] if single else records[start:stop])

    def _all(self) -> list[Any] | None:
        if self._sound:
            try:
                self._records = self._encoder.records(self._columns)
            except ModelContract:
                self._sound = False
        return self._records


def _struct(names: Sequence[str]) -> Callable[..., Any]:
    """What makes of values, by position, something that is an object with these names in JSON."""
    if len(set(names)) < len(names) or not all(map(STRUCT_NAME.fullmatch, names)):
        return lambda *values: dict(zip(names, values, strict=True))
    keys = [f"f{index}" for index in range(len(names))]
    made: Callable[..., Any] = msgspec.defstruct("Record", keys, rename=dict(zip(keys, names, strict=True)), gc=False)
    return made


def csv_table(signature: Signature, columns: Columns | None, *, header: bool = True) -> bytes:
    """The answer as CSV; no columns is the answer to no rows."""
    return csv_records(signature.outputs, [] if columns is None else signature.records(columns), header=header)


def csv_records(fields: Sequence[Field], records: Sequence[dict[str, Any]], *, header: bool = True) -> bytes:
    """Records of `fields` as CSV (RFC 4180).

    A vector with named elements is one column an element, "probabilities.setosa"; other nested values are JSON in their cell. A text
    that a spreadsheet would run as a formula gets an apostrophe before it; numbers are left alone.
    """
    out = io.StringIO(newline="")
    lines = csv.writer(out)
    if header:
        lines.writerow([_guarded(name) for field in fields for name in _headings(field)])
    for record in records:
        lines.writerow([cell for field in fields for cell in _cells(field, record[field.name])])
    try:
        return out.getvalue().encode()
    except UnicodeEncodeError as error:
        raise ModelContract(f"the model's answer has no UTF-8 form: {error}") from error


def _headings(field: Field) -> list[str]:
    return [f"{field.name}.{choice}" for choice in field.choices] if is_named_vector(field) else [field.name]


def _cells(field: Field, value: Any) -> Iterator[Any]:
    if is_named_vector(field):
        yield from value.values()
    elif isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, dict | list):
        yield json.dumps(value, ensure_ascii=False)
    else:
        yield _guarded(value) if isinstance(value, str) else value


def _guarded(text: str) -> str:
    return "'" + text if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text

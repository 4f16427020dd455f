"""A model's columns become the bytes of an answer: JSON records or CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from modelport.errors import ModelContract
from modelport.signature import Columns, Field, Signature

_encoder = msgspec.json.Encoder()
_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?[0-9.]+([eE][+-]?[0-9]+)?")


def to_json(value: Any) -> bytes:
    """A value as JSON. ModelContract for what JSON cannot hold; NaN must have been dealt with."""
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ModelContract(f"the model's answer has no JSON form: {error}") from error


def json_records(signature: Signature, columns: Columns | None, *, single: bool) -> bytes:
    """The answer to a record or a list of records; no columns is the answer to no rows."""
    records = [] if columns is None else signature.records(columns)
    return to_json(records[0] if single else records)


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


def _is_named_vector(field: Field) -> bool:
    return field.kind == "number" and bool(field.shape) and bool(field.choices)


def _headings(field: Field) -> list[str]:
    return [f"{field.name}.{choice}" for choice in field.choices] if _is_named_vector(field) else [field.name]


def _cells(field: Field, value: Any) -> Iterator[Any]:
    if _is_named_vector(field):
        yield from value.values()
    elif isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, dict | list):
        yield json.dumps(value, ensure_ascii=False)
    else:
        yield _guarded(value) if isinstance(value, str) else value


def _guarded(text: str) -> str:
    return "'" + text if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text

"""Tables that are served by their keys: whatever holds one becomes the file of `modelport.frameworks.lookup`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from modelport import inspection, samples
from modelport.errors import MissingLibrary, ModelFileError, SignatureError, UsageError
from modelport.frameworks import Card
from modelport.frameworks.lookup import FRAMES, table_json
from modelport.samples import Sample
from modelport.signature import Field, did_you_mean, moment_text

FILES = frozenset({".csv", ".tsv", ".parquet", ".jsonl", ".ndjson"})
"""What is a table for who names a key, and no model otherwise."""
_KEY_KINDS = ("string", "integer", "boolean", "datetime")
_KEY = "key"
_VALUE = "value"


def is_table(path: Path, key: Sequence[str]) -> bool:
    """Whether a file is a table by its name, and for being asked by a key."""
    return bool(key) and path.suffix.lower() in FILES


def convert(path: Path, card: Card | None, key: Sequence[str], target: Path) -> None:
    """Write the table in `path` to `target`, to be asked by the columns `key`. The caller has checked trust.

    The key of a dict is its own, and is called "key" where no name is given; so is the index of a DataFrame, if it has names. UsageError
    for a column that is not there, a key that stands twice, or one of a kind that cannot be a key.
    """
    records = None if card is None else _records(path, card, key)
    if records is not None:
        key, rows = records
        sample = samples.from_object(rows, most=None)
    else:
        sample = samples.read(path, most=None)
    if not key:
        hint = f"Name it with --key: {', '.join(list(sample.columns)[:12])}."
        raise SignatureError(f"{path} does not say by which column it is asked", hint=hint)
    for name in key:
        if name not in sample.columns:
            near = did_you_mean(name, sample.columns)
            raise UsageError(f"{path} has no column {name!r}{near}", hint=f"Its columns: {', '.join(list(sample.columns)[:12])}.")
    _check_keys(path, sample, key)
    fields = {field.name: field for field in sample.fields}
    keys = [Field(name, fields[name].kind) for name in key]
    values = [_value(field) for field in sample.fields if field.name not in key]
    if not values:
        raise UsageError(f"{path} has nothing but its keys", hint="An answer is what stands beside the key.")
    columns = {name: [_plain(value) for value in column] for name, column in sample.columns.items()}
    target.write_text(table_json(keys, values, columns), encoding="utf-8")


def _records(path: Path, card: Card, key: Sequence[str]) -> tuple[Sequence[str], Any] | None:
    """The key and the rows of a dict, list or DataFrame; None for what is read as a sample is."""
    if card.cls in FRAMES:
        return _of_frame(path, key)
    root = inspection.read(path).root
    return _of_dict(path, root, key) if isinstance(root, dict) else (key, root)


def _of_dict(path: Path, root: Mapping[Any, Any], key: Sequence[str]) -> tuple[Sequence[str], list[dict[str, Any]]]:
    """{key: record} or {key: value}; a key of several parts is a tuple."""
    first = next(iter(root))
    width = len(first) if isinstance(first, tuple) else 1
    names = list(key) or ([_KEY] if width == 1 else [f"{_KEY}_{place}" for place in range(width)])
    if len(names) != width:
        raise UsageError(f"{path} has keys of {width} part{'s' if width > 1 else ''}, and {len(names)} are named", hint="Name each: --key.")
    rows = []
    for parts, value in root.items():
        given = parts if isinstance(parts, tuple) else (parts,)
        record = value if isinstance(value, dict) else {_VALUE: value}
        if len(given) != width or set(names) & record.keys():
            problem = f"the key {parts!r} is not of {width} parts" if len(given) != width else f"a record has a field {names[0]!r} itself"
            raise UsageError(f"{path}: {problem}", hint="Give the key another name with --key.")
        rows.append({**dict(zip(names, given, strict=True)), **record})
    return names, rows


def _of_frame(path: Path, key: Sequence[str]) -> tuple[Sequence[str], Any]:
    """The DataFrame in a pickle whose imports were checked, with an index that has names among its columns."""
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingLibrary("pandas is not installed, which made this file", hint="pip install pandas") from error
    try:
        with path.open("rb") as file:
            frame = pickle.load(file)  # noqa: S301  the caller has checked what it imports
    except Exception as error:
        raise ModelFileError(f"{path} does not load: {type(error).__name__}: {error}", hint=f"pandas here is {pd.__version__}.") from error
    named = [name for name in frame.index.names if name is not None]
    if named:
        frame = frame.reset_index()
    return list(key) or [str(name) for name in named], frame


def _check_keys(path: Path, sample: Sample, key: Sequence[str]) -> None:
    fields = {field.name: field for field in sample.fields}
    for name in key:
        if fields[name].kind not in _KEY_KINDS or fields[name].nullable:
            what = "has nulls" if fields[name].nullable else f"holds a {fields[name].kind}"
            raise UsageError(f"{path}: the key {name!r} {what}", hint="A key is a string, an integer, a boolean or a time, in every row.")
    seen: dict[tuple[Any, ...], int] = {}
    for row, parts in enumerate(zip(*(sample.columns[name] for name in key), strict=True)):
        if parts in seen:
            shown = ", ".join(f"{name} {part!r}" for name, part in zip(key, parts, strict=True))
            raise UsageError(f"{path}: rows {seen[parts]} and {row} have the same key: {shown}", hint="One more --key may tell them apart.")
        seen[parts] = row


def _value(field: Field) -> Field:
    """A column as an output: what nothing is known of may hold anything."""
    kind = "json" if field.kind == "unknown" else field.kind
    return Field(field.name, kind, shape=field.shape, nullable=field.nullable)


def _plain(value: Any) -> Any:
    return moment_text(value) if isinstance(value, datetime) else value

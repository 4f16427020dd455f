"""A table of answers by their keys: a dict, a list of records or a DataFrame, in JSON or in a pickle.

It is kept as JSON, which runs no code: {"modelport": "lookup", "keys": [fields], "values": [fields], "columns": {name: [values]}}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from modelport.errors import FieldError, InvalidInput, ModelFileError, pointer
from modelport.frameworks import Card, Contents, Instance, allowed
from modelport.signature import Columns, Field, Signature, check, to_array

MARK = {"modelport": "lookup"}
TABLE = "table"
"""The class on the card of a file that `save` wrote."""
FILE = "table.json"
FRAMES = frozenset({"pandas.core.frame.DataFrame", "pandas.DataFrame"})
_MAX_CHOICES = 1000
"""So many keys are named in the signature, for the page to offer."""
_NEAREST = 3


@dataclass(frozen=True)
class Table:
    """The columns of a table, and the row of each key."""

    keys: tuple[Field, ...]
    values: tuple[Field, ...]
    columns: Mapping[str, Sequence[Any]]
    """As JSON has them, one value a row."""
    rows: Mapping[tuple[Any, ...], int]


def imports() -> frozenset[str]:
    """What a pickled DataFrame imports."""
    return allowed.names("pandas")


def detect(contents: Contents) -> Card | None:
    """The card of a table: of one that `save` wrote; of a dict or a list of records in JSON; of a dict or DataFrame in a pickle."""
    root = contents.root
    if contents.format == "json":
        if isinstance(root, dict) and root.get("modelport") == MARK["modelport"]:
            keys = tuple(key["name"] for key in root["keys"])
            return Card("lookup", TABLE, "", None, keys, len(keys), details={"rows": len(next(iter(root["columns"].values()), ()))})
        if isinstance(root, dict) or (isinstance(root, list) and all(isinstance(record, dict) for record in root)):
            return _card("dict" if isinstance(root, dict) else "records", len(root)) if root else None
    if contents.format in ("pickle", "joblib"):
        if isinstance(root, Instance) and root.cls in FRAMES:
            return Card("lookup", root.cls, "pandas")
        if type(root) is dict and root and all(map(_is_plain, root.values())) and all(map(_is_key, root)):
            return _card("dict", len(root))
    return None


def _card(kind: str, rows: int) -> Card:
    return Card("lookup", kind, "", details={"rows": rows})


def _is_key(key: Any) -> bool:
    return isinstance(key, str | int) or (isinstance(key, tuple) and all(isinstance(part, str | int) for part in key))


def _is_plain(value: Any) -> bool:
    """Whether it is data only, to the bottom."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | np.generic)


def load(path: Path, card: Card) -> Table:
    """The table that `save` wrote. ModelFileError when it is no such."""
    try:
        raw = json.loads(path.read_bytes())
        keys = tuple(Field.from_dict(field, str(path)) for field in raw["keys"])
        values = tuple(Field.from_dict(field, str(path)) for field in raw["values"])
        columns: dict[str, list[Any]] = {field.name: raw["columns"][field.name] for field in (*keys, *values)}
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(
            f"{path} is no table of Modelport: {error}", hint="Pack the dict, list or DataFrame that it was made of."
        ) from error
    cells = zip(*(map(_checked, [field] * len(columns[field.name]), columns[field.name]) for field in keys), strict=True)
    return Table(keys, values, columns, {key: row for row, key in enumerate(cells)})


def _checked(field: Field, value: Any) -> Any:
    return check(field, value)


def describe(model: Table, card: Card) -> Signature:
    """Inputs are the keys, outputs what the table holds for them."""
    return Signature(tuple(_offered(field, model.columns[field.name]) for field in model.keys), model.values)


def _offered(field: Field, column: Sequence[Any]) -> Field:
    """The key with the first as its example, and all of them to choose from where they are texts and not too many."""
    known = tuple(dict.fromkeys(column)) if field.kind == "string" else ()
    return replace(field, example=column[0], choices=known if len(known) <= _MAX_CHOICES else ())


def predict(model: Table, columns: Columns, signature: Signature) -> Columns:
    """The row of each key. InvalidInput for the first that the table does not have, with the nearest that it has."""
    keys = list(zip(*(columns[field.name].tolist() for field in signature.inputs), strict=True))
    rows = [model.rows.get(key, -1) for key in keys]
    if -1 in rows:
        raise InvalidInput([_unknown(model, keys[rows.index(-1)])])
    answers = {}
    for field in model.values:
        column = model.columns[field.name]
        answers[field.name] = to_array(field, [None if column[row] is None else check(field, column[row]) for row in rows])
    return answers


def _unknown(model: Table, key: tuple[Any, ...]) -> FieldError:
    """What is wrong with a key: the first part of it that no row has, or that no row has them together."""
    for place, (field, part) in enumerate(zip(model.keys, key, strict=True)):
        known = {row[place] for row in model.rows}
        if part not in known:
            near = _nearest(part, known)
            words = f"; the nearest {'is' if len(near) == 1 else 'are'} {', '.join(map(_shown, near))}" if near else ""
            return FieldError(
                pointer(field.name), f"the table has no {field.name} {_shown(part)}{words}", f"a {field.name} of the table", part
            )
    shown = ", ".join(f"{field.name} {_shown(part)}" for field, part in zip(model.keys, key, strict=True))
    return FieldError("", f"the table has no row with {shown}", "keys that stand in one row", None)


def _nearest(part: Any, known: set[Any]) -> list[Any]:
    if isinstance(part, str):
        return get_close_matches(part, known, n=_NEAREST, cutoff=0.5)
    if isinstance(part, int) and not isinstance(part, bool):
        return sorted(sorted(known, key=lambda other: abs(other - part))[:_NEAREST])
    return []


def _shown(part: Any) -> str:
    return f'"{part[:60]}"' if isinstance(part, str) else str(part)


def save(model: Table, card: Card, folder: Path) -> str:
    """The table as JSON."""
    (folder / FILE).write_text(table_json(model.keys, model.values, model.columns), encoding="utf-8")
    return FILE


def table_json(keys: Sequence[Field], values: Sequence[Field], columns: Mapping[str, Sequence[Any]]) -> str:
    """The file that `load` reads."""
    fields = {"keys": [field.to_dict() for field in keys], "values": [field.to_dict() for field in values]}
    return json.dumps({**MARK, **fields, "columns": dict(columns)}, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


def requirements(model: Table, card: Card) -> tuple[str, ...]:
    """Nothing: Python reads JSON."""
    return ()

"""What a CatBoost model says of itself, in JSON or in its binary format, a flat buffer.

The tables are those of catboost/libs/model/flatbuffers/{model,features}.fbs; a number behind a table's name here is the place of a
field in it.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from modelport.inspection.bounds import Malformed

_KINDS = {"float_features": "number", "categorical_features": "category", "text_features": "text", "embedding_features": "embedding"}
_FEATURES = 1_000_000


def from_json(data: bytes) -> dict[str, Any]:
    """The root of `Contents` for the format catboost-json."""
    read = json.loads(data)
    described = read.get("features_info") or {}
    features = {
        feature["flat_feature_index"]: _feature(
            feature.get("feature_id", ""), kind, feature["flat_feature_index"], feature.get("has_nans", False), feature.get("borders") or ()
        )
        for group, kind in _KINDS.items()
        for feature in described.get(group) or ()
    }
    info = {str(name): value for name, value in (read.get("model_info") or {}).items()}
    trees = read.get("oblivious_trees") or read.get("trees") or []
    bias = (read.get("scale_and_bias") or [1, [0]])[-1]
    return _root(info, features, len(trees), len(bias) if isinstance(bias, list) else 1)


def from_cbm(data: bytes) -> dict[str, Any]:
    """The root of `Contents` for the format catboost-cbm."""
    try:
        return _from_cbm(data)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise Malformed(f"is cut short or damaged: it begins like a CatBoost model ({error})") from None


def _from_cbm(data: bytes) -> dict[str, Any]:
    size = struct.unpack_from("<I", data, 4)[0]
    if size + 8 > len(data):
        raise Malformed(f"is cut short: the CatBoost model in it has {size} bytes, and {len(data) - 8} are there")
    core = _Table.root(data[8 : 8 + size])
    info = {pair.text(0): _parsed(pair.text(1)) for pair in core.tables(2)}
    trees = core.table(1)
    features: dict[int, dict[str, Any]] = {}
    if trees is not None:
        for feature in trees.tables(5):
            place = feature.integer(2, -1)
            features[place] = _feature(feature.text(4), "number", place, bool(feature.integer(0, 0, "<b")), feature.floats(3))
        for field, kind in ((4, "category"), (12, "text")):
            for feature in trees.tables(field):
                place = feature.integer(1, -1)
                features[place] = _feature(feature.text(2), kind, place, False, ())
    return _root(info, features, trees.length(2) if trees else 0, trees.integer(0, 1) if trees else 1)


def _feature(name: Any, kind: str, place: int, nullable: Any, borders: Iterable[float]) -> dict[str, Any]:
    return {"name": str(name or place), "kind": kind, "nullable": bool(nullable), "borders": [float(border) for border in borders]}


def _root(info: Mapping[str, Any], features: Mapping[int, dict[str, Any]], trees: int, dimension: int) -> dict[str, Any]:
    release = re.search(r"CatBoost release ([0-9][0-9.]*[0-9])", str(info.get("catboost_version_info", "")))
    params = _parsed(info.get("params"))
    classes = _parsed(info.get("class_params"))
    names = classes.get("class_names") if isinstance(classes, dict) else None
    if not names and isinstance(params, dict):
        names = (params.get("data_processing_options") or {}).get("class_names")
    return {
        "release": release[1] if release else None,
        "features": [features[place] for place in sorted(features)],
        "class_names": list(names or ()),
        "params": params if isinstance(params, dict) else {},
        "info": dict(info),
        "trees": trees,
        "dimension": dimension,
    }


def _parsed(text: Any) -> Any:
    """JSON in a text as its value; another text as it is."""
    if not isinstance(text, str) or not text.startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


class _Table:
    """A table in a flat buffer (https://flatbuffers.dev/internals/); reading beyond the buffer raises struct.error."""

    def __init__(self, data: bytes, start: int) -> None:
        self.data = data
        self.start = start
        self.fields = start - struct.unpack_from("<i", data, start)[0]
        if start < 0 or self.fields < 0:
            raise Malformed("is damaged: its flat buffer points out of itself")
        self.size = struct.unpack_from("<H", data, self.fields)[0]

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, struct.unpack_from("<I", data)[0])

    def _place(self, field: int) -> int | None:
        at = 4 + 2 * field
        offset = struct.unpack_from("<H", self.data, self.fields + at)[0] if at < self.size else 0
        return self.start + offset if offset else None

    def integer(self, field: int, default: int, code: str = "<i") -> int:
        place = self._place(field)
        return default if place is None else int(struct.unpack_from(code, self.data, place)[0])

    def _target(self, field: int) -> int | None:
        place = self._place(field)
        return None if place is None else place + int(struct.unpack_from("<I", self.data, place)[0])

    def _vector(self, field: int, item: int) -> tuple[int, int]:
        """The number of the vector's items, and where the first stands."""
        target = self._target(field)
        if target is None:
            return 0, 0
        length = int(struct.unpack_from("<I", self.data, target)[0])
        if target + 4 + length * item > len(self.data):
            raise Malformed("is damaged: its flat buffer has a vector longer than itself")
        return length, target + 4

    def length(self, field: int) -> int:
        return self._vector(field, 4)[0]

    def text(self, field: int) -> str:
        length, start = self._vector(field, 1)
        return self.data[start : start + length].decode("utf-8")

    def floats(self, field: int) -> tuple[float, ...]:
        length, start = self._vector(field, 4)
        return struct.unpack_from(f"<{length}f", self.data, start)

    def table(self, field: int) -> _Table | None:
        target = self._target(field)
        return None if target is None else _Table(self.data, target)

    def tables(self, field: int) -> list[_Table]:
        length, start = self._vector(field, 4)
        if length > _FEATURES:
            raise Malformed(f"is a bomb: a CatBoost model with {length} features")
        places = range(start, start + 4 * length, 4)
        return [_Table(self.data, place + struct.unpack_from("<I", self.data, place)[0]) for place in places]

"""What an XGBoost model says of itself, in JSON or binary JSON (https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from modelport.inspection import ubj
from modelport.inspection.bounds import Budget, Malformed


class _GradientBooster(msgspec.Struct):
    name: str = ""
    model: dict[str, msgspec.Raw] = {}
    gbtree: dict[str, msgspec.Raw] = {}


class _Learner(msgspec.Struct):
    gradient_booster: _GradientBooster = msgspec.field(default_factory=_GradientBooster)
    feature_names: list[str] = []
    feature_types: list[str] = []
    attributes: dict[str, Any] = {}
    objective: dict[str, Any] = {}
    learner_model_param: dict[str, Any] = {}


class _Model(msgspec.Struct):
    learner: _Learner
    version: list[int] = []


class _Pickled(msgspec.Struct):
    """What stands in a pickled booster of 1.0 to 1.5: the model and its configuration."""

    Model: _Model
    Config: dict[str, Any] = {}


def from_json(data: bytes) -> dict[str, Any]:
    """The root of `Contents` for the format xgboost-json; its trees are passed over, not made."""
    read = msgspec.json.decode(data, type=_Model)
    return _of_json(read, {})


def from_pickled_json(data: bytes) -> dict[str, Any]:
    """The same of the buffer in a booster that a version before 1.6 pickled."""
    read = msgspec.json.decode(data, type=_Pickled)
    return _of_json(read.Model, read.Config)


def _of_json(read: _Model, config: Mapping[str, Any]) -> dict[str, Any]:
    booster = read.learner.gradient_booster
    inner = booster.model or _decoded(booster.gbtree.get("model"))
    model = {name: _decoded(inner.get(name)) for name in ("gbtree_model_param", "cats")}
    return _root(
        {
            "version": read.version,
            "learner": {**msgspec.structs.asdict(read.learner), "gradient_booster": {"name": booster.name, "model": model}},
        },
        config,
    )


def from_ubj(data: bytes, budget: Budget) -> dict[str, Any]:
    """The root of `Contents` for the format xgboost-ubj: of a model file, or of the buffer in a pickled booster."""
    read = ubj.parse(data, budget)
    if not isinstance(read, dict):
        raise Malformed("is binary JSON, and no XGBoost model")
    model = read.get("Model", read)
    if not isinstance(model, dict) or not isinstance(model.get("learner"), dict):
        raise Malformed("is binary JSON, and no XGBoost model: it has no 'learner'")
    booster = model["learner"].get("gradient_booster")
    if isinstance(booster, dict) and "gbtree" in booster:
        model["learner"]["gradient_booster"] = {"name": booster.get("name"), "model": _mapping(_mapping(booster["gbtree"]).get("model"))}
    return _root(model, _mapping(read.get("Config")))


def _decoded(raw: Any) -> Any:
    return msgspec.json.decode(raw) if isinstance(raw, msgspec.Raw) else {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _root(read: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    learner = read["learner"]
    booster = _mapping(learner.get("gradient_booster"))
    model = _mapping(booster.get("model"))
    count = str(_mapping(model.get("gbtree_model_param")).get("num_trees", "0"))
    return {
        "version": [int(part) for part in _list(read.get("version"))],
        "learner": {
            "feature_names": [str(name) for name in _list(learner.get("feature_names"))],
            "feature_types": [str(kind) for kind in _list(learner.get("feature_types"))],
            "attributes": {str(name): str(value) for name, value in _mapping(learner.get("attributes")).items()},
            "objective": {"name": "", **_mapping(learner.get("objective"))},
            "learner_model_param": {
                name: str(_mapping(learner.get("learner_model_param")).get(name, default))
                for name, default in (("num_class", "0"), ("num_feature", "0"), ("num_target", "1"), ("base_score", ""))
            },
            "gradient_booster": {"name": str(booster.get("name") or ""), "trees": int(count) if count.isdigit() and len(count) < 10 else 0},
            "categories": _categories(_mapping(model.get("cats"))),
        },
        "config": dict(config or {}),
    }


def _list(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
        plain: list[Any] = value.tolist()
        return plain
    return value if isinstance(value, list) else []


def _categories(cats: Mapping[str, Any]) -> dict[int, list[Any]]:
    """The values of each categorical column: texts as the ends of their bytes in one row of bytes, numbers as they are."""
    found: dict[int, list[Any]] = {}
    for index, column in enumerate(_list(cats.get("enc"))):
        values, ends = _list(_mapping(column).get("values")), _list(_mapping(column).get("offsets"))
        if not values:
            continue
        if ends:
            text = bytes(value & 255 for value in values)
            found[index] = [text[start:end].decode("utf-8", "replace") for start, end in pairwise(ends)]
        else:
            found[index] = values
    return found

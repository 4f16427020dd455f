"""XGBoost: the native booster and the scikit-learn classes, in pickles, JSON and UBJSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from modelport.errors import SignatureError
from modelport.frameworks import Card, Contents, Instance, allowed, tabular
from modelport.signature import Columns, Field, Signature

_CLASSES = frozenset(
    ["xgboost.core.Booster"]
    + [f"xgboost.sklearn.XGB{name}" for name in ("Classifier", "Model", "Ranker", "Regressor", "RFClassifier", "RFRegressor")]
)
_SHOWN_ROUNDS = 10
"""How many rounds of trees are read for the example values."""


_Garbled: TypeAlias = tuple[bytes, tuple[int, ...]]
"""The values of a category as XGBoost joined them, and where each ends.

Versions up to 3.2 count the characters and not the bytes of UTF-8: behind the first letter that is not ASCII all values are cut wrongly.
"""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A booster with what its scikit-learn class would add when it predicts."""

    booster: Any
    task: str
    """"binary", "multiclass", "labels" (several yes or no answers a row), "rank" or "number"."""
    classes: int
    targets: int
    objective: str
    missing: float
    """The number that means "missing", besides NaN."""
    rounds: tuple[int, int]
    """The first and last+1 round of trees that are used; (0, 0) is all."""
    names: tuple[str, ...]
    named: bool
    types: tuple[str, ...]
    """Of each feature: float, int, i (yes or no), q, or c (a category); or none at all."""
    categories: Mapping[int, Mapping[Any, int]]
    """The codes of the values of those features that are categories, where the model keeps them."""
    garbled: Mapping[int, _Garbled]
    """What the model keeps of those categories whose values are not ASCII."""
    sklearn_type: str | None = None
    """"classifier", "regressor" or "ranker" when it was a scikit-learn class."""


def imports() -> frozenset[str]:
    """The names that a pickle of an XGBoost model may import."""
    return allowed.names("xgboost", "sklearn", "joblib")


def detect(contents: Contents) -> Card | None:
    """A booster or a scikit-learn class of XGBoost, in a pickle or in XGBoost's own formats."""
    if contents.format in ("xgboost-json", "xgboost-ubj"):
        return _card(contents.root, "xgboost.core.Booster")
    root = contents.root
    if not isinstance(root, Instance) or root.cls not in _CLASSES:
        return None
    booster = root if root.cls == "xgboost.core.Booster" else root.get("_Booster")
    raw = tabular.embedded(booster, "xgboost-ubj", "xgboost-json")
    return Card("xgboost", root.cls, "xgboost") if raw is None else _card(raw, root.cls)


def _card(raw: Mapping[str, Any], cls: str) -> Card:
    learner = raw["learner"]
    sizes = learner["learner_model_param"]
    count = tabular.whole(sizes["num_class"])
    objective = learner["objective"].get("name", "")
    binary = objective in ("binary:logistic", "binary:hinge")
    trees = learner["gradient_booster"]["trees"]
    best = learner["attributes"].get("best_iteration")
    return Card(
        "xgboost",
        cls,
        "xgboost",
        version=".".join(map(str, raw["version"])) or None,
        features=tuple(learner["feature_names"]),
        feature_count=tabular.whole(sizes["num_feature"]) or None,
        classes=tuple(range(2 if binary else count if count <= tabular.MAX_CLASSES else 0)),
        details={"objective": objective, "trees": trees} | ({"best_iteration": tabular.whole(best)} if best else {}),
    )


def load(path: Path, card: Card) -> Loaded:
    """The model in a pickle, .json or .ubj file, set to one thread. ModelFileError when it does not load."""
    xgboost = tabular.library("xgboost", "xgboost", "xgboost")
    with path.open("rb") as file:
        native = file.read(1) == b"{"
    if native:
        model = xgboost.Booster()
        try:
            model.load_model(path)
        except Exception as error:
            raise tabular.not_loaded(path, error) from error
    else:
        if card.cls.startswith("xgboost.sklearn."):
            tabular.library("sklearn", "scikit-learn", "xgboost")
        model = tabular.unpickled(path, card)
    loaded = _view(model)
    loaded.booster.set_param({"nthread": 1})
    return loaded


@tabular.PerModel
def _viewed(model: Any) -> Loaded:
    wrapper = None if hasattr(model, "inplace_predict") else model
    if wrapper is not None:
        tabular.check_fitted(wrapper)
    booster = model if wrapper is None else wrapper.get_booster()
    attributes = booster.attributes()
    config = json.loads(booster.save_config())["learner"]
    sizes = config["learner_model_param"]
    objective = config["objective"]["name"]
    if wrapper is not None:
        kind = wrapper._get_type() if hasattr(wrapper, "_get_type") else getattr(wrapper, "_estimator_type", None)
        missing = wrapper.missing
    else:
        kind = json.loads(attributes["scikit_learn"]).get("_estimator_type") if "scikit_learn" in attributes else None
        missing = attributes.get("modelport_missing", math.nan)
    linear = config["learner_train_param"]["booster"] == "gblinear"
    best = attributes.get("best_iteration")
    types = tuple(booster.feature_types or ())
    categories, garbled = _categories(booster) if "c" in types else ({}, {})
    count, targets = int(sizes["num_class"]), int(sizes.get("num_target", 1))
    return Loaded(
        booster=booster,
        task=_task(objective, targets, kind),
        classes=count or 2,
        targets=targets,
        objective="gblinear" if linear else objective,
        missing=float(missing),
        rounds=(0, int(best) + 1) if kind and best is not None and not linear else (0, 0),
        names=tuple(booster.feature_names or tabular.numbered(booster.num_features())),
        named=bool(booster.feature_names),
        types=types,
        categories=categories,
        garbled=garbled,
        sklearn_type=kind,
    )


def _view(model: Any) -> Loaded:
    return model if isinstance(model, Loaded) else _viewed(model)


def _task(objective: str, targets: int, kind: str | None) -> str:
    if objective.startswith("multi:"):
        return "multiclass"
    if objective in ("binary:logistic", "binary:hinge") or (kind == "classifier" and objective == "binary:logitraw"):
        return "labels" if targets > 1 else "binary"
    return "rank" if objective.startswith("rank:") else "number"


def _categories(booster: Any) -> tuple[dict[int, dict[Any, int]], dict[int, _Garbled]]:
    """The codes of the values of categorical features, and what is left of those that XGBoost cut; versions before 3.1 keep none.

    They stand in the JSON form of the model as {"enc": [...], "feature_segments": ..., "sorted_idx": ...}, one entry of "enc" a feature:
    strings as UTF-8 with offsets, integers as they are.
    """
    text = bytes(booster.save_raw("json")).decode()
    start = text.find('"cats":{"enc":')
    if start < 0:
        return {}, {}
    found, _ = json.JSONDecoder().raw_decode(text, start + len('"cats":'))
    known: dict[int, dict[Any, int]] = {}
    garbled: dict[int, _Garbled] = {}
    for index, entry in enumerate(found["enc"]):
        values = entry["values"]
        if "offsets" in entry:
            data, ends = bytes(value & 0xFF for value in values), entry["offsets"]
            if not data.isascii():
                garbled[index] = (data, tuple(ends))
                continue
            values = [data[begin:end].decode() for begin, end in pairwise(ends)]
        if values:
            known[index] = {value: code for code, value in enumerate(values)}
    return known, garbled


@lru_cache
def _codes_of(choices: tuple[Any, ...], garbled: _Garbled) -> dict[Any, int] | None:
    """The codes of `choices`, in their own order or sorted, when a model that keeps `garbled` was trained on them; else None."""
    data, ends = garbled
    if not all(isinstance(choice, str) for choice in choices):
        return None
    for order in (choices, tuple(sorted(choices))):
        joined = "".join(order).encode()
        for sizes in ([len(value) for value in order], [len(value.encode()) for value in order]):
            if (0, *accumulate(sizes)) == ends and joined[: ends[-1]] == data:
                return {value: code for code, value in enumerate(order)}
    return None


def describe(model: Any, card: Card) -> Signature:
    """The signature of a model: names, types and categories of its features; its answers by its objective.

    A category whose values XGBoost cut is of unknown kind: a sample or a schema must give its values, all of them.
    """
    view = _view(model)
    examples = _examples(view)
    inputs = tuple(_input(view, index, name, examples.get(index)) for index, name in enumerate(view.names))
    return Signature(inputs, _outputs(view))


def _input(view: Loaded, index: int, name: str, example: float | None) -> Field:
    kind = view.types[index] if view.types else "float"
    if kind == "c" and index in view.categories:
        values = tuple(view.categories[index])
        return Field(name, "category", nullable=True, choices=values, example=values[0])
    if index in view.garbled:
        return Field(name, "unknown", nullable=True)
    if kind == "i":
        return Field(name, "boolean", nullable=True)
    if kind in ("int", "c"):
        return Field(name, "integer", nullable=True, example=None if example is None else round(example))
    return Field(name, "number", nullable=True, example=example)


def _outputs(view: Loaded) -> tuple[Field, ...]:
    if view.task in ("binary", "multiclass"):
        classes = tuple(range(view.classes))
        if view.objective in ("binary:hinge", "binary:logitraw"):
            return (tabular.label(classes),)
        return tabular.label(classes), tabular.vector("probabilities", classes, dtype="float32")
    if view.task == "labels":
        yes_or_no = tabular.vector("prediction", size=view.targets, dtype="int64")
        return yes_or_no, tabular.vector("probabilities", size=view.targets, dtype="float32")
    if view.targets > 1:
        return (tabular.vector("prediction", size=view.targets, dtype="float32"),)
    return (Field("score" if view.task == "rank" else "prediction", "number", dtype="float32"),)


def _examples(view: Loaded) -> dict[int, float]:
    """For each feature the middle of the values at which the first trees part it."""
    rounds = 0 if view.objective == "gblinear" else min(_SHOWN_ROUNDS, view.booster.num_boosted_rounds())
    if not rounds:
        return {}
    trees = view.booster[0:rounds]
    trees.feature_names = [f"f{index}" for index in range(len(view.names))]
    parts: dict[int, list[float]] = {}
    waiting = [json.loads(tree) for tree in trees.get_dump(dump_format="json")]
    while waiting:
        node = waiting.pop()
        waiting.extend(node.get("children", ()))
        if isinstance(node.get("split_condition"), int | float):
            parts.setdefault(int(node["split"].removeprefix("f")), []).append(node["split_condition"])
    middles = {index: tabular.rounded(sorted(values)[len(values) // 2]) for index, values in parts.items()}
    return {index: middle for index, middle in middles.items() if middle is not None}


def predict(model: Any, columns: Columns, signature: Signature) -> Columns:
    """The answers as arrays called by the names that `describe` gave the outputs."""
    view = _view(model)
    arrays = tabular.ordered(columns, view.names, signature)
    for index, known in view.categories.items():
        arrays[index] = tabular.codes(arrays[index], known)
    for index, garbled in view.garbled.items():
        arrays[index] = tabular.codes(arrays[index], _stated(view.names[index], index, garbled, signature))
    rows = tabular.matrix(arrays)
    if view.task in ("number", "rank"):
        return {"score" if view.task == "rank" else "prediction": _raw(view, rows)}
    if view.objective == "multi:softmax":
        from scipy.special import softmax

        margins = _raw(view, rows, margin=True)
        return {"prediction": margins.argmax(axis=1), "probabilities": softmax(margins, axis=1)}
    values = _raw(view, rows)
    if view.task == "multiclass":
        return {"prediction": values.argmax(axis=1), "probabilities": values}
    labels = (values > 0.5).astype(np.int64)
    if view.objective in ("binary:hinge", "binary:logitraw"):
        return {"prediction": labels}
    return {"prediction": labels, "probabilities": values if view.task == "labels" else tabular.both_classes(values)}


def _stated(name: str, index: int, garbled: _Garbled, signature: Signature) -> Mapping[Any, int]:
    """The codes of a category's values as the signature states them."""
    field = next((one for one in signature.inputs if one.name == name), signature.inputs[index])
    codes = _codes_of(field.choices, garbled)
    if codes is None:
        raise SignatureError(
            f"the categories of {name!r} are not those that the model was trained on: it has {len(garbled[1]) - 1}, not all of them ASCII, "
            f"and XGBoost keeps such values in part only; the signature has {len(field.choices)}",
            hint="State all its choices with --schema FILE, in the order of the training data's categories.",
        )
    return codes


def _raw(view: Loaded, rows: np.ndarray[Any, np.dtype[Any]], *, margin: bool = False) -> Any:
    if view.objective == "gblinear":
        from xgboost import DMatrix

        data = DMatrix(rows, missing=view.missing, nthread=1)
        return view.booster.predict(data, output_margin=margin, validate_features=False)
    return view.booster.inplace_predict(
        rows,
        iteration_range=view.rounds,
        predict_type="margin" if margin else "value",
        missing=view.missing,
        validate_features=False,
    )


def save(model: Any, card: Card, folder: Path) -> str | None:
    """The model as UBJSON, with what its scikit-learn class adds as attributes of the booster: its type, and its number for "missing"."""
    view = _view(model)
    booster = view.booster.copy()
    booster.set_attr(scikit_learn=json.dumps({"_estimator_type": view.sklearn_type}) if view.sklearn_type else None)
    booster.set_attr(modelport_missing=None if math.isnan(view.missing) else repr(view.missing))
    (folder / "model.ubj").write_bytes(booster.save_raw("ubj"))
    return "model.ubj"


def requirements(model: Any, card: Card) -> tuple[str, ...]:
    """What it needs once it is saved: XGBoost and numpy alone, no scikit-learn."""
    return ("xgboost", "numpy")

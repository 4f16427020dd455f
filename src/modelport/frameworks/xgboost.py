"""XGBoost: the native booster and the scikit-learn classes, in pickles, JSON and UBJSON."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np

from modelport.errors import SignatureError
from modelport.frameworks import Card, Contents, Instance, allowed, tabular, threads
from modelport.signature import Columns, Field, Signature

_KINDS: Mapping[str, str | None] = {
    "xgboost.core.Booster": None,
    "xgboost.sklearn.XGBClassifier": "classifier",
    "xgboost.sklearn.XGBModel": "regressor",
    "xgboost.sklearn.XGBRFClassifier": "classifier",
    "xgboost.sklearn.XGBRFRegressor": "regressor",
    "xgboost.sklearn.XGBRanker": "ranker",
    "xgboost.sklearn.XGBRegressor": "regressor",
}
"""The classes that are known, and what each does."""
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
    labels: tuple[Any, ...] = ()
    """The labels of the classes, where a pickle of before 1.6 has others than 0, 1, ..."""


def imports() -> frozenset[str]:
    """The names that a pickle of an XGBoost model may import."""
    return allowed.names("xgboost", "sklearn", "joblib")


def detect(contents: Contents) -> Card | None:
    """A booster or a scikit-learn class of XGBoost, in a pickle or in XGBoost's own formats."""
    if contents.format in ("xgboost-json", "xgboost-ubj"):
        return _card(contents.root, "xgboost.core.Booster")
    root = contents.root
    if not isinstance(root, Instance) or root.cls not in _KINDS:
        return None
    carried = tabular.embedded(_booster(root), "xgboost-ubj", "xgboost-json")
    if carried is None:
        return Card("xgboost", root.cls, "xgboost")
    card = _card(carried["root"], root.cls, _encoded(root))
    return card if card.features else replace(card, features=_beside(_booster(root), "feature_names"))


def _booster(root: Instance) -> Any:
    return root if root.cls == "xgboost.core.Booster" else root.get("_Booster")


def _beside(booster: Any, name: str) -> tuple[str, ...]:
    """The names or types of the features, which versions before 1.4 kept beside the bytes of the model."""
    kept = booster.get(name)
    return tuple(map(str, kept)) if isinstance(kept, list) else ()


def _encoded(root: Instance) -> tuple[Any, ...]:
    """The labels that a classifier of before 1.6 puts on its answers in place of 0, 1, ...; none for others."""
    encoder = root.get("_le")
    labels = tabular.labels(encoder.get("classes_") if isinstance(encoder, Instance) else None)
    return () if labels == tuple(range(len(labels))) else labels


def _card(raw: Mapping[str, Any], cls: str, labels: tuple[Any, ...] = ()) -> Card:
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
        classes=labels or tuple(range(2 if binary else count if count <= tabular.MAX_CLASSES else 0)),
        details={"objective": objective, "trees": trees} | ({"best_iteration": tabular.whole(best)} if best else {}),
    )


def load(path: Path, card: Card) -> Loaded:
    """The model in a .json or .ubj file. ModelFileError when it does not load."""
    xgboost = tabular.library("xgboost", "xgboost", "xgboost")
    with path.open("rb") as file:
        if file.read(1) != b"{":
            raise tabular.pickled(path, card)
    booster = xgboost.Booster()
    try:
        booster.load_model(path)
    except Exception as error:
        raise tabular.not_loaded(path, error) from error
    booster.set_param({"nthread": threads()})
    return _viewed(booster)


def rebuild(contents: Contents, card: Card) -> Loaded:
    """The model in a pickle, out of the bytes of XGBoost's own format in it.

    Its scikit-learn class adds its type, its number for "missing", and the labels that versions before 1.6 kept beside. ModelFileError
    when the bytes do not load.
    """
    xgboost = tabular.library("xgboost", "xgboost", "xgboost")
    held = _booster(contents.root)
    carried = tabular.embedded(held, "xgboost-ubj", "xgboost-json")
    if carried is None:
        raise tabular.not_carried(contents, card)
    booster = xgboost.Booster()
    try:
        with warnings.catch_warnings():
            # it warns of every buffer that an older version wrote, and reads it
            warnings.simplefilter("ignore")
            if carried["format"] == "xgboost-json":
                # of what a version before 1.6 pickled, only the model within is still read
                booster.load_model(bytearray(msgspec.json.decode(carried["raw"], type=dict[str, msgspec.Raw])["Model"]))
            else:
                booster.__setstate__({"handle": bytearray(carried["raw"])})
    except Exception as error:
        raise tabular.not_loaded(contents.path, error) from error
    for name in ("feature_names", "feature_types"):
        if getattr(booster, name) is None and _beside(held, name):
            setattr(booster, name, list(_beside(held, name)))
    booster.set_param({"nthread": threads()})
    missing = contents.root.get("missing")
    number = float(missing) if isinstance(missing, int | float | np.number) else math.nan
    return _loaded(booster, _KINDS[card.cls], number, _encoded(contents.root))


@tabular.PerModel
def _viewed(model: Any) -> Loaded:
    if not hasattr(model, "inplace_predict"):
        tabular.check_fitted(model)
        kind = model._get_type() if hasattr(model, "_get_type") else getattr(model, "_estimator_type", None)
        return _loaded(model.get_booster(), kind, model.missing)
    attributes = model.attributes()
    kind = json.loads(attributes["scikit_learn"]).get("_estimator_type") if "scikit_learn" in attributes else None
    labels = tabular.labels(json.loads(attributes.get("modelport_classes", "[]")))
    return _loaded(model, kind, float(attributes.get("modelport_missing", math.nan)), labels)


def _loaded(booster: Any, kind: str | None, missing: float, labels: tuple[Any, ...] = ()) -> Loaded:
    attributes = booster.attributes()
    config = json.loads(booster.save_config())["learner"]
    sizes = config["learner_model_param"]
    objective = config["objective"]["name"]
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
        labels=labels,
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
        classes = view.labels or tuple(range(view.classes))
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
        return {"prediction": _labelled(view, margins.argmax(axis=1)), "probabilities": softmax(margins, axis=1)}
    values = _raw(view, rows)
    if view.task == "multiclass":
        return {"prediction": _labelled(view, values.argmax(axis=1)), "probabilities": values}
    labels = (values > 0.5).astype(np.int64)
    if view.task == "labels":
        return {"prediction": labels, "probabilities": values}
    labels = _labelled(view, labels)
    if view.objective in ("binary:hinge", "binary:logitraw"):
        return {"prediction": labels}
    return {"prediction": labels, "probabilities": tabular.both_classes(values)}


def _labelled(view: Loaded, numbers: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    """The labels of classes that are given by number."""
    return np.asarray(view.labels)[numbers] if view.labels else numbers


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

        data = DMatrix(rows, missing=view.missing, nthread=threads())
        return view.booster.predict(data, output_margin=margin, validate_features=False)
    return view.booster.inplace_predict(
        rows,
        iteration_range=view.rounds,
        predict_type="margin" if margin else "value",
        missing=view.missing,
        validate_features=False,
    )


def save(model: Any, card: Card, folder: Path) -> str | None:
    """The model as UBJSON; what its scikit-learn class adds are attributes of the booster: type, number for "missing", labels."""
    view = _view(model)
    booster = view.booster.copy()
    booster.set_attr(scikit_learn=json.dumps({"_estimator_type": view.sklearn_type}) if view.sklearn_type else None)
    booster.set_attr(modelport_missing=None if math.isnan(view.missing) else repr(view.missing))
    booster.set_attr(modelport_classes=json.dumps(view.labels) if view.labels else None)
    (folder / "model.ubj").write_bytes(booster.save_raw("ubj"))
    return "model.ubj"


def requirements(model: Any, card: Card) -> tuple[str, ...]:
    """What it needs once it is saved: XGBoost and numpy alone, no scikit-learn."""
    return ("xgboost", "numpy")

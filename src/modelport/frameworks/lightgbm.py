"""LightGBM: the native booster and the scikit-learn classes, in pickles and in LightGBM's text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelport.errors import SignatureError
from modelport.frameworks import Card, Contents, Instance, allowed, tabular, threads
from modelport.signature import Columns, Field, Signature

_CLASSES = frozenset(
    ["lightgbm.basic.Booster", *(f"lightgbm.sklearn.LGBM{name}" for name in ("Classifier", "Model", "Ranker", "Regressor"))]
)
_LABELS = "modelport_classes="
"""The line that `save` adds to the header of LightGBM's text, where LightGBM passes over it: the labels as JSON."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A booster with the labels that its scikit-learn class would put on its answers."""

    booster: Any
    task: str
    """"binary", "multiclass", "rank" or "number"."""
    labels: np.ndarray[Any, np.dtype[Any]]
    vector: int
    """How many numbers a row the booster answers with."""
    names: tuple[str, ...]
    named: bool
    infos: tuple[str, ...]
    """Of each feature: "[lowest:highest]", "code:code:..." for a category, or "none" where it was never used."""
    categories: tuple[Mapping[Any, int], ...]
    """For each pandas categorical it was trained on, in the order of the columns: the codes of its values."""


def imports() -> frozenset[str]:
    """The names that a pickle of a LightGBM model may import."""
    return allowed.names("lightgbm", "sklearn", "joblib")


def detect(contents: Contents) -> Card | None:
    """A booster or a scikit-learn class of LightGBM, in a pickle or in LightGBM's text."""
    if contents.format == "lightgbm-text":
        return _card(contents.root, "lightgbm.basic.Booster", _labels(contents.root["header"].get(_LABELS.rstrip("="), "[]")))
    root = contents.root
    if not isinstance(root, Instance) or root.cls not in _CLASSES:
        return None
    carried = tabular.embedded(_booster(root), "lightgbm-text")
    labels = _encoded(root)
    return Card("lightgbm", root.cls, "lightgbm", classes=labels) if carried is None else _card(carried["root"], root.cls, labels)


def _booster(root: Instance) -> Any:
    return root if root.cls == "lightgbm.basic.Booster" else root.get("_Booster")


def _encoded(root: Instance) -> tuple[Any, ...]:
    """The labels that a scikit-learn class puts on its answers; none for others."""
    encoder = root.get("_le")
    return tabular.labels(encoder.get("classes_") if isinstance(encoder, Instance) else None)


def _labels(text: str) -> tuple[Any, ...]:
    try:
        return tabular.labels(json.loads(text))
    except ValueError:
        return ()


def _card(raw: Mapping[str, Any], cls: str, labels: tuple[Any, ...]) -> Card:
    task = _task(raw["objective"])
    names = tuple(raw["feature_names"])
    if not labels and task in ("binary", "multiclass"):
        labels = tuple(range(min(max(2, raw["num_class"] or 0), tabular.MAX_CLASSES)))
    return Card(
        "lightgbm",
        cls,
        "lightgbm",
        features=names if _named(names) else (),
        feature_count=len(names) or None,
        classes=labels,
        details={"objective": raw["objective"], "trees": raw["trees"]},
    )


def load(path: Path, card: Card) -> Loaded:
    """The model in LightGBM's text. ModelFileError when it does not load."""
    lightgbm = tabular.library("lightgbm", "lightgbm", "lightgbm")
    with path.open("rb") as file:
        if file.read(5) != b"tree\n":
            raise tabular.pickled(path, card)
    try:
        text = path.read_text(encoding="utf-8")
        booster = lightgbm.Booster(model_str=text)
    except Exception as error:
        raise tabular.not_loaded(path, error) from error
    head = text[: text.find("\n\n")].splitlines()
    return _loaded(booster, next((_labels(line.removeprefix(_LABELS)) for line in head if line.startswith(_LABELS)), None))


def rebuild(contents: Contents, card: Card) -> Loaded:
    """The model in a pickle, out of LightGBM's text in it: with its labels, and with its best iteration where it was stopped early.

    ModelFileError when the text does not load.
    """
    lightgbm = tabular.library("lightgbm", "lightgbm", "lightgbm")
    held = _booster(contents.root)
    carried = tabular.embedded(held, "lightgbm-text")
    if carried is None:
        raise tabular.not_carried(contents, card)
    try:
        booster = lightgbm.Booster(model_str=carried["raw"])
    except Exception as error:
        raise tabular.not_loaded(contents.path, error) from error
    best = tabular.whole(held.get("best_iteration"))
    if best > 0:
        booster.best_iteration = best
    return _loaded(booster, _encoded(contents.root) or None)


@tabular.PerModel
def _viewed(model: Any) -> Loaded:
    if not hasattr(type(model), "booster_"):
        return _loaded(model, None)
    tabular.check_fitted(model)
    return _loaded(model.booster_, getattr(model, "classes_", None))


def _view(model: Any) -> Loaded:
    return model if isinstance(model, Loaded) else _viewed(model)


def _loaded(booster: Any, labels: Sequence[Any] | None) -> Loaded:
    head = booster.model_to_string(num_iteration=1).split("\n\n", 1)[0].splitlines()
    header = dict(line.split("=", 1) for line in head if "=" in line)
    task = _task(header.get("objective", ""))
    vector = int(header["num_tree_per_iteration"])
    names = tuple(booster.feature_name())
    if labels is None:
        labels = range(max(2, vector))
    return Loaded(
        booster=booster,
        task=task,
        labels=np.asarray(labels),
        vector=vector,
        names=names if _named(names) else tabular.numbered(len(names)),
        named=_named(names),
        infos=tuple(header["feature_infos"].split(" ")),
        categories=tuple({value: code for code, value in enumerate(values)} for values in booster.pandas_categorical or ()),
    )


def _task(objective: str) -> str:
    tasks = {"binary": "binary", "multiclass": "multiclass", "multiclassova": "multiclass", "lambdarank": "rank", "rank_xendcg": "rank"}
    return tasks.get(objective.split(" ")[0], "number")


def _named(names: Sequence[str]) -> bool:
    return list(names) != [f"Column_{index}" for index in range(len(names))]


def describe(model: Any, card: Card) -> Signature:
    """The signature of a model: the names, ranges and categories of its features; its answers by its objective.

    LightGBM keeps the names of columns with "_" for each space. A category it has not seen counts as missing, so none is refused.
    """
    view = _view(model)
    categorical = [index for index, info in enumerate(view.infos) if _categorical(info)]
    known = len(view.categories) in (0, len(categorical))
    inputs = []
    for index, name in enumerate(view.names):
        info = view.infos[index]
        if not known and (info == "none" or _categorical(info)):
            inputs.append(Field(name, "unknown", nullable=True))
        elif _categorical(info):
            inputs.append(_category(name, tuple(view.categories[categorical.index(index)]) if view.categories else ()))
        else:
            inputs.append(Field(name, "number", nullable=True, example=_middle(info)))
    if view.task in ("binary", "multiclass"):
        classes = tabular.plain(view.labels)
        return Signature(tuple(inputs), (tabular.label(classes), tabular.vector("probabilities", classes)))
    if view.vector > 1:
        return Signature(tuple(inputs), (tabular.vector("prediction", size=view.vector),))
    return Signature(tuple(inputs), (Field("score" if view.task == "rank" else "prediction", "number", dtype="float64"),))


def _categorical(info: str) -> bool:
    return info != "none" and not info.startswith("[")


def _category(name: str, values: tuple[Any, ...]) -> Field:
    kinds = {type(value) for value in values}
    if kinds == {str}:
        return Field(name, "string", nullable=True, choices=values, example=values[0])
    if kinds == {bool}:
        return Field(name, "boolean", nullable=True, example=values[0])
    if kinds <= {int}:
        return Field(name, "integer", nullable=True, example=values[0] if values else None)
    return Field(name, "number" if kinds == {float} else "unknown", nullable=True, example=values[0])


def _middle(info: str) -> float | None:
    """The middle of "[lowest:highest]"."""
    if not info.startswith("["):
        return None
    lowest, highest = info.strip("[]").split(":")
    return tabular.rounded((float(lowest) + float(highest)) / 2)


def predict(model: Any, columns: Columns, signature: Signature) -> Columns:
    """The answers as arrays called by the names that `describe` gave the outputs."""
    view = _view(model)
    arrays = tabular.ordered(columns, view.names, signature)
    if view.categories:
        places = _places(view, arrays)
        arrays = [tabular.codes(array, view.categories[places[index]]) if index in places else array for index, array in enumerate(arrays)]
    values = view.booster.predict(tabular.matrix(arrays), num_threads=threads())
    if view.task == "binary":
        values = tabular.both_classes(values)
    if view.task in ("binary", "multiclass"):
        return {"prediction": view.labels[values.argmax(axis=1)], "probabilities": values}
    return {"score" if view.task == "rank" else "prediction": values}


def _places(view: Loaded, arrays: Sequence[np.ndarray[Any, np.dtype[Any]]]) -> dict[int, int]:
    """Which column is which of the categoricals it was trained on.

    LightGBM keeps their order and not their columns. They are the columns that it treats as categories, unless one of these was never used
    or is ordered; then the columns of strings.
    """
    places = [index for index, info in enumerate(view.infos) if _categorical(info)]
    if len(places) != len(view.categories):
        places = [index for index, array in enumerate(arrays) if array.dtype == object]
    if len(places) != len(view.categories):
        raise SignatureError(
            f"the model has {len(view.categories)} columns of categories, the signature has {len(places)}",
            hint="Give --sample FILE with the columns as they were in training.",
        )
    return {index: which for which, index in enumerate(places)}


def save(model: Any, card: Card, folder: Path) -> str | None:
    """The model as LightGBM's text, with the labels of its scikit-learn class in a line of the header."""
    view = _view(model)
    text = view.booster.model_to_string()
    if view.task in ("binary", "multiclass"):
        head, rest = text.split("\n\n", 1)
        labels = json.dumps(tabular.plain(view.labels)).replace("=", "\\u003d")
        kept = [line for line in head.splitlines() if not line.startswith(_LABELS)]
        text = "\n".join([*kept, _LABELS + labels]) + "\n\n" + rest
    (folder / "model.txt").write_text(text, encoding="utf-8", newline="\n")
    return "model.txt"


def requirements(model: Any, card: Card) -> tuple[str, ...]:
    """What it needs once it is saved: LightGBM and numpy alone, no scikit-learn."""
    return ("lightgbm", "numpy")

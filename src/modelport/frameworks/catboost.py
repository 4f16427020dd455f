"""CatBoost: classifiers, regressors, rankers and the native class, in pickles and in CatBoost's own formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelport.frameworks import Card, Contents, Instance, allowed, tabular, threads
from modelport.signature import Columns, Field, Signature

_CLASSES = frozenset(f"catboost.core.{name}" for name in ("CatBoost", "CatBoostClassifier", "CatBoostRanker", "CatBoostRegressor"))
_CLASS_LOSSES = frozenset({"Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll"})
_LABEL_LOSSES = frozenset({"MultiLogloss", "MultiCrossEntropy"})
_RANK_LOSSES = ("YetiRank", "PairLogit", "QueryRMSE", "QuerySoftMax", "QueryCrossEntropy", "Stochastic", "LambdaMart")
_ANSWERS = {"Poisson": "Exponent", "Tweedie": "Exponent", "RMSEWithUncertainty": "RMSEWithUncertainty"}
"""What to ask of a regressor for its answer, where that is not the raw value of the formula."""


@dataclass(frozen=True, eq=False)
class _View:
    model: Any
    loss: str
    classes: np.ndarray[Any, np.dtype[Any]]
    names: tuple[str, ...]
    categories: frozenset[int]
    texts: frozenset[int]
    nullable: bool
    threshold: float
    """The probability above which it answers with the second of two classes."""
    size: int
    """How many numbers a row its formula gives."""

    @property
    def by_class(self) -> bool:
        return self.loss in _CLASS_LOSSES and len(self.classes) > 0

    @property
    def ranks(self) -> bool:
        return self.loss.startswith(_RANK_LOSSES)


def imports() -> frozenset[str]:
    """The names that a pickle of a CatBoost model may import."""
    return allowed.names("catboost", "joblib")


def detect(contents: Contents) -> Card | None:
    """A CatBoost model in a pickle, or in CatBoost's binary or JSON form."""
    root = contents.root
    cls = "catboost.core.CatBoost"
    if contents.format not in ("catboost-cbm", "catboost-json"):
        if not isinstance(root, Instance) or root.cls not in _CLASSES:
            return None
        cls = root.cls
        carried = tabular.embedded(root, "catboost-cbm")
        if carried is None:
            return Card("catboost", cls, "catboost")
        root = carried["root"]
    names = tuple(feature["name"] for feature in root["features"])
    loss = root["params"].get("loss_function", {})
    loss = loss.get("type", "") if isinstance(loss, dict) else str(loss)
    return Card(
        "catboost",
        cls,
        "catboost",
        version=root["release"],
        features=names if _named(names) else (),
        feature_count=len(names) or None,
        classes=tabular.labels(root["class_names"]),
        details={"objective": loss, "trees": root["trees"]},
    )


def load(path: Path, card: Card) -> Any:
    """The model in a .cbm or .json file. ModelFileError when it does not load."""
    catboost = tabular.library("catboost", "catboost", "catboost")
    with path.open("rb") as file:
        start = file.read(4)
    if start != b"CBM1" and not start.startswith(b"{"):
        raise tabular.pickled(path, card)
    try:
        return catboost.CatBoost().load_model(str(path), format="cbm" if start == b"CBM1" else "json")
    except Exception as error:
        raise tabular.not_loaded(path, error) from error


def rebuild(contents: Contents, card: Card) -> Any:
    """The model in a pickle, out of the bytes of CatBoost's own format in it. ModelFileError when they do not load."""
    catboost = tabular.library("catboost", "catboost", "catboost")
    carried = tabular.embedded(contents.root, "catboost-cbm")
    if carried is None:
        raise tabular.not_carried(contents, card)
    try:
        return catboost.CatBoost().load_model(blob=bytes(carried["raw"]))
    except Exception as error:
        raise tabular.not_loaded(contents.path, error) from error


@tabular.PerModel
def _view(model: Any) -> _View:
    tabular.check_fitted(model)
    known = {**model.get_params(), **model.get_all_params()}
    names = tuple(model.feature_names_)
    _, bias = model.get_scale_and_bias()
    return _View(
        model=model,
        loss=str(known.get("loss_function", "")).split(":")[0],
        classes=np.asarray(model.classes_),
        names=names if _named(names) else tabular.numbered(len(names)),
        categories=frozenset(model.get_cat_feature_indices()),
        texts=frozenset(model.get_text_feature_indices()),
        nullable=known.get("nan_mode") != "Forbidden",
        threshold=float(model.get_metadata().get("binclass_probability_threshold", 0.5)),
        size=len(bias) if isinstance(bias, list | tuple) else 1,
    )


def _named(names: tuple[str, ...]) -> bool:
    return names != tuple(str(index) for index in range(len(names)))


def describe(model: Any, card: Card) -> Signature:
    """The signature of a model: its features by name and kind; its answers by its loss function.

    CatBoost keeps only hashes of categories: they are strings, any is taken, and none may be missing.
    """
    view = _view(model)
    borders = model.get_borders()
    inputs = []
    for index, name in enumerate(view.names):
        if index in view.categories or index in view.texts:
            inputs.append(Field(name, "string" if index in view.categories else "text"))
        else:
            values = borders.get(index) or ()
            example = tabular.rounded(values[len(values) // 2]) if values else None
            inputs.append(Field(name, "number", nullable=view.nullable, example=example))
    return Signature(tuple(inputs), _outputs(view))


def _outputs(view: _View) -> tuple[Field, ...]:
    if view.by_class:
        classes = tabular.plain(view.classes)
        return tabular.label(classes), tabular.vector("probabilities", classes)
    if view.loss in _LABEL_LOSSES:
        classes = tabular.plain(view.classes)
        return tabular.vector("prediction", classes, dtype="int64"), tabular.vector("probabilities", classes)
    if view.size > 1:
        return (tabular.vector("prediction", size=view.size),)
    return (Field("score" if view.ranks else "prediction", "number", dtype="float64"),)


def predict(model: Any, columns: Columns, signature: Signature) -> Columns:
    """The answers as arrays called by the names that `describe` gave the outputs."""
    view = _view(model)
    arrays = tabular.ordered(columns, view.names, signature)
    textual = view.categories | view.texts
    rows = np.column_stack([array.astype(object) for array in arrays]) if textual else tabular.matrix(arrays)

    def ask(kind: str) -> Any:
        return model.predict(rows, prediction_type=kind, thread_count=threads())

    if view.by_class:
        chances = ask("Probability")
        chosen = (chances[:, 1] > view.threshold).astype(int) if len(view.classes) == 2 else chances.argmax(axis=1)
        return {"prediction": view.classes[chosen], "probabilities": chances}
    if view.loss in _LABEL_LOSSES:
        return {"prediction": ask("Class").astype(np.int64), "probabilities": ask("Probability")}
    if view.ranks:
        return {"score": model.predict(rows, thread_count=threads())}
    return {"prediction": ask(_ANSWERS.get(view.loss, "RawFormulaVal"))}


def save(model: Any, card: Card, folder: Path) -> str | None:
    """The model in CatBoost's binary form, which keeps its labels and names."""
    model.save_model(str(folder / "model.cbm"), format="cbm")
    return "model.cbm"


def requirements(model: Any, card: Card) -> tuple[str, ...]:
    """What it needs: CatBoost and numpy."""
    return ("catboost", "numpy")

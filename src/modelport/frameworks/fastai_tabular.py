"""Tabular learners of fast.ai, computed by fast.ai itself: what it fills in, encodes and normalises is its own.

A learner is a pickle that fast.ai loads: the caller has checked what it would import.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelport.errors import ModelFileError
from modelport.frameworks import Card, Instance, instances, tabular
from modelport.frameworks.fastai_export import items
from modelport.signature import Columns, Field, Kind, Signature

CLASS = "fastai.tabular.learner.TabularLearner"
_TABLE = "fastai.tabular.core.TabularPandas"
_FILLED = "fastai.tabular.core.FillMissing"
MISSING = "#na#"
"""The category of fast.ai for what is missing or was not seen in training."""


def features(root: Instance) -> tuple[str, ...]:
    """The columns that a learner in a pickle takes: categories, then numbers."""
    table = next(instances(root, _TABLE), None)
    if table is None:
        return ()
    names = [str(name) for key in ("cat_names", "cont_names") for name in items(table.get(key))]
    filled = [str(name) for one in instances(table, _FILLED) for name in _mapping(one.get("na_dict"))]
    return tuple(name for name in names if name not in {f"{one}_na" for one in filled})


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def load(path: Path, card: Card) -> Any:
    """The learner. ModelFileError when fast.ai does not load it."""
    tabular.library("fastai", "fastai", "fastai")
    with _quiet():
        try:
            from fastai.learner import load_learner

            return load_learner(path)
        except Exception as error:
            raise ModelFileError(
                f"fast.ai does not load {path.name}: {type(error).__name__}: {tabular.first_line(error)}",
                hint="Load it with the version that exported it: what 2.7 wrote needs fastai<2.8.",
            ) from error


def describe(model: Any, card: Card) -> Signature:
    """The columns that were trained on; out the label with the chance of each, or numbers by the names of what was predicted."""
    labels = _labels(model)
    if labels:
        return Signature(_inputs(model), (tabular.label(labels), tabular.vector("probabilities", labels, dtype="float32")))
    return Signature(_inputs(model), tuple(Field(name, "number", dtype="float32") for name in model.dls.train_ds.y_names))


def _inputs(model: Any) -> tuple[Field, ...]:
    table = model.dls.train_ds
    steps = {type(step).__name__: step for step in table.procs.fs}
    filled = steps["FillMissing"].na_dict if "FillMissing" in steps else {}
    told = {f"{name}_na" for name in filled}  # the columns that FillMissing adds, which say where something was missing
    categories = [name for name in table.cat_names if name not in told]
    return (
        *(_category(name, [value for value in steps["Categorify"].classes[name].items if value != MISSING]) for name in categories),
        *(Field(name, "number", nullable=name in filled, example=_typical(name, steps, filled)) for name in table.cont_names),
    )


def _category(name: str, values: list[Any]) -> Field:
    """A column of categories. What was not seen in training is taken, and counts as missing."""
    plain = tabular.plain(values)
    kind: Kind = "boolean" if _all(plain, bool) else "integer" if _all(plain, int) else "number" if _all(plain, float, int) else "string"
    choices = tuple(map(str, plain)) if kind == "string" else ()
    return Field(name, kind, nullable=True, choices=choices, example=plain[0] if plain else None)


def _all(values: Any, *kinds: type) -> bool:
    return bool(values) and all(type(value) in kinds for value in values)


def _typical(name: str, steps: dict[str, Any], filled: dict[str, Any]) -> float | None:
    """What is common in a column of numbers: its mean, or what stands in for what is missing."""
    found = steps["Normalize"].means.get(name) if "Normalize" in steps else filled.get(name)
    return None if found is None else float(f"{found:.4g}")


def _labels(model: Any) -> tuple[str, ...]:
    """The labels of a classifier; none where numbers are predicted."""
    from fastai.data.transforms import Categorize

    found = next((step for step in model.dls.train_ds.procs.fs if isinstance(step, Categorize)), None)
    return tuple(str(label) for label in found.vocab) if found is not None else ()


def predict(model: Any, columns: Columns, signature: Signature) -> Columns:
    """The answers as arrays: what `learn.predict` answers to each row."""

    names = [field.name for field in _inputs(model)]
    frame = tabular.frame(tabular.ordered(columns, names, signature), names)
    with _quiet(), model.no_bar(), model.no_logging():
        chances = model.get_preds(dl=model.dls.test_dl(frame))[0].numpy()
    labels = _labels(model)
    if labels:
        return {"prediction": tabular.chosen(labels, chances), "probabilities": chances}
    numbers = chances.reshape(len(frame), -1)
    return {name: numbers[:, place] for place, name in enumerate(model.dls.train_ds.y_names)}


@contextmanager
def _quiet() -> Iterator[None]:
    """While fast.ai works: what it and pandas warn of is no news to callers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

"""scikit-learn: estimators and pipelines, in pickles, joblib and skops files."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from modelport.errors import ModelFileError
from modelport.frameworks import Card, Contents, Instance, allowed, instances, tabular
from modelport.plugins import framework
from modelport.signature import Columns, Field, Kind, Signature

_OTHERS = ("xgboost", "lightgbm", "catboost")
"""The packages whose models stand in searches and pipelines; each is the name of a framework too."""
_WRAPPED = ("regressor_", "estimator_", "calibrated_classifiers_", "estimators_", "estimator")
"""Where an estimator keeps the one that it wraps, fitted; of several the first is asked."""
_PROBABLE = frozenset({"DecisionTreeClassifier", "ExtraTreeClassifier", "ExtraTreesClassifier", "RandomForestClassifier"})
"""Classifiers that answer with the most probable class by definition: one call gives both answers."""
_CENTRES = ("mean_", "center_", "theta_", "means_", "cluster_centers_", "support_vectors_", "_fit_X")
"""Attributes that hold typical values of each feature: one row of them, or several."""
_SKOPS_FACTOR, _SKOPS_BYTES = 4, 2_000_000
"""A skops file is kept when it has at most four times the bytes of the pickle and 2 MB more."""


@dataclass
class _Column:
    """What the steps of a model tell of one input column; each step adds what earlier ones left open."""

    name: str
    kind: Kind = "number"
    choices: tuple[Any, ...] = ()
    nullable: bool | None = None
    example: Any = None
    used: bool = True
    categories: tuple[Any, ...] | None = None
    """The values of the pandas categorical that the model was trained on."""

    def field(self) -> Field:
        return Field(self.name, self.kind, nullable=bool(self.nullable), choices=self.choices, example=self.example)


_Flow: TypeAlias = tuple[list[_Column], bool]
"""The columns that reach the next step, and whether they are its columns one for one."""


@dataclass(frozen=True, eq=False)
class _View:
    """How a model is called."""

    steps: tuple[Any, ...]
    """The transformers before the last step."""
    last: Any
    """The last step; None when transformers are all there is."""
    columns: tuple[_Column, ...]
    takes: str
    """"matrix", "frame", "texts", or the name of the framework whose model it is, in the wrapping of a search."""
    names: tuple[str, ...]
    named: bool
    """Whether it was trained on a frame."""
    categories: Mapping[str, tuple[Any, ...]]


def imports() -> frozenset[str]:
    """The names that a pickle of a scikit-learn model may import; pipelines hold models of the other libraries too."""
    return allowed.names("sklearn", "xgboost", "lightgbm", "catboost", "scipy", "pandas", "joblib")


def detect(contents: Contents) -> Card | None:
    """An estimator, a pipeline, or a class of one's own that is a scikit-learn estimator, in a pickle, joblib or skops file."""
    root = contents.root
    if not isinstance(root, Instance) or root.cls.split(".")[0] in _OTHERS:
        return None
    own = root.cls.startswith("__main__.") or root.get("n_features_in_") is not None
    if not (own or root.cls.startswith("sklearn.") or root.get("_sklearn_version")) or root.cls.startswith("sklearn.utils."):
        return None
    first, last = list(_way(root, 0)), list(_way(root, -1))
    names = _first_of(first, "feature_names_in_")
    count = _first_of(first, "n_features_in_")
    shape = root.get("shape_fit_")
    if count is None and isinstance(shape, tuple) and len(shape) == 2:
        count = shape[1]
    classes = _first_of(last, "classes_")
    version = _first_of(list(instances(root)), "_sklearn_version")
    return Card(
        "sklearn",
        root.cls,
        "scikit-learn",
        version=version if isinstance(version, str) else None,
        features=tuple(map(str, tabular.labels(names))),
        feature_count=tabular.whole(count) or None,
        classes=tabular.labels(classes),
        details=_details(root),
    )


def _way(held: Any, step: int) -> Iterator[Instance]:
    """An estimator and what it leads to: the best one of a search, the first or last step of a pipeline."""
    seen = set()
    while isinstance(held, Instance) and id(held) not in seen:
        seen.add(id(held))
        yield held
        steps = held.get("steps")
        pair = steps[step] if isinstance(steps, list) and steps else None
        held = pair[1] if isinstance(pair, tuple) and len(pair) == 2 else held.get("best_estimator_")


def _first_of(found: Sequence[Instance], attribute: str) -> Any:
    return next((value for value in (one.get(attribute) for one in found) if value is not None), None)


def _details(root: Instance) -> dict[str, Any]:
    """The steps of a pipeline, the best one of a search, the number of trees."""
    details: dict[str, Any] = {}
    for one in _way(root, -1):
        steps, trees = one.get("steps"), one.get("estimators_")
        if one is not root and "steps" not in details:
            details["best"] = one.cls.rpartition(".")[2]
        if isinstance(steps, list):
            held = [step[1] for step in steps if isinstance(step, tuple) and len(step) == 2]
            details["steps"] = [step.cls.rpartition(".")[2] if isinstance(step, Instance) else str(step) for step in held]
        elif isinstance(trees, list) and one.get("n_estimators") is not None:
            details["trees"] = len(trees)
    return details


# Loading


def load(path: Path, card: Card) -> Any:
    """The estimator in a pickle, joblib or skops file, set to one thread.

    VersionMismatch when another version of scikit-learn wrote it, ModelFileError when it does not load.
    """
    tabular.library("sklearn", "scikit-learn", "sklearn")
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    model = _from_skops(path) if is_zip else tabular.unpickled(path, card)
    for part in _parts(model):
        # several threads make a single row 5 to 10 times slower, and change no answer
        if getattr(part, "n_jobs", None) not in (None, 1):
            part.n_jobs = 1
    return model


def _from_skops(path: Path) -> Any:
    skops = tabular.library("skops.io", "skops", "sklearn")
    try:
        return skops.load(path, trusted=skops.get_untrusted_types(file=path))
    except Exception as error:
        raise tabular.not_loaded(path, error) from error


def _parts(model: Any) -> Iterator[Any]:
    """Every estimator in `model`, itself first, each once."""
    waiting, seen = [model], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, np.ndarray) and value.dtype == object:
            value = value.ravel().tolist()
        if id(value) in seen:
            continue
        if isinstance(value, list | tuple | dict):
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)
        elif _is_part(value):
            seen.add(id(value))
            yield value
            waiting.extend(vars(value).values())


def _is_part(value: Any) -> bool:
    """Whether a value is an estimator, or the pair of an estimator and its calibration, which is none by name."""
    return not isinstance(value, type) and (hasattr(value, "get_params") or hasattr(value, "calibrators"))


# Describing


def describe(model: Any, card: Card) -> Signature:
    """The signature of an estimator: its columns as its steps know them, and what it answers.

    An estimator that knows neither the names nor the number of its columns has no inputs: a sample or a schema must say them.
    """
    view = _view(model)
    if view.takes in _OTHERS:
        described: Signature = framework(view.takes).describe(view.last, card)
        return described
    return Signature(tuple(column.field() for column in view.columns), _outputs(view))


@tabular.PerModel
def _view(model: Any) -> _View:
    """How a model is called, found out once."""
    _check_fitted(model)
    estimator = model
    while hasattr(estimator, "best_estimator_"):
        estimator = estimator.best_estimator_
    if _package(estimator) in _OTHERS:
        return _View((), estimator, (), _package(estimator), (), named=False, categories={})
    known = _columns(estimator)
    _learn(estimator, known)
    columns = tuple(column for column in known if column.used)
    categories = {column.name: column.categories for column in columns if column.categories is not None}
    named = getattr(estimator, "feature_names_in_", None) is not None
    if columns and columns[0].kind == "text" and _takes_text(estimator):
        takes = "texts"
    elif columns and not named:
        takes = "matrix"
    elif columns and len(columns) == len(known) and not categories and _positional(estimator, columns):
        takes = "matrix"
        estimator = _without_names(estimator, {})
    else:
        takes = "frame"
    steps: list[Any] = []
    while type(estimator).__name__ == "Pipeline" and _package(estimator) == "sklearn":
        inner = [step for _, step in estimator.steps if step is not None and not isinstance(step, str)]
        steps += inner[:-1]
        estimator = inner[-1]
    return _View(tuple(steps), estimator, columns, takes, tuple(column.name for column in columns), named, categories)


def _check_fitted(model: Any) -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not hasattr(model, "fit"):
        return
    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise ModelFileError(f"this {type(model).__name__} has not been trained", hint="Call its fit, then save it.") from error
    if hasattr(model, "refit") and hasattr(model, "cv_results_") and not hasattr(model, "best_estimator_"):
        raise ModelFileError(f"this {type(model).__name__} has no model: it was fitted with refit=False", hint="Fit it with refit=True.")


def _package(value: Any) -> str:
    return type(value).__module__.split(".")[0]


def _columns(estimator: Any) -> list[_Column]:
    """The columns an estimator takes, by the names it has for them."""
    if _takes_text(estimator):
        return [_Column("text", "text")]
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:
        names = tabular.numbered(int(getattr(estimator, "n_features_in_", 0)))
    return [_Column(str(name)) for name in names]


def _takes_text(estimator: Any) -> bool:
    """Whether an estimator takes a list of texts, not a table: its first step is a vectorizer."""
    name = type(estimator).__name__
    if name == "Pipeline":
        return _takes_text(estimator.steps[0][1])
    if name == "FeatureUnion":
        return _takes_text(estimator.transformer_list[0][1])
    inner = _inner(estimator)
    return _takes_text(inner) if inner is not None else _tags(estimator)[1]


def _tags(estimator: Any) -> tuple[bool, bool]:
    """Whether an estimator takes missing values, and whether it takes texts and no table: by its tags, which 1.6 gave a new form."""
    if hasattr(estimator, "__sklearn_tags__"):
        tags = estimator.__sklearn_tags__().input_tags
        return bool(tags.allow_nan), bool(tags.string and not tags.two_d_array)
    if hasattr(estimator, "_get_tags"):
        old = estimator._get_tags()
        return bool(old["allow_nan"]), "string" in old["X_types"] and "2darray" not in old["X_types"]
    return False, False


def _inner(estimator: Any) -> Any:
    """The fitted estimator inside another, the first of several; None when there is none."""
    for attribute in _WRAPPED:
        value = vars(estimator).get(attribute) if hasattr(estimator, "__dict__") else None
        if isinstance(value, np.ndarray):
            value = value.ravel().tolist()
        if isinstance(value, list):
            value = value[0] if value else None
        if attribute == "calibrated_classifiers_" and value is not None:
            value = value.estimator
        if hasattr(value, "get_params") and (attribute != "estimator" or hasattr(estimator, "predict")) and _is_fitted(value):
            return value
    return None


def _is_fitted(estimator: Any) -> bool:
    return any(name.endswith("_") and not name.startswith("__") for name in vars(estimator)) or hasattr(estimator, "steps")


def _learn(estimator: Any, columns: list[_Column], aligned: bool = True) -> _Flow:
    """Let an estimator tell of the columns that reach it.

    What comes back are the columns that go on to the next step with their missing values, and whether one for one in the same order.
    """
    if estimator is None or isinstance(estimator, str):
        return columns, aligned
    return _learner(estimator)(estimator, columns, aligned)


def _learner(estimator: Any) -> Callable[[Any, list[_Column], bool], _Flow]:
    """Which of the functions below knows such an estimator."""
    name = type(estimator).__name__
    if _package(estimator) in _OTHERS:
        return _learn_other
    if _package(estimator) != "sklearn" or (name == "FunctionTransformer" and estimator.func is not None):
        return _learn_nothing
    if name in _COMPOSITES:
        return _COMPOSITES[name]
    if hasattr(estimator, "categories_"):
        return _learn_encoder
    if name.endswith("Imputer"):
        return _learn_imputer
    return _learn_text if _takes_text(estimator) else _learn_plain


def _learn_pipeline(pipeline: Any, columns: list[_Column], aligned: bool) -> _Flow:
    for _, step in pipeline.steps:
        columns, aligned = _learn(step, columns, aligned)
    return columns, aligned


def _learn_union(union: Any, columns: list[_Column], aligned: bool) -> _Flow:
    return [column for _, step in union.transformer_list for column in _learn(step, columns, aligned)[0]], False


def _learn_branches(transformer: Any, columns: list[_Column], aligned: bool) -> _Flow:
    """Let each branch of a ColumnTransformer tell of its columns; those in no branch are not needed at all."""
    going_on = []
    used = set()
    for _, branch, spec in transformer.transformers_:
        if isinstance(branch, str) and branch == "drop":
            continue
        places = _places(spec, [column.name for column in columns])
        used.update(places)
        going_on += _learn(branch, [columns[place] for place in places])[0]
    for place, column in enumerate(columns):
        column.used = column.used and place in used
    return going_on, False


def _learn_through(estimator: Any, columns: list[_Column], aligned: bool) -> _Flow:
    return columns, aligned


_COMPOSITES = {
    "Pipeline": _learn_pipeline,
    "FeatureUnion": _learn_union,
    "ColumnTransformer": _learn_branches,
    "FunctionTransformer": _learn_through,
}


def _learn_nothing(estimator: Any, columns: list[_Column], aligned: bool) -> _Flow:
    """One's own code may take anything: what no step before it has told stays unknown."""
    for column in columns:
        if column.kind == "number" and column.example is None:
            column.kind = "unknown"
    return [], False


def _learn_text(vectorizer: Any, columns: list[_Column], aligned: bool) -> _Flow:
    for column in columns:
        column.kind, column.nullable = "text", False
    return [], False


def _places(spec: Any, names: Sequence[str]) -> list[int]:
    """The positions that a column specification of a ColumnTransformer means: names, numbers, a mask or a slice."""
    if isinstance(spec, slice):
        start = names.index(spec.start) if isinstance(spec.start, str) else spec.start
        stop = names.index(spec.stop) + 1 if isinstance(spec.stop, str) else spec.stop
        return list(range(len(names)))[start : stop : spec.step]
    wanted = [spec] if isinstance(spec, str | int) else list(spec)
    if wanted and all(isinstance(one, bool | np.bool_) for one in wanted):
        return [place for place, one in enumerate(wanted) if one]
    return [names.index(one) if isinstance(one, str) else int(one) % len(names) for one in wanted]


def _learn_encoder(encoder: Any, columns: list[_Column], aligned: bool) -> _Flow:
    """The categories of a OneHotEncoder, OrdinalEncoder or TargetEncoder: binding when it refuses what it has not seen."""
    strict = getattr(encoder, "handle_unknown", "ignore") == "error"
    passes_missing = isinstance(kept := getattr(encoder, "encoded_missing_value", None), float) and np.isnan(kept)
    if not aligned or len(encoder.categories_) != len(columns):
        return [], False
    for column, values in zip(columns, encoder.categories_, strict=True):
        present = tuple(value for value in tabular.plain(values) if value is not None and value == value)
        _set_values(column, present, strict=strict)
        if column.nullable is None and not (passes_missing and len(present) < len(values)):
            column.nullable = len(present) < len(values)
    return (columns, True) if passes_missing else ([], False)


def _set_values(column: _Column, values: tuple[Any, ...], *, strict: bool) -> None:
    """Give a column the kind of the values it is known to have."""
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        column.kind = "boolean"
    elif strict and values:
        column.kind, column.choices = "category", values
    elif kinds == {str}:
        column.kind, column.choices = "string", values
    else:
        column.kind = "integer" if kinds == {int} else "number" if kinds == {float} else "unknown"
    if column.example not in values:
        column.example = next(iter(values), None)


def _learn_imputer(imputer: Any, columns: list[_Column], aligned: bool) -> _Flow:
    """An imputer fills what is missing, with a typical value as a rule."""
    statistics = getattr(imputer, "statistics_", getattr(getattr(imputer, "initial_imputer_", None), "statistics_", None))
    if aligned and statistics is not None and len(statistics) == len(columns):
        for column, value in zip(columns, tabular.plain(statistics), strict=True):
            if isinstance(value, str):
                column.kind, column.example = "string", value
            else:
                column.example = tabular.rounded(value)
    fills = imputer.missing_values is None or imputer.missing_values != imputer.missing_values
    for column in columns:
        if column.nullable is None:
            column.nullable = fills or None
    dropped = statistics is None or any(value is None or value != value for value in statistics)
    return columns, aligned and not dropped and not getattr(imputer, "add_indicator", False)


def _learn_other(estimator: Any, columns: list[_Column], aligned: bool) -> _Flow:
    """What a model of another library says of the columns that reach it."""
    fields = framework(_package(estimator)).describe(estimator, Card(_package(estimator), "", "")).inputs
    for column, told in zip(columns, fields if aligned and len(fields) == len(columns) else [None] * len(columns), strict=True):
        if column.nullable is None:
            column.nullable = told.nullable if told is not None else True
        if told is not None and column.kind == "number":
            column.kind, column.choices = told.kind, told.choices
            column.categories = told.choices or None
        if told is not None and column.example is None:
            column.example = told.example
    return [], False


def _learn_plain(estimator: Any, columns: list[_Column], aligned: bool) -> _Flow:
    """What any other estimator says: whether it takes missing values, and typical values of its features."""
    from sklearn.base import OneToOneFeatureMixin

    inner = _inner(estimator)
    if inner is not None and type(inner).__name__ == "Pipeline":
        return _learn(inner, columns, aligned)
    if aligned:
        _set_categories(estimator, columns)
        for column, example in zip(columns, _typical(estimator, len(columns)), strict=False):
            if column.example is None and column.kind == "number":
                column.example = tabular.rounded(example)
    one_to_one = isinstance(estimator, OneToOneFeatureMixin)
    takes_missing = _tags(estimator)[0]
    for column in columns:
        if column.nullable is None and not (one_to_one and takes_missing):
            column.nullable = takes_missing
    if inner is not None:
        _learn(inner, columns, aligned and getattr(inner, "n_features_in_", None) == len(columns))
    if not hasattr(estimator, "transform"):
        return [], False
    if aligned and hasattr(estimator, "get_support"):
        kept = [column for column, chosen in zip(columns, estimator.get_support(), strict=True) if chosen]
        return kept, True
    return (columns, aligned) if one_to_one else ([], False)


def _set_categories(estimator: Any, columns: list[_Column]) -> None:
    """The categories of a HistGradientBoosting model; a value it has not seen counts as missing."""
    chosen = getattr(estimator, "is_categorical_", None)
    if chosen is None or getattr(estimator, "feature_names_in_", None) is None or len(chosen) != len(columns):
        return
    encoder = estimator._preprocessor.named_transformers_["encoder"]
    for column, values in zip([column for column, one in zip(columns, chosen, strict=True) if one], encoder.categories_, strict=True):
        column.categories = tuple(value for value in tabular.plain(values) if value is not None and value == value)
        _set_values(column, column.categories, strict=False)


def _typical(estimator: Any, count: int) -> Sequence[Any]:
    """A typical value of each of `count` features, out of what the estimator learnt; nothing when it keeps no such thing."""
    if hasattr(estimator, "data_min_"):
        return list((estimator.data_min_ + estimator.data_max_) / 2)
    if hasattr(estimator, "_bin_mapper") and getattr(estimator, "is_categorical_", None) is None:
        return [np.median(values) if len(values) else None for values in estimator._bin_mapper.bin_thresholds_]
    if hasattr(estimator, "tree_") and estimator.tree_.n_features == count:
        tree = estimator.tree_
        split = [tree.threshold[tree.feature == index] for index in range(count)] if count <= 1000 else []
        return [np.median(values) if len(values) else None for values in split]
    for attribute in _CENTRES:
        value = getattr(estimator, attribute, None)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.shape[-1:] == (count,) and value.size:
            return list(value if value.ndim == 1 else value.mean(axis=0))
    return []


def _positional(estimator: Any, columns: Sequence[_Column]) -> bool:
    """Whether a model that was trained on a frame looks at the place of a column alone, so that a bare matrix gives the same answers."""
    return all(column.kind in ("number", "integer", "boolean") for column in columns) and all(
        _package(part) == "sklearn"
        and type(part).__name__ not in ("ColumnTransformer", "FunctionTransformer")
        and not hasattr(part, "_sklearn_output_config")
        for part in _parts(estimator)
    )


def _without_names(value: Any, made: dict[int, Any]) -> Any:
    """A model without the names of its columns, so that it takes a matrix without a word; it shares all else with `value`."""
    if type(value) in (list, tuple) and any(_is_part(one) or isinstance(one, list | tuple) for one in value):
        return type(value)(_without_names(one, made) for one in value)
    if not _is_part(value):
        return value
    if id(value) not in made:
        twin = made[id(value)] = object.__new__(type(value))
        twin.__dict__.update({key: _without_names(one, made) for key, one in vars(value).items() if key != "feature_names_in_"})
    return made[id(value)]


def _outputs(view: _View) -> tuple[Field, ...]:
    """What a model answers, found by asking it once with an example row."""
    answers = _probe(view)
    classes = getattr(view.last, "classes_", None)
    fields = []
    for name, answer in answers.items():
        number = int(name.rpartition("_")[2]) if name[-1].isdigit() else 0
        labels = tabular.plain(classes[number] if isinstance(classes, list) else classes) if classes is not None else ()
        if name.startswith("probabilities"):
            names = labels or tuple(range(answer.shape[1]))
            fields.append(tabular.vector(name, names if len(names) == answer.shape[1] else (), answer.shape[1], str(answer.dtype)))
        elif answer.ndim > 1:
            names = labels if len(labels) == answer.shape[1] else ()
            fields.append(tabular.vector(name, names, answer.shape[1], str(answer.dtype)))
        elif labels:
            fields.append(tabular.label(labels, name))
        elif name == "prediction" and "score" in answers:
            fields.append(tabular.label((1, -1)))
        elif answer.dtype.kind in "iu":
            fields.append(Field(name, "integer"))
        elif answer.dtype.kind == "f":
            fields.append(Field(name, "number", dtype=str(answer.dtype)))
        else:
            fields.append(Field(name, "boolean" if answer.dtype.kind == "b" else "string"))
    return tuple(fields)


def _probe(view: _View) -> Columns:
    """The answers to a row of examples; what the kind of model says it gives, when it cannot be asked without a real row."""
    row = {}
    for column in view.columns:
        value = column.example if column.example is not None else "text" if column.kind in ("text", "string") else 0.0
        row[column.name] = np.array([value], dtype=object if isinstance(value, str) else None)
    signature = Signature(tuple(column.field() for column in view.columns), ())
    with warnings.catch_warnings():
        # a made-up row may be out of any range, which is no news to anybody
        warnings.simplefilter("ignore")
        try:
            return _answers(view, _given(view, row, signature))
        except Exception:  # noqa: BLE001 whatever it raises, a real row is needed to ask it
            classes = getattr(view.last, "classes_", None)
            if classes is None or isinstance(classes, list):
                return {"prediction": np.zeros(1)}
            answers = {"prediction": np.asarray(classes[:1])}
            return answers | {"probabilities": np.zeros((1, len(classes)))} if hasattr(view.last, "predict_proba") else answers


# Predicting


def predict(model: Any, columns: Columns, signature: Signature) -> Columns:
    """The answers as arrays called by the names that `describe` gave the outputs."""
    view = _view(model)
    if view.takes in _OTHERS:
        return framework(view.takes).predict(view.last, columns, signature)
    return _answers(view, _given(view, columns, signature))


def _given(view: _View, columns: Columns, signature: Signature) -> Any:
    """The columns in the form in which the model takes them."""
    names = view.names or tuple(field.name for field in signature.inputs)
    arrays = tabular.ordered(columns, names, signature)
    if view.takes == "texts":
        return arrays[0].tolist()
    return tabular.frame(arrays, names, view.categories) if view.takes == "frame" else tabular.matrix(arrays, by_column=view.named)


def _answers(view: _View, rows: Any) -> Columns:
    """All that the last step answers to rows: labels and probabilities, values, outliers and scores, clusters, or a transformed row."""
    for step in view.steps:
        rows = step.transform(rows)
    last = view.last
    if not hasattr(last, "predict"):
        if not hasattr(last, "transform"):
            hint = "Modelport serves what predicts or transforms."
            raise ModelFileError(f"a {type(last).__name__} answers nothing about new rows: it has no predict", hint=hint)
        return {"prediction": _dense(last.transform(rows))}
    classes: Any = getattr(last, "classes_", None)
    if isinstance(classes, list):
        return _several(last, classes, rows)
    if type(last).__name__ in _PROBABLE and _package(last) == "sklearn":
        chances = last.predict_proba(rows)
        return {"prediction": classes.take(chances.argmax(axis=1)), "probabilities": chances}
    if type(last).__name__ == "IsolationForest":
        # an outlier is what scores below 0, and scoring is all the work
        score = last.decision_function(rows)
        return {"prediction": np.where(score < 0, -1, 1), "score": score}
    answers = {"prediction": _dense(last.predict(rows))}
    if answers["prediction"].ndim == 2 and answers["prediction"].shape[1] == 1:
        answers["prediction"] = answers["prediction"].ravel()
    if hasattr(last, "predict_proba"):
        answers["probabilities"] = np.asarray(last.predict_proba(rows))
    elif _is_outlier_detector(last):
        answers["score"] = last.decision_function(rows)
    return answers


def _several(last: Any, classes: Sequence[Any], rows: Any) -> Columns:
    """The answers of a classifier that predicts several things at once: prediction_0, prediction_1, ... and their probabilities."""
    predicted = last.predict(rows)
    answers = {f"prediction_{index}": predicted[:, index] for index in range(len(classes))}
    if hasattr(last, "predict_proba"):
        answers |= {f"probabilities_{index}": np.asarray(chances) for index, chances in enumerate(last.predict_proba(rows))}
    return answers


def _is_outlier_detector(estimator: Any) -> bool:
    from sklearn.base import is_outlier_detector

    return _package(estimator) == "sklearn" and bool(is_outlier_detector(estimator))


def _dense(rows: Any) -> Any:
    return np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows)


# Saving


def save(model: Any, card: Card, folder: Path) -> str | None:
    """The model as skops, when skops is installed, trusts all its types and does not make it much larger than a pickle; else None.

    The same model gives the same bytes: skops names the parts of a file by their addresses in memory; here they are counted.
    """
    data = _as_skops(model)
    if data is None:
        return None
    (folder / "model.skops").write_bytes(data)
    return "model.skops"


def _as_skops(model: Any) -> bytes | None:
    if find_spec("skops") is None or any(
        hasattr(part, "tree_") or hasattr(part, "_predictors") or _package(part) != "sklearn" for part in _parts(model)
    ):
        # trees are not trusted by skops, and finding that out takes it minutes for a large forest
        return None
    import skops.io

    for part in _parts(model):
        vars(part).pop("_stop_words_id", None)  # an address in memory, that a vectorizer keeps once it has been called
    try:
        data = skops.io.dumps(model)
        if skops.io.get_untrusted_types(data=data):
            return None
    except Exception:  # noqa: BLE001 whatever it cannot hold, it is not the format for this model
        return None
    if len(data) > _SKOPS_FACTOR * len(pickle.dumps(model)) + _SKOPS_BYTES:
        return None
    return _reproducible(data)


def _reproducible(data: bytes) -> bytes:
    """A skops file with its ids and names counted from 0, no dates, and its members in order."""
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        members = {name: source.read(name) for name in source.namelist()}
    ids: dict[int, int] = {}
    names: dict[str, str] = {}

    def counted(node: Any) -> Any:
        if isinstance(node, list):
            return [counted(one) for one in node]
        if not isinstance(node, dict):
            return node
        out = {key: counted(one) for key, one in node.items()}
        if isinstance(out.get("__id__"), int):
            out["__id__"] = ids.setdefault(out["__id__"], len(ids))
        if out.get("file") in members:
            out["file"] = names.setdefault(out["file"], f"{len(names)}{Path(out['file']).suffix}")
        return out

    schema = json.dumps(counted(json.loads(members.pop("schema.json"))))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as written:
        for name, content in [("schema.json", schema.encode()), *((names[name], content) for name, content in members.items())]:
            written.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def requirements(model: Any, card: Card) -> tuple[str, ...]:
    """The distributions of every estimator in it; pandas where columns go by name; skops where it is saved so."""
    view = _view(model)
    packages = {_package(part) for part in _parts(model)} | {"sklearn", "numpy"}
    packages |= {
        str(getattr(part.func, "__module__", "")).split(".")[0] for part in _parts(model) if type(part).__name__ == "FunctionTransformer"
    }
    if view.takes == "frame":
        packages.add("pandas")
    if _as_skops(model) is not None:
        packages.add("skops")
    return tabular.distributions(packages)

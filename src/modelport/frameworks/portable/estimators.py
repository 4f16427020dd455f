"""scikit-learn estimators of any version from 0.19 on: the columns they take, what they answer, and how they are called."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Mapping, Sequence

import numpy as np

from .tables import frame, matrix, numbered, plain, rounded

OTHERS = ("xgboost", "lightgbm", "catboost")
"""The packages whose models stand in searches and pipelines; each is the name of a framework too."""
_THREADED = ("sklearn.ensemble._forest", "sklearn.ensemble._iforest", "sklearn.neighbors.", "xgboost.", "lightgbm.")
"""Where the classes are defined whose `n_jobs` are threads when they predict. Those of others are processes, or nothing."""
_WRAPPED = ("regressor_", "estimator_", "calibrated_classifiers_", "estimators_", "estimator")
"""Where an estimator keeps the one that it wraps, fitted; of several the first is asked."""
_PROBABLE = frozenset({"DecisionTreeClassifier", "ExtraTreeClassifier", "ExtraTreesClassifier", "RandomForestClassifier"})
"""Classifiers that answer with the most probable class by definition: one call gives both answers."""
_CENTRES = ("mean_", "center_", "theta_", "means_", "cluster_centers_", "support_vectors_", "_fit_X")
"""Attributes that hold typical values of each feature: one row of them, or several."""
_NAMES = ("feature_names_in_", "_feature_names_in", "_df_columns")
"""Where names of columns stand: since 1.0, and in a ColumnTransformer of before."""
_OTHER_NAMES = ("feature_names_in_", "feature_name_", "feature_names_")
"""Where models of the other packages have them."""
_COUNTS = ("n_features_in_", "n_features_", "_n_features")
"""Where the number of columns stands, since 0.24 and before."""
_WIDTHS = (
    "coef_", "support_vectors_", "_fit_X", "theta_", "feature_log_prob_", "means_", "cluster_centers_", "components_", "scale_", "mean_",
    "statistics_",
)  # fmt: skip
"""Attributes whose last axis is the columns, for estimators of before 0.24 that do not count them."""
_VECTORIZERS = ("CountVectorizer", "HashingVectorizer", "TfidfVectorizer")
_ONE_TO_ONE = frozenset(
    {
        "Binarizer", "MaxAbsScaler", "MinMaxScaler", "Normalizer", "PowerTransformer", "QuantileTransformer", "RobustScaler",
        "StandardScaler", "TfidfTransformer",
    }
)  # fmt: skip
"""Transformers whose columns out are the columns in, for versions before 1.1 that have no class that says so."""


class NotServed(Exception):
    """A model that cannot be described or called: why, and what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass
class Column:
    """What the steps of a model tell of one input column; each step adds what earlier ones left open."""

    name: str
    kind: str = "number"
    choices: tuple[Any, ...] = ()
    nullable: bool | None = None
    example: Any = None
    used: bool = True
    categories: tuple[Any, ...] | None = None
    """The values of the pandas categorical that the model was trained on."""


@dataclass(frozen=True)
class Output:
    """One of the answers: its name, kind, dtype, the shape of one of it, and its values or the names of its elements."""

    name: str
    kind: str
    dtype: str | None = None
    shape: tuple[int, ...] = ()
    choices: tuple[Any, ...] = ()


Describe = Callable[[Any], Sequence[Column]]
"""What is known of the columns of a model of another library."""


@dataclass(frozen=True, eq=False)
class View:
    """How a model is called."""

    steps: tuple[Any, ...]
    """The transformers before the last step."""
    last: Any
    """The last step; None when transformers are all there is."""
    columns: tuple[Column, ...]
    """The columns that it needs."""
    takes: str
    """"matrix", "frame", "texts", or the name of the framework whose model it is, in the wrapping of a search."""
    names: tuple[str, ...]
    named: bool
    """Whether it was trained on a frame."""
    categories: Mapping[str, tuple[Any, ...]]


def package(value: Any) -> str:
    """The package that a value's class comes from."""
    return type(value).__module__.split(".")[0]


def parts(model: Any) -> Iterator[Any]:
    """Every estimator in `model`, itself first, each once."""
    waiting, seen = [model], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, np.ndarray) and value.dtype == object:
            value = value.ravel().tolist()
        if id(value) in seen:
            continue
        if isinstance(value, (list, tuple, dict)):
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)
        elif _is_part(value):
            seen.add(id(value))
            yield value
            waiting.extend(vars(value).values())


def _is_part(value: Any) -> bool:
    """Whether a value is an estimator, or the pair of an estimator and its calibration, which is none by name."""
    return not isinstance(value, type) and (hasattr(value, "get_params") or hasattr(value, "calibrators") or hasattr(value, "calibrators_"))


def use_threads(model: Any, threads: int) -> None:
    """Set every estimator in it to so many threads. Several make a single row of a light model 5 to 10 times slower; answers stay."""
    for part in parts(model):
        threaded = any(cls.__module__.startswith(_THREADED) for cls in type(part).__mro__)
        if hasattr(part, "n_jobs") and (threaded or part.n_jobs not in (None, 1)):
            part.n_jobs = threads if threaded else 1
        if hasattr(part, "get_booster") and getattr(part, "_Booster", None) is not None:  # it keeps the number that it was trained with
            part.get_booster().set_param({"nthread": threads})


def view(model: Any, describe: Describe | None = None, others: Sequence[str] = ()) -> View:
    """How a model is called.

    A search over one of the packages `others` is called as its best model is, by the framework of that name. `describe` tells of the
    columns of a model of another library at the end of a pipeline. NotServed when it has not been trained.
    """
    _check_fitted(model)
    estimator = model
    while hasattr(estimator, "best_estimator_"):
        estimator = estimator.best_estimator_
    if package(estimator) in others:
        return View((), estimator, (), package(estimator), (), named=False, categories={})
    known = _columns(estimator)
    _learn(estimator, known, True, describe or _silent)
    columns = tuple(column for column in known if column.used)
    categories = {column.name: column.categories for column in columns if column.categories is not None}
    named = _names(estimator) is not None
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
    while type(estimator).__name__ == "Pipeline" and package(estimator) == "sklearn":
        inner = [step for _, step in estimator.steps if step is not None and not isinstance(step, str)]
        steps += inner[:-1]
        estimator = inner[-1]
    return View(tuple(steps), estimator, columns, takes, tuple(column.name for column in columns), named, categories)


def _silent(model: Any) -> Sequence[Column]:
    return ()


def _check_fitted(model: Any) -> None:
    if not hasattr(model, "fit"):
        return
    if hasattr(model, "refit") and hasattr(model, "cv_results_") and not hasattr(model, "best_estimator_"):
        raise NotServed(f"this {type(model).__name__} has no model: it was fitted with refit=False", "Fit it with refit=True.")
    if not _fitted(model):
        raise NotServed(f"this {type(model).__name__} has not been trained", "Call its fit, then save it.")


def _fitted(model: Any) -> bool:
    """Whether it has been trained. Before 1.1 a pipeline did not know of itself; its last step does."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not hasattr(model, "__sklearn_is_fitted__"):
        if type(model).__name__ in ("Pipeline", "FeatureUnion"):
            held = [step for _, step in getattr(model, "steps", None) or model.transformer_list if hasattr(step, "fit")]
            return not held or _fitted(held[-1])
        if _stateless(model):
            return True
    try:
        check_is_fitted(model)
    except NotFittedError:
        return False
    except TypeError:  # before 0.22 it had to be told which attributes a fitted one has
        return _has_learnt(model)
    return True


def _stateless(model: Any) -> bool:
    tags = model._get_tags() if hasattr(model, "_get_tags") and not hasattr(model, "__sklearn_tags__") else {}
    return bool(tags.get("stateless")) or type(model).__name__ in ("FunctionTransformer", "HashingVectorizer")


def _has_learnt(estimator: Any) -> bool:
    return any(name.endswith("_") and not name.startswith("__") for name in vars(estimator))


def _first_step(estimator: Any) -> Any:
    """The step of a pipeline that the columns reach first, and the best one of a search; None for others."""
    if hasattr(estimator, "best_estimator_"):
        return estimator.best_estimator_
    steps = getattr(estimator, "steps", None) if type(estimator).__name__ == "Pipeline" else None
    held = [step for _, step in steps if step is not None and not isinstance(step, str)] if steps else []
    return held[0] if held else None


def _names(estimator: Any) -> Sequence[Any] | None:
    """The names of the columns that an estimator was trained on, where it keeps them."""
    for attribute in _OTHER_NAMES if package(estimator) in OTHERS else _NAMES:
        found = getattr(estimator, attribute, None)
        if found is not None and not callable(found):
            return list(found)
    first = _first_step(estimator)
    if first is not None:
        return _names(first)
    if type(estimator).__name__ == "ColumnTransformer":
        return _named_by_branches(estimator)
    if package(estimator) == "xgboost" and hasattr(estimator, "get_booster"):
        found = estimator.get_booster().feature_names
        return list(found) if found else None
    return None


def _named_by_branches(transformer: Any) -> Sequence[str] | None:
    """The names that the branches of a ColumnTransformer of before 0.23 say, which keeps no others; None when it goes by number."""
    told = []
    for _, _, spec in transformer.transformers_:
        told += [spec] if isinstance(spec, str) else list(spec) if isinstance(spec, (list, tuple, np.ndarray)) else [spec]
    names = [name for name in told if isinstance(name, str)]
    return list(dict.fromkeys(names)) if names and len(names) == len(told) else None


def _count(estimator: Any) -> int:
    """How many columns an estimator takes; 0 when it does not know."""
    for attribute in _COUNTS:
        found = getattr(estimator, attribute, None)
        if isinstance(found, (int, np.integer)):
            return int(found)
    first = _first_step(estimator)
    if first is not None:
        return _count(first)
    shape = getattr(estimator, "shape_fit_", None)
    if shape is not None and len(shape) == 2:
        return int(shape[1])
    for attribute in _WIDTHS:
        width = getattr(getattr(estimator, attribute, None), "shape", ())
        if width:
            return int(width[-1])
    inner = _inner(estimator)
    return 0 if inner is None else _count(inner)


def _columns(estimator: Any) -> list[Column]:
    """The columns an estimator takes, by the names it has for them."""
    if _takes_text(estimator):
        return [Column("text", "text")]
    names = _names(estimator)
    if names is None:
        names = numbered(_count(estimator))
    return [Column(str(name)) for name in names]


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
    texts = type(estimator).__name__ in _VECTORIZERS and package(estimator) == "sklearn"
    if hasattr(estimator, "_get_tags"):
        old = estimator._get_tags()
        kinds = old.get("X_types", ())
        return bool(old.get("allow_nan")), texts or ("string" in kinds and "2darray" not in kinds)
    return False, texts


def _inner(estimator: Any) -> Any:
    """The fitted estimator inside another, the first of several; None when there is none."""
    for attribute in _WRAPPED:
        value = vars(estimator).get(attribute) if hasattr(estimator, "__dict__") else None
        if isinstance(value, np.ndarray):
            value = value.ravel().tolist()
        if isinstance(value, list):
            value = value[0] if value else None
        if attribute == "calibrated_classifiers_" and value is not None:
            value = value.estimator if hasattr(value, "estimator") else value.base_estimator
        if (
            hasattr(value, "get_params")
            and (attribute != "estimator" or hasattr(estimator, "predict"))
            and (_has_learnt(value) or hasattr(value, "steps"))
        ):
            return value
    return None


# What each step tells of the columns


def _learn(estimator: Any, columns: list[Column], aligned: bool, describe: Describe) -> tuple[list[Column], bool]:
    """Let an estimator tell of the columns that reach it.

    What comes back are the columns that go on to the next step with their missing values, and whether one for one in the same order.
    """
    if estimator is None or isinstance(estimator, str):
        return columns, aligned
    name = type(estimator).__name__
    if package(estimator) in OTHERS:
        return _learn_other(describe(estimator), columns, aligned)
    if package(estimator) != "sklearn" or (name == "FunctionTransformer" and estimator.func is not None):
        return _learn_nothing(columns)
    return _learn_own(estimator, name, columns, aligned, describe)


def _learn_own(estimator: Any, name: str, columns: list[Column], aligned: bool, describe: Describe) -> tuple[list[Column], bool]:
    """What an estimator of scikit-learn's own tells, by the name of its class."""
    if name == "FunctionTransformer":
        return columns, aligned
    if name == "Pipeline":
        for _, step in estimator.steps:
            columns, aligned = _learn(step, columns, aligned, describe)
        return columns, aligned
    if name == "FeatureUnion":
        return [column for _, step in estimator.transformer_list for column in _learn(step, columns, aligned, describe)[0]], False
    if name == "ColumnTransformer":
        return _learn_branches(estimator, columns, describe) if aligned else ([], False)
    if hasattr(estimator, "categories_"):
        return _learn_encoder(estimator, columns, aligned)
    if name.endswith("Imputer"):
        return _learn_imputer(estimator, columns, aligned)
    return _learn_text(columns) if _takes_text(estimator) else _learn_plain(estimator, columns, aligned, describe)


def _learn_branches(transformer: Any, columns: list[Column], describe: Describe) -> tuple[list[Column], bool]:
    """Let each branch of a ColumnTransformer tell of its columns; those in no branch are not needed at all."""
    going_on = []
    used: set[int] = set()
    for _, branch, spec in transformer.transformers_:
        if isinstance(branch, str) and branch == "drop":
            continue
        chosen = places_meant(transformer, spec, [column.name for column in columns])
        used.update(chosen)
        going_on += _learn(branch, [columns[place] for place in chosen], True, describe)[0]
    for place, column in enumerate(columns):
        column.used = column.used and place in used
    return going_on, False


def _learn_nothing(columns: list[Column]) -> tuple[list[Column], bool]:
    """One's own code may take anything: what no step before it has told stays unknown."""
    for column in columns:
        if column.kind == "number" and column.example is None:
            column.kind = "unknown"
    return [], False


def _learn_text(columns: list[Column]) -> tuple[list[Column], bool]:
    for column in columns:
        column.kind, column.nullable = "text", False
    return [], False


def places_meant(transformer: Any, spec: Any, names: Sequence[str], count: int = 0) -> list[int]:
    """The places that a specification of a ColumnTransformer means: names, numbers, a mask or a slice.

    They are those among the columns called `names`, or among `count` columns that have no names any more. ValueError when a name is not
    among them.
    """
    known = next((getattr(transformer, one) for one in _NAMES if getattr(transformer, one, None) is not None), None)
    fitted = list(names) if known is None else [str(name) for name in known]
    total = len(fitted) or count
    if isinstance(spec, slice):
        start = fitted.index(spec.start) if isinstance(spec.start, str) else spec.start
        stop = fitted.index(spec.stop) + 1 if isinstance(spec.stop, str) else spec.stop
        found = list(range(total))[start : stop : spec.step]
    else:
        wanted = [spec] if isinstance(spec, (str, int, np.integer)) else list(spec)
        if wanted and all(isinstance(one, (bool, np.bool_)) for one in wanted):
            found = [place for place, one in enumerate(wanted) if one]
        else:
            found = [fitted.index(one) if isinstance(one, str) else int(one) % total for one in wanted]
    # it may have seen other columns than there are now, or the same in another order
    return found if known is None or not names else [list(names).index(fitted[place]) for place in found]


def _learn_encoder(encoder: Any, columns: list[Column], aligned: bool) -> tuple[list[Column], bool]:
    """The categories of a OneHotEncoder, OrdinalEncoder or TargetEncoder: binding when it refuses what it has not seen."""
    # before 0.24 an OrdinalEncoder could not be told to take what it has not seen
    strict = getattr(encoder, "handle_unknown", "error" if type(encoder).__name__ == "OrdinalEncoder" else "ignore") == "error"
    kept = getattr(encoder, "encoded_missing_value", None)
    passes_missing = isinstance(kept, float) and bool(np.isnan(kept))
    if not aligned or len(encoder.categories_) != len(columns):
        return [], False
    for column, values in zip(columns, encoder.categories_):
        present = tuple(value for value in plain(values) if value is not None and value == value)
        _set_values(column, present, strict=strict)
        if column.nullable is None and not (passes_missing and len(present) < len(values)):
            column.nullable = len(present) < len(values)
    return (columns, True) if passes_missing else ([], False)


def _set_values(column: Column, values: tuple[Any, ...], strict: bool) -> None:
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


def _learn_imputer(imputer: Any, columns: list[Column], aligned: bool) -> tuple[list[Column], bool]:
    """An imputer fills what is missing, with a typical value as a rule."""
    statistics = getattr(imputer, "statistics_", getattr(getattr(imputer, "initial_imputer_", None), "statistics_", None))
    if aligned and statistics is not None and len(statistics) == len(columns):
        for column, value in zip(columns, plain(statistics)):
            if isinstance(value, str):
                column.kind, column.example = "string", value
            else:
                column.example = rounded(value)
    # before 0.20 NaN was written as a word
    missing = imputer.missing_values
    fills = missing is None or missing != missing or (isinstance(missing, str) and missing == "NaN")
    for column in columns:
        if column.nullable is None:
            column.nullable = fills or None
    dropped = statistics is None or any(value is None or value != value for value in statistics)
    return columns, aligned and not dropped and not getattr(imputer, "add_indicator", False)


def _learn_other(told: Sequence[Column], columns: list[Column], aligned: bool) -> tuple[list[Column], bool]:
    """What a model of another library says of the columns that reach it: `told` is for each of them, or nothing."""
    known: Sequence[Any] = told if aligned and len(told) == len(columns) else [None] * len(columns)
    for column, one in zip(columns, known):
        if column.nullable is None:
            column.nullable = bool(one.nullable) if one is not None else True
        if one is not None and column.kind == "number":
            column.kind, column.choices = one.kind, one.choices
            column.categories = one.choices or None
        if one is not None and column.example is None:
            column.example = one.example
    return [], False


def _learn_plain(estimator: Any, columns: list[Column], aligned: bool, describe: Describe) -> tuple[list[Column], bool]:
    """What any other estimator says: whether it takes missing values, and typical values of its features."""
    inner = _inner(estimator)
    if inner is not None and type(inner).__name__ == "Pipeline":
        return _learn(inner, columns, aligned, describe)
    if aligned:
        _set_categories(estimator, columns)
        for column, example in zip(columns, _typical(estimator, len(columns))):
            if column.example is None and column.kind == "number":
                column.example = rounded(example)
    one_to_one = _is_one_to_one(estimator)
    takes_missing = _tags(estimator)[0]
    for column in columns:
        if column.nullable is None and not (one_to_one and takes_missing):
            column.nullable = takes_missing
    if inner is not None:
        _learn(inner, columns, aligned and _count(inner) == len(columns), describe)
    if not hasattr(estimator, "transform"):
        return [], False
    if aligned and hasattr(estimator, "get_support"):
        return [column for column, chosen in zip(columns, estimator.get_support()) if chosen], True
    return (columns, aligned) if one_to_one else ([], False)


def _is_one_to_one(estimator: Any) -> bool:
    try:
        from sklearn.base import OneToOneFeatureMixin
    except ImportError:
        return type(estimator).__name__ in _ONE_TO_ONE
    return isinstance(estimator, OneToOneFeatureMixin)


def _set_categories(estimator: Any, columns: list[Column]) -> None:
    """The categories of a HistGradientBoosting model; a value it has not seen counts as missing. Before 1.4 they were numbers as any."""
    chosen = getattr(estimator, "is_categorical_", None)
    encoders = getattr(estimator, "_preprocessor", None)
    if chosen is None or encoders is None or _names(estimator) is None or len(chosen) != len(columns):
        return
    encoder = encoders.named_transformers_["encoder"]
    for column, values in zip([column for column, one in zip(columns, chosen) if one], encoder.categories_):
        column.categories = tuple(value for value in plain(values) if value is not None and value == value)
        _set_values(column, column.categories, strict=False)


def _typical(estimator: Any, count: int) -> Sequence[Any]:
    """A typical value of each of `count` features, out of what the estimator learnt; nothing when it keeps no such thing."""
    if hasattr(estimator, "data_min_"):
        return list((estimator.data_min_ + estimator.data_max_) / 2)
    if hasattr(getattr(estimator, "_bin_mapper", None), "bin_thresholds_") and getattr(estimator, "is_categorical_", None) is None:
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


def _positional(estimator: Any, columns: Sequence[Column]) -> bool:
    """Whether a model that was trained on a frame looks at the place of a column alone, so that a bare matrix gives the same answers."""
    return all(column.kind in ("number", "integer", "boolean") for column in columns) and all(
        package(part) == "sklearn"
        and type(part).__name__ not in ("ColumnTransformer", "FunctionTransformer")
        and not hasattr(part, "_sklearn_output_config")
        for part in parts(estimator)
    )


def _without_names(value: Any, made: dict[int, Any]) -> Any:
    """A model without the names of its columns, so that it takes a matrix without a word; it shares all else with `value`."""
    if type(value) in (list, tuple) and any(_is_part(one) or isinstance(one, (list, tuple)) for one in value):
        return type(value)(_without_names(one, made) for one in value)
    if not _is_part(value):
        return value
    if id(value) not in made:
        twin = made[id(value)] = object.__new__(type(value))
        twin.__dict__.update({key: _without_names(one, made) for key, one in vars(value).items() if key != "feature_names_in_"})
    return made[id(value)]


# What it answers


def outputs(view: View) -> tuple[Output, ...]:
    """What a model answers, found by asking it once with an example row."""
    answered = _probe(view)
    classes = getattr(view.last, "classes_", None)
    found = []
    for name, answer in answered.items():
        number = int(name.rpartition("_")[2]) if name[-1].isdigit() else 0
        labels = plain(classes[number] if isinstance(classes, list) else classes) if classes is not None else ()
        if name.startswith("probabilities"):
            names = labels or tuple(range(answer.shape[1]))
            found.append(_vector(name, answer, names))
        elif answer.ndim > 1:
            found.append(_vector(name, answer, labels))
        elif labels:
            found.append(Output(name, "category", choices=labels))
        elif name == "prediction" and "score" in answered:
            found.append(Output(name, "category", choices=(1, -1)))
        elif answer.dtype.kind in "iu":
            found.append(Output(name, "integer"))
        elif answer.dtype.kind == "f":
            found.append(Output(name, "number", str(answer.dtype)))
        else:
            found.append(Output(name, "boolean" if answer.dtype.kind == "b" else "string"))
    return tuple(found)


def _vector(name: str, answer: Any, names: tuple[Any, ...]) -> Output:
    size = answer.shape[1]
    return Output(name, "number", str(answer.dtype), (size,), names if len(names) == size else ())


def _probe(view: View) -> Mapping[str, Any]:
    """The answers to a row of examples; what the kind of model says it gives, when it cannot be asked without a real row."""
    arrays = []
    for column in view.columns:
        value = column.example if column.example is not None else "text" if column.kind in ("text", "string") else 0.0
        arrays.append(np.array([value], dtype=object if isinstance(value, str) else None))
    with warnings.catch_warnings():
        # a made-up row may be out of any range, which is no news to anybody
        warnings.simplefilter("ignore")
        try:
            return answers(view, rows(view, arrays, view.names))
        except ModuleNotFoundError:
            raise
        except Exception:  # noqa: BLE001 whatever it raises, a real row is needed to ask it
            classes = getattr(view.last, "classes_", None)
            if classes is None or isinstance(classes, list):
                return {"prediction": np.zeros(1)}
            guessed = {"prediction": np.asarray(classes[:1])}
            if hasattr(view.last, "predict_proba"):
                guessed["probabilities"] = np.zeros((1, len(classes)))
            return guessed


def rows(view: View, arrays: Sequence[Any], names: Sequence[str]) -> Any:
    """The columns, in the order of `names`, in the form in which the model takes them."""
    if view.takes == "texts":
        return arrays[0].tolist()
    return frame(arrays, names, view.categories) if view.takes == "frame" else matrix(arrays, by_column=view.named)


def answers(view: View, given: Any) -> dict[str, Any]:
    """All that the last step answers to rows: labels and probabilities, values, outliers and scores, clusters, or a transformed row."""
    for step in view.steps:
        given = step.transform(given)
    last = view.last
    if not hasattr(last, "predict"):
        if not hasattr(last, "transform"):
            why = f"a {type(last).__name__} answers nothing about new rows: it has no predict"
            raise NotServed(why, "Modelport serves what predicts or transforms.")
        return {"prediction": _dense(last.transform(given))}
    classes: Any = getattr(last, "classes_", None)
    if isinstance(classes, list):
        return _several(last, classes, given)
    if type(last).__name__ in _PROBABLE and package(last) == "sklearn":
        chances = last.predict_proba(given)
        return {"prediction": classes.take(chances.argmax(axis=1)), "probabilities": chances}
    if type(last).__name__ == "IsolationForest" and hasattr(last, "offset_") and not hasattr(last, "behaviour"):
        # an outlier is what scores below 0, and scoring is all the work; up to 0.23 it could be told otherwise
        score = last.decision_function(given)
        return {"prediction": np.where(score < 0, -1, 1), "score": score}
    found = {"prediction": _dense(last.predict(given))}
    if found["prediction"].ndim == 2 and found["prediction"].shape[1] == 1:
        found["prediction"] = found["prediction"].ravel()
    if hasattr(last, "predict_proba"):
        found["probabilities"] = np.asarray(last.predict_proba(given))
    elif _is_outlier_detector(last):
        found["score"] = last.decision_function(given)
    return found


def _several(last: Any, classes: Sequence[Any], given: Any) -> dict[str, Any]:
    """The answers of a classifier that predicts several things at once: prediction_0, prediction_1, ... and their probabilities."""
    predicted = last.predict(given)
    found = {f"prediction_{index}": predicted[:, index] for index in range(len(classes))}
    if hasattr(last, "predict_proba"):
        for index, chances in enumerate(last.predict_proba(given)):
            found[f"probabilities_{index}"] = np.asarray(chances)
    return found


def _is_outlier_detector(estimator: Any) -> bool:
    if package(estimator) != "sklearn":
        return False
    try:
        from sklearn.base import is_outlier_detector
    except ImportError:  # before 0.20
        return type(estimator).__name__ in ("EllipticEnvelope", "IsolationForest", "OneClassSVM")
    return bool(is_outlier_detector(estimator))


def _dense(given: Any) -> Any:
    return np.asarray(given.toarray() if hasattr(given, "toarray") else given)

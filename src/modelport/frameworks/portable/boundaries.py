"""Rows made from a model itself: on and beside the values at which it decides, at its categories, and at what is missing.

No sample shows whether another way to compute a model decides as it does where it decides: values that lie on a threshold are rare in data
and common here. What the steps of a pipeline do to a number is undone, as far as it is a scale and an offset.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Sequence

import numpy as np

from . import trees
from .estimators import package, places_meant
from .to_onnx import best, one_hot_positions
from .trees import Forest

ROWS = 2000
_VALUES = 100_000
"""How many values are made at most: fewer rows for wide models."""
_UNKNOWN = "something else"
_TYPICAL = ("mean_", "center_", "theta_", "means_", "cluster_centers_")
_POINTS = ("_fit_X", "support_vectors_", "cluster_centers_", "means_", "theta_")
"""Attributes that hold whole rows as the last step sees them."""
_STEPS_AWAY = (-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0)
_PIECES = ("", " ", "  ", "\n", "!", ", ", "-", "_", ".", "'", "é", "ß", "Ж", "1", "\u0301", "İ", "🙂 ")


class _Track(NamedTuple):
    """A feature that is an input column times `scale` plus `offset`."""

    column: int
    scale: float = 1.0
    offset: float = 0.0


def rows(kind: str, model: Any, columns: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """About 2,000 rows for a model of "sklearn", "xgboost", "lightgbm" or "catboost": a list of plain values for each column.

    `columns` are those that the model takes: {"name", "kind", "choices", "nullable", "minimum", "maximum", "example"}. The same model gives
    the same rows.
    """
    made = _Values(columns)
    tracks: list[_Track | None] = [_Track(place) for place in range(len(columns))]
    if kind == "sklearn":
        made.walk(model, tracks, [column["name"] for column in columns])
    else:
        made.boosted(trees.boosted(kind, model), tracks)
    return made.rows()


class _Values:
    """The values that are worth asking for, by column."""

    def __init__(self, columns: Sequence[Mapping[str, Any]]) -> None:
        self.columns = columns
        self.count = int(max(50, min(ROWS, _VALUES // max(1, len(columns)))))
        self.found: list[list[Any]] = [[] for _ in columns]
        self.points: list[dict[int, float]] = []
        """Rows that belong together, or parts of such."""
        self.words: dict[int, list[str]] = {}

    # Through the steps

    def walk(self, estimator: Any, tracks: Sequence[_Track | None], names: Sequence[str]) -> list[_Track | None]:
        """Take what an estimator tells of the features that reach it; what goes on to the next one."""
        estimator = best(estimator)
        if estimator is None or isinstance(estimator, str):
            return list(tracks)
        kind = type(estimator).__name__
        if kind in ("Pipeline", "FeatureUnion", "ColumnTransformer"):
            return {"Pipeline": self.pipeline, "FeatureUnion": self.union, "ColumnTransformer": self.branches}[kind](
                estimator, tracks, names
            )
        if package(estimator) in ("xgboost", "lightgbm", "catboost"):
            self.boosted(trees.boosted(package(estimator), estimator), tracks)
            return []
        if hasattr(estimator, "get_support"):
            return [tracks[place] for place in estimator.get_support(indices=True)]
        if hasattr(estimator, "predict"):
            self.last(estimator, tracks)
            return []
        return self.step(estimator, tracks)

    def pipeline(self, estimator: Any, tracks: Sequence[_Track | None], names: Sequence[str]) -> list[_Track | None]:
        for _, step in estimator.steps:
            tracks, names = self.walk(step, tracks, names), ()
        return list(tracks)

    def union(self, estimator: Any, tracks: Sequence[_Track | None], names: Sequence[str]) -> list[_Track | None]:
        return [track for _, step in estimator.transformer_list for track in self.walk(step, tracks, names)]

    def branches(self, estimator: Any, tracks: Sequence[_Track | None], names: Sequence[str]) -> list[_Track | None]:
        out: list[_Track | None] = []
        for _, step, spec in estimator.transformers_:
            chosen = [] if isinstance(step, str) and step == "drop" else places_meant(estimator, spec, names, len(tracks))
            if chosen:
                out += self.walk(step, [tracks[place] for place in chosen], [names[place] for place in chosen] if names else ())
        return out

    def step(self, estimator: Any, tracks: Sequence[_Track | None]) -> list[_Track | None]:
        """A step that is no composition of others."""
        name = type(estimator).__name__
        if hasattr(estimator, "categories_"):
            return self.encoder(estimator, tracks)
        if hasattr(estimator, "vocabulary_"):
            self.vocabulary(estimator, tracks)
            return [None] * len(estimator.vocabulary_)
        if hasattr(estimator, "statistics_"):
            return self.imputer(estimator, tracks)
        if name in ("StandardScaler", "RobustScaler", "MaxAbsScaler", "MinMaxScaler"):
            return self.scaler(estimator, tracks)
        if name == "FunctionTransformer":
            return list(tracks)
        return [None] * _width(estimator, len(tracks))

    def encoder(self, estimator: Any, tracks: Sequence[_Track | None]) -> list[_Track | None]:
        width = 0
        for place, (track, categories) in enumerate(zip(tracks, estimator.categories_)):
            if track is not None:
                known = [_plain(one) for one in categories if one is not None and one == one]
                self.found[track.column] += known * 3
            width += one_hot_positions(estimator, place, len(categories))[1] if type(estimator).__name__ == "OneHotEncoder" else 1
        return [None] * width

    def vocabulary(self, estimator: Any, tracks: Sequence[_Track | None]) -> None:
        for track in tracks[:1]:
            if track is not None:
                self.words[track.column] = sorted(estimator.vocabulary_)

    def imputer(self, estimator: Any, tracks: Sequence[_Track | None]) -> list[_Track | None]:
        kept: list[_Track | None] = []
        for track, value in zip(tracks, estimator.statistics_):
            if value is None or value != value:
                continue
            kept.append(track)
            if track is not None:
                self.found[track.column].append(_plain(value))
                if isinstance(estimator.missing_values, (str, int, float)) and estimator.missing_values == estimator.missing_values:
                    self.found[track.column].append(estimator.missing_values)
        indicators = len(estimator.indicator_.features_) if getattr(estimator, "add_indicator", False) else 0
        return kept + [None] * indicators

    def scaler(self, estimator: Any, tracks: Sequence[_Track | None]) -> list[_Track | None]:
        """(x - centre) / scale, or x * scale + minimum."""
        count = len(tracks)
        if type(estimator).__name__ == "MinMaxScaler":
            scale, offset = np.asarray(estimator.scale_), np.asarray(estimator.min_)
        else:
            centre = getattr(estimator, "mean_", getattr(estimator, "center_", None))
            used = getattr(estimator, "with_mean", getattr(estimator, "with_centering", False)) and centre is not None
            width = np.ones(count) if estimator.scale_ is None else np.asarray(estimator.scale_)
            scale, offset = 1.0 / width, (-np.asarray(centre) / width if used else np.zeros(count))
        out: list[_Track | None] = []
        for track, times, plus in zip(tracks, scale.tolist(), offset.tolist()):
            if track is None:
                out.append(None)
                continue
            after = _Track(track.column, track.scale * times, track.offset * times + plus)
            self.features(after, _STEPS_AWAY)
            out.append(after)
        return out

    # The last step

    def last(self, estimator: Any, tracks: Sequence[_Track | None]) -> None:
        name = type(estimator).__name__
        if name in trees.SKLEARN:
            chosen = getattr(estimator, "is_categorical_", None)
            if name.startswith("Hist") and chosen is not None and np.any(chosen) and getattr(estimator, "_preprocessor", None) is not None:
                encoder = estimator._preprocessor.named_transformers_["encoder"]
                places = np.flatnonzero(chosen).tolist()
                coded = self.encoder(encoder, [tracks[place] for place in places])
                tracks = [*coded, *(tracks[place] for place in np.flatnonzero(~np.asarray(chosen)).tolist())]
            self.forest(trees.sklearn_forest(estimator), tracks)
            return
        if name == "IsolationForest":
            self.forest(trees.isolation_forest(estimator)[0], tracks)
            return
        for inner, features in _inner(estimator, len(tracks)):
            self.walk(inner, [tracks[place] for place in features], ())
        self.whole(estimator, tracks)
        self.weights(estimator, tracks)

    def forest(self, forest: Forest, tracks: Sequence[_Track | None]) -> None:
        every = forest.thresholds()
        # each threshold gives some twenty values, and each column takes as many as there are rows
        most = max(8, self.count // 12)
        for feature, values in every.items():
            track = tracks[feature] if feature < len(tracks) else None
            if track is None:
                continue
            step = max(1, -(-len(values) // most))
            self.features(track, _beside(values[::step]), closely=True)

    def boosted(self, model: trees.Boosted, tracks: Sequence[_Track | None]) -> None:
        for place, codes in model.categories.items():
            track = tracks[place]
            if track is not None:
                self.found[track.column] += [_plain(one) for one in codes] * 3
        self.forest(model.forest, [None if place in model.categories else track for place, track in enumerate(tracks)])
        if not np.isnan(model.missing):
            for track in tracks:
                if track is not None:
                    self.features(track, [model.missing] * 5)

    def whole(self, estimator: Any, tracks: Sequence[_Track | None]) -> None:
        """Rows that the estimator keeps, the middles between two of them, and rows near by."""
        for attribute in _POINTS:
            kept = getattr(estimator, attribute, None)
            if not isinstance(kept, np.ndarray) or kept.dtype.kind != "f" or kept.shape[1:] != (len(tracks),) or not len(kept):
                continue
            chosen = kept[:: max(1, len(kept) // (self.count // 4))]
            spread = kept.std(axis=0)
            random = np.random.RandomState(1)
            parts = [chosen, (chosen[1:] + chosen[:-1]) / 2, (chosen[2:] + chosen[:-2]) / 2]
            parts.append(chosen + random.normal(size=chosen.shape) * spread * 0.5)
            parts.append(kept.mean(axis=0) + random.normal(size=(max(20, self.count // 8), len(tracks))) * (spread + (spread == 0)) * 2)
            for row in np.concatenate(parts):
                self.points.append({track.column: _before(track, value) for track, value in zip(tracks, row.tolist()) if track is not None})

    def weights(self, estimator: Any, tracks: Sequence[_Track | None]) -> None:
        """For linear models, values that move the sum by about 1; for those that know a typical value, that and some around."""
        weights = getattr(estimator, "coef_", None)
        if isinstance(weights, np.ndarray) and weights.dtype.kind == "f" and weights.shape[-1:] == (len(tracks),):
            sizes = np.abs(np.atleast_2d(weights)).max(axis=0)
            for track, size in zip(tracks, sizes.tolist()):
                if track is not None and size > 0:
                    self.features(track, [away / size for away in _STEPS_AWAY])
        for attribute in _TYPICAL:
            values = getattr(estimator, attribute, None)
            if isinstance(values, np.ndarray) and values.dtype.kind == "f" and values.shape[-1:] == (len(tracks),):
                for row in np.atleast_2d(values)[:20].tolist():
                    for track, value in zip(tracks, row):
                        if track is not None:
                            self.features(track, [value])

    def features(self, track: _Track, values: Any, closely: bool = False) -> None:
        """Note the values of an input column that give a feature these values; with the next ones on either side, `closely`."""
        for value in np.asarray(values, dtype=np.float64).tolist():
            before = _before(track, value)
            if np.isfinite(before):
                self.found[track.column].append(before)
                if closely and (track.scale != 1.0 or track.offset != 0.0):
                    self.found[track.column] += [float(np.nextafter(before, -np.inf)), float(np.nextafter(before, np.inf))]

    # Rows

    def rows(self) -> dict[str, list[Any]]:
        """The rows: values of all columns mixed; then one to three columns changed in a common row; and the rows that belong together."""
        random = np.random.RandomState(0)
        choices = [self.choices(place, random) for place in range(len(self.columns))]
        half = self.count // 2
        changed: list[list[int]] = [[] for _ in choices]
        for row in range(half, self.count):
            for place in random.choice(len(choices), size=min(len(choices), 1 + row % 3), replace=False):
                changed[place].append(row)
        table = []
        for values, rows_changed in zip(choices, changed):
            order = np.concatenate([random.permutation(len(values)) for _ in range(-(-self.count // len(values)))])
            mixed = [values[at] for at in order[: self.count]]
            column = mixed[:half] + [values[len(values) // 2]] * (self.count - half)
            for row in rows_changed:
                column[row] = mixed[row]
            table.append(column)
        step = max(1, -(-len(self.points) // half))
        for row, point in enumerate(self.points[::step]):
            for place, value in point.items():
                table[place][row] = next(iter(self.fitted(place, value)), table[place][row])
        return {column["name"]: values for column, values in zip(self.columns, table)}

    def choices(self, place: int, random: Any) -> list[Any]:
        """The values to choose from for a column, sorted where they can be, and null among them where it may be."""
        column = self.columns[place]
        if column["kind"] == "text" or place in self.words:
            values: list[Any] = self.texts(place, random)
        else:
            found = self.found[place] or self.made(place)
            values = [one for value in found for one in self.fitted(place, value)]
            values = values or [one for value in self.made(place) for one in self.fitted(place, value)]
            if column["kind"] in ("number", "integer"):
                values = _thinned(sorted(set(values)), self.count)
            elif column["kind"] == "string":
                values += [_UNKNOWN] * max(1, len(values) // 20)
        if column.get("nullable"):
            values += [None] * max(1, len(values) // 15)
        return values

    def made(self, place: int) -> list[Any]:
        """Values for a column of which the model tells nothing."""
        column = self.columns[place]
        example = column.get("example")
        if column.get("choices"):
            return list(column["choices"])
        if column["kind"] in ("string", "text"):
            return [example if isinstance(example, str) else "text", _UNKNOWN]
        if column["kind"] == "boolean":
            return [True, False]
        middle = float(example) if isinstance(example, (int, float)) else 0.0
        size = abs(middle) or 1.0
        return [middle + size * away for away in (*_STEPS_AWAY, 0.1, -0.1, 0.01)] + [0.0, 1.0, -1.0]

    def fitted(self, place: int, value: Any) -> list[Any]:
        """A value, or the nearest ones, as the kind of the column has it."""
        column = self.columns[place]
        kind = column["kind"]
        if kind == "category":
            alike = [one for one in column["choices"] if one == value and isinstance(one, bool) == isinstance(value, bool)]
            return alike or list(column["choices"])[:1]
        if kind == "string":
            return [value] if isinstance(value, str) else []
        if isinstance(value, str) or value is None:
            return []
        if kind == "boolean":
            return [value] if isinstance(value, bool) else [True, False]
        number = float(value)
        if not np.isfinite(number):
            return []
        low, high = column.get("minimum"), column.get("maximum")
        near = [number] if kind == "number" else [int(np.floor(number)), int(np.ceil(number))] if abs(number) < 2.0**62 else []
        return [one for one in near if (low is None or one >= low) and (high is None or one <= high)]

    def texts(self, place: int, random: Any) -> list[Any]:
        """Texts of the model's own words and others, with all that may stand between and beside words."""
        words = self.words.get(place) or ["some", "text"]
        texts = ["", " ", "a", *words[:200]]
        for number in range(self.count):
            count = int(random.randint(1, 13))
            chosen = [words[at] for at in random.randint(len(words), size=count)]
            if number % 2:
                chosen = [_changed(word, int(random.randint(12)), _PIECES[int(random.randint(len(_PIECES)))]) for word in chosen]
            texts.append(("" if number % 5 == 4 else " ").join(chosen) if number % 3 else " ".join(chosen))
        return texts


def _changed(word: str, how: int, piece: str) -> str:
    changes = (word.upper(), word.capitalize(), piece + word, word + piece, word[:1], "of", word + piece + word)
    return changes[how] if how < len(changes) else word


def _thinned(values: list[Any], most: int) -> list[Any]:
    step = -(-len(values) // most) if values else 1
    return values[::step] if step > 1 else values


def _before(track: _Track, value: float) -> float:
    """The value of the input column that gives the feature a value."""
    return (value - track.offset) / track.scale if track.scale else value


def _beside(values: Any) -> Any:
    """Values, the next ones in double precision and in single precision on either side, and where single precision rounds up or down."""
    values = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
        below, above = np.nextafter(single, np.float32(-np.inf)), np.nextafter(single, np.float32(np.inf))
    parts = [values, np.nextafter(values, -np.inf), np.nextafter(values, np.inf)]
    parts += [one.astype(np.float64) for one in (single, below, above)]
    parts += [(single.astype(np.float64) + below) / 2, (single.astype(np.float64) + above) / 2]
    return np.concatenate(parts)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _width(estimator: Any, count: int) -> int:
    """How many features a step gives."""
    try:
        return int(estimator.transform(np.zeros((1, count))).shape[1])
    except (TypeError, ValueError, IndexError):
        return 0


def _inner(estimator: Any, count: int) -> list[tuple[Any, Sequence[int]]]:
    """The fitted estimators inside another one that see its features, and which of them."""
    every = range(count)
    held = getattr(estimator, "estimators_", None)
    if held is None:
        single = [getattr(estimator, one, None) for one in ("regressor_", "estimator_")]
        return [(one, every) for one in single if hasattr(one, "get_params")]
    if isinstance(held, np.ndarray):
        held = held.ravel().tolist()
    features = getattr(estimator, "estimators_features_", None)
    return [
        (one, every if features is None else [int(at) for at in features[number]])
        for number, one in enumerate(held)
        if hasattr(one, "get_params")
    ]

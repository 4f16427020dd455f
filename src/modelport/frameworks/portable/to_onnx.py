"""A model as an ONNX graph whose outputs are those that Modelport describes the model with, under the same names.

Columns flow through the steps of a pipeline as `Table`s: which column of which tensor. What transforms and predicts is known here by name,
and written as the library computes it, in the precision that is asked for; a few estimators are written by skl2onnx, where it is installed.
What is not known is refused, and nothing is guessed: NotConverted says in one line what it was.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

import numpy as np

from . import trees
from .estimators import package, places_meant
from .graphs import BOOL, DOUBLE, FLOAT, INT64, ML, ML_OPSET, OPSET, STRING, Graph, NeedsConverter, NotConverted
from .pieces import (
    NULL,
    Table,
    as_numbers,
    both_classes,
    codes_of,
    divided,
    flat,
    inputs_of,
    is_above,
    is_alike,
    labels_at,
    linked,
    one_column,
    place_of_most,
    places_of,
    some_columns,
    sums_of,
    whole,
)
from .trees import Boosted


def convert(kind: str, model: Any, columns: Sequence[Mapping[str, Any]], precision: str) -> bytes:
    """The graph of a model of "sklearn", "xgboost", "lightgbm" or "catboost", as the bytes of an ONNX file.

    `columns` are those that the model takes, in its order and under its names: {"name", "kind", "choices"}. The graph takes one matrix
    `rows` where all are numbers, else a tensor (rows, 1) for each. With the `precision` "float32" it takes and computes single precision;
    with "float64" double, with the casts where the library itself casts. NotConverted says what has no ONNX form.
    """
    graph = Graph(DOUBLE if precision == "float64" else FLOAT)
    lowered: list[str] = []
    table = inputs_of(graph, columns)
    if kind == "sklearn":
        answers = _Sklearn(graph, lowered).answers(model, table)
    else:
        answers = _boosted_answers(graph, trees.boosted(kind, model), table)
    for name, tensor in answers.items():
        graph.output(name, tensor)
    return graph.to_bytes({"inputs": [column["name"] for column in columns], "null": NULL, "lower": lowered})


# Boosted trees of other libraries


def _boosted_answers(graph: Graph, model: Boosted, table: Table) -> dict[str, str]:
    """The answers of a model of XGBoost, LightGBM or CatBoost."""
    rows = _boosted_rows(graph, model, table)
    sums = divided(graph, sums_of(graph, model.forest, rows), model.forest.divide)
    values = linked(graph, sums, model.link)
    if model.task in ("number", "rank"):
        return {"score" if model.task == "rank" else "prediction": values}
    if model.task == "labels":
        chosen = graph.add("Greater", values, graph.constant(np.asarray(0.5), graph.types[values]), kind=BOOL)
        return {"prediction": graph.cast(chosen, INT64), "probabilities": values}
    classes = None if model.labels is None else np.asarray(model.labels)
    if model.task == "multiclass":
        return {"prediction": labels_at(graph, place_of_most(graph, values), classes), "probabilities": values}
    answers = {"prediction": labels_at(graph, is_above(graph, values, model.cut), classes)}
    if model.chances:
        answers["probabilities"] = both_classes(graph, values)
    return answers


def _boosted_rows(graph: Graph, model: Boosted, table: Table) -> str:
    """The matrix that the trees look at: categories as their codes, and what counts as missing as NaN."""
    coded = list(table.columns)
    for place, codes in model.categories.items():
        coded[place] = (codes_of(graph, table, place, list(codes), list(codes.values()), float("nan")), 0)
    rows = as_numbers(graph, Table(tuple(coded)))
    fill = model.missing
    if table.sparse and model.forest.strict:
        fill = 0.0  # XGBoost's: what a sparse matrix does not hold is missing
    if not np.isnan(fill):
        rows = graph.cast(rows, FLOAT)
        alike = graph.add("Equal", rows, graph.constant(np.asarray(fill), FLOAT), kind=BOOL)
        rows = graph.add("Where", alike, graph.constant(np.asarray(np.nan), FLOAT), rows, kind=FLOAT)
    return rows


# scikit-learn


_COLUMNS = 50
"""Distances of more columns than so many are left to skl2onnx: each is some nodes of the graph."""


class _Sklearn:
    """Writes the steps and the last estimator of scikit-learn models into a graph."""

    def __init__(self, graph: Graph, lowered: list[str]) -> None:
        self.graph = graph
        self.lowered = lowered
        """The columns of texts that are to be lower case when they come in."""

    # What a model answers

    def answers(self, model: Any, table: Table) -> dict[str, str]:
        """The answers of an estimator under the names that they are described with."""
        estimator = best(model)
        piped = type(estimator).__name__ == "Pipeline"
        while type(estimator).__name__ == "Pipeline" and package(estimator) == "sklearn":
            steps = [step for _, step in estimator.steps if step is not None and not isinstance(step, str)]
            for step in steps[:-1]:
                table = self.transform(step, table)
            estimator = best(steps[-1])
        if not hasattr(estimator, "predict"):
            return {"prediction": as_numbers(self.graph, self.transform(estimator, table))}
        if isinstance(getattr(estimator, "classes_", None), list):
            return self.several(estimator, table)
        answers = self.predict(estimator, table)
        # a ranker's score is a prediction at the end of a pipeline, where nobody looks what it is
        return {"prediction": answers["score"]} if piped and list(answers) == ["score"] else answers

    def predict(self, estimator: Any, table: Table) -> dict[str, str]:
        """What the last step answers."""
        estimator = best(estimator)
        name = type(estimator).__name__
        if name == "Pipeline" and package(estimator) == "sklearn":
            return self.answers(estimator, table)
        if package(estimator) in ("xgboost", "lightgbm", "catboost"):
            return _wrapped(self.graph, trees.boosted(package(estimator), estimator), estimator, table)
        if package(estimator) != "sklearn":
            raise NotConverted(f"{package(estimator)}'s {name}")
        if name not in _ESTIMATORS:
            raise NotConverted(f"scikit-learn's {name}")
        answers: dict[str, str] = _ESTIMATORS[name](self, estimator, table)
        return answers

    def chances(self, estimator: Any, table: Table) -> str:
        answers = self.predict(estimator, table)
        if "probabilities" not in answers:
            raise NotConverted(f"{type(estimator).__name__} inside another one, without probabilities")
        return answers["probabilities"]

    def several(self, estimator: Any, table: Table) -> dict[str, str]:
        """A classifier of several things at once: prediction_0, ..., and probabilities_0, ..."""
        graph, name = self.graph, type(estimator).__name__
        answers: dict[str, str] = {}
        if name == "MultiOutputClassifier":
            each = [self.predict(one, table) for one in estimator.estimators_]
            answers.update({f"prediction_{index}": one["prediction"] for index, one in enumerate(each)})
            if all("probabilities" in one for one in each) and hasattr(estimator, "predict_proba"):
                answers.update({f"probabilities_{index}": one["probabilities"] for index, one in enumerate(each)})
            return answers
        if name not in trees.SKLEARN:
            raise NotConverted(f"scikit-learn's {name} for several labels a row")
        forest = trees.sklearn_forest(estimator)
        sums = sums_of(graph, forest, as_numbers(graph, table))
        start = 0
        chances = []
        for index, classes in enumerate(estimator.classes_):
            part = some_columns(graph, sums, range(start, start + len(classes)))
            start += len(classes)
            answers[f"prediction_{index}"] = labels_at(graph, place_of_most(graph, part), _common(classes, estimator.classes_))
            chances.append(divided(graph, part, forest.divide))
        answers.update({f"probabilities_{index}": one for index, one in enumerate(chances)})
        return answers

    def forest(self, estimator: Any, table: Table) -> dict[str, str]:
        graph, name = self.graph, type(estimator).__name__
        forest = trees.sklearn_forest(estimator)
        sums = sums_of(graph, forest, as_numbers(graph, self.binned(estimator, table)))
        if name.endswith("Regressor"):
            logarithmic = name.startswith("Hist") and str(estimator.loss) in ("poisson", "gamma")
            return {"prediction": linked(graph, divided(graph, sums, forest.divide), "exponential" if logarithmic else "")}
        classes = np.asarray(estimator.classes_)
        if name in trees.BOOSTED and forest.size == 1:
            if getattr(estimator, "loss", "") == "exponential":
                sums = graph.add("Mul", sums, graph.constant(np.asarray(2.0), graph.types[sums]))
            chances = both_classes(graph, graph.add("Sigmoid", sums))
            return {"prediction": labels_at(graph, is_above(graph, sums, 0.0, "GreaterOrEqual"), classes), "probabilities": chances}
        chances = linked(graph, sums, "softmax") if name in trees.BOOSTED else divided(graph, sums, forest.divide)
        return {"prediction": labels_at(graph, place_of_most(graph, sums), classes), "probabilities": chances}

    def binned(self, estimator: Any, table: Table) -> Table:
        """The columns as histogram gradient boosting orders them: categories first, as codes, then the others."""
        chosen = getattr(estimator, "is_categorical_", None)
        if not type(estimator).__name__.startswith("Hist") or chosen is None or not np.any(chosen):
            return table
        before = getattr(estimator, "_preprocessor", None)
        if before is None:
            raise NotConverted("categories of a HistGradientBoosting of a scikit-learn before 1.4")
        encoder = before.named_transformers_["encoder"]
        places = np.flatnonzero(chosen).tolist()
        known = [_listed(values) for values in encoder.categories_]
        coded = [(codes_of(self.graph, table, place, each, range(len(each)), float("nan")), 0) for place, each in zip(places, known)]
        return Table((*coded, *(table.columns[place] for place in np.flatnonzero(~np.asarray(chosen)))))

    def isolation(self, estimator: Any, table: Table) -> dict[str, str]:
        graph = self.graph
        forest, normal = trees.isolation_forest(estimator)
        depths = graph.cast(sums_of(graph, forest, as_numbers(graph, table)), graph.number)
        power = graph.add("Neg", divided(graph, depths, normal))
        score = graph.add("Neg", graph.add("Pow", graph.constant(np.asarray(2.0)), power))
        score = flat(graph, graph.add("Sub", score, graph.constant(np.asarray(float(estimator.offset_)))))
        return self.inside(score)

    def linear(self, estimator: Any, table: Table, link: str = "") -> str:
        """X @ coef + intercept, (rows, numbers)."""
        graph = self.graph
        weights = np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64)).T
        start = np.broadcast_to(np.asarray(getattr(estimator, "intercept_", 0.0), dtype=np.float64), (weights.shape[1],))
        rows = as_numbers(graph, table)
        out = graph.add("Gemm", rows, graph.constant(weights), graph.constant(start.copy()))
        graph.widths[out] = weights.shape[1]
        return linked(graph, out, link)

    def linear_regressor(self, estimator: Any, table: Table) -> dict[str, str]:
        return {"prediction": self.linear(estimator, table, _LINEAR_REGRESSORS[type(estimator).__name__])}

    def linear_classifier(self, estimator: Any, table: Table) -> dict[str, str]:
        graph = self.graph
        scores = self.linear(estimator, table)
        classes = np.asarray(estimator.classes_)
        if graph.widths[scores] not in (1, len(classes)) or (graph.widths[scores] == 1) != (len(classes) == 2):
            raise NotConverted(f"{type(estimator).__name__} for several labels a row")
        one = graph.widths[scores] == 1
        answers = {"prediction": labels_at(graph, is_above(graph, scores, 0.0) if one else place_of_most(graph, scores), classes)}
        if hasattr(estimator, "predict_proba"):
            answers["probabilities"] = self.linear_chances(estimator, scores, one)
        return answers

    def linear_chances(self, estimator: Any, scores: str, one: bool) -> str:
        """The probabilities of a linear classifier: each class by itself, or all of them together."""
        graph, name = self.graph, type(estimator).__name__
        if name.startswith("SGD") and estimator.loss not in ("log", "log_loss"):
            raise NotConverted(f"the probabilities of an SGDClassifier with the loss {estimator.loss!r}")
        if name == "LinearDiscriminantAnalysis":
            alone = one
        elif name.startswith("Logistic"):
            how = getattr(estimator, "multi_class", "auto")
            alone = how in ("ovr", "warn") or (how in ("auto", "deprecated") and (one or estimator.solver == "liblinear"))
        else:
            alone = True
        if one and not alone:  # the second class has the score, the first its negative
            return both_classes(graph, graph.add("Sigmoid", graph.add("Mul", scores, graph.constant(np.asarray(2.0)))))
        if not alone:
            return graph.add("Softmax", scores, axis=1)
        chances = graph.add("Sigmoid", scores)
        if one:
            return both_classes(graph, chances)
        return graph.add("Div", chances, graph.add("ReduceSum", chances, graph.constant(np.array([1])), keepdims=1))

    # Vectors, neighbours, centres, networks

    def vectors(self, estimator: Any, table: Table) -> dict[str, str]:
        """Support vector machines, which ONNX has operators for, in single precision."""
        graph, name = self.graph, type(estimator).__name__
        if not isinstance(estimator.kernel, str) or estimator.kernel == "precomputed" or getattr(estimator, "break_ties", False):
            raise NotConverted(f"an {name} with a kernel of its own, or break_ties")
        rows = as_numbers(graph, table, FLOAT)
        vectors, weights = (
            np.asarray(one.toarray() if hasattr(one, "toarray") else one) for one in (estimator.support_vectors_, estimator.dual_coef_)
        )
        known: dict[str, Any] = {
            "kernel_type": estimator.kernel.upper(),
            "kernel_params": [float(estimator._gamma), float(estimator.coef0), float(estimator.degree)],
        }
        if name in ("SVR", "NuSVR", "OneClassSVM"):
            known.update(support_vectors=vectors.ravel(), coefficients=weights.ravel(), rho=np.asarray(estimator.intercept_))
            out = graph.add("SVMRegressor", rows, kind=FLOAT, domain=ML, n_supports=len(vectors), **known)
            graph.widths[out] = 1
            return {"prediction": out} if name != "OneClassSVM" else self.inside(flat(graph, out))
        sign = -1.0 if len(estimator.classes_) == 2 else 1.0
        known.update(support_vectors=vectors.ravel(), coefficients=sign * weights.ravel(), rho=sign * np.asarray(estimator.intercept_))
        if hasattr(estimator, "predict_proba"):
            known.update(prob_a=np.asarray(estimator.probA_), prob_b=np.asarray(estimator.probB_))
        known.update(vectors_per_class=np.asarray(estimator.n_support_), classlabels_ints=np.arange(len(estimator.classes_)))
        index, chances = graph.add_several("SVMClassifier", [rows], (INT64, FLOAT), ML, **known)
        graph.flat.add(index)
        graph.widths[chances] = len(estimator.classes_)
        answers = {"prediction": labels_at(graph, index, np.asarray(estimator.classes_))}
        return {**answers, "probabilities": chances} if hasattr(estimator, "predict_proba") else answers

    def inside(self, score: str) -> dict[str, str]:
        """Whether rows are inside, 1, or outside, -1, by their score, (rows,)."""
        graph = self.graph
        inside = graph.cast(graph.add("GreaterOrEqual", score, graph.constant(np.asarray(0.0), graph.types[score]), kind=BOOL), INT64)
        graph.flat.add(inside)
        return {"prediction": labels_at(graph, inside, np.array([-1, 1])), "score": score}

    def distances(self, table: Table, points: Any) -> str:
        """The squared distances of the rows to points, (rows, points), added up column by column, as the library does it in its trees."""
        graph = self.graph
        rows = as_numbers(graph, table)
        total = ""
        for place in range(points.shape[1]):
            column = some_columns(graph, rows, [place])
            apart = graph.add("Sub", column, graph.constant(np.asarray(points[:, place], dtype=np.float64).reshape(1, -1)))
            square = graph.add("Mul", apart, apart)
            total = graph.add("Add", total, square) if total else square
        return total

    def neighbours(self, estimator: Any, table: Table) -> dict[str, str]:
        """The nearest rows that the estimator keeps: their most frequent class, or their mean."""
        graph = self.graph
        metric = getattr(estimator, "effective_metric_", estimator.metric)
        power = (getattr(estimator, "effective_metric_params_", None) or {}).get("p", getattr(estimator, "p", 2))
        kept = estimator._fit_X
        plain = metric == "euclidean" or (metric == "minkowski" and power == 2)
        if not plain or hasattr(kept, "toarray") or kept.shape[1] > _COLUMNS or estimator.weights not in ("uniform", "distance"):
            return self.delegated(estimator, table)
        squares = self.distances(table, kept)
        nearest, places = graph.add_several(
            "TopK", [squares, graph.constant(np.array([int(estimator.n_neighbors)]))], (graph.number, INT64), axis=1, largest=0, sorted=1
        )
        target = np.asarray(estimator._y)
        classes = getattr(estimator, "classes_", None)
        values = target.reshape(len(target), -1).astype(np.float64) if classes is None else np.eye(len(classes))[target.ravel()]
        found = graph.add("Gather", graph.constant(values), places, axis=0)
        weights = self.nearness(nearest) if estimator.weights == "distance" else ""
        if weights:
            wide = graph.add("Unsqueeze", weights, graph.constant(np.array([2])))
            found = graph.add("Mul", found, wide)
        total = graph.add("ReduceSum", found, graph.constant(np.array([1])), keepdims=0)
        graph.widths[total] = values.shape[1]
        if classes is not None:
            chances = graph.add("Div", total, graph.add("ReduceSum", total, graph.constant(np.array([1])), keepdims=1))
            graph.widths[chances] = len(classes)
            return {"prediction": labels_at(graph, place_of_most(graph, total), np.asarray(classes)), "probabilities": chances}
        if weights:
            return {"prediction": graph.add("Div", total, graph.add("ReduceSum", weights, graph.constant(np.array([1])), keepdims=1))}
        return {"prediction": divided(graph, total, float(estimator.n_neighbors))}

    def nearness(self, squares: str) -> str:
        """1 / distance; where one is 0, only those that are."""
        graph = self.graph
        apart = graph.add("Sqrt", squares)
        here = graph.add("Equal", apart, graph.constant(np.asarray(0.0)), kind=BOOL)
        touching = graph.cast(here, graph.number)
        any_here = graph.cast(graph.add("ReduceMax", touching, axes=[1], keepdims=1), BOOL)
        return graph.add("Where", any_here, touching, graph.add("Reciprocal", apart), kind=graph.number)

    def clusters(self, estimator: Any, table: Table) -> dict[str, str]:
        """The nearest centre: as the library does it, by its squared length less twice the product with it."""
        graph = self.graph
        centres = np.asarray(estimator.cluster_centers_, dtype=np.float64)
        lengths = graph.constant((centres**2).sum(axis=1))
        products = graph.add("Gemm", as_numbers(graph, table), graph.constant(centres.T.copy()), lengths, alpha=-2.0)
        return {"prediction": place_of_most(graph, graph.add("Neg", products))}

    def network(self, estimator: Any, table: Table) -> dict[str, str]:
        """A multi-layer perceptron."""
        graph = self.graph
        rows = as_numbers(graph, table)
        activations = {"identity": "", "logistic": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "softmax": "softmax"}
        last = len(estimator.coefs_) - 1
        for layer, (weights, start) in enumerate(zip(estimator.coefs_, estimator.intercepts_)):
            rows = graph.add("Gemm", rows, graph.constant(np.asarray(weights, np.float64)), graph.constant(np.asarray(start, np.float64)))
            function = activations[estimator.out_activation_ if layer == last else estimator.activation]
            if function:
                rows = graph.add("Softmax", rows, axis=1) if function == "softmax" else graph.add(function, rows)
        classes = getattr(estimator, "classes_", None)
        if classes is None:
            return {"prediction": rows}
        if estimator.out_activation_ == "softmax":
            return {"prediction": labels_at(graph, place_of_most(graph, rows), np.asarray(classes)), "probabilities": rows}
        if len(classes) != 2 or estimator.n_outputs_ != 1:
            raise NotConverted(f"{type(estimator).__name__} for several labels a row")
        return {"prediction": labels_at(graph, is_above(graph, rows, 0.5), np.asarray(classes)), "probabilities": both_classes(graph, rows)}

    # Estimators made of others

    def voting(self, estimator: Any, table: Table) -> dict[str, str]:
        graph = self.graph
        weights = estimator._weights_not_none
        weights = [1.0] * len(estimator.estimators_) if weights is None else [float(one) for one in weights]
        regressor = type(estimator).__name__ == "VotingRegressor"
        if not regressor and estimator.voting != "soft":
            raise NotConverted("a VotingClassifier with voting='hard'")
        each = [
            graph.cast(self.column(one, table) if regressor else self.chances(one, table), graph.number) for one in estimator.estimators_
        ]
        parts = [one if weight == 1.0 else graph.add("Mul", one, graph.constant(np.asarray(weight))) for one, weight in zip(each, weights)]
        mean = divided(graph, graph.add("Sum", *parts), float(np.sum(weights)))
        if regressor:
            return {"prediction": mean}
        return {"prediction": labels_at(graph, place_of_most(graph, mean), np.asarray(estimator.classes_)), "probabilities": mean}

    def column(self, estimator: Any, table: Table) -> str:
        """The one number that a regressor answers, (rows, 1)."""
        return self.graph.add("Reshape", self.predict(estimator, table)["prediction"], self.graph.constant(np.array([-1, 1])))

    def stacking(self, estimator: Any, table: Table) -> dict[str, str]:
        graph = self.graph
        parts: list[tuple[str, int]] = []
        for one, how in zip(estimator.estimators_, estimator.stack_method_):
            if how == "predict":
                out, width, first = self.column(one, table), 1, 0
            elif how == "predict_proba":
                out, width = graph.cast(self.chances(one, table), graph.number), len(estimator.classes_)
                first = 1 if width == 2 else 0
            else:
                raise NotConverted(f"a {type(estimator).__name__} of decision functions")
            graph.widths[out] = width
            parts += [(out, place) for place in range(first, width)]
        if estimator.passthrough:
            parts += table.columns
        answers = self.predict(estimator.final_estimator_, Table(tuple(parts)))
        inner = getattr(estimator.final_estimator_, "classes_", None)
        if inner is None or np.array_equal(inner, estimator.classes_):
            return answers
        # the last one learnt the places of the labels
        answers["prediction"] = labels_at(graph, answers["prediction"], np.asarray(estimator.classes_))
        return answers

    def transformed_target(self, estimator: Any, table: Table) -> dict[str, str]:
        """A regressor of a changed target: what it answers, changed back."""
        graph = self.graph
        out = graph.cast(self.predict(estimator.regressor_, table)["prediction"], graph.number)
        back = estimator.transformer_
        name = type(back).__name__
        if name == "FunctionTransformer":
            function = getattr(back.inverse_func, "__name__", None) if back.inverse_func is not None else ""
            known = back.inverse_func is None or getattr(np, str(function), None) is back.inverse_func
            if not known or function not in ("", "exp", "expm1", "square"):
                raise NotConverted(f"a TransformedTargetRegressor whose inverse_func is {function or 'not known'}")
            if function in ("exp", "expm1"):
                out = graph.add("Exp", out)
            if function == "expm1":
                out = graph.add("Sub", out, graph.constant(np.asarray(1.0)))
            if function == "square":
                out = graph.add("Mul", out, out)
        elif name == "StandardScaler":
            if back.with_std:
                out = graph.add("Mul", out, graph.constant(back.scale_.reshape(-1)))
            if back.with_mean:
                out = graph.add("Add", out, graph.constant(back.mean_.reshape(-1)))
        elif name == "MinMaxScaler":
            out = graph.add("Div", graph.add("Sub", out, graph.constant(back.min_.reshape(-1))), graph.constant(back.scale_.reshape(-1)))
        else:
            raise NotConverted(f"a TransformedTargetRegressor with a {name}")
        return {"prediction": out}

    def inner(self, estimator: Any, table: Table) -> dict[str, str]:
        return self.predict(estimator.estimator_, table)

    def bagging(self, estimator: Any, table: Table) -> dict[str, str]:
        """The mean of what estimators answer that each see some of the columns."""
        graph = self.graph
        classifies = hasattr(estimator, "classes_")
        parts = []
        for one, places in zip(estimator.estimators_, estimator.estimators_features_):
            some = table.some([int(place) for place in places])
            if classifies and len(one.classes_) != len(estimator.classes_):
                raise NotConverted(f"a {type(estimator).__name__} of estimators that know some of the classes only")
            parts.append(graph.cast(self.chances(one, some) if classifies else self.column(one, some), graph.number))
        mean = divided(graph, graph.add("Sum", *parts), float(len(parts)))
        if not classifies:
            return {"prediction": mean}
        return {"prediction": labels_at(graph, place_of_most(graph, mean), np.asarray(estimator.classes_)), "probabilities": mean}

    def several_numbers(self, estimator: Any, table: Table) -> dict[str, str]:
        parts = [self.graph.cast(self.column(one, table), self.graph.number) for one in estimator.estimators_]
        return {"prediction": self.graph.add("Concat", *parts, axis=1)}

    # What skl2onnx writes

    def delegated(self, estimator: Any, table: Table) -> dict[str, str]:
        graph, name = self.graph, type(estimator).__name__
        outputs = self.by_skl2onnx(estimator, as_numbers(graph, table, None if name in _IN_DOUBLE else FLOAT))
        if name in ("LocalOutlierFactor", "SGDOneClassSVM"):
            return {"prediction": flat(graph, outputs[0]), "score": flat(graph, outputs[1])}
        classes = getattr(estimator, "classes_", None)
        label = outputs[0]
        if classes is not None:
            label = flat(graph, label)
            kind = np.asarray(classes).dtype.kind
            if kind in "bf":  # skl2onnx gives integers for them
                label = graph.cast(label, BOOL if kind == "b" else DOUBLE)
                graph.flat.add(label)
        elif len(outputs) > 1:
            label = flat(graph, label)
        answers = {"prediction": label}
        if hasattr(estimator, "predict_proba"):
            answers["probabilities"] = outputs[1]
        return answers

    def by_skl2onnx(self, estimator: Any, rows: str, options: Mapping[str, Any] | None = None) -> list[str]:
        """The outputs of the nodes that skl2onnx writes for an estimator on the tensor `rows`."""
        name = type(estimator).__name__
        try:
            from onnx.compose import add_prefix
            from skl2onnx import convert_sklearn
            from skl2onnx.common import data_types
        except ImportError as error:
            raise NeedsConverter(f"{name} without skl2onnx, which is not installed ({error})") from None
        graph = self.graph
        kinds = {FLOAT: data_types.FloatTensorType, DOUBLE: data_types.DoubleTensorType, STRING: data_types.StringTensorType}
        said = dict(options or {})
        if hasattr(estimator, "classes_") and hasattr(estimator, "predict"):
            said["zipmap"] = False
        try:
            made = convert_sklearn(
                estimator,
                initial_types=[("rows", kinds[graph.types[rows]]([None, graph.widths[rows]]))],
                options={id(estimator): said} if said else None,
                target_opset={"": OPSET, ML: ML_OPSET},
            )
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[0]
            raise NotConverted(f"{name}: skl2onnx says {type(error).__name__}: {first[:200]}") from error
        prefix = graph.name() + "_"
        made = add_prefix(made, prefix)
        held = made.graph
        for node in held.node:
            node.input[:] = [rows if one == prefix + "rows" else one for one in node.input]
        domains = {one.domain: one.version for one in made.opset_import if one.domain not in ("", ML)}
        graph.include([one.SerializeToString() for one in held.node], [one.SerializeToString() for one in held.initializer], domains)
        for one in held.output:
            graph.types[one.name] = one.type.tensor_type.elem_type
            if len(one.type.tensor_type.shape.dim) == 1:
                graph.flat.add(one.name)
        return [one.name for one in held.output]

    # Steps before the last

    def transform(self, estimator: Any, table: Table) -> Table:
        """The columns behind a step."""
        estimator = best(estimator)
        name = type(estimator).__name__
        if estimator is None or estimator == "passthrough":
            return table
        if package(estimator) != "sklearn":
            raise NotConverted(f"{package(estimator)}'s {name}")
        if hasattr(estimator, "get_support"):
            return table.some(estimator.get_support(indices=True).tolist())
        if name in _STEPS:
            behind: Table = _STEPS[name](self, estimator, table)
            return behind
        if name in _DELEGATED_STEPS:
            rows = as_numbers(self.graph, table)
            out = self.graph.cast(self.by_skl2onnx(estimator, rows)[0], self.graph.number)
            return whole(self.graph, out, self.width(estimator, table))
        raise NotConverted(f"scikit-learn's {name}")

    def width(self, estimator: Any, table: Table) -> int:
        """How many columns a step gives: asked of it with a row of zeros."""
        return int(estimator.transform(np.zeros((1, len(table.columns)))).shape[1])

    def pipeline(self, estimator: Any, table: Table) -> Table:
        for _, step in estimator.steps:
            table = self.transform(step, table)
        return table

    def union(self, estimator: Any, table: Table) -> Table:
        weights = estimator.transformer_weights or {}
        parts = [
            self.weighed(self.transform(step, table), weights.get(name)) for name, step in estimator.transformer_list if step != "drop"
        ]
        return Table(tuple(column for part in parts for column in part.columns), sparse=any(part.sparse for part in parts))

    def weighed(self, table: Table, weight: float | None) -> Table:
        if weight is None:
            return table
        out = self.graph.add("Mul", as_numbers(self.graph, table), self.graph.constant(np.asarray(float(weight))))
        return whole(self.graph, out, len(table.columns), table.sparse)

    def branches(self, estimator: Any, table: Table) -> Table:
        weights = estimator.transformer_weights or {}
        columns: list[tuple[str, int]] = []
        for name, step, spec in estimator.transformers_:
            if isinstance(step, str) and step == "drop":
                continue
            try:
                chosen = places_meant(estimator, spec, table.names, len(table.columns))
            except ValueError as error:
                raise NotConverted(f"a ColumnTransformer of a column that the signature lacks ({error})") from None
            if chosen:
                columns += self.weighed(self.transform(step, table.some(chosen)), weights.get(name)).columns
        return Table(tuple(columns), sparse=bool(getattr(estimator, "sparse_output_", False)))

    def function(self, estimator: Any, table: Table) -> Table:
        if estimator.func is not None:
            raise NotConverted(f"a FunctionTransformer of {getattr(estimator.func, '__name__', 'a function')}")
        return table

    def scaler(self, estimator: Any, table: Table) -> Table:
        """StandardScaler, RobustScaler, MaxAbsScaler: (x - centre) / scale."""
        graph = self.graph
        rows = as_numbers(graph, table)
        centred = getattr(estimator, "with_mean", getattr(estimator, "with_centering", False))
        centre = getattr(estimator, "mean_", getattr(estimator, "center_", None))
        if centred and centre is not None:
            rows = graph.add("Sub", rows, graph.constant(np.asarray(centre, dtype=np.float64)))
        if getattr(estimator, "with_std", getattr(estimator, "with_scaling", True)) and estimator.scale_ is not None:
            rows = graph.add("Div", rows, graph.constant(np.asarray(estimator.scale_, dtype=np.float64)))
        return whole(graph, rows, len(table.columns), table.sparse)

    def min_max(self, estimator: Any, table: Table) -> Table:
        graph = self.graph
        rows = graph.add("Mul", as_numbers(graph, table), graph.constant(np.asarray(estimator.scale_)))
        rows = graph.add("Add", rows, graph.constant(np.asarray(estimator.min_)))
        if getattr(estimator, "clip", False):
            low, high = (graph.constant(np.asarray(float(end))) for end in estimator.feature_range)
            rows = graph.add("Clip", rows, low, high)
        return whole(graph, rows, len(table.columns))

    def imputer(self, estimator: Any, table: Table) -> Table:
        """SimpleImputer, of numbers and of strings."""
        graph = self.graph
        statistics = estimator.statistics_
        kept, columns = [], []
        for place, value in enumerate(statistics):
            if value is not None and value == value:
                kept.append(place)
            elif estimator.strategy == "constant":
                raise NotConverted("a SimpleImputer that fills with a missing value")
        strings = [graph.types[tensor] == STRING for tensor, _ in table.columns]
        if any(strings):
            for place in kept:
                alone = table.some([place])
                columns.append((self.filled_string(estimator, alone, statistics[place]), 0) if strings[place] else
                               (self.filled(estimator, alone, statistics[place : place + 1]), 0))  # fmt: skip
            if estimator.add_indicator:
                raise NotConverted("a SimpleImputer of strings with add_indicator")
            return Table(tuple(columns))
        rows = as_numbers(graph, table.some(kept))
        out = whole(graph, self.filled(estimator, table.some(kept), [statistics[place] for place in kept], rows), len(kept), table.sparse)
        if not estimator.add_indicator or not len(estimator.indicator_.features_):
            return out
        marked = table.some(estimator.indicator_.features_.tolist())
        flags = graph.cast(self.missing(estimator, as_numbers(graph, marked)), graph.number)
        return Table(out.columns + whole(graph, flags, len(marked.columns)).columns, sparse=table.sparse)

    def filled(self, estimator: Any, table: Table, statistics: Any, rows: str | None = None) -> str:
        graph = self.graph
        rows = as_numbers(graph, table) if rows is None else rows
        try:
            fills = np.asarray(statistics, dtype=np.float64).reshape(1, -1)
        except (TypeError, ValueError):
            raise NotConverted("a SimpleImputer that fills numbers with strings") from None
        out = graph.add("Where", self.missing(estimator, rows), graph.constant(fills), rows, kind=graph.number)
        graph.widths[out] = fills.shape[1]
        return out

    def missing(self, estimator: Any, rows: str) -> str:
        """Where numbers are what the imputer takes for missing."""
        what = estimator.missing_values
        if (isinstance(what, float) and np.isnan(what)) or what == "NaN":
            return self.graph.add("IsNaN", rows, kind=BOOL)
        if isinstance(what, (int, float, np.number)) and not isinstance(what, bool):
            return self.graph.add("Equal", rows, self.graph.constant(np.asarray(float(what))), kind=BOOL)
        raise NotConverted(f"a SimpleImputer of numbers for {what!r}")

    def filled_string(self, estimator: Any, table: Table, value: Any) -> str:
        graph = self.graph
        what = estimator.missing_values
        if not isinstance(value, str):
            raise NotConverted(f"a SimpleImputer that fills strings with {value!r}")
        if not (isinstance(what, str) or (isinstance(what, float) and np.isnan(what))):
            raise NotConverted(f"a SimpleImputer of strings for {what!r}")
        column = one_column(graph, table, 0)
        found = graph.add(
            "LabelEncoder", column, kind=INT64, domain=ML,
            keys_strings=[what if isinstance(what, str) else NULL], values_int64s=[1], default_int64=0,
        )  # fmt: skip
        out = graph.add("Where", graph.cast(found, BOOL), graph.constant(np.array([[value]], dtype=object)), column, kind=STRING)
        graph.widths[out] = 1
        return out

    def one_hot(self, estimator: Any, table: Table) -> Table:
        graph = self.graph
        columns: list[tuple[str, int]] = []
        for place, categories in enumerate(map(_listed, estimator.categories_)):
            positions, count, unknown = one_hot_positions(estimator, place, len(categories))
            if not count:
                continue
            column = one_column(graph, table, place)
            plain = positions == list(range(count)) and unknown < 0
            if plain and graph.types[column] != STRING:
                hot = is_alike(graph, column, categories)
            else:
                at = places_of(graph, table, place, categories, positions, unknown)
                hot = graph.add("Equal", at, graph.constant(np.arange(count).reshape(1, -1)), kind=BOOL)
            columns += whole(graph, graph.cast(hot, graph.number), count).columns
        return Table(tuple(columns), sparse=bool(getattr(estimator, "sparse_output", getattr(estimator, "sparse", False))))

    def ordinal(self, estimator: Any, table: Table) -> Table:
        """OrdinalEncoder: categories by their places, what is missing and what is unknown by numbers of their own."""
        columns = []
        unknown = getattr(estimator, "unknown_value", None)
        missing = getattr(estimator, "encoded_missing_value", float("nan"))
        for place, categories in enumerate(map(_listed, estimator.categories_)):
            codes: list[float] = list(range(len(categories)))
            if getattr(estimator, "_infrequent_enabled", False):
                mapped = estimator._default_to_infrequent_mappings[place]
                codes = codes if mapped is None else [float(one) for one in mapped]
            codes = [missing if isinstance(one, float) and np.isnan(one) else code for one, code in zip(categories, codes)]
            columns.append((codes_of(self.graph, table, place, categories, codes, float("nan") if unknown is None else float(unknown)), 0))
        return Table(tuple(columns))

    def target_encoder(self, estimator: Any, table: Table) -> Table:
        """TargetEncoder: for each category a mean of the target; for several classes a mean for each of them."""
        columns = []
        means = np.atleast_1d(np.asarray(estimator.target_mean_, dtype=np.float64))
        count = len(estimator.categories_)
        for at, encoding in enumerate(estimator.encodings_):
            place = at // len(means) if len(estimator.encodings_) != count else at
            mean = means[at % len(means)] if len(estimator.encodings_) != count else means[0]
            columns.append((codes_of(self.graph, table, place, _listed(estimator.categories_[place]), list(encoding), float(mean)), 0))
        return Table(tuple(columns))

    def pca(self, estimator: Any, table: Table) -> Table:
        """PCA, IncrementalPCA and TruncatedSVD: a product, after the means are taken away."""
        graph = self.graph
        rows = as_numbers(graph, table)
        if getattr(estimator, "mean_", None) is not None:
            rows = graph.add("Sub", rows, graph.constant(np.asarray(estimator.mean_, dtype=np.float64)))
        out = graph.add("MatMul", rows, graph.constant(np.asarray(estimator.components_, dtype=np.float64).T.copy()))
        if getattr(estimator, "whiten", False):
            scale = np.sqrt(np.asarray(estimator.explained_variance_, dtype=np.float64))
            scale[scale < np.finfo(scale.dtype).eps] = np.finfo(scale.dtype).eps
            out = graph.add("Div", out, graph.constant(scale))
        return whole(graph, out, len(estimator.components_))

    def binarizer(self, estimator: Any, table: Table) -> Table:
        above = self.graph.add(
            "Greater", as_numbers(self.graph, table), self.graph.constant(np.asarray(float(estimator.threshold))), kind=BOOL
        )
        return whole(self.graph, self.graph.cast(above, self.graph.number), len(table.columns), table.sparse)

    def text(self, estimator: Any, table: Table) -> Table:
        """CountVectorizer and TfidfVectorizer of words, whose texts come in lower case where they are to be."""
        graph = self.graph
        if len(table.columns) != 1 or graph.types[table.columns[0][0]] != STRING:
            raise NotConverted(f"a {type(estimator).__name__} of something else than one column of texts")
        if estimator.token_pattern not in _TOKENS or estimator.analyzer != "word" or estimator.tokenizer is not None:
            raise NotConverted(f"a {type(estimator).__name__} with an analyzer, tokenizer or token_pattern of its own")
        if estimator.preprocessor is not None or estimator.strip_accents is not None:
            raise NotConverted(f"a {type(estimator).__name__} with a preprocessor or strip_accents")
        if estimator.stop_words is not None and tuple(estimator.ngram_range) != (1, 1):
            raise NotConverted(f"a {type(estimator).__name__} of several words with stop words")
        if estimator.lowercase and table.names:
            self.lowered.append(table.names[0])
        elif estimator.lowercase:
            raise NotConverted(f"a {type(estimator).__name__} behind another step")
        from sklearn.feature_extraction.text import CountVectorizer

        counter = CountVectorizer(**{key: getattr(estimator, key) for key in CountVectorizer().get_params()})
        counter.lowercase, counter.stop_words = False, None  # single stop words are not in the vocabulary anyway
        counter.vocabulary_ = estimator.vocabulary_
        counts = self.by_skl2onnx(counter, one_column(graph, table, 0), {"tokenexp": _TOKENS[estimator.token_pattern], "locale": "C"})[0]
        out = whole(graph, graph.cast(counts, graph.number), max(estimator.vocabulary_.values()) + 1, sparse=True)
        return self.weighed_counts(estimator._tfidf, out) if hasattr(estimator, "_tfidf") else out

    def weighed_counts(self, estimator: Any, table: Table) -> Table:
        """TfidfTransformer: counts, or 1 + their logarithms, times the weights of the words; then each row by its length."""
        graph = self.graph
        rows = as_numbers(graph, table)
        if estimator.sublinear_tf:
            none = graph.add("Equal", rows, graph.constant(np.asarray(0.0)), kind=BOOL)
            rows = graph.add(
                "Where", none, rows, graph.add("Add", graph.add("Log", rows), graph.constant(np.asarray(1.0))), kind=graph.number
            )
        if estimator.use_idf:
            rows = graph.add("Mul", rows, graph.constant(np.asarray(estimator.idf_, dtype=np.float64)))
        return whole(graph, self.by_length(rows, estimator.norm), len(table.columns), sparse=True)

    def normalizer(self, estimator: Any, table: Table) -> Table:
        return whole(self.graph, self.by_length(as_numbers(self.graph, table), estimator.norm), len(table.columns), table.sparse)

    def by_length(self, rows: str, norm: str | None) -> str:
        """Each row by its length, a row of zeros as it is."""
        graph = self.graph
        if norm is None:
            return rows
        if norm == "l2":
            lengths = graph.add("ReduceL2", rows, axes=[1], keepdims=1)
        else:
            size = graph.add("Abs", rows)
            lengths = graph.add("ReduceMax", size, axes=[1], keepdims=1)
            if norm == "l1":
                lengths = graph.add("ReduceSum", size, graph.constant(np.array([1])), keepdims=1)
        none = graph.add("Equal", lengths, graph.constant(np.asarray(0.0)), kind=BOOL)
        return graph.add("Div", rows, graph.add("Where", none, graph.constant(np.asarray(1.0)), lengths, kind=graph.number))


def _wrapped(graph: Graph, model: Boosted, estimator: Any, table: Table) -> dict[str, str]:
    """The answers of another library's model at the end of a pipeline, where its scikit-learn class answers, with its labels."""
    if model.task not in ("binary", "multiclass"):
        return _boosted_answers(graph, model, table)
    classes = np.asarray(estimator.classes_)
    return _boosted_answers(graph, model._replace(labels=classes), table)


_STEPS: dict[str, Any] = {
    "Binarizer": _Sklearn.binarizer,
    "ColumnTransformer": _Sklearn.branches,
    "CountVectorizer": _Sklearn.text,
    "FeatureUnion": _Sklearn.union,
    "FunctionTransformer": _Sklearn.function,
    "IncrementalPCA": _Sklearn.pca,
    "MaxAbsScaler": _Sklearn.scaler,
    "MinMaxScaler": _Sklearn.min_max,
    "Normalizer": _Sklearn.normalizer,
    "OneHotEncoder": _Sklearn.one_hot,
    "OrdinalEncoder": _Sklearn.ordinal,
    "PCA": _Sklearn.pca,
    "Pipeline": _Sklearn.pipeline,
    "RobustScaler": _Sklearn.scaler,
    "SimpleImputer": _Sklearn.imputer,
    "StandardScaler": _Sklearn.scaler,
    "TargetEncoder": _Sklearn.target_encoder,
    "TfidfTransformer": _Sklearn.weighed_counts,
    "TfidfVectorizer": _Sklearn.text,
    "TruncatedSVD": _Sklearn.pca,
}
_DELEGATED_STEPS = frozenset({"KBinsDiscretizer", "KNNImputer", "PolynomialFeatures", "PowerTransformer", "QuantileTransformer"})
_LINEAR_CLASSIFIERS = frozenset(
    {
        "LinearDiscriminantAnalysis", "LinearSVC", "LogisticRegression", "LogisticRegressionCV", "PassiveAggressiveClassifier",
        "Perceptron", "RidgeClassifier", "RidgeClassifierCV", "SGDClassifier",
    }
)  # fmt: skip
_LINEAR_REGRESSORS = {
    **dict.fromkeys(
        (
            "ARDRegression", "BayesianRidge", "ElasticNet", "ElasticNetCV", "HuberRegressor", "Lars", "LarsCV", "Lasso", "LassoCV",
            "LassoLars", "LassoLarsCV", "LassoLarsIC", "LinearRegression", "LinearSVR", "MultiTaskElasticNet", "MultiTaskElasticNetCV",
            "MultiTaskLasso", "MultiTaskLassoCV", "OrthogonalMatchingPursuit", "OrthogonalMatchingPursuitCV",
            "PassiveAggressiveRegressor", "QuantileRegressor", "Ridge", "RidgeCV", "SGDRegressor", "TheilSenRegressor",
        ),
        "",
    ),
    "GammaRegressor": "exponential",
    "PoissonRegressor": "exponential",
}  # fmt: skip
"""Regressors that answer X @ coef + intercept, or the exponential of it."""
_DELEGATED = frozenset(
    {
        "AdaBoostClassifier", "AdaBoostRegressor", "BayesianGaussianMixture", "BernoulliNB", "CalibratedClassifierCV", "CategoricalNB",
        "ComplementNB", "GaussianMixture", "GaussianNB", "GaussianProcessClassifier", "GaussianProcessRegressor", "KNeighborsClassifier",
        "KNeighborsRegressor", "LocalOutlierFactor", "MultinomialNB", "OneVsOneClassifier", "OneVsRestClassifier", "PLSRegression",
        "QuadraticDiscriminantAnalysis", "RadiusNeighborsClassifier", "RadiusNeighborsRegressor", "SGDOneClassSVM",
    }
)  # fmt: skip
"""Estimators that skl2onnx writes."""
_IN_DOUBLE = _DELEGATED - frozenset({"AdaBoostClassifier", "AdaBoostRegressor"})
"""Those of them that it writes in double precision."""
_ESTIMATORS: dict[str, Any] = {
    **dict.fromkeys(trees.SKLEARN, _Sklearn.forest),
    **dict.fromkeys(_LINEAR_CLASSIFIERS, _Sklearn.linear_classifier),
    **dict.fromkeys(_LINEAR_REGRESSORS, _Sklearn.linear_regressor),
    **dict.fromkeys(_DELEGATED, _Sklearn.delegated),
    "BaggingClassifier": _Sklearn.bagging,
    "BaggingRegressor": _Sklearn.bagging,
    "IsolationForest": _Sklearn.isolation,
    "KMeans": _Sklearn.clusters,
    "KNeighborsClassifier": _Sklearn.neighbours,
    "KNeighborsRegressor": _Sklearn.neighbours,
    "MLPClassifier": _Sklearn.network,
    "MLPRegressor": _Sklearn.network,
    "MiniBatchKMeans": _Sklearn.clusters,
    "MultiOutputRegressor": _Sklearn.several_numbers,
    "NuSVC": _Sklearn.vectors,
    "NuSVR": _Sklearn.vectors,
    "OneClassSVM": _Sklearn.vectors,
    "RANSACRegressor": _Sklearn.inner,
    "SVC": _Sklearn.vectors,
    "SVR": _Sklearn.vectors,
    "StackingClassifier": _Sklearn.stacking,
    "StackingRegressor": _Sklearn.stacking,
    "TransformedTargetRegressor": _Sklearn.transformed_target,
    "VotingClassifier": _Sklearn.voting,
    "VotingRegressor": _Sklearn.voting,
}
"""What writes the estimators that are known, by the names of their classes."""
_TOKENS = {r"(?u)\b\w\w+\b": r"[\pL\pN_][\pL\pN_]+", r"(?u)\b\w+\b": r"[\pL\pN_]+"}
"""The patterns of words that are known, as onnxruntime's regular expressions write them."""


def best(model: Any) -> Any:
    """The estimator that a search found to be the best; any other itself."""
    while hasattr(model, "best_estimator_"):
        model = model.best_estimator_
    return model


def _listed(categories: Any) -> list[Any]:
    return list(categories.tolist()) if isinstance(categories, np.ndarray) else list(categories)


def _common(classes: Any, every: Sequence[Any]) -> Any:
    """Classes of one of several outputs, which the library answers in an array of one type."""
    kinds = {np.asarray(one).dtype.kind for one in every}
    if len(kinds) > 1:
        raise NotConverted("labels of several types, one beside the other")
    return np.asarray(classes)


def one_hot_positions(encoder: Any, place: int, count: int) -> tuple[list[int], int, int]:
    """For each category of a column its place among those that come out (-1 for none), how many come out, and the place of an unknown."""
    positions, unknown = list(range(count)), -1
    if getattr(encoder, "_infrequent_enabled", False):
        mapped = encoder._default_to_infrequent_mappings[place]
        if mapped is not None:
            positions = [int(one) for one in mapped]
            if encoder.handle_unknown in ("infrequent_if_exist", "warn"):
                unknown = max(positions)
    total = max(positions) + 1 if positions else 0
    dropped = getattr(encoder, "_drop_idx_after_grouping", getattr(encoder, "drop_idx_", None))
    if dropped is not None and dropped[place] is not None:
        gone = int(dropped[place])
        positions = [-1 if one == gone else one - (one > gone) for one in positions]
        unknown = -1 if unknown == gone else unknown - (unknown > gone)
        total -= 1
    return positions, total, unknown

"""Models of every kind become ONNX graphs that answer as they do, on rows made from the model and on any others; or say why they do not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

import convertible
import models
from modelport import inference, plugins, samples
from modelport.conversion import converting, parity
from modelport.conversion.child import Child, Remote
from modelport.conversion.converting import Converted, Here
from modelport.engines import Engine
from modelport.frameworks import Card, onnx, xgboost
from modelport.frameworks.portable import to_onnx
from modelport.frameworks.portable.graphs import NeedsConverter, NotConverted
from modelport.samples import Sample
from modelport.signature import Columns, Signature, to_array

CASES: dict[str, Callable[[], tuple[Any, Any]]] = {
    **{name: (lambda make=make: make()[:2]) for name, make in models.MODELS.items() if not name.startswith("onnx_")},
    **convertible.CASES,
}

NATIVE = {
    "a_function": "no ONNX form of a FunctionTransformer of log1p",
    "catboost_classifier": "no ONNX form of CatBoost's features that are categories",
    "catboost_native": "no ONNX form of CatBoost's features that are categories",
    "hashed_words": "no ONNX form of scikit-learn's HashingVectorizer",
    "voting_by_hand": "no ONNX form of a VotingClassifier with voting='hard'",
    "xgboost_linear": "no ONNX form of XGBoost's gblinear, which has no trees",
}
"""What stays what it is, and why."""
IN_DOUBLE = {
    "hist_gradient_boosting", "hist_gradient_boosting_numbers", "histograms_of_a_count", "histograms_of_three", "kmeans",
    "lightgbm_booster", "lightgbm_classifier", "lightgbm_forest", "lightgbm_one_against_all", "lightgbm_regressor", "lightgbm_tweedie",
    "lightgbm_with_missing_values", "matrix_with_a_column_transformer", "ranker_in_a_pipeline", "sparse_strings_and_xgboost",
    "strings_and_boosting",
    "strings_and_catboost", "strings_and_forest", "strings_and_lightgbm", "strings_and_xgboost",
}  # fmt: skip
"""Whose thresholds are of double precision, or that scale numbers before they look at them: single precision is refused by the gate."""


def native(model: Any, frame: Any, schema: Signature | None = None) -> tuple[Engine, Sample]:
    """A model with the signature that packing gives it."""
    library = type(model).__module__.split(".")[0]
    framework = plugins.framework(library)
    names = tuple(map(str, frame.columns)) if hasattr(model, "feature_names_in_") else ()
    card = Card(library, f"{type(model).__module__}.{type(model).__name__}", library, features=names)
    if library == "xgboost":
        model = xgboost._view(model)  # as it is when it has been loaded
    described = framework.describe(model, card)
    sample = samples.from_object(frame)
    engine = Engine(framework, model, inference.infer(described, card, sample, schema), described)
    return replace(engine, signature=inference.with_computable_range(engine.signature, engine.predict)), sample


def converted(engine: Engine, sample: Sample | None = None) -> Converted:
    library = engine.framework.__name__.rpartition(".")[2]
    return converting.convert(engine, sample, [], Here(library, engine.model, library))


def served(engine: Engine, graph: bytes, folder: Path) -> Engine:
    """The graph as it is served."""
    (folder / "model.onnx").write_bytes(graph)
    loaded = onnx.load(folder / "model.onnx", Card("onnx", "onnx.ModelProto", "onnxruntime"))
    return Engine(onnx, loaded, engine.signature, engine.described, "onnx")


def random_rows(engine: Engine, frame: Any, rows: int = 300) -> Columns:
    """Rows with values of the whole range of each column, rounded or not, in any combination."""
    random = np.random.default_rng(4)
    columns = {}
    for field, (_, values) in zip(engine.signature.inputs, ((name, frame[name]) for name in _order(engine, frame)), strict=True):
        if field.kind in ("number", "integer"):
            low, high = float(np.nanmin(values)), float(np.nanmax(values))
            drawn = random.uniform(low - 0.1 * (high - low), high + 0.1 * (high - low), rows)
            drawn = np.where(random.random(rows) < 0.5, drawn.round(1), drawn)
            made: list[Any] = drawn.round().astype(int).tolist() if field.kind == "integer" else drawn.tolist()
        else:
            known = values.dropna().to_list()
            made = [known[at] for at in random.integers(len(known), size=rows)]
        if field.nullable:
            made = [None if gone else value for gone, value in zip(random.random(rows) < 0.1, made, strict=True)]
        columns[field.name] = to_array(field, made)
    return columns


def _order(engine: Engine, frame: Any) -> list[str]:
    """The frame's columns in the order of the signature, whose names may have _ for a space."""
    by_kept = {str(name).replace(" ", "_"): name for name in frame.columns}
    return [by_kept[field.name.replace(" ", "_")] for field in engine.signature.inputs]


@pytest.mark.filterwarnings("ignore")  # what a library thinks of made-up rows
@pytest.mark.parametrize("name", CASES)
def test_a_model_becomes_a_graph_that_answers_alike_or_says_why_not(name: str, tmp_path: Path) -> None:
    model, frame = CASES[name]()
    engine, sample = native(model, frame)
    found = converted(engine, sample)
    evidence = found.evidence
    if name in NATIVE:
        assert (found.graph, evidence["passed"], evidence["reason"]) == (None, False, NATIVE[name])
        return
    assert (evidence["passed"], evidence["reason"], evidence["flips"]) == (True, "", 0)
    assert evidence["largest_difference"] < parity.TOLERANCE
    assert evidence["rows"] >= min(evidence["rows_made"], 50)
    assert (evidence["precision"], len(evidence["tries"])) == (("float64", 1) if name in IN_DOUBLE else ("float32", 0))
    assert found.graph is not None
    graph = served(engine, found.graph, tmp_path)
    asked = parity.Questions(random_rows(engine, frame), 0, 300)
    again = parity.compare(engine, graph, asked)
    assert (again.flips, again.why) == (0, "")
    for row in engine.signature.records(graph.predict({key: column[:3] for key, column in asked.columns.items()})):
        assert row.keys() == {field.name for field in engine.signature.outputs}


def test_labels_have_the_type_that_they_had(tmp_path: Path) -> None:
    for name, kind in (("tree_of_bools", bool), ("tree_of_floats", float), ("shallow_forest", int), ("boosting_of_two", str)):
        model, frame = convertible.CASES[name]()
        engine, sample = native(model, frame)
        graph = converted(engine, sample).graph
        assert graph is not None
        answers = served(engine, graph, tmp_path).answer([engine.signature.example()])
        assert type(answers[0]["prediction"]) is kind
        assert answers[0]["prediction"] == engine.answer([engine.signature.example()])[0]["prediction"]


def test_numbers_alone_are_one_matrix_and_strings_make_an_input_of_each_column(tmp_path: Path) -> None:
    for name, inputs in (
        ("shallow_forest", ["rows"]),
        ("strings_and_logistic", [*convertible.numbers().columns, "class", "city", "has garden"]),
    ):
        model, frame = convertible.CASES[name]()
        engine, sample = native(model, frame)
        graph = converted(engine, sample).graph
        assert graph is not None
        loaded = served(engine, graph, tmp_path).model
        assert [one.name for one in loaded.inputs] == inputs
        assert loaded.names == tuple(field.name for field in engine.signature.inputs)


def test_a_field_called_as_an_output_is_no_trouble(tmp_path: Path) -> None:
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    frame = models.houses()[["rooms", "class"]].set_axis(["prediction", "probabilities"], axis=1)
    prepare = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["probabilities"]), remainder="passthrough")
    engine, sample = native(make_pipeline(prepare, LogisticRegression()).fit(frame, models.cheap(models.houses())), frame)
    assert converted(engine, sample).evidence["passed"]


def test_columns_go_by_the_name_or_the_place_by_which_the_library_finds_them(tmp_path: Path) -> None:
    """A model of a bare matrix whose sample has the names x1 and x0, in this order: both engines take x1 for the first column."""
    import pandas as pd
    from sklearn.tree import DecisionTreeRegressor

    frame = pd.DataFrame({"x1": np.arange(50.0), "x0": np.arange(50.0)[::-1] ** 2})
    engine, sample = native(DecisionTreeRegressor(random_state=0).fit(frame.to_numpy(), np.arange(50.0)), frame)
    found = converted(engine, sample)
    assert found.graph is not None
    row = [{"x1": 3.0, "x0": 2000.0}]
    assert served(engine, found.graph, tmp_path).answer(row) == engine.answer(row)


def test_the_same_model_gives_the_same_bytes() -> None:
    model, frame = convertible.CASES["strings_and_logistic"]()
    engine, sample = native(model, frame)
    assert converted(engine, sample) == converted(engine, sample)


def test_nothing_is_guessed() -> None:
    """What an estimator does in a way that is not known is refused by name."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    frame, labels = convertible.reviews()
    for settings, words in (
        ({"analyzer": "char"}, "a CountVectorizer with an analyzer, tokenizer or token_pattern of its own"),
        ({"token_pattern": "[a-z]+"}, "a CountVectorizer with an analyzer, tokenizer or token_pattern of its own"),
        ({"strip_accents": "unicode"}, "a CountVectorizer with a preprocessor or strip_accents"),
        ({"stop_words": ["the"], "ngram_range": (1, 2)}, "a CountVectorizer of several words with stop words"),
    ):
        model = make_pipeline(CountVectorizer(**settings), LogisticRegression()).fit(frame["text"], labels)
        with pytest.raises(NotConverted, match=words):
            to_onnx.convert("sklearn", model, [{"name": "text", "kind": "text", "choices": ()}], "float32")


def test_none_among_categories_of_strings_is_refused() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    words = np.array([["a"], ["b"], [None]] * 5, dtype=object)
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(words, [0, 1, 1] * 5)
    with pytest.raises(NotConverted, match="None among the categories of strings"):
        to_onnx.convert("sklearn", model, [{"name": "x0", "kind": "string", "choices": ()}], "float32")


def test_a_class_of_ones_own_is_refused_by_its_name() -> None:
    from sklearn.base import BaseEstimator

    class Own(BaseEstimator):
        def predict(self, rows: Any) -> Any:
            return rows

    with pytest.raises(NotConverted, match="test_conversion's Own"):
        to_onnx.convert("sklearn", Own(), [{"name": "x0", "kind": "number", "choices": ()}], "float32")


def test_what_skl2onnx_refuses_is_said_in_its_words() -> None:
    from sklearn.neighbors import RadiusNeighborsClassifier

    model = RadiusNeighborsClassifier(radius=1e9, metric="chebyshev").fit(convertible.numbers(), models.band(models.houses()))
    columns = [{"name": name, "kind": "number", "choices": ()} for name in convertible.numbers()]
    with pytest.raises(NotConverted, match="RadiusNeighborsClassifier: skl2onnx says"):
        to_onnx.convert("sklearn", model, columns, "float32")


# Integers that single precision does not tell apart


@pytest.mark.parametrize("by", ["sample", "schema"])
def test_large_integers_are_not_put_into_single_precision(by: str) -> None:
    from sklearn.linear_model import Ridge

    frame = models.houses()[["rooms"]].assign(number=np.arange(200) + (2**24 if by == "sample" else 0))
    stated = None
    if by == "schema":
        stated = Signature.from_dict({"inputs": [{"name": "number", "kind": "integer", "minimum": 0, "maximum": 10**9}]})
    engine, sample = native(Ridge().fit(frame, models.price(models.houses())), frame, stated)
    evidence = converted(engine, sample).evidence
    assert (evidence["passed"], evidence["precision"]) == (True, "float64")
    assert evidence["tries"][0]["why"].startswith("'number' holds integers up to 1")
    assert evidence["tries"][0]["why"].endswith("more than the 16,777,216 that single precision tells apart")


def test_golden_rows_must_come_out_too(tmp_path: Path) -> None:
    model, frame = convertible.CASES["logistic_of_three"]()
    engine, sample = native(model, frame)
    wrong = [{"input": engine.signature.example(), "output": {"prediction": 7, "probabilities": {"0": 1.0, "1": 0.0, "2": 0.0}}}]
    found = converting.convert(engine, sample, wrong, Here("sklearn", model, "scikit-learn"))
    assert found.graph is None
    assert found.evidence["reason"].startswith("a golden row differs: /prediction was 7 and is")


def test_a_converter_without_an_answer_is_said_once(tmp_path: Path) -> None:
    class Nowhere(Here):
        def convert(self, columns: Any, precision: str) -> bytes:
            raise NotConverted("such a model")

    model, frame = convertible.CASES["logistic_of_three"]()
    engine, sample = native(model, frame)
    evidence = converting.convert(engine, sample, [], Nowhere("sklearn", model, "scikit-learn")).evidence
    assert evidence["tries"] == [{"precision": "float32", "why": "no ONNX form of such a model"}]


def test_a_converter_that_is_not_installed_is_asked_for() -> None:
    class Without(Here):
        def convert(self, columns: Any, precision: str) -> bytes:
            raise NeedsConverter("GaussianNB without skl2onnx, which is not installed")

    model, frame = convertible.CASES["naive_bayes"]()
    engine, sample = native(model, frame)
    found = converting.convert(engine, sample, [], Without("sklearn", model, "scikit-learn"))
    assert found.lacks_converter
    assert found.evidence["reason"] == "no ONNX form of GaussianNB without skl2onnx, which is not installed"


@pytest.mark.parametrize("name", ["strings_and_forest", "naive_bayes", "texts_and_numbers"])
def test_a_child_converts_and_makes_rows_as_this_process_does(name: str, tmp_path: Path) -> None:
    model, frame = convertible.CASES[name]()
    joblib.dump(model, tmp_path / "model.joblib")
    engine, sample = native(model, frame)
    with Child(Path(sys.executable)) as child:
        remote = Remote(child, tmp_path / "model.joblib")
        there = replace(engine, framework=remote, model=child)
        assert converting.convert(there, sample, [], remote).graph == converted(engine, sample).graph


def test_a_graph_that_onnxruntime_does_not_take_is_no_graph() -> None:
    class Broken(Here):
        def convert(self, columns: Any, precision: str) -> bytes:
            return super().convert(columns, precision)[:-40]

    model, frame = convertible.CASES["logistic_of_three"]()
    engine, sample = native(model, frame)
    evidence = converting.convert(engine, sample, [], Broken("sklearn", model, "scikit-learn")).evidence
    assert not evidence["passed"]
    assert evidence["reason"].startswith("onnxruntime does not take it: ")

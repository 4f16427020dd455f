"""The gate opens for what answers alike, and for nothing else: a label that flips, a number that differs, a row that is not answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import convertible
from modelport.conversion import converting, parity
from modelport.conversion.converting import Here
from modelport.conversion.parity import Questions, compare, questions
from modelport.engines import Engine
from modelport.errors import InvalidInput
from modelport.frameworks.portable import to_onnx
from modelport.preprocessing import Preprocessing
from modelport.samples import from_object
from modelport.signature import Columns, Field, Signature
from test_conversion import converted, native

CLASSES = Signature((Field("x", "number"),), (Field("prediction", "category", choices=("a", "b")), Field("chance", "number", shape=(2,))))
NUMBER = Signature((Field("x", "number"),), (Field("prediction", "number"),))


class Answers:
    """A framework whose model is the function that answers."""

    def predict(self, model: Callable[[Columns], Columns], columns: Columns, signature: Signature) -> Columns:
        return model(columns)


def engine(signature: Signature, answer: Callable[[Columns], Columns]) -> Engine:
    return Engine(Answers(), answer, signature, signature)  # type: ignore[arg-type]


def asked(*values: float) -> Questions:
    return Questions({"x": np.array(values, dtype=np.float64)}, len(values), 0)


def classes(flip_at: float = np.inf, shift: float = 0.0) -> Engine:
    def answer(columns: Columns) -> Columns:
        x = columns["x"]
        return {
            "prediction": np.where((x > 1) ^ (x == flip_at), "b", "a").astype(object),
            "chance": np.column_stack([x * 0 + 0.5 + shift, x * 0 + 0.5]),
        }

    return engine(CLASSES, answer)


def number(function: Callable[[Any], Any]) -> Engine:
    return engine(NUMBER, lambda columns: {"prediction": function(columns["x"])})


def test_what_answers_alike_passes() -> None:
    found = compare(classes(), classes(), asked(0, 1, 2))
    assert (found.passed, found.rows, found.flips, found.largest_difference, found.relative) == (True, 3, 0, 0.0, False)


def test_one_label_of_many_shuts_the_gate_also_where_two_chances_tie() -> None:
    found = compare(classes(), classes(flip_at=500.0), asked(*range(1000)))
    assert (found.passed, found.flips) == (False, 1)
    assert found.why == "1 of 1,000 rows get another label"


def test_probabilities_may_differ_by_less_than_one_in_ten_thousand() -> None:
    assert compare(classes(), classes(shift=0.9e-4), asked(1)).passed
    found = compare(classes(), classes(shift=1.1e-4), asked(1))
    assert found.why == "chance differs by up to 0.0001"
    assert found.largest_difference == pytest.approx(1.1e-4)


def test_what_a_regressor_answers_is_compared_by_its_size() -> None:
    large = number(lambda x: x * 1e6)
    assert compare(large, number(lambda x: x * 1e6 + 5), asked(0, 1, 2)).passed
    assert not compare(large, number(lambda x: x * 1e6 + 500), asked(0, 1, 2)).passed
    small = number(lambda x: x * 1e-6)
    assert not compare(small, number(lambda x: x * 1e-6 + 1e-9), asked(0, 1, 2)).passed
    assert compare(small, number(lambda x: x * 1e-6 + 1e-13), asked(0, 1, 2)).relative


def test_an_answer_near_zero_is_compared_with_what_is_common_among_the_answers() -> None:
    assert compare(number(lambda x: x), number(lambda x: x + 1e-4), asked(0, 5, 5, 5, 5)).passed
    assert not compare(number(lambda x: x), number(lambda x: x + 1e-3), asked(0, 5, 5, 5, 5)).passed


def test_all_zeros_are_compared_as_they_are() -> None:
    assert compare(number(lambda x: x * 0), number(lambda x: x * 0), asked(1, 2)).passed
    assert not compare(number(lambda x: x * 0), number(lambda x: x * 0 + 1e-9), asked(1, 2)).passed


def test_no_number_is_far_from_any() -> None:
    found = compare(number(lambda x: x), number(lambda x: np.where(x == 3, np.nan, x)), asked(1, 2, 3))
    assert (found.passed, found.largest_difference) == (False, np.inf)


def test_a_row_alone_must_get_the_same_as_among_others() -> None:
    found = compare(
        classes(),
        engine(CLASSES, lambda columns: classes(flip_at=columns["x"][0] if len(columns["x"]) == 1 else np.inf).model(columns)),
        asked(0, 2),
    )
    assert (found.passed, found.flips) == (False, 2)


def test_rows_that_the_original_does_not_answer_are_not_asked_of_the_graph() -> None:
    def picky(columns: Columns) -> Columns:
        if (columns["x"] < 0).any():
            raise ValueError("negative")
        return {"prediction": np.where(columns["x"] == 7, np.inf, columns["x"])}

    found = compare(engine(NUMBER, picky), number(lambda x: x), asked(1, -1, 2, 7, -5, 3))
    assert (found.passed, found.rows) == (True, 3)


def test_where_no_row_can_be_asked_nothing_is_proven() -> None:
    found = compare(number(lambda x: x * np.nan), number(lambda x: x), asked(1, 2))
    assert found.why == "the original answers none of the rows that could be asked"


def test_a_graph_that_fails_is_no_graph() -> None:
    def failing(columns: Columns) -> Columns:
        raise RuntimeError("no kernel")

    assert (
        compare(classes(), engine(CLASSES, failing), asked(1)).why == "the graph does not answer: the model raised RuntimeError: no kernel"
    )


def test_labels_of_another_shape_flip_in_every_row() -> None:
    pairs = engine(
        CLASSES, lambda columns: classes().model(columns) | {"prediction": np.array([["a", "a"]] * len(columns["x"]), dtype=object)}
    )
    assert compare(classes(), pairs, asked(0, 2)).flips == 2


# What is asked


def test_rows_that_the_signature_refuses_are_left_out() -> None:
    signature = Signature(
        (
            Field("size", "number", minimum=0, maximum=10),
            Field("kind", "category", choices=("a", "b")),
            Field("count", "integer", nullable=True),
        ),
        (Field("prediction", "number"),),
    )
    sample = from_object(
        [{"size": 1.0, "kind": "a", "count": 2}, {"size": 11.0, "kind": "a", "count": 2}, {"size": 2.0, "kind": "c", "count": 1}]
    )
    made = {"size": [5.0, -1.0, 6.0], "kind": ["b", "b", None], "count": [None, 1, 1]}
    found = questions(signature, sample, made)
    assert (found.of_sample, found.made) == (1, 1)
    assert found.columns["size"].tolist() == [1.0, 5.0]
    assert found.columns["kind"].tolist() == ["a", "b"]
    with pytest.raises(InvalidInput):
        signature.columns([{"size": 11.0, "kind": "a", "count": 2}])


def test_a_large_sample_is_asked_in_part_and_from_all_over() -> None:
    signature = Signature((Field("x", "number"),), (Field("prediction", "number"),))
    found = questions(signature, from_object([{"x": float(row)} for row in range(10_000)]), {"x": []})
    assert found.of_sample == 2000
    assert found.columns["x"].max() > 9_900


# Real graphs


def test_single_precision_in_front_of_trees_is_caught_and_double_passes() -> None:
    model, frame = convertible.strings_and_forest()
    native_engine, sample = native(model, frame)
    evidence = converted(native_engine, sample).evidence
    assert evidence["precision"] == "float64"
    assert evidence["tries"][0]["precision"] == "float32"
    assert "rows get another label" in evidence["tries"][0]["why"]


def test_it_is_caught_without_a_sample_too() -> None:
    model, frame = convertible.strings_and_forest()
    native_engine, _ = native(model, frame)
    evidence = converted(native_engine).evidence
    assert (evidence["rows_of_sample"], evidence["precision"]) == (0, "float64")


@pytest.mark.parametrize("change", ["one threshold", "one leaf", "the labels"])
def test_a_graph_that_is_a_little_wrong_is_caught(change: str) -> None:
    """A forest whose first tree has another root threshold, a leaf that is worth more, or labels in another order."""
    model, frame = convertible.shallow_forest()
    native_engine, sample = native(model, frame)

    class Wrong(Here):
        def convert(self, columns: Any, precision: str) -> bytes:
            from copy import deepcopy

            other = deepcopy(model)
            if change == "the labels":
                other.classes_ = other.classes_[::-1].copy()
            elif change == "one threshold":
                state = other.estimators_[0].tree_.__getstate__()
                state["nodes"]["threshold"][0] += 0.05
                other.estimators_[0].tree_.__setstate__(state)
            else:
                other.estimators_[0].tree_.value[np.flatnonzero(other.estimators_[0].tree_.children_left < 0)[0]] = [[0.4, 0.3, 0.3]]
            return to_onnx.convert("sklearn", other, columns, precision)

    found = converting.convert(native_engine, sample, [], Wrong("sklearn", model, "scikit-learn"))
    assert found.graph is None
    assert len(found.evidence["tries"]) == 2


def test_the_evidence_has_what_the_bundle_keeps() -> None:
    model, frame = convertible.logistic_of_three()
    native_engine, sample = native(model, frame)
    evidence = dict(converted(native_engine, sample).evidence)
    versions = evidence.pop("versions")
    assert {"scikit-learn", "numpy", "onnxruntime"} <= set(versions) or {"sklearn", "numpy", "onnxruntime"} <= set(versions)
    assert evidence.pop("python")
    assert 0 < evidence.pop("largest_difference") < parity.TOLERANCE
    assert evidence == {
        "passed": True, "reason": "", "precision": "float32", "rows": 2200, "rows_of_sample": 200, "rows_made": 2000, "flips": 0,
        "relative": False, "tolerance": 1e-4, "tries": [],
    }  # fmt: skip


def test_a_signature_of_other_names_is_served_as_well() -> None:
    model, frame = convertible.matrix_with_a_column_transformer()
    native_engine, _ = native(model, frame)
    names = ("size", "rooms", "year")
    inputs = tuple(replace(field, name=name) for field, name in zip(native_engine.signature.inputs, names, strict=True))
    outputs = (replace(native_engine.signature.outputs[0], name="band"), *native_engine.signature.outputs[1:])
    renamed = replace(native_engine, signature=Signature(inputs, outputs))
    assert converted(renamed).evidence["passed"]


# Rows for models that do not say where they decide


def test_random_rows_are_within_the_bounds_of_each_field_and_the_same_each_time() -> None:
    fields = (
        Field("x", "number", minimum=-1, maximum=1),
        Field("n", "integer"),
        Field("yes", "boolean"),
        Field("kind", "category", choices=("a", "b")),
        Field("words", "text", example="some"),
        Field("tokens", "tensor", dtype="int64", shape=(3,)),
    )
    signature = Signature(fields, NUMBER.outputs)
    found = parity.noise(signature, None)
    assert (found.of_sample, found.made) == (0, 500)
    columns = found.columns
    assert np.abs(columns["x"]).max() == 1
    assert columns["n"].dtype == np.int64
    assert set(columns["kind"]) == {"a", "b"}
    assert set(columns["words"]) == {"some"}
    assert columns["yes"].dtype == bool
    assert (columns["tokens"].shape, columns["tokens"].dtype, columns["tokens"].min()) == ((500, 3), np.int64, 0)
    again = parity.noise(signature, None).columns
    assert all((again[name] == column).all() for name, column in columns.items())


def test_random_pictures_are_few_and_of_grain_and_of_patches() -> None:
    image = Field("image", "image", preprocessing=Preprocessing(224, 224))
    found = parity.noise(Signature((image,), NUMBER.outputs), None)
    assert found.columns["image"].shape == (16, 224, 224, 3)
    steps = np.abs(np.diff(found.columns["image"].astype(int), axis=2)).mean(axis=(1, 2, 3))
    assert steps[:8].max() < 5 < 50 < steps[8:].min()


def test_a_sample_goes_before_random_rows() -> None:
    found = parity.noise(NUMBER, from_object({"x": [0.25, 0.5]}))
    assert (found.of_sample, found.made, found.columns["x"][:2].tolist()) == (2, 500, [0.25, 0.5])

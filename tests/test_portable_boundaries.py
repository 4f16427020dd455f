"""Rows made from a model lie where it decides: on its thresholds and right beside them, as the columns in front of its steps see them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import convertible
import models
from modelport.frameworks.portable import boundaries, trees


def column(name: str, kind: str = "number", **about: Any) -> dict[str, Any]:
    return {"name": name, "kind": kind, "choices": (), "nullable": False, "minimum": None, "maximum": None, "example": None} | about


def numbers() -> list[dict[str, Any]]:
    return [column(name) for name in convertible.numbers()]


HOUSE = [
    *(column(name, nullable=True) for name in convertible.numbers()),
    column("class", "string", nullable=True, choices=("brick", "stone", "timber")),
    column("city", "string", nullable=True, choices=("Jena", "Köln")),
    column("has garden", "boolean"),
]


def test_thresholds_of_a_forest_are_hit_exactly_and_by_the_next_number_on_either_side() -> None:
    model, _ = convertible.shallow_forest()
    rows = boundaries.rows("sklearn", model, numbers())
    for feature, thresholds in trees.sklearn_forest(model).thresholds().items():
        values = set(rows[numbers()[feature]["name"]])
        asked = [float(one) for one in thresholds if float(one) in values]
        assert len(asked) > len(thresholds) // 3
        beside = [one for one in asked if {np.nextafter(one, -np.inf), np.nextafter(one, np.inf)} & values]
        assert len(beside) > len(asked) // 2
        assert any(float(np.nextafter(np.float32(one), np.float32(np.inf))) in values for one in asked)


def test_a_scaler_in_front_of_a_forest_is_undone() -> None:
    model, _ = convertible.strings_and_forest()
    rows = boundaries.rows("sklearn", model, HOUSE)
    scaled = model[:-1].transform(models.houses().head(0).reindex(range(len(rows["city"]))).assign(**rows))
    sizes = np.sort(trees.sklearn_forest(model[-1]).thresholds()[0])
    near = np.abs(scaled[:, 0][:, None] - sizes).min(axis=1)
    assert (near < 1e-12).sum() > 200


def test_categories_what_is_unknown_and_what_is_missing_are_asked() -> None:
    model, _ = convertible.strings_and_logistic()
    rows = boundaries.rows("sklearn", model, HOUSE)
    assert set(rows["class"]) == {"brick", "stone", "timber", "something else", None}
    assert {"Jena", "Köln", "Łódź", "New York", "something else", None} == set(rows["city"])
    assert {True, False} == set(rows["has garden"])
    assert None in rows["year.built"]
    assert None not in boundaries.rows("sklearn", model, [*HOUSE[:-1], column("has garden", "boolean")])["has garden"]


def test_strict_categories_are_among_their_choices_and_integers_are_whole() -> None:
    model, _ = convertible.rare_and_dropped_categories()
    columns = [
        column("rooms", "integer", minimum=2, maximum=5),
        column("class", "category", choices=("brick", "stone")),
        column("city", "string"),
        column("has garden", "boolean"),
    ]
    rows = boundaries.rows("sklearn", model, columns)
    assert set(rows["class"]) == {"brick", "stone"}
    assert set(rows["rooms"]) == {2, 3, 4, 5}
    assert all(type(value) is int for value in rows["rooms"])


def test_the_values_of_libraries_of_boosted_trees_are_found_too() -> None:
    for name, kind in (
        ("xgboost_with_missing_values", "xgboost"),
        ("lightgbm_with_missing_values", "lightgbm"),
        ("catboost_of_two", "catboost"),
    ):
        model, _ = convertible.CASES[name]()
        columns = [column(one, nullable=True) for one in convertible.numbers()]
        rows = boundaries.rows(kind, model, columns)
        thresholds = trees.boosted(kind, model).forest.thresholds()
        assert set(rows[columns[0]["name"]]) & set(thresholds[0].tolist())
        assert None in rows[columns[0]["name"]]


def test_categories_of_lightgbm_and_of_histograms_are_asked() -> None:
    for name, kind in (("lightgbm_classifier", "lightgbm"), ("hist_gradient_boosting", "sklearn")):
        trained = models.MODELS[name]()
        columns = [
            column(str(one), "string" if one == "class" else "boolean" if one == "has garden" else "number") for one in trained.frame
        ]
        assert {"brick", "timber", "stone"} <= set(boundaries.rows(kind, trained.model, columns)["class"])


def test_rows_that_a_model_keeps_are_asked_whole_with_the_middles_between_them() -> None:
    model, frame = convertible.neighbours()
    rows = boundaries.rows("sklearn", model, numbers())
    asked = set(zip(*rows.values(), strict=True))
    kept = [tuple(row) for row in frame.to_numpy().tolist()]
    assert len(asked & set(kept)) >= 100
    middles = [tuple(np.add(one, other) / 2) for one, other in itertools.pairwise(kept)]
    assert len(asked & set(middles)) > 50


def test_texts_are_made_of_the_model_s_words_and_of_what_stands_between_words() -> None:
    model = models.text().model
    texts = boundaries.rows("sklearn", model, [column("text", "text")])["text"]
    assert "" in texts
    assert any("FILM" in text for text in texts)
    assert any("é" in text for text in texts)
    assert all(isinstance(text, str) for text in texts)


def test_nothing_is_left_to_chance() -> None:
    model, _ = convertible.strings_and_forest()
    assert boundaries.rows("sklearn", model, HOUSE) == boundaries.rows("sklearn", model, HOUSE)


@pytest.mark.parametrize(("count", "rows"), [(3, 2000), (200, 500), (5000, 50)])
def test_wide_models_get_fewer_rows(count: int, rows: int) -> None:
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(np.eye(5, count), np.arange(5))
    made = boundaries.rows("sklearn", model, [column(f"x{index}") for index in range(count)])
    assert {len(values) for values in made.values()} == {rows}


def test_a_model_that_tells_nothing_is_asked_around_its_example() -> None:
    from sklearn.naive_bayes import BernoulliNB

    model = BernoulliNB().fit(np.eye(2), [0, 1])
    rows = boundaries.rows("sklearn", model, [column("x0", example=4.0), column("x1", "boolean")])
    assert {4.0, 0.0, 8.0} <= set(rows["x0"])
    assert set(rows["x1"]) == {True, False}

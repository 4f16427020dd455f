"""What CatBoost models say of themselves, and that every kind of them answers as CatBoost does, also in its binary form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from modelport.errors import ModelFileError
from modelport.frameworks import Card, catboost
from modelport.signature import Field

CARD = Card("catboost", "catboost.core.CatBoostClassifier", "catboost")
MATRIX = models.shipping().to_numpy()
COLUMNS = {f"x{index}": MATRIX[:, index] for index in range(5)}
TARGET = models.shipping_price(models.shipping())
FEW = {"iterations": 5, "depth": 3, "thread_count": 1, "verbose": False, "allow_writing_files": False, "random_seed": 0}


def both(model: Any, folder: Path, columns: dict[str, np.ndarray] = COLUMNS) -> dict[str, np.ndarray]:
    """The answers, after making sure that the model answers and describes itself alike in its binary form and out of its pickle."""
    signature = catboost.describe(model, CARD)
    answers = dict(catboost.predict(model, columns, signature))
    assert list(answers) == [field.name for field in signature.outputs]
    saved = catboost.save(model, CARD, folder)
    assert saved == "model.cbm"
    for restored in (catboost.load(folder / saved, CARD), models.rebuilt(catboost, model, folder)):
        assert catboost.describe(restored, CARD) == signature
        for name, answer in catboost.predict(restored, columns, signature).items():
            np.testing.assert_array_equal(answer, answers[name])
    return answers


def test_names_kinds_and_labels_are_known() -> None:
    assert catboost.describe(models.catboost_classifier().model, CARD).to_dict() == {
        "inputs": [
            {"name": "Größe (m²)", "kind": "number", "nullable": True, "example": 89.0},
            {"name": "rooms", "kind": "number", "nullable": True, "example": 4.5},
            {"name": "year.built", "kind": "number", "nullable": True, "example": 1926.0},
            {"name": "class", "kind": "string"},
            {"name": "city", "kind": "string"},
            {"name": "has garden", "kind": "number", "nullable": True, "example": 0.5},
        ],
        "outputs": [
            {"name": "prediction", "kind": "category", "choices": ["cheap", "dear"]},
            {"name": "probabilities", "kind": "number", "dtype": "float64", "shape": [2], "choices": ["cheap", "dear"]},
        ],
    }


def test_missing_numbers_and_unseen_categories_are_taken() -> None:
    model, frame, *_ = models.catboost_classifier()
    strange = frame.assign(city="Ulm", rooms=np.nan)
    signature = catboost.describe(model, CARD)
    np.testing.assert_array_equal(
        catboost.predict(model, models.columns(strange), signature)["probabilities"], model.predict_proba(strange)
    )


def test_where_missing_values_were_forbidden_they_are_not_taken() -> None:
    from catboost import CatBoostRegressor

    model = CatBoostRegressor(**FEW, nan_mode="Forbidden").fit(MATRIX, TARGET)
    assert not any(field.nullable for field in catboost.describe(model, CARD).inputs)


@pytest.mark.parametrize("labels", [["a", "é"], [3, 5], [True, False]])
def test_labels_keep_their_type(labels: list[Any], tmp_path: Path) -> None:
    from catboost import CatBoostClassifier

    model = CatBoostClassifier(**FEW).fit(MATRIX, np.array(labels)[(np.median(TARGET) < TARGET).astype(int)])
    assert {type(choice) for choice in catboost.describe(model, CARD).outputs[0].choices} == {type(labels[0])}
    answers = both(model, tmp_path)
    own = model.predict(MATRIX)
    np.testing.assert_array_equal(answers["prediction"].astype(str), own.astype(str))
    np.testing.assert_array_equal(answers["probabilities"], model.predict_proba(MATRIX))


def test_another_threshold_is_kept(tmp_path: Path) -> None:
    from catboost import CatBoostClassifier

    model = CatBoostClassifier(**FEW).fit(MATRIX, (np.median(TARGET) < TARGET).astype(int))
    model.set_probability_threshold(0.9)
    np.testing.assert_array_equal(both(model, tmp_path)["prediction"], model.predict(MATRIX))


@pytest.mark.parametrize(
    ("loss", "shape"),
    [("RMSE", ()), ("Poisson", ()), ("Tweedie:variance_power=1.5", ()), ("MultiRMSE", (2,)), ("RMSEWithUncertainty", (2,))],
)
def test_regressors_of_every_loss(loss: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    from catboost import CatBoostRegressor

    target = np.column_stack([TARGET, -TARGET]) if loss == "MultiRMSE" else TARGET
    model = CatBoostRegressor(**FEW, loss_function=loss).fit(MATRIX, target)
    assert catboost.describe(model, CARD).outputs == (Field("prediction", "number", dtype="float64", shape=shape),)
    np.testing.assert_array_equal(both(model, tmp_path)["prediction"], model.predict(MATRIX))


def test_several_labels_and_ranks(tmp_path: Path) -> None:
    from catboost import CatBoostClassifier, CatBoostRanker

    marks = np.column_stack([TARGET > 20, MATRIX[:, 0] > 50, MATRIX[:, 1] > 9000]).astype(int)
    several = CatBoostClassifier(**FEW, loss_function="MultiLogloss").fit(MATRIX, marks)
    answers = both(several, tmp_path)
    np.testing.assert_array_equal(answers["prediction"], several.predict(MATRIX))
    np.testing.assert_array_equal(answers["probabilities"], several.predict_proba(MATRIX))
    ranker = CatBoostRanker(**FEW, loss_function="YetiRank").fit(MATRIX, np.arange(300) % 3, group_id=np.repeat(np.arange(30), 10))
    np.testing.assert_array_equal(both(ranker, tmp_path)["score"], ranker.predict(MATRIX))


def test_columns_of_a_matrix_are_numbered() -> None:
    from catboost import CatBoostRegressor

    model = CatBoostRegressor(**FEW).fit(MATRIX, TARGET)
    assert [field.name for field in catboost.describe(model, CARD).inputs] == ["x0", "x1", "x2", "x3", "x4"]


def test_its_json_form_loads(tmp_path: Path) -> None:
    model, frame, *_ = models.catboost_regressor()
    model.save_model(tmp_path / "model.json", format="json")
    restored = catboost.load(tmp_path / "model.json", CARD)
    signature = catboost.describe(restored, CARD)
    np.testing.assert_allclose(catboost.predict(restored, models.columns(frame), signature)["prediction"], model.predict(frame), rtol=1e-6)


def test_a_model_that_was_never_trained_is_named() -> None:
    from catboost import CatBoostRegressor

    with pytest.raises(ModelFileError, match="this CatBoostRegressor has not been trained"):
        catboost.describe(CatBoostRegressor(), CARD)

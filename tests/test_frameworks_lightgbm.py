"""What LightGBM models say of themselves, and that every kind of them answers as LightGBM does, also as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from modelport.errors import ModelFileError, SignatureError
from modelport.frameworks import Card, lightgbm
from modelport.signature import Field, Signature

CARD = Card("lightgbm", "lightgbm.sklearn.LGBMClassifier", "lightgbm")
MATRIX = models.shipping().to_numpy()
COLUMNS = {f"x{index}": MATRIX[:, index] for index in range(5)}
TARGET = models.shipping_price(models.shipping())
FEW = {"n_estimators": 5, "num_leaves": 7, "n_jobs": 1, "verbose": -1}


def both(model: Any, folder: Path, columns: dict[str, np.ndarray] = COLUMNS) -> dict[str, np.ndarray]:
    """The answers, after making sure that the model gives the same and says the same of itself saved as text, and out of its pickle."""
    signature = lightgbm.describe(model, CARD)
    answers = dict(lightgbm.predict(model, columns, signature))
    assert list(answers) == [field.name for field in signature.outputs]
    saved = lightgbm.save(model, CARD, folder)
    assert saved == "model.txt"
    for restored in (lightgbm.load(folder / saved, CARD), models.rebuilt(lightgbm, model, folder)):
        assert lightgbm.describe(restored, CARD) == signature
        for name, answer in lightgbm.predict(restored, columns, signature).items():
            np.testing.assert_array_equal(answer, answers[name])
    return answers


def test_names_ranges_categories_and_labels_are_known() -> None:
    assert lightgbm.describe(models.lightgbm_classifier().model, CARD).to_dict() == {
        "inputs": [
            {"name": "Größe_(m²)", "kind": "number", "nullable": True, "example": 86.6},
            {"name": "rooms", "kind": "number", "nullable": True, "example": 3.5},
            {"name": "year.built", "kind": "number", "nullable": True, "example": 1964.0},
            {"name": "class", "kind": "string", "nullable": True, "choices": ["brick", "stone", "timber"], "example": "brick"},
            {"name": "has_garden", "kind": "number", "nullable": True, "example": 0.5},
        ],
        "outputs": [
            {"name": "prediction", "kind": "category", "choices": ["cheap", "dear"]},
            {"name": "probabilities", "kind": "number", "dtype": "float64", "shape": [2], "choices": ["cheap", "dear"]},
        ],
    }


def test_what_is_missing_and_what_was_never_seen_counts_as_missing() -> None:
    model, frame, *_ = models.lightgbm_classifier()
    signature = lightgbm.describe(model, CARD)
    record: dict[str, Any] = {field.name: None for field in signature.inputs}
    answer = lightgbm.predict(model, signature.columns([record, record | {"class": "glass"}]), signature)["probabilities"]
    gaps = frame[:2].astype(object)
    gaps[:] = np.nan
    gaps = gaps.astype({name: float for name in frame if name != "class"}).astype({"class": frame["class"].dtype})
    np.testing.assert_array_equal(answer, model.predict_proba(gaps))


@pytest.mark.parametrize("labels", [["a=b", 'c"d\n', "é"], [3, 5, 9], [0.5, 1.5, 2.5]])
def test_labels_of_every_kind_survive(labels: list[Any], tmp_path: Path) -> None:
    from lightgbm import LGBMClassifier

    target = np.array(labels)[np.digitize(TARGET, np.quantile(TARGET, [0.3, 0.6]))]
    if isinstance(labels[0], float):
        target = (target * 2).round()
    model = LGBMClassifier(**FEW).fit(MATRIX, target)
    answers = both(model, tmp_path)
    np.testing.assert_array_equal(answers["prediction"], model.predict_proba(MATRIX).argmax(axis=1).choose(model.classes_))
    np.testing.assert_array_equal(answers["probabilities"], model.predict_proba(MATRIX))


def test_two_labels_that_are_true_and_false(tmp_path: Path) -> None:
    from lightgbm import LGBMClassifier

    model = LGBMClassifier(**FEW).fit(MATRIX, np.median(TARGET) < TARGET)
    assert lightgbm.describe(model, CARD).outputs[0].choices == (False, True)
    assert both(model, tmp_path)["prediction"].dtype == bool


def test_early_stopping_is_kept(tmp_path: Path) -> None:
    import lightgbm as library

    noise = np.random.default_rng(0).normal(size=len(TARGET))
    data = library.Dataset(MATRIX, noise)
    checks = library.Dataset(MATRIX[::-1].copy(), noise, reference=data)
    settings = {"verbose": -1, "num_threads": 1, "num_leaves": 7}
    model = library.train(settings, data, 60, valid_sets=[checks], callbacks=[library.early_stopping(2, verbose=False)])
    assert 0 < model.best_iteration < 60
    np.testing.assert_array_equal(both(model, tmp_path)["prediction"], model.predict(MATRIX))


def test_rankers_and_counts_natively(tmp_path: Path) -> None:
    import lightgbm as library

    ranker = library.LGBMRanker(**FEW).fit(MATRIX, np.arange(300) % 3, group=[10] * 30)
    assert [field.name for field in lightgbm.describe(ranker, CARD).outputs] == ["score"]
    np.testing.assert_array_equal(both(ranker, tmp_path)["score"], ranker.booster_.predict(MATRIX))
    settings = {"objective": "poisson", "verbose": -1, "num_threads": 1}
    poisson = library.train(settings, library.Dataset(MATRIX, TARGET.round()), 5)
    np.testing.assert_array_equal(both(poisson, tmp_path)["prediction"], poisson.predict(MATRIX))


def test_integers_are_categories_too(tmp_path: Path) -> None:
    import pandas as pd
    from lightgbm import LGBMRegressor

    frame = pd.DataFrame({"n": np.arange(90.0), "code": pd.Categorical([30, 10, 70] * 30), "yes": pd.Categorical([True, False, True] * 30)})
    model = LGBMRegressor(**{**FEW, "min_child_samples": 2}).fit(frame, np.arange(90) % 3)
    assert lightgbm.describe(model, CARD).inputs[1:] == (
        Field("code", "integer", nullable=True, example=10),
        Field("yes", "boolean", nullable=True, example=False),
    )
    np.testing.assert_array_equal(both(model, tmp_path, models.columns(frame))["prediction"], model.predict(frame))


def test_a_category_that_was_never_used_is_unknown_and_found_by_its_strings() -> None:
    import pandas as pd
    from lightgbm import LGBMRegressor

    frame = pd.DataFrame({"n": np.arange(90.0), "same": pd.Categorical(["a"] * 90), "word": pd.Categorical(["x", "y", "z"] * 30)})
    model = LGBMRegressor(**{**FEW, "min_child_samples": 2}).fit(frame, np.arange(90) % 3)
    signature = lightgbm.describe(model, CARD)
    assert [field.kind for field in signature.inputs] == ["number", "unknown", "unknown"]
    columns = models.columns(frame)
    np.testing.assert_array_equal(lightgbm.predict(model, columns, signature)["prediction"], model.predict(frame))
    with pytest.raises(SignatureError, match="the model has 2 columns of categories, the signature has 1"):
        lightgbm.predict(model, columns | {"same": np.zeros(90)}, signature)


def test_columns_of_a_matrix_are_numbered(tmp_path: Path) -> None:
    from lightgbm import LGBMRegressor

    model = LGBMRegressor(**FEW).fit(MATRIX, TARGET)
    assert [field.name for field in lightgbm.describe(model, CARD).inputs] == ["x0", "x1", "x2", "x3", "x4"]
    np.testing.assert_array_equal(both(model, tmp_path)["prediction"], model.booster_.predict(MATRIX))


def test_the_names_it_had_before_lightgbm_changed_them_are_taken_by_position() -> None:
    model, frame, *_ = models.lightgbm_classifier()
    signature = lightgbm.describe(model, CARD)
    renamed = [Field(name, field.kind, nullable=True) for name, field in zip(frame.columns, signature.inputs, strict=True)]
    original = Signature(tuple(renamed), signature.outputs)
    np.testing.assert_array_equal(lightgbm.predict(model, models.columns(frame), original)["probabilities"], model.predict_proba(frame))


def test_a_saved_file_still_loads_in_lightgbm_itself(tmp_path: Path) -> None:
    import lightgbm as library

    model, frame, *_ = models.lightgbm_classifier()
    lightgbm.save(model, CARD, tmp_path)
    again = library.Booster(model_file=tmp_path / "model.txt")
    np.testing.assert_array_equal(again.predict(frame), model.predict_proba(frame)[:, 1])


def test_five_thousand_columns(tmp_path: Path) -> None:
    from lightgbm import LGBMRegressor

    frame = models.wide(5000)
    model = LGBMRegressor(**FEW).fit(frame, frame["c0"])
    np.testing.assert_array_equal(both(model, tmp_path, models.columns(frame))["prediction"], model.predict(frame))


def test_a_model_that_was_never_trained_is_named() -> None:
    from lightgbm import LGBMRegressor

    with pytest.raises(ModelFileError, match="this LGBMRegressor has not been trained"):
        lightgbm.describe(LGBMRegressor(), CARD)

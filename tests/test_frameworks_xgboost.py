"""What XGBoost models say of themselves, and that every kind of them answers as XGBoost does, also as UBJSON."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import models
from modelport import inspection
from modelport.errors import ModelFileError, SignatureError
from modelport.frameworks import Card, xgboost
from modelport.signature import Field, Signature

CARD = Card("xgboost", "xgboost.sklearn.XGBRegressor", "xgboost")
MATRIX = models.shipping().to_numpy()
COLUMNS = {f"x{index}": MATRIX[:, index] for index in range(5)}
TARGET = models.shipping_price(models.shipping())


def both(model: Any, folder: Path, columns: dict[str, np.ndarray] = COLUMNS) -> dict[str, np.ndarray]:
    """The answers, after making sure that the model gives the same and says the same of itself saved as UBJSON, and out of its pickle."""
    signature = xgboost.describe(model, CARD)
    answers = dict(xgboost.predict(model, columns, signature))
    assert list(answers) == [field.name for field in signature.outputs]
    saved = xgboost.save(model, CARD, folder)
    assert saved == "model.ubj"
    for restored in (xgboost.load(folder / saved, CARD), models.rebuilt(xgboost, model, folder)):
        assert xgboost.describe(restored, CARD) == signature
        for name, answer in xgboost.predict(restored, columns, signature).items():
            np.testing.assert_array_equal(answer, answers[name])
    return answers


def test_the_shipping_regressor_has_five_numbers_and_a_price() -> None:
    assert xgboost.describe(models.xgboost_regressor().model, CARD).to_dict() == {
        "inputs": [
            {"name": "price", "kind": "number", "nullable": True, "example": 128.6},
            {"name": "product_weight_g", "kind": "number", "nullable": True, "example": 13550.0},
            {"name": "product_height_cm", "kind": "number", "nullable": True, "example": 39.0},
            {"name": "delivery_distance_km", "kind": "number", "nullable": True, "example": 723.6},
            {"name": "product_volume_cm3", "kind": "number", "nullable": True},
        ],
        "outputs": [{"name": "prediction", "kind": "number", "dtype": "float32"}],
    }


def test_feature_types_and_categories_are_known() -> None:
    signature = xgboost.describe(models.xgboost_classifier().model, CARD)
    assert [(field.name, field.kind, field.nullable) for field in signature.inputs] == [
        ("Größe (m²)", "number", True),
        ("rooms", "integer", True),
        ("year.built", "number", True),
        ("class", "category", True),
        ("has garden", "boolean", True),
    ]
    assert signature.inputs[3].choices == ("brick", "stone", "timber")
    assert [(field.name, field.choices) for field in signature.outputs] == [("prediction", (0, 1, 2)), ("probabilities", (0, 1, 2))]


def test_missing_values_of_every_kind_are_nan_to_the_model() -> None:
    import pandas as pd

    model, frame, *_ = models.xgboost_classifier()
    signature = xgboost.describe(model, CARD)
    record = {field.name: None for field in signature.inputs}
    answer = xgboost.predict(model, signature.columns([record]), signature)
    gaps = pd.DataFrame({name: [np.nan] for name in frame.columns}).astype({"class": frame["class"].dtype})
    np.testing.assert_array_equal(answer["probabilities"], model.predict_proba(gaps))


def test_integers_are_categories_too(tmp_path: Path) -> None:
    import pandas as pd
    from xgboost import XGBRegressor

    frame = pd.DataFrame({"code": pd.Categorical([30, 10, 70] * 20), "word": pd.Categorical(["e", "b", "ccc"] * 20)})
    model = XGBRegressor(n_estimators=3, enable_categorical=True, n_jobs=1).fit(frame, np.arange(60))
    assert xgboost.describe(model, CARD).inputs == (
        Field("code", "category", nullable=True, choices=(10, 30, 70), example=10),
        Field("word", "category", nullable=True, choices=("b", "ccc", "e"), example="b"),
    )
    np.testing.assert_array_equal(both(model, tmp_path, models.columns(frame))["prediction"], model.predict(frame))


@pytest.mark.parametrize("words", [["é", "b", "ccc"], ["Köln", "Łódź", "Jena"], ["ä", "öö", "b"]])
def test_categories_that_xgboost_keeps_in_part_only_must_be_stated(words: list[str], tmp_path: Path) -> None:
    """XGBoost counts characters where it should count bytes: behind the first letter that is not ASCII its categories are cut wrongly."""
    import pandas as pd
    from xgboost import XGBRegressor

    frame = pd.DataFrame({"word": pd.Categorical(words * 20), "n": np.arange(60.0)})
    model = XGBRegressor(n_estimators=3, enable_categorical=True, n_jobs=1).fit(frame, np.arange(60) % 3)
    signature = xgboost.describe(model, CARD)
    assert [field.kind for field in signature.inputs] == ["unknown", "number"]
    expected = model.predict(frame)
    xgboost.save(model, CARD, tmp_path)
    for choices in (words, words[::-1]):
        stated = Signature((Field("word", "category", choices=tuple(choices)), signature.inputs[1]), signature.outputs)
        for one in (model, xgboost.load(tmp_path / "model.ubj", CARD)):
            np.testing.assert_array_equal(xgboost.predict(one, models.columns(frame), stated)["prediction"], expected)
    for choices in (words[:2], ["a", "b", "c"]):
        stated = Signature((Field("word", "category", choices=tuple(choices)), signature.inputs[1]), signature.outputs)
        with pytest.raises(SignatureError, match=f"the categories of 'word' are not .* it has 3, .* the signature has {len(choices)}"):
            xgboost.predict(model, models.columns(frame), stated)


def test_codes_without_their_categories_are_integers(tmp_path: Path) -> None:
    import xgboost as library

    codes = np.array([[0.0], [1.0], [2.0]] * 10)
    model = library.train({"nthread": 1}, library.DMatrix(codes, np.arange(30), feature_types=["c"], enable_categorical=True), 3)
    assert xgboost.describe(model, CARD).inputs == (Field("x0", "integer", nullable=True),)
    expected = model.predict(library.DMatrix(codes, feature_types=["c"], enable_categorical=True))
    np.testing.assert_array_equal(both(model, tmp_path, {"x0": codes[:, 0].astype(int)})["prediction"], expected)


def test_early_stopping_is_kept(tmp_path: Path) -> None:
    from xgboost import XGBRegressor

    noise = np.random.default_rng(0).normal(size=len(TARGET))
    model = XGBRegressor(n_estimators=60, early_stopping_rounds=2, n_jobs=1)
    model.fit(MATRIX, noise, eval_set=[(MATRIX[::-1], noise)], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    np.testing.assert_array_equal(both(model, tmp_path)["prediction"], model.predict(MATRIX))


def test_a_native_booster_uses_all_its_trees_as_xgboost_does(tmp_path: Path) -> None:
    import xgboost as library

    data = library.DMatrix(MATRIX, TARGET)
    noise = library.DMatrix(MATRIX, np.random.default_rng(0).normal(size=300))
    model = library.train({"nthread": 1}, data, 40, evals=[(noise, "noise")], early_stopping_rounds=2, verbose_eval=False)
    np.testing.assert_array_equal(both(model, tmp_path)["prediction"], model.predict(library.DMatrix(MATRIX)))


def test_a_number_that_means_missing_is_kept(tmp_path: Path) -> None:
    from xgboost import XGBRegressor

    matrix = np.where(MATRIX > 500, -999.0, MATRIX)
    model = XGBRegressor(n_estimators=5, missing=-999.0, n_jobs=1).fit(matrix, TARGET)
    columns = {f"x{index}": matrix[:, index] for index in range(5)}
    np.testing.assert_array_equal(both(model, tmp_path, columns)["prediction"], model.predict(matrix))


@pytest.mark.parametrize("objective", ["binary:logistic", "binary:hinge", "binary:logitraw"])
def test_two_classes(objective: str, tmp_path: Path) -> None:
    from xgboost import XGBClassifier

    model = XGBClassifier(n_estimators=5, objective=objective, n_jobs=1).fit(MATRIX, np.median(TARGET) < TARGET)
    answers = both(model, tmp_path)
    np.testing.assert_array_equal(answers["prediction"], model.predict(MATRIX))
    if objective == "binary:logistic":
        np.testing.assert_array_equal(answers["probabilities"], model.predict_proba(MATRIX))
    else:
        assert list(answers) == ["prediction"]


@pytest.mark.parametrize("objective", ["multi:softprob", "multi:softmax"])
def test_many_classes_natively(objective: str, tmp_path: Path) -> None:
    import xgboost as library

    labels = np.digitize(TARGET, np.quantile(TARGET, [0.3, 0.6]))
    model = library.train({"objective": objective, "num_class": 3, "nthread": 1}, library.DMatrix(MATRIX, labels), 5)
    answers = both(model, tmp_path)
    own = model.predict(library.DMatrix(MATRIX))
    if objective == "multi:softprob":
        np.testing.assert_array_equal(answers["probabilities"], own)
    np.testing.assert_array_equal(answers["prediction"], own if own.ndim == 1 else own.argmax(axis=1))
    np.testing.assert_allclose(answers["probabilities"].sum(axis=1), 1, rtol=1e-6)


def test_several_targets_several_labels_ranks_linear_and_random_forests(tmp_path: Path) -> None:
    from xgboost import XGBClassifier, XGBRanker, XGBRegressor, XGBRFRegressor

    targets = np.column_stack([TARGET, -TARGET])
    several = XGBRegressor(n_estimators=3, n_jobs=1).fit(MATRIX, targets)
    assert xgboost.describe(several, CARD).outputs == (Field("prediction", "number", dtype="float32", shape=(2,)),)
    np.testing.assert_array_equal(both(several, tmp_path)["prediction"], several.predict(MATRIX))
    labels = XGBClassifier(n_estimators=3, n_jobs=1).fit(MATRIX, (targets > np.median(TARGET)).astype(int))
    np.testing.assert_array_equal(both(labels, tmp_path)["prediction"], labels.predict(MATRIX))
    np.testing.assert_array_equal(both(labels, tmp_path)["probabilities"], labels.predict_proba(MATRIX))
    ranker = XGBRanker(n_estimators=3, n_jobs=1).fit(MATRIX, np.arange(300) % 3, qid=np.repeat(np.arange(30), 10))
    assert [field.name for field in xgboost.describe(ranker, CARD).outputs] == ["score"]
    np.testing.assert_array_equal(both(ranker, tmp_path)["score"], ranker.predict(MATRIX))
    forest = XGBRFRegressor(n_estimators=5, n_jobs=1, random_state=0).fit(MATRIX, TARGET)
    np.testing.assert_array_equal(both(forest, tmp_path)["prediction"], forest.predict(MATRIX))
    dart = XGBRegressor(n_estimators=5, booster="dart", n_jobs=1).fit(MATRIX, TARGET)
    np.testing.assert_array_equal(both(dart, tmp_path)["prediction"], dart.predict(MATRIX))


def test_a_file_that_the_scikit_learn_class_wrote_answers_as_that_class_does(tmp_path: Path) -> None:
    model = models.xgboost_classifier().model
    for name in ("a.ubj", "a.json"):
        model.save_model(tmp_path / name)
        restored = xgboost.load(tmp_path / name, CARD)
        signature = xgboost.describe(restored, CARD)
        assert signature == xgboost.describe(model, CARD)
        columns = {key: models.columns(models.xgboost_classifier().frame)[key] for key in restored.names}
        expected = model.predict_proba(models.xgboost_classifier().frame)
        np.testing.assert_array_equal(xgboost.predict(restored, columns, signature)["probabilities"], expected)


def test_a_saved_file_still_loads_in_xgboost_itself(tmp_path: Path) -> None:
    from xgboost import XGBClassifier

    model, frame, *_ = models.xgboost_classifier()
    xgboost.save(model, CARD, tmp_path)
    again = XGBClassifier()
    again.load_model(tmp_path / "model.ubj")
    np.testing.assert_array_equal(again.predict_proba(frame), model.predict_proba(frame))


def test_saving_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = pickle.loads(pickle.dumps(models.xgboost_regressor().model))
    xgboost.save(model, CARD, tmp_path)
    assert model.get_booster().attributes() == {}


def test_a_column_may_be_called_like_the_place_where_categories_stand(tmp_path: Path) -> None:
    import pandas as pd
    from xgboost import XGBRegressor

    frame = pd.DataFrame({'"cats":{"enc":': pd.Categorical(["a", "b", "c"] * 10)})
    model = XGBRegressor(n_estimators=2, enable_categorical=True, n_jobs=1).fit(frame, np.arange(30))
    assert xgboost.describe(model, CARD).inputs[0].choices == ("a", "b", "c")


def test_five_thousand_columns(tmp_path: Path) -> None:
    from xgboost import XGBRegressor

    frame = models.wide(5000)
    model = XGBRegressor(n_estimators=2, n_jobs=1).fit(frame, frame["c0"])
    np.testing.assert_array_equal(both(model, tmp_path, models.columns(frame))["prediction"], model.predict(frame))


def test_a_model_that_was_never_trained_is_named() -> None:
    from xgboost import XGBRegressor

    with pytest.raises(ModelFileError, match="this XGBRegressor has not been trained"):
        xgboost.describe(XGBRegressor(), CARD)


def test_the_names_of_what_a_file_says_are_json() -> None:
    json.dumps(xgboost.describe(models.xgboost_classifier().model, CARD).to_dict())


# Pickles


def pickled_by_an_older_xgboost(folder: Path) -> Path:
    """A classifier as versions before 1.6 pickled it: JSON in the buffer, the names beside it, and an encoder of the labels."""
    from sklearn.preprocessing import LabelEncoder
    from xgboost import XGBClassifier

    frame = models.iris()
    model = XGBClassifier(n_estimators=3, n_jobs=1, missing=-1.0).fit(frame.to_numpy(), np.repeat([0, 1, 2], 50))
    booster = model.get_booster()
    parts = {"Config": json.loads(booster.save_config()), "Model": json.loads(booster.save_raw("json"))}
    state = {"handle": bytearray(json.dumps(parts).encode()), "feature_names": list(frame.columns)}
    model._le = LabelEncoder().fit(models.iris_species())
    path = folder / "old.pkl"
    path.write_bytes(pickle.dumps(Pickled(model, state)))
    return path


class Pickled:
    """Pickled as an XGBClassifier whose booster has a state of its own."""

    def __init__(self, model: Any, state: dict[str, Any]) -> None:
        self.parts = (model, state)

    def __reduce__(self) -> Any:
        import xgboost as library

        model, state = self.parts
        booster = Made(library.Booster, state)
        return Made(type(model), {**vars(model), "_Booster": booster}).__reduce__()


class Made:
    """Pickled as an object of a class, made without arguments, with a state."""

    def __init__(self, cls: type, state: dict[str, Any]) -> None:
        self.parts = (cls, state)

    def __reduce__(self) -> Any:
        import copyreg

        cls, state = self.parts
        return copyreg._reconstructor, (cls, object, None), state


def test_a_pickle_of_before_1_6_is_rebuilt_with_its_names_and_labels(tmp_path: Path) -> None:
    contents = inspection.read(pickled_by_an_older_xgboost(tmp_path))
    card = xgboost.detect(contents)
    assert card is not None
    assert (card.classes, card.features) == (("setosa", "versicolor", "virginica"), tuple(models.iris().columns))
    model = xgboost.rebuild(contents, card)
    assert (model.names, model.missing, model.sklearn_type) == (tuple(models.iris().columns), -1.0, "classifier")
    columns = models.columns(models.iris())
    xgboost.save(model, card, tmp_path)
    for one in (model, xgboost.load(tmp_path / "model.ubj", card)):
        answers = xgboost.predict(one, columns, xgboost.describe(one, card))
        assert set(answers["prediction"]) == {"setosa", "versicolor", "virginica"}
        assert (answers["prediction"] == models.iris_species()).mean() > 0.9


def test_an_old_pickle_answers_as_when_it_is_unpickled() -> None:
    path = models.OLD / "xgboost-1.6.2" / "regressor.pkl"
    then = json.loads(path.with_suffix(".json").read_text())
    frame = pd.DataFrame(then["rows"], columns=then["columns"], dtype=float)
    contents = inspection.read(path)
    card = xgboost.detect(contents)
    assert card is not None
    model = xgboost.rebuild(contents, card)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unpickled = pickle.loads(path.read_bytes())
        expected = unpickled.predict(frame)
    answers = xgboost.predict(model, models.columns(frame), xgboost.describe(model, card))
    np.testing.assert_array_equal(answers["prediction"], expected)
    np.testing.assert_array_equal(answers["prediction"], np.float32(then["prediction"]))


def test_a_pickle_without_a_booster_and_one_in_a_form_that_is_gone_are_one_line(tmp_path: Path) -> None:
    import xgboost as library

    for state, words in (
        ({"handle": None}, "this Booster has not been trained"),
        ({"handle": bytearray(b"CONFIG-offset:" + b"x" * 64)}, "holds a Booster in a form that xgboost has given up"),
        ({"handle": bytearray(models.xgboost_booster().model.save_raw("ubj")[:600])}, "has given up"),
    ):
        path = tmp_path / "model.pkl"
        path.write_bytes(pickle.dumps(Made(library.Booster, state)))
        contents = inspection.read(path)
        card = xgboost.detect(contents)
        assert card is not None
        with pytest.raises(ModelFileError, match=words):
            xgboost.rebuild(contents, card)

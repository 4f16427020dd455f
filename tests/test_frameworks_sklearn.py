"""What scikit-learn models say of themselves, and how they are loaded, called and saved."""

from __future__ import annotations

import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from modelport.errors import MissingLibrary, ModelFileError, VersionMismatch
from modelport.frameworks import Card, sklearn
from modelport.frameworks.tabular import library
from modelport.signature import Field, Signature

CARD = Card("sklearn", "sklearn.svm._classes.SVC", "scikit-learn", version="1.9.1")


def described(name: str) -> dict[str, dict[str, Any]]:
    signature = sklearn.describe(models.MODELS[name]().model, CARD)
    return {field.name: field.to_dict() for field in (*signature.inputs, *signature.outputs)}


def answers(model: Any, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return dict(sklearn.predict(model, columns, sklearn.describe(model, CARD)))


def houses_described() -> dict[str, Any]:
    return {field["name"]: {key: value for key, value in field.items() if key != "name"} for field in described("pipeline").values()}


# What a model says of itself


def test_a_classifier_trained_on_a_frame_has_its_names_and_its_labels() -> None:
    assert sklearn.describe(models.iris_svc().model, CARD).to_dict() == {
        "inputs": [
            {"name": "sepal_length", "kind": "number", "example": 5.996},
            {"name": "sepal_width", "kind": "number", "example": 2.848},
            {"name": "petal_length", "kind": "number", "example": 4.463},
            {"name": "petal_width", "kind": "number", "example": 1.493},
        ],
        "outputs": [{"name": "prediction", "kind": "category", "choices": ["setosa", "versicolor", "virginica"]}],
    }


def test_a_classifier_trained_on_a_matrix_has_numbered_inputs_and_its_probabilities_are_named_by_class() -> None:
    fields = described("iris_svc_proba")
    assert list(fields) == ["x0", "x1", "x2", "x3", "prediction", "probabilities"]
    assert fields["prediction"]["choices"] == [0, 1, 2]
    assert fields["probabilities"] == {"name": "probabilities", "kind": "number", "dtype": "float64", "shape": [3], "choices": [0, 1, 2]}


def test_a_pipeline_asks_for_the_columns_it_needs_in_the_kinds_its_steps_know() -> None:
    assert houses_described() == {
        "Größe (m²)": {"kind": "number", "nullable": True, "example": 86.75},
        "rooms": {"kind": "number", "nullable": True, "example": 4.0},
        "year.built": {"kind": "number", "nullable": True, "example": 1964.0},
        "class": {"kind": "string", "nullable": True, "choices": ["brick", "stone", "timber"], "example": "timber"},
        "city": {"kind": "string", "nullable": True, "choices": ["Jena", "Köln", "New York", "Łódź"], "example": "Köln"},
        "has garden": {"kind": "number"},
        "prediction": {"kind": "category", "choices": ["cheap", "dear"]},
        "probabilities": {"kind": "number", "dtype": "float64", "shape": [2], "choices": ["cheap", "dear"]},
    }


def test_an_encoder_that_refuses_what_it_has_not_seen_makes_its_categories_binding() -> None:
    fields = described("strict_pipeline")
    assert fields["class"] == {"name": "class", "kind": "category", "choices": ["brick", "stone", "timber"], "example": "brick"}
    assert fields["has garden"] == {"name": "has garden", "kind": "boolean", "example": False}
    assert fields["prediction"] == {"name": "prediction", "kind": "number", "dtype": "float64"}


def test_missing_values_are_taken_where_the_estimator_takes_them() -> None:
    assert described("hist_gradient_boosting_numbers")["rooms"]["nullable"]
    assert described("random_forest")["petal_width"]["nullable"]
    assert "nullable" not in described("grid_search")["petal_width"]


def test_the_categories_of_hist_gradient_boosting_are_known_strings() -> None:
    assert described("hist_gradient_boosting")["class"] == {
        "name": "class",
        "kind": "string",
        "nullable": True,
        "choices": ["brick", "stone", "timber"],
        "example": "brick",
    }


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("multi_output", [{"name": "prediction", "kind": "number", "dtype": "float64", "shape": [2]}]),
        (
            "multi_label",
            [
                {"name": "prediction_0", "kind": "category", "choices": ["cheap", "dear"]},
                {"name": "prediction_1", "kind": "category", "choices": ["large", "small"]},
                {"name": "probabilities_0", "kind": "number", "dtype": "float64", "shape": [2], "choices": ["cheap", "dear"]},
                {"name": "probabilities_1", "kind": "number", "dtype": "float64", "shape": [2], "choices": ["large", "small"]},
            ],
        ),
        (
            "isolation_forest",
            [{"name": "prediction", "kind": "category", "choices": [1, -1]}, {"name": "score", "kind": "number", "dtype": "float64"}],
        ),
        ("kmeans", [{"name": "prediction", "kind": "integer"}]),
    ],
)
def test_what_is_no_plain_classifier_or_regressor_answers_in_its_own_form(name: str, outputs: list[dict[str, Any]]) -> None:
    assert [field.to_dict() for field in sklearn.describe(models.MODELS[name]().model, CARD).outputs] == outputs


def test_a_vectorizer_makes_one_field_of_text() -> None:
    assert described("text")["text"] == {"name": "text", "kind": "text"}


def test_a_vectorizer_in_a_branch_makes_a_field_of_text_of_its_column() -> None:
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    frame = models.text().frame.assign(stars=[5, 4, 5, 5, 1, 2, 1, 1])
    prepare = ColumnTransformer([("words", CountVectorizer(), "text"), ("stars", "passthrough", ["stars"])])
    model = make_pipeline(prepare, LogisticRegression()).fit(frame, [label for _, label in models.REVIEWS])
    signature = sklearn.describe(model, CARD)
    assert [(field.name, field.kind) for field in signature.inputs] == [("text", "text"), ("stars", "number")]
    np.testing.assert_array_equal(answers(model, models.columns(frame))["prediction"], model.predict(frame))


@pytest.mark.parametrize("labels", [[True, False], [1.0, 2.0], [7, 9]])
def test_labels_keep_their_type(labels: list[Any]) -> None:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit([[0.0], [1.0]], labels)
    signature = sklearn.describe(model, CARD)
    assert sorted(signature.outputs[0].choices) == sorted(labels)
    assert {type(choice) for choice in signature.outputs[0].choices} == {type(labels[0])}
    answer = signature.records(sklearn.predict(model, {"x0": np.array([0.0, 1.0])}, signature))
    assert [row["prediction"] for row in answer] == labels


def test_a_transformer_answers_with_a_vector() -> None:
    from sklearn.decomposition import PCA

    model = PCA(2).fit(models.iris())
    signature = sklearn.describe(model, CARD)
    assert [field.to_dict() for field in signature.outputs] == [{"name": "prediction", "kind": "number", "dtype": "float64", "shape": [2]}]
    np.testing.assert_array_equal(
        sklearn.predict(model, models.columns(models.iris()), signature)["prediction"], model.transform(models.iris())
    )


def test_several_yes_or_no_answers_are_a_vector_named_by_class() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    matrix = models.iris().to_numpy()
    marks = np.column_stack([matrix[:, 0] > 5.8, matrix[:, 1] > 3, matrix[:, 2] > 4]).astype(int)
    model = OneVsRestClassifier(LogisticRegression()).fit(matrix, marks)
    signature = sklearn.describe(model, CARD)
    assert [(field.name, field.shape, field.choices) for field in signature.outputs] == [
        ("prediction", (3,), (0, 1, 2)),
        ("probabilities", (3,), (0, 1, 2)),
    ]
    columns = {f"x{index}": matrix[:, index] for index in range(4)}
    first = signature.records(sklearn.predict(model, columns, signature))[0]
    assert first["prediction"] == dict(zip("012", marks[0].tolist(), strict=True))


def shout(values: Any) -> Any:
    return values


def test_what_ones_own_function_takes_is_unknown() -> None:
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    model = make_pipeline(FunctionTransformer(shout), LinearRegression()).fit(models.iris(), range(150))
    assert {field.kind for field in sklearn.describe(model, CARD).inputs} == {"unknown"}
    np.testing.assert_allclose(answers(model, models.columns(models.iris()))["prediction"], model.predict(models.iris()), rtol=1e-12)


def test_columns_chosen_by_number_slice_mask_and_type_are_found() -> None:
    from sklearn.compose import ColumnTransformer, make_column_selector
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = models.houses().drop(columns=["city", "year.built"])
    mask = [True, True, False, False, False]
    for spec in (["Größe (m²)", "rooms"], [0, 1], [0, -4], slice("Größe (m²)", "rooms"), slice(0, 2), mask):
        prepare = ColumnTransformer(
            [
                ("numbers", StandardScaler(), spec),
                ("words", OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include=["str", "object"])),
            ]
        )
        model = make_pipeline(prepare, LinearRegression()).fit(frame, models.price(models.houses()))
        kinds = {field.name: field.kind for field in sklearn.describe(model, CARD).inputs}
        assert kinds == {"Größe (m²)": "number", "rooms": "number", "class": "string", "note": "string"}
        columns = {name: column for name, column in models.columns(frame).items() if name in kinds}
        np.testing.assert_array_equal(answers(model, columns)["prediction"], model.predict(frame))


def test_numbers_as_categories_are_integers_and_binding_where_the_encoder_says_so() -> None:
    import pandas as pd
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

    frame = pd.DataFrame({"code": [3, 1, 7, 3]})
    strict = make_pipeline(OrdinalEncoder(), LinearRegression()).fit(frame, [1, 2, 3, 1])
    assert sklearn.describe(strict, CARD).inputs == (Field("code", "category", choices=(1, 3, 7), example=1),)
    signature = sklearn.describe(strict, CARD)
    np.testing.assert_array_equal(
        sklearn.predict(strict, signature.columns([{"code": 7}, {"code": 1}]), signature)["prediction"],
        strict.predict(pd.DataFrame({"code": [7, 1]})),
    )
    tolerant = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LinearRegression()).fit(frame, [1, 2, 3, 1])
    assert sklearn.describe(tolerant, CARD).inputs == (Field("code", "integer", example=1),)


def test_a_category_that_was_missing_in_training_may_be_missing() -> None:
    import pandas as pd
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    frame = pd.DataFrame({"city": ["Jena", None, "Köln", "Jena"]})
    model = make_pipeline(OneHotEncoder(), LinearRegression()).fit(frame, [1, 2, 3, 1])
    assert sklearn.describe(model, CARD).inputs == (Field("city", "category", nullable=True, choices=("Jena", "Köln"), example="Jena"),)
    np.testing.assert_array_equal(answers(model, models.columns(frame))["prediction"], model.predict(frame))


@pytest.mark.parametrize("name", ["xgboost_classifier", "lightgbm_classifier", "lightgbm_regressor"])
def test_a_search_over_another_librarys_model_speaks_as_that_model(name: str) -> None:
    from sklearn.base import clone
    from sklearn.model_selection import GridSearchCV

    from modelport import plugins

    trained = models.MODELS[name]()
    target = models.band(models.houses()) if len(trained.frame) == 200 else models.shipping_price(trained.frame)
    search = GridSearchCV(clone(trained.model), {"n_estimators": [3]}, cv=2).fit(trained.frame, target)
    own = plugins.framework(trained.framework)
    assert sklearn.describe(search, CARD) == own.describe(search.best_estimator_, CARD)
    names = [field.name for field in own.describe(trained.model, CARD).inputs]
    columns = dict(zip(names, models.columns(trained.frame).values(), strict=True))
    np.testing.assert_array_equal(answers(search, columns)["prediction"], search.predict(trained.frame))


def test_another_librarys_model_ends_a_pipeline() -> None:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from xgboost import XGBRegressor

    target = models.shipping_price(models.shipping())
    model = make_pipeline(StandardScaler(), XGBRegressor(n_estimators=3, n_jobs=1)).fit(models.shipping(), target)
    signature = sklearn.describe(model, CARD)
    assert all(field.nullable and field.kind == "number" for field in signature.inputs)
    np.testing.assert_array_equal(answers(model, models.columns(models.shipping()))["prediction"], model.predict(models.shipping()))


@pytest.mark.parametrize("wrap", ["calibrated", "voting", "stacking", "bagging", "target"])
def test_estimators_around_others_answer_as_they_do(wrap: str) -> None:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.tree import DecisionTreeClassifier

    imputed = make_pipeline(SimpleImputer(), LogisticRegression(max_iter=500))
    model = {
        "calibrated": CalibratedClassifierCV(imputed, cv=2),
        "voting": VotingClassifier([("a", imputed), ("b", DecisionTreeClassifier(random_state=0))], voting="soft"),
        "stacking": StackingClassifier([("a", imputed)], cv=2),
        "bagging": BaggingClassifier(imputed, n_estimators=3, random_state=0),
        "target": TransformedTargetRegressor(LinearRegression(), func=np.log1p, inverse_func=np.expm1),
    }[wrap]
    target = np.arange(150) if wrap == "target" else models.iris_species()
    model.fit(models.iris(), target)
    signature = sklearn.describe(model, CARD)
    assert [field.name for field in signature.inputs] == list(models.iris().columns)
    assert all(field.nullable for field in signature.inputs) == (wrap != "target")
    answer, expected = answers(model, models.columns(models.iris()))["prediction"], model.predict(models.iris())
    if wrap == "target":
        np.testing.assert_allclose(answer, expected, rtol=1e-12)  # BLAS adds up by the layout of a frame
    else:
        np.testing.assert_array_equal(answer, expected)


def test_describing_and_predicting_leave_the_model_as_it_was() -> None:
    model = pickle.loads(pickle.dumps(models.iris_svc().model))
    before = pickle.dumps(model)
    answers(model, models.columns(models.iris()))
    assert pickle.dumps(model) == before
    assert list(model.feature_names_in_) == list(models.iris().columns)


# Missing and unseen values


def test_missing_values_reach_the_imputer_and_the_trees_as_nan() -> None:
    for name in ("pipeline", "hist_gradient_boosting", "hist_gradient_boosting_numbers"):
        model, frame, *_ = models.MODELS[name]()
        signature = sklearn.describe(model, CARD)
        gaps = frame.copy()
        for field in signature.inputs:
            if field.nullable and field.name not in ("rooms", "has garden"):
                gaps.loc[:50, field.name] = np.nan
        columns = {field.name: models.columns(gaps)[field.name] for field in signature.inputs}
        np.testing.assert_array_equal(sklearn.predict(model, columns, signature)["prediction"], model.predict(gaps))


def test_a_category_that_was_never_seen_is_taken_where_the_encoder_takes_it() -> None:
    for name in ("pipeline", "hist_gradient_boosting"):
        model, frame, *_ = models.MODELS[name]()
        strange = frame.assign(**{"class": "glass"})
        if name == "hist_gradient_boosting":
            strange["class"] = strange["class"].astype("category")
        signature = sklearn.describe(model, CARD)
        columns = {field.name: models.columns(strange)[field.name] for field in signature.inputs}
        np.testing.assert_array_equal(sklearn.predict(model, columns, signature)["probabilities"], model.predict_proba(strange))


# Loading


def test_a_file_is_loaded_with_one_thread(tmp_path: Path) -> None:
    assert models.random_forest().model.n_jobs == -1
    assert sklearn.load(models.write("random_forest", tmp_path), CARD).n_jobs == 1


@pytest.mark.parametrize("compress", ["gzip", "zlib", "bz2", "xz", "lzma"])
def test_compressed_files_load(compress: str, tmp_path: Path) -> None:
    import joblib

    path = tmp_path / "model.joblib"
    joblib.dump(models.iris_svc().model, path, compress=(compress, 3))
    assert sklearn.load(path, CARD).kernel == "linear"


def forged(folder: Path, version: bytes) -> Path:
    """A pickle that says that another version of scikit-learn wrote it."""
    import sklearn as library

    path = folder / "old.pkl"
    raw = pickle.dumps(models.iris_svc().model)
    here = library.__version__.encode()
    assert len(here) == len(version)
    path.write_bytes(raw.replace(here, version))
    return path


def test_a_part_of_another_minor_version_is_refused_unless_the_card_said_so_before(tmp_path: Path) -> None:
    path = forged(tmp_path, b"1.3.2")
    with pytest.raises(VersionMismatch, match=r"old.pkl was written by scikit-learn 1.3.2, you have 1.9.1") as caught:
        sklearn.load(path, CARD)
    assert caught.value.hint == "Install that version: pip install scikit-learn==1.3.2"
    assert sklearn.load(path, Card("sklearn", "sklearn.svm._classes.SVC", "scikit-learn", version="1.3.2")).kernel == "linear"


def test_another_patch_of_the_same_version_loads_without_a_word(tmp_path: Path) -> None:
    assert sklearn.load(forged(tmp_path, b"1.9.0"), CARD).kernel == "linear"


def test_a_name_from_the_training_script_is_named_with_what_to_do(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import pickle\n"
        "from sklearn.preprocessing import FunctionTransformer\n"
        "def clean(values):\n    return values\n"
        f"pickle.dump(FunctionTransformer(clean), open({str(tmp_path / 'model.pkl')!r}, 'wb'))\n"
    )
    subprocess.run([sys.executable, str(script)], check=True)
    with pytest.raises(ModelFileError) as caught:
        sklearn.load(tmp_path / "model.pkl", CARD)
    assert caught.value.message == "model.pkl needs 'clean', which was defined in the script or notebook that trained the model"
    assert caught.value.hint == "Put its definition into a module and bring that along: --code my_code.py"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"cmy_features\nclean\n.", "model.pkl needs the module 'my_features', which is not here"),
        (b"csklearn.svm.classes\nSVC\n.", "model.pkl needs the module sklearn.svm.classes, which the installed sklearn does not have"),
        (b"csklearn.svm\nSVM\n.", "model.pkl needs sklearn.svm.SVM, which the installed sklearn does not have"),
        (b"\x80\x04", "model.pkl is cut short or damaged: "),
        (b"", "model.pkl is cut short or damaged: "),
        (b"\x80\x04]K\x01R.", "model.pkl does not load: "),
    ],
)
def test_a_pickle_that_does_not_load_says_why_in_one_line(raw: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(raw)
    with pytest.raises(ModelFileError) as caught:
        sklearn.load(tmp_path / "model.pkl", CARD)
    assert caught.value.message.startswith(message)
    assert "\n" not in caught.value.message


def test_a_library_that_is_not_here_is_told_from_one_that_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingLibrary, match="scikit-nothing is not installed") as caught:
        library("scikit_nothing", "scikit-nothing", "nothing")
    assert caught.value.hint == "pip install 'modelport[nothing]'"
    (tmp_path / "broken_library.py").write_text("raise ImportError('libgomp.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingLibrary, match="broken-library is installed and does not import: ImportError: libgomp"):
        library("broken_library", "broken-library", "nothing")


def test_an_estimator_that_was_never_trained_is_named() -> None:
    from sklearn.svm import SVC

    with pytest.raises(ModelFileError, match="this SVC has not been trained"):
        sklearn.describe(SVC(), CARD)


def test_an_estimator_that_cannot_answer_for_new_rows_is_named() -> None:
    from sklearn.cluster import DBSCAN

    model = DBSCAN().fit(models.iris().to_numpy())
    with pytest.raises(ModelFileError, match="a DBSCAN answers nothing about new rows"):
        answers(model, {f"x{index}": np.zeros(1) for index in range(4)})


# Saving


def test_a_skops_file_has_no_dates_and_no_addresses(tmp_path: Path) -> None:
    assert sklearn.save(models.text().model, CARD, tmp_path) == "model.skops"
    with zipfile.ZipFile(tmp_path / "model.skops") as saved:
        assert {member.date_time for member in saved.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        names = saved.namelist()
    assert names[0] == "schema.json"
    assert names[1:] == [f"{index}.npy" for index in range(len(names) - 1)]


def test_a_large_forest_is_not_tried_in_skops(tmp_path: Path) -> None:
    assert sklearn.save(models.random_forest().model, CARD, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_what_is_five_thousand_columns_wide_is_called_with_a_bare_matrix() -> None:
    model, frame, *_ = models.wide_5000()
    signature = sklearn.describe(model, CARD)
    assert len(signature.inputs) == 5000
    only_first = Signature(signature.inputs, signature.outputs)
    row = {field.name: np.zeros(1) for field in only_first.inputs}
    np.testing.assert_allclose(sklearn.predict(model, row, only_first)["prediction"], [model.intercept_])
    assert len(frame.columns) == 5000

"""What holds for every framework: its models answer as their libraries do, in each form of the columns, before and after they are saved."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from modelport import inspection, packing, plugins
from modelport.errors import ModelFileError, SignatureError
from modelport.frameworks import Card
from modelport.signature import Field, Signature

NAMES = sorted(models.MODELS)


def card(name: str) -> Card:
    trained = models.MODELS[name]()
    return Card(trained.framework, f"{type(trained.model).__module__}.{type(trained.model).__name__}", trained.framework)


@cache
def loaded(name: str, folder: Path) -> Any:
    return packing.load(models.write(name, folder), card(name)).model


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def given(name: str, signature: Signature) -> dict[str, np.ndarray]:
    """The columns of the frame it was trained on, under the names of the signature: LightGBM changes them."""
    frame = models.MODELS[name]().frame
    renamed = frame.set_axis([column.replace(" ", "_") for column in frame.columns], axis=1) if name.startswith("lightgbm") else frame
    columns = models.columns(renamed)
    return {field.name: columns[field.name] for field in signature.inputs}


def own(name: str) -> dict[str, np.ndarray]:
    """What the library itself answers to the frame that a model was trained on."""
    model, frame, framework, _ = models.MODELS[name]()
    match framework:
        case "sklearn":
            return own_sklearn(name, model, frame)
        case "xgboost":
            return own_xgboost(model, frame)
        case "lightgbm":
            chances = model.predict_proba(frame) if hasattr(model, "predict_proba") else model.predict(frame)
            if name == "lightgbm_booster":
                return {"prediction": chances.argmax(axis=1), "probabilities": chances}
            return {"prediction": model.predict(frame)} | ({"probabilities": chances} if chances.ndim == 2 else {})
        case "catboost":
            if name == "catboost_regressor":
                return {"prediction": model.predict(frame)}
            labels = model.predict(frame, prediction_type="Class").ravel()
            return {"prediction": labels, "probabilities": model.predict(frame, prediction_type="Probability")}
    return own_onnx(name, model, frame)


def own_sklearn(name: str, model: Any, frame: Any) -> dict[str, np.ndarray]:
    rows = frame["text"] if name == "text" else frame if hasattr(model, "feature_names_in_") else frame.to_numpy()
    if name == "multi_label":
        labels, chances = model.predict(rows), model.predict_proba(rows)
        return {"prediction_0": labels[:, 0], "prediction_1": labels[:, 1], "probabilities_0": chances[0], "probabilities_1": chances[1]}
    answers = {"prediction": model.predict(rows)}
    if hasattr(model, "predict_proba"):
        answers["probabilities"] = model.predict_proba(rows)
    if name == "isolation_forest":
        answers["score"] = model.decision_function(rows)
    return answers


def own_xgboost(model: Any, frame: Any) -> dict[str, np.ndarray]:
    import xgboost

    if hasattr(model, "predict_proba"):
        return {"prediction": model.predict(frame), "probabilities": model.predict_proba(frame)}
    if not isinstance(model, xgboost.Booster):
        return {"prediction": model.predict(frame)}
    data = xgboost.DMatrix(frame if model.feature_names else frame.to_numpy(), enable_categorical=True)
    values = model.predict(data)
    if "class" in frame.columns:
        return {"prediction": (values > 0.5).astype(int), "probabilities": np.column_stack([1 - values, values])}
    return {"prediction": values}


def own_onnx(name: str, model: bytes, frame: Any) -> dict[str, np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # several threads add up the trees in another order
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    if name == "onnx_pipeline":
        kinds = {column: object if column == "class" else np.float32 for column in frame.columns}
        labels, chances = session.run(None, {column: frame[[column]].to_numpy(kind) for column, kind in kinds.items()})
        return {"prediction": labels, "probabilities": np.array([[row["cheap"], row["dear"]] for row in chances], dtype=np.float32)}
    answers = session.run(None, {session.get_inputs()[0].name: frame.to_numpy(np.float32)})
    return dict(zip(("prediction", "probabilities"), answers, strict=False)) if len(answers) == 2 else {"prediction": answers[0].ravel()}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_answers_exactly_as_its_library_does(name: str, folder: Path) -> None:
    framework = plugins.framework(models.MODELS[name]().framework)
    for model in (models.MODELS[name]().model, loaded(name, folder)):
        if isinstance(model, bytes):
            continue
        signature = framework.describe(model, card(name))
        answers = framework.predict(model, given(name, signature), signature)
        assert list(answers) == [field.name for field in signature.outputs]
        expected = own(name)
        assert answers.keys() == expected.keys()
        for output in answers:
            np.testing.assert_array_equal(answers[output], expected[output])


@pytest.mark.parametrize("name", NAMES)
def test_a_single_row_gets_the_answer_it_gets_among_others(name: str, folder: Path) -> None:
    framework, model = plugins.framework(models.MODELS[name]().framework), loaded(name, folder)
    signature = framework.describe(model, card(name))
    columns = given(name, signature)
    together = framework.predict(model, columns, signature)
    for row in (0, 3):
        alone = framework.predict(model, {key: column[row : row + 1] for key, column in columns.items()}, signature)
        for output, answer in alone.items():
            assert len(answer) == 1
            if answer.dtype.kind == "f":
                # BLAS adds up in another order for one row
                np.testing.assert_allclose(answer[0], together[output][row], rtol=1e-9 if answer.dtype == np.float64 else 1e-5)
            else:
                assert answer[0] == together[output][row]


@pytest.mark.parametrize("name", NAMES)
def test_records_of_json_get_the_same_answers_in_json(name: str, folder: Path) -> None:
    framework, model = plugins.framework(models.MODELS[name]().framework), loaded(name, folder)
    signature = framework.describe(model, card(name))
    columns = {key: column[:5] for key, column in given(name, signature).items()}
    kinds = {field.name: field.kind for field in signature.inputs}
    records = [
        {
            key: None if value != value else bool(value) if kinds[key] == "boolean" else float(value) if kinds[key] == "number" else value
            for key, value in zip(columns, row, strict=True)
        }
        for row in zip(*[column.tolist() for column in columns.values()], strict=True)
    ]
    answers = framework.predict(model, signature.columns(json.loads(json.dumps(records))), signature)
    expected = framework.predict(model, columns, signature)
    assert json.dumps(signature.records(answers)) == json.dumps(signature.records(expected))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_loads_to_the_same_answers_and_the_same_bytes(name: str, folder: Path, tmp_path: Path) -> None:
    framework, model = plugins.framework(models.MODELS[name]().framework), loaded(name, folder)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    saved = framework.save(model, card(name), first)
    trees = {"random_forest", "strict_pipeline", "multi_label", "isolation_forest"}
    trees |= {"hist_gradient_boosting", "hist_gradient_boosting_numbers"}
    assert (saved is None) == (name in trees | {"pipeline", "grid_search"}), "skops trusts neither trees nor numpy.dtype nor a scorer"
    if saved is None:
        return
    again = packing.load(models.write(name, tmp_path), card(name)).model
    assert framework.save(again, card(name), second) == saved
    assert (first / saved).read_bytes() == (second / saved).read_bytes()
    signature = framework.describe(model, card(name))
    restored = framework.load(first / saved, card(name))
    assert framework.describe(restored, card(name)) == signature
    columns = given(name, signature)
    for output, answer in framework.predict(restored, columns, signature).items():
        np.testing.assert_array_equal(answer, framework.predict(model, columns, signature)[output])


@pytest.mark.parametrize("framework", ["xgboost", "lightgbm", "catboost"])
def test_a_pickle_of_these_is_never_loaded(framework: str, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ModelFileError, match=rf"model\.pkl is a pickle, and {framework} models are not unpickled") as caught:
        plugins.framework(framework).load(tmp_path / "model.pkl", Card(framework, "", framework))
    assert "modelport pack model.pkl" in caught.value.hint


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("text", "onnx_pipeline", "wide_5000")])
def test_integers_and_booleans_in_number_columns_count_as_numbers(name: str, folder: Path) -> None:
    framework, model = plugins.framework(models.MODELS[name]().framework), loaded(name, folder)
    signature = framework.describe(model, card(name))
    columns = {key: column[:20] for key, column in given(name, signature).items()}
    numbers = {field.name for field in signature.inputs if field.kind == "number"}
    rounded = {key: np.nan_to_num(column.astype(float)).round() if key in numbers else column for key, column in columns.items()}
    integers = {key: column.astype(np.int64) if key in numbers else column for key, column in rounded.items()}
    flags = {key: column > column.mean() if key in numbers else column for key, column in rounded.items()}
    of_flags = {key: column.astype(float) if key in numbers else column for key, column in flags.items()}
    for one, other in ((integers, rounded), (flags, of_flags)):
        expected = framework.predict(model, other, signature)
        for output, answer in framework.predict(model, one, signature).items():
            np.testing.assert_array_equal(answer, expected[output])


@pytest.mark.parametrize("name", ["iris_svc", "xgboost_regressor", "lightgbm_regressor", "catboost_regressor", "onnx_svc", "wide_200"])
def test_a_signature_with_other_names_is_taken_by_position(name: str, folder: Path) -> None:
    framework, model = plugins.framework(models.MODELS[name]().framework), loaded(name, folder)
    signature = framework.describe(model, card(name))
    columns = given(name, signature)
    renamed = Signature(tuple(Field(f"column {index}", "number") for index in range(len(signature.inputs))), signature.outputs)
    expected = framework.predict(model, columns, signature)
    by_place = dict(zip([field.name for field in renamed.inputs], columns.values(), strict=True))
    for output, answer in framework.predict(model, by_place, renamed).items():
        np.testing.assert_array_equal(answer, expected[output])
    with pytest.raises(SignatureError, match=f"the model takes {len(columns)} columns .*, the signature has 1"):
        framework.predict(model, {"column 0": by_place["column 0"]}, Signature(renamed.inputs[:1], signature.outputs))


@pytest.mark.parametrize("name", ["iris_svc", "xgboost_regressor", "lightgbm_regressor", "catboost_regressor", "wide_200"])
def test_columns_in_another_order_are_put_into_the_models(name: str, folder: Path) -> None:
    framework, model = plugins.framework(models.MODELS[name]().framework), loaded(name, folder)
    signature = framework.describe(model, card(name))
    columns = given(name, signature)
    turned = Signature(signature.inputs[::-1], signature.outputs)
    expected = framework.predict(model, columns, signature)
    for output, answer in framework.predict(model, dict(reversed(columns.items())), turned).items():
        np.testing.assert_array_equal(answer, expected[output])


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("iris_svc", ("numpy", "scikit-learn", "skops")),
        ("random_forest", ("numpy", "scikit-learn")),
        ("pipeline", ("numpy", "pandas", "scikit-learn")),
        ("xgboost_classifier", ("xgboost", "numpy")),
        ("lightgbm_classifier", ("lightgbm", "numpy")),
        ("catboost_native", ("catboost", "numpy")),
        ("onnx_svc", ("onnxruntime", "numpy")),
    ],
)
def test_requirements_are_what_the_saved_model_needs(name: str, needs: tuple[str, ...], folder: Path) -> None:
    assert plugins.framework(models.MODELS[name]().framework).requirements(loaded(name, folder), card(name)) == needs


@pytest.mark.parametrize(
    ("framework", "name"), [("xgboost", "a.json"), ("xgboost", "a.ubj"), ("lightgbm", "a.txt"), ("catboost", "a.cbm"), ("onnx", "a.onnx")]
)
def test_a_damaged_file_is_one_line(framework: str, name: str, tmp_path: Path) -> None:
    starts = {"a.json": b'{"learner":', "a.ubj": b"{L\0", "a.txt": b"tree\nversion=v4\n", "a.cbm": b"CBM1\0\0", "a.onnx": b"\x08\x07x"}
    (tmp_path / name).write_bytes(starts[name])
    with pytest.raises(ModelFileError, match=name) as caught:
        plugins.framework(framework).load(tmp_path / name, Card(framework, "", framework))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_exactly_one_framework_says_that_a_file_is_its_own_and_reads_its_card_without_loading_it(name: str, folder: Path) -> None:
    contents = inspection.read(models.write(name, folder))
    trained = models.MODELS[name]()
    found = {one: plugins.framework(one).detect(contents) for one in plugins.framework_names()}
    assert [one for one, read in found.items() if read is not None] == [trained.framework]
    read = found[trained.framework]
    assert read is not None
    json.dumps([read.features, read.classes, read.details])
    framework, model = plugins.framework(trained.framework), loaded(name, folder)
    signature = framework.describe(model, read)
    if read.features:
        assert {field.name for field in signature.inputs} <= set(read.features)
    label = next((field for field in signature.outputs if field.name == "prediction" and field.kind == "category"), None)
    if label is not None and name != "isolation_forest":
        assert read.classes == label.choices


@pytest.mark.parametrize("framework", ["sklearn", "xgboost", "lightgbm", "catboost", "onnx"])
def test_a_pickle_may_import_what_the_framework_needs_and_nothing_that_runs_commands(framework: str) -> None:
    names = plugins.framework(framework).imports()
    assert not {"os.system", "posix.system", "builtins.eval", "subprocess.Popen", "joblib.load", "pandas.read_pickle"} & names
    assert framework == "onnx" or any(name.startswith(framework) for name in names)

"""`inspect` says what any model file holds, and one clear line for what is none."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC

import modelport
import models
import payloads
from modelport import inspection
from modelport.errors import MissingLibrary, ModelFileError
from modelport.frameworks import Card, Contents, Instance
from modelport.inspection import child


@pytest.mark.parametrize("name", [name for name in models.MODELS if not name.startswith("wide")])
def test_every_kind_of_model_is_known_and_nothing_of_it_refused(name: str, tmp_path: Path) -> None:
    path = models.write(name, tmp_path)
    contents = inspection.read(path)
    card = inspection.card(contents)
    assert card is not None
    assert card.framework == models.MODELS[name]().framework
    assert inspection.refused(contents, card) == ()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_every_protocol_says_the_same(protocol: int, tmp_path: Path) -> None:
    model = models.MODELS["random_forest"]().model
    path = payloads.write(pickle.dumps(model, protocol), tmp_path)
    contents = inspection.read(path)
    assert (contents.format, contents.protocol) == ("pickle", protocol)
    assert np.array_equal(contents.root.get("classes_"), model.classes_)
    assert inspection.refused(contents, inspection.card(contents)) == ()


@pytest.mark.parametrize("compression", ["zlib", "gzip", "bz2", "xz", "lzma", "lz4"])
def test_a_compressed_joblib_file_says_the_same(compression: str, tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(models.MODELS["iris_svc"]().model, path, compress=(compression, 3))
    contents = inspection.read(path)
    assert (contents.format, contents.compression) == ("joblib", compression)
    assert isinstance(contents.root, Instance)
    assert contents.root.cls == "sklearn.svm._classes.SVC"


def test_the_layout_of_joblib_before_0_10_is_read(tmp_path: Path) -> None:
    data = pickle.dumps(models.MODELS["iris_svc"]().model, 2)
    contents = inspection.read(payloads.write(payloads.zipped_by_old_joblib(data), tmp_path))
    assert (contents.format, contents.compression, contents.protocol) == ("joblib", "zf", 2)


def test_a_skops_file_is_read_like_a_pickle(tmp_path: Path) -> None:
    model = models.MODELS["pipeline"]().model
    path = tmp_path / "model.skops"
    skops.io.dump(model, path)
    contents = inspection.read(path)
    pickled = inspection.read(payloads.write(pickle.dumps(model), tmp_path))
    assert contents.format == "skops"
    ours, theirs = inspection.card(contents), inspection.card(pickled)
    assert ours is not None
    assert ours == theirs
    assert inspection.refused(contents, ours) == ()


@pytest.mark.parametrize(("function", "name"), [(os.system, payloads.POSIX), (eval, "builtins.eval")])
def test_a_skops_file_that_names_a_function_is_refused(function: Any, name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    skops.io.dump(make_pipeline(FunctionTransformer(function), SVC()), path)
    contents = inspection.read(path)
    assert name in inspection.refused(contents, inspection.card(contents))


def test_an_array_of_a_skops_file_is_no_larger_than_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    skops.io.dump(np.arange(3.0), path)
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    grown = {name: data.replace(b"(3,)", b"(3000000000000,)".ljust(4)) for name, data in entries.items()}
    with pytest.raises(ModelFileError, match=r"is cut short|is damaged"):
        inspection.read(payloads.write(archive(grown), tmp_path))


def test_a_file_of_torch_before_1_6_is_its_fourth_pickle(tmp_path: Path) -> None:
    contents = inspection.read(payloads.write(payloads.torch_legacy(), tmp_path))
    assert (contents.format, contents.root.cls) == ("torch-legacy", payloads.POSIX)


def test_a_model_within_a_pickle_is_described_where_it_stands() -> None:
    state = inspection.read(models.OLD / "xgboost-1.6.2" / "regressor.pkl").root.get("_Booster").get("handle")
    assert state["format"] == "xgboost-ubj"
    assert state["root"]["version"] == [1, 6, 2]
    assert state["root"]["learner"]["feature_names"] == ["area", "rooms", "built"]
    assert state["root"]["learner"]["gradient_booster"] == {"name": "gbtree", "trees": 6}
    assert isinstance(state["raw"], bytearray)


@pytest.mark.parametrize(
    ("file", "cls"),
    [
        ("joblib-0.9.4/svc.joblib", "sklearn.svm.classes.SVC"),
        ("scikit-learn-0.19.2/svc.pkl", "sklearn.svm.classes.SVC"),
        ("scikit-learn-1.1.3/svc.pkl", "sklearn.svm._classes.SVC"),
        ("scikit-learn-1.3.2/svc.pkl", "sklearn.svm._classes.SVC"),
        ("scikit-learn-0.19.2/forest.joblib", "sklearn.ensemble.forest.RandomForestClassifier"),
        ("scikit-learn-1.1.3/forest.joblib", "sklearn.ensemble._forest.RandomForestClassifier"),
        ("scikit-learn-1.3.2/forest.joblib", "sklearn.ensemble._forest.RandomForestClassifier"),
        ("scikit-learn-1.8.0/pipeline.pkl", "sklearn.pipeline.Pipeline"),
    ],
)
def test_an_old_pickle_gets_its_story_and_the_way_on(file: str, cls: str) -> None:
    seen = modelport.inspect(models.OLD / file)
    version = json.loads((models.OLD / file).with_suffix(".json").read_text())["made_by"]["scikit-learn"]
    assert seen.card is not None
    assert (seen.card.cls, seen.card.version) == (cls, version)
    assert seen.refused == seen.missing == ()
    assert seen.warnings == (f"written by scikit-learn {version}, you have {seen.installed}: these predictions may differ or fail to load",)
    assert seen.advice[1] == f"modelport pack {seen.path}"


NOTEBOOK = """
import pickle, sys
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC

def clean(values):
    return values

model = make_pipeline(FunctionTransformer(clean), SVC()).fit([[0.0], [1.0]], [0, 1])
pickle.dump(model, open(sys.argv[1], "wb"))
"""


def test_what_a_notebook_left_behind_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    subprocess.run([sys.executable, "-c", NOTEBOOK, str(path)], check=True)
    seen = modelport.inspect(path)
    assert seen.missing == seen.refused == ("__main__.clean",)
    assert "needs clean from the script or notebook that wrote it" in seen.warnings[0]
    assert f"modelport pack {path} --code my_code.py" in seen.advice


def test_a_module_that_is_not_installed_is_named(tmp_path: Path) -> None:
    path = payloads.write(b"\x80\x04" + payloads.named("my_features", "Encoder") + b")\x81.", tmp_path)
    seen = modelport.inspect(path)
    assert seen.missing == ("my_features.Encoder",)
    assert "needs my_features, not installed here" in seen.warnings[0]
    assert f"modelport pack {path} --code my_features.py" in seen.advice


def test_inspect_answers_as_json_values(tmp_path: Path) -> None:
    seen = modelport.inspect(models.write("pipeline", tmp_path))
    said = json.loads(json.dumps(seen.to_dict()))
    assert said["card"]["framework"] == "sklearn"
    assert said["card"]["version"] == seen.installed
    assert said["card"]["features"] == list(seen.card.features if seen.card else ())
    assert said["refused"] == []
    assert seen.advice == (f"modelport serve {seen.path}",)


@pytest.mark.parametrize("file", [*models.OLD_FILES, *payloads.PAYLOADS], ids=str)
def test_no_file_is_called_safe(file: str, tmp_path: Path) -> None:
    path = payloads.write(payloads.PAYLOADS[file][0](), tmp_path) if file in payloads.PAYLOADS else models.OLD / file
    contents = inspection.read(path)
    card = inspection.card(contents)
    from modelport.inspection.report import report

    plain = {name: getattr(contents, name) for name in ("size", "format", "compression", "protocol", "imports")}
    said = report({"path": "model.pkl", **plain}, card, inspection.refused(contents, card)).to_dict()
    assert "safe" not in json.dumps(said, default=str).lower()


# PyTorch, Keras and others, whose files are made by hand


def torch_state_dict() -> bytes:
    """What torch.save writes for {"weight": a tensor of (2, 3)}."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02ccollections\nOrderedDict\n)RX\x06\x00\x00\x00weight" + tensor + b"s."


def archive(entries: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, value in entries.items():
            file.writestr(name, value if isinstance(value, (bytes, str)) else json.dumps(value))
    return buffer.getvalue()


KERAS = {
    "metadata.json": {"keras_version": "3.15.1", "date_saved": "2026-11-20@10:00:00"},
    "config.json": {
        "class_name": "Sequential",
        "config": {
            "layers": [
                {"class_name": "InputLayer", "config": {"name": "rows", "batch_shape": [None, 4], "dtype": "float32"}},
                {"class_name": "Dense", "config": {"name": "dense", "units": 3}},
                {
                    "class_name": "Lambda",
                    "config": {"name": "double", "function": {"class_name": "__lambda__", "config": {}}},
                },
            ]
        },
    },
    "model.weights.h5": b"\x89HDF",
}
PT2 = {
    "model/archive_format": "pt2",
    "model/models/model.json": {
        "torch_version": "2.13.0",
        "graph_module": {
            "graph": {"tensor_values": {"x": {"dtype": 7, "sizes": [{"as_expr": {"expr_str": "s0"}}, {"as_int": 4}]}}},
            "signature": {"input_specs": [{"parameter": {}}, {"user_input": {"arg": {"as_tensor": {"name": "x"}}}}]},
        },
    },
}
TORCH = {"m/data.pkl": torch_state_dict(), "m/version": "3", "m/data/0": b"\0" * 24}
FORWARD = "def forward(self,\n    x: Tensor) -> Tensor:\n  return x"
TORCHSCRIPT = {"m/data.pkl": b"\x80\x02}.", "m/constants.pkl": b"\x80\x02).", "m/code/__torch__.py": FORWARD}
HEADER = json.dumps({"weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"by": "hand"}}).encode()
SAFETENSORS = struct.pack("<Q", len(HEADER)) + HEADER + b"\0" * 24
SOURCE = b"def predict(price: float, city: str = 'Rome') -> float:\n    return price\n"
BY_HAND: dict[str, tuple[str, bytes, str, str, str | None]] = {
    "torch zip": ("m.pt", archive(TORCH), "torch-zip", "state_dict", None),
    "torchscript": ("m.pt", archive(TORCHSCRIPT), "torchscript", "torch.jit.ScriptModule", None),
    "pt2": ("m.pt2", archive(PT2), "pt2", "torch.export.ExportedProgram", "2.13.0"),
    "safetensors": ("m.safetensors", SAFETENSORS, "safetensors", "state_dict", None),
    "keras": ("m.keras", archive(KERAS), "keras", "keras.Sequential", "3.15.1"),
    "python": ("m.py", SOURCE, "python", "m.predict", None),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_files_of_other_frameworks_are_recognised_and_described(name: str, tmp_path: Path) -> None:
    file, data, form, cls, version = BY_HAND[name]
    contents = inspection.read(payloads.write(data, tmp_path, file))
    card = inspection.card(contents)
    assert card is not None
    assert (contents.format, card.cls, card.version) == (form, cls, version)


def described(name: str, folder: Path) -> tuple[Contents, Card]:
    file, data, *_ = BY_HAND[name]
    contents = inspection.read(payloads.write(data, folder, file))
    card = inspection.card(contents)
    assert card is not None
    return contents, card


def test_the_tensors_of_a_state_dict_are_named_with_their_shapes(tmp_path: Path) -> None:
    contents, card = described("torch zip", tmp_path)
    assert card.details["shapes"] == {"weight": [2, 3]}
    assert card.details["parameters"] == 6
    assert inspection.refused(contents, card) == ()
    assert described("safetensors", tmp_path)[1].details["shapes"] == {"weight": [2, 3]}


def test_the_inputs_of_an_exported_program_are_named(tmp_path: Path) -> None:
    assert described("pt2", tmp_path)[1].details["inputs"] == [{"name": "x", "dtype": "float32", "shape": [None, 4]}]
    assert described("torchscript", tmp_path)[1].details["forward"] == "forward(self, x: Tensor) -> Tensor"


def test_code_in_a_keras_file_is_refused(tmp_path: Path) -> None:
    contents, card = described("keras", tmp_path)
    assert card.details["inputs"] == [{"name": "rows", "dtype": "float32", "shape": [None, 4]}]
    assert inspection.refused(contents, card) == ("Python code in the layer double",)


def test_a_python_file_is_described_and_not_run(tmp_path: Path) -> None:
    contents, card = described("python", tmp_path)
    assert card.features == ("price", "city")
    assert card.details["signature"] == "predict(price: float, city: str = 'Rome') -> float"
    assert inspection.refused(contents, card) == ()
    assert "is code: it runs when it is loaded" in modelport.inspect(contents.path).warnings


def test_a_fastai_export_tells_its_labels(tmp_path: Path) -> None:
    labels = b"}(" + payloads.text("wolf") + b"K\x01" + payloads.text("bear") + b"K\x00u"
    vocabulary = payloads.instance("fastai.data.transforms", "CategoryMap", o2i=labels)
    resize = payloads.instance("fastai.vision.augment", "Resize", size=b"K@K@\x86")
    learner = b"\x80\x04" + payloads.instance("fastai.learner", "Learner", vocabulary=vocabulary, transforms=resize) + b"."
    contents = inspection.read(payloads.write(archive({"e/data.pkl": learner, "e/version": "3"}), tmp_path, "export.pkl"))
    card = inspection.card(contents)
    assert card is not None
    assert (card.framework, card.classes) == ("fastai", ("bear", "wolf"))
    assert card.details == {"transforms": ["Resize"], "size": [64, 64]}


@pytest.mark.parametrize(
    ("data", "form"),
    [(b"\x89HDF\r\n\x1a\n" + b"\0" * 60, "hdf5"), (b"\x1c\0\0\0TFL3" + b"\0" * 60, "tflite"), (b"GGUF" + b"\0" * 60, "gguf")],
)
def test_other_formats_are_recognised_by_their_first_bytes(data: bytes, form: str, tmp_path: Path) -> None:
    assert inspection.read(payloads.write(data, tmp_path)).format == form


# Bad files


def zip_bomb() -> bytes:
    return archive({"m/data.pkl": b"\0" * (80 * 1024**2), "m/version": "3"})


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "text": (b"name,age\nanna,3\n", "is text, not a model: it begins with 'name,age'"),
    "page": (b"<!DOCTYPE html>\n<html><body>sign in</body></html>", "is a web page, not a model"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n", "is a pointer of Git LFS"),
    "truncated": (pickle.dumps(list(range(1000)))[:-100], "is cut short"),
    "truncated gzip": (payloads.joblibbed(compress=("gzip", 3))[:-20], "is cut short"),
    "truncated zip": (payloads.torch_zip()[:-30], "is damaged"),
    "zeros": (b"\0" * 1000, "is of no known kind"),
    "noise": (bytes(range(128, 256)) * 8, "is "),
    "zip of nothing": (archive({"readme.txt": "hello"}), "is a zip archive, and no kind of model that is known: it holds readme.txt"),
    "JSON": (b'["anna"]', "is JSON, and no model that is known"),
    "cut JSON": (b'{"learner": {"gradient', "is cut short or damaged"),
    "zip bomb": (zip_bomb(), "is a bomb"),
    "zlib bomb": (zlib.compress(b"\0" * (80 * 1024**2)), "is a bomb"),
    "pickle bomb": (b"\x80\x04" + payloads.named("builtins", "bytes") + b"J\xff\xff\xff\x7f\x85R.", "is a bomb"),
    "cut LightGBM": (b"tree\nversion=v4\nnum_class=1\n\nTree=0\nnum_leaves=3\n", "is cut short"),
    "cut CatBoost": (b"CBM1\xff\xff\0\0\x10\0\0\0", "is cut short"),
    "cut ONNX": (b"\x08\x08\x12\x7fskl2onnx", "is cut short"),
    "cut UBJ": (b"{L\0\0\0\0\0\0\0\x07learner{L", "is cut short"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_gets_one_clear_line(name: str, tmp_path: Path) -> None:
    data, words = BAD[name]
    path = payloads.write(data, tmp_path)
    with pytest.raises(ModelFileError) as caught:
        inspection.read(path)
    assert caught.value.message.startswith(f"{path} {words}")
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < len(str(path)) + 300


def test_a_missing_file_a_folder_and_a_device_are_told_apart(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "no.pkl", "there is no file"), (tmp_path, "is a folder"), (Path("/dev/null"), "is a device or pipe")):
        with pytest.raises(ModelFileError, match=words):
            inspection.read(path)
        with pytest.raises(ModelFileError, match=words):
            modelport.inspect(path)


def test_the_error_of_the_child_is_the_error_of_inspect(tmp_path: Path) -> None:
    path = payloads.write(payloads.broken_tail(), tmp_path)
    with pytest.raises(ModelFileError, match="is no whole pickle") as caught:
        modelport.inspect(path)
    assert payloads.POSIX in caught.value.hint


def test_a_library_that_is_missing_to_unpack_is_named(tmp_path: Path) -> None:
    path = payloads.write(payloads.joblibbed(compress=("lz4", 3)), tmp_path)
    code = "import sys; sys.modules['lz4'] = None; from modelport import inspection; inspection.read(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert f"{MissingLibrary.__name__}: {path} is compressed with lz4, and the package lz4 is not installed" in done.stderr


def test_a_file_that_takes_too_much_memory_gets_one_clear_line(tmp_path: Path) -> None:
    path = payloads.write(b"\x80\x04]" + b"]" * 3_000_000 + b".", tmp_path)
    with pytest.raises(ModelFileError, match="more memory") as caught:
        child.inspect_in_child(path, memory=64 * 1024**2)
    assert "\n" not in caught.value.message


def test_a_file_that_takes_too_long_gets_one_clear_line(tmp_path: Path) -> None:
    path = payloads.write(b"\x80\x04]" + b"]" * 3_000_000 + b".", tmp_path)
    with pytest.raises(ModelFileError, match="is a bomb: it takes longer"):
        child.inspect_in_child(path, seconds=0.0)


def test_a_module_beside_the_model_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = models.write("iris_svc", tmp_path)
    for name in ("numpy", "json", "sklearn", "msgspec"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    assert modelport.inspect(path.name).card is not None

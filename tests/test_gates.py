"""A file that would import what nobody vouched for, or that another version wrote, is not loaded; the message says how to open the gate."""

from __future__ import annotations

import json
import pickle
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest

import bundles
import converted
import models
from modelport import gates
from modelport.bundle import MANIFEST
from modelport.bundle import write as write_bundle
from modelport.errors import ModelFileError, Untrusted, VersionMismatch
from modelport.frameworks import Card

CARD = Card("sklearn", "sklearn.svm._classes.SVC", "scikit-learn", version("scikit-learn"))
FILE = Path("model.pkl")


def code(tmp_path: Path, source: str, name: str = "my_code.py") -> Path:
    path = tmp_path / name
    path.write_text(source)
    return path


def test_a_file_that_imports_nothing_else_passes() -> None:
    assert gates.check_trust(FILE, CARD, ()) == ()


def test_names_off_the_allow_list_are_refused_and_named() -> None:
    with pytest.raises(Untrusted) as caught:
        gates.check_trust(FILE, CARD, ("os.system", "__main__.clean"))
    assert caught.value.message == "model.pkl would import os.system, __main__.clean, not on the allow-list for sklearn"
    assert "--trust" in caught.value.hint
    assert caught.value.exit_code == 3


def test_names_of_the_training_script_are_refused_with_a_hint_at_code() -> None:
    with pytest.raises(Untrusted) as caught:
        gates.check_trust(FILE, CARD, ("__main__.clean",))
    assert "--code" in caught.value.hint


def test_many_names_are_counted() -> None:
    with pytest.raises(Untrusted, match=r"a\.f5 and 4 more, not on"):
        gates.check_trust(FILE, CARD, tuple(f"a.f{index}" for index in range(10)))


def test_trust_opens_the_gate_and_says_what_was_accepted() -> None:
    assert gates.check_trust(FILE, CARD, ("os.system",), trust=True) == ("os.system",)


def test_code_that_comes_along_vouches_for_its_own_names_only(tmp_path: Path) -> None:
    brought = [code(tmp_path, "import numpy as np\nSCALE = 2\nWIDE: int = 3\ndef clean(x): return x\nclass Step: pass\n")]
    names = ("__main__.clean", "my_code.Step", "__main__.SCALE", "__main__.WIDE", "__main__.np")
    assert gates.check_trust(FILE, CARD, names, code=brought) == names
    with pytest.raises(Untrusted, match=r"would import __main__\.other, "):
        gates.check_trust(FILE, CARD, (*names, "__main__.other"), code=brought)


@pytest.mark.parametrize("source", ["def clean(:", "\0", "(" * 100_000])
def test_code_that_is_no_python_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(ModelFileError, match="is not a Python module"):
        gates.defined_in(code(tmp_path, source))


def test_code_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"none\.py is not a Python module"):
        gates.defined_in(tmp_path / "none.py")


def test_a_scikit_learn_pickle_of_another_minor_version_is_refused_with_the_story_and_the_ways_on() -> None:
    gates.check_version(FILE, CARD)
    old = Card("sklearn", CARD.cls, "scikit-learn", "1.1.2")
    with pytest.raises(VersionMismatch) as caught:
        gates.check_version(FILE, old)
    assert caught.value.message == (
        f"model.pkl: scikit-learn 1.1.2 wrote this SVC; you have {CARD.version}, which does not load it, or answers wrongly with it"
    )
    assert "--python-env auto" in caught.value.hint
    assert "--trust-version" in caught.value.hint
    gates.check_version(FILE, old, trust_version=True)


def test_a_patch_release_is_the_same_version() -> None:
    gates.check_version(FILE, Card("sklearn", CARD.cls, "scikit-learn", ".".join([*str(CARD.version).split(".")[:2], "99"])))


def test_scikit_learns_own_class_without_a_version_was_written_before_0_18() -> None:
    with pytest.raises(VersionMismatch, match=r"scikit-learn before 0\.18 wrote this SVC"):
        gates.check_version(FILE, Card("sklearn", "sklearn.svm.classes.SVC", "scikit-learn", None))


def test_stable_formats_and_ones_own_classes_pass() -> None:
    for card in (Card("xgboost", "XGBClassifier", "xgboost", "0.9"), Card("sklearn", "__main__.Weighted", "scikit-learn", None)):
        gates.check_version(FILE, card)


def test_a_bundle_from_elsewhere_passes_both_gates(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    (folder / "model").mkdir(parents=True)
    path = models.write("iris_svc", folder / "model")
    made = write_bundle(folder, name="iris", card=CARD, signature=bundles.IRIS, model=f"model/{path.name}", python="3.11")
    gates.check_bundle(made)


def test_a_bundle_with_functions_that_another_python_compiled_is_refused_whatever_is_said(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "m.pkl").write_bytes((models.OLD / "cloudpickle-python3.8" / "pipeline.pkl").read_bytes())
    foreign = write_bundle(tmp_path, name="old", card=CARD, signature=bundles.IRIS, model="model/m.pkl", python="3.11")
    with pytest.raises(VersionMismatch, match=r"functions compiled by Python 3\.8 to 3\.10"):
        gates.check_bundle(foreign, trust=True, trust_version=True)


def test_a_bundle_from_elsewhere_with_code_or_foreign_names_needs_trust(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "m.pkl").write_bytes(pickle.dumps(json.dumps))
    foreign = write_bundle(folder, name="evil", card=CARD, signature=bundles.IRIS, model="model/m.pkl", python="3.11")
    with pytest.raises(Untrusted, match=r"would import json\.dumps"):
        gates.check_bundle(foreign)
    gates.check_bundle(foreign, trust=True)
    (folder / MANIFEST).unlink()
    models.write("iris_svc", folder / "model").rename(folder / "model" / "m.pkl")
    (folder / "code").mkdir()
    code(folder / "code", "x = 1\n")
    with_code = write_bundle(folder, name="evil", card=CARD, signature=bundles.IRIS, model="model/m.pkl", python="3.11")
    with pytest.raises(Untrusted, match="brings Python code along"):
        gates.check_bundle(with_code)
    gates.check_bundle(with_code, trust=True)


def test_where_onnx_answers_neither_pickle_nor_code_needs_trust_nor_the_version_that_wrote_it(tmp_path: Path) -> None:
    files = {"model/model.pkl": converted.writes(tmp_path / "mark"), "code/mine.py": b"raise SystemExit\n"}
    bundle = converted.iris(tmp_path / "bundle", files, model="model/model.pkl")
    old = converted.changed(bundle, tmp_path / "old", {}, card=Card("sklearn", CARD.cls, "scikit-learn", "1.1.2"))
    for engine in ("auto", "onnx"):
        gates.check_bundle(old, engine=engine)
        gates.check_stored(old, engine=engine)
    with pytest.raises(Untrusted, match=r"would import io\.open"):
        gates.check_bundle(old, engine="native")
    with pytest.raises(VersionMismatch, match=r"scikit-learn 1\.1\.2 wrote this SVC"):
        gates.check_bundle(old, engine="native", trust=True)
    with pytest.raises(VersionMismatch):
        gates.check_stored(old, engine="native")
    assert not (tmp_path / "mark").exists()


def test_what_is_no_onnx_does_not_pass_for_it(tmp_path: Path) -> None:
    bundle = converted.iris(tmp_path / "bundle")
    outside = onnx.load(tmp_path / "bundle" / "model.onnx")
    outside.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1), "w"))
    onnx.external_data_helper.set_external_data(outside.graph.initializer[0], "../secret")
    for name, content in {
        "pickle": pickle.dumps(json.dumps),
        "outside": outside.SerializeToString(),
        "trees": b"tree\nversion=v4\n",
    }.items():
        other = converted.changed(bundle, tmp_path / name, {"model.onnx": content})
        with pytest.raises(ModelFileError, match=rf"{name}/model\.onnx is "):
            gates.check_bundle(other)
        gates.check_bundle(other, engine="native")

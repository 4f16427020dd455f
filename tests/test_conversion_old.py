"""A model of another time is loaded by the version that wrote it, and answers as it did then."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport import engines, inspection
from modelport.conversion import environments, old
from modelport.conversion.child import Child, ModuleMissing, Remote
from modelport.errors import ModelFileError, UsageError, VersionMismatch
from modelport.frameworks import Card

DATA = Path(__file__).parent / "data" / "old_models"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One cache for this file: an environment takes seconds to make."""
    folder = tmp_path_factory.getbasetemp() / "old-environments"
    monkeypatch.setenv("MODELPORT_CACHE", str(folder))
    return folder


def asked(remote: Remote, child: Child, card: Card, then: dict[str, Any]) -> list[dict[str, Any]]:
    """What a model answers to the rows that it was asked when it was made."""
    engine = engines.engine_of(remote, child, card)
    names = [field.name for field in engine.signature.inputs]
    columns = then["columns"] if then["columns"] and set(names) <= set(then["columns"]) else names
    return engine.answer([dict(zip(columns, row, strict=True)) for row in then["rows"]])


@pytest.mark.parametrize(
    "file",
    ["joblib-0.9.4/svc.joblib", "scikit-learn-0.19.2/forest.joblib", "scikit-learn-0.24.2/hist.joblib", "scikit-learn-1.3.2/forest.joblib"],
)
def test_an_old_model_answers_to_the_last_digit_what_it_answered_then(file: str, old_pythons: None) -> None:
    seen = inspection.inspect(DATA / file)
    then = json.loads((DATA / file).with_suffix(".json").read_text())
    assert seen.card is not None
    told: list[str] = []
    with old.opened(DATA / file, seen.card, seen.imports, told=told.append) as (remote, child):
        answers = asked(remote, child, seen.card, then)
    wrote = seen.card.version or environments.BEFORE_0_18
    assert [answer["prediction"] for answer in answers] == then["prediction"]
    np.testing.assert_array_equal([list(answer["probabilities"].values()) for answer in answers], then["probabilities"])
    making = f"Making Python {remote.python} with scikit-learn {wrote} ..."
    assert [line for line in told if line != making] == [
        f"Loaded it with Python {remote.python} and scikit-learn {wrote}, in a process of its own."
    ]
    assert remote.versions["scikit-learn"] == wrote


def test_a_boosted_model_in_a_pipeline_is_loaded_by_its_own_version(old_pythons: None) -> None:
    path = DATA / "xgboost-1.6.2" / "pipeline.joblib"
    seen = inspection.inspect(path)
    then = json.loads(path.with_suffix(".json").read_text())
    assert seen.card is not None
    assert seen.card.details["xgboost"] == "1.6.2"
    with old.opened(path, seen.card, seen.imports) as (remote, child):
        answers = asked(remote, child, seen.card, then)
    assert remote.versions["xgboost"] == "1.6.2"
    assert [answer["prediction"] for answer in answers] == then["prediction"]


def test_a_module_that_turns_out_to_be_needed_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old_pythons: None) -> None:
    monkeypatch.setenv("MODELPORT_CACHE", str(tmp_path))
    path = DATA / "scikit-learn-1.3.2" / "pipeline.pkl"
    seen = inspection.inspect(path)
    assert seen.card is not None
    told: list[str] = []
    with old.opened(path, seen.card, (), told=told.append) as (remote, _):
        assert "pandas" in remote.versions
    assert [line[:6] for line in told] == ["Making", "Making", "Loaded"]


def test_a_python_of_ones_own_is_used_as_it_is(tmp_path: Path) -> None:
    path = DATA / "scikit-learn-1.3.2" / "forest.joblib"
    seen = inspection.inspect(path)
    assert seen.card is not None
    for python in (sys.executable, str(Path(sys.executable).parent.parent)):
        with pytest.raises(VersionMismatch, match=r"parts of other versions: .* from version 1\.3\.2"):
            with old.opened(path, seen.card, seen.imports, python=python):
                pass
    with pytest.raises(UsageError, match=r"--python-env .*/none is no Python"):
        with old.opened(path, seen.card, seen.imports, python=str(tmp_path / "none")):
            pass


def test_a_module_that_nothing_is_known_to_bring_is_named(tmp_path: Path, old_pythons: None) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"cmy_features\nclean\n.")
    with pytest.raises(ModuleMissing, match="needs the module 'my_features'") as caught:
        with old.opened(path, Card("sklearn", "sklearn.svm._classes.SVC", "scikit-learn", "1.3.2"), ()):
            pass
    assert isinstance(caught.value, ModelFileError)

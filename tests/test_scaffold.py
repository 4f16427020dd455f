"""A new project trains, packs and says its metrics as it was written; nothing that is there is overwritten."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import models
from modelport import inspection, project, scaffold
from modelport.errors import UsageError
from test_cli import run


def test_a_project_from_nothing_trains_packs_and_shows_its_metrics(tmp_path: Path) -> None:
    begun = run(tmp_path, "init", "--name", "flowers")
    assert (begun.returncode, begun.stderr) == (0, "")
    assert begun.stdout == "wrote  modelport.toml\nwrote  train.py\nwrote  requirements.txt\n\nnext: modelport train\n"
    trained = run(tmp_path, "train")
    assert trained.returncode == 0, trained.stderr
    assert "packed   flowers:1  sha256:" in trained.stdout
    assert "metrics  accuracy 0." in trained.stdout or "metrics  accuracy 1" in trained.stdout
    accuracy = json.loads((tmp_path / "metrics.json").read_text())["accuracy"]
    assert f"metrics.accuracy  {accuracy:g}" in run(tmp_path, "show", "flowers").stdout


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("own = True\n")
    begun = run(tmp_path, "init", "--name", "own")
    assert begun.stdout == "wrote  modelport.toml\nkept   train.py, which [train] runs\n\nnext: modelport train\n"
    assert (tmp_path / "train.py").read_text() == "own = True\n"
    made = project.find(tmp_path)
    assert made is not None
    assert made.train == project.Train(("python", "train.py"))
    again = run(tmp_path, "init")
    assert again.returncode == 2
    assert again.stderr.startswith("error: there is a modelport.toml in this folder already\n")


@pytest.mark.parametrize(
    "name", ["iris_svc", "pipeline", "xgboost_regressor", "xgboost_booster_numbers", "lightgbm_regressor", "catboost_regressor"]
)
def test_a_model_file_is_asked_and_one_like_it_is_trained(name: str, tmp_path: Path) -> None:
    path = models.write(name, tmp_path)
    begun = run(tmp_path, "init", path.name, "--target", "wanted", "--name", "again")
    assert begun.returncode == 0, begun.stderr
    assert "wrote  train.py" in begun.stdout
    rows = models.MODELS[name]().frame.copy()
    rows["wanted"] = [number % 2 for number in range(len(rows))]
    rows.to_csv(tmp_path / "data.csv", index=False)
    before = path.read_bytes()
    done = run(tmp_path, "train")
    assert done.returncode == 0, done.stderr
    assert "metrics  " in done.stdout
    assert path.read_bytes() != before


def test_a_file_of_functions_gets_no_training_script(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text("def predict(a: int) -> int:\n    return a\n")
    begun = run(tmp_path, "init", "service.py")
    assert begun.stdout == (
        "wrote  modelport.toml\nnot    train.py: service.py does not say how such a model is trained\n\nnext: modelport pack\n"
    )
    assert run(tmp_path, "pack").returncode == 0


def test_a_name_that_no_bundle_can_have_is_refused() -> None:
    with pytest.raises(UsageError, match="is no name for a bundle"):
        scaffold.files(scaffold.Asked(name="Über"), frozenset())


@given(st.text(max_size=40), st.text(min_size=1, max_size=40), st.text(max_size=40))
def test_whatever_the_files_are_called_the_project_reads_as_it_was_meant(model: str, sample: str, target: str) -> None:
    try:
        for text in (model, sample, target):
            text.encode()
    except UnicodeEncodeError:
        return
    made = scaffold.files(scaffold.Asked(model or None, None, "name", sample, target), frozenset())
    stated = tomllib.loads(made[project.FILE])
    assert stated["model"] == (model or "model.joblib")
    assert stated["sample"] == sample
    assert stated.get("target", "") == target


def test_what_a_training_script_needs_is_stated_beside_it(tmp_path: Path) -> None:
    path = models.write("xgboost_regressor", tmp_path)
    made = scaffold.files(scaffold.Asked("shipping.pkl", inspection.inspect(path), None, None, None), frozenset())
    assert made["requirements.txt"].split() == ["pandas", "scikit-learn", "joblib", "xgboost"]
    compile(made["train.py"], "train.py", "exec")

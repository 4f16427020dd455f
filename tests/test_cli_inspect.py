"""`modelport inspect` prints a card that is read in ten seconds."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

import models
import payloads
from modelport.cli.inspect import command
from modelport.errors import ModelFileError


def run(*words: object) -> str:
    done = CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_the_card_of_an_old_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models.OLD / "scikit-learn-1.1.3")
    here = version("scikit-learn")
    assert (
        run("svc.pkl")
        == f"""\
file     svc.pkl  3.8 kB
format   pickle, protocol 2
library  scikit-learn 1.1.3  (here: {here})
class    sklearn.svm._classes.SVC
inputs   4: sepal_length, sepal_width, petal_length, petal_width
classes  setosa, versicolor, virginica
imports  5 names, all on the allow-list

! written by scikit-learn 1.1.3, you have {here}: these predictions may differ or fail to load

next
  # loads it in an environment that has that version, made for it, and converts it to ONNX:
  modelport pack svc.pkl
"""
    )


def test_the_card_of_a_payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    payloads.write(payloads.inst(), tmp_path)
    assert (
        run("model.pkl")
        == """\
file     model.pkl  21 B
format   pickle, protocol 0
imports  1 name, 1 not on the allow-list
         refused: os.system

! would use what models do not need: os.system
! no framework here knows this kind of object
"""
    )


def test_json_is_all_that_is_said() -> None:
    said = json.loads(run(models.OLD / "xgboost-1.6.2" / "regressor.pkl", "--json"))
    assert said["card"]["version"] == "1.6.2"
    assert said["imports"][-2:] == ["xgboost.core.Booster", "xgboost.sklearn.XGBRegressor"]
    assert said["refused"] == []


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = payloads.write(b"\x80\x04" + payloads.named("evil\x1b[2J", "na\rme") + b".", tmp_path)
    out = run(path)
    assert "\x1b" not in out
    assert "\r" not in out
    assert "evil\\x1b[2J.na\\x0dme" in out


def test_a_bad_file_raises_the_error_that_the_command_line_prints(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is empty"):
        run(payloads.write(b"", tmp_path))

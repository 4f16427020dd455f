"""`modelport doctor` says whether a model can be served here, and runs nothing that a gate refuses."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

import converted
import models
from modelport.bundle import Bundle
from modelport.cli.doctor import command
from modelport.errors import UnknownReference
from modelport.frameworks import Card
from modelport.store import Store

DATA = Path(__file__).parent / "data"
SPEED = "starts in N s, N MB a worker; 1 row in N ms, 8 rows in N ms, 64 rows in N ms, 512 rows in N ms; 20 golden rows reproduced"


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELPORT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MODELPORT_CACHE", str(tmp_path / "cache"))


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False, standalone_mode=False)
    return done.return_value, done.output


def measured(text: str) -> str:
    """What was printed, with N for what is measured, and without what a bundle pins."""
    text = re.sub(r"(starts in |, )[0-9.]+ (s|MB)\b", r"\1N \2", text)
    text = re.sub(r"in [0-9.e-]+ ms", "in N ms", text)
    return re.sub(r"(sha256:)[0-9a-f]+", r"\1N", re.sub(r"needs +Python .*", "needs", text))


def test_a_bundle_with_onnx(tmp_path: Path) -> None:
    converted.iris(tmp_path / "iris")
    here = version("scikit-learn")
    assert (code := run("iris"))[0] == 0
    assert (
        re.sub(r"iris, [0-9.]+ kB", "iris, N kB", measured(code[1]))
        == f"""\
ok  bundle   iris, N kB: every byte is as it was packed, sha256:N
ok  model    sklearn.linear_model._logistic.LogisticRegression, 4 inputs, 3 classes
ok  version  written by scikit-learn {here}; {here} is installed
ok  inputs   sepal_length (number), sepal_width (number), petal_length (number), petal_width (number)
ok  onnx     passed: 1,212 rows, 0 flips, largest difference 5e-07
ok  needs
ok  engine   onnx {SPEED}
ok  engine   native {SPEED}

next: modelport serve iris
"""
    )


def test_a_model_file_is_packed_and_measured(tmp_path: Path) -> None:
    models.write("xgboost_regressor", tmp_path)
    models.shipping().head(20).to_csv("rows.csv", index=False)
    code, text = run("shipping.pkl", "--sample", "rows.csv")
    assert code == 0
    lines = measured(text).splitlines()
    assert lines[0] == "ok  file     shipping.pkl, 35 kB: pickle"
    assert lines[3] == "ok  imports  3 names, all on the allow-list"
    assert f"ok  engine   native {SPEED}" in lines
    assert lines[-1] == "next: modelport serve shipping.pkl"


def test_a_file_that_a_gate_refuses_is_not_loaded(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "bad.pkl").write_bytes(
        converted.writes(mark).removesuffix(b".") + b"0" + (DATA / "old_models" / "scikit-learn-1.1.3" / "svc.pkl").read_bytes()
    )
    code, text = run("bad.pkl")
    assert (code, mark.exists()) == (3, False)
    assert "problem  trust    bad.pkl would import io.open, not on the allow-list for sklearn. If you know who made" in text
    assert text.endswith("\n\na gate refuses it\n")


def test_what_a_model_of_another_version_needs(tmp_path: Path) -> None:
    _, text = run(DATA / "old_models" / "scikit-learn-1.1.3" / "svc.pkl", "--python-env", "none")
    said = re.search(r"\n(ok|problem) +python +(.*)\n", text)
    assert said is not None
    needs = "scikit-learn==1.1.3, numpy<2, scipy, joblib, setuptools<81, as of 2022-12-15"
    if said[1] == "ok":
        version = r"3\.(8|9|10)"
        assert re.fullmatch(rf"{version} is here, and loads it with {needs}; uv makes that environment when it is packed", said[2])
    else:
        assert said[2] == f"it wants one of Python 3.10, 3.9, 3.8, for {needs}; none is here. `uv python install 3.10`"


def test_a_bundle_whose_model_cannot_be_loaded_here_is_served_as_onnx(tmp_path: Path) -> None:
    old = Card("sklearn", "sklearn.linear_model._logistic.LogisticRegression", "scikit-learn", "1.1.2")
    bundle = converted.iris(tmp_path / "iris", card=old)
    Store().add(bundle)
    code, text = run("iris")
    assert code == 0
    assert f"note  version  written by scikit-learn 1.1.2; {version('scikit-learn')} is installed\n" in text
    assert re.search(r"\nnote  engine   native, which a service does not need: .*: scikit-learn 1\.1\.2 wrote this Log", text)
    plain = converted.changed(bundle, tmp_path / "plain", {}, without=("model.onnx", "parity.json"))
    assert run(plain.folder)[0] == 3


def test_what_cannot_be_served_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty.pkl").write_bytes(b"")
    said = "problem  file  empty.pkl is empty. The copy or download that made it did not finish."
    assert run("empty.pkl") == (1, f"{said}\n\nit cannot be served here\n")
    bundle = converted.iris(tmp_path / "iris")
    (tmp_path / "iris" / "golden.json").write_bytes(b"{}")
    assert run(bundle.folder)[1].startswith(f"problem  bundle  {tmp_path}/iris/golden.json was changed after it was packed")
    broken: Bundle = converted.changed(converted.iris(tmp_path / "whole"), tmp_path / "broken", {"golden.json": b"{}"})
    code, text = run(broken.folder)
    assert code == 1
    assert "golden.json of 'iris' holds no rows with an input and an output. Pack again." in text


def test_what_is_not_there_is_wrong_use() -> None:
    with pytest.raises(UnknownReference, match=r"there is no file none\.pkl"):
        run("none.pkl")


def test_json_holds_the_findings_and_the_measurements(tmp_path: Path) -> None:
    converted.shipping(tmp_path / "shipping")
    code, text = run("shipping", "--json")
    said = json.loads(text)
    assert (code, said["exit_code"], said["ref"]) == (0, 0, "shipping")
    assert {finding["status"] for finding in said["findings"]} == {"ok"}
    assert [engine["engine"] for engine in said["engines"]] == ["onnx", "native"]
    assert [call["rows"] for call in said["engines"][0]["calls"]] == [1, 8, 64, 512]

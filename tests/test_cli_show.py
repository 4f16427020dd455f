"""`modelport show` of a bundle with ONNX: the evidence that it answers alike, and how fast each engine is here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import bundles
import converted
from modelport.cli.show import chosen, command
from modelport.errors import ModelFailed
from modelport.serving.trial import Tried


def run(*words: object) -> str:
    done = CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_the_evidence_is_shown(tmp_path: Path) -> None:
    bundle = bundles.write(tmp_path / "plain")
    assert "\nonnx" not in run(bundle.folder)
    passed = converted.changed(bundle, tmp_path / "passed", {"parity.json": json.dumps(converted.PARITY).encode()})
    assert """\
model   sklearn.svm._classes.SVC, scikit-learn 1.9.1
onnx    passed: 1,212 rows, 0 flips, largest difference 5e-07
        150 of the rows are of the sample; against scikit-learn 1.9.1 on Python 3.11; skl2onnx 1.20.0, onnx 1.23.2, onnxruntime 1.31.1
python  3.11
""" in run(passed.folder)
    assert json.loads(run(passed.folder, "--json"))["parity"] == converted.PARITY
    parity = {**converted.PARITY, "passed": False, "reason": "FunctionTransformer has no ONNX form"}
    failed = converted.changed(bundle, tmp_path / "failed", {"parity.json": json.dumps(parity).encode()})
    assert "onnx    native: FunctionTransformer has no ONNX form\n" in run(failed.folder)


def test_each_engine_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    bundle = converted.iris(tmp_path / "bundle")
    text = run(bundle.folder, "--engines")
    lines = text.splitlines()
    assert re.fullmatch(r"rows  onnx ms  rows/s +native ms  rows/s", lines[0])
    for line, count in zip(lines[1:5], (1, 8, 64, 512), strict=True):
        assert re.fullmatch(rf"{count} +[0-9.]+ +[0-9,]+ +\* +[0-9.]+ +[0-9,]+", line), line
    assert lines[5:7] == ["", "*       answers in a service, for so many rows"]
    assert re.fullmatch(r"onnx    starts in [0-9.]+ s, [0-9]+ MB of memory", lines[7])
    assert re.fullmatch(r"native  starts in [0-9.]+ s, [0-9]+ MB of memory", lines[8])
    assert lines[9:] == ["", f"next: modelport serve {bundle.folder}"]


def test_an_engine_that_a_gate_refuses_is_not_measured(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    bundle = converted.iris(tmp_path / "bundle", {"model/model.pkl": converted.writes(mark)}, model="model/model.pkl")
    onnx, native = json.loads(run(bundle.folder, "--engines", "--json"))["engines"]
    assert (onnx["engine"], [call["rows"] for call in onnx["calls"]]) == ("onnx", [1, 8, 64, 512])
    assert all(call["chosen"] and call["seconds"] > 0 for call in onnx["calls"])
    assert native["engine"] == "native"
    assert "would import io.open, not on the allow-list for sklearn" in native["reason"]
    assert not mark.exists()


def test_where_no_engine_can_be_measured_it_is_said_why(tmp_path: Path) -> None:
    bundle = bundles.write(tmp_path / "bundle", content=b"\x80\x04N.")
    with pytest.raises(ModelFailed, match="no engine of iris could be measured: "):
        run(bundle.folder, "--engines")


def test_what_a_service_asks_is_marked(tmp_path: Path) -> None:
    curves = {"onnx": [(1, 1.0), (8, 8.0)], "native": [(1, 4.0), (8, 4.0)]}
    tried = {name: Tried(name, 1.0, 0, 1, curve) for name, curve in curves.items()}
    bundle = converted.shipping(tmp_path / "bundle")
    assert chosen(bundle, tried) == {1: "onnx", 8: "native"}
    code = converted.changed(bundle, tmp_path / "code", {"code/mine.py": b""})
    assert chosen(code, tried) == {1: "onnx", 8: "onnx"}
    assert chosen(bundle, {**tried, "onnx": ModelFailed("it broke")}) == {1: "native", 8: "native"}
    assert chosen(bundle, {"onnx": ModelFailed("it broke")}) == {}

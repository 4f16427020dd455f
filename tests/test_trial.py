"""A bundle tried in a process of its own: what comes of it is told, whatever it does to that process."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import converted
from modelport.errors import GoldenMismatch, ModelFailed, UsageError
from modelport.serving.trial import attempt


def test_what_was_tried_is_told(tmp_path: Path) -> None:
    bundle = converted.shipping(tmp_path / "bundle")
    onnx, native = attempt(bundle, "onnx"), attempt(bundle, "native")
    assert (onnx.engine, native.engine) == ("onnx", "native")
    assert onnx.golden_rows == native.golden_rows == 20
    assert [rows for rows, _ in onnx.curve] == [rows for rows, _ in native.curve] == [1, 8, 64, 512]
    assert all(seconds > 0 for _, seconds in (*onnx.curve, *native.curve))
    assert native.memory_bytes > onnx.memory_bytes > 10_000_000
    assert onnx.seconds > 0


def test_an_error_of_the_bundle_is_the_callers(tmp_path: Path) -> None:
    bundle = converted.iris(tmp_path / "bundle")
    golden = bundle.read_json("golden.json")
    wrong = (tmp_path / "bundle" / "golden.json").read_bytes().replace(b"setosa", b"virginica")
    assert golden["rows"][0]["output"]["prediction"] == "setosa"
    with pytest.raises(GoldenMismatch, match="golden row 0 of 'iris' answers differently now"):
        attempt(converted.changed(bundle, tmp_path / "wrong", {"golden.json": wrong}), "onnx")
    plain = converted.changed(bundle, tmp_path / "plain", {}, without=("model.onnx", "parity.json"))
    with pytest.raises(UsageError, match="iris has no ONNX"):
        attempt(plain, "onnx")


class Ends:
    def __reduce__(self) -> object:
        import os

        return os._exit, (7,)


def test_a_process_that_ends_or_prints_is_no_answer(tmp_path: Path) -> None:
    bundle = converted.iris(tmp_path / "bundle")
    ends = converted.changed(bundle, tmp_path / "ends", {"model/model.pkl": pickle.dumps(Ends())}, model="model/model.pkl")
    with pytest.raises(ModelFailed, match="the process that loaded iris ended with 7"):
        attempt(ends, "native")
    with pytest.raises(ModelFailed, match="iris was not loaded and measured within 0 s"):
        attempt(bundle, "onnx", timeout_s=0)

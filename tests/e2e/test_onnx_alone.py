"""A bundle whose model is ONNX too is served where none of the libraries it was trained with is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import distribution
from pathlib import Path

import httpx
import pytest

import converted
from modelport import pins
from modelport.bundle import Bundle
from test_cli_serve import started

ABSENT = ("sklearn", "pandas", "scipy", "joblib", "xgboost", "lightgbm", "catboost", "skops", "onnx", "pyarrow")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has Modelport and what it requires: links to what is installed here."""
    folder = tmp_path_factory.mktemp("alone")
    venv.create(folder, with_pip=False, symlinks=True)
    packages = folder / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for pin in ("modelport", *pins.closure(project["dependencies"])):
        found = distribution(pin.partition("==")[0])
        tops = {Path(str(file)).parts[0] for file in found.files or ()} - {"..", "__pycache__", "/"}
        for top in tops:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(found.locate_file(top))).resolve())
    return folder / "bin" / "python"


def test_the_environment_has_none_of_them(alone: Path) -> None:
    code = f"from importlib.util import find_spec; print([name for name in {ABSENT!r} if find_spec(name)])"
    done = subprocess.run([alone, "-c", code], capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]})
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("make", [converted.iris, converted.shipping])
def test_it_serves_from_onnx_alone(make: type[Bundle], alone: Path, tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle")
    rows = bundle.read_json("golden.json")["rows"]
    with started(tmp_path, "serve", str(bundle.folder), "--port", "0", python=alone) as (_, serving, url):
        assert serving["engines"] == ["onnx"]
        answers = httpx.post(f"{url}/predict", json=[row["input"] for row in rows], trust_env=False).json()
        about = httpx.get(url, trust_env=False).json()
    assert about["engine"] == "onnx"
    for row, answer in zip(rows, answers, strict=True):
        for name, value in row["output"].items():
            assert answer[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-5, abs=1e-5))

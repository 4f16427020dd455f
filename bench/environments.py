"""Gives each tool a virtual environment of its own below bench/.work/, kept until what it is made of changes."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORK = Path(__file__).parent / ".work" / "comparison"
LIBRARIES = ("scikit-learn==1.9.1", "xgboost-cpu==3.2.0", "pandas", "joblib")
"""The libraries of the models: in every environment, so that each tool loads files written by the same versions."""
INSTALL_S = 900


class InstallError(Exception):
    """An environment could not be made: with the last lines the installer wrote."""


@functools.cache
def environment(name: str, requirements: tuple[str, ...], alone: tuple[str, ...] = ()) -> Path:
    """The folder of an environment with these installed, made when it is not there yet. InstallError when that fails.

    Those of `alone` come without what they require. A requirement that is a folder of source counts as changed when a file in it has
    changed since the last run; during one it stays as it was.
    """
    folder, made = WORK / "envs" / name, WORK / "envs" / f"{name}.made"
    state = hashlib.sha256("\n".join([sys.version, *requirements, *map(_state_of_source, requirements), *alone]).encode()).hexdigest()
    if made.is_file() and made.read_text() == state:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    made.unlink(missing_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"installing {name}: {' '.join(requirements)}", file=sys.stderr, flush=True)
    # PyTorch for the CPU alone is where pip is configured to look, which uv does not read
    uv = None if any(one.startswith("torch") for one in requirements) else _uv()
    if uv:
        _run([uv, "venv", "--quiet", "--python", sys.executable, folder])
        _run(
            [
                uv,
                "pip",
                "install",
                "--quiet",
                "--compile-bytecode",
                "--refresh-package",
                "modelport",
                "--python",
                _python(folder),
                *requirements,
            ]
        )
    else:
        _run([sys.executable, "-m", "venv", folder])
        _run([_python(folder), "-m", "pip", "install", "--quiet", *requirements])
    if alone:
        _run([_python(folder), "-m", "pip", "install", "--quiet", "--no-deps", *alone])
    made.write_text(state)
    return folder


def versions(folder: Path) -> dict[str, str]:
    """Every distribution in an environment."""
    return {found.name.lower(): found.version for found in distributions(path=[str(_site(folder))])}


def installed_mb(folder: Path, without: Sequence[str] = ()) -> float:
    """The size of the files of an environment's distributions, compiled Python aside, MB; `without` names distributions not to count."""
    skipped = {name.lower() for name in without}
    total = 0
    for found in distributions(path=[str(_site(folder))]):
        if found.name.lower() not in skipped:
            paths = [Path(str(file.locate())) for file in found.files or () if file.suffix != ".pyc"]
            total += sum(path.stat().st_size for path in paths if path.is_file())
    return total / 1e6


def _site(folder: Path) -> Path:
    return next((folder / "lib").glob("python*/site-packages"))


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _uv() -> Path | None:
    """uv in an environment of its own, or None where it cannot be had: pip does the same more slowly."""
    folder = WORK / "uv"
    if not (folder / "bin" / "uv").is_file():
        try:
            _run([sys.executable, "-m", "venv", folder])
            _run([_python(folder), "-m", "pip", "install", "--quiet", "uv"])
        except InstallError:
            return None
    return folder / "bin" / "uv"


def _run(words: Sequence[str | Path]) -> None:
    variables = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
    variables["UV_SYSTEM_CERTS"] = "1"
    try:
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=INSTALL_S, check=False, env=variables)
    except subprocess.TimeoutExpired as error:
        raise InstallError(f"not installed within {INSTALL_S} s") from error
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise InstallError(" / ".join(said[-3:])[-400:])


def _state_of_source(requirement: str) -> str:
    folder = Path(requirement.partition("[")[0])
    if not folder.is_absolute() or not folder.is_dir():
        return ""
    digest = hashlib.sha256((folder / "pyproject.toml").read_bytes())
    for path in sorted((folder / "src").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()

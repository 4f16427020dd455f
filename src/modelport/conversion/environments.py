"""Environments of the time in which a model was written: which Python, which libraries, and the folder that has them.

`recipe` decides, as data; `make` lets uv build it, once: an environment is kept under the hash of its exact pins.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from modelport import caches
from modelport.errors import MissingLibrary, NoEnvironment
from modelport.frameworks import Card

_KEPT, _SPARED_S = 8, 3600.0
_RESOLVE_S, _INSTALL_S, _QUICK_S = 90.0, 600.0, 30.0
_TRIES = 3
"""How many Pythons are tried before it is given up to find one that has wheels of everything."""
_OLDEST_PYTHON = (3, 7)
"""What the files in `frameworks/portable` keep to."""


class Unsolvable(NoEnvironment):
    """No set of wheels fits."""


class _Release(NamedTuple):
    python: tuple[int, int]
    """The oldest Python it has wheels for."""
    newest: tuple[int, int]
    until: str | None
    """Some weeks after its last patch release: what the index had by then fits it, later numpys do not, and its metadata is silent."""


_SCIKIT_LEARN = {
    "0.18": _Release((3, 6), (3, 6), "2018-09-01"),
    "0.19": _Release((3, 6), (3, 7), "2018-12-15"),
    "0.20": _Release((3, 6), (3, 7), "2019-09-15"),
    "0.21": _Release((3, 6), (3, 7), "2019-09-15"),
    "0.22": _Release((3, 6), (3, 8), "2020-04-15"),
    "0.23": _Release((3, 6), (3, 8), "2020-09-15"),
    "0.24": _Release((3, 6), (3, 9), "2021-06-15"),
    "1.0": _Release((3, 7), (3, 10), "2022-02-15"),
    "1.1": _Release((3, 8), (3, 10), "2022-12-15"),
    "1.2": _Release((3, 8), (3, 11), "2023-04-30"),
    "1.3": _Release((3, 8), (3, 12), "2023-12-15"),
    "1.4": _Release((3, 9), (3, 12), "2024-05-31"),
    "1.5": _Release((3, 9), (3, 13), "2024-11-15"),
    "1.6": _Release((3, 9), (3, 13), "2025-02-28"),
    "1.7": _Release((3, 10), (3, 13), "2025-10-31"),
    "1.8": _Release((3, 11), (3, 13), "2026-01-31"),
    "1.9": _Release((3, 11), (3, 13), None),
}
"""By minor version. The newest takes whatever there is, as do those that come after this table."""
BEFORE_0_18 = "0.19.2"
"""The scikit-learn that reads models of before 0.18, which do not say their version."""
_NUMPY_2 = "2024-09-15"
"""A date at which numpy 2 and what fits it was there."""
_SKL2ONNX_1_17 = "2022-06-01"
"""What was current before is too old for a skl2onnx that knows today's onnx."""
_XGBOOST_CPU = "2024-09-01"
"""From then on there is a distribution of XGBoost without half a gigabyte for graphics cards."""
_DISTRIBUTIONS = {
    "catboost": "catboost",
    "category_encoders": "category-encoders",
    "dateutil": "python-dateutil",
    "dill": "dill",
    "imblearn": "imbalanced-learn",
    "joblib": "joblib",
    "lightgbm": "lightgbm",
    "numpy": "numpy",
    "pandas": "pandas",
    "pkg_resources": "setuptools<81",
    "scipy": "scipy",
    "skl2onnx": "skl2onnx",
    "sklearn": "scikit-learn",
    "skops": "skops",
    "threadpoolctl": "threadpoolctl",
    "xgboost": "xgboost",
}
"""The distributions of modules that a model may need. No other name out of a file is ever asked of a registry: anybody can register it."""
_BY_NAME = ("ColumnTransformer", "FunctionTransformer")
"""The classes of scikit-learn that look for columns by their names, for which they want a frame."""


@dataclass(frozen=True)
class Recipe:
    """What an environment is made of."""

    pythons: tuple[str, ...]
    """The Pythons that would do, best first: ("3.11", "3.10")."""
    requirements: tuple[str, ...]
    until: str | None = None
    """The day, as "2023-12-15", of which the index is asked: nothing newer is taken."""
    tools: tuple[str, ...] = ()
    """What converts the model: as of today, as far as it fits the requirements; left out where nothing does."""


@dataclass(frozen=True)
class Environment:
    """An environment that is there."""

    python: Path
    version: str
    """The Python's, as "3.11"."""
    pins: Mapping[str, str]
    """The version of each distribution in it."""
    has_tools: bool
    """Whether it can convert."""


# What to make


def recipe(card: Card, imports: Iterable[str], *, tools: Sequence[str] = ()) -> Recipe:
    """The environment that fits a model: the exact version of its library, a Python that has wheels of it, and an index of that time.

    `imports` is what its file imports: what else it needs, and which numpy wrote it, follows from that.
    """
    imports = tuple(imports)
    version = card.version or (BEFORE_0_18 if card.library == "scikit-learn" else None)
    release = _SCIKIT_LEARN.get(".".join((version or "").split(".")[:2])) if card.library == "scikit-learn" else None
    here = sys.version_info[:2]
    if release is None:
        release = _Release(here, here, None)
    until = release.until
    if any(name.startswith("numpy._core.") for name in imports) and until is not None:
        until = max(until, _NUMPY_2)
    names = {name.split(".")[0] for name in imports}
    if any(name.startswith("sklearn.") and name.endswith(_BY_NAME) for name in imports):
        names.add("pandas")
    brought = {_distribution(name, until, card.details.get(name)) for name in names & _DISTRIBUTIONS.keys()}
    others = sorted(brought - {card.library, "joblib", "numpy", "scipy"})
    exact = f"{card.library}=={version}" if version else card.library
    wanted = (exact, _numpy(imports, until), "scipy", "joblib", "setuptools<81", *others)
    if "skl2onnx" in tools and until is not None and until < _SKL2ONNX_1_17:
        tools = (*tools, "onnx<1.18")
    return Recipe(_pythons(release, here), wanted, until, tuple(tools))


def with_module(before: Recipe, module: str) -> Recipe | None:
    """The recipe with what brings `module`; None when nothing is known to, or it is in there already."""
    top = module.split(".")[0]
    if top not in _DISTRIBUTIONS:
        return None
    added = _distribution(top, before.until)
    return None if added in before.requirements else replace(before, requirements=(*before.requirements, added))


def _distribution(module: str, until: str | None, version: Any = None) -> str:
    """What brings a module: in the version that the file says wrote the part of it that needs the module, where it says one."""
    light = sys.platform.startswith("linux") and (until is None or until >= _XGBOOST_CPU)
    name = "xgboost-cpu" if module == "xgboost" and light else _DISTRIBUTIONS[module]
    return f"{name}=={version}" if version else name


def _numpy(imports: Iterable[str], until: str | None) -> str:
    """numpy of the generation that wrote the file: 2 calls its inner package _core, 1 knows core only."""
    inner = {".".join(name.split(".")[:2]) for name in imports}
    if "numpy._core" in inner:
        return "numpy>=2"
    return "numpy<2" if "numpy.core" in inner or (until is not None and until < _NUMPY_2) else "numpy"


def _pythons(release: _Release, here: tuple[int, int]) -> tuple[str, ...]:
    """The Pythons from the newest to the oldest, and first of all the one that runs here."""
    minors = [(3, minor) for minor in range(release.newest[1], release.python[1] - 1, -1) if (3, minor) >= _OLDEST_PYTHON]
    minors.sort(key=lambda minor: minor != here)
    return tuple(f"{major}.{minor}" for major, minor in minors)


# Making it


def make(wanted: Recipe, told: Callable[[str], None] = lambda line: None) -> Environment:
    """The environment of a recipe: out of the cache, or made now, in seconds. `told` hears of it when it is made.

    NoEnvironment when there is no Python for it, no wheels, or no registry; MissingLibrary without uv.
    """
    cache = caches.root() / "environments"
    for folder in sorted(cache.glob("[!.]*")):
        found = _opened(folder, wanted)
        if found is not None:
            os.utime(folder)
            return found
    uv = _find_uv()
    version, python, pins, has_tools = _resolve(uv, wanted)
    told(f"Making Python {version} with {wanted.requirements[0].replace('==', ' ')} ...")
    lock = "".join(f"{pin}\n" for pin in pins)
    name = hashlib.sha256(f"{version}\n{lock}{wanted}".encode()).hexdigest()[:24]
    if (cache / name).is_dir() and _opened(cache / name, wanted) is None:
        shutil.rmtree(cache / name)  # the Python that it was made with is gone

    def fill(venv: Path) -> None:
        _run(uv, ["venv", "--quiet", "--no-project", "--python", str(python), str(venv)], _QUICK_S)
        words = ["pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--python", str(venv / "bin" / "python")]
        _run(uv, [*words, "--requirement", "-"], _INSTALL_S, lock)
        about = {"recipe": asdict(wanted), "version": version, "pins": dict(pin.split("==") for pin in pins), "has_tools": has_tools}
        (venv / "modelport.json").write_text(json.dumps(about))

    made = _opened(caches.made(cache, name, fill, _KEPT, spare_s=_SPARED_S), wanted)
    assert made is not None
    return made


def _opened(folder: Path, wanted: Recipe) -> Environment | None:
    """The environment in a folder, when it has all that the recipe wants and its Python is still there."""
    try:
        about = json.loads((folder / "modelport.json").read_text())
    except (OSError, ValueError):
        return None
    python = folder / "bin" / "python"
    made = about["recipe"]
    held = {*made["requirements"], *(re.split("[<=>]", one)[0] for one in made["requirements"])}  # a name alone wants no version of it
    has_all = {*wanted.requirements} <= held and {*wanted.tools} <= {*made["tools"]}
    if not has_all or made["until"] != wanted.until or about["version"] not in wanted.pythons or not python.exists():
        return None
    return Environment(python, about["version"], about["pins"], about["has_tools"])


def _resolve(uv: str, wanted: Recipe) -> tuple[str, Path, list[str], bool]:
    """The first Python that is here and has wheels of everything; the exact pins; and whether the tools are among them."""
    if not wanted.pythons:
        oldest = ".".join(map(str, _OLDEST_PYTHON))
        raise NoEnvironment(f"{wanted.requirements[0].replace('==', ' ')} has wheels for Pythons before {oldest} only")
    here = interpreters()
    usable = [(version, here[version]) for version in wanted.pythons if version in here]
    if not usable:
        one = f"Python {wanted.pythons[0]}" if len(wanted.pythons) == 1 else f"a Python from {wanted.pythons[-1]} to {wanted.pythons[0]}"
        raise NoEnvironment(
            f"{wanted.requirements[0].replace('==', ' ')} needs {one}, which is not here", hint=f"`uv python install {wanted.pythons[0]}`"
        )
    dated = ["--exclude-newer", wanted.until] if wanted.until else []
    for index, (version, python) in enumerate(usable[:_TRIES]):
        try:
            pins = _compiled(uv, python, wanted.requirements, dated)
        except Unsolvable:
            if index + 1 == len(usable[:_TRIES]):
                raise
            continue
        if not wanted.tools:
            return version, python, pins, False
        try:
            return version, python, _compiled(uv, python, [*pins, *wanted.tools], []), True
        except NoEnvironment:
            return version, python, pins, False
    raise AssertionError("the last try returns or raises")


def _compiled(uv: str, python: Path, requirements: Sequence[str], dated: Sequence[str]) -> list[str]:
    """Exact pins of the requirements and of all they require."""
    words = ["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--only-binary", ":all:", "--python", str(python), *dated, "-"]
    given = "\n".join(requirements)
    try:
        text = _run(uv, words, _RESOLVE_S, given)
    except Unsolvable:
        # what uv has kept of the index may be of a moment when it was not all there
        text = _run(uv, [*words, "--refresh"], _RESOLVE_S, given)
    return [line.split(" ")[0] for line in text.splitlines() if "==" in line]


def interpreters() -> dict[str, Path]:
    """The Pythons that are here, by minor version: this one, those in uv's and pyenv's folders, and those on the PATH."""
    home = Path.home()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    folders = [
        *sorted(Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python").glob("cpython-3.*"), reverse=True),
        *sorted(Path(os.environ.get("PYENV_ROOT") or home / ".pyenv").glob("versions/3.*"), reverse=True),
    ]
    found = {".".join(map(str, sys.version_info[:2])): Path(sys.executable)}
    for folder in folders:
        match = re.match(r"(?:cpython-)?(3\.\d+)\.", folder.name)
        python = folder / "bin" / f"python{match[1]}" if match else folder
        if match and python.is_file():
            found.setdefault(match[1], python)
    for minor in range(_OLDEST_PYTHON[1], 20):
        on_path = shutil.which(f"python3.{minor}")
        # one of pyenv's is a script, which may lead to no Python
        if on_path and "shims" not in Path(on_path).parts:
            found.setdefault(f"3.{minor}", Path(on_path))
    return found


def run_uv(words: Sequence[str], given: str = "") -> str:
    """What uv prints when it has these words and is `given` the rest. MissingLibrary without uv, NoEnvironment when it fails."""
    return _run(_find_uv(), words, _INSTALL_S, given)


def _find_uv() -> str:
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        on_path = shutil.which("uv")
    if on_path is None:
        raise MissingLibrary("uv, which makes environments, is not installed", hint="pip install uv")
    return on_path


def _run(uv: str, words: Sequence[str], seconds: float, given: str = "") -> str:
    """What uv prints. NoEnvironment says in one line why it failed, or that it took too long."""
    settings = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "UV_SYSTEM_CERTS": "1"}
    if "PIP_INDEX_URL" in os.environ and not {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & os.environ.keys():
        settings["UV_DEFAULT_INDEX"] = os.environ["PIP_INDEX_URL"]  # uv does not read pip's settings
    if "PIP_FIND_LINKS" in os.environ:
        settings["UV_FIND_LINKS"] = ",".join(os.environ["PIP_FIND_LINKS"].split())
    try:
        done = subprocess.run(  # noqa: S603 the words are ours, and no shell reads them
            [uv, *words], input=given, capture_output=True, text=True, env={**settings, **os.environ}, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise NoEnvironment(
            f"uv {words[0]} {words[1]} did not end within {seconds:g} s", hint="Is the package registry reachable? Try again."
        ) from None
    if done.returncode == 0:
        return done.stdout
    raise _failed(done.stderr)


_UNREACHABLE = (
    "certificate", "connection refused", "dns error", "error sending request", "failed to fetch", "tcp connect error", "timed out",
)  # fmt: skip
"""What uv says when it is not the requirements that are wrong."""


def _failed(said: str) -> NoEnvironment:
    """Why uv failed, in one line."""
    lines = [re.sub(r"^\W+|^(error|hint): ", "", line).strip() for line in said.splitlines()]
    text = " ".join(line for line in lines if line)
    if any(word in text.lower() for word in _UNREACHABLE):
        return NoEnvironment("the package registry cannot be reached", hint=f"uv says: {text[:300]}")
    if "No solution found" in text or "no wheels" in text:
        because = text.partition("ecause ")[2] or text
        return Unsolvable(f"no set of wheels fits: {because[:300]}")
    return NoEnvironment(f"uv failed: {text[:300]}")

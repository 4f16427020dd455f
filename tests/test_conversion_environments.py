"""An environment of the time in which a model was written: what goes into it is data, and it is made once, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from modelport import caches
from modelport.conversion import environments
from modelport.conversion.environments import Recipe, make, recipe, with_module
from modelport.errors import NoEnvironment
from modelport.frameworks import Card

HERE = ".".join(map(str, sys.version_info[:2]))
NUMPY_1 = ("numpy.core.multiarray._reconstruct", "numpy.dtype", "numpy.ndarray")
NUMPY_2 = ("numpy._core.multiarray._reconstruct", "numpy.dtype", "numpy.ndarray")


def of(version: str | None, imports: Sequence[str] = NUMPY_1, library: str = "scikit-learn") -> Recipe:
    return recipe(Card("sklearn", "sklearn.svm._classes.SVC", library, version), imports)


# What goes into it


@pytest.mark.parametrize(
    ("version", "pythons", "until"),
    [
        ("0.18.1", (), "2018-09-01"),
        ("0.19.2", ("3.7",), "2018-12-15"),
        ("0.22.1", ("3.8", "3.7"), "2020-04-15"),
        ("0.24.2", ("3.9", "3.8", "3.7"), "2021-06-15"),
        ("1.0.2", ("3.10", "3.9", "3.8", "3.7"), "2022-02-15"),
        ("1.1.2", ("3.10", "3.9", "3.8"), "2022-12-15"),
        ("1.3.2", ("3.12", "3.11", "3.10", "3.9", "3.8"), "2023-12-15"),
        ("1.7.2", ("3.13", "3.12", "3.11", "3.10"), "2025-10-31"),
        ("1.9.0", ("3.13", "3.12", "3.11"), None),
    ],
)
def test_the_python_has_wheels_of_that_version_and_the_index_is_of_that_time(
    version: str, pythons: tuple[str, ...], until: str | None
) -> None:
    made = of(version)
    assert sorted(made.pythons, key=lambda one: -int(one[2:])) == list(pythons)
    assert made.pythons[:1] == ((HERE,) if HERE in pythons else pythons[:1]), "the Python that runs here is there for sure"
    assert made.until == until
    assert made.requirements == (f"scikit-learn=={version}", "numpy<2", "scipy", "joblib", "setuptools<81")


def test_a_version_after_the_table_takes_what_there_is() -> None:
    assert of("2.4.0", NUMPY_2) == Recipe((HERE,), ("scikit-learn==2.4.0", "numpy>=2", "scipy", "joblib", "setuptools<81"))


def test_a_model_that_says_no_version_was_written_before_0_18_and_takes_the_next() -> None:
    assert of(None).requirements[0] == "scikit-learn==0.19.2"


def test_numpy_2_moves_the_date_to_where_it_was_there() -> None:
    made = of("1.4.2", NUMPY_2)
    assert (made.until, made.requirements[1]) == ("2024-09-15", "numpy>=2")
    assert of("1.7.2", NUMPY_2).until == "2025-10-31"
    assert of("1.3.2", ()).requirements[1] == "numpy<2", "there was no other at that date"
    assert of("1.9.0", ()).requirements[1] == "numpy"


def test_columns_by_name_want_pandas_and_other_models_want_their_library() -> None:
    transformer = "sklearn.compose._column_transformer.ColumnTransformer"
    assert of("1.3.2", (transformer,)).requirements[5:] == ("pandas",)
    assert of("1.3.2", ("xgboost.sklearn.XGBRegressor", "lightgbm.basic.Booster")).requirements[5:] == ("lightgbm", "xgboost")
    assert of("1.7.2", ("xgboost.sklearn.XGBRegressor",)).requirements[5:] == (
        ("xgboost-cpu",) if sys.platform.startswith("linux") else ("xgboost",)
    )
    assert of("1.3.2", ("pandas.core.frame.DataFrame", "imblearn.pipeline.Pipeline")).requirements[5:] == ("imbalanced-learn", "pandas")


def test_names_out_of_a_file_are_not_asked_of_a_registry_unless_they_are_known() -> None:
    assert of("1.3.2", ("evil_twin.Thing", "requests.get")).requirements[5:] == ()
    assert with_module(of("1.3.2"), "evil_twin") is None


def test_a_module_that_was_missing_is_added_once() -> None:
    more = with_module(of("1.3.2"), "pandas.core.frame")
    assert more is not None
    assert more.requirements[5:] == ("pandas",)
    assert with_module(more, "pandas") is None
    assert with_module(of("1.3.2"), "pkg_resources") is None, "setuptools is there already"


# Making it


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODELPORT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "environments"


@pytest.fixture
def fake_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A package called uv that finds a shell script of these lines in the place of the program."""

    def put(lines: str) -> None:
        folder = tmp_path / "site"
        folder.mkdir(exist_ok=True)
        script = folder / "uv-program"
        script.write_text(f"#!/bin/sh\n{lines}\n")
        script.chmod(0o755)
        (folder / "uv.py").write_text(f"def find_uv_bin():\n    return {str(script)!r}\n")
        monkeypatch.syspath_prepend(str(folder))
        sys.modules.pop("uv", None)

    yield put
    sys.modules.pop("uv", None)


LIGHT = Recipe((HERE,), ("threadpoolctl==3.2.0",), "2023-12-15")


def test_an_environment_is_made_once_and_has_the_exact_versions(cache: Path, registry: None) -> None:
    told: list[str] = []
    made = make(LIGHT, told.append)
    assert (made.version, made.pins, made.has_tools) == (HERE, {"threadpoolctl": "3.2.0"}, False)
    assert told == [f"Making Python {HERE} with threadpoolctl 3.2.0 ..."]
    assert made.python.is_file()
    assert made.python.parent.parent.parent == cache
    assert make(LIGHT, told.append) == made
    assert len(told) == 1
    assert [folder.name for folder in cache.iterdir()] == [made.python.parent.parent.name]
    made.python.unlink()  # as when the Python it was made with has been removed
    assert make(LIGHT, told.append) == made
    assert made.python.is_file()


def test_what_fits_nothing_is_one_line(cache: Path, registry: None) -> None:
    with pytest.raises(NoEnvironment, match=r"no set of wheels fits: .*scikit-learn") as caught:
        make(Recipe((HERE,), ("scikit-learn==1.3.2", "numpy>=2"), "2023-12-15"))
    assert "\n" not in caught.value.message
    assert not list(cache.glob("*"))


def test_tools_that_do_not_fit_are_left_out(cache: Path, registry: None) -> None:
    assert not make(Recipe((HERE,), LIGHT.requirements, LIGHT.until, ("threadpoolctl==3.5.0",))).has_tools
    assert make(Recipe((HERE,), LIGHT.requirements, LIGHT.until, ("threadpoolctl>=3",))).has_tools


def test_a_missing_python_is_one_line_with_the_command_that_brings_it(cache: Path) -> None:
    with pytest.raises(NoEnvironment) as caught:
        make(Recipe(("3.99", "3.98"), ("scikit-learn==9.9.9",)))
    assert caught.value.message == "scikit-learn 9.9.9 needs a Python from 3.98 to 3.99, which is not here"
    assert caught.value.hint == "`uv python install 3.99`"
    with pytest.raises(NoEnvironment, match=r"scikit-learn 0\.18\.1 has wheels for Pythons before 3\.7 only"):
        make(of("0.18.1"))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("error: error sending request for url: dns error", "the package registry cannot be reached"),
        (
            "  x No solution found when resolving dependencies:\n  ╰─▶ Because a==1 has no wheels, nothing fits.",
            "no set of wheels fits: a==1 has",
        ),
        ("error: something else", "uv failed: something else"),
    ],
)
def test_what_uv_says_is_one_line(said: str, words: str, cache: Path, fake_uv: Callable[[str], None]) -> None:
    fake_uv(f"cat >&2 <<'END'\n{said}\nEND\nexit 2")
    with pytest.raises(NoEnvironment, match=words) as caught:
        make(LIGHT)
    assert "\n" not in caught.value.message
    assert not list(cache.glob("*"))


def test_a_run_that_ends_halfway_leaves_nothing_that_would_be_taken_for_whole(
    cache: Path, tmp_path: Path, fake_uv: Callable[[str], None]
) -> None:
    fake_uv('[ "$2" = compile ] && echo threadpoolctl==3.2.0 && exit 0\n[ "$1" = venv ] && mkdir -p "$6/bin" && exit 0\nkill -9 $PPID')
    script = f"from modelport.conversion.environments import Recipe, make; make({LIGHT!r})"
    search = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": search}, check=False)
    assert done.returncode == -signal.SIGKILL
    left = list(cache.iterdir())
    assert [folder.name[:8] for folder in left] == [".making-"]
    assert (left[0] / "bin").is_dir()
    assert not list(cache.glob("[!.]*"))


def test_an_environment_whose_python_is_gone_is_not_used(cache: Path) -> None:
    folder = cache / "abc"
    folder.mkdir(parents=True)
    about = {"recipe": json.loads(json.dumps(environments.asdict(LIGHT))), "version": HERE, "pins": {}, "has_tools": False}
    (folder / "modelport.json").write_text(json.dumps(about))
    assert environments._opened(folder, LIGHT) is None
    (folder / "bin").mkdir()
    shutil.copyfile(sys.executable, folder / "bin" / "python")
    assert environments._opened(folder, LIGHT) is not None
    assert environments._opened(folder, of("1.3.2")) is None


def test_an_environment_that_has_more_than_is_wanted_will_do(cache: Path) -> None:
    pandas = with_module(of("1.3.2"), "pandas")
    assert pandas is not None
    (cache / "abc" / "bin").mkdir(parents=True)
    shutil.copyfile(sys.executable, cache / "abc" / "bin" / "python")
    about = {"recipe": json.loads(json.dumps(environments.asdict(pandas))), "version": pandas.pythons[0], "pins": {}, "has_tools": False}
    (cache / "abc" / "modelport.json").write_text(json.dumps(about))
    assert make(of("1.3.2")).python == cache / "abc" / "bin" / "python"
    assert make(replace(pandas, requirements=("scikit-learn==1.3.2", "numpy"))).python == cache / "abc" / "bin" / "python"
    skops = with_module(pandas, "skops")
    assert skops is not None
    for other in (skops, of("1.3.1"), replace(pandas, tools=("skl2onnx",)), replace(pandas, until=None)):
        assert environments._opened(cache / "abc", other) is None


def test_a_converter_for_old_versions_gets_an_onnx_that_it_knows() -> None:
    card = Card("sklearn", "sklearn.svm._classes.SVC", "scikit-learn", "1.0.2")
    assert recipe(card, (), tools=("skl2onnx",)).tools == ("skl2onnx", "onnx<1.18")
    assert recipe(replace(card, version="1.1.3"), (), tools=("skl2onnx",)).tools == ("skl2onnx",)


def test_the_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    for age, name in enumerate(["new", "old", "older", ".making-now", ".making-yesterday"]):
        (tmp_path / name).mkdir()
        seconds = (tmp_path / name).stat().st_mtime - 10 * age - (90_000 if name == ".making-yesterday" else 0)
        os.utime(tmp_path / name, (seconds, seconds))
    caches.prune(tmp_path, 1, spare_s=15)
    assert {folder.name for folder in tmp_path.iterdir()} == {"new", "old", ".making-now"}
    caches.prune(tmp_path, 1)
    assert {folder.name for folder in tmp_path.iterdir()} == {"new", ".making-now"}


def test_pythons_are_found_in_the_folders_of_pyenv_and_uv_and_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [
        "pyenv/versions/3.90.1/bin/python3.90",
        "uv/cpython-3.91.2-linux-x86_64-gnu/bin/python3.91",
        "bin/python3.12",
        "shims/python3.13",
    ]
    for place in places:
        path = tmp_path / place
        path.parent.mkdir(parents=True)
        path.write_text("")
        path.chmod(0o755)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{tmp_path / 'shims'}")
    found = environments.interpreters()
    assert found[HERE] == Path(sys.executable)
    assert found["3.90"] == tmp_path / places[0]
    assert found["3.91"] == tmp_path / places[1]
    assert "3.13" not in found or HERE == "3.13"
    assert HERE == "3.12" or found["3.12"] == tmp_path / places[2]

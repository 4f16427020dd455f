"""Dependencies are pinned for the image's platform, compiled, and checked before anything is sent."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

import bundles
import images_world
from modelport.errors import NoEnvironment, Refused
from modelport.images import dependencies
from modelport.images.dependencies import Dependencies, Platform
from modelport.images.layers import Layer
from modelport.images.plan import LIB, Plan

HERE = Platform(python=images_world.PYTHON, glibc=36)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODELPORT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def wanted(folder: Path, *requirements: str, left_out: tuple[str, ...] = ()) -> Plan:
    return Plan(bundles.write(folder / "bundle"), 1, requirements, left_out)


@pytest.mark.parametrize(
    ("platform", "target"),
    [
        (Platform("amd64", "3.11", 36), "x86_64-manylinux_2_36"),
        (Platform("arm64", "3.11", 41), "aarch64-manylinux_2_40"),
        (Platform("amd64", "3.11", 30), "x86_64-manylinux_2_28"),
        (Platform("amd64", "3.11", 12), "x86_64-manylinux_2_17"),
        (Platform("amd64", "3.11", 0), "x86_64-unknown-linux-musl"),
    ],
)
def test_wheels_are_those_that_the_bases_c_library_runs(platform: Platform, target: str) -> None:
    assert platform.target == target


def test_what_is_not_pinned_has_the_version_that_is_installed_here(tmp_path: Path, registry: None) -> None:
    plan = wanted(tmp_path, f"click=={version('click')}", "uvicorn")
    assert set(dependencies.lock(plan, HERE)) >= {f"{name}=={version(name)}" for name in ("click", "h11", "uvicorn")}


def test_what_is_left_out_is_not_installed(tmp_path: Path, registry: None) -> None:
    line = f"uvicorn=={version('uvicorn')}"
    locked = dependencies.lock(wanted(tmp_path, line, left_out=("h11", "not-there")), HERE)
    assert line in locked
    assert not [one for one in locked if one.startswith("h11")]


def test_a_layer_for_another_processor_is_made_here(tmp_path: Path, registry: None) -> None:
    platform = Platform("arm64", images_world.PYTHON, 36)
    made = dependencies.made(wanted(tmp_path, f"msgspec=={version('msgspec')}"), platform)
    with tarfile.open(made.layer.path) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    library = next((tmp_path / "out").rglob("_core*.so"))
    from modelport.images import elf

    seen = elf.read(library)
    assert seen is not None
    assert seen.machine == "arm64"
    assert "libc.so.6" in made.needs
    with pytest.raises(NoEnvironment, match="is for arm64, and the image for linux/amd64"):
        dependencies._check_machine([library], HERE)


def test_what_has_no_wheel_is_named_with_the_way_on(tmp_path: Path, registry: None) -> None:
    with pytest.raises(NoEnvironment, match=r"no wheels of everything for linux/amd64, Python .*glibc 2\.36: .*docopt") as raised:
        dependencies.made(wanted(tmp_path, "docopt==0.6.2"), HERE)
    assert "modelport export dockerfile" in raised.value.hint


def test_a_package_index_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(NoEnvironment, match="package registry cannot be reached"):
        dependencies.lock(wanted(tmp_path, "click==8.2.0"), HERE)


def test_the_layer_has_what_is_imported_compiled_and_no_tests(tmp_path: Path, registry: None) -> None:
    lines = (f"msgspec=={version('msgspec')}", f"numpy=={version('numpy')}")
    made = dependencies.made(wanted(tmp_path, *lines), HERE)
    assert made.is_compiled
    with tarfile.open(made.layer.path) as tar:
        names = set(tar.getnames())
        tar.extractall(tmp_path / "out", filter="data")
    lib = tmp_path / "out" / LIB.removeprefix("/")
    code = "import numpy, msgspec; print(numpy.__version__, msgspec.json.encode({'a': 1}).decode(), numpy.__file__)"
    said = subprocess.run(
        [sys.executable, "-S", "-c", code], env={"PYTHONPATH": str(lib)}, capture_output=True, text=True, check=True, cwd="/"
    ).stdout
    assert said.split() == [version("numpy"), '{"a":1}', str(lib / "numpy" / "__init__.py")]
    below = f"{LIB.removeprefix('/')}/numpy"
    assert importlib.util.cache_from_source(f"{below}/__init__.py") in names
    assert not [name for name in names if "/tests/" in name or name.endswith((".pyi", "/RECORD")) or "/bin/" in name]
    assert made.layer.parts.keys() == {"msgspec", "numpy"}
    assert made.layer.parts["numpy"] > 20_000_000
    assert sum(made.layer.parts.values()) == made.layer.unpacked
    assert {(one.name, one.version) for one in made.components} == {("msgspec", version("msgspec")), ("numpy", version("numpy"))}


def test_compiled_files_are_the_same_wherever_they_are_made_and_whatever_the_time(tmp_path: Path) -> None:
    source = "import os\nNAMES = {'a', 'b', 'c'}\ndef f(x: int) -> str:\n    return 'text' + os.name\n" * 20
    python = dependencies.compiler(images_world.PYTHON)
    assert python is not None
    for number, folder in enumerate(("one", "two")):
        (tmp_path / folder / "p").mkdir(parents=True)
        for name in ("a.py", "b.py", "broken.py"):
            (tmp_path / folder / "p" / name).write_text(source if name != "broken.py" else "def (")
        dependencies.compile_files(python, tmp_path / folder, [["p/a.py", "p/b.py", "p/broken.py"][:: 1 - 2 * number]])
    found = {path.name: path.read_bytes() for path in (tmp_path / "one").rglob("*.pyc")}
    assert found == {path.name: path.read_bytes() for path in (tmp_path / "two").rglob("*.pyc")}
    assert len(found) == 2, "what is no Python of that version is left as it is"
    one = next(iter(found.values()))
    assert one[4:8] == b"\x01\0\0\0", "by hash, and not checked"
    assert f"{LIB}/p/".encode() in one
    assert str(tmp_path).encode() not in one


def test_a_base_that_lacks_a_library_is_refused_with_what_brings_it(tmp_path: Path) -> None:
    layer = Layer(tmp_path, "dependencies", "", "", 0, 0, {})
    needs = {"libc.so.6": ("a.so",), "libgomp.so.1": ("lightgbm/lib/lib_lightgbm.so",), "libx.so.1": ("b.so", "c.so")}
    there = Dependencies(layer, needs, (), is_compiled=True)
    with pytest.raises(Refused) as raised:
        dependencies.check_libraries(there, ["libc.so.6"], "python:3.11-slim")
    assert raised.value.message == (
        "python:3.11-slim lacks libgomp.so.1, which lightgbm/lib/lib_lightgbm.so asks for; libx.so.1, which b.so and 1 more ask for"
    )
    assert raised.value.hint.startswith("--base names a base that has libgomp1 (Debian's name)")
    dependencies.check_libraries(there, ["libc.so.6", "libgomp.so.1", "libx.so.1"], "python:3.11-slim")

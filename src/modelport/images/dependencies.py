"""The dependencies of an image: exact pins for its platform, and the layer that has them, compiled, without what serving does not use."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.parser import HeaderParser
from functools import cache
from pathlib import Path

from modelport import caches, pins
from modelport.conversion.environments import interpreters, run_uv
from modelport.errors import NoEnvironment, Refused
from modelport.images import elf, layers
from modelport.images.layers import Layer
from modelport.images.plan import LIB, PRUNED, RUNTIME, Plan

_KEPT, _SPARED_S = 24, 3600.0
_FORM = 1
"""Raised when a layer is made otherwise of the same pins."""
_NEEDS, _COMPONENTS = "needs.json", "components.json"
_COMPILE_S = 300.0
_GLIBC = (17, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40)
"""Of the glibcs 2.x those for which uv knows the wheels."""
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_COMPILE = """\
import importlib.util, py_compile, sys
root, place = sys.argv[1:]
for name in sys.stdin.read().splitlines():
    py_compile.compile(
        f"{root}/{name}", importlib.util.cache_from_source(f"{root}/{name}"), f"{place}/{name}",
        quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
"""


@dataclass(frozen=True)
class Platform:
    """What dependencies are for: linux on an architecture, a Python, and a C library."""

    architecture: str = "amd64"
    """"amd64" or "arm64"."""
    python: str = "3.11"
    glibc: int = 28
    """2.x; 0 is musl."""

    def __str__(self) -> str:
        return f"linux/{self.architecture}, Python {self.python}, {f'glibc 2.{self.glibc}' if self.glibc else 'musl'}"

    @property
    def target(self) -> str:
        """uv's name for it: the newest of its names that the C library can run."""
        machine = _MACHINES[self.architecture]
        if not self.glibc:
            return f"{machine}-unknown-linux-musl"
        return f"{machine}-manylinux_2_{max((one for one in _GLIBC if one <= self.glibc), default=_GLIBC[0])}"


@dataclass(frozen=True)
class Component:
    """A distribution that is installed."""

    name: str
    version: str
    license: str


@dataclass(frozen=True)
class Dependencies:
    """The layer with what is installed, and what is known of it."""

    layer: Layer
    needs: Mapping[str, tuple[str, ...]]
    """The shared libraries that must come from the base, and the files that ask for each, below LIB."""
    components: tuple[Component, ...]
    is_compiled: bool
    """False where there is no Python here to compile for it: then every start takes longer."""


def lock(plan: Plan, platform: Platform) -> tuple[str, ...]:
    """Exact pins of all that is installed, one "name==version" each; found once, and then kept.

    What the bundle does not pin has the version that is installed here, so that no newer release changes an image unseen.
    NoEnvironment names what has no wheel for the platform.
    """
    pinned = {line.partition("==")[0] for line in plan.requirements}
    constraints = [line for line in pins.closure((*RUNTIME, "onnxruntime")) if line.partition("==")[0].lower() not in pinned]
    key = json.dumps([_FORM, plan.requirements, plan.left_out, constraints, platform.target, platform.python])

    def resolve(folder: Path) -> None:
        limits = folder / "constraints.txt"
        limits.write_text("".join(f"{line}\n" for line in constraints))
        left_out = [word for name in plan.left_out for word in ("--no-emit-package", name)]
        words = ["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--constraint", str(limits), *left_out]
        text = _uv([*words, *_for(plan, platform), "-"], plan.requirements, platform)
        (folder / "lock.txt").write_text("".join(f"{line.split(' ')[0]}\n" for line in text.splitlines() if "==" in line))

    folder = caches.made(_cache("locks"), _hash(key), resolve, _KEPT, spare_s=_SPARED_S)
    return tuple((folder / "lock.txt").read_text().splitlines())


def made(plan: Plan, platform: Platform, told: Callable[[str], None] = lambda line: None) -> Dependencies:
    """The layer of the dependencies: out of the cache, or made now.

    NoEnvironment names what has no wheel for the platform; MissingLibrary without uv.
    """
    locked = lock(plan, platform)
    python = compiler(platform.python)
    compiled_by = version_of(python) if python else ""
    key = json.dumps([_FORM, locked, platform.target, platform.python, compiled_by, PRUNED])

    def install(folder: Path) -> None:
        told(f"Installing {len(locked)} distributions for {platform} ...")
        lib = folder / "lib"
        words = ["pip", "install", "--quiet", "--no-deps", "--target", str(lib), *_for(plan, platform), "--requirement", "-"]
        _uv(words, locked, platform)
        owners = _owners(lib)
        components = _components(lib)
        prune(lib)
        groups: dict[str, list[str]] = {}
        for place in _places(lib):
            groups.setdefault(owners.get(place, place.partition("/")[0]), []).append(place)
        if python:
            compile_files(python, lib, groups.values())
        parts = dict.fromkeys(groups, 0)
        files: dict[str, Path | bytes] = {}
        for place in _places(lib):
            owner = owners.get(_source_of(place), place.partition("/")[0])
            files[f"{LIB}/{place}"] = lib / place
            parts[owner] = parts.get(owner, 0) + (lib / place).stat().st_size
        libraries = [path for path in files.values() if isinstance(path, Path) and ".so" in path.name]
        _check_machine(libraries, platform)
        needs = {name: [str(path.relative_to(lib)) for path in by] for name, by in elf.missing(libraries, ()).items()}
        (folder / _NEEDS).write_text(json.dumps(needs))
        (folder / _COMPONENTS).write_text(json.dumps(components))
        layers.write(folder, "dependencies", files, parts=parts)
        shutil.rmtree(lib)

    folder = caches.made(_cache("dependencies"), _hash(key), install, _KEPT, spare_s=_SPARED_S)
    needs = {name: tuple(by) for name, by in json.loads((folder / _NEEDS).read_bytes()).items()}
    components = tuple(Component(*one) for one in json.loads((folder / _COMPONENTS).read_bytes()))
    return Dependencies(layers.read(folder), needs, components, bool(python))


def check_libraries(dependencies: Dependencies, there: Iterable[str], base: str) -> None:
    """Refused when the base lacks shared libraries that are asked for: the start, or the first call, would fail."""
    known = frozenset(there)
    lacking = {name: by for name, by in dependencies.needs.items() if name not in known}
    if not lacking:
        return
    asked = "; ".join(
        f"{name}, which {by[0]} asks for" if len(by) == 1 else f"{name}, which {by[0]} and {len(by) - 1} more ask for"
        for name, by in lacking.items()
    )
    packages = sorted({elf.PACKAGES[name] for name in lacking if name in elf.PACKAGES})
    brings = f"a base that has {' '.join(packages)} (Debian's name)" if packages else "a base that has them"
    raise Refused(
        f"{base} lacks {asked}",
        hint=f"--base names {brings}; `modelport export dockerfile` and a line that installs it; or --ignore-library if nothing loads it.",
    )


def prune(lib: Path) -> None:
    """Take out of the folder what PRUNED names, and whatever was compiled when it was installed."""
    for pattern in (*PRUNED, "**/__pycache__"):
        for path in list(lib.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def compiler(python: str) -> Path | None:
    """An interpreter here that compiles for Python `python` ("3.11"); None where there is none."""
    return interpreters().get(python)


def compile_files(python: Path, lib: Path, groups: Iterable[Sequence[str]], place: str = LIB) -> None:
    """Compile the .py files of each group, so that they are not looked at again when their time changes.

    Each group has a process of its own, and its files their order: what was compiled before in a process shows in the bytes of what
    follows (marshal writes an object that is referred to twice otherwise than one that is not).
    """

    def compiled(group: Sequence[str]) -> None:
        sources = sorted(name for name in group if name.endswith(".py"))
        if sources:
            words = [str(python), "-S", "-s", "-c", _COMPILE, str(lib), place]
            settings = {"PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore"}
            given = "\n".join(sources)
            subprocess.run(words, input=given, text=True, timeout=_COMPILE_S, check=True, env=settings, cwd="/")  # noqa: S603

    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        list(threads.map(compiled, sorted(groups, key=len, reverse=True)))


def _for(plan: Plan, platform: Platform) -> list[str]:
    words = ["--only-binary", ":all:", "--python-platform", platform.target, "--python-version", platform.python]
    chosen = {"UV_TORCH_BACKEND", "UV_INDEX", "UV_FIND_LINKS", "PIP_FIND_LINKS"} & os.environ.keys()
    if not chosen and any(line.partition("==")[0] == "torch" for line in plan.requirements):
        words += ["--torch-backend", "cpu"]
    return words


def _uv(words: Sequence[str], lines: Sequence[str], platform: Platform) -> str:
    try:
        return run_uv(words, "\n".join(lines))
    except NoEnvironment as error:
        if "registry cannot be reached" in error.message:
            raise
        raise NoEnvironment(
            f"there are no wheels of everything for {platform}: {error.message}",
            hint="`modelport export dockerfile` writes a build that may compile it; or pin a version that has a wheel, and pack again.",
        ) from error


def _check_machine(libraries: Iterable[Path], platform: Platform) -> None:
    """NoEnvironment when a library is for other processors: a wheel that says less than it holds."""
    for path in libraries:
        library = elf.read(path)
        if library is not None and library.machine != platform.architecture:
            raise NoEnvironment(f"{path.name} is for {library.machine}, and the image for {platform}")


def _places(lib: Path) -> list[str]:
    return sorted(path.relative_to(lib).as_posix() for path in lib.rglob("*") if path.is_file())


def _owners(lib: Path) -> dict[str, str]:
    """The distribution that each file came with, as RECORD says."""
    owners = {}
    for record in lib.glob("*.dist-info/RECORD"):
        name = record.parent.name.partition("-")[0].replace("_", "-").lower()
        for line in record.read_text(encoding="utf-8").splitlines():
            owners[line.partition(",")[0].strip('"')] = name
    return owners


def _components(lib: Path) -> list[tuple[str, str, str]]:
    found = []
    for path in sorted(lib.glob("*.dist-info/METADATA")):
        about = HeaderParser().parsestr(path.read_text(encoding="utf-8"))
        found.append((about["Name"], about["Version"], about["License-Expression"] or ""))
    return found


def _source_of(place: str) -> str:
    """The .py file that a .pyc was made of; every other file itself."""
    folder, inner, name = place.rpartition("__pycache__/")
    return f"{folder}{name.partition('.')[0]}.py" if inner else place


@cache
def version_of(python: Path) -> str:
    """The whole version of an interpreter, "3.11.7": another may compile the same file otherwise."""
    if python == Path(sys.executable):
        return ".".join(map(str, sys.version_info[:3]))
    words = [str(python), "-I", "-S", "-c", "import sys; print('.'.join(map(str, sys.version_info[:3])))"]
    return subprocess.run(words, capture_output=True, text=True, timeout=_COMPILE_S, check=True).stdout.strip()  # noqa: S603


def _cache(kind: str) -> Path:
    return caches.root() / "images" / kind


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]

"""Which files go along with a model as its code: modules that it needs, and what they read."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from modelport import inspection
from modelport.errors import UsageError


def collect(path: Path, code: Sequence[str | Path] = (), include: Sequence[str | Path] = ()) -> dict[str, Path]:
    """What goes into the bundle's code/, by its place there: the modules that are named or imported, and the files they read.

    A .py file that is the model itself is one of them. UsageError for what cannot be there.
    """
    named = [split(one)[0] for one in code]
    for one in named:
        if one.suffix != ".py" or not one.stem.isidentifier():
            raise UsageError(f"--code {one} is no Python module", hint="--code takes the .py file that defines what the model needs.")
    parts: dict[str, Path] = {}
    for place, file in [*_beside(path), *((one.name, one) for one in named), *_included(path, include)]:
        if place in parts and parts[place].resolve() != file.resolve():
            raise UsageError(f"two files are to be code/{place} in the bundle: {parts[place]} and {file}", hint="Give one another name.")
        parts.setdefault(place, file)
    return parts


def split(one: str | Path) -> tuple[Path, str]:
    """The file that a word of --code names, and the function in it, or "": "model.py:make_model"."""
    file, colon, function = str(one).rpartition(":")
    return (Path(file), function) if colon and file.endswith(".py") and function.isidentifier() else (Path(one), "")


def copy(parts: Mapping[str, Path], folder: Path) -> Path | None:
    """Copy them to code/ in `folder`: that folder, or None where there are none."""
    if not parts:
        return None
    for place, path in parts.items():
        target = folder / "code" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return folder / "code"


def modules(parts: Mapping[str, Path]) -> list[Path]:
    """Those of them that are Python."""
    return [file for place, file in parts.items() if place.endswith(".py")]


def _beside(path: Path) -> list[tuple[str, Path]]:
    """A .py file and the modules and packages in its folder that it imports, and they."""
    if path.suffix != ".py":
        return []
    found = {path.name: path}
    waiting = [path]
    while waiting:
        for name in {one.partition(".")[0] for one in inspection.read(waiting.pop()).root["imports"]} - sys.stdlib_module_names:
            module, package = path.parent / f"{name}.py", path.parent / name
            files = [module] if module.is_file() else sorted(package.rglob("*.py")) if (package / "__init__.py").is_file() else []
            for file in files:
                place = file.relative_to(path.parent).as_posix()
                if place not in found:
                    found[place] = file
                    waiting.append(file)
    return list(found.items())


def _included(path: Path, include: Sequence[str | Path]) -> Iterator[tuple[str, Path]]:
    home = path.resolve().parent
    for one in map(Path, include):
        if not one.resolve().is_relative_to(home):
            raise UsageError(f"--include {one} does not lie below {home}", hint="Put it beside the model: it keeps its place there.")
        if not one.exists():
            raise UsageError(f"there is no file {one}, which --include names")
        for file in sorted(one.rglob("*")) if one.is_dir() else [one]:
            hidden = any(part.startswith((".", "__pycache__")) for part in file.relative_to(one).parts)
            if file.is_file() and not hidden:
                yield file.resolve().relative_to(home).as_posix(), file

"""Whether a model file may be loaded here: can this Python run it, is what it would import trusted, is its library the one installed."""

from __future__ import annotations

import ast
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

from modelport import engines, inspection
from modelport.bundle import ONNX, Bundle
from modelport.errors import ModelFileError, Untrusted, VersionMismatch
from modelport.frameworks import Card
from modelport.frameworks.torch_files import FACTORY
from modelport.inspection.report import differs, installed_version, written_by


def check_python(path: Path, compiled_by: str) -> None:
    """VersionMismatch when functions in a pickle are the code of another Python, as `inspection.foreign_python` says.

    No flag opens this gate: running such code may end the process.
    """
    if compiled_by:
        here = ".".join(platform.python_version_tuple()[:2])
        raise VersionMismatch(
            f"{path} holds functions compiled by Python {compiled_by}: this is {here}, which cannot run them",
            hint="Define them in a .py file, save the model with pickle or joblib, and bring that file along: --code FILE.py.",
        )


def check_trust(
    path: Path, card: Card | None, refused: Sequence[str], *, trust: bool = False, code: Iterable[Path] = ()
) -> tuple[str, ...]:
    """What the file would import beyond the allow-list of its framework (`refused`), when who loads it accepts that.

    Names that are defined in the `code` that comes with the model are accepted with that code. Untrusted names the others, unless `trust`.
    """
    brought = {f"{module}.{name}" for file in code for name in defined_in(file) for module in ("__main__", file.stem)}
    unknown = [name for name in refused if name not in brought]
    if unknown and not trust:
        shown = ", ".join(unknown[:6]) + (f" and {len(unknown) - 6} more" if len(unknown) > 6 else "")
        own = all(name.startswith("__main__.") for name in unknown)
        hint = (
            "They were written where the model was trained: bring that file along with --code FILE.py."
            if own
            else "If you know who made this file and why it needs them, say --trust."
        )
        listed = f"the allow-list for {card.framework}" if card else "any allow-list"
        raise Untrusted(f"{path} would import {shown}, not on {listed}", hint=hint)
    return tuple(refused)


def other_version(card: Card) -> str:
    """The story of a model that another version of its library wrote than the one installed, where that matters; else "".

    scikit-learn's pickles hold its own objects: a forest written by 1.3 loads in 1.9 and answers wrongly, others do not load, and one minor
    version is enough. Before 0.18 they do not say what wrote them. The formats of the other libraries are stable across versions.
    """
    here = installed_version(card)
    if card.library != "scikit-learn" or here is None or not differs(card, here):
        return ""
    wrote = f"scikit-learn {written_by(card)} wrote this {card.cls.rpartition('.')[2]}"
    return f"{wrote}; you have {here}, which does not load it, or answers wrongly with it"


def not_installed(card: Card) -> str:
    """The story of a scikit-learn model where there is no scikit-learn at all; else ""."""
    if card.library != "scikit-learn" or card.version is None or installed_version(card) is not None:
        return ""
    return f"scikit-learn {card.version} wrote this {card.cls.rpartition('.')[2]}, and there is none here"


def check_version(path: Path, card: Card, *, trust_version: bool = False) -> None:
    """VersionMismatch when `other_version` has a story to tell of the file."""
    story = "" if trust_version else other_version(card)
    if story:
        raise VersionMismatch(
            f"{path}: {story}",
            hint=f"`modelport pack {path} --python-env auto` makes an environment that has it, and converts it; or say --trust-version.",
        )


def check_stored(bundle: Bundle, *, trust_version: bool = False, engine: str = "auto") -> None:
    """The gate for a bundle out of the own store: what it would import was accepted when it was packed."""
    if engines.choose(bundle, engine) == "native":
        check_version(bundle.model_path, bundle.card, trust_version=trust_version)


def check_bundle(bundle: Bundle, *, trust: bool = False, trust_version: bool = False, engine: str = "auto") -> None:
    """All gates for a bundle that is about to be loaded by `engine` and did not come out of the own store.

    A bundle with code/ is a program: it needs `trust` as much as a pickle with names off the allow-list. Where ONNX answers, neither the
    code nor the model file is opened, and the graph runs no code: it only has to be one.
    """
    if engines.choose(bundle, engine) == "onnx":
        contents = inspection.read(bundle.folder / ONNX)
        if contents.format != "onnx" or contents.root["external_data"]:
            raise ModelFileError(f"{bundle.folder / ONNX} is no ONNX model in one file", hint="--engine native leaves it out.")
        return
    contents = inspection.read(bundle.model_path)
    if not inspection.inert(bundle.card):
        check_python(bundle.model_path, inspection.foreign_python(contents))
    # a bundle's card is as foreign as its model: what it has PyTorch import and call beyond the file is no less a program
    said = bundle.card.details if bundle.card.framework == "torch" else {}
    beyond = sorted(set(said.get("imports", ())) - set(contents.imports))
    check_trust(bundle.model_path, bundle.card, (*inspection.refused(contents, bundle.card), *beyond), trust=trust)
    if bundle.code_folder and not trust:
        raise Untrusted(f"{bundle.folder} brings Python code along, in {bundle.code_folder}", hint="Read it; then say --trust.")
    if said.get(FACTORY) and not trust:
        raise Untrusted(f"{bundle.folder} would call {said[FACTORY]} to make its network", hint="If you know why, say --trust.")
    check_version(bundle.model_path, bundle.card, trust_version=trust_version)


def defined_in(path: Path) -> tuple[str, ...]:
    """The names that a module defines or imports at its top level. ModelFileError when it is no Python."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError, OSError, RecursionError) as error:
        hint = "--code takes the .py file that defines what the model needs."
        raise ModelFileError(f"{path} is not a Python module: {error}", hint=hint) from error
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names += [alias.asname or alias.name.split(".")[0] for alias in node.names]
    return tuple(names)

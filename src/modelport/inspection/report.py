"""What `inspect` answers: a file's contents, its card, and what both mean for loading it here."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions, version
from importlib.util import find_spec
from typing import Any, TypeAlias

from modelport.frameworks import Card
from modelport.inspection import inert
from modelport.plugins import framework

_UNCERTAIN = ("scikit-learn",)
"""Libraries whose pickles hold their own classes, and so only mean the same to the version that wrote them."""

_MAIN = frozenset({"__main__", "__mp_main__"})


@dataclass(frozen=True)
class Inspection:
    """What a model file holds, read without running it. `to_dict` gives it as JSON."""

    path: str
    size: int
    format: str
    compression: str | None
    protocol: int | None
    card: Card | None
    """What its framework reads out of it; None when no framework here knows it."""
    imports: tuple[str, ...]
    """Everything that loading it would import, as "module.name"."""
    refused: tuple[str, ...]
    """What of that is not on the allow-list for its framework; "name()" is allowed to be named and not to be called. And code in it."""
    missing: tuple[str, ...]
    """The imports that cannot be found here: from `__main__`, or from a module that is not installed."""
    installed: str | None
    """The version of the card's library that is installed here."""
    python: str
    """The Python whose code the functions in it are, when this one cannot run it: "3.8 to 3.10"; else ""."""
    warnings: tuple[str, ...]
    """What may go wrong when it is loaded here, a sentence each."""
    advice: tuple[str, ...]
    """What to do next: commands, and comments that begin with "#"."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "card": card_to_dict(self.card) if self.card else None}


def card_to_dict(card: Card) -> dict[str, Any]:
    """A card as JSON values; class labels that are none become text."""
    raw = {**asdict(card), "details": dict(card.details)}
    raw["classes"] = [value if isinstance(value, (str, int, float, type(None))) else str(value) for value in card.classes]
    return raw


def card_from_dict(raw: Mapping[str, Any]) -> Card:
    """The reverse of `card_to_dict`."""
    return Card(**{**raw, "features": tuple(raw["features"]), "classes": tuple(raw["classes"])})


def report(contents: Mapping[str, Any], card: Card | None, refused: tuple[str, ...], python: str = "") -> Inspection:
    """The inspection of what a child process has read."""
    imports = tuple(contents["imports"])
    missing = () if inert(card) else _missing(imports, card)
    installed = installed_version(card)
    warnings, advice = _story(str(contents["path"]), contents["format"], card, refused, missing, installed)
    if python:
        warnings = (f"holds functions compiled by Python {python}: this is {_python()}, which cannot run them", *warnings)
        advice = (
            "# define them in a .py file, save the model with pickle or joblib, then:",
            f"modelport pack {contents['path']} --code my_code.py",
        )
    return Inspection(
        contents["path"], contents["size"], contents["format"], contents["compression"], contents["protocol"],
        card, imports, refused, missing, installed, python, warnings, advice,
    )  # fmt: skip


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _missing(imports: tuple[str, ...], card: Card | None) -> tuple[str, ...]:
    """Names whose top module is `__main__` or is not here. The framework's own library has a sentence of its own."""
    own = _top_modules(card.library) if card and card.library else frozenset()
    absent: dict[str, bool] = {}
    for name in imports:
        top = name.partition(".")[0]
        if top not in absent:
            absent[top] = top in _MAIN or (top not in own and not _found(top))
    return tuple(name for name in imports if absent[name.partition(".")[0]])


def _found(top: str) -> bool:
    """Whether a module of that name is installed: looked for, and not imported."""
    if not top.isidentifier():
        return False
    try:
        return find_spec(top) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _top_modules(library: str) -> frozenset[str]:
    # scikit-learn 1.5 to 1.7 name a module of theirs _loss, and no package
    known = {"scikit-learn": ("sklearn", "_loss")}
    return frozenset(known.get(library, (library.replace("-", "_"),)))


def installed_version(card: Card | None) -> str | None:
    """The version here of the library that wrote the model, under whichever name it is distributed: xgboost-cpu is xgboost."""
    if card is None or not card.library:
        return None
    names = [card.library]
    for top in _top_modules(card.library):
        if _found(top):
            names += packages_distributions().get(top, [])
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def differs(card: Card, installed: str) -> bool:
    """Whether the version that wrote the model is of another minor release than the one installed; for stable formats, of a later one.

    scikit-learn's own objects say which version wrote them from 0.18 on.
    """
    if card.version is None:
        return card.library in _UNCERTAIN and card.cls.startswith("sklearn.")
    wrote, here = _parts(card.version)[:2], _parts(installed)[:2]
    return wrote != here if card.library in _UNCERTAIN else wrote > here


def written_by(card: Card) -> str:
    """The version that wrote a model of which `differs` is true, in words."""
    return card.version or "before 0.18"


def _story(
    path: str, form: str, card: Card | None, refused: tuple[str, ...], missing: tuple[str, ...], installed: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The warnings and the advice."""
    served = card is not None and hasattr(framework(card.framework), "load")
    told = [_of_refused(card, refused, missing, served)]
    if served or card is None:
        told = [_of_library(form, card, installed), _of_version(path, card, installed), _of_missing(path, missing), *told]
    warnings = [warning for warning, _ in told if warning]
    advice = [line for _, lines in told for line in lines]
    if form == "python":
        warnings.append("is code: it runs when it is loaded")
    if card is None:
        warnings.append(f"no framework here knows this {'kind of object' if form in ('pickle', 'joblib') else 'format'}")
    elif not served:
        warnings.append(f"{card.framework} models are recognised, and not served yet")
    elif not advice:
        advice += _served_by(path, card)
    return tuple(warnings), tuple(advice)


def _served_by(path: str, card: Card) -> list[str]:
    """How a model is served that nothing speaks against."""
    if card.cls in ("state_dict", "checkpoint"):
        return ["# with the function that makes the network these weights belong to:", f"modelport serve {path} --code model.py:make_model"]
    return [f"modelport serve {path}"]


_Told: TypeAlias = tuple[str, list[str]]
"""A warning, or "", and the advice that goes with it."""


def _of_library(form: str, card: Card | None, installed: str | None) -> _Told:
    if card is None or installed is not None or form == "onnx" or not card.library:
        return "", []
    extras = metadata("modelport").get_all("Provides-Extra") or []
    what = f"'modelport[{card.framework}]'" if card.framework in extras else card.library
    if card.library in _UNCERTAIN and card.version:
        what = f"{card.library}=={card.version}"
    return f"{card.library} is not installed here", [f"pip install {what}"]


def _of_version(path: str, card: Card | None, installed: str | None) -> _Told:
    if card is None or installed is None or not differs(card, installed):
        return "", []
    wrote = f"written by {card.library} {written_by(card)}, you have {installed}"
    if card.library in _UNCERTAIN:
        ways = ["# loads it in an environment that has that version, made for it, and converts it to ONNX:", f"modelport pack {path}"]
        return f"{wrote}: these predictions may differ or fail to load", ways
    return f"{wrote}: it may fail to load", [f"pip install --upgrade {card.library}"]


def _of_missing(path: str, missing: tuple[str, ...]) -> _Told:
    own = [name.partition(".")[2] for name in missing if name.partition(".")[0] in _MAIN]
    modules = sorted({name.partition(".")[0] for name in missing} - _MAIN)
    warnings, advice = [], []
    if own:
        warnings.append(
            f"needs {_some(own)} from the script or notebook that wrote it (Can't get attribute '{own[0]}' on <module '__main__'>)"
        )
        advice += [f"# with the file that defines {_some(own)}:", f"modelport pack {path} --code my_code.py"]
    if modules:
        warnings.append(f"needs {_some(modules)}, not installed here")
        advice += ["# with the module, when it is your own; else install it:", f"modelport pack {path} --code {modules[0]}.py"]
    return "; ".join(warnings), advice


def _of_refused(card: Card | None, refused: tuple[str, ...], missing: tuple[str, ...], served: bool) -> _Told:
    others = [name for name in refused if name not in missing]
    if not others:
        return "", []
    kind = f"a {card.framework} model does" if card else "models do"
    advice = ["# only if you know who made it, and why it needs these: --trust"] if served else []
    return f"would use what {kind} not need: {_some(others)}", advice


def _parts(text: str) -> list[int]:
    return [int(part) if part.isdigit() else -1 for part in text.split(".")]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")

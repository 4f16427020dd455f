"""What `inspect` answers: a file's contents, its card, and what both mean for loading it here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from typing import Any

from modelport.frameworks import Card
from modelport.inspection import environments

_UNCERTAIN = ("scikit-learn",)
"""Libraries whose pickles hold their own classes, and so only mean the same to the version that wrote them."""


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


def report(contents: Mapping[str, Any], card: Card | None, refused: tuple[str, ...], extra: str) -> Inspection:
    """The inspection of what a child process has read. `extra` is Modelport's name for the framework's libraries."""
    imports = tuple(contents["imports"])
    missing = _missing(imports, card)
    installed = _installed(card)
    warnings, advice = _story(str(contents["path"]), contents["format"], card, refused, missing, installed, extra)
    return Inspection(
        contents["path"], contents["size"], contents["format"], contents["compression"], contents["protocol"],
        card, imports, refused, missing, installed, warnings, advice,
    )  # fmt: skip


def _missing(imports: tuple[str, ...], card: Card | None) -> tuple[str, ...]:
    """Names whose top module is `__main__` or is not here. The framework's own library has a sentence of its own."""
    own = _top_modules(card.library) if card and card.library else frozenset()
    absent: dict[str, bool] = {}
    for name in imports:
        top = name.partition(".")[0]
        if top not in absent:
            absent[top] = top in ("__main__", "__mp_main__") or (top not in own and not _found(top))
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


def _installed(card: Card | None) -> str | None:
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


def _story(
    path: str, form: str, card: Card | None, refused: tuple[str, ...], missing: tuple[str, ...], installed: str | None, extra: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    warnings: list[str] = []
    advice: list[str] = []
    own = [name for name in missing if name.startswith(("__main__.", "__mp_main__."))]
    foreign = sorted({name.partition(".")[0] for name in missing if name not in own})
    old = card is not None and _differs(card, installed)
    if card is not None and installed is None and _needs_library(form, card):
        warnings.append(f"{card.library} is not installed here")
        advice.append(f"pip install {_pinned(card)}" if card.library in _UNCERTAIN or not extra else f"pip install 'modelport[{extra}]'")
    if card is not None and old:
        more = "these predictions may differ or fail to load" if card.library in _UNCERTAIN else "a newer format may fail to load"
        warnings.append(f"written by {card.library} {card.version}, you have {installed}: {more}")
        advice += ["# an environment that has it:", *environments.commands(card.library, str(card.version))]
    if own:
        names = ", ".join(name.partition(".")[2] for name in own)
        warnings.append(f"needs {names} from the script or notebook that wrote it (Can't get attribute ... on <module '__main__'>)")
        advice += [f"# my_code.py: the file that defines {names}", f"modelport pack {path} --code my_code.py"]
    if foreign:
        warnings.append(f"needs {', '.join(foreign)}, not installed here")
        advice += [
            "# if it is your own module:",
            f"modelport pack {path} --code {foreign[0]}.py",
            f"# else: pip install {' '.join(foreign)}",
        ]
    others = [name for name in refused if name not in missing]
    if others:
        warnings.append(f"would run more than {card.framework if card else 'a plain'} pickles need: {_some(others)}")
        advice.append("# load it only if you know who made it and why it needs these: --trust")
    if form == "python":
        warnings.append("is code: it runs when it is loaded")
    if card is None:
        warnings.append(
            "no framework here knows this kind of object" if form in ("pickle", "joblib") else "no framework here serves this format"
        )
    if not advice and card is not None:
        advice.append(f"modelport serve {path}")
    return tuple(warnings), tuple(advice)


def _differs(card: Card, installed: str | None) -> bool:
    """Whether the version that wrote the model is of another minor release; for the stable formats, of a later one."""
    if card.version is None or installed is None:
        return False
    wrote, here = _parts(card.version)[:2], _parts(installed)[:2]
    return wrote != here if card.library in _UNCERTAIN else wrote > here


def _parts(text: str) -> list[int]:
    return [int(part) if part.isdigit() else -1 for part in text.split(".")]


def _needs_library(form: str, card: Card) -> bool:
    return form not in ("onnx", "python") and card.library not in ("onnxruntime", "onnx", "")


def _pinned(card: Card) -> str:
    return f"{card.library}=={card.version}" if card.version else card.library


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")

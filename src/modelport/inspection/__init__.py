"""What a model file holds, read without running it.

`read` gives the contents in this process, for who is about to load the file; `inspect` reads in a child process with limits, for
people, and says what the contents mean for loading the file here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from modelport.frameworks import Card, Contents

if TYPE_CHECKING:
    from modelport.inspection.report import Inspection as Inspection

PICKLES = frozenset({"pickle", "joblib", "torch-zip", "torch-legacy", "skops"})
"""The formats that name what they import."""


def inspect(path: str | Path) -> Inspection:
    """What the file at `path` holds, read in a child process with bounded memory and time.

    ModelFileError in one line for what is no whole model file, as `read`; and for a bomb.

    >>> modelport.inspect("model.pkl").card.version
    '1.9.1'
    """
    from modelport.inspection.child import inspect_in_child

    return inspect_in_child(Path(path))


def read(path: Path) -> Contents:
    """What the file at `path` holds, read in this process and with nothing of it run.

    ModelFileError, in one line, for a file that is missing, a folder, empty, cut short, damaged, of no known kind or a bomb; MissingLibrary
    when what is needed to unpack it is not installed.
    """
    from modelport.inspection.files import read as read_file

    return read_file(path)


def card(contents: Contents) -> Card | None:
    """The card of the first framework that knows the contents, in the order of `plugins.framework_names`; None when none does."""
    from modelport.plugins import framework, framework_names

    for name in framework_names():
        detect: Callable[[Contents], Card | None] | None = getattr(framework(name), "detect", None)
        found = detect(contents) if detect else None
        if found is not None:
            return found
    return None


def foreign_python(contents: Contents) -> str:
    """The Python whose code the functions in a pickle are, when this one cannot run it: "3.8 to 3.10"; else ""."""
    from modelport.inspection.functions import foreign_python as found

    return found(contents)


def inert(card: Card | None) -> bool:
    """Whether the file of this card is opened with nothing of it run, whatever it would import for its own library."""
    from modelport.plugins import framework

    asked: Callable[[Card], bool] | None = getattr(framework(card.framework), "inert", None) if card else None
    return card is not None and asked is not None and asked(card)


def refused(contents: Contents, card: Card | None) -> tuple[str, ...]:
    """What loading the file would use beyond the allow-list of its framework, or of all when it has none; nothing for formats without code.

    A name that may be imported and not called with arguments stands there with "()". For Keras these are the layers that hold code, and
    the classes that are no part of Keras, as of the script that defined them. A .py file is code as a whole, and who names it means to run
    it: nothing of it is listed. Nor is anything of one that is `inert`.
    """
    if contents.format == "keras":
        code, own = contents.root["code"], contents.root["custom"]
        return (*(f"Python code in the layer {name}" for name in code), *(f"__main__.{name}" for name in own))
    if contents.format not in PICKLES or inert(card):
        return ()
    from modelport.plugins import framework, framework_names

    known = [card.framework] if card else framework_names()
    names = frozenset().union(*(framework(name).imports() for name in known))
    unknown = [name for name in contents.imports if name not in names]
    called = [f"{name}()" for name in contents.calls if name in names and f"{name}()" not in names]
    return (*unknown, *called)

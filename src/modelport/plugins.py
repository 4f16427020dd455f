"""Find a framework or a target by name: Modelport's own by module, others by entry point."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType
from typing import TYPE_CHECKING, cast

from modelport.errors import UsageError

if TYPE_CHECKING:
    from modelport.frameworks import Framework

FRAMEWORKS = ("sklearn", "xgboost", "lightgbm", "catboost", "onnx", "torch", "fastai", "keras", "function", "lookup")
"""Modelport's own, in the order in which they are asked whether a file is theirs."""


@cache
def framework_names() -> tuple[str, ...]:
    """The names of all frameworks here: Modelport's own first, then those of installed packages by name."""
    return FRAMEWORKS + tuple(sorted({point.name for point in entry_points(group="modelport.frameworks")} - set(FRAMEWORKS)))


@cache
def framework(name: str) -> Framework:
    """The framework called `name`. UsageError when there is none."""
    return cast("Framework", _find("framework", name, FRAMEWORKS))


def _find(kind: str, name: str, own: tuple[str, ...]) -> ModuleType:
    if name in own:
        return import_module(f"modelport.{kind}s.{name}")
    for point in entry_points(group=f"modelport.{kind}s"):
        if point.name == name:
            return cast("ModuleType", point.load())
    raise UsageError(f"there is no {kind} {name!r}", hint=f"Known: {', '.join(own)}, and the entry points of the group modelport.{kind}s.")

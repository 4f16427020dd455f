"""The distributions that are installed here, and exact pins of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions


def closure(names: Sequence[str]) -> list[str]:
    """The distributions and all they require, as installed here, one exact pin each: "numpy==2.4.6"."""
    installed: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        requirement = waiting.pop()
        found = _installed(requirement, by_import=requirement in names)
        if found is None or found.metadata["Name"].lower() in installed:
            continue
        installed[found.metadata["Name"].lower()] = found
        waiting += [requirement for requirement in found.requires or [] if "extra ==" not in requirement]
    # without the part behind a "+", which says for which processor a build is: another machine's index may have another
    return [f"{found.metadata['Name']}=={found.version.partition('+')[0]}" for _, found in sorted(installed.items())]


def _installed(requirement: str, *, by_import: bool) -> Distribution | None:
    """The installed distribution of a requirement: itself, or `by_import` the one that gives the same import (xgboost-cpu for xgboost)."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0]
    try:
        return distribution(name)
    except PackageNotFoundError:
        others = _distributions_by_import().get(name, []) if by_import else []
        return distribution(others[0]) if others else None


@cache
def _distributions_by_import() -> Mapping[str, list[str]]:
    """Reads every installed file's name: slow, and seldom needed."""
    return packages_distributions()

"""Environments of the time in which a model was written: which Python, and the index as it was then."""

from __future__ import annotations

import sys
from typing import NamedTuple


class _Release(NamedTuple):
    python: tuple[int, int]
    """The oldest Python it has wheels for."""
    newest: tuple[int, int]
    until: str
    """Some weeks after its last patch release: what the index had by then fits it, later numpys do not, and its metadata is silent."""


_SCIKIT_LEARN = {
    "0.19": _Release((3, 6), (3, 7), "2018-09-01"),
    "0.20": _Release((3, 6), (3, 7), "2019-09-15"),
    "0.21": _Release((3, 6), (3, 7), "2019-09-15"),
    "0.22": _Release((3, 6), (3, 8), "2020-04-15"),
    "0.23": _Release((3, 6), (3, 8), "2020-09-15"),
    "0.24": _Release((3, 6), (3, 9), "2021-06-15"),
    "1.0": _Release((3, 7), (3, 10), "2022-02-15"),
    "1.1": _Release((3, 8), (3, 10), "2022-12-15"),
    "1.2": _Release((3, 8), (3, 11), "2023-04-30"),
    "1.3": _Release((3, 8), (3, 12), "2023-12-15"),
    "1.4": _Release((3, 9), (3, 12), "2024-05-31"),
    "1.5": _Release((3, 9), (3, 13), "2024-11-15"),
    "1.6": _Release((3, 9), (3, 13), "2025-02-28"),
    "1.7": _Release((3, 10), (3, 13), "2025-10-31"),
    "1.8": _Release((3, 11), (3, 13), "2026-01-31"),
    "1.9": _Release((3, 11), (3, 13), "2026-10-31"),
}


def commands(library: str, version: str) -> tuple[str, ...]:
    """The commands that make an environment with `library` at `version`, by uv: it finds the Python, and takes the index as of a date."""
    release = _SCIKIT_LEARN.get(".".join(version.split(".")[:2])) if library == "scikit-learn" else None
    folder = f"{library}-{version}"
    if release is None:
        return (f"uv venv {folder}", f'uv pip install --python {folder} "{library}=={version}" "setuptools<81"')
    here = sys.version_info[:2]
    needs = "numpy scipy " if version.startswith("0.19.") else ""  # it did not say yet what it needs
    python = here if release.python <= here <= release.newest else release.newest
    return (
        f"uv venv --python {python[0]}.{python[1]} {folder}",
        f'uv pip install --python {folder} --exclude-newer {release.until} {needs}"{library}=={version}" "setuptools<81"',
    )

"""The names that pickles of each library may import: classes that hold a model's data, and the functions that rebuild them.

They stand in one text file a library, exact and one a line, made by tools/allowed_names.py from the libraries themselves, old versions
too. No prefix is trusted: `sklearn` has functions that load files, and a pickle can call whatever it may import. "()" behind a name
says that it may be called with arguments.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

ALWAYS = ("python", "numpy")
"""The groups that every pickle needs."""


@cache
def names(*groups: str) -> frozenset[str]:
    """The names of `groups`, of Python's own and of numpy's; for one that may be called, with and without its "()".

    Groups: sklearn, xgboost, lightgbm, catboost, scipy, pandas, joblib, torch, fastai.
    """
    return frozenset().union(*(_group(group) for group in dict.fromkeys((*ALWAYS, *groups))))


@cache
def _group(group: str) -> frozenset[str]:
    lines = (files("modelport.frameworks") / "names" / f"{group}.txt").read_text(encoding="utf-8").split()
    return frozenset(lines) | frozenset(line.removesuffix("()") for line in lines)

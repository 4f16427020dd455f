"""Libraries that only some tests need: there in CI, and elsewhere tests without them are skipped, with what installs them."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest


def torch(*modules: str) -> None:
    """PyTorch and what goes with it (`make torch`), at the top of a module of tests; `modules` are those that are needed."""
    for module in modules or ("torch",):
        if find_spec(module) is None and not os.environ.get("CI"):
            pytest.skip(f"{module} is not installed: make torch", allow_module_level=True)
        import_module(module)


def fonts(*names: str) -> None:
    """Fonts by what the names of their files begin with; `.ci/run` installs them."""
    missing = [name for name in names if not any(Path("/usr/share/fonts").rglob(f"{name}*"))]
    if missing and not os.environ.get("CI"):
        pytest.skip(f"no fonts {', '.join(missing)}: see packages in .ci/run")
    assert not missing, f"no fonts {missing}"

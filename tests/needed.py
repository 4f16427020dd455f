"""Libraries that only some tests need: there in CI, and elsewhere tests without them are skipped, with what installs them."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec

import pytest


def torch(*modules: str) -> None:
    """PyTorch and what goes with it (`make torch`), at the top of a module of tests; `modules` are those that are needed."""
    for module in modules or ("torch",):
        if find_spec(module) is None and not os.environ.get("CI"):
            pytest.skip(f"{module} is not installed: make torch", allow_module_level=True)
        import_module(module)

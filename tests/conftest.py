"""What tests of several files share."""

from __future__ import annotations

import os
import sys

import pytest


@pytest.fixture(scope="session")
def registry() -> None:
    """The package registry, which must be there in CI; elsewhere tests that need it are skipped without it."""
    from modelport.conversion.environments import _compiled, _find_uv
    from modelport.errors import NoEnvironment

    try:
        _compiled(_find_uv(), sys.executable, ["threadpoolctl==3.2.0"], [])
    except NoEnvironment as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{error.message}: {error.hint}")

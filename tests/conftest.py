"""What tests of several files share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

import images_world


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


@pytest.fixture(scope="session")
def old_pythons(registry: None) -> None:
    """The Pythons of old models, which must be there in CI, and the registry; elsewhere tests that need them are skipped without."""
    from modelport.conversion.environments import interpreters

    missing = {"3.7", "3.9", "3.10"} - interpreters().keys()
    if missing and not os.environ.get("CI"):
        pytest.skip(f"there is no Python {', '.join(sorted(missing))}")


@pytest.fixture(scope="session")
def image_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image registry, as host:port, with a base: python:3.11-slim."""
    with images_world.registry(tmp_path_factory.mktemp("image-registry")) as host:
        images_world.push(f"{host}/python:3.11-slim", [images_world.base_layer()])
        yield host


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[images_world.Docker]:
    """A Docker daemon of the tests' own."""
    with images_world.docker_daemon(tmp_path_factory.mktemp("docker")) as host:
        yield images_world.Docker(host)


@pytest.fixture(scope="module")
def own_folders(tmp_path_factory: pytest.TempPathFactory, registry: None) -> Iterator[None]:
    """A cache and a store for the tests of one file, which install what they need from the package registry."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MODELPORT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patched.setenv("MODELPORT_STORE", str(tmp_path_factory.mktemp("store")))
        yield

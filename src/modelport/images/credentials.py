"""Who we are to a registry: what `docker login` has kept, in its file or with a credential helper.

https://docs.docker.com/reference/cli/docker/login/#credential-stores and https://github.com/docker/docker-credential-helpers
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelport.errors import RegistryError
from modelport.images.names import DOCKER_HUB

_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io")
_HELPER = re.compile(r"[A-Za-z0-9_.-]+")
_HELPER_S = 30.0
_TOKEN = "<token>"  # noqa: S105 the name under which a helper gives one
_NONE = "credentials not found"


@dataclass(frozen=True)
class Credentials:
    """A name and a secret, or an identity token that is changed for access tokens."""

    username: str
    secret: str
    is_token: bool = False
    where: str = ""
    """Where they were found, for whoever must correct them."""

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, where={self.where!r})"

    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.secret}".encode()).decode()


def find(registry: str) -> Credentials | None:
    """What is kept for a registry (host, or host:port); None where there is nothing.

    RegistryError when a helper fails or the file does not read.
    """
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    return in_config(folder / "config.json", registry, run_helper)


def in_config(path: Path, registry: str, ask: Callable[[str, str], Credentials | None]) -> Credentials | None:
    """What the file says of a registry, or the helper that it names; `ask` is `run_helper`."""
    try:
        config = json.loads(path.read_bytes())
        parts: list[Mapping[str, Any]] = [config.get(key) or {} for key in ("credHelpers", "auths")]
        helpers, auths = parts
        store = config.get("credsStore")
        names = [name for key in _keys(registry) for name in _matching(key, (*helpers, *auths))] or _keys(registry)[:1]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise RegistryError(f"{path} does not read: {error}", hint="`docker login` writes it anew.") from error
    for name in names:
        if name in helpers:
            return ask(str(helpers[name]), name)
    for name in (*names, *_keys(registry)):
        found = ask(str(store), name) if store else None
        found = found or _entry(path, name, auths.get(name))
        if found is not None:
            return found
    return None


def run_helper(helper: str, server: str) -> Credentials | None:
    """What docker-credential-<helper> says of a server; None when it keeps nothing for it."""
    command = shutil.which(f"docker-credential-{helper}") if _HELPER.fullmatch(helper) else None
    if command is None:
        raise RegistryError(f"docker-credential-{helper}, which keeps the credentials for {server}, is not on the PATH")
    try:
        done = subprocess.run([command, "get"], input=server, capture_output=True, text=True, timeout=_HELPER_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise RegistryError(f"docker-credential-{helper} did not answer within {_HELPER_S:g} s") from None
    if done.returncode:
        if _NONE in done.stdout.lower():
            return None
        raise RegistryError(f"docker-credential-{helper} failed: {(done.stdout + done.stderr).strip()[:200]}")
    try:
        said = json.loads(done.stdout)
        return Credentials(said["Username"], said["Secret"], said["Username"] == _TOKEN, f"docker-credential-{helper}")
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"docker-credential-{helper} answered with something that is no credentials") from error


def _keys(registry: str) -> list[str]:
    """The names under which a registry may stand in the file, most usual first."""
    hosts = _HUB_KEYS if registry == DOCKER_HUB else ()
    return [*hosts, registry, f"https://{registry}"]


def _matching(key: str, names: tuple[str, ...]) -> list[str]:
    """Exactly that name first, then with a path behind it."""
    return [name for name in names if name == key] + [name for name in names if name.startswith(key.rstrip("/") + "/") and name != key]


def _entry(path: Path, name: str, entry: Any) -> Credentials | None:
    if not isinstance(entry, Mapping):
        return None
    try:
        if entry.get("identitytoken"):
            return Credentials(_TOKEN, str(entry["identitytoken"]), True, str(path))
        if entry.get("auth"):
            username, colon, secret = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
            if not colon:
                raise ValueError("no colon in it")
            return Credentials(username, secret.rstrip("\0"), False, str(path))
    except (binascii.Error, ValueError) as error:
        raise RegistryError(f"{path}: what it keeps for {name} does not read", hint=f"`docker login {name}` writes it anew.") from error
    return None

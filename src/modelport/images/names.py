"""The names of images: registry.example.com/team/iris:3, python:3.11-slim, name@sha256:...

Grammar: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
A name without a registry is one of Docker Hub.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from modelport.errors import UsageError

DOCKER_HUB = "docker.io"
_HUB_ALIASES = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Name:
    """An image's name taken apart."""

    registry: str
    """Host, with a port where it has one."""
    repository: str
    tag: str = "latest"
    digest: str = ""
    """"sha256:..." where it is named by it; then the tag says nothing."""

    @classmethod
    def parse(cls, text: str) -> Name:
        """UsageError names the part that is wrong."""
        rest, _, digest = text.partition("@")
        if "@" in text and not DIGEST.fullmatch(digest):
            raise _wrong(text, f"{digest!r} is no digest, which is sha256: and 64 hexadecimal digits")
        head, slash, tail = rest.partition("/")
        has_host = bool(slash) and ("." in head or ":" in head or head == "localhost")  # also one that is wrong, and named below
        registry, path = (head, tail) if has_host else (DOCKER_HUB, rest)
        repository, colon, tag = path.partition(":")
        if not _HOST.fullmatch(registry):
            raise _wrong(text, f"{registry!r} is no host")
        if not _REPOSITORY.fullmatch(repository):
            raise _wrong(text, f"{repository!r} is no repository: lower-case letters, digits, and . _ - / between them")
        if colon and not _TAG.fullmatch(tag):
            raise _wrong(text, f"{tag!r} is no tag: at most 128 letters, digits, and . _ -")
        if registry in _HUB_ALIASES:
            registry = DOCKER_HUB
            repository = repository if "/" in repository else f"library/{repository}"
        return cls(registry, repository, tag or "latest", digest)

    def __str__(self) -> str:
        short = self.repository.removeprefix("library/") if self.registry == DOCKER_HUB else f"{self.registry}/{self.repository}"
        return f"{short}@{self.digest}" if self.digest else f"{short}:{self.tag}"

    @property
    def manifest(self) -> str:
        """What its manifest is asked by: the digest, or the tag."""
        return self.digest or self.tag


def has_registry(text: str) -> bool:
    """Whether a text begins with the host of a registry, as no name in a store does: localhost:5000/iris."""
    head, slash, _ = text.partition("/")
    return bool(slash) and _HOST.fullmatch(head) is not None and ("." in head or ":" in head or head == "localhost")


def is_loopback(host: str) -> bool:
    """Whether a registry, as host or host:port, is on this machine: it is spoken to without TLS then."""
    bare = host.rpartition(":")[0] if re.search(r":[0-9]+$", host) else host
    try:
        return bare == "localhost" or ipaddress.ip_address(bare.strip("[]")).is_loopback
    except ValueError:
        return False


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(f"{text!r} is no image: {why}", hint="An image is like registry.example.com/team/iris:3.")

"""What an image says of itself, read without running it: in a registry, or in a tar."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelport.errors import RegistryError, SignatureError, UsageError
from modelport.images import manifests
from modelport.images.manifests import Descriptor
from modelport.images.names import Name
from modelport.images.registry import Registry
from modelport.signature import Signature

_LARGEST_CONFIG = 16 * 2**20


@dataclass(frozen=True)
class About:
    """An image's labels and what surrounds them."""

    digest: str
    """Of its manifest; of its configuration where it lies in a tar."""
    platform: str
    created: str
    user: str
    size: int
    """Bytes of its layers, as they are sent."""
    labels: Mapping[str, str]

    def said(self, key: str) -> Any:
        """What the label modelport.`key` holds as JSON; None where there is none."""
        text = self.labels.get(f"modelport.{key}")
        try:
            return None if text is None else json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RegistryError(f"the image's label modelport.{key} does not read: {error}") from error

    def signature(self) -> Signature | None:
        """RegistryError when the label is no signature."""
        raw = self.said("signature")
        try:
            return None if raw is None else Signature.from_dict(raw, "the label modelport.signature")
        except SignatureError as error:
            raise RegistryError(error.message) from error


def in_registry(name: Name, open_registry: Callable[[str], Registry] = Registry, architecture: str = "amd64") -> About:
    """What an image in a registry says. UnknownImage when there is none."""
    with open_registry(name.registry) as registry:
        found = registry.image(name, architecture)
        about = found.parsed()
        config = registry.read(name.repository, Descriptor.of(about.get("config")))
    return _about(found.digest, config, sum(Descriptor.of(one).size for one in about.get("layers") or ()))


def in_tar(path: Path) -> About:
    """What an image in a file says. UsageError when it is none."""
    try:
        with tarfile.open(path) as tar:
            listed = json.loads(_read(tar, "manifest.json"))[0]
            config = _read(tar, listed["Config"])
            size = sum(tar.getmember(layer).size for layer in listed["Layers"])
    except (tarfile.TarError, OSError, EOFError, KeyError, ValueError, IndexError, TypeError) as error:
        raise UsageError(f"{path} is no image that `docker load` would take: {error}") from error
    return _about(manifests.digest_of(config), config, size)


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file.read(_LARGEST_CONFIG)


def _about(digest: str, config: bytes, size: int) -> About:
    try:
        value = json.loads(config)
        inner = value.get("config") or {}
        return About(
            digest=digest,
            platform=f"{value.get('os')}/{value.get('architecture')}",
            created=str(value.get("created") or ""),
            user=str(inner.get("User") or "root"),
            size=size,
            labels={str(key): str(text) for key, text in (inner.get("Labels") or {}).items()},
        )
    except (ValueError, AttributeError, TypeError) as error:
        raise RegistryError(f"the image's configuration does not read: {error}") from error

"""Manifests, indexes and configurations of images, in Docker's words and in OCI's.

https://github.com/opencontainers/image-spec and https://distribution.github.io/distribution/spec/manifest-v2-2/
As long as layers are compressed with gzip, they differ in the names of media types alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelport.errors import RegistryError
from modelport.images.names import DIGEST

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
ACCEPTED = (DOCKER_MANIFEST, OCI_MANIFEST, DOCKER_INDEX, OCI_INDEX)
"""Always asked for together: a registry answers with an error for what it has and was not asked for."""
FORMATS = ("docker", "oci")
_CONFIG = {"docker": "application/vnd.docker.container.image.v1+json", "oci": "application/vnd.oci.image.config.v1+json"}
_LAYER = {"docker": "application/vnd.docker.image.rootfs.diff.tar", "oci": "application/vnd.oci.image.layer.v1.tar"}
_MANIFEST = {"docker": DOCKER_MANIFEST, "oci": OCI_MANIFEST}


@dataclass(frozen=True)
class Descriptor:
    """What a manifest says of a blob."""

    digest: str
    size: int
    media_type: str

    @classmethod
    def of(cls, raw: Any) -> Descriptor:
        """RegistryError when it is none."""
        if not isinstance(raw, Mapping) or not DIGEST.fullmatch(str(raw.get("digest"))) or not isinstance(raw.get("size"), int):
            raise RegistryError(f"a manifest has {str(raw)[:120]} where a digest and a size should be")
        return cls(raw["digest"], raw["size"], str(raw.get("mediaType", "")))

    @property
    def hex(self) -> str:
        return self.digest.removeprefix("sha256:")


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def encoded(value: Mapping[str, Any]) -> bytes:
    """The one form in which we write JSON that a digest covers."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def format_of(media_type: str) -> str:
    """ "docker" or "oci"."""
    return "docker" if ".docker." in media_type else "oci"


def manifest(form: str, config: bytes, layers: Sequence[Descriptor]) -> tuple[str, bytes]:
    """The media type and bytes of the manifest of a configuration and layers, the base's first."""
    value = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST[form],
        "config": {"mediaType": _CONFIG[form], "digest": digest_of(config), "size": len(config)},
        "layers": [{"mediaType": _layer_type(form, one), "digest": one.digest, "size": one.size} for one in layers],
    }
    return _MANIFEST[form], encoded(value)


def for_platform(index: Mapping[str, Any], architecture: str, name: str) -> Descriptor:
    """The manifest of linux on that architecture out of the index of `name`. RegistryError names those that there are."""
    there = []
    for entry in index.get("manifests") or ():
        platform = entry.get("platform") or {}
        there.append(f"{platform.get('os')}/{platform.get('architecture')}")
        if platform.get("os") == "linux" and platform.get("architecture") == architecture:
            return Descriptor.of(entry)
    known = sorted({one for one in there if "unknown" not in one})
    raise RegistryError(f"{name} has no image for linux/{architecture}: it has {', '.join(known) or 'none'}", hint="--platform, or --base.")


def _layer_type(form: str, layer: Descriptor) -> str:
    """In the words of the manifest: some registries refuse a mix."""
    if layer.media_type.endswith(("+zstd", ".zstd")):
        raise RegistryError(
            f"the layer {layer.digest} is compressed with zstd, which is not known to every engine", hint="Take another --base."
        )
    gzip = layer.media_type.endswith("gzip")
    return _LAYER[form] + ("" if not gzip else ".gzip" if form == "docker" else "+gzip")

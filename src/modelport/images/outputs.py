"""Where an image goes: into a tar, into Docker or Podman on this machine, or to a registry."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from modelport.errors import RegistryError, UsageError
from modelport.images import layers, manifests
from modelport.images.base import Report
from modelport.images.build import Image
from modelport.images.manifests import Descriptor
from modelport.images.names import Name
from modelport.images.registry import Manifest, NotTaken, Registry

_ENGINES = ("docker", "podman")


def write_tar(image: Image, name: Name | None, path: Path) -> None:
    """The image as a file, which appears whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as out:
            stream_tar(image, name, out)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def stream_tar(image: Image, name: Name | None, out: IO[bytes]) -> None:
    """The image as a tar of both kinds: an OCI layout, with the manifest.json that `docker load` reads.

    https://github.com/opencontainers/image-spec/blob/main/image-layout.md, and the form in which `docker save` writes since version 25.
    """
    media_type, manifest = image.manifest()
    blobs = image.blobs()
    described: dict[str, Any] = {"mediaType": media_type, "digest": manifests.digest_of(manifest), "size": len(manifest)}
    described["platform"] = {"architecture": image.platform.architecture, "os": "linux"}
    if name is not None:
        described["annotations"] = {"io.containerd.image.name": _full(name), "org.opencontainers.image.ref.name": name.tag}
    index = {"schemaVersion": 2, "mediaType": manifests.OCI_INDEX, "manifests": [described]}
    listed = {
        "Config": _place(image.id),
        "RepoTags": [str(name)] if name is not None else [],
        "Layers": [_place(blob.digest) for blob, _ in blobs],
    }
    small = {
        "index.json": manifests.encoded(index),
        "manifest.json": json.dumps([listed]).encode(),
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        _place(image.id): image.config,
        _place(manifests.digest_of(manifest)): manifest,
    }
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.USTAR_FORMAT, bufsize=1 << 20) as tar:
        for place, content in sorted(small.items()):
            tar.addfile(_member(place, len(content)), io.BytesIO(content))
        for blob, path in dict(blobs).items():
            with path.open("rb") as file:
                checked = _Hashed(file)
                tar.addfile(_member(_place(blob.digest), blob.size), checked)
            if checked.digest != blob.digest:
                raise layers.damaged(path)


def load(image: Image, name: Name, engine: str | None = None) -> str:
    """Give the image to Docker or Podman, whichever is there; which it was.

    UsageError where there is neither, RegistryError when it does not take it.
    """
    found = [one for one in ([engine] if engine else _ENGINES) if shutil.which(one)]
    if not found:
        raise UsageError("there is neither docker nor podman here to load the image into", hint="--output image.tar; or --push.")
    command = shutil.which(found[0])
    assert command is not None
    with subprocess.Popen([command, "load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:  # noqa: S603
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            stream_tar(image, name, process.stdin)
        except BrokenPipeError:
            pass  # what it says tells why
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
        said = process.stdout.read().decode(errors="replace")
    if process.returncode:
        raise RegistryError(f"{found[0]} load failed: {' '.join(said.split())[:300]}", hint=f"Does `{found[0]} info` answer?")
    return found[0]


def push(
    image: Image, name: Name, open_registry: Callable[[str], Registry], told: Callable[[str], None], report: Report, *, only: bool = False
) -> tuple[Image, int]:
    """Send what a registry does not have; the image as it stands there, and the bytes that were sent.

    Where it does not take manifests of the image's kind it gets the other kind, unless `only` says that no other will do.
    """
    with open_registry(name.registry) as registry:
        base = Name.parse(image.base.name)
        source = base.repository if base.registry == name.registry and base.repository != name.repository else ""
        below = {layer.digest for layer in image.base.layers}
        lacking = []
        for blob, path in dict(image.blobs()).items():
            mounted = source and blob.digest in below and registry.mount(name.repository, blob.digest, source)
            if not mounted and not registry.has(name.repository, blob.digest):
                lacking.append((blob, path))
        total, done = sum(blob.size for blob, _ in lacking), [0]

        def sent(count: int) -> None:
            done[0] += count
            report(f"pushing {name.repository}", done[0], total)

        for blob, path in lacking:
            registry.upload(name.repository, blob, path, sent)
        _push_config(registry, name, image)
        for form in (image.form, *(one for one in manifests.FORMATS if one != image.form and not only)):
            pushed = image.in_form(form)
            media_type, content = pushed.manifest()
            try:
                registry.put(name, Manifest(media_type, content, pushed.digest))
            except NotTaken as error:
                if only or form != image.form:
                    raise
                told(f"{error.message}; trying the other kind")
            else:
                return pushed, total
    raise AssertionError("the last kind is taken or raises")


def _push_config(registry: Registry, name: Name, image: Image) -> None:
    blob = Descriptor(image.id, len(image.config), "")
    if not registry.has(name.repository, blob.digest):
        registry.upload(name.repository, blob, image.config)


def sizes(image: Image) -> list[tuple[str, str, int, int | None]]:
    """What takes the room: layer, part of it, bytes of its files, and bytes compressed where that is known. Largest parts first."""
    rows: list[tuple[str, str, int, int | None]] = [
        ("base", image.base.name, image.base.unpacked, sum(layer.size for layer in image.base.layers))
    ]
    for layer in image.layers:
        rows.append((layer.name, "", layer.unpacked, layer.size))
        parts = sorted(layer.parts.items(), key=lambda part: (-part[1], part[0])) if len(layer.parts) > 1 else []
        rows += [(layer.name, name, count, None) for name, count in parts]
    return rows


class _Hashed(io.RawIOBase):
    """A file that is read once, and the digest of what was read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        part = self._file.read(size)
        self._digest.update(part)
        return part

    @property
    def digest(self) -> str:
        return "sha256:" + self._digest.hexdigest()


def _member(place: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(place)
    info.size, info.mtime, info.mode = size, layers.MTIME, 0o644
    return info


def _place(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _full(name: Name) -> str:
    return f"{name.registry}/{name.repository}:{name.tag}"

"""The image that others are built on: fetched once by its digest, and looked through for its Python and its shared libraries."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from modelport import caches
from modelport.errors import RegistryError, UsageError
from modelport.images import manifests
from modelport.images.layers import damaged
from modelport.images.manifests import Descriptor
from modelport.images.names import Name
from modelport.images.registry import Registry, Unreachable

_KEPT, _SPARED_S = 6, 7 * 24 * 3600.0
_ABOUT, _MANIFEST, _CONFIG = "base.json", "manifest.json", "config.json"
_LIBRARY = re.compile(r"(?:usr/)?(?:local/)?lib(?:32|64|x32)?/(?:[a-z0-9_]+-linux-(?:gnu|musl)/)?([^/]+\.so(?:\.[0-9.]+)?)")
_PYTHON = re.compile(r"((?:usr/(?:local/)?|opt/[^/]+/)?bin)/python3\.([0-9]+)")
_LIBC = re.compile(r"(?:usr/)?lib(?:64)?/(?:[a-z0-9_]+-linux-gnu/)?libc(?:\.so\.6|-2\.[0-9]+\.so)")
_GLIBC = re.compile(rb"GNU C Library[^\n]* release version 2\.([0-9]+)")
_MUSL = re.compile(r"lib/ld-musl-[a-z0-9_]+\.so\.1")
_LARGEST_LIBC = 16 * 2**20

Report: TypeAlias = Callable[[str, int, int], None]
"""Hears of bytes that come and go: what, how many so far, of how many."""


@dataclass(frozen=True)
class Base:
    """An image that lies in the cache, and what others need to know of it."""

    folder: Path
    name: str
    """As it was asked for: "python:3.11-slim"."""
    digest: str
    """Of the manifest for its platform."""
    form: str
    """"docker" or "oci"."""
    layers: tuple[Descriptor, ...]
    config: Mapping[str, Any]
    python: str
    """The interpreter in it: "/usr/local/bin/python3.11"."""
    version: str
    """The interpreter's: "3.11"."""
    glibc: int
    """2.x; 0 is musl."""
    libraries: frozenset[str]
    """The names of the shared libraries in it."""
    unpacked: int
    """Bytes of its files."""

    def path(self, layer: Descriptor) -> Path:
        return self.folder / layer.hex


@dataclass
class _Seen:
    """What the layers hold, one after the other."""

    unpacked: int = 0
    pythons: dict[str, str] = field(default_factory=dict)
    """The version by the place."""
    libraries: set[str] = field(default_factory=set)
    glibc: int | None = None


def fetched(
    name: Name,
    architecture: str,
    pythons: Sequence[str],
    open_registry: Callable[[str], Registry],
    told: Callable[[str], None],
    report: Report,
) -> Base:
    """The base for linux on an architecture, with one of these `pythons` ("3.11") in it.

    What its name stands for is asked each time; where nobody answers, it is what it stood for last, and `told` hears of it. Layers come
    once. UnknownImage when there is no such image, UsageError when it has no such Python, and RegistryError when a registry fails.
    """
    cache = caches.root() / "images" / "bases"
    cache.mkdir(parents=True, exist_ok=True)
    known = caches.root() / "images" / "names" / f"{re.sub(r'[^A-Za-z0-9.-]', '_', str(name))}.txt"
    with open_registry(name.registry) as registry:
        try:
            digest = registry.digest(name)
        except Unreachable as error:
            if not known.is_file():
                raise
            digest = known.read_text().strip()
            told(f"{error.message}: {name} is what it was last, {digest}")
        folder = cache / f"{digest.removeprefix('sha256:')}-{architecture}"
        if not (folder / _ABOUT).is_file():
            _fetch(registry, Name(name.registry, name.repository, digest=digest), architecture, folder, report)
    os.utime(folder)
    if not name.digest:
        known.parent.mkdir(exist_ok=True)
        _replace(known, f"{digest}\n".encode())
    caches.prune(cache, _KEPT, spare_s=_SPARED_S)
    return _opened(folder, name, pythons)


def _fetch(registry: Registry, name: Name, architecture: str, folder: Path, report: Report) -> None:
    """Everything into the folder; what describes it comes last, so that a folder which has that is whole."""
    folder.mkdir(exist_ok=True)
    found = registry.image(name, architecture)
    if found.media_type not in (manifests.DOCKER_MANIFEST, manifests.OCI_MANIFEST):
        raise RegistryError(f"{name} is {found.media_type or 'of no kind'}, which is no image")
    about = found.parsed()
    config, layers = Descriptor.of(about.get("config")), [Descriptor.of(one) for one in about.get("layers") or ()]
    total, done = sum(layer.size for layer in layers), [0]

    def came(count: int) -> None:
        done[0] += count
        report(f"fetching {name.repository}", done[0], total)

    if not (folder / _CONFIG).exists():
        registry.fetch(name.repository, config, folder / _CONFIG)
    for layer in layers:
        if (folder / layer.hex).exists():
            came(layer.size)
        else:
            registry.fetch(name.repository, layer, folder / layer.hex, came)
    described = json.loads((folder / _CONFIG).read_bytes())
    if described.get("architecture") != architecture or described.get("os") != "linux":
        there = f"{described.get('os')}/{described.get('architecture')}"
        raise UsageError(f"the base {name.repository} is for {there}, not linux/{architecture}", hint="--platform, or another --base.")
    seen = _look_through([folder / layer.hex for layer in layers])
    values: dict[str, Any] = {"digest": found.digest, "media_type": found.media_type, "layers": [asdict(layer) for layer in layers]}
    values |= {"pythons": seen.pythons, "libraries": sorted(seen.libraries), "glibc": seen.glibc, "unpacked": seen.unpacked}
    _replace(folder / _ABOUT, json.dumps(values).encode())


def _opened(folder: Path, name: Name, pythons: Sequence[str]) -> Base:
    about = json.loads((folder / _ABOUT).read_bytes())
    layers = tuple(Descriptor(**one) for one in about["layers"])
    for layer in layers:
        if (folder / layer.hex).stat().st_size != layer.size:
            raise damaged(folder / layer.hex)
    config = json.loads((folder / _CONFIG).read_bytes())
    found = [one for one in sorted(about["pythons"].items(), key=lambda one: _on_path(config, one[0])) if one[1] in pythons]
    if not found:
        there = f"Python {', '.join(sorted(set(about['pythons'].values())))}" if about["pythons"] else "no Python"
        raise UsageError(
            f"the base {name} has {there}, and the model needs Python {' or '.join(pythons)}",
            hint=f"--base python:{pythons[0]}-slim, or another that has it.",
        )
    if about["glibc"] is None:
        raise UsageError(f"the base {name} has a C library that is neither glibc nor musl", hint="--base names another.")
    form = manifests.format_of(about["media_type"])
    place, version = found[0]
    return Base(
        folder=folder,
        name=str(name),
        digest=about["digest"],
        form=form,
        layers=layers,
        config=config,
        python=place,
        version=version,
        glibc=about["glibc"],
        libraries=frozenset(about["libraries"]),
        unpacked=about["unpacked"],
    )


def _on_path(config: Mapping[str, Any], place: str) -> int:
    """How early the folder of a program stands in the image's PATH."""
    path = next((one.partition("=")[2] for one in config.get("config", {}).get("Env") or () if one.startswith("PATH=")), "").split(":")
    folder = place.rpartition("/")[0]
    return path.index(folder) if folder in path else len(path)


def _look_through(layers: Sequence[Path]) -> _Seen:
    """What the files of all layers together hold. RegistryError when a layer is no tar."""
    seen = _Seen()
    for layer in layers:
        try:
            with tarfile.open(layer, "r|*") as tar:
                for member in tar:
                    _look_at(seen, tar, member)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise RegistryError(f"the base's layer {layer.name[:12]} does not read: {error}", hint="--base names another image.") from error
    return seen


def _look_at(seen: _Seen, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    place = member.name.removeprefix("./").removeprefix("/")
    seen.unpacked += member.size if member.isreg() else 0
    if not (member.isreg() or member.issym() or member.islnk()):
        return
    folder, _, last = place.rpartition("/")
    if last.startswith(".wh."):  # a file that a layer takes away
        gone = f"{folder}/{last.removeprefix('.wh.')}"
        seen.pythons.pop(f"/{gone}", None)
        seen.libraries.discard(last.removeprefix(".wh."))
        return
    python = _PYTHON.fullmatch(place)
    if python:
        seen.pythons[f"/{place}"] = f"3.{python[2]}"
    library = _LIBRARY.fullmatch(place)
    if library:
        seen.libraries.add(library[1])
    if _MUSL.fullmatch(place):
        seen.glibc = 0
    if member.isreg() and _LIBC.fullmatch(place):
        content = tar.extractfile(member)
        version = _GLIBC.search(content.read(_LARGEST_LIBC)) if content else None
        seen.glibc = int(version[1]) if version else seen.glibc


def _replace(path: Path, content: bytes) -> None:
    """Write a file in one step."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)

"""Builds an image without Docker: base, dependencies, Modelport and model, in this order, so that retraining changes the last alone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modelport import __version__, caches
from modelport.images import dependencies, layers, manifests, plan
from modelport.images.base import Base, Report
from modelport.images.base import fetched as fetch_base
from modelport.images.dependencies import Component, Platform
from modelport.images.layers import Layer
from modelport.images.manifests import Descriptor
from modelport.images.names import Name
from modelport.images.plan import Plan
from modelport.images.registry import Registry

_KEPT, _SPARED_S = 24, 3600.0
_FORM = 1
"""Raised when a layer is made otherwise of the same files."""
_NANOSECONDS = 10**9


@dataclass(frozen=True)
class Image:
    """An image that is made: bytes of manifest and configuration, and files of layers."""

    plan: Plan
    platform: Platform
    base: Base
    layers: tuple[Layer, ...]
    """On top of the base's, the lowest first."""
    config: bytes
    form: str
    """"docker" or "oci": whose words the manifest has."""
    components: tuple[Component, ...]
    is_compiled: bool

    @property
    def id(self) -> str:
        """What engines call its id: the digest of its configuration."""
        return manifests.digest_of(self.config)

    def manifest(self) -> tuple[str, bytes]:
        """Media type and bytes."""
        return manifests.manifest(self.form, self.config, [blob for blob, _ in self.blobs()])

    @property
    def digest(self) -> str:
        return manifests.digest_of(self.manifest()[1])

    def blobs(self) -> list[tuple[Descriptor, Path]]:
        """Every layer, the base's first, and the file that has it."""
        below = [(layer, self.base.path(layer)) for layer in self.base.layers]
        return below + [(layer.descriptor, layer.path) for layer in self.layers]

    def in_form(self, form: str) -> Image:
        """The same image in the words of "docker" or "oci"."""
        return replace(self, form=form)

    @property
    def unpacked(self) -> int:
        """Bytes of all files, the base's too."""
        return self.base.unpacked + sum(layer.unpacked for layer in self.layers)


@dataclass(frozen=True)
class Options:
    """How an image is built."""

    base: str | None = None
    """python:X.Y-slim of the bundle's Python where none is named."""
    architecture: str = "amd64"
    form: str | None = None
    """"docker" or "oci"; the base's own where it is not said."""
    ignored_libraries: tuple[str, ...] = ()
    """Shared libraries that the base may lack although a file asks for them: part of a package that nobody uses."""
    open_registry: Callable[[str], Registry] = Registry
    told: Callable[[str], None] = lambda line: None
    report: Report = field(default=lambda what, done, total: None)


def build(wanted: Plan, options: Options) -> Image:
    """The image of a plan. The same plan on the same base gives the same bytes, whenever and wherever it is made.

    RegistryError where the base cannot be had, NoEnvironment where a dependency has no wheel for the platform, and Refused where the base
    lacks a shared library.
    """
    named = Name.parse(options.base or wanted.base)
    base = fetch_base(named, options.architecture, wanted.pythons, options.open_registry, options.told, options.report)
    platform = Platform(options.architecture, base.version, base.glibc)
    installed = dependencies.made(wanted, platform, options.told)
    dependencies.check_libraries(installed, base.libraries.union(options.ignored_libraries), base.name)
    own = (installed.layer, _modelport(base), _model(wanted))
    config = manifests.encoded(_config(wanted, base, own))
    return Image(wanted, platform, base, own, config, options.form or base.form, installed.components, installed.is_compiled)


def _modelport(base: Base) -> Layer:
    """The layer of Modelport itself, compiled for the base's Python."""
    files = plan.modelport_files()
    python = dependencies.compiler(base.version)
    digest = hashlib.sha256(json.dumps([_FORM, base.python, dependencies.version_of(python) if python else ""]).encode())
    for place, source in files.items():
        digest.update(place.encode() + b"\0" + (source if isinstance(source, bytes) else source.read_bytes()))

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            lib = Path(work)
            for place, source in files.items():
                target = lib / place
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source) if isinstance(source, bytes) else shutil.copyfile(source, target)
            if python:
                dependencies.compile_files(python, lib, [[place for place in files if place.startswith("modelport/")]])
            placed: dict[str, Path | bytes] = {
                f"{plan.LIB}/{path.relative_to(lib).as_posix()}": path for path in sorted(lib.rglob("*")) if path.is_file()
            }
            placed[plan.COMMAND] = plan.script(base.python)
            layers.write(folder, "modelport", placed, executable=[plan.COMMAND])

    cache = caches.root() / "images" / "modelport"
    return layers.read(caches.made(cache, digest.hexdigest()[:32], make, _KEPT, spare_s=_SPARED_S))


def _model(wanted: Plan) -> Layer:
    """The layer of the bundle."""
    key = hashlib.sha256(json.dumps([_FORM, wanted.ref, wanted.bundle.digest]).encode()).hexdigest()[:32]

    def make(folder: Path) -> None:
        layers.write(folder, "model", {f"{plan.STORE}/{place}": source for place, source in plan.model_files(wanted).items()})

    return layers.read(caches.made(caches.root() / "images" / "models", key, make, _KEPT, spare_s=_SPARED_S))


def _config(wanted: Plan, base: Base, own: tuple[Layer, ...]) -> dict[str, Any]:
    """The image's configuration: the base's, with what the plan says.

    https://github.com/opencontainers/image-spec/blob/main/config.md; Healthcheck is Docker's addition to it.
    """
    created = _created(wanted)
    below: Mapping[str, Any] = base.config
    inner = dict(below.get("config") or {})
    variables = dict(one.partition("=")[::2] for one in inner.get("Env") or ())
    path = variables.get("PATH") or "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    variables |= {"PATH": f"{plan.ROOT}/bin:{path}"} | plan.environment(wanted.ref)
    for name in ("OnBuild", "Volumes", "Hostname", "Domainname", "Image", "ArgsEscaped"):
        inner.pop(name, None)
    inner |= {
        "Cmd": list(plan.ARGUMENTS),
        "Entrypoint": list(plan.ENTRYPOINT),
        "Env": [f"{name}={value}" for name, value in sorted(variables.items())],
        "ExposedPorts": {f"{plan.PORT}/tcp": {}},
        "Healthcheck": {
            "Test": ["CMD", *plan.health(base.python)],
            "Interval": plan.HEALTH_INTERVAL_S * _NANOSECONDS,
            "Timeout": plan.HEALTH_TIMEOUT_S * _NANOSECONDS,
            "StartPeriod": plan.HEALTH_START_S * _NANOSECONDS,
        },
        "Labels": {
            **(inner.get("Labels") or {}),
            **plan.labels(wanted),
            "org.opencontainers.image.base.digest": base.digest,
            "org.opencontainers.image.base.name": base.name,
        },
        "StopSignal": plan.STOP_SIGNAL,
        "User": plan.USER,
        "WorkingDir": "/",
    }
    history = [*(below.get("history") or [{"created_by": "the base"}] * len(base.layers))]
    history += [{"created": created, "created_by": f"modelport {__version__}", "comment": layer.name} for layer in own]
    kept = {key: below[key] for key in ("architecture", "os", "variant", "os.version") if key in below}
    return {
        **kept,
        "config": inner,
        "created": created,
        "history": history,
        "rootfs": {"type": "layers", "diff_ids": [*below["rootfs"]["diff_ids"], *(layer.diff_id for layer in own)]},
    }


def _created(wanted: Plan) -> str:
    """SOURCE_DATE_EPOCH, or the bundle's own time, or the first second of 1970: never the clock."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = (
        datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.fromisoformat(wanted.bundle.created or "1970-01-01T00:00:00+00:00")
    )
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""A registry, a Docker daemon and a base image for tests, all of them real and on this machine alone.

Each is started once a session and ended by its own process. Tests that need what is not installed are skipped; in CI they fail.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modelport.images import manifests
from modelport.images.manifests import Descriptor
from modelport.images.names import Name
from modelport.images.registry import Manifest, Registry

PYTHON = ".".join(map(str, sys.version_info[:2]))
BASE_PACKAGES = ("base-files", "base-passwd", "dash", "libstdc++6", "python3.11")
"""Enough for a Python on Debian, and no libgomp."""
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelport-tests"
_REGISTRY = """\
version: 0.1
log: {{level: info, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, maintenance: {{uploadpurging: {{enabled: false}}}}}}
http: {{addr: "127.0.0.1:0", secret: tests}}
{auth}
"""


def needed(*programs: str) -> None:
    """Skip the test where one of the programs is not installed; in CI fail it."""
    missing = [one for one in programs if shutil.which(one) is None and not Path("/usr/sbin", one).exists()]
    if missing:
        assert not os.environ.get("CI"), f"CI has no {' '.join(missing)}: add its package to .ci/run"
        pytest.skip(f"{' '.join(missing)} is not installed")


@contextmanager
def running(words: Sequence[str], until: str, **about: Any) -> Iterator[re.Match[str]]:
    """A process that has said a line with `until` in it; it is ended by SIGTERM, and read until then."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **about)
    assert process.stdout is not None
    said: list[str] = []
    reader = threading.Thread(target=lambda: [None for _ in process.stdout or ()])
    try:
        for line in process.stdout:
            said.append(line)
            found = re.search(until, line)
            if found:
                break
        else:
            raise AssertionError(f"{words[0]} ended with {process.wait()}:\n{''.join(said[-20:])}")
        reader.start()  # a full pipe would stop it
        yield found
    finally:
        process.terminate()
        process.wait(60)
        if reader.ident is not None:
            reader.join()
        process.stdout.close()


@contextmanager
def registry(folder: Path, auth: str = "") -> Iterator[str]:
    """A registry of its own, as host:port, which keeps what it gets in `folder`."""
    needed("docker-registry")
    config = folder / "registry.yml"
    config.write_text(_REGISTRY.format(root=folder / "data", auth=auth))
    with running(["docker-registry", "serve", str(config)], r"listening on (127\.0\.0\.1:[0-9]+)") as found:
        yield found[1]


@contextmanager
def docker_daemon(folder: Path) -> Iterator[str]:
    """A Docker daemon of its own, as its DOCKER_HOST. Its containers reach this machine's loopback with --network host."""
    needed("dockerd", "docker", "containerd")
    if os.geteuid() != 0:
        assert not os.environ.get("CI"), "CI runs as root"
        pytest.skip("a Docker daemon needs root")
    host = f"unix://{folder / 'docker.sock'}"
    words = ["--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid"), "-H", host]
    command = shutil.which("dockerd") or "/usr/sbin/dockerd"
    try:
        with running([command, *words, "--bridge=none", "--iptables=false"], r"API listen on"):
            yield host
    finally:
        for place in (folder / "exec" / "netns").glob("*"):  # what the daemon leaves mounted nobody could remove
            subprocess.run(["umount", str(place)], check=False, capture_output=True)


def base_layer() -> Path:
    """The one layer of the base, compressed: made in 20 seconds, and kept in a folder beside the repository's."""
    needed("mmdebstrap")
    key = hashlib.sha256(" ".join(BASE_PACKAGES).encode()).hexdigest()[:12]
    kept = _CACHE / f"base-{key}.tar.gz"
    if not kept.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        raw = _CACHE / f".base-{key}-{os.getpid()}.tar"
        partial = raw.with_suffix(".gz")
        words = ["mmdebstrap", "--quiet", "--variant=extract", f"--include={','.join(BASE_PACKAGES)}"]
        words += ["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*", "bookworm", str(raw)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        with raw.open("rb") as content, partial.open("wb") as out, gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0) as packed:
            shutil.copyfileobj(content, packed)
        raw.unlink()
        partial.rename(kept)
    return kept


def config_of(diff_ids: Sequence[str], architecture: str = "amd64", **inner: Any) -> bytes:
    """The configuration of a base image."""
    return manifests.encoded(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"], "Cmd": ["python3"], **inner},
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
            "history": [{"created_by": "tests"} for _ in diff_ids],
        }
    )


def layer_of(files: dict[str, bytes]) -> bytes:
    """A small layer, compressed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(out.getvalue(), mtime=0)


def push(name: str, layers: Sequence[bytes | Path], form: str = "docker", config: bytes | None = None, **about: Any) -> str:
    """Put an image into a registry; its manifest's digest."""
    place = Name.parse(name)
    diff_ids, descriptors = [], []
    with Registry(place.registry, lambda host: None) as open_registry:
        for layer in layers:
            content = layer.read_bytes() if isinstance(layer, Path) else layer
            diff_ids.append(manifests.digest_of(gzip.decompress(content)))
            blob = Descriptor(manifests.digest_of(content), len(content), "application/vnd.oci.image.layer.v1.tar+gzip")
            descriptors.append(blob)
            open_registry.upload(place.repository, blob, content)
        config = config or config_of(diff_ids, **about)
        open_registry.upload(place.repository, Descriptor(manifests.digest_of(config), len(config), ""), config)
        media_type, content = manifests.manifest(form, config, descriptors)
        open_registry.put(place, Manifest(media_type, content, manifests.digest_of(content)))
    return manifests.digest_of(content)


def push_index(name: str, form: str, entries: dict[str, str]) -> str:
    """Put an index into a registry, of manifests that are there, by architecture; its digest."""
    place = Name.parse(name)
    kind = manifests.DOCKER_INDEX if form == "docker" else manifests.OCI_INDEX
    with Registry(place.registry, lambda host: None) as open_registry:
        listed = []
        for architecture, digest in entries.items():
            found = open_registry.manifest(Name(place.registry, place.repository, digest=digest))
            platform = {"architecture": architecture, "os": "unknown" if architecture == "unknown" else "linux"}
            listed.append({"mediaType": found.media_type, "digest": digest, "size": len(found.content), "platform": platform})
        content = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": listed}).encode()
        open_registry.put(place, Manifest(kind, content, manifests.digest_of(content)))
    return manifests.digest_of(content)


@dataclass(frozen=True)
class Docker:
    """A client of the tests' own daemon."""

    host: str

    def __call__(self, *words: str, check: bool = True, given: bytes | None = None) -> str:
        done = subprocess.run(["docker", *words], input=given, capture_output=True, env=self.environment, check=False)
        assert not check or done.returncode == 0, (words, done.stdout.decode()[-2000:], done.stderr.decode())
        return (done.stdout if check else done.stdout + done.stderr).decode().strip()

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_HOST": self.host}

"""A real nginx with the exported configuration, in front of services on this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from faults_world import free_port, need
from modelport.images import nginx
from modelport.images.exporting import Exported


def program() -> str:
    """The nginx that is installed."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    need(found is not None, "nginx")
    return str(found)


@dataclass
class Proxy:
    """It runs."""

    url: str
    folder: Path

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, **options)

    def log(self) -> list[dict[str, Any]]:
        """Its log so far."""
        return [json.loads(line) for line in (self.folder / "access.log").read_text().splitlines()]


def configured(folder: Path, ports: Sequence[int], **about: Any) -> tuple[Path, int]:
    """The exported configuration for replicas at these ports; and the port that it listens on."""
    port = free_port()
    servers = [f"127.0.0.1:{one}" for one in ports]
    made = Exported(name="iris", image="iris:1", replicas=len(ports), **about)
    path = folder / "nginx.conf"
    path.write_text(nginx.config(made, servers, listen=f"127.0.0.1:{port}", folder=str(folder), access_log=str(folder / "access.log")))
    return path, port


@contextmanager
def proxy(folder: Path, ports: Sequence[int], **about: Any) -> Iterator[Proxy]:
    """nginx in front of services at these ports; `about` are fields of Exported."""
    path, port = configured(folder, ports, **about)
    words = [program(), "-p", str(folder), "-c", str(path), "-g", "daemon off; master_process off;"]
    with (folder / "error.log").open("w") as complaints:
        process = subprocess.Popen(words, stderr=complaints)
    running = Proxy(f"http://127.0.0.1:{port}", folder)
    try:
        while not _answers(running.url, *about.get("host_names", ("localhost",))[:1]):
            assert process.poll() is None, (folder / "error.log").read_text()
        yield running
    finally:
        process.terminate()
        process.wait(timeout=60)


def _answers(url: str, host: str) -> bool:
    try:
        return httpx.get(f"{url}/livez", timeout=60, trust_env=False, headers={"Host": host}).status_code == 200
    except httpx.TransportError:
        return False

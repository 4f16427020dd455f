"""What images cost: their sizes over the base, the first build, the next one after retraining, and the start in a container.

Beside `docker build` of the Dockerfile that `modelport export` writes, in the same run. A registry and a Docker daemon of its own are
started on loopback; the base is Debian's Python.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from bench.environments import ROOT

sys.path.insert(0, str(ROOT / "tests"))

import images_world

ROUNDS = 5
WORK = Path(__file__).parent / ".work" / "images"
EXAMPLES = ("iris", "shipping")
MAIN = [sys.executable, "-c", "from modelport.cli.main import main; main()"]
_READY_WITHIN_S = 60.0


def run(*options: str) -> str:
    """The tables, in Markdown. `--rounds N` says how often each is timed."""
    rounds = int(options[options.index("--rounds") + 1]) if "--rounds" in options else ROUNDS
    WORK.mkdir(parents=True, exist_ok=True)
    with ExitStack() as open_now:
        folder = Path(open_now.enter_context(tempfile.TemporaryDirectory(dir=WORK)))
        for name in ("registry", "docker"):
            (folder / name).mkdir()
        host = open_now.enter_context(images_world.registry(folder / "registry"))
        base = f"{host}/python:3.11-slim"
        images_world.push(base, [images_world.base_layer()])
        daemon = images_world.Docker(open_now.enter_context(images_world.docker_daemon(folder / "docker")))
        measured = {name: _measure(name, folder, base, daemon, rounds) for name in EXAMPLES}
    return _page(measured, rounds)


def _measure(name: str, folder: Path, base: str, docker: images_world.Docker, rounds: int) -> dict[str, Any]:
    """Everything of one example."""
    work = folder / name
    shutil.copytree(ROOT / "examples" / name, work)
    variables = {**os.environ, "MODELPORT_CACHE": str(work / "cache"), "MODELPORT_STORE": str(work / "store"), "DOCKER_HOST": docker.host}
    variables["PYTHONPATH"] = str(ROOT / "src")
    _run([sys.executable, "train.py"], work, variables)
    _run([*MAIN, "pack"], work, variables)
    build = [*MAIN, "build", name, "--base", base, "--json"]
    said = json.loads(_run([*build, "--output", "first.tar"], work, variables))
    first, again = [], []
    for number in range(rounds):
        shutil.rmtree(work / "cache" / "images" / "dependencies")  # wheels and the base stay: what is warm in a team's CI
        shutil.rmtree(work / "cache" / "images" / "modelport")
        first.append(_timed([*build, "--output", "first.tar"], work, variables))
        _run([*MAIN, "pack", "--label", f"round={number}"], work, variables)
        again.append(_timed([*build, "--output", "next.tar"], work, variables))
    _run([*build, "--load"], work, variables)
    image = docker("images", "--format", "{{.Repository}}:{{.Tag}}", name).splitlines()[0]
    ready = [_ready_s(image, docker) for _ in range(rounds)]
    sizes = {one["layer"]: (one["bytes"], one["compressed"]) for one in said["sizes"] if one["compressed"] is not None}
    return {"sizes": sizes, "first": first, "again": again, "ready": ready, "dockerfile": _dockerfile(name, base, work, variables, docker)}


def _dockerfile(name: str, base: str, work: Path, variables: dict[str, str], docker: images_world.Docker) -> dict[str, float] | None:
    """`docker build` of the exported Dockerfile: the first, and after retraining; None where there is no such export."""
    help_of = subprocess.run([*MAIN, "export", "--help"], capture_output=True, text=True, env=variables, check=False)
    if "dockerfile" not in help_of.stdout:
        return None
    docker("pull", "--quiet", base)
    docker("tag", base, "python:3.11-slim")
    _run([*MAIN, "export", "dockerfile", name, "exported"], work, variables)
    build = ["docker", "build", "--network", "host", "--quiet", "--tag", f"{name}-dockerfile", "exported"]
    done = subprocess.run(build, cwd=work, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"docker build failed: {done.stderr[-400:]}", file=sys.stderr)
        return None
    _run([*MAIN, "pack", "--label", "round=dockerfile"], work, variables)
    shutil.rmtree(work / "exported")
    _run([*MAIN, "export", "dockerfile", name, "exported"], work, variables)
    again = _timed(build, work, variables)
    size = int(docker("inspect", "--format", "{{.Size}}", f"{name}-dockerfile"))
    return {"again": again, "ready": _ready_s(f"{name}-dockerfile", docker), "bytes": size}


def _ready_s(image: str, docker: images_world.Docker) -> float:
    """Seconds from the start of a container, as Docker says it, until /readyz answers 200."""
    with _container(image, docker) as (name, port):
        until = time.monotonic() + _READY_WITHIN_S
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if time.monotonic() > until:
                raise RuntimeError(f"{image} was not ready within {_READY_WITHIN_S:g} s: {docker('logs', name, check=False)[-400:]}")
            time.sleep(0.002)
        now = time.time()
        started = docker("inspect", "--format", "{{.State.StartedAt}}", name)
    return now - datetime.fromisoformat(f"{started[:26].rstrip('Z')}+00:00").timestamp()


@contextmanager
def _container(image: str, docker: images_world.Docker) -> Iterator[tuple[str, int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    name = docker("run", "--detach", "--network", "host", "--read-only", "--cap-drop", "ALL", "--env", f"PORT={port}", image)
    try:
        yield name, port
    finally:
        docker("rm", "--force", name)


def _page(measured: dict[str, dict[str, Any]], rounds: int) -> str:
    lines = [
        "# Images",
        "",
        f"`python -m bench images`, medians of {rounds} rounds, Python {platform.python_version()}, {os.cpu_count()} cores.",
        "The base is Debian's Python.",
        "",
        "Over the base, MB:",
        "",
        "| model | dependencies | Modelport | model | together | compressed |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, one in measured.items():
        own = [one["sizes"][layer] for layer in ("dependencies", "modelport", "model")]
        cells = [*(f"{unpacked / 1e6:.1f}" for unpacked, _ in own), f"{sum(size for size, _ in own) / 1e6:.1f}"]
        lines.append(f"| {name} | {' | '.join(cells)} | {sum(packed for _, packed in own) / 1e6:.1f} |")
    lines += ["", "Seconds:", "", "| what | " + " | ".join(measured) + " |", "|---|" + "---:|" * len(measured)]
    rows = {
        "`modelport build`, the first: base and wheels are here": "first",
        "`modelport build` after retraining": "again",
        "start of the container to ready": "ready",
    }
    for title, key in rows.items():
        lines.append(f"| {title} | " + " | ".join(f"{statistics.median(one[key]):.2f}" for one in measured.values()) + " |")
    others = {"`docker build` of the exported Dockerfile after retraining": "again", "start of that container to ready": "ready"}
    for title, key in others.items():
        cells = [f"{one['dockerfile'][key]:.2f}" if one["dockerfile"] else "" for one in measured.values()]
        if any(cells):
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _timed(words: Sequence[str], folder: Path, variables: dict[str, str]) -> float:
    begun = time.perf_counter()
    _run(words, folder, variables)
    return time.perf_counter() - begun


def _run(words: Sequence[str], folder: Path, variables: dict[str, str]) -> str:
    done = subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))} ended with {done.returncode}: {done.stderr[-600:]}")
    return done.stdout

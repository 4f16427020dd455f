"""What it takes to serve a learner that fast.ai exported, beside `load_learner`: time to the first answer, memory, time of a prediction.

A ResNet-18 of 224 px, not trained. Both are asked for the same JPEG, and must answer the same. fast.ai is the one of the Python that runs
this; Modelport runs in it too, and opens none of it.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx

from bench.pictures import photo
from bench.servers import free_port

WORK = Path(__file__).parent / ".work" / "fastai"
TOOL = Path(__file__).parent / "tools" / "fastai_starlette"
ASKED = 20
PATIENCE_S = 120.0
_MODELPORT = [sys.executable, "-c", "from modelport.cli.main import main; main()"]


@dataclass(frozen=True)
class Start:
    """One service, from its start to its last answer."""

    answer_s: float
    """To its first answer."""
    memory_mb: float
    """Of all its processes, after a few answers; what several share counts once."""
    predict_ms: float
    """The middle of the answers after the first."""
    chance: float
    """What it answered."""


def run(*options: str) -> str:
    """The table, in Markdown. RuntimeError when a service does not start, or the two answer differently."""
    asked = _arguments(options)
    folder, variables = _prepare()
    data = _jpeg()
    services: dict[str, Callable[[int], list[str]]] = {
        "fast.ai, load_learner behind Starlette": lambda port: [
            sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), "--log-level", "warning",
        ],
        "Modelport, the same export": lambda port: [*_MODELPORT, "serve", "resnet", "--workers", "1", "--port", str(port)],
    }  # fmt: skip
    for service in services.values():
        _started(service, folder, variables, data)  # to warm the page cache and the .pyc files
    starts: dict[str, list[Start]] = {name: [] for name in services}
    for _ in range(asked.rounds):
        for name, service in services.items():
            starts[name].append(_started(service, folder, variables, data))
    first, own = (starts[name][0].chance for name in services)
    if abs(first - own) > 1e-3:  # the JPEG is decoded as it is by both; networks that were not trained are less alike than others
        raise RuntimeError(f"fast.ai answers {first}, Modelport {own}")
    return "\n".join(_table(starts, asked.rounds, options)) + "\n"


def _table(starts: dict[str, list[Start]], rounds: int, options: Sequence[str]) -> Iterator[str]:
    yield "# fast.ai"
    yield ""
    command = " ".join(["python -m bench fastai", *options])
    known = ", ".join(f"{name} {version(name)}" for name in ("fastai", "torch", "onnxruntime"))
    yield f"`{command}`: the middle of {rounds} interleaved rounds, Python {platform.python_version()}, {known}, one thread each."
    yield "A ResNet-18 exported by fast.ai, a JPEG of 320 x 240 pixels, one request after the other. Memory is that of all processes of the"
    yield "service (what they share counts once). Times depend on the machine; the shares are what counts."
    yield ""
    yield "| | start to first answer, s | share | memory, MB | share | a prediction, ms | share |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    middles = {
        name: [statistics.median(getattr(start, key) for start in each) for key in ("answer_s", "memory_mb", "predict_ms")]
        for name, each in starts.items()
    }
    base = next(iter(middles.values()))
    for name, values in middles.items():
        cells = [f"{value:{form}} | {value / other:.2f}" for value, other, form in zip(values, base, (".2f", ".0f", ".1f"), strict=True)]
        yield f"| {name} | {' | '.join(cells)} |"


def _prepare() -> tuple[Path, dict[str, str]]:
    """A folder with the export, packed in a store of its own; and the variables that lead there."""
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.copytree(TOOL, WORK)
    one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    variables = {**os.environ, **one, "MODELPORT_STORE": str(WORK / "store"), "MODELPORT_CACHE": str(WORK / "cache")}
    subprocess.run([sys.executable, "export.py", "."], cwd=WORK, check=True, env=variables)
    subprocess.run([*_MODELPORT, "pack", "export.pkl", "--name", "resnet"], cwd=WORK, env=variables, check=True, stdout=subprocess.DEVNULL)
    return WORK, variables


def _jpeg() -> bytes:
    out = io.BytesIO()
    photo(320, 240).save(out, "JPEG", quality=90)
    return out.getvalue()


def _started(command: Callable[[int], list[str]], folder: Path, variables: dict[str, str], data: bytes) -> Start:
    begun = time.perf_counter()
    with _answering(command, folder, variables, data) as (server, client):
        answer_s = time.perf_counter() - begun
        times = []
        for _ in range(ASKED):
            asked = time.perf_counter()
            answer = _ask(client, data)
            times.append(time.perf_counter() - asked)
        return Start(answer_s, _memory_mb(server.pid), 1000 * statistics.median(times), answer.json()["probabilities"]["ants"])


def _ask(client: httpx.Client, data: bytes) -> httpx.Response:
    return client.post("/predict", content=data, headers={"Content-Type": "image/jpeg"})


@contextmanager
def _answering(
    command: Callable[[int], list[str]], folder: Path, variables: dict[str, str], data: bytes
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A service that has answered once."""
    port = free_port()
    words = command(port)
    server = subprocess.Popen(words, cwd=folder, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.perf_counter() + PATIENCE_S
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False) as client:
            while True:
                if server.poll() is not None or time.perf_counter() > until:
                    raise RuntimeError(f"{' '.join(words)} ended with {server.returncode}, or has not answered in {PATIENCE_S:g} s")
                try:
                    answer = _ask(client, data)
                except httpx.TransportError:
                    time.sleep(0.005)
                    continue
                if answer.status_code == 200:
                    break
                assert answer.status_code == 503, answer.text
            yield server, client
    finally:
        server.terminate()
        server.wait(30)


def _memory_mb(process: int) -> float:
    """The proportional share of memory of a process and all that it has started."""
    total = _shared_kb(process)
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        total += 1000 * _memory_mb(int(child))
    return total / 1000


def _shared_kb(process: int) -> float:
    (line,) = (line for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
    return 1.024 * int(line.split()[1])


def _arguments(options: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench fastai", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args(options)

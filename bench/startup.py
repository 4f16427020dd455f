"""How long the first things take, from importing to the first answer, and how much memory; beside FastAPI as tutorials write it."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from bench.environments import LIBRARIES, ROOT, environment
from modelport.serving.resources import memory_of

ROUNDS = 7
WORK = Path(__file__).parent / ".work"
MODELPORT = (*LIBRARIES, f"{ROOT}[sklearn]")
FASTAPI = (*LIBRARIES, "fastapi", "uvicorn[standard]")
EXAMPLE = Path(__file__).parent.parent / "examples" / "iris"
ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
TUTORIAL = Path(__file__).parent / "tools" / "fastapi_tutorial" / "iris.py"


def run() -> str:
    """The table, in Markdown: medians of interleaved rounds, as multiples of an empty Python's start."""
    binaries = environment("modelport-startup", MODELPORT) / "bin"
    python, modelport = str(binaries / "python"), str(binaries / "modelport")
    fastapi = str(environment("fastapi-startup", FASTAPI) / "bin" / "uvicorn")
    folder, variables = _prepare(python, modelport)

    def cold(port: int) -> list[str]:
        shutil.rmtree(folder / "cache" / "bundles", ignore_errors=True)
        return [modelport, "serve", "iris.joblib", "--port", str(port)]

    rows: dict[str, Callable[[], float]] = {
        "python -c pass": lambda: _until_end([python, "-c", "pass"], folder, variables),
        "import numpy": lambda: _until_end([python, "-c", "import numpy"], folder, variables),
        "import modelport": lambda: _until_end([python, "-c", "import modelport"], folder, variables),
        "modelport --help": lambda: _until_end([modelport, "--help"], folder, variables),
        "modelport serve iris (from the store, ONNX) to first answer": lambda: _until_answer(
            lambda port: [modelport, "serve", "iris", "--port", str(port)], folder, variables
        ),
        "modelport serve iris --engine native (from the store) to first answer": lambda: _until_answer(
            lambda port: [modelport, "serve", "iris", "--engine", "native", "--port", str(port)], folder, variables
        ),
        "modelport serve iris.joblib (packed before) to first answer": lambda: _until_answer(
            lambda port: [modelport, "serve", "iris.joblib", "--port", str(port)], folder, variables
        ),
        "modelport serve iris.joblib (first time: packs and converts it) to first answer": lambda: _until_answer(cold, folder, variables),
        "modelport demo (ONNX) to first answer": lambda: _until_answer(
            lambda port: [modelport, "demo", "--port", str(port)], folder, variables
        ),
        "FastAPI with pandas, as tutorials write it, to first answer": lambda: _until_answer(
            lambda port: [fastapi, "app:app", "--port", str(port), "--log-level", "warning"], folder, variables
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in rows}
    for measure in rows.values():
        measure()  # once to warm the page cache and the .pyc files
    for _ in range(ROUNDS):
        for name, measure in rows.items():
            times[name].append(measure())
    base = statistics.median(times["python -c pass"])
    lines = [
        "# Start",
        "",
        f"`python -m bench startup`, {ROUNDS} interleaved rounds, Python {platform.python_version()}, {os.cpu_count()} cores.",
        "Seconds depend on the machine; the ratios are to an empty Python's start.",
        "",
        "| what | median s | fastest s | times an empty start |",
        "|---|---|---|---|",
    ]
    for name, values in times.items():
        median = statistics.median(values)
        lines.append(f"| {name} | {median:.3f} | {min(values):.3f} | {median / base:.1f} |")
    one = ["--workers", "1", "--port"]
    services: dict[str, Callable[[int], list[str]]] = {
        "modelport serve iris (ONNX)": lambda port: [modelport, "serve", "iris", *one, str(port)],
        "modelport serve iris --engine native": lambda port: [modelport, "serve", "iris", "--engine", "native", *one, str(port)],
        "FastAPI with pandas, as tutorials write it": lambda port: [fastapi, "app:app", "--port", str(port), "--log-level", "warning"],
    }
    lines += ["", "Resident memory after the first answer, MB: of the worker, and of the process that watches over it.", ""]
    lines += ["| what | worker | supervisor |", "|---|---|---|"]
    for name, command in services.items():
        supervisor, *workers = (f"{size / 1e6:.0f}" for size in _memory(command, folder, variables))
        lines.append(f"| {name} | {workers[0]} | {supervisor} |" if workers else f"| {name} | {supervisor} | |")
    return "\n".join(lines) + "\n"


def _prepare(python: str, modelport: str) -> tuple[Path, dict[str, str]]:
    """A folder with the trained example, packed in a store of its own; and the variables that lead there."""
    folder = WORK / "startup"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(EXAMPLE, folder)
    variables = {**os.environ, "MODELPORT_STORE": str(folder / "store"), "MODELPORT_CACHE": str(folder / "cache")}
    subprocess.run([python, "train.py"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([modelport, "pack"], cwd=folder, env=variables, check=True, stdout=subprocess.DEVNULL)
    shutil.copy(TUTORIAL, folder / "app.py")
    return folder, variables


def _until_end(command: list[str], folder: Path, variables: dict[str, str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, cwd=folder, env=variables, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def _until_answer(command: Callable[[int], list[str]], folder: Path, variables: dict[str, str]) -> float:
    begun = time.perf_counter()
    with _answering(command, folder, variables):
        return time.perf_counter() - begun


def _memory(command: Callable[[int], list[str]], folder: Path, variables: dict[str, str]) -> list[int]:
    """Resident bytes of the process and of each of its children, once it has answered."""
    with _answering(command, folder, variables) as server:
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        return [memory_of(process) for process in (server.pid, *children)]


@contextmanager
def _answering(command: Callable[[int], list[str]], folder: Path, variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A service that has answered once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = command(port)
    server = subprocess.Popen(words, cwd=folder, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            if server.poll() is not None:
                raise RuntimeError(f"{' '.join(words)} ended with {server.returncode}")
            try:
                answer = httpx.post(f"http://127.0.0.1:{port}/predict", json=ROW, timeout=10)
            except httpx.TransportError:
                time.sleep(0.002)
                continue
            if answer.status_code == 200:
                break
            assert answer.status_code == 503, answer.text
        yield server
    finally:
        server.terminate()
        server.wait(30)

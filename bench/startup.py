"""How long the first things take: importing, --help, and from `serve` to the first answer, beside a FastAPI service as tutorials write it."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx

ROUNDS = 7
WORK = Path(__file__).parent / ".work"
EXAMPLE = Path(__file__).parent.parent / "examples" / "iris"
ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
FASTAPI = '''
import joblib
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
model = joblib.load("iris.joblib")


class Iris(BaseModel):
    sepal_length: float
    sepal_width: float
    petal_length: float
    petal_width: float


@app.post("/predict")
async def predict(iris: Iris):
    return {"prediction": model.predict(pd.DataFrame([iris.model_dump()]))[0]}
'''


def run() -> str:
    """The table, in Markdown: medians of interleaved rounds, as multiples of an empty Python's start."""
    folder, environment = _prepare()
    python, modelport = sys.executable, str(Path(sys.executable).with_name("modelport"))
    fastapi = str(WORK / "fastapi" / "bin" / "uvicorn")

    def cold(port: int) -> list[str]:
        shutil.rmtree(folder / "cache", ignore_errors=True)
        return [modelport, "serve", "iris.joblib", "--port", str(port)]

    rows: dict[str, Callable[[], float]] = {
        "python -c pass": lambda: _until_end([python, "-c", "pass"], folder, environment),
        "import numpy": lambda: _until_end([python, "-c", "import numpy"], folder, environment),
        "import modelport": lambda: _until_end([python, "-c", "import modelport"], folder, environment),
        "modelport --help": lambda: _until_end([modelport, "--help"], folder, environment),
        "modelport serve iris (from the store) to first answer": lambda: _until_answer(
            lambda port: [modelport, "serve", "iris", "--port", str(port)], folder, environment
        ),
        "modelport serve iris.joblib (packed before) to first answer": lambda: _until_answer(
            lambda port: [modelport, "serve", "iris.joblib", "--port", str(port)], folder, environment
        ),
        "modelport serve iris.joblib (first time: packs it) to first answer": lambda: _until_answer(cold, folder, environment),
        "modelport demo (ONNX) to first answer": lambda: _until_answer(
            lambda port: [modelport, "demo", "--port", str(port)], folder, environment
        ),
        "FastAPI with pandas, as tutorials write it, to first answer": lambda: _until_answer(
            lambda port: [fastapi, "app:app", "--port", str(port), "--log-level", "warning"], folder, environment
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in rows}
    for name, measure in rows.items():
        measure()  # once to warm the page cache and the .pyc files
        times[name] = []
    for _ in range(ROUNDS):
        for name, measure in rows.items():
            times[name].append(measure())
    base = statistics.median(times["python -c pass"])
    lines = [
        "# Start",
        "",
        f"`python -m bench startup`, {ROUNDS} interleaved rounds, Python {platform.python_version()}, {os.cpu_count()} cores. Seconds depend on the machine;"
        " the ratios are to an empty Python's start.",
        "",
        "| what | median s | fastest s | times an empty start |",
        "|---|---|---|---|",
    ]
    for name, values in times.items():
        median = statistics.median(values)
        lines.append(f"| {name} | {median:.3f} | {min(values):.3f} | {median / base:.1f} |")
    return "\n".join(lines) + "\n"


def _prepare() -> tuple[Path, dict[str, str]]:
    """A folder with the trained example packed in a store of its own, and FastAPI in an environment of its own."""
    folder = WORK / "startup"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(EXAMPLE, folder)
    environment = {**os.environ, "MODELPORT_STORE": str(folder / "store"), "MODELPORT_CACHE": str(folder / "cache")}
    subprocess.run([sys.executable, "train.py"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    modelport = Path(sys.executable).with_name("modelport")
    subprocess.run([modelport, "pack"], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    if not (WORK / "fastapi").is_dir():
        subprocess.run([sys.executable, "-m", "venv", WORK / "fastapi"], check=True)
        pip = [WORK / "fastapi" / "bin" / "pip", "install", "--quiet"]
        subprocess.run([*pip, "fastapi", "uvicorn[standard]", "pandas", "scikit-learn", "joblib"], check=True)
    (folder / "app.py").write_text(FASTAPI)
    return folder, environment


def _until_end(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def _until_answer(command: Callable[[int], list[str]], folder: Path, environment: dict[str, str]) -> float:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = command(port)
    begun = time.perf_counter()
    server = subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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
                return time.perf_counter() - begun
            assert answer.status_code == 503, answer.text
    finally:
        server.terminate()
        server.wait(30)

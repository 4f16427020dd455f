"""How much memory `modelport predict` takes for a CSV file of 1 GB, and how long."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GIGABYTES = float(os.environ.get("MODELPORT_BENCH_GIGABYTES", "1"))
WORK = Path(__file__).parent / ".work"
NAMES = ("price", "product_weight_g", "product_height_cm", "delivery_distance_km", "product_volume_cm3")
LAUNCHER = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""
"""Runs a command from a small process: what a process was before it became the command counts as the command's memory too."""
TRAIN = """
import pickle, sys
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

frame = pd.DataFrame(np.random.default_rng(0).random((100, len(sys.argv) - 2)), columns=sys.argv[2:])
with open(sys.argv[1], "wb") as out:
    pickle.dump(LinearRegression().fit(frame, frame.sum(axis=1)), out)
"""


def run() -> str:
    """The table, in Markdown. The peak is the largest resident set of the process, as the kernel counts it."""
    WORK.mkdir(exist_ok=True)
    head = ["| output | rows | seconds | rows/s | peak memory, MB |", "|---|---|---|---|---|"]
    lines = []
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        model, data = Path(folder, "model.pkl"), Path(folder, "data.csv")
        subprocess.run([sys.executable, "-c", TRAIN, str(model), *NAMES], check=True)
        rows = _write(data, int(GIGABYTES * 1e9))
        environment = {**os.environ, "MODELPORT_CACHE": str(Path(folder, "cache"))}
        modelport = str(Path(sys.executable).with_name("modelport"))
        for form in ("csv", "parquet", "jsonl"):
            words = [modelport, "predict", str(model), str(data), "-o", str(Path(folder, f"out.{form}"))]
            begun = time.monotonic()
            done = subprocess.run([sys.executable, "-c", LAUNCHER, *words], env=environment, check=True, stdout=subprocess.PIPE, text=True)
            seconds = time.monotonic() - begun
            lines.append(f"| {form} | {rows:,} | {seconds:.0f} | {rows / seconds:,.0f} | {int(done.stdout) / 1e6:,.0f} |")
        size = data.stat().st_size / 1e9
    title = (
        f"`modelport predict` of a CSV file of {size:.2f} GB with five columns of numbers, a scikit-learn LinearRegression, on one machine:"
    )
    return "\n".join([title, "", *head, *lines]) + "\n"


def _write(path: Path, size: int) -> int:
    """Rows of numbers until the file has `size` bytes; how many."""
    import numpy as np

    random = np.random.default_rng(1)
    rows = 0
    with path.open("wb") as out:
        out.write(",".join(NAMES).encode() + b"\n")
        while out.tell() < size:
            block = random.random((20_000, len(NAMES))) * 1000
            lines = b"".join(",".join(f"{number:.6g}" for number in row).encode() + b"\n" for row in block.tolist())
            for _ in range(min(50, max(1, (size - out.tell()) // len(lines)))):  # the same rows again: making numbers takes its time
                out.write(lines)
                rows += len(block)
    return rows

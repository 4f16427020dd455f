"""Starts and ends whole services many times: does each get ready, how long does that take, is the first request as fast as the others?

`python -m bench boots [--times 1000] [--bundle FOLDER] [--workers 1]`; without a bundle, the model that comes with Modelport, as ONNX.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.open_loop import percentile
from bench.servers import free_port

DEMO = Path(__file__).parent.parent / "src" / "modelport" / "demo"
PATIENCE_S = 60.0
STEADY = 50


@dataclass(frozen=True)
class Boot:
    """One service, from its start to its end."""

    answer_s: float
    """From its start to its first answer."""
    first_ms: float
    """The request that had that answer."""
    steady_ms: float
    """The middle one of those after it."""
    stop_s: float


def run(*options: str) -> str:
    """The table of all starts. RuntimeError when a service does not get ready, ends with an error, or leaves something behind."""
    asked = _arguments(options)
    bundle = Path(asked.bundle)
    body = json.dumps(json.loads((bundle / "example.json").read_text())[0])
    before = _left()
    with tempfile.TemporaryDirectory() as folder:
        boots = [_boot(bundle, body, asked.workers, folder) for _ in range(asked.times)]
        files = sorted(os.listdir(folder))  # noqa: PTH208
    left = _left() - before
    if files or left:
        raise RuntimeError(f"left behind: {files} {sorted(left)}")
    lines = [
        "# Boots",
        "",
        f"`{' '.join(['python -m bench boots', *options])}`: {asked.times:,} services, started and ended one after the other.",
        "Each got ready, answered and ended with 0, and no process, file, socket or shared memory was left.",
        "",
        "| | p50 | p99 | slowest |",
        "|---|---:|---:|---:|",
    ]
    for what, values, form in (
        ("start to first answer, s", [boot.answer_s for boot in boots], "{:.2f}"),
        ("the first request, ms", [boot.first_ms for boot in boots], "{:.2f}"),
        (f"the {STEADY} after it, in the middle, ms", [boot.steady_ms for boot in boots], "{:.2f}"),
        ("the first, as times of those", [boot.first_ms / boot.steady_ms for boot in boots], "{:.1f}"),
        ("SIGTERM to the end, s", [boot.stop_s for boot in boots], "{:.2f}"),
    ):
        three = percentile(values, 0.5), percentile(values, 0.99), max(values)
        lines.append(f"| {what} | {' | '.join(form.format(value) for value in three)} |")
    return "\n".join(lines) + "\n"


def _boot(bundle: Path, body: str, workers: int, temporary: str) -> Boot:
    port = free_port()
    program = "from modelport.cli.main import main; main()"
    words = [sys.executable, "-c", program, "serve", str(bundle), "--trust", "--port", str(port), "--workers", str(workers)]
    begun = time.perf_counter()
    process = subprocess.Popen(
        words, env={**os.environ, "TMPDIR": temporary}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        while b"Ctrl+C" not in (line := process.stderr.readline()):
            if not line:
                raise RuntimeError(f"a service ended with {process.wait()} before it was ready")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        connection.connect()
        first_ms = _asked_ms(connection, body)
        answer_s = time.perf_counter() - begun
        steady_ms = statistics.median(_asked_ms(connection, body) for _ in range(STEADY))
        connection.close()
        stopped = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        code = process.wait(PATIENCE_S)
        if code:
            raise RuntimeError(f"a service ended with {code}: {process.stderr.read().decode(errors='replace')[-400:]}")
        return Boot(answer_s, first_ms, steady_ms, time.perf_counter() - stopped)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def _asked_ms(connection: http.client.HTTPConnection, body: str) -> float:
    begun = time.perf_counter()
    connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"status {answer.status}: {said[:200].decode(errors='replace')}")
    return (time.perf_counter() - begun) * 1000


def _left() -> set[str]:
    """What a service could leave behind that outlives it: named shared memory, sockets, and workers whose supervisor is gone."""
    named = set(os.listdir("/dev/shm"))  # noqa: PTH208
    sockets = {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "@modelport/" in line}
    orphans = set()
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            try:
                words, status = Path(f"/proc/{name}/cmdline").read_bytes(), Path(f"/proc/{name}/status").read_text()
            except OSError:  # it has ended just now
                continue
            if b"modelport.serving.worker" in words and "\nPPid:\t1\n" in status:
                orphans.add(f"process {name}")
    return named | sockets | orphans


def _arguments(options: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench boots", description=__doc__)
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--bundle", default=str(DEMO), help="the folder of a bundle with an example")
    parser.add_argument("--workers", type=int, default=1)
    return parser.parse_args(options)

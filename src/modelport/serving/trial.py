"""A bundle loaded as a worker loads it, in a process of its own: whether it answers, how fast, and how much memory that takes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TypeAlias

import msgspec

from modelport.bundle import Bundle
from modelport.errors import ModelFailed
from modelport.serving import resources
from modelport.serving.control import Failed


class Tried(msgspec.Struct, tag=True, frozen=True):
    """What came of it."""

    engine: str
    seconds: float
    """From the start of the process until the golden rows were reproduced."""
    memory_bytes: int
    """Of the process, after the largest call; 0 where the machine does not say."""
    golden_rows: int
    curve: list[tuple[int, float]]
    """Rows of a call, and its seconds."""


_Answer: TypeAlias = Tried | Failed


def attempt(bundle: Bundle, engine: str, timeout_s: float = 300.0) -> Tried:
    """Try the bundle with "onnx" or "native", on one thread. The caller has decided that the bundle may run its code.

    The ModelportError with which it fails; ModelFailed when the process ends or the time is over before it has answered.
    """
    command = [sys.executable, "-P", "-m", "modelport.serving.trial", str(bundle.folder.resolve()), engine, str(time.monotonic_ns())]
    environment = {**os.environ, **resources.thread_shares(1)}
    try:
        done = subprocess.run(  # noqa: S603  this Python, and words that are ours
            command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise ModelFailed(f"{bundle.name} was not loaded and measured within {timeout_s:g} s") from None
    try:
        answer: Tried | Failed = msgspec.json.decode(done.stdout, type=_Answer)
    except msgspec.DecodeError:
        last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or [""])[-1][:200]
        what = f"the process that loaded {bundle.name} ended with {done.returncode}"
        raise ModelFailed(f"{what}: {last}" if last else what) from None
    if isinstance(answer, Failed):
        raise answer.error()
    return answer


def main(folder: str, engine: str, begun_ns: int) -> None:
    """Try the bundle in `folder`, and say what came of it on the standard output."""
    from modelport import engines
    from modelport.bundle import open_bundle
    from modelport.serving.app import create_app
    from modelport.serving.service import Service
    from modelport.serving.settings import Settings
    from modelport.serving.worker import own_output

    out = own_output()
    try:
        bundle = open_bundle(Path(folder))
        loaded = engines.load(bundle, engine)
        service = Service(bundle.name, "", bundle, loaded)
        create_app([service], Settings())
        golden_rows = engines.verify_golden(loaded, bundle)
        seconds = (time.monotonic_ns() - begun_ns) / 1e9
        curve = engines.measure_rows(loaded, service.examples) if service.examples else []
        said: Tried | Failed = Tried(loaded.name, seconds, resources.memory_of(), golden_rows, curve)
    except Exception as error:  # noqa: BLE001  whatever it is, it is told
        said = Failed.of(error)
    out.write(msgspec.json.encode(said).decode())
    out.flush()
    os._exit(0)  # a library that ends slowly has no say


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

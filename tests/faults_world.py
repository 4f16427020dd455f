"""A service of a model that misbehaves, as real processes, and the ways to ask it, hurt it and wait for what it does."""

from __future__ import annotations

import json
import os
import pickle
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
import sklearn

import misbehaving
import modelport
from modelport import bundle as bundles
from modelport.bundle import Bundle
from modelport.frameworks import Card
from modelport.signature import Field, Signature

SOURCE = str(Path(modelport.__file__).parents[1])
"""Where the Modelport is that is tested; the one that is installed may be another."""
SIGNATURE = Signature(
    inputs=(Field("what", "number", example=0.0), Field("number", "number", example=2.0)), outputs=(Field("prediction", "number"),)
)
FACTOR = 2.0
"""What the model answers with, times the number."""
PROGRAM = "from modelport.cli.main import main; main()"
_PATIENCE_S = 60.0


def make_bundle(
    folder: Path,
    *,
    factor: float = FACTOR,
    golden: float | None = None,
    signature: Signature = SIGNATURE,
    what: int = misbehaving.ANSWER,
    number: float = 2.0,
    gate: Path | None = None,
) -> Bundle:
    """The misbehaving model as a bundle, with `what` and `number` as its example; with `golden`, that is recorded as the answer to it.

    With a `gate`, which it makes, it is loaded when that was opened and closed.
    """
    (folder / "model").mkdir(parents=True)
    (folder / "code").mkdir()
    shutil.copy(misbehaving.__file__, folder / "code")
    if gate is not None:
        os.mkfifo(gate)
    model = misbehaving.Misbehaving(factor, str(gate or "")).fit(None)
    (folder / "model" / "model.pkl").write_bytes(pickle.dumps(model))
    row = {"what": float(what), "number": number}
    answer = number * factor if golden is None else golden
    (folder / "example.json").write_text(json.dumps([row]))
    (folder / "golden.json").write_text(json.dumps({"tolerance": 1e-6, "rows": [{"input": row, "output": {"prediction": answer}}]}))
    card = Card("sklearn", "misbehaving.Misbehaving", "scikit-learn", sklearn.__version__, features=("what", "number"), feature_count=2)
    return bundles.write(folder, name="misbehaving", card=card, signature=signature, model="model/model.pkl", python="3.11")


class Running:
    """`modelport serve` as a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Without `process.stdout`, of a service that logs elsewhere, its log says nothing here."""
        self.process = process
        self.seen: list[dict[str, Any]] = []
        """What stands in its log so far, as far as somebody waited for it."""
        self.url = ""
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._threads = [
            threading.Thread(target=_read, args=(process.stdout, self._events, json.loads)),
            threading.Thread(target=_read, args=(process.stderr, self._lines, str.strip)),
        ]
        for thread in self._threads:
            thread.start()

    def wait_for(self, event: str, times: int = 1) -> dict[str, Any]:
        """The next such entry of its log, or the last of so many."""
        while True:
            entry = self._events.get(timeout=_PATIENCE_S)
            if entry is None:  # for who asks next
                self._events.put(None)
            assert entry is not None, f"it ended before it said {event!r}; it said {self.seen}"
            self.seen.append(entry)
            times -= entry["event"] == event
            if not times:
                return entry

    def wait_for_line(self, text: str, times: int = 1) -> None:
        """Wait until so many lines of its standard error are `text`."""
        while times:
            line = self._lines.get(timeout=_PATIENCE_S)
            if line is None:
                self._lines.put(None)
            assert line is not None, f"it ended before it printed {text!r}"
            times -= line == text

    def lines(self) -> list[str]:
        """What its standard error holds beyond the lines that somebody waited for, once it has ended."""
        self.process.wait(_PATIENCE_S)
        return list(iter(self._lines.get, None))

    def workers(self) -> list[int]:
        """The processes that it started."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(child) for child in children.split()]

    def client(self, **options: Any) -> httpx.Client:
        limits = httpx.Limits(max_connections=500, max_keepalive_connections=500)
        return httpx.Client(base_url=self.url, timeout=_PATIENCE_S, trust_env=False, limits=limits, **options)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def dial(self, **options: Any) -> socket.socket:
        return socket.create_connection(self.address, timeout=_PATIENCE_S, **options)

    def reload(self, *before: str) -> subprocess.Popen[str]:
        """`modelport reload`, as somebody says it beside it."""
        words = [*before, sys.executable, "-c", PROGRAM, "reload", "--port", str(self.address[1])]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def reloaded(self, *before: str) -> tuple[int, str, str]:
        """What came of it: the exit code, and what it said and complained of."""
        return outcome(self.reload(*before))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(_PATIENCE_S)

    def entries(self) -> list[dict[str, Any]]:
        """All that its log holds, once it has ended."""
        self.process.wait(_PATIENCE_S)
        for thread in self._threads:
            thread.join()
        while (entry := self._events.get()) is not None:
            self.seen.append(entry)
        self._events.put(None)
        return self.seen


@contextmanager
def held(gate: Path) -> Iterator[None]:
    """While something waits at this named pipe: it begins when that has come there, and lets it go on with its end."""
    opened = os.open(gate, os.O_WRONLY)  # opens when it is read
    try:
        yield
    finally:
        os.close(opened)


def outcome(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The exit code of a command, and what it said and complained of."""
    said, complained = process.communicate(timeout=_PATIENCE_S)
    return process.returncode, said, complained


def need(there: bool, what: str) -> None:
    """Leave a test out where something is missing that a laptop may not have; CI has it."""
    if not there:
        assert os.environ.get("CI") != "true", f"missing: {what}; in CI this test is not left out"
        pytest.skip(f"this machine has no {what}, or this user may not use it")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _read(source: IO[str] | None, into: queue.Queue[Any], understand: Callable[[str], Any]) -> None:
    if source is not None:
        with source:
            for line in source:
                into.put(understand(line))
    into.put(None)


@contextmanager
def launched(
    bundle: Path, *arguments: str, before: Sequence[str] = (), log: IO[str] | None = None, **environment: str
) -> Iterator[Running]:
    """A service that begins to start; `before` are words of a program that becomes the service, and `log` is where else it logs."""
    words = [*before, sys.executable, "-c", PROGRAM, "serve", str(bundle), "--trust", "--port", "0", *arguments]
    own = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": SOURCE, "PYTHONWARNINGS": "error", **environment}
    process = subprocess.Popen(words, env=own, stdout=log or subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running = Running(process)
    try:
        yield running
    finally:
        process.kill()
        running.entries()


@contextmanager
def serving(bundle: Path, *arguments: str, workers: int = 1, before: Sequence[str] = (), **environment: str) -> Iterator[Running]:
    """A service whose workers are ready. Its size is stated, for a measurement on a busy machine might bring another worker."""
    with launched(bundle, "--workers", str(workers), "--threads", "1", *arguments, before=before, **environment) as running:
        started = running.wait_for("serving")
        running.url = f"http://127.0.0.1:{started['port']}"
        running.wait_for("worker-ready", workers)
        yield running


@contextmanager
def serving_to(log: IO[str], bundle: Path, *arguments: str) -> Iterator[Running]:
    """A service with one worker that logs there."""
    port = free_port()
    with launched(bundle, "--workers", "1", "--port", str(port), *arguments, log=log) as running:
        running.wait_for_line("Ctrl+C stops it.")
        running.url = f"http://127.0.0.1:{port}"
        yield running


def ask(client: httpx.Client, what: int = misbehaving.ANSWER, number: float = 2.0, **more: Any) -> httpx.Response:
    return client.post("/predict", json={"what": what, "number": number}, **more)

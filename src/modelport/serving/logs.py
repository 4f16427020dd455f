"""The service's log: one line a request, readable on a terminal and JSON otherwise. Never bodies, never keys.

What is said is put in line, and a thread writes it: when nobody reads what it writes, lines are dropped and counted, and requests are
answered as before. Under load a fair sample of the requests is logged, and each line says for how many it stands.
"""

from __future__ import annotations

import fcntl
import io
import json
import math
import os
import random
import select
import stat
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TextIO

LINES_PER_S = 100
"""So many requests a second have a line each; of more, about so many have one."""
_MOST_WAITING = 5000
_GATHER_S = 0.05
"""The writer lets lines gather for so long, so that it does not wake for each."""
_ATOMIC_BYTES = getattr(select, "PIPE_BUF", 512)
"""Workers share one pipe: what is written to it at once, and is no longer than this, is not torn apart by what the others write."""
_FAILURES_PER_S = 10


class Log:
    """Writes lines to `out`, or to stdout; `failure`, `event` and `request` do not wait for that.

    Requests that failed inside always have a line. Those that were refused, which callers can make as many as they like, are sampled by
    themselves, so that neither they nor the others push each other out.
    """

    def __init__(
        self,
        out: TextIO | None = None,
        *,
        lines_per_s: int = LINES_PER_S,
        most_waiting: int = _MOST_WAITING,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        chosen = out or sys.stdout
        self._readable = chosen is not None and chosen.isatty()
        self._write = _writer(chosen)
        self._answered = Sampler(lines_per_s, clock, chance)
        self._refused = Sampler(lines_per_s, clock, chance)
        self._failures = Sampler(_FAILURES_PER_S, clock, chance)
        self._queue: deque[dict[str, Any]] = deque()
        self._most_waiting = most_waiting
        self._said = self._handled = self._left_out = self._full = self._lost = 0
        self._closing = False
        self._thread: threading.Thread | None = None
        self._begin = threading.Lock()
        self._wake, self._hurry = threading.Event(), threading.Event()
        self._progress = threading.Condition()

    @property
    def counts(self) -> dict[str, int]:
        """What became of the lines: written; sampled_out, as others stand for them; dropped, as nobody took them or they failed."""
        return {"written": self._handled - self._lost, "sampled_out": self._left_out, "dropped": self._full + self._lost}

    def sample(self, status: int) -> int:
        """For how many requests the line of one that was answered with `status` stands; 0 when it has none."""
        if status < 400:
            one_in = self._answered.take()
        elif status < 500 or status == 503:
            one_in = self._refused.take()
        else:
            return 1
        if not one_in:
            self._left_out += 1
        return one_in

    def request(
        self,
        *,
        request_id: str,
        method: str,
        path: str,
        status: int,
        seconds: float,
        rows: int | None = None,
        model: str = "",
        client: str = "",
        traceparent: str = "",
        one_in: int = 1,
    ) -> None:
        """One request that was answered, or of so many one; `path` without its query, which may hold what is secret."""
        entry: dict[str, Any] = {"event": "request", "request_id": request_id, "method": method, "path": path[:200], "status": status}
        entry["ms"] = round(seconds * 1000, 3)
        if rows is not None:
            entry["rows"] = rows
        if model:
            entry["model"] = model
        entry["client"] = client
        if traceparent:
            entry["traceparent"] = traceparent
        if one_in > 1:
            entry["sampled_1_in"] = one_in
        self._say(entry)

    def failure(self, error: BaseException, request_id: str) -> None:
        """What went wrong inside, in full: the answer names only its id. Of very many failures not each has its traceback."""
        entry = {"event": "failure", "request_id": request_id, "error": f"{type(error).__name__}: {error}"}
        if self._failures.take():
            entry["traceback"] = "".join(traceback.format_exception(error))
        self._say(entry)

    def event(self, event: str, **about: Any) -> None:
        """Something that happened to the service itself; said on a terminal elsewhere."""
        if not self._readable:
            self._say({"event": event, **about})

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until all that was said is written, lost or dropped; False when it takes longer than `timeout_s`."""
        said = self._said
        self._hurry.set()
        self._wake.set()
        with self._progress:
            done = self._progress.wait_for(lambda: self._handled >= said, timeout_s)
        if not self._closing:
            self._hurry.clear()
        return done

    def close(self, timeout_s: float = 1.0) -> bool:
        """Write what is left, and end; False when nobody took it in time. The process can end in any case."""
        self._closing = True
        done = self.flush(timeout_s)
        if done and self._thread is not None:
            self._thread.join()
        return done

    def _say(self, entry: dict[str, Any]) -> None:
        if self._closing or len(self._queue) >= self._most_waiting:
            self._full += 1
            return
        self._queue.append({"time": time.time(), **entry})
        self._said += 1
        if self._thread is None:
            self._start()
        if not self._wake.is_set():
            self._wake.set()

    # On the writer's thread

    def _start(self) -> None:
        with self._begin:
            if self._thread is None:
                # A daemon: if nobody reads what it writes it never ends, and the process must.
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        line = _readable if self._readable else _json
        while True:
            self._wake.wait()
            self._wake.clear()
            self._hurry.wait(_GATHER_S)
            for lines in _parts(self._taken(line)):
                lost = 0
                try:
                    self._write(b"".join(lines))
                except OSError:  # the reader is gone, or the disk full: that is counted, and what comes later is tried again
                    lost = len(lines)
                with self._progress:
                    self._lost += lost
                    self._handled += len(lines)
                    self._progress.notify_all()
            if self._closing and not self._queue:
                return

    def _taken(self, line: Callable[[dict[str, Any]], str]) -> Iterator[bytes]:
        while self._queue:
            yield (line(self._queue.popleft()) + "\n").encode("utf-8", "backslashreplace")


class Sampler:
    """Takes `per_s` things a second, and of more a fair sample: each as likely as any other that came at the time."""

    def __init__(self, per_s: int, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random) -> None:
        self._per_s, self._clock, self._chance = per_s, clock, chance
        self._one_in = 1
        self._until = -math.inf
        self._seen = self._taken = 0

    def take(self) -> int:
        """For how many things this one stands; 0 when it is left out."""
        if not self._per_s:
            return 0
        now = self._clock()
        if now >= self._until:
            self._one_in = max(1, math.ceil(self._seen / self._per_s)) if now < self._until + 1 else 1
            self._until = now + 1
            self._seen = self._taken = 0
        self._seen += 1
        one_in = self._one_in
        if one_in > 1 and self._chance() * one_in >= 1:
            return 0
        self._taken += 1
        if self._taken % self._per_s == 0:
            self._one_in *= 2
        return one_in


def _writer(out: TextIO | None) -> Callable[[bytes], None]:
    """What writes bytes to `out`.

    Past its buffer, where it has a descriptor: a thread that hangs in a write would hold the buffer's lock, and Python could not end.
    """
    if out is None:  # the process was started with stdout closed
        return lambda data: None
    try:
        descriptor = out.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return lambda data: _write_text(out, data)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):  # it may be copied and cut off while it is written (logrotate's copytruncate)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)
    return _Descriptor(out, descriptor).write


def _write_text(out: TextIO, data: bytes) -> None:
    out.write(data.decode())
    out.flush()


class _Descriptor:
    def __init__(self, out: TextIO, descriptor: int) -> None:
        self._out = out  # closes the descriptor when it is dropped
        self._descriptor = descriptor
        self._torn = False

    def write(self, data: bytes) -> None:
        rest = memoryview(b"\n" + data if self._torn else data)
        whole = len(rest)
        self._torn = False
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # another program that shares it has made it so
                select.select([], [self._descriptor], [])
            except OSError:
                self._torn = len(rest) < whole
                raise


def _parts(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Lines together, as many as are written at once."""
    part: list[bytes] = []
    size = 0
    for line in lines:
        if part and size + len(line) > _ATOMIC_BYTES:
            yield part
            part, size = [], 0
        part.append(line)
        size += len(line)
    if part:
        yield part


def _json(entry: dict[str, Any]) -> str:
    at = datetime.fromtimestamp(entry["time"], UTC).isoformat(timespec="milliseconds")
    return json.dumps({**entry, "time": at}, default=str)


def _readable(entry: dict[str, Any]) -> str:
    if entry["event"] == "failure":
        return f"request {entry['request_id']} failed:\n{entry.get('traceback', entry['error']).rstrip()}"
    at = datetime.fromtimestamp(entry["time"], UTC).astimezone().strftime("%H:%M:%S")
    line = f"{at}  {entry['status']}  {entry['method']:<4} {_printable(entry['path'])}  {entry['ms']:.1f} ms"
    if "rows" in entry:
        line += f"  {entry['rows']} rows"
    if "sampled_1_in" in entry:
        line += f"  (1 of {entry['sampled_1_in']})"
    return line


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)

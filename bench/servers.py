"""Starts a service on one core, waits for its first answer, reads what it uses, and ends every process it left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from bench.works import Exchange, answer_to

MARK = "MODELPORT_BENCH_SERVER"
"""Set in a server's environment, and so in that of every process it starts, also of those that leave its process group."""
START_S, STOP_S = 120.0, 8.0
NOT_YET = (404, 503)
"""What services say while their model loads."""
_numbers = count(1)


class ServerError(Exception):
    """A service did not start, or ended: with the last lines it wrote."""


@dataclass
class Server:
    """A service that has answered once."""

    process: subprocess.Popen[bytes]
    port: int
    mark: str
    log: Path
    start_s: float = field(default=0.0)

    def pids(self) -> list[int]:
        """Its processes: those that carry its mark."""
        return [pid for pid in _all_pids() if _has_mark(pid, self.mark)]

    def memory(self) -> tuple[float, float]:
        """RSS and PSS of all its processes, MB. PSS counts a page that several share once."""
        rss = pss = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):  # it ended meanwhile
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Rss:"):
                        rss += int(line.split()[1])
                    elif line.startswith("Pss:"):
                        pss += int(line.split()[1])
        return rss / 1024, pss / 1024

    def processor_s(self) -> float:
        """Seconds of processor time of all its processes so far."""
        return sum(map(processor_s, self.pids()))

    def descriptors(self) -> int:
        """Open files and sockets of all its processes."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                total += len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 a Path for each would be waste
        return total

    def last_words(self, lines: int = 3) -> str:
        """The end of what it wrote."""
        written = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return " / ".join(written[-lines:])[-400:]


def processor_s(pid: int) -> float:
    """Seconds of processor time of a process so far; 0 when it has ended."""
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:
        return 0.0
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def cores() -> tuple[int, int] | None:
    """The core for the server and the one for the load, or None where there is one core only."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 and shutil.which("taskset") else None


def stay_on(core: int | None) -> None:
    """Keeps this process on one core from now on: the load is made here."""
    if core is not None:
        os.sched_setaffinity(0, {core})


def busy_s() -> float:
    """Seconds of processor time the whole machine has spent so far."""
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_s() -> float:
    """Seconds of processor time of this process, and of those it started that have ended."""
    times = os.times()
    return times.children_user + times.children_system + times.user + times.system


def pinned(words: Sequence[str | Path], core: int | None) -> list[str]:
    """The command on one core."""
    prefix = [] if core is None else ["taskset", "-c", str(core)]
    return [*prefix, *map(str, words)]


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def running(
    words: Sequence[str | Path], port: int, folder: Path, environment: Mapping[str, str], first: Exchange, core: int | None
) -> Iterator[Server]:
    """The service `words` starts, from its first good answer to `first` on; however the block ends, so do all its processes.

    ServerError when it ends or does not answer within START_S.
    """
    mark = f"{os.getpid()}-{next(_numbers)}"
    log = folder / "server.log"
    begun = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned(words, core),
            cwd=folder,
            env={**environment, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(process, port, mark, log)
    try:
        said = "no answer"
        while True:
            try:
                status, body = answer_to(port, first.request, timeout_s=10)
                if status == 200:
                    break
                said = f"status {status}: {body[:200].decode(errors='replace')}"
                if status not in NOT_YET:
                    raise ServerError(f"{said}; {server.last_words()}")
            except OSError:
                time.sleep(0.005)
            else:
                time.sleep(0.05)
            if process.poll() is not None:
                raise ServerError(f"ended with {process.returncode}: {server.last_words()}")
            if time.perf_counter() - begun > START_S:
                raise ServerError(f"{said} within {START_S:.0f} s: {server.last_words()}")
        server.start_s = time.perf_counter() - begun
        yield server
    finally:
        _end(server)


def _end(server: Server) -> None:
    """First as a supervisor would, then for good: only processes that carry the mark, each by its id."""
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline:
        server.process.poll()
        if not server.pids():
            break
        time.sleep(0.05)
    while left := server.pids():
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    server.process.wait()


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def _has_mark(pid: int, mark: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
            return f"{MARK}={mark}\0".encode() in file.read()
    except OSError:  # it ended meanwhile, is another user's, or is a zombie
        return False

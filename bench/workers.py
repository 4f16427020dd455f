"""Whether two workers on two cores beat one, and how evenly connections are spread over them.

`python -m bench workers [--rounds 5] [--seconds 5]`

The load comes from the same two cores, so the model is one of 5 ms a row: to ask it takes a hundredth of what it takes to answer.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bench.load import drive
from bench.servers import Server, busy_s, cores, own_s, processor_s
from bench.services import Serving, serving
from bench.tools import TOOLS, Tool
from bench.works import OVERLOAD

CONNECTIONS = 32
SPREAD = (2, 3, 8, 32, 101, 1000)
SPREAD_TIMES = 3
ESTABLISHED = "01"
"""As /proc/net/tcp writes it."""


@dataclass(frozen=True)
class Round:
    """One run of the load on so many workers."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    shares: tuple[float, ...]
    """Of the workers' processor time, each worker's."""
    others_cores: float


def run(*options: str) -> str:
    """The table of both numbers of workers, and the one of connections."""
    asked = _arguments(options)
    pair = cores()
    if pair is None:
        sys.exit("this takes two cores")
    rounds: dict[int, list[Round]] = {1: [], 2: []}
    spread: dict[int, list[list[int]]] = {}
    for number in range(asked.rounds):
        for workers in (1, 2):
            with serving(_with(workers), OVERLOAD) as service:
                drive(service.port, service.asked, CONNECTIONS, 1, service.folder, pair[1])
                rounds[workers].append(_round(service, asked.seconds, pair[1]))
                if workers == 2 and number == 0:
                    spread = {count: [_spread(service.server, count) for _ in range(SPREAD_TIMES)] for count in SPREAD}
    rates = {workers: statistics.median(one.requests_per_s for one in rounds[workers]) for workers in rounds}
    lines = [
        "# Workers",
        "",
        f"`{' '.join(['python -m bench workers', *options])}`",
        "",
        f"{OVERLOAD.title[0].upper()}{OVERLOAD.title[1:]}, over {CONNECTIONS} connections: one worker on core {pair[0]}, or two on both,",
        f"and wrk on core {pair[1]}; {asked.rounds} interleaved rounds of {asked.seconds} s, the medians of each.",
        f"Two workers answer {rates[2] / rates[1]:.2f} times as many requests as one.",
        "",
        "| workers | requests/s | p50 ms | p99 ms | of the workers' time, each | other programs, cores |",
        "|---:|---:|---:|---:|---|---:|",
    ]
    for workers, some in rounds.items():
        shares = [statistics.median(one.shares[at] for one in some) for at in range(workers)]
        cells = (
            workers,
            f"{rates[workers]:,.0f}",
            f"{statistics.median(one.p50_ms for one in some):.1f}",
            f"{statistics.median(one.p99_ms for one in some):.1f}",
            ", ".join(f"{share:.0%}" for share in shares),
            f"{statistics.median(one.others_cores for one in some):.2f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [
        "",
        f"Connections that each of two workers holds, when so many are open; {SPREAD_TIMES} times each:",
        "",
        "| open | held |",
        "|---:|---|",
    ]
    lines += [f"| {count} | {', '.join('/'.join(map(str, held)) for held in times)} |" for count, times in spread.items()]
    return "\n".join(lines) + "\n"


def _with(workers: int) -> Tool:
    tool = TOOLS["modelport-native"]
    return replace(tool, several_cores=workers > 1, command=lambda where: [*tool.command(where), "--workers", str(workers)])


def _round(service: Serving, seconds: int, load_core: int) -> Round:
    pids = _workers(service.server)
    before = [processor_s(pid) for pid in pids]
    busy, used = busy_s(), service.server.processor_s() + own_s()
    seen = drive(service.port, service.asked, CONNECTIONS, seconds, service.folder, load_core)
    used = service.server.processor_s() + own_s() - used
    spent = [processor_s(pid) - at for pid, at in zip(pids, before, strict=True)]
    shares = tuple(sorted((one / max(0.01, sum(spent)) for one in spent), reverse=True))
    return Round(seen.requests_per_s, seen.p50_ms, seen.p99_ms, shares, max(0.0, (busy_s() - busy - used) / seconds))


def _workers(server: Server) -> list[int]:
    return [pid for pid in server.pids() if pid != server.process.pid]


def _spread(server: Server, count: int) -> list[int]:
    """How many of so many new connections each worker has, when each has had an answer."""
    with ExitStack() as held:
        opened = [held.enter_context(socket.create_connection(("127.0.0.1", server.port), 10)) for _ in range(count)]
        for connection in opened:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            connection.recv(65536)
        ours = _sockets(server.port, {connection.getsockname()[1] for connection in opened})
        return sorted((len(ours & _held(pid)) for pid in _workers(server)), reverse=True)


def _sockets(port: int, callers: set[int]) -> set[str]:
    """The inodes of the service's ends of the connections from these ports."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_, inode = line.split()[:10]
        local_port, remote_port = (int(address.rpartition(":")[2], 16) for address in (local, remote))
        if local_port == port and remote_port in callers and state == ESTABLISHED:
            found.add(inode)
    return found


def _held(pid: int) -> set[str]:
    """The inodes of the sockets that a process has open."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # it is closed meanwhile
            found.add(str(descriptor.readlink()).removeprefix("socket:[").rstrip("]"))
    return found


def _arguments(options: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench workers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="of each run of wrk")
    return parser.parse_args(options)

"""A service asked for ten times what it can do: how much it still answers in time, how fast it refuses the rest, what it costs.

`python -m bench overload [--tool modelport-native] [--times 10] [--seconds 60] [--deadline 1]`

All the load comes from one address. Beside it, from another, somebody asks ten times a second and wants every answer; and health and
metrics are asked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bench.load import drive
from bench.open_loop import Tally, percentile, steady
from bench.servers import busy_s, cores, own_s, stay_on
from bench.services import Serving, serving
from bench.tools import TOOLS, Tool
from bench.works import OVERLOAD, WORKS, answer_to

CAPACITY_S, CALM_CONNECTIONS = 8, 8
QUIET, QUIET_PER_S = "127.0.0.2", 10
PROBED = "127.0.0.3"
RECOVERED_WITHIN_S = 30.0
PATIENCE = 0.9
"""The service's own deadline, as part of the time that callers wait: it should be the shorter, so that who waits gets an answer."""


@dataclass
class Seen:
    """What was seen while the load lasted; tallies second by second."""

    load: list[Tally] = field(default_factory=list)
    quiet: list[Tally] = field(default_factory=list)
    """Of the caller who asks for little, from another address."""
    probes: dict[str, list[Tally]] = field(default_factory=dict)
    """By path."""
    pss_mb: list[float] = field(default_factory=list)
    others_cores: float = 0.0
    """How much of the machine other programs took."""


def run(*options: str) -> str:
    """The table of an overload and the time it takes to recover."""
    asked = _arguments(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tool, work = _impatient(TOOLS[asked.tool], asked.deadline), {**WORKS, OVERLOAD.name: OVERLOAD}[asked.work]
    _, load_core = cores() or (None, None)
    with serving(tool, work) as service:
        drive(service.port, service.asked, CALM_CONNECTIONS, 1, service.folder, load_core)
        calm = [_calm(service, load_core)]
        offered = (asked.capacity or calm[0][0]) * asked.times
        before = service.server.memory()[1]
        stay_on(load_core)
        busy, served_s, mine = busy_s(), service.server.processor_s(), own_s()
        seen = asyncio.run(_overload(service, offered, asked))
        served_s, mine = service.server.processor_s() - served_s, own_s() - mine
        seen.others_cores = max(0.0, (busy_s() - busy - served_s - mine) / asked.seconds)
        recovered_s = _recovered(service, asked.deadline)
        after = service.server.memory()[1]
        calm.append(_calm(service, load_core))
    capacity, calm_s = (sum(one) / 2 for one in zip(*calm, strict=True))
    total, quiet = _total(seen.load), _total(seen.quiet)
    good = len(total.good_ms) / asked.seconds
    all_good = len(total.good_ms) + len(quiet.good_ms)
    lines = [
        f"# Overload: {tool.title}, {work.title}",
        "",
        f"`{' '.join(['python -m bench overload', *options])}`",
        "",
        f"Capacity {calm[0][0]:,.0f}/s before and {calm[1][0]:,.0f}/s after (closed loop, {CALM_CONNECTIONS} connections, {CAPACITY_S} s);",
        f"the mean of both counts. Between them, {asked.times:g} times that in an open loop for {asked.seconds:g} s.",
        f"Callers leave after {asked.deadline:g} s; the service's own deadline is {PATIENCE * asked.deadline:g} s.",
        f"The server has one core and the load another; other programs took {seen.others_cores:.2f} cores meanwhile.",
        "",
        "| | |",
        "|---|---:|",
        f"| offered a second | {offered:,.0f} |",
        f"| sent a second | {total.sent / asked.seconds:,.0f} |",
        f"| not sent, all {asked.connections} connections waiting | {total.unsent:,} |",
        f"| answered in time a second | {good:,.0f} |",
        f"| of capacity, by the clock | {all_good / asked.seconds / capacity:.0%} |",
        f"| of capacity, by the server's processor time | {all_good * calm_s / served_s:.0%} |",
        f"| accepted: p50, p99, slowest ms | {_three(total.good_ms)} |",
        f"| refused (503, 429) | {len(total.shed_ms):,} |",
        f"| refused: p50, p99, slowest ms | {_three(total.shed_ms)} |",
        f"| no answer within {asked.deadline:g} s | {total.late:,} |",
        f"| other statuses | {total.other:,} |",
        f"| broken connections | {total.broken:,} |",
        f"| another caller, {QUIET_PER_S}/s: answered in time, of | {len(quiet.good_ms)}, {quiet.sent + quiet.unsent} |",
        f"| another caller: p50, p99, slowest ms | {_three(quiet.good_ms)} |",
        *_probe_lines(seen, asked.probes),
        f"| PSS before, highest, after MB | {before:.0f}, {max(seen.pss_mb, default=before):.0f}, {after:.0f} |",
        f"| in time again after s | {'not within ' if recovered_s is None else ''}{recovered_s or RECOVERED_WITHIN_S:.1f} |",
        "",
        "| second | answered in time | p99 ms | refused | late | broken |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    step = max(1, len(seen.load) // 12)
    for at in range(0, len(seen.load) - 1, step):
        tally = seen.load[at]
        cells = (at + 1, len(tally.good_ms), f"{percentile(tally.good_ms, 0.99):.1f}", len(tally.shed_ms), tally.late, tally.broken)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _calm(service: Serving, load_core: int | None) -> tuple[float, float]:
    """What the service can do: requests a second, and the seconds of processor time of each."""
    spent_s = service.server.processor_s()
    calm = drive(service.port, service.asked, CALM_CONNECTIONS, CAPACITY_S, service.folder, load_core)
    return calm.requests_per_s, (service.server.processor_s() - spent_s) / (calm.requests_per_s * CAPACITY_S)


def _impatient(tool: Tool, deadline_s: float) -> Tool:
    """Modelport told how long callers wait; the other tools know no such thing."""
    if not tool.name.startswith("modelport"):
        return tool
    return replace(tool, command=lambda where: [*tool.command(where), "--timeout", f"{PATIENCE * deadline_s:g}"])


def _probe_lines(seen: Seen, per_s: float) -> list[str]:
    lines = []
    for path, tallies in seen.probes.items():
        probed = _total(tallies)
        failed = probed.late + probed.other + probed.broken + probed.unsent + len(probed.shed_ms)
        lines.append(f"| {path}, {per_s:g}/s: p50, p99, slowest ms | {_three(probed.good_ms)} |")
        lines.append(f"| {path}: not answered with 200 | {failed} |")
    return lines


async def _overload(service: Serving, rate: float, asked: argparse.Namespace) -> Seen:
    seen = Seen(probes={path: [] for path in asked.health.split(",")})

    async def memory() -> None:
        while True:
            seen.pss_mb.append((await asyncio.to_thread(service.server.memory))[1])
            await asyncio.sleep(1)

    requests = [exchange.request for exchange in service.asked]
    watching = asyncio.create_task(memory())
    port, seconds, deadline = service.port, asked.seconds, asked.deadline
    async with asyncio.TaskGroup() as together:
        together.create_task(steady(port, requests, rate, seconds, deadline, asked.connections, seen.load))
        together.create_task(steady(port, requests, QUIET_PER_S, seconds, deadline, 4 * QUIET_PER_S, seen.quiet, QUIET))
        for path, tallies in seen.probes.items():
            probe = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
            together.create_task(steady(port, [probe], asked.probes, seconds, 5.0, 100, tallies, PROBED))
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    return seen


def _recovered(service: Serving, deadline_s: float) -> float | None:
    """Seconds until a request is answered with 200 in time again; None when that takes too long."""
    begun = time.perf_counter()
    while (waited := time.perf_counter() - begun) < RECOVERED_WITHIN_S:
        try:
            status, _ = answer_to(service.port, service.asked[0].request, deadline_s)
        except OSError:
            continue
        if status == 200:
            return waited
        time.sleep(0.05)
    return None


def _total(tallies: Sequence[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total


def _three(values: Sequence[float]) -> str:
    if not values:
        return "none"
    return f"{percentile(values, 0.5):.1f}, {percentile(values, 0.99):.1f}, {max(values):.1f}"


def _arguments(options: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench overload", description=__doc__)
    parser.add_argument("--tool", choices=TOOLS, default="modelport-native")
    parser.add_argument("--work", choices=[OVERLOAD.name, *WORKS], default=OVERLOAD.name)
    parser.add_argument("--times", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--deadline", type=float, default=1, help="seconds a caller waits")
    parser.add_argument("--connections", type=int, default=2000, help="at most, each with one request on its way")
    parser.add_argument("--capacity", type=float, default=0, help="requests a second, instead of measuring it first")
    parser.add_argument("--health", default="/livez,/metrics", help="what is asked besides")
    parser.add_argument("--probes", type=float, default=5, help="how often a second each of these is")
    return parser.parse_args(options)

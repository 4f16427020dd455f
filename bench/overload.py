"""A service asked for ten times what it can do: how much it still answers in time, how fast it refuses the rest, what it costs.

`python -m bench overload [--tool modelport-native] [--times 10] [--seconds 60] [--deadline 1]`
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.load import drive
from bench.open_loop import Tally, percentile, steady
from bench.servers import cores, stay_on
from bench.services import Serving, serving
from bench.tools import TOOLS
from bench.works import OVERLOAD, WORKS, answer_to

CAPACITY_S, CALM_CONNECTIONS = 4, 8
PROBE_EVERY_S = 0.1
RECOVERED_WITHIN_S = 30.0


@dataclass
class Watch:
    """Memory and health while the load lasts."""

    pss_mb: list[float]
    health_ms: list[float]
    health_failed: int = 0


def run(*options: str) -> str:
    """The table of an overload and the time it takes to recover."""
    asked = _arguments(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tool, work = TOOLS[asked.tool], {**WORKS, OVERLOAD.name: OVERLOAD}[asked.work]
    _, load_core = cores() or (None, None)
    tallies: list[Tally] = []
    with serving(tool, work) as service:
        drive(service.port, service.asked, CALM_CONNECTIONS, 1, service.folder, load_core)
        calm = drive(service.port, service.asked, CALM_CONNECTIONS, CAPACITY_S, service.folder, load_core)
        capacity = asked.capacity or calm.requests_per_s
        before = service.server.memory()[1]
        stay_on(load_core)
        watch = asyncio.run(_overload(service, capacity * asked.times, asked, tallies))
        recovered_s = _recovered(service, asked.deadline)
        after = service.server.memory()[1]
    total = Tally()
    for tally in tallies:
        total.add(tally)
    good = len(total.good_ms) / asked.seconds
    lines = [
        f"# Overload: {tool.title}, {work.title}",
        "",
        f"`{' '.join(['python -m bench overload', *options])}`",
        "",
        f"Capacity {capacity:,.0f}/s (closed loop, {CALM_CONNECTIONS} connections); then {asked.times:g} times that in an open loop for",
        f"{asked.seconds:g} s, callers leave after {asked.deadline:g} s.",
        "",
        "| | |",
        "|---|---:|",
        f"| offered a second | {capacity * asked.times:,.0f} |",
        f"| sent a second | {total.sent / asked.seconds:,.0f} |",
        f"| not sent, all {asked.connections} connections waiting | {total.unsent:,} |",
        f"| answered in time a second | {good:,.0f} |",
        f"| of capacity | {good / capacity:.0%} |",
        f"| accepted: p50, p99, slowest ms | {_three(total.good_ms)} |",
        f"| refused (503, 429) | {len(total.shed_ms):,} |",
        f"| refused: p50, p99, slowest ms | {_three(total.shed_ms)} |",
        f"| no answer within {asked.deadline:g} s | {total.late:,} |",
        f"| other statuses | {total.other:,} |",
        f"| broken connections | {total.broken:,} |",
        f"| {asked.health}: p50, p99, slowest ms | {_three(watch.health_ms)} |",
        f"| {asked.health} not answered with 200 | {watch.health_failed} |",
        f"| PSS before, highest, after MB | {before:.0f}, {max(watch.pss_mb, default=before):.0f}, {after:.0f} |",
        f"| in time again after s | {'not within ' if recovered_s is None else ''}{recovered_s or RECOVERED_WITHIN_S:.1f} |",
        "",
        "| second | answered in time | p99 ms | refused | late | broken |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    step = max(1, len(tallies) // 12)
    for at in range(0, len(tallies) - 1, step):
        tally = tallies[at]
        cells = (at + 1, len(tally.good_ms), f"{percentile(tally.good_ms, 0.99):.1f}", len(tally.shed_ms), tally.late, tally.broken)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


async def _overload(service: Serving, rate: float, asked: argparse.Namespace, tallies: list[Tally]) -> Watch:
    watch = Watch([], [])
    probe = f"GET {asked.health} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()

    async def memory() -> None:
        while True:
            watch.pss_mb.append((await asyncio.to_thread(service.server.memory))[1])
            await asyncio.sleep(1)

    async def health() -> None:
        while True:
            begun = time.perf_counter()
            try:
                status, _ = await asyncio.to_thread(answer_to, service.port, probe, 5.0)
            except OSError:
                status = 0
            watch.health_ms.append((time.perf_counter() - begun) * 1000)
            watch.health_failed += status != 200
            await asyncio.sleep(PROBE_EVERY_S)

    watching = [asyncio.create_task(memory()), asyncio.create_task(health())]
    requests = [exchange.request for exchange in service.asked]
    try:
        await steady(service.port, requests, rate, asked.seconds, asked.deadline, asked.connections, tallies)
    finally:
        for task in watching:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    return watch


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
    parser.add_argument("--health", default="/livez", help="what is asked besides, ten times a second")
    return parser.parse_args(options)

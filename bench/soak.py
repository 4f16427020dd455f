"""A service under a steady load for long: does its memory grow, does it lose descriptors, do its latencies drift?

`python -m bench soak [--minutes 10] [--tool modelport-onnx] [--work W1] [--rate 500]`
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.open_loop import Tally, percentile, steady
from bench.servers import cores, stay_on
from bench.services import Serving, serving
from bench.tools import TOOLS
from bench.works import WORKS

BLOCKS = 20
"""The samples are averaged in so many blocks before a line is laid through them: neighbours in time are not independent."""
T_975 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 10: 2.23, 12: 2.18, 14: 2.14, 16: 2.12, 18: 2.10}
WARM_SHARE = 0.1
"""The first part of the run is not counted: caches fill."""


@dataclass(frozen=True)
class Sample:
    """What a service used at a moment."""

    at_s: float
    rss_mb: float
    pss_mb: float
    descriptors: int
    processes: int


@dataclass(frozen=True)
class Slope:
    """A change for each hour, and how far off it may be (95 %)."""

    per_hour: float
    margin: float

    @property
    def zero(self) -> bool:
        return abs(self.per_hour) <= self.margin

    def __str__(self) -> str:
        return f"{self.per_hour:+.2f} ± {self.margin:.2f} an hour, {'zero is inside' if self.zero else 'NOT ZERO'}"


def run(*options: str) -> str:
    """The table of a soak, minute by minute, and the slopes."""
    asked = _arguments(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tool, work = TOOLS[asked.tool], WORKS[asked.work]
    tallies: list[Tally] = []
    _, load_core = cores() or (None, None)
    with serving(tool, work) as service:
        stay_on(load_core)
        samples = asyncio.run(_soak(service, asked.rate, asked.minutes * 60, asked.deadline, tallies))
    warm = [sample for sample in samples if sample.at_s >= samples[-1].at_s * WARM_SHARE]
    slopes = {
        "RSS, MB": slope([(sample.at_s, sample.rss_mb) for sample in warm]),
        "PSS, MB": slope([(sample.at_s, sample.pss_mb) for sample in warm]),
        "descriptors": slope([(sample.at_s, sample.descriptors) for sample in warm]),
    }
    lines = [
        f"# Soak: {tool.title}, {work.title}",
        "",
        f"`{' '.join(['python -m bench soak', *options])}`",
        "",
        f"{asked.rate:g} requests a second in an open loop for {asked.minutes:g} minutes.",
        "",
        "| minute | answered/s | p50 ms | p99 ms | 503 | other, broken, late, unsent | RSS MB | PSS MB | descriptors | processes |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for minute in range(math.ceil(len(tallies) / 60)):
        some = tallies[minute * 60 : minute * 60 + 60]
        total = Tally()
        for tally in some:
            total.add(tally)
        seen = [sample for sample in samples if minute * 60 <= sample.at_s < minute * 60 + 60] or samples[-1:]
        cells = (
            minute + 1,
            f"{len(total.good_ms) / len(some):,.0f}",
            f"{percentile(total.good_ms, 0.5):.2f}",
            f"{percentile(total.good_ms, 0.99):.2f}",
            len(total.shed_ms),
            total.other + total.broken + total.late + total.unsent,
            f"{seen[-1].rss_mb:.1f}",
            f"{seen[-1].pss_mb:.1f}",
            seen[-1].descriptors,
            seen[-1].processes,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", f"Change after the first {WARM_SHARE:.0%} of the time, with 95 % confidence:", ""]
    lines += [f"- {what}: {found}" for what, found in slopes.items()]
    return "\n".join(lines) + "\n"


def slope(points: Sequence[tuple[float, float]]) -> Slope:
    """The line of least squares through means of blocks of (second, value), for each hour."""
    size = max(1, math.ceil(len(points) / BLOCKS))
    blocks = [points[at : at + size] for at in range(0, len(points), size)]
    x = [statistics.fmean(second for second, _ in block) / 3600 for block in blocks]
    y = [statistics.fmean(value for _, value in block) for block in blocks]
    freedom = len(blocks) - 2
    if freedom < 1:
        return Slope(0.0, math.inf)
    line = statistics.linear_regression(x, y)
    rest = sum((b - line.intercept - line.slope * a) ** 2 for a, b in zip(x, y, strict=True))
    spread = sum((a - statistics.fmean(x)) ** 2 for a in x)
    t = T_975[max(known for known in T_975 if known <= freedom)]
    return Slope(line.slope, t * math.sqrt(rest / freedom / spread))


async def _soak(service: Serving, rate: float, seconds: float, deadline_s: float, tallies: list[Tally]) -> list[Sample]:
    samples: list[Sample] = []
    begun = time.perf_counter()

    async def watch() -> None:
        while True:
            samples.append(await asyncio.to_thread(_sample, service, begun))
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    try:
        await steady(service.port, [exchange.request for exchange in service.asked], rate, seconds, deadline_s, 256, tallies)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    return samples


def _sample(service: Serving, begun: float) -> Sample:
    rss, pss = service.server.memory()
    return Sample(time.perf_counter() - begun, rss, pss, service.server.descriptors(), len(service.server.pids()))


def _arguments(options: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--tool", choices=TOOLS, default="modelport-onnx")
    parser.add_argument("--work", choices=WORKS, default="W1")
    parser.add_argument("--rate", type=float, default=500, help="requests a second")
    parser.add_argument("--deadline", type=float, default=5, help="seconds a caller waits")
    return parser.parse_args(options)

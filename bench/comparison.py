"""Modelport beside other model servers: the same model files, the same load, interleaved rounds, a core for the server, one for the load.

`python -m bench comparison [--only TOOL,...] [--work W1,...] [--rounds 3] [--seconds 5]`
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import plot
from bench.environments import LIBRARIES, ROOT, InstallError, environment, installed_mb, versions
from bench.load import drive
from bench.servers import ServerError, busy_s, cores, own_s, pinned
from bench.services import MODELS, make_models, one_thread, serving
from bench.tools import LIMITS, TOOLS, Tool
from bench.works import WORKS, Work

WARM_S = 1
BASE = "fastapi-numpy"
"""The tool that ratios are to."""
BUSY = " That is much: run it again on a quiet machine before you quote a number."


@dataclass(frozen=True)
class Row:
    """One run of wrk."""

    tool: str
    work: str
    connections: int
    round: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    bad_status: int
    socket_errors: int
    server_us: float
    """Processor time of the server for one request: what a busy machine changes least."""
    others_cores: float
    """Processor time that neither the server nor the load took, in cores: how much the machine was shared."""
    rss_mb: float
    pss_mb: float
    start_s: float


def run(*options: str) -> dict[str, str]:
    """The files of results: tables, raw rows, plot."""
    asked = _arguments(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exit passes through every `finally`, a signal does not
    tools, works = _named(TOOLS, asked.only), _named(WORKS, asked.work)
    envs, failed = _install(tools)
    rows: list[Row] = []
    for number in range(1, asked.rounds + 1):
        for work in works:
            turn = (number - 1) % len(tools)
            for tool in tools[turn:] + tools[:turn]:
                why = f"{tool.name} {work.name}"
                if work.name not in tool.works or tool.name in failed or why in failed:
                    continue
                try:
                    rows += _measure(tool, work, number, asked.seconds)
                except (InstallError, ServerError, RuntimeError, OSError, subprocess.SubprocessError) as error:
                    failed[why] = str(error)
                    print(f"{why}: {error}", file=sys.stderr, flush=True)
    found = {
        "command": " ".join(["python -m bench comparison", *options]),
        "seconds": asked.seconds,
        "rounds": asked.rounds,
        "machine": {"cores": os.cpu_count(), "pinned": cores(), "python": platform.python_version(), "processor": _processor()},
        "failed": failed,
        "versions": {name: versions(env) for name, env in envs.items()},
        "installed_mb": _sizes(envs),
        "limits": _limits(),
        "rows": [asdict(row) for row in rows],
    }
    report = Report(found, [tool for tool in tools if tool.name not in failed], works)
    return {
        "comparison.md": report.text(),
        "comparison.json": json.dumps(found, indent=1) + "\n",
        "comparison.svg": plot.bars(report.panels()),
    }


def _arguments(options: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench comparison", description=__doc__)
    parser.add_argument("--only", default="", help="tools, by the beginning of their names: modelport,fastapi")
    parser.add_argument("--work", default="", help=f"of {', '.join(WORKS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each run of wrk")
    return parser.parse_args(options)


def _named(known: dict[str, Any], asked: str) -> list[Any]:
    words = [word for word in asked.split(",") if word]
    for word in words:
        if not any(name.startswith(word) for name in known):
            sys.exit(f"there is no {word!r}: {', '.join(known)}")
    return [one for name, one in known.items() if not words or any(name.startswith(word) for word in words)]


def _install(tools: Iterable[Tool]) -> tuple[dict[str, Path], dict[str, str]]:
    envs, failed = {}, {}
    for tool in tools:
        try:
            envs[tool.name] = environment(tool.name, tool.requirements)
        except InstallError as error:
            failed[tool.name] = f"not installed: {error}"
            print(f"{tool.name}: {failed[tool.name]}", file=sys.stderr, flush=True)
    return envs, failed


def _measure(tool: Tool, work: Work, number: int, seconds: int) -> list[Row]:
    """One life of a service: started, checked, warmed, driven at each number of connections."""
    _, load_core = cores() or (None, None)
    found = []
    with serving(tool, work) as service:
        server = service.server
        drive(service.port, service.asked, work.connections[0], WARM_S, service.folder, load_core)
        for connections in work.connections:
            machine, own, mine = busy_s(), server.processor_s(), own_s()
            seen = drive(service.port, service.asked, connections, seconds, service.folder, load_core)
            own, mine, machine = server.processor_s() - own, own_s() - mine, busy_s() - machine
            rss, pss = server.memory()
            row = Row(
                tool=tool.name,
                work=work.name,
                connections=connections,
                round=number,
                **asdict(seen),
                server_us=1e6 * own / max(1.0, seen.requests_per_s * seconds),
                others_cores=max(0.0, (machine - own - mine) / seconds),
                rss_mb=rss,
                pss_mb=pss,
                start_s=server.start_s,
            )
            found.append(row)
            print(
                f"{number} {work.name} {connections:>3} connections  {tool.name:<17} {row.requests_per_s:>9,.0f}/s"
                f"  p50 {row.p50_ms:>8.2f} ms  p99 {row.p99_ms:>8.2f} ms  {row.server_us:>7.0f} us of processor"
                f"  (others: {row.others_cores:.1f} cores)",
                file=sys.stderr,
                flush=True,
            )
    return found


def _limits() -> dict[str, Any]:
    """Bare calls, in microseconds; {} with the reason on stderr where they cannot be had."""
    server_core, _ = cores() or (None, None)
    try:
        make_models()
        env = environment("limit-http", LIMITS)
        words = pinned([env / "bin" / "python", Path(__file__).parent / "limits.py", "calls", MODELS], server_core)
        done = subprocess.run(words, env=one_thread(), capture_output=True, text=True, timeout=300, check=True)
    except (InstallError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"limits: {error}", file=sys.stderr)
        return {}
    return dict(json.loads(done.stdout))


def _sizes(envs: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Of each environment: all of it, and what it has beside the libraries of the models."""
    library = versions(environment("library", LIBRARIES))
    without = [*library, "xgboost", "nvidia-nccl-cu12"]
    return {name: {"all": round(installed_mb(env), 1), "own": round(installed_mb(env, without), 1)} for name, env in envs.items()}


def _processor() -> str:
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


@dataclass(frozen=True)
class Report:
    """The tables of what was found."""

    found: dict[str, Any]
    tools: list[Tool]
    works: list[Work]

    def median(self, what: str, tool: str, work: str, connections: int) -> float | None:
        """Over the rounds; None where there is no row."""
        values = [row[what] for row in self._rows(tool, work, connections)]
        return statistics.median(values) if values else None

    def text(self) -> str:
        found = self.found
        one, other = found["machine"]["pinned"] or (None, None)
        where = f"server on core {one}, load on core {other}" if one is not None else "server and load on the same core"
        others = max((row["others_cores"] for row in found["rows"]), default=0.0)
        lines = [
            "# Modelport beside other model servers",
            "",
            f"`{found['command']}`",
            "",
            f"Medians of {found['rounds']} interleaved rounds; wrk with one thread, {found['seconds']} s a run; {where};",
            f"Python {found['machine']['python']}, {found['machine']['processor']}, {found['machine']['cores']} cores.",
            "Absolute figures depend on the machine; the ratios are what counts. Every tool serves the same model files in its own format,",
            "set up as its documentation says, and its answers were compared with the model's own before it was timed.",
            "Batching by a timer (LitServe, Ray Serve, MLServer where its row says so) is on as their guides advise for load;",
            "at one connection its wait is part of the latency.",
            "",
            f"Other programs took at most {others:.2f} cores during a run." + (BUSY if others > 0.25 else ""),
            "",
            *(line for work in self.works for line in self._work(work)),
            *self._advantages(),
            *self._goals(),
            *self._footprint(),
            *self._limits(),
            *self._failures(),
            *self._versions(),
        ]
        return "\n".join(lines) + "\n"

    def panels(self) -> list[plot.Panel]:
        """One panel a work, at its first number of connections."""
        made = []
        for work in self.works:
            bars = []
            for tool in self.tools:
                value = self.median("requests_per_s", tool.name, work.name, work.connections[0])
                if value:
                    bars.append(plot.Bar(tool.title, value, tool.name.startswith("modelport"), not tool.answers))
            if bars:
                made.append(plot.Panel(f"{work.name}: {work.title}, {work.connections[0]} connections", bars))
        return made

    def _rows(self, tool: str, work: str, connections: int) -> list[dict[str, Any]]:
        return [row for row in self.found["rows"] if (row["tool"], row["work"], row["connections"]) == (tool, work, connections)]

    def _work(self, work: Work) -> list[str]:
        lines = [f"## {work.name}: {work.title}", ""]
        for connections in work.connections:
            base = self.median("requests_per_s", BASE, work.name, connections)
            lines += [
                f"{connections} connection{'s' if connections > 1 else ''}:",
                "",
                "| | requests/s | times FastAPI well written | p50 ms | p99 ms | processor us a request | errors |",
                "|---|---:|---:|---:|---:|---:|---:|",
            ]
            measured = [(self.median("requests_per_s", tool.name, work.name, connections), tool) for tool in self.tools]
            for value, tool in sorted(((value, tool) for value, tool in measured if value is not None), key=lambda pair: -pair[0]):
                rows = self._rows(tool.name, work.name, connections)
                errors = sum(row["bad_status"] + row["socket_errors"] for row in rows)
                p50, p99, cost = (self.median(what, tool.name, work.name, connections) or 0 for what in ("p50_ms", "p99_ms", "server_us"))
                ratio = f"{value / base:.2f}" if base else ""
                lines.append(f"| {tool.title} | {value:,.0f} | {ratio} | {p50:.2f} | {p99:.2f} | {cost:,.0f} | {errors} |")
            lines.append("")
        return lines

    def _advantages(self) -> list[str]:
        """How many times the requests of each other tool Modelport answers."""
        own = [tool for tool in self.tools if tool.name.startswith("modelport")]
        others = [tool for tool in self.tools if tool.answers and tool not in own]
        columns = [
            (tool, work, connections)
            for work in self.works
            for connections in work.connections
            for tool in own
            if self.median("requests_per_s", tool.name, work.name, connections)
        ]
        if not columns or not others:
            return []
        heads = [f"{work.name}, {connections}: {tool.name.removeprefix('modelport-')}" for tool, work, connections in columns]
        lines = [
            "## Requests of Modelport for one of the other",
            "",
            "Work, connections, and whether Modelport has the model as ONNX or as it came.",
            "",
            f"| | {' | '.join(heads)} |",
            f"|---|{'---:|' * len(heads)}",
        ]
        for other in others:
            cells = []
            for tool, work, connections in columns:
                theirs = self.median("requests_per_s", other.name, work.name, connections)
                ours = self.median("requests_per_s", tool.name, work.name, connections)
                cells.append(f"{ours / theirs:.1f}" if ours and theirs else "")
            lines.append(f"| {other.title} | {' | '.join(cells)} |")
        return [*lines, ""]

    def _goals(self) -> list[str]:
        """The project's own aims, each with what was measured."""
        aims: list[tuple[str, float, float]] = []

        def aim(what: str, ours: float | None, theirs: float | None, least: float) -> None:
            if ours is not None and theirs:
                aims.append((what, ours / theirs, least))

        def rate(tool: str, work: str, connections: int) -> float | None:
            return self.median("requests_per_s", tool, work, connections)

        onnx, native, titles = "modelport-onnx", "modelport-native", {name: tool.title for name, tool in TOOLS.items()}
        for other, least in ((BASE, 12), ("mlserver", 20), ("fastapi-tutorial", 30), ("litserve", 30), ("bentoml", 30), ("mlflow", 30)):
            aim(f"W1, 32 connections, ONNX: times {titles[other]}", rate(onnx, "W1", 32), rate(other, "W1", 32), least)
        aim(f"W1, 32 connections, as it came: times {titles[BASE]}", rate(native, "W1", 32), rate(BASE, "W1", 32), 8)
        aim(f"W2, 32 connections, ONNX: times {titles[BASE]}", rate(onnx, "W2", 32), rate(BASE, "W2", 32), 15)
        aim(f"W2, 32 connections, as it came: times {titles[BASE]}", rate(native, "W2", 32), rate(BASE, "W2", 32), 8)
        rates = [(rate(tool.name, "W3", 4) or 0.0, tool) for tool in self.tools]
        best = max((value for value, tool in rates if tool.name.startswith("modelport")), default=0.0)
        rival = max((value for value, tool in rates if not tool.name.startswith("modelport")), default=0.0)
        aim("W3: times the next best tool", best or None, rival, 1)
        whole = [value for name, value in self.found["limits"].get("W3", {}).items() if name.endswith("all three")]
        aim("W3: of decode + call + encode (1 / 1.5)", best or None, 1e6 / min(whole) if whole else None, 1 / 1.5)
        p50 = self.median("p50_ms", onnx, "W1", 1)
        aim("W1, 1 connection: the tutorial's p50 over Modelport's", self.median("p50_ms", "fastapi-tutorial", "W1", 1), p50, 4)
        batch_us = self.found["limits"].get("W4", {}).get("native", {}).get("32")
        aim("W4: three batch times over p99", 3 * batch_us / 1000 if batch_us else None, self.median("p99_ms", native, "W4", 64), 1)
        if not aims:
            return []
        lines = ["## Aims", "", "| | measured | at least | |", "|---|---:|---:|---|"]
        for what, got, least in aims:
            lines.append(f"| {what} | {got:.2f} | {least:.2f} | {'yes' if got >= least else 'no'} |")
        return [*lines, ""]

    def _footprint(self) -> list[str]:
        lines = [
            "## Memory, start, size",
            "",
            "Memory after the load, of all processes (PSS counts shared pages once). Start: from the command to the first answer.",
            "Installed: all of the environment, and without what the models' libraries bring (numpy, scipy, scikit-learn, pandas, ...).",
            "",
            "| | RSS MB | PSS MB | start s | installed MB | without the models' libraries MB |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for tool in self.tools:
            rows = [row for row in self.found["rows"] if row["tool"] == tool.name]
            first = [row for row in rows if rows and row["work"] == rows[0]["work"]]
            if first and tool.answers:
                rss, pss, start = (statistics.median(row[what] for row in first) for what in ("rss_mb", "pss_mb", "start_s"))
                size = self.found["installed_mb"][tool.name]
                lines.append(f"| {tool.title} | {rss:.0f} | {pss:.0f} | {start:.2f} | {size['all']:.0f} | {size['own']:.0f} |")
        return [*lines, ""]

    def _limits(self) -> list[str]:
        calls = self.found["limits"]
        if not calls:
            return []
        lines = ["## Limits", "", "Bare calls of the model on one core, microseconds of processor time.", ""]
        lines += ["| | 1 row | 32 rows | 1,000 rows |", "|---|---:|---:|---:|"]
        for work, title in (("W1", "iris SVC"), ("W2", "shipping XGBoost"), ("W4", "the model of 5 ms")):
            for engine, times in calls[work].items():
                name = "ONNX Runtime" if engine == "onnx" else "its own library"
                lines.append(f"| {title}, {name} | {times['1']:,.0f} | {times['32']:,.0f} | {times['1000']:,.0f} |")
        parts = ", ".join(f"{name} {value:,.0f}" for name, value in calls["W3"].items())
        return [*lines, "", f"W3, one request of 1,000 rows, microseconds: {parts}. Decoded and encoded with msgspec.", ""]

    def _failures(self) -> list[str]:
        if not self.found["failed"]:
            return []
        lines = ["## What did not run", "", "| | why |", "|---|---|"]
        for name, why in self.found["failed"].items():
            lines.append(f"| {name} | {why.replace('|', '/').replace(str(ROOT), '.')} |")
        return [*lines, ""]

    def _versions(self) -> list[str]:
        lines = ["## Versions", "", "| | |", "|---|---|"]
        for tool in self.tools:
            installed = self.found["versions"][tool.name]
            shown = ", ".join(f"{name} {installed[name.lower()]}" for name in tool.shown if name.lower() in installed)
            lines.append(f"| {tool.title} | {shown} |")
        wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout.partition("[")[0].strip()
        return [*lines, f"| all | {', '.join(LIBRARIES)} |", f"| load | {wrk} |", ""]

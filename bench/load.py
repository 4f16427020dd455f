"""Drives a service with wrk: a closed loop of connections that send the same fixed requests in turn."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.servers import pinned
from bench.works import Exchange

SCRIPT = """\
local requests, turn = {}, 0
function init(args)
  local headers = { ["Content-Type"] = "%s" }
  for i = 1, %d do
    local file = assert(io.open("%s/load-" .. i .. ".body", "rb"))
    requests[i] = wrk.format("POST", "%s", headers, file:read("*a"))
    file:close()
  end
end
function request()
  turn = turn %% #requests + 1
  return requests[turn]
end
function done(summary, latency, all)
  local errors = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests": %%d, "microseconds": %%d, "p50_ms": %%.4f, "p99_ms": %%.4f, "max_ms": %%.4f, '
      .. '"connect": %%d, "read": %%d, "write": %%d, "timeout": %%d, "status": %%d}\\n',
    summary.requests, summary.duration, latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000,
    errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
"""


@dataclass(frozen=True)
class Measured:
    """What one run of wrk saw. `requests_per_s` counts good answers only; `bad_status` and `socket_errors` are the others."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    bad_status: int
    socket_errors: int


def drive(port: int, asked: Sequence[Exchange], connections: int, seconds: int, folder: Path, core: int | None) -> Measured:
    """One run of wrk with one thread. RuntimeError when wrk itself fails."""
    if not shutil.which("wrk"):
        raise RuntimeError("wrk is not installed: apt-get install wrk")
    script = folder / "load.lua"
    for number, exchange in enumerate(asked, 1):
        (folder / f"load-{number}.body").write_bytes(exchange.body)
    script.write_text(SCRIPT % (asked[0].content_type, len(asked), folder, asked[0].path))
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script, f"http://127.0.0.1:{port}"]
    done = subprocess.run(pinned(words, core), capture_output=True, text=True, timeout=seconds + 60, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise RuntimeError(f"wrk ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
    seen = json.loads(lines[0].removeprefix("RESULT "))
    good = seen["requests"] - seen["status"]
    return Measured(
        requests_per_s=good / (seen["microseconds"] / 1e6),
        p50_ms=seen["p50_ms"],
        p99_ms=seen["p99_ms"],
        max_ms=seen["max_ms"],
        bad_status=seen["status"],
        socket_errors=seen["connect"] + seen["read"] + seen["write"] + seen["timeout"],
    )

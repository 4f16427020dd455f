"""What the fast path costs: the same requests to a bare protocol, to Modelport by its fast path and by the ordinary way, on one core.

The bare protocol is asyncio with httptools and uvloop that answers every request with the same bytes: no model, no limits, no key, no ids.
Modelport has all of its features on: the schema, a key, limits, deadlines, request ids, the access log (sampled).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROUNDS, SECONDS = 3, 3
SERVER_CORE, LOAD_CORE = 0, 1
KEY = "a-key-of-the-benchmark"
FLOWER = b'{"sepal_length":5.1,"sepal_width":3.5,"petal_length":1.4,"petal_width":0.2}'
FIXED = b'{"prediction":"setosa"}'
SERVERS = {
    "bare": "bare protocol, fixed answer",
    "nothing": "Modelport, a model that does nothing",
    "onnx": "Modelport, W1 as ONNX",
    "native": "Modelport, W1 as scikit-learn's SVC",
    "ordinary": "Modelport, W1 as ONNX, the ordinary way",
}
ROOT = Path(__file__).parent.parent


def run(*options: str) -> str:
    """The table. Options: the servers to measure."""
    chosen = {name: label for name, label in SERVERS.items() if name in options or not options}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__, "models", folder], check=True, cwd=ROOT)
        seen: dict[str, list[tuple[float, ...]]] = {name: [] for name in chosen}
        for _ in range(ROUNDS):
            for name in chosen:
                with _served(name, Path(folder)) as (port, pid):
                    _drive(port, 32, Path(folder), 1)
                    before = _processor_s(pid)
                    requests, rate, _, p99 = _drive(port, 32, Path(folder), SECONDS)
                    each = (_processor_s(pid) - before) / requests * 1e6
                    _, _, p50, _ = _drive(port, 1, Path(folder), SECONDS)
                    seen[name].append((rate, each, p99, p50))
    middle = {name: [statistics.median(values) for values in zip(*runs, strict=True)] for name, runs in seen.items()}
    base = middle.get("bare", next(iter(middle.values())))[1]
    lines = [
        "# The fast path",
        "",
        f"`python -m bench fastpath`: the server on core {SERVER_CORE}, wrk on core {LOAD_CORE};",
        f"the median of {ROUNDS} interleaved rounds of {SECONDS} s.",
        "Processor time tells what a request costs also where other programs take part of the core; the share is by it.",
        "",
        "| server | 32 connections, requests/s | processor us each | of the bare protocol's speed | p99 ms | 1 connection, p50 ms |",
        "|---|---|---|---|---|---|",
    ]
    for name, (rate, each, p99, p50) in middle.items():
        lines.append(f"| {chosen[name]} | {rate:,.0f} | {each:.1f} | {base / each:.0%} | {p99:.2f} | {p50:.3f} |")
    if {"nothing", "onnx"} <= middle.keys():
        share = middle["nothing"][1] / middle["onnx"][1]
        lines += [
            "",
            f"With W1 as ONNX the same protocol gives {share:.0%} of what it gives with a model that does nothing; the aim is half of it.",
        ]
    return "\n".join(lines) + "\n"


def _processor_s(pid: int) -> float:
    ticks = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _drive(port: int, connections: int, folder: Path, seconds: int) -> tuple[int, float, float, float]:
    """Requests; requests a second; p50 and p99 in ms."""
    script = folder / "load.lua"
    script.write_text(
        f'wrk.method, wrk.body = "POST", [==[{FLOWER.decode()}]==]\n'
        f'wrk.headers["Content-Type"], wrk.headers["Authorization"] = "application/json", "Bearer {KEY}"\n'
        "function done(summary, latency, all)\n"
        "  local e = summary.errors\n"
        "  io.write(string.format('RESULT %d %d %.4f %.4f %d\\n', summary.requests, summary.duration, latency:percentile(50) / 1000,\n"
        "    latency:percentile(99) / 1000, e.connect + e.read + e.write + e.timeout + e.status))\n"
        "end\n"
    )
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "-s", str(script), f"http://127.0.0.1:{port}/predict"]
    done = subprocess.run(["taskset", "-c", str(LOAD_CORE), *words], check=True, capture_output=True, text=True)
    _, requests, microseconds, p50, p99, errors = next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).split()
    if int(errors):
        raise RuntimeError(f"{errors} requests went wrong:\n{done.stdout}")
    return int(requests), int(requests) / int(microseconds) * 1e6, float(p50), float(p99)


@contextlib.contextmanager
def _served(name: str, folder: Path) -> Iterator[tuple[int, int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["taskset", "-c", str(SERVER_CORE), sys.executable, __file__, name, str(folder), str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(words, cwd=ROOT, stdout=log)
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None:
                raise RuntimeError(f"the server {name} ended with {process.returncode}")
            time.sleep(0.05)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


# In the processes that are measured


def _make_models(folder: Path) -> None:
    """W1: a linear SVC of Fisher's irises, as joblib and as ONNX with its label alone."""
    import joblib
    import onnx
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.datasets import load_iris
    from sklearn.svm import SVC

    from modelport.packing import Options, pack_file

    data = load_iris(as_frame=True)
    frame = data.data.set_axis(["sepal_length", "sepal_width", "petal_length", "petal_width"], axis=1)
    model = SVC(kernel="linear").fit(frame, data.target.map(dict(enumerate(data.target_names))).astype(object))
    frame.to_csv(folder / "sample.csv", index=False)
    joblib.dump(model, folder / "iris.joblib")
    graph = convert_sklearn(model, initial_types=[("rows", FloatTensorType([None, 4]))], options={id(model): {"zipmap": False}})
    del graph.graph.output[1:]
    graph.graph.output[0].name, before = "prediction", graph.graph.output[0].name
    for node in graph.graph.node:
        node.output[:] = ["prediction" if name == before else name for name in node.output]
    onnx.save(graph, folder / "iris.onnx")
    frame.set_axis(["x0", "x1", "x2", "x3"], axis=1).to_csv(folder / "x.csv", index=False)
    for file, sample in (("iris.joblib", "sample.csv"), ("iris.onnx", "x.csv")):
        out = folder / file.replace(".", "-")
        out.mkdir()
        pack_file(folder / file, out, Options(name="iris", sample=folder / sample, trust=True, onnx="off"))


def _serve(name: str, folder: Path, port: int) -> None:
    from dataclasses import replace

    import numpy as np
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    from modelport import engines
    from modelport.bundle import open_bundle
    from modelport.serving import server
    from modelport.serving.app import create_app
    from modelport.serving.logs import Log
    from modelport.serving.service import Service
    from modelport.serving.settings import Settings, keys_of
    from modelport.signature import Field, Signature

    bundle = open_bundle(folder / ("iris-joblib" if name == "native" else "iris-onnx"))
    engine = engines.load(bundle)
    names = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    inputs = tuple(Field(new, "number", dtype=old.dtype) for new, old in zip(names, engine.signature.inputs, strict=True))
    outputs = (Field("prediction", "string"),) if name == "nothing" else engine.signature.outputs
    engine = replace(engine, signature=Signature(inputs, outputs))
    if name == "nothing":
        answers = {"prediction": np.array(["setosa"] * 100_000, dtype=object)}

        class Nothing:
            def predict(self, model: Any, columns: Any, signature: Any) -> Any:
                rows = len(columns["sepal_length"])
                return {"prediction": answers["prediction"][:rows]}

        described = Signature(engine.described.inputs, outputs)
        engine = replace(engine, framework=Nothing(), described=described)  # type: ignore[arg-type]
    service = Service("iris", "1", bundle, engine)
    service.examples = [dict(zip(names, (5.1, 3.5, 1.4, 0.2), strict=True))]
    settings = Settings(port=port, keys=keys_of(KEY))
    service.golden_rows = 0
    service.measure()
    listener = server.bind("127.0.0.1", port)
    app = create_app([service], settings, Log())
    running = server.Server(app, settings, HttpToolsProtocol if name == "ordinary" else None)
    import gc

    gc.collect()
    gc.freeze()
    running.run([listener])


def _serve_bare(port: int) -> None:
    import httptools
    import uvloop

    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(FIXED), FIXED)

    class Bare(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport, self.parser = transport, httptools.HttpRequestParser(self)

        def data_received(self, data: bytes) -> None:
            self.parser.feed_data(data)

        def on_message_complete(self) -> None:
            self.transport.write(answer)

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", port)
        await server.serve_forever()

    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    uvloop.run(main())


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    if what == "models":
        _make_models(Path(where))
    elif what == "bare":
        _serve_bare(int(rest[0]))
    else:
        _serve(what, Path(where), int(rest[0]))

"""What no service can pass: a bare HTTP answer, bare model calls, and decode + call + encode. It runs in an environment of its own.

`python limits.py serve PORT` answers every request with the same bytes; `python limits.py calls MODELS` prints times as JSON.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

BODY = b'{"prediction":"setosa"}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
MEASURE_S, CHUNKS = 0.6, 15


class Constant(asyncio.Protocol):
    """Parses requests with httptools and answers each with ANSWER: the price of HTTP alone."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        import httptools

        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        pass

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.body = b""
        self.transport.write(ANSWER)  # type: ignore[attr-defined]


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Constant, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


def calls(models: Path) -> dict[str, Any]:
    """Microseconds of one call, by work, engine and number of rows; and of W3's three parts."""
    import joblib
    import numpy as np

    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    times: dict[str, Any] = {}
    svc = joblib.load(models / "iris" / "iris.joblib")
    booster = pickle.loads((models / "shipping" / "shipping.pkl").read_bytes()).get_booster()
    booster.set_param({"nthread": 1})
    booster.feature_names = None
    slow = joblib.load(models / "slow" / "iris.joblib")
    natives: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "W1": ("iris", svc.predict),
        "W2": ("shipping", booster.inplace_predict),
        "W4": ("slow", slow.predict),
    }
    for work, (model, predict) in natives.items():
        rows = json.loads((models / model / "rows.json").read_text())["single"]["rows"]
        for count in (1, 32, 1000):
            matrix = np.array((rows * 20)[:count])
            times.setdefault(work, {}).setdefault("native", {})[str(count)] = _microseconds(lambda m=matrix, p=predict: p(m))
    for work, model in (("W1", "iris"), ("W2", "shipping")):
        session, named = _session(models / model / f"{model}.onnx")
        rows = json.loads((models / model / "rows.json").read_text())["single"]["rows"]
        for count in (1, 32, 1000):
            feed = named(np.array((rows * 20)[:count], dtype=np.float32))
            times[work].setdefault("onnx", {})[str(count)] = _microseconds(lambda f=feed, s=session: s.run(None, f))
    times["W3"] = _whole_batch(models, booster)
    return times


def _whole_batch(models: Path, booster: Any) -> dict[str, float]:
    import msgspec
    import numpy as np

    stored = json.loads((models / "shipping" / "rows.json").read_text())
    columns, rows = stored["columns"], stored["batches"][0]["rows"]
    body = json.dumps([dict(zip(columns, row, strict=True)) for row in rows], separators=(",", ":")).encode()
    order = msgspec.defstruct("Order", [(name, float) for name in columns], gc=False)
    answer = msgspec.defstruct("Answer", [("prediction", float)], gc=False)
    decoder, encoder, values = msgspec.json.Decoder(list[order]), msgspec.json.Encoder(), attrgetter(*columns)  # type: ignore[valid-type]
    session, named = _session(models / "shipping" / "shipping.onnx")

    def decode() -> Any:
        return np.array([values(one) for one in decoder.decode(body)])

    def encode(prices: Any) -> bytes:
        return encoder.encode([answer(price) for price in prices.tolist()])

    def onnx(matrix: Any) -> Any:
        return session.run(None, named(matrix.astype(np.float32)))[0].ravel()

    matrix = decode()
    prices = booster.inplace_predict(matrix)
    return {
        "decode": _microseconds(decode),
        "native call": _microseconds(lambda: booster.inplace_predict(matrix)),
        "onnx call": _microseconds(lambda: onnx(matrix)),
        "encode": _microseconds(lambda: encode(prices)),
        "native, all three": _microseconds(lambda: encode(booster.inplace_predict(decode()))),
        "onnx, all three": _microseconds(lambda: encode(onnx(decode()))),
    }


def _session(path: Path) -> tuple[Any, Callable[[Any], dict[str, Any]]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return session, lambda matrix: {name: matrix[:, [position]] for position, name in enumerate(names)}


def _microseconds(call: Callable[[], Any]) -> float:
    """The median over chunks of calls, of processor time: what others do on the machine counts little."""
    call()
    begun = time.thread_time()
    call()
    chunk = max(1, int(MEASURE_S / CHUNKS / max(time.thread_time() - begun, 1e-6)))
    taken = []
    for _ in range(CHUNKS):
        begun = time.thread_time()
        for _ in range(chunk):
            call()
        taken.append((time.thread_time() - begun) / chunk)
    return round(statistics.median(taken) * 1e6, 2)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        import uvloop

        uvloop.run(serve(int(sys.argv[2])))
    else:
        print(json.dumps(calls(Path(sys.argv[2]))))

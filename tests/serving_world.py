"""Services for the tests of the HTTP contract: small bundles, models that are functions, and real servers on loopback sockets."""

from __future__ import annotations

import io
import json
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from modelport import bundle as bundles
from modelport.engines import Engine
from modelport.frameworks import Card
from modelport.serving.app import Application, create_app
from modelport.serving.listener import bind
from modelport.serving.logs import Log
from modelport.serving.server import Server
from modelport.serving.service import Service
from modelport.serving.settings import Settings
from modelport.signature import Columns, Field, Signature

CLASSES = ("setosa", "versicolor", "virginica")
IRIS = Signature(
    inputs=tuple(
        Field(name, "number", example=value)
        for name, value in zip(("sepal_length", "sepal_width", "petal_length", "petal_width"), (5.1, 3.5, 1.4, 0.2), strict=True)
    ),
    outputs=(Field("prediction", "category", choices=CLASSES), Field("probabilities", "number", shape=(3,), choices=CLASSES)),
)
FLOWER = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}

EVERY_KIND = Signature(
    inputs=(
        Field("a number", "number", nullable=True, example=1.5),
        Field("class", "integer", minimum=-5, maximum=1000, example=3),
        Field("is.it", "boolean", example=True),
        Field("näme", "string", example="Łódź"),
        Field("color", "category", choices=("red", "green", "blue"), nullable=True, example="red"),
        Field("size", "category", choices=(1, 2, 3), example=2),
        Field("notes", "text", nullable=True, example="words"),
        Field("vector", "tensor", dtype="float32", shape=(2, 2), example=[[1.0, 2.0], [3.0, 4.0]]),
        Field("any", "json", example={"a": [1]}),
    ),
    outputs=(Field("rows", "integer"), Field("echo", "json"), Field("maybe", "number", nullable=True)),
)


@dataclass
class Calls:
    """A framework whose model is a function from columns to columns."""

    def predict(self, model: Callable[[Columns], Columns], columns: Columns, signature: Signature) -> Columns:
        return model(columns)


def by_petal(columns: Columns) -> Columns:
    """Three species by the length of the petal, without any library; right for every finite number."""
    kind = np.digitize(columns["petal_length"], (2.5, 4.8))
    return {"prediction": np.array(CLASSES, dtype=object)[kind], "probabilities": np.where(np.eye(3)[kind] > 0, 0.9, 0.05)}


def counted(columns: Columns) -> Columns:
    """What EVERY_KIND answers: how many rows there are, the text back, and a number that may be missing."""
    rows = len(columns["class"])
    return {"rows": np.full(rows, rows), "echo": columns["näme"], "maybe": columns["a number"]}


def make_service(
    model: Callable[[Columns], Columns] = by_petal,
    signature: Signature = IRIS,
    *,
    name: str = "iris",
    version: str = "3",
    golden: bool = True,
    warm: bool = True,
    **about: Any,
) -> Service:
    """A service of a function, with a bundle around it; its golden rows are what the function answers now."""
    folder = Path(tempfile.mkdtemp(prefix="modelport-test-"))
    (folder / "model").mkdir()
    (folder / "model" / "model.bin").write_bytes(b"a function")
    examples = [signature.example()]
    (folder / "example.json").write_text(json.dumps(examples))
    engine = Engine(Calls(), model, signature, signature)
    if golden:
        rows = [{"input": row, "output": output} for row, output in zip(examples, engine.answer(examples), strict=True)]
        (folder / "golden.json").write_text(json.dumps({"tolerance": 1e-6, "rows": rows}))
    card = Card(framework="tests", cls="tests.Function", library="modelport")
    bundle = bundles.write(folder, name=name, card=card, signature=signature, model="model/model.bin", python="3.11", **about)
    service = Service(name, version, bundle, engine)
    if warm:
        service.warm_up()
    return service


class Sink(io.StringIO):
    """Where a service's log goes in a test."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log(self)

    def entries(self) -> list[dict[str, Any]]:
        assert self.log.flush(30)
        return [json.loads(line) for line in self.getvalue().splitlines()]


@dataclass
class Live:
    """A service that listens."""

    url: str
    port: int
    log: Sink
    app: Application

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False, **options)

    def raw(self, request: bytes) -> bytes:
        """What the service sends back to bytes that need not be HTTP, until it closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@contextmanager
def live(services: Service | Sequence[Service], log: Log | None = None, **settings: Any) -> Iterator[Live]:
    """A real server in a thread, on a free port of this machine; it logs to `Live.log` unless told otherwise."""
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    chosen = Settings(**settings)
    sink = Sink()
    app = create_app([services] if isinstance(services, Service) else services, chosen, log or sink.log)
    server = Server(app, chosen)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield Live(f"http://127.0.0.1:{port}", port, sink, app)
    finally:
        server.should_exit = True
        thread.join()
        app.telemetry.close()

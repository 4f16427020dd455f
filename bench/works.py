"""What is asked of every service: the works, the requests of each wire format, and the check of the answers."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOLERANCE = 1e-5
"""Of a number, relative: ONNX computes in single precision. Labels must be the same."""


@dataclass(frozen=True)
class Work:
    """A model, the rows of one request, and the numbers of connections to ask over."""

    name: str
    title: str
    model: str
    """The folder of its files below models/."""
    service: str
    """The name of the service file that serves it."""
    many: bool
    connections: tuple[int, ...]


WORKS = {
    work.name: work
    for work in (
        Work("W1", "iris SVC, one row a request", "iris", "iris", False, (32, 1)),
        Work("W2", "shipping XGBoost (200 trees of depth 6), one row a request", "shipping", "shipping", False, (32, 1)),
        Work("W3", "shipping XGBoost, 1,000 rows of JSON a request", "shipping", "shipping", True, (4,)),
        Work("W4", "a model of 5 ms a call, one row a request", "slow", "iris", False, (64,)),
    )
}
OVERLOAD = Work("rows", "a model of 5 ms a row, one row a request", "slow_rows", "iris", False, (64,))
"""Batching does not help this one, so that its capacity is known and can be passed tenfold."""


@dataclass(frozen=True)
class Exchange:
    """A request as bytes of HTTP/1.1 and of its body alone, with the answers it must get."""

    path: str
    body: bytes
    answers: tuple[Any, ...]
    content_type: str = "application/json"

    @property
    def request(self) -> bytes:
        head = ("Host: 127.0.0.1", f"Content-Type: {self.content_type}", f"Content-Length: {len(self.body)}")
        return "\r\n".join((f"POST {self.path} HTTP/1.1", *head, "", "")).encode() + self.body


@dataclass(frozen=True)
class Wire:
    """How one tool wants rows and gives answers: `encode(columns, rows, many)` and `decode(answer, many)` between lists and JSON."""

    path: str
    many_path: str
    encode: Callable[[Sequence[str], Sequence[Sequence[Any]], bool], Any]
    decode: Callable[[Any, bool], Sequence[Any]]


def _records(columns: Sequence[str], rows: Sequence[Sequence[Any]], many: bool) -> Any:
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    return records if many else records[0]


def _answers(answer: Any, many: bool) -> list[Any]:
    return [record["prediction"] if "prediction" in record else _only(record.values()) for record in (answer if many else [answer])]


def _only(values: Any) -> Any:
    (value,) = values
    return value


def _tensor(columns: Sequence[str], rows: Sequence[Sequence[Any]], many: bool) -> Any:
    flat = [value for row in rows for value in row]
    return {"inputs": [{"name": "predict", "shape": [len(rows), len(columns)], "datatype": "FP64", "data": flat}]}


WIRES = {
    "records": Wire("/predict", "/predict", _records, _answers),
    "records, a path for many": Wire("/predict", "/predict_many", _records, _answers),
    "records at /": Wire("/", "/", _records, _answers),
    "bentoml": Wire("/predict", "/predict", lambda columns, rows, many: {"input_data": rows}, lambda answer, many: answer),
    "litserve": Wire(
        "/predict",
        "/predict",
        lambda columns, rows, many: {"input": rows if many else rows[0]},
        lambda answer, many: answer["output"] if many else [answer["output"]],
    ),
    "open inference": Wire("/v2/models/model/infer", "/v2/models/model/infer", _tensor, lambda answer, many: answer["outputs"][0]["data"]),
    "mlflow": Wire(
        "/invocations",
        "/invocations",
        lambda columns, rows, many: {"dataframe_split": {"columns": columns, "data": rows}},
        lambda answer, many: answer["predictions"],
    ),
}


def exchanges(work: Work, wire: Wire, models: Path) -> list[Exchange]:
    """The requests of a work in a tool's own format, real rows each, and what the model itself answers to them."""
    rows = json.loads((models / work.model / "rows.json").read_text())
    path = wire.many_path if work.many else wire.path
    sets: list[Mapping[str, Any]] = (
        rows["batches"]
        if work.many
        else [{"rows": [row], "answers": [answer]} for row, answer in zip(rows["single"]["rows"], rows["single"]["answers"], strict=True)]
    )
    return [
        Exchange(
            path, json.dumps(wire.encode(rows["columns"], one["rows"], work.many), separators=(",", ":")).encode(), tuple(one["answers"])
        )
        for one in sets
    ]


def check(port: int, work: Work, wire: Wire, asked: Sequence[Exchange]) -> str:
    """Nothing when every answer is the model's own; else what is wrong with the first that is not."""
    for exchange in asked:
        status, body = answer_to(port, exchange.request, timeout_s=30)
        if status != 200:
            return f"status {status}: {body[:200].decode(errors='replace')}"
        try:
            got = list(wire.decode(json.loads(body), work.many))
        except (ValueError, TypeError, KeyError, LookupError) as error:
            return f"an answer that cannot be read ({type(error).__name__}: {error}): {body[:200].decode(errors='replace')}"
        if len(got) != len(exchange.answers):
            return f"{len(got)} answers to {len(exchange.answers)} rows"
        for answer, right in zip(got, exchange.answers, strict=True):
            if not _same(answer, right):
                return f"answered {answer!r} where the model says {right!r}"
    return ""


def _same(answer: Any, right: Any) -> bool:
    if isinstance(right, float) and isinstance(answer, float | int):
        return math.isclose(answer, right, rel_tol=TOLERANCE)
    return bool(answer == right)


def answer_to(port: int, request: bytes, timeout_s: float) -> tuple[int, bytes]:
    """Status and body of one request over a connection of its own. OSError where there is none."""
    head, _, body = request.partition(b"\r\n\r\n")
    with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
        connection.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)
        with connection.makefile("rb") as stream:
            status = stream.readline().split()
            if len(status) < 2:
                raise ConnectionError("closed without an answer")
            headers = {}
            while (line := stream.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                headers[name.lower()] = value.strip().lower()
            if headers.get(b"transfer-encoding") != b"chunked":
                length = headers.get(b"content-length")
                return int(status[1]), stream.read() if length is None else stream.read(int(length))
            chunks = []
            while size := int(stream.readline().split(b";")[0], 16):
                chunks.append(stream.read(size))
                stream.readline()
            return int(status[1]), b"".join(chunks)

"""A bundle being served: its loaded model, and what has been made ready once so that no request has to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

from modelport import engines
from modelport.bundle import Bundle
from modelport.engines import Engine
from modelport.serving.inputs import Inputs
from modelport.serving.outputs import json_records, to_json
from modelport.signature import Columns, Signature

_INLINE_SECONDS = 0.0002
"""A call shorter than this costs the others less where it is than a thread would (DESIGN section 6)."""


@dataclass
class Service:
    """One model under its name. Ready once its golden rows have been reproduced."""

    name: str
    version: str
    """Its version in the store: "3"; "" when it is served from a file or folder."""
    bundle: Bundle
    engine: Engine
    golden_rows: int | None = None
    """How many golden rows were reproduced; None until they have been tried."""
    inline_bytes: int = field(default=0, init=False)
    """A body up to this size is answered so fast that no thread is needed."""

    def __post_init__(self) -> None:
        self.examples = self.bundle.read_json("example.json") or []
        self.inputs = Inputs(self.signature, self.examples[0] if self.examples else None)

    @property
    def signature(self) -> Signature:
        return self.engine.signature

    @property
    def label(self) -> str:
        """As the X-Model header gives it: "iris:3 sha256:..."."""
        return f"{self.name}:{self.version} {self.bundle.digest}" if self.version else f"{self.name} {self.bundle.digest}"

    def warm_up(self) -> None:
        """Reproduce the golden rows (GoldenMismatch when they differ), then measure how long small bodies take."""
        self.golden_rows = engines.verify_golden(self.engine, self.bundle)
        self.inline_bytes = 0
        for rows in (1, 32) if self.examples else ():
            body = to_json(self.examples[:1] * rows)
            if min(self._seconds(body) for _ in range(3)) > _INLINE_SECONDS:
                break
            self.inline_bytes = len(body)

    def _seconds(self, body: bytes) -> float:
        start = perf_counter()
        rows = self.inputs.json(body, 1000)
        json_records(self.signature, self.engine.predict(rows.columns), single=False)
        return perf_counter() - start


@dataclass(frozen=True, slots=True)
class Call:
    """A request as the model takes it: the columns, how many rows they are, and how the answer becomes bytes.

    No columns are encoded where there are no rows, which no model is asked about.
    """

    columns: Columns
    rows: int
    encode: Callable[[Columns | None], bytes]
    content_type: str = "application/json"

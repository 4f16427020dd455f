"""A bundle being served: its loaded model, and what has been made ready once so that no request has to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

from modelport import engines
from modelport.bundle import Bundle
from modelport.engines import AnyEngine
from modelport.errors import ModelFailed
from modelport.serving.batching import Batcher, Flight, Observer, Pace
from modelport.serving.control import fingerprint
from modelport.serving.inputs import Inputs, Rows, join
from modelport.serving.outputs import Answers, Encoder, to_json
from modelport.serving.problems import Answer
from modelport.serving.settings import Settings
from modelport.signature import Columns, Signature

_SIMPLE = frozenset({"number", "integer", "boolean", "string", "text", "category", "datetime"})


@dataclass
class Service:
    """One model, or one of its functions, under its name. Ready once its golden rows have been reproduced."""

    name: str
    """The model's: "forecast"; of a function beside the first "forecast.peak"."""
    version: str
    """Its version in the store: "3"; "" when it is served from a file or folder."""
    bundle: Bundle
    engine: AnyEngine
    function: str = ""
    """Which of the bundle's `functions` it is; "" for the first of them, and for a model that has none."""
    golden_rows: int | None = None
    """How many golden rows were reproduced; None until they have been tried."""
    row_s: float = 0.0
    """How long a call with one row takes; 0 until it is measured."""
    flight: Flight | None = None
    observer: Observer | None = None
    pace: Pace = field(default_factory=Pace, init=False)
    denied: set[bytes] = field(default_factory=set, init=False)
    """The fingerprints of requests that have ended a process: the model is not asked again."""

    def __post_init__(self) -> None:
        self.golden = (self.bundle.golden(self.function) or {}).get("rows", [])
        """Rows with the answers that they had when the bundle was packed."""
        own = None if self.function else self.bundle.read_json("example.json")
        self.examples = own or [row["input"] for row in self.golden[:5]]
        self.inputs = Inputs(self.signature, self.examples[0] if self.examples else None)
        self.encoder = Encoder(self.signature)
        self._batcher: Batcher[Rows, Answers] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def signature(self) -> Signature:
        return self.engine.signature

    @property
    def label(self) -> str:
        """As the X-Model header gives it: "iris:3 sha256:..."."""
        return f"{self.name}:{self.version} {self.bundle.digest}" if self.version else f"{self.name} {self.bundle.digest}"

    @property
    def model(self) -> str:
        """The name of the model that it is, or belongs to."""
        return self.name.removesuffix(f".{self.function}") if self.function else self.name

    @property
    def path(self) -> str:
        """Where it is asked below its model: the function's name; "predict" where the model is no file of functions."""
        return self.function or self.bundle.function or "predict"

    @property
    def description(self) -> str:
        """What the bundle says of it."""
        return self.bundle.functions[self.function].description if self.function else self.bundle.description

    @property
    def takes_query(self) -> bool:
        """Whether it can be asked by GET too: a function or a table whose fields are all simple."""
        simple = all(field.kind in _SIMPLE and not field.shape for field in self.signature.inputs)
        return simple and self.framework in ("function", "lookup")

    def check(self, body: bytes) -> None:
        """ModelFailed when this very request has ended a process before."""
        if self.denied and fingerprint(self.digest, self.name, body) in self.denied:
            raise ModelFailed("this request has ended the model's process before, and is not tried again")

    @property
    def digest(self) -> str:
        return self.bundle.digest

    @property
    def framework(self) -> str:
        return self.bundle.card.framework

    @property
    def engine_name(self) -> str:
        return self.engine.name

    @property
    def waiting(self) -> tuple[int, float]:
        """How many requests wait for the model, and for how many seconds the first of them has."""
        return (self._batcher.waiting, self._batcher.oldest_s) if self._batcher else (0, 0.0)

    def warm_up(self) -> None:
        """Reproduce the golden rows (GoldenMismatch when they differ), then measure how long calls take."""
        self.golden_rows = engines.verify_golden(self.engine, self.bundle, self.function)
        self.measure()

    def measure(self) -> None:
        """Time calls of several sizes on the examples."""

        def rows(count: int) -> Sequence[Rows]:
            if not self.inputs.has_pictures:
                return [self.inputs.json(to_json(list(islice(cycle(self.examples), count))), count)]
            once = self.inputs.json(to_json(self.examples), len(self.examples))  # decoding takes longer than many a model
            places = [place % once.count for place in range(count)]
            return [Rows(count, False, {name: column[places] for name, column in once.columns.items()})]

        curve = engines.measure(self.predict, rows) if self.examples else []
        self.row_s = curve[0][1] if curve else 0.0
        self.pace = Pace(curve)

    def predict(self, parts: Sequence[Rows]) -> Answers:
        """The model's answers to the rows of several requests, in one call."""
        return Answers(self.engine.predict(join(parts)), self.encoder)

    def batcher(self, settings: Settings) -> Batcher[Rows, Answers]:
        """What gathers requests into calls, on the loop that runs."""
        loop = asyncio.get_running_loop()
        if self._batcher is None or self._loop is not loop:
            self._loop = loop
            self._batcher = Batcher(
                self.predict,
                loop=loop,
                pace=self.pace,
                timeout_s=settings.timeout_s,
                max_waiting=settings.max_waiting,
                flight=self.flight,
                observer=self.observer,
            )
        return self._batcher


def services_of(name: str, version: str, bundle: Bundle, engine: AnyEngine, flight: Callable[[str], Flight] | None = None) -> list[Service]:
    """The services of a bundle that is served as `name`: one with its `engine`, and one for each of its functions beside the first.

    `flight` is made for each.
    """
    loaded: dict[str, AnyEngine] = {"": engine, **engines.load_functions(bundle)}
    named = {function: f"{name}.{function}" if function else name for function in loaded}
    return [
        Service(named[function], version, bundle, one, function, flight=flight(named[function]) if flight else None)
        for function, one in loaded.items()
    ]


@dataclass(frozen=True, slots=True)
class Call:
    """A request as the model takes it: the rows, and how the answer becomes bytes.

    No columns are encoded where there are no rows, which no model is asked about.
    """

    rows: Rows
    encode: Callable[[Columns | None], bytes | Answer]
    """Gives the body of the answer, or the answer with headers of its own."""
    content_type: str = "application/json"
    plain: bool = False
    """Whether the body is JSON in Modelport's own form, and so is the answer."""

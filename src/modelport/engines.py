"""A bundle loaded: its model called in the terms of its signature, with the answers checked.

A bundle that has its model as ONNX too is loaded from that alone. Where the model itself is in a format that runs no code, `Measured` holds
it beside ONNX, and asks for each size of call which is faster.
"""

from __future__ import annotations

import importlib
import math
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any, TypeAlias, TypeVar

import numpy as np

from modelport import plugins
from modelport.bundle import ONNX, Bundle
from modelport.errors import (
    BundleError,
    GoldenMismatch,
    InvalidInput,
    ModelContract,
    ModelFailed,
    ModelFileError,
    ModelportError,
    SignatureError,
    UsageError,
)
from modelport.frameworks import Caller, Card, onnx
from modelport.signature import Columns, Field, MatrixColumns, Signature, did_you_mean

WANTED = ("auto", "onnx", "native")
"""What may be asked for: ONNX where the bundle has it, else the model's own library; or one of the two."""
MEASURED_ROWS = (1, 8, 64, 512)
"""The sizes of calls at which engines are timed."""
_MOST_MEASURED_S = 0.1
"""What is spent on one size at most, but for one call; where one call takes longer, larger sizes are left."""
_MOST_ROWS = 8192
"""As far as it is reckoned which engine is faster."""
_MANY_ROWS = 64
"""In smaller calls no library was found to be faster than ONNX Runtime."""
_LOADING_S = 1.0
"""About what it takes to load a library that brings pandas and scikit-learn in."""
_OWN_FORMATS = {"xgboost": b"{", "lightgbm": b"tree\n", "catboost": b"CBM1"}
"""Libraries whose own format runs no code when it is loaded, and how a file of it begins; they take what begins otherwise for a pickle."""

Rows = TypeVar("Rows")


@dataclass
class Engine:
    """A loaded model that answers columns with columns."""

    framework: Caller
    model: Any
    signature: Signature
    described: Signature
    """What the model says of itself: its outputs are those of `signature` by position, under their first names."""
    name: str = "native"
    """"onnx" or "native"."""

    def predict(self, columns: Columns) -> Columns:
        """The answers to `columns`, one array per output of the signature, all as long as the inputs.

        InvalidInput when the model's own code says so, ModelFailed when it raises anything else, ModelContract when the answer has the
        wrong length or lacks an output.
        """
        try:
            answers = self.framework.predict(self.model, columns, self.signature)
        except ModelportError:
            raise
        except (Exception, SystemExit) as error:
            raise ModelFailed(f"the model raised {type(error).__name__}: {error}") from error
        if not isinstance(answers, Mapping):
            raise ModelContract(f"the model gave a {type(answers).__name__} where its outputs by name are expected")
        rows = len(next(iter(columns.values())))
        return {
            output.name: _checked(output, answers.get(own.name), rows)
            for output, own in zip(self.signature.outputs, self.described.outputs, strict=True)
        }

    def answer(self, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Output records for input records: `Signature.columns`, `predict` and `Signature.records` in one."""
        return _answer(self, records)


def load(bundle: Bundle, wanted: str = "auto") -> Engine:
    """The bundle's model in memory: as ONNX, where `choose` says so; then neither the model file nor code that comes with it is opened.

    The caller has decided that the bundle may run its code otherwise.
    """
    if choose(bundle, wanted) == "onnx":
        return load_onnx(bundle.folder / ONNX, bundle.signature)
    return load_model(bundle.model_path, bundle.card, bundle.signature, bundle.code_folder)


def choose(bundle: Bundle, wanted: str = "auto") -> str:
    """What is loaded where `wanted` of `WANTED` is asked for: "onnx", what the model was converted to, or "native", the model itself.

    UsageError, with the reason, where ONNX is wanted and there is none.
    """
    if wanted not in WANTED:
        raise UsageError(f"there is no engine {wanted!r}{did_you_mean(wanted, WANTED)}", hint=f"It is one of {', '.join(WANTED)}.")
    if ONNX in bundle.files and wanted != "native" and not bundle.functions:  # to load the functions is to load the model
        return "onnx"
    if wanted == "onnx" and bundle.card.framework != "onnx":
        parity = bundle.parity()
        if bundle.functions:
            reason, hint = "it is made of functions", "Serve it with --engine native."
        elif parity:
            reason, hint = parity["reason"], "Serve it with --engine native."
        else:
            reason = "it was packed without being converted"
            hint = "Pack it again to convert it, or serve it with --engine native."
        raise UsageError(f"{bundle.name} has no ONNX: {reason}", hint=hint)
    return "native"


def load_onnx(path: Path, signature: Signature) -> Engine:
    """The graph that a model of this signature was converted to; its outputs are the signature's by position."""
    graph = onnx.load(path, Card("onnx", "onnx.ModelProto", "onnxruntime"))
    _check_outputs(path.name, signature, len(graph.roles))
    outputs = (replace(output, name=role) for output, role in zip(signature.outputs, graph.roles, strict=True))
    return Engine(onnx, graph, signature, Signature(signature.inputs, tuple(outputs)), "onnx")


def load_functions(bundle: Bundle) -> dict[str, Engine]:
    """The functions that the bundle has beside the first, by name. As `load`."""
    module = bundle.card.cls.rpartition(".")[0]
    return {
        name: load_model(bundle.model_path, replace(bundle.card, cls=f"{module}.{name}"), function.signature, bundle.code_folder)
        for name, function in bundle.functions.items()
    }


def load_model(path: Path, card: Card, signature: Signature | None = None, code: Path | None = None) -> Engine:
    """A model file in memory, with the modules in the folder `code` at hand; `signature` is the model's own where none is given."""
    framework = plugins.framework(card.framework)
    with _at_hand(code, path):
        model = framework.load(path, card)
    return engine_of(framework, model, card, signature)


def engine_of(framework: Caller, model: Any, card: Card, signature: Signature | None = None) -> Engine:
    """A model in memory as an engine; `signature` is the model's own where none is given."""
    described = framework.describe(model, card)
    if signature is not None:
        _check_outputs("the model", signature, len(described.outputs))
    name = "onnx" if card.framework == "onnx" else "native"
    return Engine(framework, model, signature or described, described, name)


def _check_outputs(what: str, signature: Signature, count: int) -> None:
    if len(signature.outputs) != count:
        raise SignatureError(f"{what} gives {count} outputs, the signature has {len(signature.outputs)}")


class Measured:
    """ONNX, and the model's own library beside it: each call goes to the one that is faster for so many rows, as was measured here.

    Boosted trees are quicker in ONNX for few rows, and in their own library from one or two hundred rows on. But loading that takes a
    second and 100 MB where pandas and scikit-learn are installed, and a service that is asked for single rows never gains by it. So it is
    loaded, on a thread, once calls of many rows have taken as long as that takes; until then, and where it fails, ONNX answers everything.
    """

    name = "onnx+native"

    def __init__(
        self,
        first: Engine,
        other: Callable[[], Engine],
        examples: Sequence[Mapping[str, Any]],
        *,
        told: Callable[[Mapping[str, Any]], object],
        begin: Callable[[Callable[[], None]], object] | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """`first` is ONNX; `other` loads the other and sees that it answers as it must; `examples` are the rows to measure with.

        `told` hears what came of it: {"from_rows": ..., "seconds": ...}, or {"reason": ...}. `begin` runs what it is given, on a thread.
        """
        self.signature = first.signature
        self._engines = [first]
        self._other, self._examples, self._told = other, examples, told
        self._clock = clock
        self._begin = begin or (lambda load: threading.Thread(target=load, name="engine", daemon=True).start())
        self._fastest: list[int] = []
        """For 1, 2, 3 ... rows the place of the engine to ask; the last is for all beyond. Empty until the other is loaded."""
        self._spent_s = 0.0
        """How long calls of many rows have taken, until the other was asked for."""

    def predict(self, columns: Columns) -> Columns:
        """As `Engine.predict`."""
        rows = len(next(iter(columns.values())))
        if self._fastest:
            return self._engines[self._fastest[min(rows, len(self._fastest)) - 1]].predict(columns)
        if rows < _MANY_ROWS or self._spent_s > _LOADING_S:
            return self._engines[0].predict(columns)
        begun = self._clock()
        answers = self._engines[0].predict(columns)
        self._spent_s += self._clock() - begun
        if self._spent_s > _LOADING_S:
            self._begin(self._load)
        return answers

    def answer(self, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """As `Engine.answer`."""
        return _answer(self, records)

    def _load(self) -> None:
        begun = self._clock()
        try:
            self._engines.append(self._other())
            fastest_of = fastest([measure_rows(engine, self._examples, self._clock) for engine in self._engines])
        except Exception as error:  # noqa: BLE001  whatever it is, ONNX goes on
            self._told({"reason": error.message if isinstance(error, ModelportError) else f"{type(error).__name__}: {error}"})
            return
        from_rows = fastest_of.index(1) + 1 if 1 in fastest_of else None
        if from_rows is None:
            self._engines.pop()
        self._fastest = fastest_of
        self._told({"from_rows": from_rows, "seconds": round(self._clock() - begun, 3)})


AnyEngine: TypeAlias = Engine | Measured


def beside(bundle: Bundle) -> Callable[[], Engine] | None:
    """What loads the model itself, to be held beside ONNX, and reproduces its golden rows.

    None where loading it would run code, where its library is not installed, and where there is no ONNX.
    """
    start = _OWN_FORMATS.get(bundle.card.framework)
    if choose(bundle) != "onnx" or start is None or bundle.code_folder is not None or find_spec(bundle.card.framework) is None:
        return None
    with bundle.model_path.open("rb") as file:
        if file.read(len(start)) != start:
            return None

    def load_native() -> Engine:
        native = load(bundle, "native")
        verify_golden(native, bundle)
        return native

    return load_native


def measure(
    call: Callable[[Rows], object], rows: Callable[[int], Rows], *, calls: int = 3, clock: Callable[[], float] = perf_counter
) -> list[tuple[int, float]]:
    """How many rows a call has and how many seconds it takes, the shortest of some `calls`, for the sizes in MEASURED_ROWS.

    `rows` makes so many rows in the form that `call` takes. A size at which a call takes longer than 0.1 s is the last, and called once.
    """
    curve = []
    for count in MEASURED_ROWS:
        seconds = _shortest(call, rows(count), calls, clock)
        curve.append((count, seconds))
        if seconds > _MOST_MEASURED_S:
            break
    return curve


def measure_rows(
    engine: Engine, examples: Sequence[Mapping[str, Any]], clock: Callable[[], float] = perf_counter
) -> list[tuple[int, float]]:
    """`measure` of an engine, in the form in which a service gives it rows: made of the examples, or these over and over where it has none.

    Trees are three times as fast on a few rows over and over as on rows that differ, in ONNX Runtime more than elsewhere. Of twenty calls
    one is not disturbed, also while the process answers others.
    """

    def over_and_over(count: int) -> Columns:
        return engine.signature.columns(list(islice(cycle(examples), count)))

    def mixed(count: int) -> Columns:
        return _rows_like(engine.signature, examples, count)

    try:
        engine.predict(mixed(8))
    except (ModelFailed, InvalidInput):  # its own code wants fields that belong together
        return measure(engine.predict, over_and_over, calls=20, clock=clock)
    return measure(engine.predict, mixed, calls=20, clock=clock)


def _rows_like(signature: Signature, examples: Sequence[Mapping[str, Any]], count: int) -> Columns:
    """So many rows, each field of each with the value of some example; a number lies between those of two."""
    rng = np.random.default_rng(0)
    columns = dict(signature.columns(examples))
    for name, column in columns.items():
        values, others = column[rng.integers(len(column), size=count)], column[rng.integers(len(column), size=count)]
        columns[name] = values + (others - values) * rng.random(count) if column.dtype == np.float64 and column.ndim == 1 else values
    if any(column.dtype != np.float64 or column.ndim > 1 for column in columns.values()):
        return columns
    return MatrixColumns(list(columns), np.column_stack(list(columns.values())))


def fastest(curves: Sequence[Sequence[tuple[int, float]]]) -> list[int]:
    """Which of several measured engines is the fastest for 1, 2, 3 ... rows, by straight lines between the measured sizes and beyond."""
    rows = np.arange(1, _MOST_ROWS + 1)
    seconds = [np.interp(rows, *np.array(_extended(curve)).T) for curve in curves]
    places: list[int] = np.argmin(seconds, axis=0).tolist()
    return places


def _extended(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """A curve with one point more, where the line through its last two ends; where it has one only, twice the rows take twice as long."""
    (last, seconds), (before, less) = curve[-1], curve[-2] if len(curve) > 1 else (0, 0.0)
    each = max(0.0, (seconds - less) / (last - before))
    return [*curve, (_MOST_ROWS, seconds + each * (_MOST_ROWS - last))]


def _shortest(call: Callable[[Rows], object], rows: Rows, calls: int, clock: Callable[[], float]) -> float:
    """The seconds of the shortest call."""
    until = clock() + _MOST_MEASURED_S
    shortest = math.inf
    for _ in range(calls):
        begun = clock()
        call(rows)
        shortest = min(shortest, clock() - begun)
        if clock() > until:
            break
    return shortest


def _answer(engine: AnyEngine, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not records:
        return []
    return engine.signature.records(engine.predict(engine.signature.columns(records)))


def _checked(output: Field, answer: Any, rows: int) -> np.ndarray[Any, np.dtype[Any]]:
    """What the model gave for `output` as an array of `rows` rows."""
    if answer is None:
        raise ModelContract(f"the model gave nothing for output {output.name!r} of {rows} rows")
    try:
        array = np.asarray(answer)
    except ValueError as error:
        raise ModelContract(f"the model gave rows of different shapes for output {output.name!r}") from error
    if array.ndim == 0 or len(array) != rows:
        got = f"{len(array)} values" if array.ndim else f"a {type(answer).__name__}"
        raise ModelContract(f"the model gave {got} for output {output.name!r} of {rows} rows")
    shape = array.shape[1:]
    fits = len(shape) == len(output.shape) and all(wanted in (-1, size) for wanted, size in zip(output.shape, shape, strict=True))
    if not fits and array.dtype != object:
        raise ModelContract(f"the model gave rows of shape {shape} for output {output.name!r}, which has the shape {output.shape}")
    return array


_loading = threading.RLock()
_brought: dict[str, bytes] = {}
"""The source of every module that came with a model, by its name."""


@contextmanager
def _at_hand(code: Path | None, model: Path | None = None) -> Iterator[None]:
    """While a model is loaded: the modules in `code` are imported, and `__main__` holds their names and no others.

    A function written in a notebook or script is pickled as `__main__.name`, so that two models may well mean two functions by one name;
    each finds its own. The modules stay imported, as the model may need them later. UsageError when another module has the name of one.
    A `model` that is itself one of the files there is left to its framework.
    """
    with _loading:
        if code is None:
            yield
            return
        script = ModuleType("__main__")
        for module in _imported(code, model):
            for name, value in vars(module).items():
                if not name.startswith("__"):
                    vars(script).setdefault(name, value)
        before = sys.modules["__main__"]
        sys.modules["__main__"] = script
        try:
            yield
        finally:
            sys.modules["__main__"] = before


def _imported(code: Path, model: Path | None) -> list[ModuleType]:
    sources = {path.stem: path.read_bytes() for path in sorted(code.glob("*.py")) if path != model}
    for name, source in sources.items():
        loaded = sys.modules.get(name)
        if name in sys.stdlib_module_names or (loaded is not None and _source(loaded) != source):
            where = getattr(loaded, "__file__", None) or "Python itself"
            raise UsageError(
                f"the model brings a module {name!r} along, and another {name!r} is here, from {where}",
                hint="Give one of them another name, or load the two models in processes of their own.",
            )
    written = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # a bundle never changes
    sys.path.insert(0, str(code))
    importlib.invalidate_caches()
    try:
        modules = [importlib.import_module(name) for name in sources]
    except Exception as error:
        raise ModelFileError(
            f"the code that comes with the model does not import: {type(error).__name__}: {error}",
            hint="What it imports must be installed here, or come along with --code too.",
        ) from error
    finally:
        sys.path.remove(str(code))
        sys.dont_write_bytecode = written
    _brought.update(sources)
    return modules


def _source(module: ModuleType) -> bytes | None:
    """The source a module was made from, as far as it can be known."""
    if module.__name__ in _brought:
        return _brought[module.__name__]
    try:
        return Path(module.__file__ or "").read_bytes()
    except OSError:
        return None


def verify_golden(engine: AnyEngine, bundle: Bundle, function: str = "") -> int:
    """Reproduce the golden rows of the bundle, or of one of its functions; how many they were.

    They are the answers of the model's own library, from which those of ONNX may differ as much as they might when it was converted. Those
    of a function that answered differently when it was asked twice have no tolerance: they are asked, and not compared. GoldenMismatch
    names the first row and value that differ.
    """
    parity = bundle.parity()
    try:
        golden = bundle.golden(function)
        if golden is None:
            return 0
        inputs = [row["input"] for row in golden["rows"]]
        recorded = [row["output"] for row in golden["rows"]]
        tolerance = None if golden["tolerance"] is None else float(golden["tolerance"])
        if parity and engine.name != "native" and tolerance is not None:
            tolerance = max(tolerance, float(parity["tolerance"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"golden.json of {bundle.name!r} holds no rows with an input and an output", hint="Pack again.") from error
    try:
        answers = engine.answer(inputs)
    except InvalidInput as error:
        raise GoldenMismatch(f"golden rows of {bundle.name!r} do not fit its signature: {error.message}") from error
    for index, (output, answer) in enumerate(zip(recorded, answers, strict=True)):
        differs = difference(output, answer, tolerance) if tolerance is not None else ""
        if differs:
            raise GoldenMismatch(
                f"golden row {index} of {bundle.name!r} answers differently now: {differs}",
                hint="The model or its libraries are not those it was packed with: see requirements.txt in the bundle.",
            )
    return len(inputs)


def difference(recorded: Any, now: Any, tolerance: float, where: str = "") -> str:
    """Where two answers differ by more than `tolerance` (relative above 1, absolute below), or ''."""
    if isinstance(recorded, dict) and isinstance(now, dict) and recorded.keys() == now.keys():
        return next(filter(None, (difference(recorded[key], now[key], tolerance, f"{where}/{key}") for key in recorded)), "")
    if isinstance(recorded, list) and isinstance(now, list) and len(recorded) == len(now):
        pairs = enumerate(zip(recorded, now, strict=True))
        return next(filter(None, (difference(old, new, tolerance, f"{where}/{index}") for index, (old, new) in pairs)), "")
    if isinstance(recorded, float) or isinstance(now, float):
        numbers = isinstance(recorded, int | float) and isinstance(now, int | float)
        if numbers and math.isclose(recorded, now, rel_tol=tolerance, abs_tol=tolerance):
            return ""
    elif recorded == now and type(recorded) is type(now):
        return ""
    return f"{where} was {recorded!r} and is {now!r}"

"""A bundle loaded: its model called in the terms of its signature, with the answers checked."""

from __future__ import annotations

import importlib
import math
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from modelport import plugins
from modelport.bundle import Bundle
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
from modelport.frameworks import Caller, Card
from modelport.signature import Columns, Field, Signature


@dataclass
class Engine:
    """A loaded model that answers columns with columns."""

    framework: Caller
    model: Any
    signature: Signature
    described: Signature
    """What the model says of itself: its outputs are those of `signature` by position, under their first names."""
    name: str = "native"

    def predict(self, columns: Columns) -> Columns:
        """The answers to `columns`, one array per output of the signature, all as long as the inputs.

        InvalidInput when the model's own code says so, ModelFailed when it raises anything else, ModelContract when the answer has the
        wrong length or lacks an output.
        """
        try:
            answers = self.framework.predict(self.model, columns, self.signature)
        except ModelportError:
            raise
        except Exception as error:
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
        if not records:
            return []
        return self.signature.records(self.predict(self.signature.columns(records)))


def load(bundle: Bundle) -> Engine:
    """The bundle's model in memory. The caller has decided that the bundle may run its code."""
    return load_model(bundle.model_path, bundle.card, bundle.signature, bundle.code_folder)


def load_model(path: Path, card: Card, signature: Signature | None = None, code: Path | None = None) -> Engine:
    """A model file in memory, with the modules in the folder `code` at hand; `signature` is the model's own where none is given."""
    framework = plugins.framework(card.framework)
    with _at_hand(code):
        model = framework.load(path, card)
    return engine_of(framework, model, card, signature)


def engine_of(framework: Caller, model: Any, card: Card, signature: Signature | None = None) -> Engine:
    """A model in memory as an engine; `signature` is the model's own where none is given."""
    described = framework.describe(model, card)
    if signature is not None and len(signature.outputs) != len(described.outputs):
        raise SignatureError(f"the model gives {len(described.outputs)} outputs, the signature has {len(signature.outputs)}")
    return Engine(framework, model, signature or described, described)


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
def _at_hand(code: Path | None) -> Iterator[None]:
    """While a model is loaded: the modules in `code` are imported, and `__main__` holds their names and no others.

    A function written in a notebook or script is pickled as `__main__.name`, so that two models may well mean two functions by one name;
    each finds its own. The modules stay imported, as the model may need them later. UsageError when another module has the name of one.
    """
    with _loading:
        if code is None:
            yield
            return
        script = ModuleType("__main__")
        for module in _imported(code):
            for name, value in vars(module).items():
                if not name.startswith("__"):
                    vars(script).setdefault(name, value)
        before = sys.modules["__main__"]
        sys.modules["__main__"] = script
        try:
            yield
        finally:
            sys.modules["__main__"] = before


def _imported(code: Path) -> list[ModuleType]:
    sources = {path.stem: path.read_bytes() for path in sorted(code.glob("*.py"))}
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


def verify_golden(engine: Engine, bundle: Bundle) -> int:
    """Reproduce the bundle's golden rows; how many they were. GoldenMismatch names the first row and value that differ."""
    golden = bundle.read_json("golden.json")
    if golden is None:
        return 0
    try:
        inputs = [row["input"] for row in golden["rows"]]
        recorded = [row["output"] for row in golden["rows"]]
        tolerance = float(golden["tolerance"])
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"golden.json of {bundle.name!r} holds no rows with an input and an output", hint="Pack again.") from error
    try:
        answers = engine.answer(inputs)
    except InvalidInput as error:
        raise GoldenMismatch(f"golden rows of {bundle.name!r} do not fit its signature: {error.message}") from error
    for index, (output, answer) in enumerate(zip(recorded, answers, strict=True)):
        differs = difference(output, answer, tolerance)
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

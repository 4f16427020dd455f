"""A bundle loaded: its model called in the terms of its signature, with the answers checked."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from modelport import plugins
from modelport.bundle import Bundle
from modelport.errors import GoldenMismatch, InvalidInput, ModelContract, ModelFailed, ModelportError
from modelport.frameworks import Card, Framework
from modelport.signature import Columns, Signature


@dataclass
class Engine:
    """A loaded model that answers columns with columns."""

    framework: Framework
    model: Any
    signature: Signature
    described: Signature
    """What the model says of itself: its outputs are those of `signature` by position, under their first names."""
    name: str = "native"
    calls: int = field(default=0, init=False)

    def predict(self, columns: Columns) -> Columns:
        """The answers to `columns`, one array per output of the signature, all as long as the inputs.

        InvalidInput when the model's own code says so, ModelFailed when it raises anything else, ModelContract when the answer has the
        wrong length or lacks an output.
        """
        self.calls += 1
        try:
            answers = self.framework.predict(self.model, columns, self.signature)
        except ModelportError:
            raise
        except Exception as error:
            raise ModelFailed(f"the model raised {type(error).__name__}: {error}") from error
        rows = len(next(iter(columns.values())))
        outputs = {}
        for output, own in zip(self.signature.outputs, self.described.outputs, strict=True):
            answer = answers.get(own.name)
            if answer is None or not hasattr(answer, "__len__") or len(answer) != rows:
                got = "nothing" if answer is None else f"{len(answer)} values" if hasattr(answer, "__len__") else f"a {type(answer).__name__}"
                raise ModelContract(f"the model gave {got} for output {output.name!r} of {rows} rows")
            outputs[output.name] = np.asarray(answer)
        return outputs

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
    if code is not None:
        _bring_code(code)
    framework = plugins.framework(card.framework)
    model = framework.load(path, card)
    described = framework.describe(model, card)
    return Engine(framework, model, signature or described, described)


def _bring_code(code: Path) -> None:
    """Make the modules in `code` importable, and their names findable where the pickle looks for them: in `__main__`.

    A function written in a notebook or script is pickled as `__main__.name`; there it is put, unless the name is taken.
    """
    if str(code) not in sys.path:
        sys.path.insert(0, str(code))
    main = sys.modules["__main__"]
    for path in sorted(code.glob("*.py")):
        module: ModuleType = importlib.import_module(path.stem)
        for name, value in vars(module).items():
            if not name.startswith("__") and not hasattr(main, name):
                setattr(main, name, value)


def verify_golden(engine: Engine, bundle: Bundle) -> int:
    """Reproduce the bundle's golden rows; how many they were. GoldenMismatch names the first row and value that differ."""
    golden = bundle.read_json("golden.json")
    if golden is None:
        return 0
    inputs = [row["input"] for row in golden["rows"]]
    try:
        answers = engine.answer(inputs)
    except InvalidInput as error:
        raise GoldenMismatch(f"golden rows of {bundle.name!r} do not fit its signature: {error.message}") from error
    for index, (row, answer) in enumerate(zip(golden["rows"], answers, strict=True)):
        difference = _difference(row["output"], answer, golden["tolerance"])
        if difference:
            raise GoldenMismatch(
                f"golden row {index} of {bundle.name!r} answers differently now: {difference}",
                hint="The model or its libraries are not those it was packed with: see requirements.txt in the bundle.",
            )
    return len(inputs)


def _difference(recorded: Any, now: Any, tolerance: float, where: str = "") -> str:
    """Where two answers differ by more than `tolerance` (relative above 1, absolute below), or ''."""
    if isinstance(recorded, dict) and isinstance(now, dict) and recorded.keys() == now.keys():
        return next(filter(None, (_difference(recorded[key], now[key], tolerance, f"{where}/{key}") for key in recorded)), "")
    if isinstance(recorded, list) and isinstance(now, list) and len(recorded) == len(now):
        pairs = enumerate(zip(recorded, now, strict=True))
        return next(filter(None, (_difference(old, new, tolerance, f"{where}/{index}") for index, (old, new) in pairs)), "")
    if isinstance(recorded, float) or isinstance(now, float):
        numbers = isinstance(recorded, int | float) and isinstance(now, int | float)
        if numbers and math.isclose(recorded, now, rel_tol=tolerance, abs_tol=tolerance):
            return ""
    elif recorded == now and type(recorded) is type(now):
        return ""
    return f"{where} was {recorded!r} and is {now!r}"

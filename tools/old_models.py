"""Pack every model in tests/data/old_models, ask what it was asked when it was made, and write docs/old-models.md.

    python tools/old_models.py

It makes an environment for each version with uv, and takes some minutes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelport import engines
from modelport.bundle import Bundle
from modelport.packing import Options, pack_file

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "tests" / "data" / "old_models"
PAGE = ROOT / "docs" / "old-models.md"
TOLERANCE = 1e-4
"""How far a probability, or a number relative to its size, may be from what it was."""


@dataclass(frozen=True)
class Result:
    """One old model, served today."""

    library: str
    """With its version: "scikit-learn 1.1.3"."""
    python: str
    """The Python that wrote it."""
    file: str
    """Below tests/data/old_models."""
    kind: str
    """Its class, of a pipeline the last step's."""
    engine: str
    """What answers: "ONNX, float32", or the library as it is installed, from its own format."""
    rows: int
    flips: int
    """Rows that got another label than then."""
    largest_difference: float
    """Of a probability; of a number relative to its size where that is above 1."""

    @property
    def good(self) -> bool:
        return self.flips == 0 and self.largest_difference < TOLERANCE


def old_models() -> list[Path]:
    """Every model file with its answers beside it, by library and version."""
    return [path for path in sorted(MODELS.glob("*/*"), key=_by_version) if path.suffix != ".json" and path.with_suffix(".json").is_file()]


def _by_version(path: Path) -> tuple[Any, ...]:
    library, _, version = path.parent.name.rpartition("-")
    return library, [int(part) if part.isdigit() else 0 for part in version.split(".")], path.name


def served_today(path: Path, folder: Path) -> Result:
    """Pack the model at `path` into the empty `folder`, ask the bundle, and compare with what was answered then."""
    then = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    bundle = pack_file(path, folder, Options(name="old"))
    engine = engines.load(bundle)
    answers = engine.answer(_records(then, bundle))
    flips, largest = _compared(then, answers)
    library = bundle.card.library
    return Result(
        library=f"{library} {bundle.card.version or then['made_by'][library]}",
        python=".".join(then["made_by"]["python"].split(".")[:2]),
        file=path.relative_to(MODELS).as_posix(),
        kind=_kind(bundle),
        engine=_engine(engine, bundle),
        rows=len(answers),
        flips=flips,
        largest_difference=largest,
    )


def _records(then: Mapping[str, Any], bundle: Bundle) -> list[dict[str, Any]]:
    """The rows as records: by name where the model has kept the names of its columns, else in their order."""
    names = [field.name for field in bundle.signature.inputs]
    columns = then["columns"] if then["columns"] and set(names) <= set(then["columns"]) else names
    return [{name: dict(zip(columns, row, strict=True))[name] for name in names} for row in then["rows"]]


def _compared(then: Mapping[str, Any], answers: list[dict[str, Any]]) -> tuple[int, float]:
    """How many rows have another label, and the largest difference of a number."""
    if "classes" not in then:
        before, now = np.array(then["prediction"]), np.array([answer["prediction"] for answer in answers])
        return 0, float(np.max(np.abs(before - now) / np.maximum(1.0, np.abs(before))))
    flips = sum(label != answer["prediction"] for label, answer in zip(then["prediction"], answers, strict=True))
    by_name = [[answer["probabilities"][str(label)] for label in then["classes"]] for answer in answers]
    return flips, float(np.max(np.abs(np.array(then["probabilities"]) - np.array(by_name))))


def _kind(bundle: Bundle) -> str:
    steps = bundle.card.details.get("steps")
    name = bundle.card.cls.rpartition(".")[2]
    return f"{name} of {', '.join(steps)}" if steps else name


def _engine(engine: engines.Engine, bundle: Bundle) -> str:
    parity = bundle.read_json("parity.json")
    if engine.name != "native" and parity:
        return f"ONNX, {parity['precision']}"
    return f"{bundle.card.library}, its own format"


def page(results: Iterable[Result]) -> str:
    """The page, of all results."""
    results = list(results)
    good = sum(result.good for result in results)
    lines = [
        "# Old models, today",
        "",
        f"<!-- Made by `python tools/old_models.py`: {good} of {len(results)} as they were. -->",
        "",
        "Each of these models was trained and pickled by the library and the Python of its time, and asked then; the files and their",
        "answers are in `tests/data/old_models`, with the script that makes them. This is what Modelport makes of each file today with",
        "`modelport pack` and nothing else said: which engine answers, and how its answers differ from those of then. A flip is a row that",
        "gets another label; differences are those of probabilities, and of predicted numbers relative to their size.",
        "",
        "    python tools/old_models.py",
        "",
        "| written by | Python | file | model | answered by | rows | flips | largest difference | |",
        "|---|---|---|---|---|---:|---:|---:|---|",
    ]
    for one in results:
        numbers = f"{one.rows} | {one.flips} | {one.largest_difference:.1e} | {'✓' if one.good else '✗'}"
        lines.append(f"| {one.library} | {one.python} | `{one.file}` | {one.kind} | {one.engine} | {numbers} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    results = []
    for path in old_models():
        with tempfile.TemporaryDirectory(prefix="modelport-old-") as folder:
            results.append(served_today(path, Path(folder)))
        print(results[-1], file=sys.stderr, flush=True)
    PAGE.write_text(page(results), encoding="utf-8")
    return 0 if all(result.good for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())

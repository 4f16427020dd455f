"""A model becomes an ONNX graph that has been proven to answer as it does; or it is said in one line why it stays what it is."""

from __future__ import annotations

import platform
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from modelport.conversion import parity
from modelport.conversion.parity import TOLERANCE, Parity, Questions
from modelport.engines import Engine, difference, load_onnx
from modelport.errors import ModelportError
from modelport.frameworks import Card, tabular
from modelport.frameworks.portable import boundaries, to_onnx
from modelport.frameworks.portable.graphs import NeedsConverter, NotConverted
from modelport.samples import Sample
from modelport.signature import Field, Signature

CONVERTED = ("sklearn", "xgboost", "lightgbm", "catboost")
"""The frameworks whose models become ONNX."""
CONVERTERS = ("skl2onnx",)
"""What writes the estimators that `portable.to_onnx` leaves to it, where it is installed."""
_EXACT = 2**24
"""Up to here single precision holds every integer."""
_DIGITS = 4


class Converter(Protocol):
    """Where a model is converted: this process, or a child of another Python that has the library that wrote it."""

    @property
    def versions(self) -> Mapping[str, str]:
        """The versions of the libraries that take part, by distribution; "python" among them."""
        ...

    def boundaries(self, columns: Sequence[Mapping[str, Any]]) -> Mapping[str, Sequence[Any]]:
        """As `modelport.frameworks.portable.boundaries.rows`."""
        ...

    def convert(self, columns: Sequence[Mapping[str, Any]], precision: str) -> bytes:
        """As `modelport.frameworks.portable.to_onnx.convert`. NotConverted says why not."""
        ...


@dataclass(frozen=True)
class Converted:
    """A graph that passed the gate, or none; and the evidence either way, ready for JSON."""

    graph: bytes | None
    evidence: Mapping[str, Any]
    lacks_converter: bool = False
    """Whether a converter would have been needed that is not installed."""


class Here:
    """This process as a converter of a model that it has loaded."""

    def __init__(self, framework: str, model: Any, library: str) -> None:
        self._kind, self._model = framework, model
        self.versions: Mapping[str, str] = _versions(framework, library)

    def boundaries(self, columns: Sequence[Mapping[str, Any]]) -> Mapping[str, Sequence[Any]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return boundaries.rows(self._kind, self._model, columns)

    def convert(self, columns: Sequence[Mapping[str, Any]], precision: str) -> bytes:
        with warnings.catch_warnings():
            # a converter's worries about what it writes are no news: the gate looks at the result
            warnings.simplefilter("ignore")
            return to_onnx.convert(self._kind, self._model, columns, precision)


def convert(engine: Engine, sample: Sample | None, golden: Sequence[Mapping[str, Any]], converter: Converter) -> Converted:
    """The model of the native `engine` as a graph that answers as it does, tried in single precision and then in double.

    `golden` are rows with their recorded "input" and "output". What was tried, and how it went, is the evidence.
    """
    own = _by_model(engine)
    columns = [_column(name, field) for name, field in own]
    asked: Questions | None = None
    last = Parity(0, 0, 0.0, relative=False, why="")
    tries: list[dict[str, str]] = []
    lacking = False
    for precision in ("float32", "float64"):
        why = _too_large(engine.signature, sample) if precision == "float32" else ""
        graph = b""
        try:
            graph = b"" if why else converter.convert(columns, precision)
            if graph and asked is None:
                made = converter.boundaries(columns)
                asked = parity.questions(engine.signature, sample, {field.name: made[name] for name, field in own})
        except NotConverted as error:
            why, lacking = f"no ONNX form of {error}", isinstance(error, NeedsConverter)
        except Exception as error:  # noqa: BLE001 whatever a conversion runs into, the model stays what it is
            graph, why = b"", f"the conversion failed: {type(error).__name__}: {tabular.first_line(error)}"
        if graph and asked is not None:
            last = _proven(engine, graph, golden, asked)
            why = last.why
        if not why:
            return Converted(graph, _evidence(last, asked, precision, converter.versions, tries))
        tries.append({"precision": precision, "why": why})
        if not graph and precision == "float32" and why.startswith("no ONNX form"):
            break
    return Converted(None, _evidence(replace(last, why=tries[-1]["why"]), asked, "", converter.versions, tries), lacking)


def export(engine: Engine, card: Card, sample: Sample | None, golden: Sequence[Mapping[str, Any]]) -> Converted:
    """The model of the native `engine`, whose framework writes graphs itself, as a graph that answers as it does; as `convert`."""
    found, asked, graph = Parity(0, 0, 0.0, relative=False), None, b""
    try:
        made: bytes = engine.framework.graph(engine.model, card, engine.signature)  # type: ignore[attr-defined]  # the caller has looked
        asked = parity.noise(engine.signature, sample)
        found = _proven(engine, made, golden, asked)
        graph = made if found.passed else b""
    except NotConverted as error:
        found = replace(found, why=f"no ONNX form: {error}")
    except Exception as error:  # noqa: BLE001 whatever a conversion runs into, the model stays what it is
        found = replace(found, why=f"the conversion failed: {type(error).__name__}: {tabular.first_line(error)}")
    tries = [] if graph else [{"precision": "float32", "why": found.why}]
    return Converted(graph or None, _evidence(found, asked, "float32" if graph else "", _written_by(card), tries))


def _proven(engine: Engine, graph: bytes, golden: Sequence[Mapping[str, Any]], asked: Questions) -> Parity:
    """How alike the graph answers, as it will be served."""
    with tempfile.TemporaryDirectory(prefix="modelport-onnx-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(graph)
        try:
            served = load_onnx(path, engine.signature)
        except ModelportError as error:
            return Parity(0, 0, 0.0, relative=False, why=f"onnxruntime does not take it: {error.message}")
        found = parity.compare(engine, served, asked)
        if not found.passed:
            return found
        try:
            answers = served.answer([row["input"] for row in golden])
        except ModelportError as error:
            return replace(found, why=f"the golden rows are not answered: {error.message}")
        differs = [difference(row["output"], answer, TOLERANCE) for row, answer in zip(golden, answers, strict=True)]
        return replace(found, why=next((f"a golden row differs: {one}" for one in differs if one), ""))


def _by_model(engine: Engine) -> list[tuple[str, Field]]:
    """The model's own names for its columns, in its order, with the fields of the signature that they are: by name, or by position."""
    fields = {field.name: field for field in engine.signature.inputs}
    names = [field.name for field in engine.described.inputs] or list(fields)
    if all(name in fields for name in names):
        return [(name, fields[name]) for name in names]
    return list(zip(names, engine.signature.inputs, strict=True))


def _column(name: str, field: Field) -> dict[str, Any]:
    """A field as the files that run without Modelport take it, under the model's own name."""
    return {key: value for key, value in asdict(field).items() if key not in ("description", "dtype", "shape")} | {
        "name": name,
        "kind": field.kind if not field.shape else "tensor",
    }


def _too_large(signature: Signature, sample: Sample | None) -> str:
    """Why single precision cannot hold the integers that may come; '' where it can."""
    for field in signature.inputs:
        if field.kind != "integer":
            continue
        values = [one for one in sample.columns.get(field.name, ()) if isinstance(one, int | float)] if sample is not None else []
        bounds = [one for one in (field.minimum, field.maximum) if one is not None]
        largest = max(map(abs, [*values, *bounds]), default=0)
        if largest > _EXACT:
            return f"{field.name!r} holds integers up to {largest:g}, more than the {_EXACT:,} that single precision tells apart"
    return ""


def told_apart(signature: Signature, precision: str) -> Signature:
    """The signature with bounds of its integers within which a graph of this `precision` tells each from the next; stated ones stay."""
    if precision != "float32":
        return signature

    def bounded(field: Field) -> Field:
        if field.kind != "integer" or field.shape:
            return field
        lowest = -_EXACT if field.minimum is None else field.minimum
        return replace(field, minimum=lowest, maximum=_EXACT if field.maximum is None else field.maximum)

    return replace(signature, inputs=tuple(map(bounded, signature.inputs)))


def _evidence(
    found: Parity, asked: Questions | None, precision: str, libraries: Mapping[str, str], tries: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    """What stands in parity.json."""
    versions = {key: value for key, value in libraries.items() if key != "python"}
    return {
        "passed": found.passed,
        "reason": found.why,
        "precision": precision,
        "rows": found.rows,
        "rows_of_sample": asked.of_sample if asked is not None and found.rows else 0,
        "rows_made": asked.made if asked is not None and found.rows else 0,
        "flips": found.flips,
        "largest_difference": _finite(found.largest_difference),
        "relative": found.relative,
        "tolerance": TOLERANCE,
        "python": libraries.get("python", ""),
        "versions": versions | {"onnxruntime": version("onnxruntime")},
        "tries": list(tries),
    }


def _finite(number: float) -> float | None:
    """A number that JSON has, to so many digits that it is the same on every machine that computes alike; None for infinity."""
    return float(f"{number:.{_DIGITS}g}") if number != float("inf") else None


def _versions(framework: str, library: str) -> dict[str, str]:
    return {library: str(sys.modules[framework].__version__), **_installed("numpy", "skl2onnx", "onnx")}


def _written_by(card: Card) -> dict[str, str]:
    """The versions of the libraries that take part where a framework writes a graph itself."""
    return _installed(card.library, "torch", "numpy", "onnx", "onnxscript")


def _installed(*distributions: str) -> dict[str, str]:
    """The versions of those that are installed, and that of Python."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in distributions:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found

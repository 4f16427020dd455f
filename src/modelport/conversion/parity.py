"""The gate between a model and its ONNX form: both are asked the same rows, and must answer the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from modelport.engines import Engine
from modelport.errors import ModelContract, ModelFailed, ModelportError
from modelport.samples import Sample
from modelport.signature import Columns, Field, Signature, WrongValue, check, moment_text, to_array

TOLERANCE = 1e-4
"""How far a number may be from the original: absolute for probabilities and scores, relative for what a regressor answers."""
_SAMPLE_ROWS, _SAMPLE_VALUES = 2000, 100_000
"""Of a sample, so many rows are asked at most, and fewer of a wide one."""
_MOST_NOISE, _LEAST_NOISE = 500, 16
"""So many random rows are asked of a model that says nothing of where it decides."""
_SINGLE_ROWS = 50
"""So many rows are asked one by one too: a row alone is computed another way than many."""


@dataclass(frozen=True)
class Parity:
    """How alike two engines answered."""

    rows: int
    flips: int
    """Rows with another label."""
    largest_difference: float
    relative: bool
    why: str = ""
    """In one line, why the gate stays shut; empty when it is passed."""

    @property
    def passed(self) -> bool:
        return not self.why


@dataclass(frozen=True)
class Questions:
    """What both engines are asked."""

    columns: Columns
    of_sample: int
    made: int


def questions(signature: Signature, sample: Sample | None, made: Mapping[str, Sequence[Any]]) -> Questions:
    """Rows spread over the sample, and rows made from the model, by the signature's names; only those that the signature takes."""
    names = [field.name for field in signature.inputs]
    taken: list[dict[str, Any]] = []
    if sample is not None:
        known = [name for name in names if name in sample.columns]
        most = min(_SAMPLE_ROWS, max(50, _SAMPLE_VALUES // len(names)))
        taken = _taken(signature, sample.records(range(0, sample.rows, max(1, sample.rows // most))[:most], known))
    of_sample = len(taken)
    taken += _taken(signature, [dict(zip(names, row, strict=True)) for row in zip(*(made[name] for name in names), strict=True)])
    columns = {field.name: to_array(field, [record[field.name] for record in taken]) for field in signature.inputs}
    return Questions(columns, of_sample, len(taken) - of_sample)


def noise(signature: Signature, sample: Sample | None) -> Questions:
    """Rows spread over the sample, and random ones for a model that says nothing of where it decides; fewer where a row is large."""
    rng = np.random.default_rng(0)
    size = sum(math.prod(map(abs, field.preprocessing.shape if field.preprocessing else field.shape)) for field in signature.inputs)
    rows = max(_LEAST_NOISE, min(_MOST_NOISE, _SAMPLE_VALUES // size))
    made = {field.name: _random(field, rows, rng) for field in signature.inputs}
    if sample is None:
        return Questions(made, 0, rows)
    asked = questions(signature, sample, {field.name: () for field in signature.inputs})
    columns = {name: np.concatenate([asked.columns[name], array]) for name, array in made.items()} if asked.of_sample else made
    return Questions(columns, asked.of_sample, rows)


def _random(field: Field, rows: int, rng: np.random.Generator) -> Any:
    """So many random values of a field, within its bounds; of pictures one half is grain, the other patches of colour."""
    if field.preprocessing is not None:
        height, width, channels = field.preprocessing.shape
        pixels = rng.integers(0, 256, (rows, height, width, channels), dtype=np.uint8)
        patches = rng.integers(0, 256, (rows // 2, 4, 4, channels), dtype=np.uint8)
        pixels[: rows // 2] = patches[:, np.arange(height) * 4 // height][:, :, np.arange(width) * 4 // width]
        return pixels
    if field.kind not in ("number", "integer", "tensor"):
        values = [False, True] if field.kind == "boolean" else field.choices or (field.example,)
        return to_array(field, [values[place] for place in rng.integers(len(values), size=rows)])
    whole = field.kind == "integer" or np.dtype(field.dtype or "float64").kind in "iu"
    scale = rng.choice([0.1, 1.0, 10.0], size=(rows, *(1 for _ in field.shape)))
    numbers = rng.normal(0.0, scale, (rows, *map(abs, field.shape)))
    if whole:
        numbers = np.abs(numbers).round()
    lowest, highest = (-np.inf if field.minimum is None else field.minimum), (np.inf if field.maximum is None else field.maximum)
    return to_array(field, list(np.clip(numbers, lowest, highest).astype(np.int64 if whole else np.float64)))


def compare(native: Engine, graph: Engine, asked: Questions) -> Parity:
    """Ask both engines and compare what they answer, label by label and number by number.

    Rows that the original itself does not answer are left out. A label that differs counts also where two probabilities tie.
    """
    relative = not any(_is_label(field) or _is_share(field) for field in native.signature.outputs)
    columns, answers = _answered(native, asked.columns)
    rows = len(next(iter(answers.values())))
    if not rows:
        return Parity(0, 0, 0.0, relative, "the original answers none of the rows that could be asked")
    alone = np.unique(np.linspace(0, rows - 1, min(rows, _SINGLE_ROWS)).astype(int))
    try:
        together = graph.predict(columns)
        singly = [graph.predict({name: array[row : row + 1] for name, array in columns.items()}) for row in alone.tolist()]
    except ModelportError as error:
        return Parity(rows, 0, 0.0, relative, f"the graph does not answer: {error.message}")
    flipped = np.zeros(rows, dtype=bool)
    largest, where = 0.0, ""
    for field in native.signature.outputs:
        for at, got in ((np.arange(rows), together[field.name]), (alone, np.concatenate([one[field.name] for one in singly]))):
            wanted = answers[field.name]
            if _is_label(field):
                flipped[at[_differ(wanted[at], got)]] = True
                continue
            far = _distance(wanted, got, at, relative=relative)
            if far > largest:
                largest, where = far, field.name
    flips = int(flipped.sum())
    why = ""
    if flips:
        why = f"{flips:,} of {rows:,} rows get another label"
    elif not largest < TOLERANCE:
        why = f"{where} differs by up to {largest:.1g}"
    return Parity(rows, flips, largest, relative, why)


def _taken(signature: Signature, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The records that fit the signature, as its columns hold them."""
    taken = []
    for record in records:
        try:
            taken.append({field.name: check(field, _plain(record.get(field.name))) for field in signature.inputs})
        except WrongValue:
            continue
    return taken


def _plain(value: Any) -> Any:
    return moment_text(value) if isinstance(value, datetime) else value


def _is_label(field: Field) -> bool:
    return field.kind != "number" or (field.dtype or "").startswith("int")


def _is_share(field: Field) -> bool:
    """Whether a number says how likely something is, of which one in a million and none are alike."""
    return (field.minimum, field.maximum) == (0.0, 1.0)


def _answered(native: Engine, columns: Columns) -> tuple[Columns, Columns]:
    """The rows that the original answers, and its answers: those that it does not answer are searched by halves."""
    rows = len(next(iter(columns.values())))
    try:
        answers = native.predict(columns)
    except (ModelFailed, ModelContract):
        if rows <= 1:
            return {name: array[:0] for name, array in columns.items()}, {field.name: np.empty(0) for field in native.signature.outputs}
        halves = [
            _answered(native, {name: array[part] for name, array in columns.items()}) for part in (slice(rows // 2), slice(rows // 2, rows))
        ]
        kept = [half for half in halves if len(next(iter(half[0].values())))] or halves[:1]
        return (
            {name: np.concatenate([half[0][name] for half in kept]) for name in columns},
            {field.name: np.concatenate([half[1][field.name] for half in kept]) for field in native.signature.outputs},
        )
    fine = np.ones(rows, dtype=bool)
    for answer in answers.values():
        if answer.dtype.kind == "f":
            fine &= np.isfinite(answer.reshape(rows, -1)).all(axis=1)
    if fine.all():
        return columns, answers
    return {name: array[fine] for name, array in columns.items()}, {name: array[fine] for name, array in answers.items()}


def _differ(wanted: Any, got: Any) -> Any:
    """In which rows labels differ."""
    if wanted.shape != got.shape:
        return np.ones(len(wanted), dtype=bool)
    alike = np.array([one == other for one, other in zip(wanted.ravel().tolist(), got.ravel().tolist(), strict=True)], dtype=bool)
    return ~alike.reshape(len(wanted), -1).all(axis=1)


def _distance(wanted: Any, got: Any, at: Any, *, relative: bool) -> float:
    """The largest difference of numbers. Relative ones are to the answer, or to what is common among the answers where it is near 0."""
    if wanted[at].shape != got.shape:
        return float("inf")
    apart = np.abs(wanted[at].astype(np.float64) - got.astype(np.float64))
    if relative:
        sizes = np.abs(wanted.astype(np.float64))
        common = np.median(sizes, axis=0)
        common = np.where(common > 0, common, sizes.max(axis=0))
        apart = apart / np.maximum(np.maximum(sizes[at], common), np.finfo(np.float64).tiny)
    return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0))

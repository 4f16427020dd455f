"""A model's signature put together: what the user states comes first, then a sample, then what the model says of itself."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from modelport import preprocessing
from modelport.errors import SignatureError
from modelport.frameworks import Card
from modelport.frameworks.pictured import image, image_like, sized
from modelport.samples import Sample
from modelport.signature import MAX_INTEGER, MAX_NUMBER, Columns, Field, Signature, WrongValue, check, did_you_mean, made_example, to_array

ASK = "Give --sample FILE with a few real input rows, or state the fields with --schema FILE."
_MAGNITUDES = (MAX_NUMBER, 1e150, 3.4028234663852886e38, 1e30, 1e18, 1e12, 1e9, 1e6)
_PROBE_ROWS = 64
EXACT = frozenset({"function", "lookup"})
"""Frameworks whose models say exactly what their fields are: a sample knows no better, and no larger numbers are tried."""


def infer(described: Signature, card: Card, sample: Sample | None, stated: Signature | None, outputs: Sequence[str] = ()) -> Signature:
    """The signature of a model that describes itself as `described`.

    `sample` gives names where the model has none, and kinds where the model only knows numbers; `stated` overrides both, field by field;
    `outputs` renames the model's outputs in order. SignatureError says in one message what is still unknown and which flag gives it.
    """
    stated = stated or Signature((), ())
    inputs = list(described.inputs)
    if sample is not None:
        inputs = _with_sample(inputs, sample, named=_named(card, described), exact=card.framework in EXACT)
    inputs = _with_stated(inputs, stated.inputs, named=_named(card, described) or (sample is not None and sample.named))
    unknown = [field.name for field in inputs if field.kind == "unknown"]
    if unknown or not inputs:
        what = f"what {', '.join(map(repr, unknown[:8]))} hold{'s' if len(unknown) == 1 else ''}" if unknown else "what goes in"
        raise SignatureError(f"this {card.cls.rpartition('.')[2]} does not say {what}", hint=ASK)
    for field in inputs:
        if field.kind == "number" and np.dtype(field.dtype or "float64").kind != "f":
            hint = "Make it an integer, or its dtype float64."
            raise SignatureError(f"field {field.name!r} is a number of dtype {field.dtype}, which would cut off fractions", hint=hint)
    named = {field.name: field for field in stated.inputs}
    return Signature(tuple(_with_example(field, named.get(field.name)) for field in inputs), _outputs(described, stated, outputs))


def pictured(described: Signature, said: Any) -> Signature:
    """What a model says of itself, with the input that takes pictures as an image. `said` is what `modelport.preprocessing.stated` takes.

    The model's own shape says the layout and the dtype, and the size where it is not said. SignatureError where the two do not fit, or no
    input can be a picture.
    """
    if said is None:
        return described
    stated = preprocessing.stated(said)
    images = [field for field in described.inputs if field.kind == "image"]
    found = images or [field for field in described.inputs if field.kind == "tensor" and image_like(field.shape)]
    if len(found) != 1:
        given = "; ".join(f"{field.name!r}, {sized(field)}" for field in described.inputs[:8])
        what = "has several inputs that could be pictures" if found else "takes no pictures"
        raise SignatureError(f"the model {what}: {given}", hint="--image is for models with one input of height, width and channels.")
    made = image(found[0], stated)
    return replace(described, inputs=tuple(made if field is found[0] else field for field in described.inputs))


def _named(card: Card, described: Signature) -> bool:
    """Whether the model knows its columns by name; x0, x1, ..., text and image are names nobody gave."""
    made_up = [f"x{index}" for index in range(len(described.inputs))]
    return bool(card.features) or [field.name for field in described.inputs] not in (made_up, ["text"], ["image"])


def _with_sample(inputs: list[Field], sample: Sample, *, named: bool, exact: bool) -> list[Field]:
    if not inputs:
        return list(sample.fields)
    if named and sample.named:
        by_name = {field.name: field for field in sample.fields}
        # LightGBM keeps "floor area" as "floor_area", and converters to ONNX do alike: the name that people gave is the better one
        as_kept = {_as_kept(name): name for name in by_name}
        inputs = [
            field if field.name in by_name else replace(field, name=as_kept.get(_as_kept(field.name), field.name)) for field in inputs
        ]
        missing = [field.name for field in inputs if field.name not in by_name and not (exact and field.optional)]
        if missing:
            near = did_you_mean(missing[0], by_name)
            hint = f"Its columns: {', '.join(list(by_name)[:12])}."
            raise SignatureError(f"the sample has no column {missing[0]!r}, which the model wants{near}", hint=hint)
        return [_refined(field, by_name[field.name], exact=exact) if field.name in by_name else field for field in inputs]
    if len(inputs) != len(sample.fields):
        raise SignatureError(
            f"the sample has {len(sample.fields)} columns, the model takes {len(inputs)}",
            hint="When one of them is what the model predicts, name it with --target.",
        )
    return [
        _refined(replace(field, name=theirs.name if sample.named else field.name), theirs, exact=exact)
        for field, theirs in zip(inputs, sample.fields, strict=True)
    ]


def _as_kept(name: str) -> str:
    return re.sub(r"\W", "_", name)


def _refined(field: Field, sampled: Field, *, exact: bool) -> Field:
    """The model's field with what the sample knows better: its kind among numbers, its known strings, a real example."""
    example = sampled.example
    if field.kind == "image":
        if sampled.kind != "string":
            raise SignatureError(
                f"column {sampled.name!r} of the sample is a {sampled.kind}, and the model takes a picture there",
                hint="Give a folder of pictures, or a CSV file with a column of their paths.",
            )
        return replace(field, example=example)
    if field.kind == "unknown":
        return replace(sampled, name=field.name, description=field.description)
    if exact:
        return field if example is None else replace(field, example=example)
    if field.kind in ("number", "integer", "boolean") and not field.shape:
        if sampled.kind not in ("number", "integer", "boolean", "unknown"):
            raise SignatureError(
                f"column {field.name!r} of the sample holds {sampled.example!r}, and the model wants numbers there",
                hint="Was the column encoded before training? Give a sample of what the model itself got, or pack the whole pipeline.",
            )
        only_whole = field.dtype is not None and np.dtype(field.dtype).kind != "f"
        kind = field.kind if sampled.kind == "unknown" or only_whole else sampled.kind
        return replace(field, kind=kind, example=field.example if example is None else example)
    if field.kind == "category":
        return replace(field, example=example if example in field.choices else field.example)
    return replace(field, choices=field.choices or sampled.choices, example=field.example if example is None else example)


def _with_stated(inputs: list[Field], stated: Sequence[Field], *, named: bool) -> list[Field]:
    if not stated:
        return inputs
    if not inputs:
        return list(stated)
    if not named and len(stated) == len(inputs):
        return [_overridden(field, theirs) for field, theirs in zip(inputs, stated, strict=True)]
    known = {field.name for field in inputs}
    for field in stated:
        if field.name not in known:
            raise SignatureError(
                f"the schema states {field.name!r}, which is no input of the model{did_you_mean(field.name, known)}",
                hint=f"Its inputs: {', '.join(sorted(known)[:12])}{', ...' if len(known) > 12 else ''}.",
            )
    by_name = {field.name: field for field in stated}
    return [_overridden(field, by_name[field.name]) if field.name in by_name else field for field in inputs]


def _overridden(field: Field, stated: Field) -> Field:
    """What is stated, with what is not stated kept from the model: its dtype, shape, example and default."""
    if stated.kind == "image":
        said = {} if stated.preprocessing is None else stated.preprocessing.to_dict()
        made = image(field, said)
        return replace(stated, preprocessing=made.preprocessing, example=stated.example or made.example)
    unstated = ("example", "description", "choices", *(("default", "schema") if stated.kind == field.kind else ()))
    kept = {key: getattr(field, key) for key in unstated if not getattr(stated, key)}
    if stated.kind not in ("category", "string"):
        kept.pop("choices", None)
    same = stated.kind == field.kind
    return replace(stated, **kept, dtype=stated.dtype or (field.dtype if same else None), shape=stated.shape or field.shape)


def _outputs(described: Signature, stated: Signature, names: Sequence[str]) -> tuple[Field, ...]:
    outputs = described.outputs
    names = names or [field.name for field in stated.outputs]
    gives = f"It gives {', '.join(field.name for field in outputs)}."
    if len(names) > len(outputs):
        if outputs and outputs[0].shape == (len(names),) and outputs[0].kind == "number" and len(set(names)) == len(names):
            # one vector output and a name for each of its elements
            return (replace(outputs[0], choices=tuple(names)), *outputs[1:])
        raise SignatureError(f"{len(names)} outputs are named, the model has {len(outputs)}", hint=gives)
    renamed = (*(replace(field, name=name) for field, name in zip(outputs, names, strict=False)), *outputs[len(names) :])
    for field, theirs in zip(outputs, stated.outputs, strict=False):
        if field.kind != "category" and _ALIKE.get(theirs.kind, theirs.kind) != _ALIKE.get(field.kind, field.kind):
            raise SignatureError(f"the schema states a {theirs.kind} as output {theirs.name!r}, the model gives a {field.kind}", hint=gives)
    described_by = {field.name: field.description for field in stated.outputs}
    return tuple(replace(field, description=described_by.get(field.name) or field.description) for field in renamed)


_ALIKE: Mapping[str, str] = {"integer": "number", "category": "string", "text": "string"}


def _with_example(field: Field, stated: Field | None = None) -> Field:
    """The field with an example that fits it: its own where it does, else a made one. SignatureError when the stated one does not."""
    if field.example is not None:
        try:
            check(field, field.example)
        except WrongValue as wrong:
            if stated is not None and stated.example is not None:
                raise SignatureError(f"the example of field {field.name!r}: {wrong}", hint="Correct it in the schema.") from wrong
        else:
            return field
    return replace(field, example=made_example(field))


def with_computable_range(signature: Signature, predict: Callable[[Columns], Columns]) -> Signature:
    """The signature with the largest magnitude that the model can compute as the bounds of its number fields.

    Most models overflow somewhere: trees cast to float32, products of large numbers become infinite. The bound is measured: rows with all
    fields, and each field alone, at plus and minus a magnitude, from the largest double down, until every answer is a number. Bounds that
    are stated stay.
    """
    numbers = [field for field in signature.inputs if field.kind in ("number", "integer") and not field.shape]
    open_ended = {field.name for field in numbers if field.minimum is None or field.maximum is None}
    if not open_ended:
        return signature
    for magnitude in _MAGNITUDES:
        if _computes(signature, predict, _probe(signature, {field.name for field in numbers}, magnitude)):
            break
    else:
        return signature
    if magnitude == MAX_NUMBER:
        return signature

    def bounded(field: Field) -> Field:
        if field.name not in open_ended or (field.kind == "integer" and magnitude > MAX_INTEGER):
            return field
        lowest = -magnitude if field.minimum is None else field.minimum
        return replace(field, minimum=lowest, maximum=magnitude if field.maximum is None else field.maximum)

    return replace(signature, inputs=tuple(bounded(field) for field in signature.inputs))


def _probe(signature: Signature, names: set[str], magnitude: float) -> Columns:
    """Rows around the example with the fields `names` at the magnitude or their own bounds: all up, all down, mixed, and one by one."""
    rng = np.random.default_rng(0)
    columns = {}
    order = {name: index for index, name in enumerate(field.name for field in signature.inputs if field.name in names)}
    signs = rng.choice([-1.0, 0.0, 1.0], size=(_PROBE_ROWS, len(order)))
    signs[0], signs[1] = 1.0, -1.0
    signs[2:18] = rng.choice([-1.0, 1.0], size=(16, len(order)))
    for index in range(min(len(order), 20)):
        signs[18 + 2 * index : 20 + 2 * index] = 0.0
        signs[18 + 2 * index, index], signs[19 + 2 * index, index] = 1.0, -1.0
    for field in signature.inputs:
        if field.name not in names:
            columns[field.name] = to_array(field, [check(field, field.example)] * _PROBE_ROWS)
            continue
        sign = signs[:, order[field.name]]
        extreme = np.clip(sign * magnitude, field._lowest(), field._highest())
        values = np.where(sign == 0.0, float(field.example or 0.0), extreme).tolist()
        if field.kind == "integer":
            values = [max(-MAX_INTEGER, min(MAX_INTEGER, int(value))) for value in values]
        columns[field.name] = to_array(field, values)
    return columns


def _computes(signature: Signature, predict: Callable[[Columns], Columns], columns: Columns) -> bool:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            signature.records(predict(columns))
        except Exception:  # noqa: BLE001 whatever the model raises means that it cannot compute this
            return False
    return True

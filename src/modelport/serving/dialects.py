"""The ways in which a model can be asked, each turned into one `Call`: Modelport's own, and the protocols of other servers.

native       record in -> record out, list in -> list out, CSV in -> CSV out
query        a GET: its parameters are one record
v1           TensorFlow Serving (https://www.tensorflow.org/tfx/serving/api_rest): instances -> predictions; Vertex AI asks so too
v2           the Open Inference Protocol (https://github.com/kserve/open-inference-protocol): tensors in, tensors out, as JSON
invocations  Amazon SageMaker's container contract: as native, and CSV with or without a header
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from modelport.errors import FieldError, InvalidInput, MalformedBody, pointer
from modelport.serving.inputs import parse_json
from modelport.serving.negotiation import CSV, JSON, choose, media_type
from modelport.serving.outputs import csv_table, to_json
from modelport.serving.service import Call, Service
from modelport.signature import Columns, Field, Signature, did_you_mean, to_plain


@dataclass(frozen=True, slots=True)
class Request:
    """What a dialect needs of an HTTP request."""

    body: bytes
    content_type: str | None
    accept: str
    max_rows: int
    query: bytes = b""


def native(service: Service, request: Request) -> Call:
    """A record, a list of records, or CSV with a header. The answer has the form of the question unless Accept asks for another."""
    return _native(service, request, headless=False)


def invocations(service: Service, request: Request) -> Call:
    """As `native`; CSV without a header is taken too, and answered without one."""
    return _native(service, request, headless=True)


def query(service: Service, request: Request) -> Call:
    """The parameters of a GET as one record, each typed as strictly as a cell of CSV."""
    wanted = choose(request.accept, (JSON, CSV))
    rows = service.inputs.query(request.query)
    if wanted == JSON:
        return Call(rows, partial(service.encoder.json, single=True))
    return Call(rows, partial(csv_table, service.signature), f"{CSV}; charset=utf-8")


def _native(service: Service, request: Request, *, headless: bool) -> Call:
    given = media_type(request.content_type, (JSON, CSV))
    wanted = choose(request.accept, (JSON, CSV) if given == JSON else (CSV, JSON))
    header = True
    if given == JSON:
        rows = service.inputs.json(request.body, request.max_rows)
    else:
        rows, header = service.inputs.csv(request.body, request.max_rows, headless=headless)
    if wanted == JSON:
        return Call(rows, partial(service.encoder.json, single=rows.single), plain=given == JSON)
    return Call(rows, partial(csv_table, service.signature, header=header), f"{CSV}; charset=utf-8")


# v1: instances -> predictions


def v1(service: Service, request: Request) -> Call:
    """{"instances": [...]} -> {"predictions": [...]}.

    An instance is a record; a list of numbers in the order of the fields where all are numbers; or the value itself of an only field. A
    prediction is the value of an only output, else a record.
    """
    media_type(request.content_type, (JSON,))
    choose(request.accept, (JSON,))
    hint = f'Send {{"instances": [{service.inputs.example}]}}.'
    body = parse_json(request.body, hint)
    instances = body.get("instances") if isinstance(body, dict) else None
    if not isinstance(instances, list):
        raise MalformedBody('the body has no list "instances"', hint=hint)
    for key in body:
        if key not in ("instances", "signature_name", "parameters"):
            raise MalformedBody(f"the body has an unknown key {key[:60]!r}{did_you_mean(key, ('instances', 'parameters'))}", hint=hint)
    fields = service.signature.inputs
    names = [field.name for field in fields]
    records = [_record(instance, names, service.signature) for instance in instances]
    rows = service.inputs.records(records, request.max_rows)
    return Call(rows, partial(_predictions, service.signature))


def _record(instance: Any, names: Sequence[str], signature: Signature) -> Any:
    if isinstance(instance, list) and len(instance) == len(names) and _is_matrix(signature):
        return dict(zip(names, instance, strict=True))
    return {names[0]: instance} if len(names) == 1 and not isinstance(instance, dict) else instance


def _predictions(signature: Signature, columns: Columns | None) -> bytes:
    records = [] if columns is None else signature.records(columns)
    if len(signature.outputs) == 1:
        return to_json({"predictions": [record[signature.outputs[0].name] for record in records]})
    return to_json({"predictions": records})


def v1_status(service: Service) -> bytes:
    """The state of a model, as TensorFlow Serving gives it."""
    state = {"version": _version(service), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    return to_json({"model_version_status": [state]})


# v2: the Open Inference Protocol

_INTEGERS = {f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)}
_FLOATS = {"FP32": "float32", "FP64": "float64"}
_DATATYPES = ("BOOL", "BYTES", *_INTEGERS, *_FLOATS)
_MAX_DIMENSIONS = 8
_TENSOR_KEYS = ("name", "shape", "datatype", "parameters", "data")


def v2_server(version: str) -> bytes:
    """The server's metadata."""
    return to_json({"name": "modelport", "version": version, "extensions": []})


def v2_model(service: Service) -> bytes:
    """The model's metadata; the names of a vector's elements stand among its properties, as JSON."""
    signature = service.signature
    return to_json(
        {
            "name": service.name,
            "versions": [_version(service)],
            "platform": f"modelport_{service.bundle.card.framework}",
            "inputs": [_metadata(field) for field in signature.inputs],
            "outputs": [_metadata(_answered(field)) for field in signature.outputs],
            "properties": {
                f"{field.name}.labels": to_json([str(choice) for choice in field.choices]).decode()
                for field in signature.outputs
                if field.choices and field.shape
            },
        }
    )


def v2_infer(service: Service, request: Request) -> Call:
    """Tensors -> tensors: one tensor a field; or, where all fields are numbers, one matrix of (rows, fields) under a name of its own.

    Data is flat or nested. FP32 data are single-precision numbers and reach the model as such. `outputs` selects; `id` is given back.
    """
    media_type(request.content_type, (JSON,))
    choose(request.accept, (JSON,))
    signature = service.signature
    body = parse_json(request.body, 'Send {"inputs": [{"name": ..., "shape": ..., "datatype": ..., "data": ...}]}.')
    if not isinstance(body, dict):
        raise MalformedBody("the body is not an object")
    _known_keys("the body", body, ("id", "parameters", "inputs", "outputs"))
    name = body.get("id")
    if name is not None and not isinstance(name, str):
        raise InvalidInput("id", "expected a string")
    tensors = _tensors(body.get("inputs"))
    outputs = _selected(body.get("outputs"), signature)
    one_matrix = len(tensors) == 1 and _looks_like_matrix(tensors[0], signature)
    cells = _matrix(tensors[0], signature) if one_matrix else _cells(tensors, signature)
    counts = {len(values) for values in cells.values()}
    if len(counts) > 1:
        raise MalformedBody(f"the tensors have different numbers of rows: {', '.join(map(str, sorted(counts)))}")
    count = counts.pop() if counts else 0
    records = [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
    rows = service.inputs.records(records, request.max_rows)
    return Call(rows, partial(_inferred, service, outputs, name, count))


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    """Flat, row-major."""


def _tensors(raw: Any) -> list[_Tensor]:
    if not isinstance(raw, list) or not raw:
        raise InvalidInput("inputs", "expected a list of tensors, at least one")
    tensors = [_tensor(part, index) for index, part in enumerate(raw)]
    for name, times in Counter(tensor.name for tensor in tensors).items():
        if times > 1:
            raise InvalidInput("inputs", f"the tensor {name[:60]!r} stands there twice")
    return tensors


def _tensor(raw: Any, index: int) -> _Tensor:
    if not isinstance(raw, dict):
        raise InvalidInput([FieldError(pointer("inputs", index), "expected a tensor: an object")])
    _known_keys(f"the tensor {index}", raw, _TENSOR_KEYS)
    name, shape, datatype, data = (raw.get(key) for key in ("name", "shape", "datatype", "data"))
    detail = {}
    if not isinstance(name, str) or not name:
        detail["name"] = "expected the tensor's name"
    if not isinstance(shape, list) or not 0 < len(shape) <= _MAX_DIMENSIONS or not all(type(size) is int and size >= 0 for size in shape):
        detail["shape"] = "expected a list of sizes, the rows first"
    if datatype not in _DATATYPES:
        half = " (JSON has no half-precision numbers: send FP32)" if datatype == "FP16" else ""
        detail["datatype"] = f"{str(datatype)[:40]!r} is not taken{half}; {', '.join(_DATATYPES)} are"
    if not isinstance(data, list):
        detail["data"] = "expected the tensor's values in a list"
    if detail:
        raise InvalidInput([FieldError(pointer("inputs", index, key), what) for key, what in detail.items()])
    return _Tensor(str(name), shape or [], str(datatype), _values(data or [], shape or [], str(datatype), pointer("inputs", index, "data")))


def _values(data: list[Any], shape: Sequence[int], datatype: str, where: str) -> list[Any]:
    """The tensor's values, flat. FP32 values are rounded to single precision: that is what the sender has."""
    flat = _flat(data, len(shape))
    if len(flat) != math.prod(shape):
        raise InvalidInput([FieldError(where, f"{len(flat)} values do not fill the shape {list(shape)}")])
    fits = _fits(datatype)
    for place, value in enumerate(flat):
        if value is not None and not fits(value):
            raise InvalidInput([FieldError(where + pointer(place), f"is no {datatype} value", datatype)])
    return [None if value is None else float(np.float32(value)) for value in flat] if datatype == "FP32" else flat


def _flat(data: list[Any], dimensions: int) -> list[Any]:
    for _ in range(dimensions - 1):
        if not any(isinstance(part, list) for part in data):
            break
        data = list(chain.from_iterable(part if isinstance(part, list) else (part,) for part in data))
    return data


def _fits(datatype: str) -> Callable[[Any], bool]:
    """Whether a value is one of the datatype's."""
    if datatype in ("BYTES", "BOOL"):
        kind = str if datatype == "BYTES" else bool
        return lambda value: isinstance(value, kind)
    if datatype in _INTEGERS:
        limits = np.iinfo(_INTEGERS[datatype])
        low, high = int(limits.min), int(limits.max)
        return lambda value: type(value) is int and low <= value <= high
    largest = float(np.finfo(_FLOATS[datatype]).max)
    return lambda value: type(value) in (int, float) and abs(value) <= largest


def _known_keys(where: str, raw: dict[str, Any], known: Sequence[str]) -> None:
    for key in raw:
        if key not in known:
            raise MalformedBody(f"{where} has an unknown key {key[:60]!r}{did_you_mean(key, known)}")


def _is_matrix(signature: Signature) -> bool:
    return all(field.kind in ("number", "integer") and not field.shape for field in signature.inputs)


def _looks_like_matrix(tensor: _Tensor, signature: Signature) -> bool:
    names = {field.name for field in signature.inputs}
    return _is_matrix(signature) and tensor.name not in names and tensor.shape[1:] == [len(names)]


def _matrix(tensor: _Tensor, signature: Signature) -> dict[str, list[Any]]:
    width = len(signature.inputs)
    return {field.name: tensor.data[index::width] for index, field in enumerate(signature.inputs)}


def _cells(tensors: Sequence[_Tensor], signature: Signature) -> dict[str, list[Any]]:
    """The values of each field, a list of one a row."""
    fields = {field.name: field for field in signature.inputs}
    cells: dict[str, list[Any]] = {}
    for index, tensor in enumerate(tensors):
        field = fields.get(tensor.name)
        if field is None:
            matrix = f", and no matrix of shape [rows, {len(fields)}]" if _is_matrix(signature) else ""
            detail = f"there is no field {tensor.name[:60]!r}{matrix}{did_you_mean(tensor.name, list(fields))}"
            raise InvalidInput([FieldError(pointer("inputs", index, "name"), detail)])
        rows, *shape = tensor.shape
        fits = len(shape) == len(field.shape) and all(wanted in (-1, size) for wanted, size in zip(field.shape, shape, strict=True))
        if not fits and not (field.shape == () and shape == [1]):
            wanted = ["rows", *field.shape]
            detail = f"the shape is {tensor.shape}; expected [{', '.join(map(str, wanted))}]"
            raise InvalidInput([FieldError(pointer("inputs", index, "shape"), detail)])
        cells[field.name] = tensor.data if not field.shape else _nested(tensor.data, rows, shape)
    return cells


def _nested(flat: list[Any], rows: int, shape: Sequence[int]) -> list[Any]:
    nested: list[Any] = np.array(flat, dtype=object).reshape(rows, *shape).tolist()
    return nested


def _selected(raw: Any, signature: Signature) -> list[Field]:
    """The outputs that a request asks for; all of them when it does not say."""
    fields = {field.name: field for field in signature.outputs}
    if raw is None or raw == []:
        return list(signature.outputs)
    if not isinstance(raw, list):
        raise InvalidInput("outputs", "expected a list of outputs")
    selected: dict[str, Field] = {}
    for index, part in enumerate(raw):
        name = part.get("name") if isinstance(part, dict) else None
        if not isinstance(name, str) or name not in fields:
            detail = f"there is no output {str(name)[:60]!r}{did_you_mean(name, list(fields))}; there are: {', '.join(fields)}"
            raise InvalidInput([FieldError(pointer("outputs", index, "name"), detail)])
        selected[name] = fields[name]
    return list(selected.values())


def _inferred(service: Service, outputs: Sequence[Field], name: str | None, rows: int, columns: Columns | None) -> bytes:
    answer: dict[str, Any] = {"model_name": service.name, "model_version": _version(service)}
    if name is not None:
        answer["id"] = name
    answer["outputs"] = [
        {"name": field.name, "shape": [rows, *_row_shape(field)], "datatype": _datatype(field), "data": _data(field, columns)}
        for field in map(_answered, outputs)
    ]
    return to_json(answer)


def _data(field: Field, columns: Columns | None) -> list[Any]:
    if columns is None:
        return []
    values = to_plain(field, columns[field.name])
    if field.kind == "json":
        return [to_json(value).decode() for value in values]
    if field.shape and field.choices:
        values = [list(value.values()) for value in values]
    return _flat(values, 1 + len(field.shape)) if field.shape else values


def _metadata(field: Field) -> dict[str, Any]:
    return {"name": field.name, "datatype": _datatype(field), "shape": [-1, *_row_shape(field)]}


def _answered(field: Field) -> Field:
    """An output as the protocol can give it: rows that may differ in shape are no tensor, and each is given as its JSON."""
    return replace(field, kind="json", shape=()) if -1 in field.shape else field


def _row_shape(field: Field) -> tuple[int, ...]:
    return field.shape if field.kind != "json" else ()


def _datatype(field: Field) -> str:
    """The protocol's name for what a field holds."""
    if field.kind == "boolean" or (field.choices and not field.shape and all(isinstance(choice, bool) for choice in field.choices)):
        return "BOOL"
    if field.kind in ("category", "string", "text", "datetime", "json", "image"):
        if field.kind == "category" and all(isinstance(choice, int) for choice in field.choices):
            return "INT64"
        return "FP64" if field.kind == "category" and not any(isinstance(choice, str | bool) for choice in field.choices) else "BYTES"
    dtype = field.dtype or ("int64" if field.kind == "integer" else "float64")
    return next((name for name, known in (_FLOATS | _INTEGERS).items() if known == dtype), "FP64")


def _version(service: Service) -> str:
    return service.version or "1"

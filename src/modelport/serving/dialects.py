"""The ways in which a model can be asked, each turned into one `Call`: Modelport's own, and the protocols of other servers.

native       record in -> record out, list in -> list out, CSV in -> CSV out, a picture or a form in -> as its record or records
query        a GET: its parameters are one record
v1           TensorFlow Serving (https://www.tensorflow.org/tfx/serving/api_rest): instances -> predictions; Vertex AI asks so too
v2           the Open Inference Protocol (https://github.com/kserve/open-inference-protocol): tensors in, tensors out, as JSON or as bytes
invocations  Amazon SageMaker's container contract: as native, and CSV with or without a header
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from modelport.errors import FieldError, InvalidInput, MalformedBody, pointer
from modelport.pictures import PictureError
from modelport.serving import uploads
from modelport.serving.inputs import parse_json
from modelport.serving.negotiation import CSV, JSON, choose, media_type
from modelport.serving.outputs import csv_table, to_json
from modelport.serving.problems import Answer
from modelport.serving.service import Call, Service
from modelport.signature import Columns, Field, Signature, did_you_mean, to_plain


@dataclass(frozen=True, slots=True)
class Request:
    """What a dialect needs of an HTTP request."""

    body: bytes
    content_type: str | None
    accept: str
    max_rows: int
    max_picture_bytes: int = 10 * 2**20
    json_bytes: str | None = None
    """How many bytes of the body are JSON, where tensors follow it as bytes: the header Inference-Header-Content-Length."""
    fetched: Mapping[str, bytes | PictureError] = field(default_factory=dict)
    """What was found behind the URLs that the body names."""
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
    inputs = service.inputs
    taken = (JSON, CSV, *((uploads.FORM,) if inputs.has_pictures else ()), *(uploads.TYPES if inputs.picture else ()))
    given = media_type(request.content_type, taken)
    wanted = choose(request.accept, (CSV, JSON) if given == CSV else (JSON, CSV))
    header = True
    if given == JSON:
        rows = inputs.json(request.body, request.max_rows, request.fetched)
    elif given == CSV:
        rows, header = inputs.csv(request.body, request.max_rows, headless=headless)
    elif given == uploads.FORM:
        found = uploads.parts(request.body, request.content_type or "")
        records, single = uploads.form_records(found, service.signature, request.max_picture_bytes)
        rows = inputs.records(records, request.max_rows, single=single)
    else:
        assert inputs.picture is not None
        uploads.check_size(request.body, request.max_picture_bytes)
        rows = inputs.records([{inputs.picture.name: request.body}], request.max_rows, single=True)
    if wanted == JSON:
        # (what a worker that died was asked in pictures is not asked again in another)
        return Call(rows, partial(service.encoder.json, single=rows.single), plain=given == JSON and not inputs.has_pictures)
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
    rows = service.inputs.records(records, request.max_rows, fetched=request.fetched)
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
_NUMPY = {"BOOL": "bool", "FP16": "float16", **_INTEGERS, **_FLOATS}
BINARY = "application/octet-stream"
"""What tensors as bytes come in, behind the JSON that describes them."""
_MAX_DIMENSIONS = 8
_TENSOR_KEYS = ("name", "shape", "datatype", "parameters", "data")


def v2_server(version: str) -> bytes:
    """The server's metadata."""
    return to_json({"name": "modelport", "version": version, "extensions": ["binary_tensor_data"]})


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

    Data is flat or nested, or stands as bytes behind the JSON (the extension binary_tensor_data). FP32 data are single-precision numbers
    and reach the model as such. A picture is a BYTES value, base64 in JSON, or a UINT8 tensor of the model's size. `outputs` selects; `id`
    is given back.
    """
    media_type(request.content_type, (JSON,) if request.json_bytes is None else (BINARY, JSON))
    choose(request.accept, (JSON, BINARY))
    signature = service.signature
    text, blob = _divided(request)
    body = parse_json(text, 'Send {"inputs": [{"name": ..., "shape": ..., "datatype": ..., "data": ...}]}.')
    if not isinstance(body, dict):
        raise MalformedBody("the body is not an object")
    _known_keys("the body", body, ("id", "parameters", "inputs", "outputs"))
    name = body.get("id")
    if name is not None and not isinstance(name, str):
        raise InvalidInput("id", "expected a string")
    tensors = _tensors(body.get("inputs"), blob)
    outputs = _selected(body.get("outputs"), signature)
    binary = _binary_outputs(body, outputs)
    one_matrix = len(tensors) == 1 and _looks_like_matrix(tensors[0], signature)
    cells = _matrix(tensors[0], signature) if one_matrix else _cells(tensors, signature)
    counts = {len(values) for values in cells.values()}
    if len(counts) > 1:
        raise MalformedBody(f"the tensors have different numbers of rows: {', '.join(map(str, sorted(counts)))}")
    count = counts.pop() if counts else 0
    records = [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
    rows = service.inputs.records(records, request.max_rows)
    return Call(rows, partial(_inferred, service, outputs, name, count, binary))


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    """Flat, row-major."""
    array: np.ndarray[Any, np.dtype[Any]] | None = None
    """The same where it came as bytes, but for BYTES."""


def _divided(request: Request) -> tuple[bytes, bytes]:
    """The JSON of a body, and the bytes of tensors behind it."""
    if request.json_bytes is None:
        return request.body, b""
    size = int(request.json_bytes) if request.json_bytes.isdecimal() and len(request.json_bytes) < 12 else -1
    if not 0 < size <= len(request.body):
        raise MalformedBody(f"Inference-Header-Content-Length is {request.json_bytes[:20]!r}, and the body has {len(request.body)} bytes")
    return request.body[:size], request.body[size:]


def _tensors(raw: Any, blob: bytes) -> list[_Tensor]:
    if not isinstance(raw, list) or not raw:
        raise InvalidInput("inputs", "expected a list of tensors, at least one")
    tensors, at = [], 0
    for index, part in enumerate(raw):
        size = _binary_size(part, index, len(blob) - at)
        tensors.append(_tensor(part, index, None if size is None else blob[at : at + size]))
        at += size or 0
    if at < len(blob):
        raise MalformedBody(f"{len(blob) - at} bytes behind the JSON belong to no tensor")
    for name, times in Counter(tensor.name for tensor in tensors).items():
        if times > 1:
            raise InvalidInput("inputs", f"the tensor {name[:60]!r} stands there twice")
    return tensors


def _binary_size(raw: Any, index: int, left: int) -> int | None:
    """How many of the bytes that are left are the tensor's; None where its data stand in the JSON."""
    parameters = raw.get("parameters") if isinstance(raw, dict) else None
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None and (type(size) is not int or not 0 <= size <= left):
        where = pointer("inputs", index, "parameters", "binary_data_size")
        raise InvalidInput([FieldError(where, f"is {str(size)[:40]}, and {left} bytes are left behind the JSON")])
    return size


def _tensor(raw: Any, index: int, blob: bytes | None) -> _Tensor:
    if not isinstance(raw, dict):
        raise InvalidInput([FieldError(pointer("inputs", index), "expected a tensor: an object")])
    _known_keys(f"the tensor {index}", raw, _TENSOR_KEYS)
    name, shape, datatype, data = (raw.get(key) for key in ("name", "shape", "datatype", "data"))
    detail = {}
    if not isinstance(name, str) or not name:
        detail["name"] = "expected the tensor's name"
    if not isinstance(shape, list) or not 0 < len(shape) <= _MAX_DIMENSIONS or not all(type(size) is int and size >= 0 for size in shape):
        detail["shape"] = "expected a list of sizes, the rows first"
    if datatype not in _DATATYPES and not (datatype == "FP16" and blob is not None):
        half = " (JSON has no half-precision numbers: send FP32)" if datatype == "FP16" else ""
        detail["datatype"] = f"{str(datatype)[:40]!r} is not taken{half}; {', '.join(_DATATYPES)} are"
    if blob is not None and data is not None:
        detail["data"] = "stands there, and behind the JSON too"
    elif blob is None and not isinstance(data, list):
        detail["data"] = "expected the tensor's values in a list"
    if detail:
        raise InvalidInput([FieldError(pointer("inputs", index, key), what) for key, what in detail.items()])
    if blob is not None:
        return _tensor_of_bytes(str(name), shape or [], str(datatype), blob, pointer("inputs", index))
    return _Tensor(str(name), shape or [], str(datatype), _values(data or [], shape or [], str(datatype), pointer("inputs", index, "data")))


def _tensor_of_bytes(name: str, shape: list[int], datatype: str, blob: bytes, where: str) -> _Tensor:
    """A tensor out of its bytes: little-endian numbers row by row, or texts, each behind its length in four bytes."""
    count = math.prod(shape)
    if datatype == "BYTES":
        texts = _texts(blob, where)
        if len(texts) != count:
            raise InvalidInput([FieldError(where, f"{len(texts)} values do not fill the shape {shape}")])
        return _Tensor(name, shape, datatype, texts)
    kind = np.dtype(_NUMPY[datatype]).newbyteorder("<")
    if len(blob) != count * kind.itemsize:
        raise InvalidInput([FieldError(where, f"has {len(blob)} bytes; {datatype} of the shape {shape} has {count * kind.itemsize}")])
    array = np.frombuffer(blob, kind).reshape(shape)
    if datatype == "BOOL" and count and array.view(np.uint8).max() > 1:
        raise InvalidInput([FieldError(where, "holds a byte that is no BOOL", datatype)])
    return _Tensor(name, shape, datatype, [], array)


def _texts(blob: bytes, where: str) -> list[bytes]:
    texts, at = [], 0
    while at < len(blob):
        end = at + 4 + int.from_bytes(blob[at : at + 4], "little")
        if at + 4 > len(blob) or end > len(blob):
            raise InvalidInput([FieldError(where, "is cut short: a value is longer than what is left of the bytes", "BYTES")])
        texts.append(blob[at + 4 : end])
        at = end
    return texts


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
    data = tensor.data if tensor.array is None else tensor.array.ravel().tolist()
    return {one.name: data[index::width] for index, one in enumerate(signature.inputs)}


def _cells(tensors: Sequence[_Tensor], signature: Signature) -> dict[str, list[Any]]:
    """The values of each field, a list of one a row."""
    fields = {one.name: one for one in signature.inputs}
    cells: dict[str, list[Any]] = {}
    for index, tensor in enumerate(tensors):
        known = fields.get(tensor.name)
        if known is None:
            matrix = f", and no matrix of shape [rows, {len(fields)}]" if _is_matrix(signature) else ""
            detail = f"there is no field {tensor.name[:60]!r}{matrix}{did_you_mean(tensor.name, list(fields))}"
            raise InvalidInput([FieldError(pointer("inputs", index, "name"), detail)])
        row_shape = _shape_for(known, tensor)
        rows, *shape = tensor.shape
        fits = len(shape) == len(row_shape) and all(wanted in (-1, size) for wanted, size in zip(row_shape, shape, strict=True))
        if not fits and not (row_shape == () and shape == [1]):
            wanted = ["rows", *row_shape]
            detail = f"the shape is {tensor.shape}; expected [{', '.join(map(str, wanted))}]"
            raise InvalidInput([FieldError(pointer("inputs", index, "shape"), detail)])
        cells[known.name] = _rows(known, tensor, rows, shape, pointer("inputs", index))
    return cells


def _shape_for(known: Field, tensor: _Tensor) -> tuple[int, ...]:
    """The shape of a row of the field in a tensor of this datatype: a picture is bytes, or pixels as the model takes them."""
    if known.kind == "image" and tensor.datatype == "UINT8" and known.preprocessing is not None:
        return known.preprocessing.shape
    return known.shape


def _rows(known: Field, tensor: _Tensor, rows: int, shape: Sequence[int], where: str) -> list[Any]:
    """The values of a field, one a row, as `modelport.signature.check` takes them."""
    if known.kind == "image" and tensor.datatype == "UINT8":
        pixels = np.asarray(tensor.data, np.uint8) if tensor.array is None else tensor.array
        return list(pixels.reshape(rows, *shape))
    if tensor.array is not None:
        if not known.shape:
            return list(tensor.array.ravel().tolist())
        floats = tensor.array.dtype.kind == np.dtype(known.dtype or "float64").kind == "f"
        return list(tensor.array.astype(known.dtype or "float64") if floats else tensor.array)
    if known.shape:
        return _nested(tensor.data, rows, shape)
    if known.kind == "image" or not any(isinstance(value, bytes) for value in tensor.data):
        return tensor.data
    try:
        return [value.decode() for value in tensor.data]
    except UnicodeDecodeError:
        raise InvalidInput([FieldError(where, "holds a value that is no UTF-8 text", "BYTES")]) from None


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


def _binary_outputs(body: Mapping[str, Any], outputs: Sequence[Field]) -> frozenset[str]:
    """The names of the outputs that are wanted as bytes."""

    def says(raw: Any, key: str) -> Any:
        parameters = raw.get("parameters") if isinstance(raw, dict) else None
        return parameters.get(key) if isinstance(parameters, dict) else None

    asked = {part["name"]: says(part, "binary_data") for part in body.get("outputs") or ()}
    every = says(body, "binary_data_output") is True
    return frozenset(one.name for one in outputs if asked.get(one.name, every) is True or (every and asked.get(one.name) is None))


def _inferred(
    service: Service, outputs: Sequence[Field], name: str | None, rows: int, binary: frozenset[str], columns: Columns | None
) -> bytes | Answer:
    answer: dict[str, Any] = {"model_name": service.name, "model_version": _version(service), "outputs": []}
    if name is not None:
        answer["id"] = name
    blobs = []
    for one in map(_answered, outputs):
        tensor: dict[str, Any] = {"name": one.name, "shape": [rows, *_row_shape(one)], "datatype": _datatype(one)}
        data = _data(one, columns)
        if one.name in binary:
            blobs.append(_bytes_of(data, tensor["datatype"]))
            tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            tensor["data"] = data
        answer["outputs"].append(tensor)
    text = to_json(answer)
    if not binary:
        return text
    return Answer(text + b"".join(blobs), BINARY, headers={"Inference-Header-Content-Length": str(len(text))})


def _bytes_of(data: list[Any], datatype: str) -> bytes:
    if datatype == "BYTES":
        texts = [str(value).encode() for value in data]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    return np.asarray(data, np.dtype(_NUMPY[datatype]).newbyteorder("<")).tobytes()


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

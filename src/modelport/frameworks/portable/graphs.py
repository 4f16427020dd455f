"""ONNX graphs written with numpy alone: nodes and constants are gathered, and become the bytes of a file.

The format is protocol buffers (https://protobuf.dev/programming-guides/encoding); the fields are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. Only what is written here needs no other package: no version of a converter that
fits an old Python.
"""

from __future__ import annotations

import json
import struct
from typing import Any, List, Mapping, Sequence, Union

import numpy as np

FLOAT, INT64, STRING, BOOL, DOUBLE = 1, 7, 8, 9, 11
"""The numbers of the types of a tensor's elements."""
OPSET, ML_OPSET, IR_VERSION = 17, 3, 8
"""What onnxruntime 1.14 and later take."""
ML = "ai.onnx.ml"
_KINDS = {"O": STRING, "U": STRING, "b": BOOL, "i": INT64, "u": INT64}
_TYPES = {"float32": FLOAT, "int64": INT64, "bool": BOOL, "float64": DOUBLE}


_MOST_BYTES = 2**31 - 1
"""What protocol buffers take."""
_CHUNK = 1_000_000


class NotConverted(Exception):
    """A model, or a part of one, that has no ONNX form here: why, in one line."""


class NeedsConverter(NotConverted):
    """A model that skl2onnx would have to write, which is not installed."""


class Tensor:
    """An attribute that is a tensor."""

    def __init__(self, array: Any) -> None:
        self.array = np.asarray(array)


class Graph:
    """A graph under construction: each node gives names of tensors, which later nodes take.

    `number` is the type in which it computes: FLOAT or DOUBLE.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.types: dict[str, int] = {}
        self.widths: dict[str, int] = {}
        """How many columns the tensors of shape (rows, columns) have, where that is known."""
        self.flat: set[str] = set()
        """The tensors of shape (rows,)."""
        self._domains = {"": OPSET, ML: ML_OPSET}
        self._nodes: list[Parts] = []
        self._constants: dict[tuple[Any, ...], str] = {}
        self._initializers: list[Parts] = []
        self._inputs: list[Parts] = []
        self._outputs: list[Parts] = []
        self._count = 0

    def input(self, name: str, kind: int, columns: int) -> str:
        """An input of shape (rows, columns)."""
        self._inputs.append(_value_info(name, kind, columns))
        self.types[name], self.widths[name] = kind, columns
        return name

    def output(self, name: str, tensor: str) -> None:
        """Give `tensor` out under a name."""
        self._nodes.append(_node("Identity", [tensor], [name], "", {}))
        columns = 0 if tensor in self.flat else self.widths.get(tensor, -1)
        self._outputs.append(_value_info(name, self.types[tensor], columns))

    def add(self, op: str, *inputs: str, kind: int | None = None, domain: str = "", **attributes: Any) -> str:
        """A node with one output: its name. The output is of type `kind`, or of that of the first input."""
        return self.add_several(op, inputs, (self.types[inputs[0]] if kind is None else kind,), domain, **attributes)[0]

    def add_several(self, op: str, inputs: Sequence[str], kinds: Sequence[int], domain: str = "", **attributes: Any) -> list[str]:
        """A node with an output for each of `kinds`."""
        names = [self.name() for _ in kinds]
        self._nodes.append(_node(op, inputs, names, domain, attributes))
        self.types.update(zip(names, kinds))
        return names

    def name(self) -> str:
        """A name that no tensor has yet."""
        self._count += 1
        return f"t{self._count}"

    def constant(self, values: Any, kind: int | None = None) -> str:
        """A constant tensor: of `kind`, of the graph's numbers when it holds floats, else of the type of the values."""
        array = np.asarray(values)
        if kind is None:
            kind = _KINDS.get(array.dtype.kind, self.number)
        if kind != STRING:
            with np.errstate(over="ignore"):
                array = array.astype({FLOAT: np.float32, DOUBLE: np.float64, INT64: np.int64, BOOL: np.bool_}[kind])
        content = tuple(array.ravel().tolist()) if kind == STRING else array.tobytes()
        key = (kind, array.shape, content)
        if key not in self._constants:
            name = self._constants[key] = self.name()
            self.types[name] = kind
            if array.ndim == 1:
                self.flat.add(name)
            self._initializers.append(_tensor(array, kind, name))
        return self._constants[key]

    def cast(self, tensor: str, kind: int) -> str:
        """The tensor as another type; itself when it is of that type."""
        return tensor if self.types[tensor] == kind else self.add("Cast", tensor, kind=kind, to=kind)

    def include(self, nodes: Sequence[bytes], initializers: Sequence[bytes], domains: Mapping[str, int]) -> None:
        """Nodes and constants in their own bytes, whose names nobody else has."""
        self._nodes += [[one] for one in nodes]
        self._initializers += [[one] for one in initializers]
        for domain, version in domains.items():
            self._domains.setdefault(domain, version)

    def to_bytes(self, about: Mapping[str, Any]) -> bytes:
        """The file. `about` is kept in its metadata as JSON, under the key "modelport". NotConverted when it would be larger than 2 GB."""
        graph = [
            *(part for node in self._nodes for part in _field(1, node)),
            *_text(2, "modelport"),
            *(part for tensor in self._initializers for part in _field(5, tensor)),
            *(part for value in self._inputs for part in _field(11, value)),
            *(part for value in self._outputs for part in _field(12, value)),
        ]
        file = [*_number(1, IR_VERSION), *_text(2, "modelport"), *_field(7, graph)]
        for domain, version in sorted(self._domains.items()):
            file += _field(8, [*_text(1, domain), *_number(2, version)])
        file += _field(14, [*_text(1, "modelport"), *_text(2, json.dumps(about, sort_keys=True))])
        if sum(map(len, file)) > _MOST_BYTES:
            raise NotConverted("a model of more than 2 GB")
        return b"".join(file)


# Messages

Parts = List[bytes]
"""Bytes that are joined in the end, so that what is large is not copied at each level."""
Value = Union[Tensor, str, float, Sequence[Any], Any]


def _node(op: str, inputs: Sequence[str], outputs: Sequence[str], domain: str, attributes: Mapping[str, Value]) -> Parts:
    parts = [part for name in inputs for part in _text(1, name)] + [part for name in outputs for part in _text(2, name)] + _text(4, op)
    for name, value in attributes.items():
        parts += _field(5, _attribute(name, value))
    return parts + (_text(7, domain) if domain else [])


def _attribute(name: str, value: Value) -> Parts:
    """An attribute of the type that its value has: a tensor, a number, a text, or a list of one of these."""
    if isinstance(value, Tensor):
        kind, content = 4, _field(5, _tensor(value.array, _TYPES[str(value.array.dtype)], name))
    elif isinstance(value, str):
        kind, content = 3, _text(4, value)
    elif isinstance(value, (bool, int, np.integer)):
        kind, content = 2, _number(3, int(value))
    elif isinstance(value, float):
        kind, content = 1, [_key(2, 5), struct.pack("<f", value)]
    else:
        array = np.asarray(value)
        if array.dtype.kind in "OU":
            kind, content = 8, _texts(9, array)
        elif array.dtype.kind in "iub":
            kind, content = 7, _field(8, _varints(array.astype(np.int64)))
        else:
            kind, content = 6, _field(7, [array.astype("<f4").tobytes()])
    return [*_text(1, name), *content, *_number(20, kind)]


def _tensor(array: Any, kind: int, name: str) -> Parts:
    parts = [part for size in array.shape for part in _number(1, size)] + _number(2, kind)
    if kind == STRING:
        parts += _texts(6, array.ravel())
    else:
        parts += _field(9, [np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()])
    return parts + _text(8, name)


def _value_info(name: str, kind: int, columns: int) -> Parts:
    """A tensor of shape (rows, columns); of shape (rows,) with 0 columns, and of any number of columns with -1."""
    shape = _field(1, _text(2, "rows"))
    if columns:
        shape += _field(1, _number(1, columns) if columns > 0 else _text(2, "columns"))
    return _text(1, name) + _field(2, _field(1, _number(1, kind) + _field(2, shape)))


# Encoding


def _field(number: int, parts: Parts) -> Parts:
    return [_key(number, 2) + _varint(sum(map(len, parts))), *parts]


def _text(number: int, text: str) -> Parts:
    return _field(number, [text.encode()])


def _texts(number: int, array: Any) -> Parts:
    """Many texts, of which most are alike."""
    kinds, places = np.unique(array.astype(str), return_inverse=True)
    known = [b"".join(_text(number, one)) for one in kinds.tolist()]
    return [b"".join([known[place] for place in some.tolist()]) for some in np.split(places, range(_CHUNK, len(places), _CHUNK))]


def _number(number: int, value: int) -> Parts:
    return [_key(number, 0) + _varint(value)]


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    if 0 <= value < 0x80:
        return bytes((value,))
    return b"".join(_varints(np.array([value], dtype=np.int64)))


def _varints(values: Any) -> Parts:
    """Integers of 64 bits in groups of seven, the lowest first; all groups but an integer's last have the eighth bit."""
    parts = []
    for start in range(0, len(values), _CHUNK):
        some = values[start : start + _CHUNK].astype(np.uint64)
        most = -(-int(some.max()).bit_length() // 7) or 1
        groups = some[:, None] >> (np.arange(most, dtype=np.uint64) * np.uint64(7))
        used = groups > 0
        used[:, 0] = True
        low = (groups & np.uint64(0x7F)).astype(np.uint8)
        low[:, :-1] |= used[:, 1:].astype(np.uint8) << np.uint8(7)
        parts.append(low[used].tobytes())
    return parts

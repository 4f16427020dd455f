"""What an ONNX model says of itself: a reader of the protocol buffer that makes neither weights nor trees.

The numbers of the fields are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeAlias

from modelport.inspection.bounds import Budget, Malformed

_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
}  # fmt: skip
_OTHER_TYPES = {4: "sequence", 5: "map", 8: "sparse", 9: "optional"}
_STRINGS = ("cats_strings", "classlabels_strings")
_INTEGERS = ("classlabels_int64s", "cats_int64s")
_FORMS = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
"""The operators that change a value's form alone."""
_VALUES = 10_000
"""The values of one attribute that are kept."""
_VARINT, _LENGTH, _SIZES = 0, 2, {1: 8, 5: 4}

_Value: TypeAlias = int | tuple[int, int]
"""A number, or where a field's bytes begin and end."""


def from_protobuf(data: bytes, budget: Budget) -> dict[str, Any]:
    """The root of `Contents` for the format onnx. Malformed when `data` is no whole ONNX model."""
    reader = _Reader(data, budget)
    model: dict[str, Any] = {"producer_name": "", "producer_version": "", "ir_version": 0, "domain": "", "doc": "", "opsets": {}}
    model |= {"inputs": [], "outputs": [], "nodes": {}, "last": [], "strings": {}, "integers": {}, "metadata": {}, "external_data": []}
    texts = {2: "producer_name", 3: "producer_version", 4: "domain", 6: "doc"}
    graph: _Value | None = None
    for number, value in reader.fields(0, len(data)):
        if number == 1 and isinstance(value, int):
            model["ir_version"] = value
        elif number in texts:
            model[texts[number]] = reader.text(value)
        elif number == 7:
            graph = value
        elif number == 8:
            opset = dict(reader.fields(*_span(value)))
            model["opsets"][reader.text(opset[1]) if 1 in opset else ""] = opset.get(2, 0)
        elif number == 14:
            pair = dict(reader.fields(*_span(value)))
            if 1 in pair:
                model["metadata"][reader.text(pair[1])] = reader.text(pair[2]) if 2 in pair else ""
    if graph is None or not model["opsets"]:
        raise Malformed("is no ONNX model: it has no graph")
    _read_graph(reader, graph, model)
    return model


def _read_graph(reader: _Reader, graph: _Value, model: dict[str, Any]) -> None:
    nodes: Counter[str] = Counter()
    made: dict[str, tuple[str, str]] = {}
    inputs: list[_Value] = []
    initialized: set[str] = set()
    for number, value in reader.fields(*_span(graph)):
        if number == 1:
            nodes[_read_node(reader, value, model, made)] += 1
        elif number == 5:
            initialized.add(_read_tensor(reader, value, model))
        elif number == 11:
            inputs.append(value)
        elif number == 12:
            model["outputs"].append(_read_info(reader, value))
    described = [_read_info(reader, value) for value in inputs]
    model["inputs"] = [info for info in described if info["name"] not in initialized]
    model["nodes"] = dict(sorted(nodes.items()))
    model["last"] = [_last(made, info["name"]) for info in model["outputs"]]


def _last(made: dict[str, tuple[str, str]], name: str) -> str:
    """The operator that computes a value, behind those that only give it another form; "" where there is none."""
    seen: set[str] = set()
    operator = ""
    while name in made and name not in seen:
        seen.add(name)
        operator, name = made[name]
        if operator not in _FORMS:
            break
    return operator


def _read_node(reader: _Reader, node: _Value, model: dict[str, Any], made: dict[str, tuple[str, str]]) -> str:
    """The node's operator; and into `made`, by its outputs' names, that with its first input's."""
    operator, given, outputs = "", "", []
    for number, value in reader.fields(*_span(node)):
        if number == 1:
            given = given or reader.text(value)
        elif number == 2:
            outputs.append(reader.text(value))
        elif number == 4:
            operator = reader.text(value)
        elif number == 5:
            _read_attribute(reader, value, model)
    made.update(dict.fromkeys(outputs, (operator, given)))
    return operator


def _read_attribute(reader: _Reader, attribute: _Value, model: dict[str, Any]) -> None:
    """Keep the attribute's values when it is one of the named ones: the name comes first, and the others are left at once."""
    group = name = ""
    values: list[Any] = []
    for number, value in reader.fields(*_span(attribute)):
        if number == 1:
            name = reader.text(value)
            group = "strings" if name in _STRINGS else "integers" if name in _INTEGERS else ""
            if not group:
                return
        elif number == 9 and group == "strings" and len(values) < _VALUES:
            values.append(reader.text(value))
        elif number == 8 and group == "integers" and len(values) < _VALUES:
            values += reader.integers(value)[: _VALUES - len(values)]
    if values:
        model[group].setdefault(name, []).append(values)


def _read_tensor(reader: _Reader, tensor: _Value, model: dict[str, Any]) -> str:
    name = ""
    for number, value in reader.fields(*_span(tensor)):
        if number == 8:
            name = reader.text(value)
        elif number == 13:
            entry = dict(reader.fields(*_span(value)))
            if 1 in entry and 2 in entry and reader.text(entry[1]) == "location":
                file = reader.text(entry[2])
                if file not in model["external_data"]:
                    model["external_data"].append(file)
    return name


def _read_info(reader: _Reader, info: _Value) -> dict[str, Any]:
    fields = dict(reader.fields(*_span(info)))
    described: dict[str, Any] = {"name": reader.text(fields[1]) if 1 in fields else "", "dtype": "", "shape": []}
    for number, value in reader.fields(*_span(fields[2])) if 2 in fields else ():
        if number == 1:
            tensor = dict(reader.fields(*_span(value)))
            element = tensor.get(1)
            described["dtype"] = _DTYPES.get(element, "") if isinstance(element, int) else ""
            described["shape"] = _read_shape(reader, tensor[2]) if 2 in tensor else []
        elif number in _OTHER_TYPES:
            described["dtype"] = _OTHER_TYPES[number]
    return described


def _read_shape(reader: _Reader, shape: _Value) -> list[int | None]:
    sizes: list[int | None] = []
    for number, value in reader.fields(*_span(shape)):
        if number == 1:
            size = dict(reader.fields(*_span(value))).get(1)
            sizes.append(size if isinstance(size, int) and 0 < size < 2**62 else None)
    return sizes


def _span(value: _Value) -> tuple[int, int]:
    if isinstance(value, int):
        raise Malformed("is damaged: its protocol buffer has a number where a message should be")
    return value


class _Reader:
    """The wire format: https://protobuf.dev/programming-guides/encoding/."""

    def __init__(self, data: bytes, budget: Budget) -> None:
        self.data = data
        self.budget = budget

    def fields(self, start: int, end: int) -> Iterator[tuple[int, _Value]]:
        """The fields of the message in data[start:end], as their number and value; a message is not gone into."""
        position = start
        while position < end:
            self.budget.spend(1)
            tag, position = self._varint(position, end)
            number, kind = tag >> 3, tag & 7
            if kind == _VARINT:
                value, position = self._varint(position, end)
                yield number, value
                continue
            if kind == _LENGTH:
                length, position = self._varint(position, end)
            elif kind in _SIZES:
                length = _SIZES[kind]
            else:
                raise Malformed(f"is damaged: byte {position} of its protocol buffer has no known type")
            if position + length > end:
                raise Malformed(f"is cut short: {length} bytes should follow byte {position}, and {end - position} do")
            if number == 0:
                raise Malformed(f"is damaged: byte {position} of its protocol buffer has the field number 0")
            yield number, (position, position + length)
            position += length

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if position >= end:
                raise Malformed(f"is cut short: its protocol buffer ends at byte {position}")
            byte = self.data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (2**64 - 1), position
        raise Malformed(f"is damaged: byte {position} of its protocol buffer ends no number")

    def text(self, value: _Value) -> str:
        start, end = _span(value)
        return self.data[start:end].decode("utf-8", "replace")

    def integers(self, value: _Value) -> list[int]:
        """One int64 of a repeated field, or all of them in one packed field."""
        found = []
        if isinstance(value, int):
            found.append(value)
        else:
            position, end = value
            while position < end and len(found) < _VALUES:
                number, position = self._varint(position, end)
                found.append(number)
        return [number - 2**64 if number >= 2**63 else number for number in found]

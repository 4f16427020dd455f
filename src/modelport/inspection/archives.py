"""Model files that are zip archives: PyTorch's, skops' and Keras'."""

from __future__ import annotations

import json
import re
import zipfile
from typing import Any, BinaryIO

import numpy as np

from modelport.frameworks import Instance, Name
from modelport.inspection import arrays
from modelport.inspection.bounds import DEPTH, Malformed, key
from modelport.inspection.compression import allowed_bytes, bomb
from modelport.inspection.pickles import Machine

_ENTRIES = 200_000
_PT2_MODELS = ("models/model.json", "serialized_exported_program.json")
_PT2_DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64", 9: "complex32",
    10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16",
}  # fmt: skip
_SKOPS_PLAIN = frozenset({"builtins.dict", "builtins.list", "builtins.tuple", "builtins.set", "numpy.ndarray"})
_SKOPS_CALLED = frozenset({"DictNode", "ListNode", "TupleNode", "SetNode", "NdArrayNode", "ConstructorFromReduceNode"})
"""The loaders that call the class they are given, with what the file says."""
_FORWARD = re.compile(r"def (forward\(.*?\)\s*->\s*[^:]+):", re.DOTALL)


class Archive:
    """A zip archive whose entries are read within bounds."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._zip = zipfile.ZipFile(file)
        self._left = allowed_bytes(size)
        self._allowed = self._left
        self.names = self._zip.namelist()
        if len(self.names) > _ENTRIES:
            raise Malformed(f"is a bomb: a zip archive of {len(self.names)} entries")

    def read(self, name: str) -> bytes:
        """The bytes of an entry. Malformed when it is not there, or all that is read unpacks to more than is allowed."""
        try:
            with self._zip.open(name) as entry:
                data = entry.read(self._left + 1)
        except KeyError:
            raise Malformed(f"is damaged: the entry {name} is missing in it") from None
        self._left -= len(data)
        if self._left < 0:
            raise bomb(self._allowed)
        return data

    def ending(self, tail: str) -> str | None:
        """The shortest name of an entry that is `tail`, or ends with it in some folder."""
        found = [name for name in self.names if name == tail or name.endswith("/" + tail)]
        return min(found, key=len, default=None)


def read_zip(file: BinaryIO, size: int, machine: Machine) -> tuple[str, Any]:
    """The format of a zip archive and its root; `machine` reads the pickle in it. Malformed when it is none of ours."""
    archive = Archive(file, size)
    if any(archive.ending(model) for model in _PT2_MODELS):
        return "pt2", _read_pt2(archive)
    if archive.ending("constants.pkl") or any("/code/" in name for name in archive.names):
        return "torchscript", _read_torchscript(archive)
    pickled = archive.ending("data.pkl")
    if pickled is not None:
        machine.data = archive.read(pickled)
        return "torch-zip", machine.load()
    if "schema.json" in archive.names:
        return "skops", _Skops(archive, machine).root
    if "config.json" in archive.names and "metadata.json" in archive.names:
        return "keras", _read_keras(archive)
    shown = ", ".join(archive.names[:3]) or "nothing"
    raise Malformed(f"is a zip archive, and no kind of model that is known: it holds {shown}{', ...' if len(archive.names) > 3 else ''}")


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _read_pt2(archive: Archive) -> dict[str, Any]:
    program = _mapping(json.loads(archive.read(next(name for tail in _PT2_MODELS if (name := archive.ending(tail))))))
    module = _mapping(program.get("graph_module"))
    values = _mapping(_mapping(module.get("graph")).get("tensor_values"))
    inputs = []
    for spec in _list(_mapping(module.get("signature")).get("input_specs")):
        name = _mapping(_mapping(_mapping(_mapping(spec).get("user_input")).get("arg")).get("as_tensor")).get("name")
        if isinstance(name, str):
            value = _mapping(values.get(name))
            sizes = [_mapping(size).get("as_int") for size in _list(value.get("sizes"))]
            inputs.append({"name": name, "dtype": _PT2_DTYPES.get(value.get("dtype", 0), ""), "shape": sizes})
    version = program.get("torch_version")
    return {"torch_version": version if isinstance(version, str) else None, "inputs": inputs}


def _read_torchscript(archive: Archive) -> dict[str, Any]:
    code = [name for name in archive.names if name.endswith(".py")]
    forward = ""
    for name in code[:100]:
        match = _FORWARD.search(archive.read(name).decode("utf-8", "replace"))
        if match:
            forward = re.sub(r"\s+", " ", match[1]).replace("( ", "(")
            break
    return {"code": code, "forward": forward}


def _read_keras(archive: Archive) -> dict[str, Any]:
    config, metadata = _mapping(json.loads(archive.read("config.json"))), _mapping(json.loads(archive.read("metadata.json")))
    layers: list[dict[str, str]] = []
    inputs: list[dict[str, Any]] = []
    waiting = _list(_mapping(config.get("config")).get("layers"))[::-1]
    while waiting:
        layer = _mapping(waiting.pop())
        settings = _mapping(layer.get("config"))
        name, kind = str(settings.get("name") or layer.get("name") or ""), str(layer.get("class_name", ""))
        layers.append({"class": kind, "name": name})
        shape = settings.get("batch_shape") or settings.get("batch_input_shape")
        if kind == "InputLayer" and isinstance(shape, list):
            dtype = settings.get("dtype")
            plain = dtype if isinstance(dtype, str) else _mapping(_mapping(dtype).get("config")).get("name", "float32")
            inputs.append({"name": name, "dtype": str(plain), "shape": shape})
        waiting += _list(settings.get("layers"))[::-1]
        if isinstance(settings.get("layer"), dict):
            waiting.append(settings["layer"])
    if not inputs:
        inputs = _built_with(config)
    return {
        "keras_version": str(metadata.get("keras_version", "")),
        "date_saved": str(metadata.get("date_saved", "")),
        "class": str(config.get("class_name", "")),
        "layers": layers,
        "inputs": inputs,
        "code": [layer["name"] or layer["class"] for layer in layers if layer["class"] == "Lambda"] + _functions(config),
        "custom": _custom(config),
    }


def _built_with(config: dict[str, Any]) -> list[dict[str, Any]]:
    shape = _mapping(config.get("build_config")).get("input_shape")
    return [{"name": "input", "dtype": "float32", "shape": shape}] if isinstance(shape, list) else []


def _functions(config: Any) -> list[str]:
    """Python functions that stand in a configuration as code, outside of Lambda layers."""
    found, waiting = [], [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("class_name") == "__lambda__":
                found.append("a function")
            if value.get("class_name") != "Lambda":
                waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return found


def _custom(config: Any) -> list[str]:
    """The classes and functions in a configuration that are no part of Keras, sorted by name. What training needs is left out."""
    found: set[str] = set()
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            name, module = value.get("class_name"), str(value.get("module", "keras"))
            if name == "function":  # Keras' own stand there by their name alone, or with its module
                name = value.get("config")
            if isinstance(name, str) and not name.startswith("__") and module.partition(".")[0] != "keras":
                found.add(name)
            waiting.extend(part for key, part in value.items() if key != "compile_config")
    return sorted(found)


class _Skops:
    """The schema of a skops file as the objects it describes (https://skops.readthedocs.io/en/stable/persistence.html)."""

    def __init__(self, archive: Archive, machine: Machine) -> None:
        self.archive = archive
        self.budget = machine.budget
        self.imports, self.calls = machine.imports, machine.calls
        self.made: dict[Any, Any] = {}
        self.root = self._value(json.loads(archive.read("schema.json")), 0)

    def _value(self, node: Any, depth: int) -> Any:
        self.budget.spend(1)
        if not isinstance(node, dict) or depth > DEPTH:
            raise Malformed("is damaged: its schema.json describes no skops file")
        loader, identity = node.get("__loader__"), node.get("__id__")
        if loader == "CachedNode" or (identity in self.made and "content" not in node and "file" not in node):
            return self.made.get(identity)
        made = self._made(node, str(loader), f"{node.get('__module__')}.{node.get('__class__')}", depth)
        if isinstance(identity, int):
            self.made[identity] = made
        return made

    def _made(self, node: dict[str, Any], loader: str, name: str, depth: int) -> Any:
        content = node.get("content")
        if loader == "JsonNode":
            return json.loads(content) if isinstance(content, str) else None
        self.imports.add(name)
        if loader in ("FunctionNode", "TypeNode"):
            return Name(name)
        if name not in _SKOPS_PLAIN and (loader in _SKOPS_CALLED or "__reduce__" in node):
            self.calls.add(name)
        if loader in ("ListNode", "TupleNode", "SetNode") and isinstance(content, list):
            items = [self._value(item, depth + 1) for item in content]
            return items if loader == "ListNode" else tuple(items) if loader == "TupleNode" else {key(item) for item in items}
        if loader == "DictNode" and isinstance(content, dict):
            return self._dict(node, content, depth)
        if loader in ("BytesNode", "BytearrayNode") and isinstance(node.get("file"), str):
            return self.archive.read(node["file"])
        if loader == "NdArrayNode":
            return self._array(node, content, depth)
        return self._object(node, content, name, depth)

    def _dict(self, node: dict[str, Any], content: dict[str, Any], depth: int) -> dict[Any, Any]:
        kinds = self._value(node["key_types"], depth + 1) if isinstance(node.get("key_types"), dict) else []
        made: dict[Any, Any] = {}
        for index, (name, value) in enumerate(content.items()):
            kind = kinds[index].name if isinstance(kinds, list) and index < len(kinds) and isinstance(kinds[index], Name) else ""
            number = kind.rpartition(".")[2].startswith("int") and re.fullmatch(r"-?[0-9]{1,18}", name)
            made[int(name) if number else name] = self._value(value, depth + 1)
        return made

    def _array(self, node: dict[str, Any], content: Any, depth: int) -> Any:
        if node.get("type") == "numpy" and isinstance(node.get("file"), str):
            made = arrays.npy(self.archive.read(node["file"]))
            return made[()] if node.get("__class__") != "ndarray" else made
        items = [self._value(item, depth + 1) for item in _list(content)]
        shape = self._value(node["shape"], depth + 1) if isinstance(node.get("shape"), dict) else (len(items),)
        flat = np.fromiter(items, dtype=object, count=len(items))
        return flat.reshape(shape) if np.prod(shape) == len(items) else flat

    def _object(self, node: dict[str, Any], content: Any, name: str, depth: int) -> Instance:
        """An object of a class; the parts of the loaders that are not gone into further stand in its state."""
        made = Instance(name)
        reduced = _mapping(node.get("__reduce__")).get("args")
        if reduced is not None:
            args = self._value(reduced, depth + 1)
            made.args = tuple(args) if isinstance(args, (list, tuple)) else (args,)
        if isinstance(content, dict):
            described = "__loader__" in content
            made.state = (
                self._value(content, depth + 1) if described else {part: self._part(value, depth) for part, value in content.items()}
            )
            method = content.get("func")
            if isinstance(method, str):
                self.imports.add(f"{name}.{method}")
        return made

    def _part(self, value: Any, depth: int) -> Any:
        return self._value(value, depth + 1) if isinstance(value, dict) and "__loader__" in value else value

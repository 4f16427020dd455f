"""PyTorch: modules, state dicts and checkpoints of torch.save, TorchScript, exported programs and safetensors files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelport.frameworks import Card, Contents, Instance, allowed, instances

_TENSORS = {"torch._utils._rebuild_tensor_v2": 2, "torch._utils._rebuild_tensor": 2}
"""The functions that rebuild a tensor, and which of their arguments is the shape."""
_PARAMETER = "torch._utils._rebuild_parameter"
_STATE_KEYS = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Where checkpoints keep the weights."""
_SHOWN = 12


def imports() -> frozenset[str]:
    """The names that a file of torch.save may import: tensors, and the modules of torch and torchvision."""
    return allowed.names("torch")


def detect(contents: Contents) -> Card | None:
    """The card of a PyTorch file. Its version is unknown: only exported programs (.pt2) say it."""
    if contents.format == "torchscript":
        details = {"forward": contents.root["forward"]} if contents.root["forward"] else {}
        return Card("torch", "torch.jit.ScriptModule", "torch", details=details)
    if contents.format == "pt2":
        inputs = contents.root["inputs"]
        names = tuple(field["name"] for field in inputs)
        return Card("torch", "torch.export.ExportedProgram", "torch", contents.root["torch_version"], names, details={"inputs": inputs})
    if contents.format == "safetensors":
        shapes = {name: tensor["shape"] for name, tensor in contents.root["tensors"].items()}
        return Card("torch", "state_dict", "torch", details=_weights(shapes))
    if contents.format in ("torch-zip", "torch-legacy") and not getattr(contents.root, "cls", "").startswith("fastai."):
        return _from_pickle(contents.root)
    return None


def _from_pickle(root: Any) -> Card:
    if isinstance(root, Instance) and "_modules" in (root.state or ()):
        found = dict(_parameters(root, "", 0))
        return Card("torch", root.cls, "torch", details={"kind": "module", **_weights(found)})
    if isinstance(root, dict):
        found = _state_dict(root)
        if found:
            return Card("torch", "state_dict", "torch", details={"kind": "state_dict", **_weights(found)})
        for name in _STATE_KEYS:
            inner = root.get(name)
            found = _state_dict(inner) if isinstance(inner, dict) else {}
            if found:
                keys = [str(key) for key in root][:_SHOWN]
                return Card("torch", "checkpoint", "torch", details={"kind": "checkpoint", "keys": keys, **_weights(found)})
    cls = root.cls if isinstance(root, Instance) else type(root).__name__
    return Card("torch", cls, "torch", details={"tensors": sum(1 for _ in instances(root, *_TENSORS))})


def _state_dict(mapping: dict[Any, Any]) -> dict[str, list[int]]:
    """The shapes by name when every value is a tensor, else nothing."""
    shapes = {str(name): _shape(value) for name, value in mapping.items()}
    return {name: shape for name, shape in shapes.items() if shape is not None} if None not in shapes.values() else {}


def _shape(value: Any) -> list[int] | None:
    if isinstance(value, Instance) and value.cls == _PARAMETER and value.args:
        value = value.args[0]
    if not isinstance(value, Instance) or value.cls not in _TENSORS or len(value.args) <= _TENSORS[value.cls]:
        return None
    shape = value.args[_TENSORS[value.cls]]
    return [size for size in shape if isinstance(size, int)] if isinstance(shape, tuple) else None


def _parameters(module: Instance, prefix: str, depth: int) -> Iterator[tuple[str, list[int]]]:
    for group in ("_parameters", "_buffers"):
        values = module.get(group)
        for name, value in values.items() if isinstance(values, dict) else ():
            shape = _shape(value)
            if shape is not None:
                yield f"{prefix}{name}", shape
    inner = module.get("_modules")
    for name, value in inner.items() if isinstance(inner, dict) and depth < 50 else ():
        if isinstance(value, Instance):
            yield from _parameters(value, f"{prefix}{name}.", depth + 1)


def _weights(shapes: dict[str, list[int]]) -> dict[str, Any]:
    count = 0
    for shape in shapes.values():
        size = 1
        for length in shape:
            size *= length
        count += size
    return {"tensors": len(shapes), "parameters": count, "shapes": dict(list(shapes.items())[:_SHOWN])}

"""A network of PyTorch's layers taken out of a file without running it, and built again of the same layers.

What a pickle says of a network becomes a description: plain values and tensors alone, which `torch.save` writes and `torch.load` reads with
`weights_only`. Only layers that are known by their exact names are built of it; anything else in the pickle stays a name.
"""

from __future__ import annotations

import math
import sys
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from modelport.errors import ModelFileError
from modelport.frameworks import Contents, Instance, Name, tabular

Described: TypeAlias = dict[str, Any]
"""A layer: its "class", its plain "attributes", and by name its "parameters", "buffers" and "modules", each of which is such a layer."""

_DTYPES = {
    "torch.FloatStorage": "float32", "torch.DoubleStorage": "float64", "torch.HalfStorage": "float16", "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64", "torch.IntStorage": "int32", "torch.ShortStorage": "int16", "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8", "torch.BoolStorage": "bool",
}  # fmt: skip
_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_OF_A_CLASS = ("torch._tensor._rebuild_from_type_v2", "torch._tensor._rebuild_from_type", "fastai.torch_core._rebuild_from_type")
"""Functions that rebuild a tensor of a class of its own: what rebuilds the tensor, the class, the arguments."""
_TENSOR = "torch._utils._rebuild_tensor_v2"
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_GROUPS = ("_parameters", "_buffers", "_modules")
_LIBRARIES = {"torch.nn.modules.": "torch", "torchvision.models.": "torchvision", "torchvision.ops.": "torchvision"}
_DEPTH = 60


class Archive:
    """The tensors in a file of torch.save. ModelFileError for one that PyTorch wrote before 1.6."""

    def __init__(self, contents: Contents) -> None:
        if contents.format != "torch-zip":
            raise ModelFileError(
                f"{contents.path.name} was written by a PyTorch before 1.6",
                hint="Load it with that version, and export it with a newer one.",
            )
        self._zip = zipfile.ZipFile(contents.path)
        pickled = min((name for name in self._zip.namelist() if name.endswith("data.pkl")), key=len)
        self._folder = pickled.removesuffix("data.pkl") + "data/"
        self._storages: dict[str, Any] = {}

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    def tensor(self, value: Any) -> Any:
        """The tensor that `value` of a pickle stands for; None where it stands for none."""
        import torch

        if not isinstance(value, Instance):
            return None
        if value.cls in _PARAMETERS and value.args:
            return self.tensor(value.args[0])
        if value.cls in _OF_A_CLASS and len(value.args) > 2 and isinstance(value.args[0], Name) and isinstance(value.args[2], tuple):
            return self.tensor(Instance(value.args[0].name, value.args[2]))
        if value.cls != _TENSOR or len(value.args) < 4:
            return None
        kept, offset, size, stride = value.args[:4]
        storage = self._storage(kept)
        if not _are_sizes(size) or not _are_sizes(stride) or math.prod(size) > len(storage):
            raise _damaged("a tensor in it is larger than what it is kept in")
        try:
            return torch.as_strided(storage, size, stride, offset).contiguous()
        except (RuntimeError, TypeError, ValueError) as error:
            raise _damaged(tabular.first_line(error)) from error

    def _storage(self, value: Any) -> Any:
        """The numbers that a persistent id names: ("storage", their type, their place in the file, the device they were on, how many)."""
        import torch

        named = value.args[0] if isinstance(value, Instance) and value.cls == "persistent" and value.args else ()
        if not isinstance(named, tuple) or len(named) < 3 or not isinstance(named[1], Name) or named[1].name not in _DTYPES:
            raise _damaged("a tensor in it is of no kind that is known")
        key = str(named[2])
        if key not in self._storages:
            try:
                raw = bytearray(self._zip.read(self._folder + key))
            except (KeyError, zipfile.BadZipFile) as error:
                raise _damaged(f"the numbers {key} of a tensor are missing in it") from error
            dtype = getattr(torch, _DTYPES[named[1].name])
            self._storages[key] = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _are_sizes(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(size, int) and size >= 0 for size in value)


def _damaged(why: str) -> ModelFileError:
    return ModelFileError(f"the network in the file is damaged: {why}", hint="Export it again.")


# Out of a pickle


def taken(network: Any, archive: Archive) -> Described:
    """The description of the network that `network` of a pickle stands for. ModelFileError names a layer that is not known."""
    return _Taking(archive).layer(network, "the network", 0)


class _Taking:
    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._done: dict[int, Described] = {}

    def layer(self, value: Any, place: str, depth: int) -> Described:
        if not isinstance(value, Instance):
            raise ModelFileError(f"{place} is no layer of PyTorch, but {str(value)[:80]}")
        if id(value) in self._done:
            return self._done[id(value)]
        if not _known(value.cls) or depth > _DEPTH:
            raise unknown_layer(value.cls, place)
        state = value.state if isinstance(value.state, dict) else {}
        for group in _HOOKS:
            for hook in _mapping(state.get(group)).values():
                raise ModelFileError(f"{place} is computed with a hook, {_cls(hook)}, which is not known here", hint=_REMOVE)
        parameters, buffers, modules = (_mapping(state.get(group)) for group in _GROUPS)
        made = {
            "class": value.cls,
            "attributes": dict(_attributes(state)),
            "parameters": {name: self._tensor(one, f"{place}.{name}") for name, one in parameters.items()},
            "buffers": {name: self._tensor(one, f"{place}.{name}") for name, one in buffers.items()},
            "modules": {
                name: one if one is None else self.layer(one, f"layer {_path(place, name)}", depth + 1) for name, one in modules.items()
            },
        }
        self._done[id(value)] = made
        return made

    def _tensor(self, value: Any, place: str) -> Any:
        if value is None:
            return None
        tensor = self._archive.tensor(value)
        if tensor is None:
            raise _damaged(f"{place} is no tensor, but {_cls(value)}")
        return tensor


_REMOVE = "Take it out before you export: torch.nn.utils.remove_weight_norm or remove_spectral_norm."


def uses(described: Described, library: str) -> bool:
    """Whether a layer's class is of that library."""
    return described["class"].startswith(library) or any(one is not None and uses(one, library) for one in described["modules"].values())


def _path(place: str, name: str) -> str:
    return f"{place.removeprefix('layer ')}.{name}" if place.startswith("layer ") else name


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _cls(value: Any) -> str:
    return value.cls if isinstance(value, Instance) else value.name if isinstance(value, Name) else str(value)[:80]


def _attributes(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What a layer holds beside tensors and layers, as far as it is plain: what is not is for training, or is missed when it computes."""
    for name, value in state.items():
        if not name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called")) and name not in _GROUPS:
            plain = _plain(value)
            if plain is not _NOT_PLAIN:
                yield name, plain


_NOT_PLAIN = object()


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, Instance) and value.cls == "torch.Size" and value.args:
        return _plain(value.args[0])
    if isinstance(value, list | tuple):
        parts = [_plain(part) for part in value]
        return _NOT_PLAIN if _NOT_PLAIN in parts else parts if isinstance(value, list) else tuple(parts)
    return _NOT_PLAIN


def unknown_layer(cls: str, place: str) -> ModelFileError:
    """Why a network with a layer of that class is not built."""
    return ModelFileError(
        f"{place} is a {cls}, and that layer is not known here",
        hint="Known are those of torch.nn and torchvision, and of fast.ai what its vision learners are made of; or export it as ONNX.",
    )


# Built again


def built(described: Described) -> Any:
    """The network, ready to compute. ModelFileError for a layer that is not known or does not fit; MissingLibrary without torchvision."""
    return _built(described, {}, "the network", 0).float().eval()


def _built(described: Described, done: dict[int, Any], place: str, depth: int) -> Any:
    import torch

    if id(described) in done:
        return done[id(described)]
    kind = _class(described["class"], place)
    if depth > _DEPTH:
        raise unknown_layer(described["class"], place)
    module = kind.__new__(kind)
    torch.nn.Module.__init__(module)
    modules = {
        name: one if one is None else _built(one, done, f"layer {_path(place, name)}", depth + 1)
        for name, one in described["modules"].items()
    }
    parameters = {
        name: one if one is None else torch.nn.Parameter(one, requires_grad=False) for name, one in described["parameters"].items()
    }
    module.__setstate__({**described["attributes"], "_parameters": parameters, "_buffers": dict(described["buffers"]), "_modules": modules})
    done[id(described)] = module
    return module


def _known(name: str) -> bool:
    return name.startswith(tuple(_LIBRARIES)) or name in _fastai()


def _fastai() -> Mapping[str, Any]:
    from modelport.frameworks.fastai_layers import LAYERS

    return LAYERS


def _class(name: str, place: str) -> Any:
    """The class of a layer. Nothing is imported because a file names it: its module is one of those that the library itself brings."""
    own = _fastai().get(name)
    if own is not None:
        return own
    library = next((library for start, library in _LIBRARIES.items() if name.startswith(start)), None)
    if library is None:
        raise unknown_layer(name, place)
    torch = tabular.library("torch", "torch", "torch")
    if library == "torchvision":
        tabular.library("torchvision", "torchvision", "torch")
    module, _, qualified = name.rpartition(".")
    found = getattr(sys.modules.get(module), qualified, None)
    if not isinstance(found, type) or not issubclass(found, torch.nn.Module) or found.__module__ != module:
        raise unknown_layer(name, place)
    return found

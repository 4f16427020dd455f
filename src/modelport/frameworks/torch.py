"""PyTorch: modules, state dicts and checkpoints of torch.save, TorchScript, exported programs and safetensors files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from modelport import preprocessing
from modelport.errors import ModelFileError, SignatureError
from modelport.frameworks import (
    STATED_IMAGE,
    STATED_LABELS,
    Card,
    Contents,
    Instance,
    allowed,
    instances,
    pictured,
    scoring,
    tabular,
    threads,
)
from modelport.frameworks import torch_files as files
from modelport.frameworks import torch_graph as graphs
from modelport.frameworks.scoring import Scoring
from modelport.frameworks.torch_graph import Input
from modelport.preprocessing import Preprocessing
from modelport.signature import Columns, Field, Signature

_TENSORS = {"torch._utils._rebuild_tensor_v2": 2, "torch._utils._rebuild_tensor": 2}
"""The functions that rebuild a tensor, and which of their arguments is the shape."""
_STORAGES = frozenset(
    f"torch.{kind}Storage"
    for kind in ("BFloat16", "Bool", "Byte", "Char", "ComplexDouble", "ComplexFloat", "Double", "Float", "Half", "Int", "Long", "Short")
)
_PARAMETER = "torch._utils._rebuild_parameter"
_SHOWN = 12
_TOGETHER = 4
"""So many rows are asked at once to see whether they are answered each by itself."""


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
        return Card("torch", "state_dict", "torch", details={"format": "safetensors", **_weights(shapes)})
    if contents.format in ("torch-zip", "torch-legacy") and not getattr(contents.root, "cls", "").startswith("fastai."):
        return _from_pickle(contents.root, contents.imports)
    return None


def _from_pickle(root: Any, imports: Sequence[str]) -> Card:
    if isinstance(root, Instance) and "_modules" in (root.state or ()):
        found = dict(_parameters(root, "", 0))
        return Card("torch", root.cls, "torch", details={"kind": "module", "imports": _classes(imports), **_weights(found)})
    if isinstance(root, dict):
        found = _state_dict(root)
        if found:
            return Card("torch", "state_dict", "torch", details={"kind": "state_dict", **_weights(found)})
        for name in files.STATE_KEYS:
            inner = root.get(name)
            found = _state_dict(inner) if isinstance(inner, dict) else {}
            if isinstance(inner, Instance) and "_modules" in (inner.state or ()):
                found = dict(_parameters(inner, "", 0))
            if found:
                return _checkpoint(root, imports, _weights(found))
        return _checkpoint(root, imports, {"tensors": sum(1 for _ in instances(root, *_TENSORS))})
    cls = root.cls if isinstance(root, Instance) else type(root).__name__
    return Card("torch", cls, "torch", details={"tensors": sum(1 for _ in instances(root, *_TENSORS))})


def _checkpoint(root: dict[Any, Any], imports: Sequence[str], weights: dict[str, Any]) -> Card:
    keys = [str(key) for key in root][:_SHOWN]
    return Card("torch", "checkpoint", "torch", details={"kind": "checkpoint", "keys": keys, "imports": _classes(imports), **weights})


def _classes(imports: Sequence[str]) -> list[str]:
    """What torch has to be told that a file may name: it knows tensors itself."""
    return [name for name in imports if not name.startswith(("torch._utils.", "collections.", "torch.storage.")) and name not in _STORAGES]


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


# A loaded network


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network, what it takes, and what its numbers are."""

    network: Any
    path: Path
    taken: Input
    """Its one input, but for the rows."""
    image: Field | None
    """The input as pictures, where it is stated that it takes some."""
    labels: tuple[str, ...]
    """What whoever packed it calls the elements of its first output."""
    fixed: bool
    """Whether a file says that it takes a single row at a time."""

    @cached_property
    def one_by_one(self) -> bool:
        """Whether it takes a single row at a time."""
        return self.fixed or not _takes_several(self)

    @cached_property
    def outputs(self) -> tuple[tuple[str, Any], ...]:
        """What it gives for a row of zeros: names and arrays. SignatureError when it takes none."""
        return _first_answers(self)

    @cached_property
    def scoring(self) -> Scoring:
        """What the first output holds where labels are stated."""
        seen = np.concatenate([scoring.numbers(self.outputs[0][1]), scoring.numbers(_run(self, _noise(self.taken, 1))[0][1])])
        return scoring.of(seen, len(self.labels), sigmoid=_ends_with_sigmoid(self))


def load(path: Path, card: Card) -> Loaded:
    """The network in evaluation mode, on the CPU. ModelFileError when it does not load, or does not say what it takes."""
    torch = tabular.library("torch", "PyTorch", "torch")
    torch.set_num_threads(threads())
    network = files.opened(path, card)
    for weight in network.parameters():
        weight.requires_grad_(False)
    inputs = card.details.get("inputs")
    taken = _first_layer(network, path) if inputs is None else _stated_input(inputs, path)
    said = card.details.get(STATED_IMAGE)
    image = None
    if said:
        # as torchvision's folders of pictures are read: not turned upright, and with the colours that lie below what is transparent
        stated = {"exif": False, "alpha": "dropped", **preprocessing.stated(said)}
        # a network that flattens its pictures says only how many pixels they have
        shape = taken.shape if len(taken.shape) == 3 else (1 if stated.get("mode") == "L" else 3, -1, -1)
        image = pictured.image(Field(taken.name, "tensor", dtype=taken.dtype, shape=shape), stated)
        taken = Input(taken.name, taken.dtype, _shape_of(image.preprocessing))
    labels = card.classes if card.details.get(STATED_LABELS) else ()
    return Loaded(network, path, taken, image, labels, fixed=inputs is not None and inputs[0]["shape"][:1] == [1])


def _shape_of(how: Preprocessing | None) -> tuple[int, ...]:
    assert how is not None
    return (how.channels, how.height, how.width) if how.layout == "NCHW" else how.shape


_ASK = "Export it with torch.export.save(torch.export.export(model, ...), 'model.pt2'), which keeps what it takes; or to ONNX."


def _stated_input(inputs: Sequence[Mapping[str, Any]], path: Path) -> Input:
    """The input that an exported program says it takes."""
    if len(inputs) != 1 or not inputs[0]["shape"]:
        what = ", ".join(f"{one['name']} {one['shape']}" for one in inputs)
        raise ModelFileError(
            f"{path.name} takes {what}; one tensor with an axis for rows is served", hint="Export it to ONNX: that may have more."
        )
    rows, *shape = inputs[0]["shape"]
    if rows not in (None, 1):
        raise ModelFileError(
            f"{path.name} was exported for {rows} rows at a time",
            hint="Export it with dynamic_shapes={'x': {0: torch.export.Dim('rows')}}.",
        )
    return Input(inputs[0]["name"], inputs[0]["dtype"], tuple(-1 if size is None else size for size in shape), 32)


def _first_layer(network: Any, path: Path) -> Input:
    """What the first layer that has weights takes."""
    for layer in network.modules():
        kind = getattr(layer, "original_name", type(layer).__name__)
        weight = getattr(layer, "weight", None)
        if kind in ("Embedding", "EmbeddingBag"):
            return Input("x", "int64", (-1,), 8)
        if kind in ("LSTM", "GRU", "RNN") and getattr(layer, "batch_first", False):
            return Input("x", "float32", (-1, layer.weight_ih_l0.shape[1]), 8)
        if kind == "LayerNorm" and weight is not None:
            return Input("x", str(weight.dtype).removeprefix("torch."), tuple(weight.shape))
        if kind.startswith("BatchNorm") and weight is not None:
            return Input("x", str(weight.dtype).removeprefix("torch."), (len(weight), *(-1,) * {"1d": 0, "2d": 2, "3d": 3}[kind[-2:]]), 32)
        if weight is not None and weight.ndim >= 2:
            channels = weight.shape[1] * (getattr(layer, "groups", 1) if weight.ndim > 2 else 1)
            return Input("x", str(weight.dtype).removeprefix("torch."), (channels, *(-1,) * (weight.ndim - 2)), 32)
    raise ModelFileError(f"{path.name} does not say what it takes: it has no layer with weights that would", hint=_ASK)


def _first_answers(model: Loaded) -> tuple[tuple[str, Any], ...]:
    try:
        return _run(model, model.taken.array(1))
    except Exception as error:
        what = f"{type(error).__name__}: {tabular.first_line(error)}"
        if model.image is not None and model.image.preprocessing is not None:
            how = model.image.preprocessing
            raise SignatureError(
                f"the model does not take pictures of {how.width} x {how.height}: {what}",
                hint="State the size it was trained with: --image.",
            ) from error
        if len(model.taken.shape) == 3:
            raise SignatureError(
                f"the model seems to take pictures, and does not say of which size: {what}", hint="State it: --image 224"
            ) from error
        shape = " x ".join("any" if size < 0 else str(size) for size in model.taken.shape)
        raise SignatureError(
            f"the model seems to take {model.taken.dtype} of rows x {shape}, and does not answer: {what}", hint=_ASK
        ) from error


def _takes_several(model: Loaded) -> bool:
    """Whether it takes several rows at once, and answers each as it does alone."""
    given = _noise(model.taken, _TOGETHER)
    try:
        together = _run(model, given, together=True)
        alone = [_run(model, given[row : row + 1], together=True) for row in range(_TOGETHER)]
    except Exception:  # noqa: BLE001 whatever it raises, so many rows are not taken
        return False
    for place, (_, answers) in enumerate(together):
        each = np.concatenate([one[place][1] for one in alone])
        if answers.shape != each.shape or not np.allclose(answers, each, rtol=1e-3, atol=1e-4 * float(np.abs(each).max(initial=0.0))):
            return False
    return True


def _noise(taken: Input, rows: int) -> Any:
    """Random values that the network takes: of integers the smallest, for few are what an embedding knows."""
    rng, empty = np.random.default_rng(0), taken.array(rows)
    return (rng.normal(size=empty.shape) if empty.dtype.kind == "f" else rng.integers(0, 2, size=empty.shape)).astype(empty.dtype)


def _run(model: Loaded, given: Any, *, together: bool = False) -> tuple[tuple[str, Any], ...]:
    """What the network gives: names and arrays with as many rows as it was given."""
    import torch

    if len(given) > 1 and not together and model.one_by_one:
        each = [_run(model, given[row : row + 1]) for row in range(len(given))]
        return tuple((name, np.concatenate([one[place][1] for one in each])) for place, (name, _) in enumerate(each[0]))
    with torch.inference_mode():
        answer = model.network(torch.from_numpy(np.ascontiguousarray(given)))
    return tuple((name, tensor.numpy()) for name, tensor in _named(answer))


def _named(answer: Any) -> list[tuple[str, Any]]:
    """The tensors in what a network gave, by name; the first alone is the prediction."""
    import torch

    if isinstance(answer, torch.Tensor):
        return [("prediction", answer)]
    if isinstance(answer, Mapping):
        named = [(str(name), part) for name, part in answer.items() if part is not None]
    elif isinstance(answer, list | tuple):
        named = [(f"output_{place}" if place else "prediction", part) for place, part in enumerate(answer)]
    else:
        named = []
    if not named or not all(isinstance(part, torch.Tensor) for _, part in named):
        raise ModelFileError(f"the network gives a {type(answer).__name__} that is not made of tensors", hint="Let forward return tensors.")
    return named


_FORM = ("View", "Reshape", "Squeeze", "Unsqueeze", "Clone", "Alias", "UnsafeView", "ToCopy", "Flatten")
"""What changes only the form of a tensor, as autograd calls it."""


def _ends_with_sigmoid(model: Loaded) -> bool:
    """Whether a sigmoid computes the first output: autograd knows what computed a tensor, TorchScript has it in its graph."""
    import torch

    if isinstance(model.network, torch.jit.ScriptModule):
        whole = model.network.inlined_graph  # its nodes live as long as it does
        node = next(whole.outputs()).node()
        while node.kind().removeprefix("aten::").title().replace("_", "").startswith(_FORM) and list(node.inputs()):
            node = next(node.inputs()).node()
        return bool(node.kind().startswith("aten::sigmoid"))
    if not model.taken.dtype.startswith("float"):
        return False
    with torch.enable_grad():
        given = torch.from_numpy(model.taken.array(1)).requires_grad_(True)
        step = _named(model.network(given))[0][1].grad_fn
    while step is not None and step.name().startswith(_FORM) and step.next_functions:
        step = step.next_functions[0][0]
    return step is not None and step.name().startswith("Sigmoid")


def describe(model: Loaded, card: Card) -> Signature:
    """The signature of a network. A matrix (rows, k) is k fields, stated pictures are an image, any other input is a tensor.

    Its outputs are found by asking it once with a row of zeros; where labels were stated its numbers are `Scoring`. SignatureError where
    it does not take what was stated, or gives more or fewer numbers than there are labels.
    """
    taken = model.taken
    if model.image is not None:
        inputs: tuple[Field, ...] = (model.image,)
    elif len(taken.shape) == 1 and taken.shape[0] > 0:
        kind, dtype = ("number", taken.dtype) if taken.dtype.startswith("float") else ("integer", None)
        inputs = tuple(Field(name, kind, dtype=dtype) for name in tabular.numbered(taken.shape[0]))  # type: ignore[arg-type]  # one of two kinds
    else:
        inputs = (Field(taken.name, "tensor", dtype=taken.dtype, shape=taken.shape),)
    answers = model.outputs
    if not model.labels:
        return Signature(inputs, tuple(tabular.answered(name, answer) for name, answer in answers))
    scores = tabular.vector(model.scoring.name, model.labels, dtype="float32")
    return Signature(inputs, (tabular.label(model.labels), scores, *(tabular.answered(name, answer) for name, answer in answers[1:])))


def predict(model: Loaded, columns: Columns, signature: Signature) -> Columns:
    """The answers as arrays called by the names that `describe` gave the outputs."""
    how = signature.inputs[0].preprocessing
    if how is not None:
        given = how.tensor(columns[signature.inputs[0].name])
    elif len(model.taken.shape) == 1 and model.taken.shape[0] > 0:
        names = tabular.numbered(model.taken.shape[0])
        matrix = tabular.matrix_of(columns, names, signature)
        given = np.stack(tabular.ordered(columns, names, signature), axis=1) if matrix is None else matrix
    else:
        given = next(iter(columns.values()))
    answers = _run(model, given.astype(model.taken.dtype, copy=False))
    plain = {name: answer.reshape(len(answer)) if answer.shape[1:] == (1,) else answer for name, answer in answers}
    if not model.labels:
        return plain
    scores = scoring.scored(answers[0][1], model.scoring, len(model.labels))
    return {"prediction": tabular.chosen(model.labels, scores), model.scoring.name: scores, **dict(list(plain.items())[1:])}


def graph(model: Loaded, card: Card, signature: Signature) -> bytes:
    """The network as ONNX, with what is made of pixels before it and of its numbers behind it. NotConverted says why not."""
    names = [name for name, _ in model.outputs]
    network, taken, fields = model.network, model.taken, [field.name for field in signature.inputs]
    how = signature.inputs[0].preprocessing
    if taken.dtype == "float64":  # onnxruntime has no convolutions in double precision: the gate sees whether single will do
        network, taken = deepcopy(network).float(), replace(taken, dtype="float32")
        how = how and replace(how, dtype="float32")
    parts = [network]
    if how is not None:
        parts.insert(0, graphs.pixels(how))
        taken = Input(fields[0], "uint8", how.shape)
    elif len(taken.shape) == 1 and taken.shape[0] > 0:
        taken = Input("rows", taken.dtype, taken.shape)
    if model.labels:
        parts.append(graphs.scores(model.scoring.function or None, len(model.labels)))
        names[0] = model.scoring.name
    elif len(names) > 1:
        parts.append(graphs.several())
    return graphs.graph(graphs.chain(*parts), (taken,), names, fields=fields, labels=model.labels, one_by_one=model.one_by_one)


def save(model: Loaded, card: Card, folder: Path) -> str | None:
    """Of a checkpoint the weights alone, without what training needs; any other file as it came."""
    if card.details.get("kind") != "checkpoint" or files.FACTORY not in card.details:
        return None
    import torch

    torch.save(model.network.state_dict(), folder / "model.pt")
    return "model.pt"


def requirements(model: Loaded, card: Card) -> tuple[str, ...]:
    """PyTorch, and the packages that the network's classes are from."""
    packages = {type(part).__module__.partition(".")[0] for part in model.network.modules()} - {"torch"}
    also = ("safetensors",) if card.details.get("format") == "safetensors" else ()
    return ("torch", "numpy", *also, *tabular.distributions(packages))

"""Keras 3: networks in .keras files.

Keras loads them in its safe mode always, which runs no code out of the file. It computes with what the user has chosen (KERAS_BACKEND or
keras.json), else with what is installed, PyTorch first: there a network is a torch.nn.Module, and becomes ONNX when it is packed.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from modelport import preprocessing
from modelport.errors import MissingLibrary, ModelFileError, SignatureError
from modelport.frameworks import STATED_IMAGE, STATED_LABELS, Card, Contents, pictured, scoring, tabular, threads
from modelport.frameworks import torch_graph as graphs
from modelport.frameworks.portable.graphs import NotConverted
from modelport.frameworks.scoring import Scoring
from modelport.frameworks.torch_graph import Input
from modelport.preprocessing import Preprocessing
from modelport.signature import Columns, Field, Signature

_BACKENDS = ("torch", "tensorflow", "jax")
_ROWS = 256
"""So many rows are computed at once at most: of pictures more would take much memory."""
_SCALES = ("Rescaling", "Normalization", "TrueDivide", "Divide", "Multiply", "Subtract", "Add")
"""Layers that scale numbers, where they come before the first weights."""


def imports() -> frozenset[str]:
    """Nothing: a .keras file is no pickle."""
    return frozenset()


def detect(contents: Contents) -> Card | None:
    """The card of a .keras file. Its features are the names of its inputs where it has several; its details name code and own classes."""
    if contents.format != "keras":
        return None
    root = contents.root
    inputs = root["inputs"]
    sizes = [one["shape"] for one in inputs]
    details = {
        "layers": [layer["class"] for layer in root["layers"]],
        "inputs": inputs,
        "saved": root["date_saved"],
        **{key: root[key] for key in ("code", "custom") if root[key]},
    }
    return Card(
        "keras",
        f"keras.{root['class']}",
        "keras",
        root["keras_version"] or None,
        features=tuple(one["name"] for one in inputs) if len(inputs) > 1 else (),
        feature_count=sizes[0][1] if len(sizes) == 1 and len(sizes[0]) == 2 else len(sizes) or None,
        details=details,
    )


# A loaded network


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network, what it takes, and what its numbers are."""

    network: Any
    path: Path
    taken: tuple[Input, ...]
    """Its inputs, but for the rows, in the order in which Keras has them."""
    image: Field | None
    """Its input as pictures, where it is stated that it takes some."""
    labels: tuple[str, ...]
    """What whoever packed it calls the elements of its first output."""

    @cached_property
    def last(self) -> str:
        """What computes the first output: "softmax", "sigmoid", another activation, or ""."""
        return _activation(self.network)

    @cached_property
    def outputs(self) -> tuple[tuple[str, Any], ...]:
        """What it gives for a row of zeros: names and arrays. SignatureError when it takes none."""
        try:
            return _run(self, [one.array(1) for one in self.taken])
        except Exception as error:
            shown = "; ".join(f"{one.name} {one.dtype} {one.shape}" for one in self.taken)
            raise SignatureError(
                f"the network does not answer zeros of {shown}: {type(error).__name__}: {tabular.first_line(error)}"
            ) from error

    @cached_property
    def classes(self) -> tuple[Any, ...]:
        """The classes of its only output: the labels that are stated, or the numbers from 0 on of a softmax; none of any other."""
        if self.labels:
            return self.labels
        width = self.outputs[0][1].shape[1:]
        return tuple(range(width[0])) if self.last == "softmax" and len(self.outputs) == len(width) == 1 and width[0] > 1 else ()

    @cached_property
    def scoring(self) -> Scoring:
        """What the first output holds where there are classes."""
        rng = np.random.default_rng(0)
        noise = [rng.normal(size=one.array(1).shape).astype(one.dtype) for one in self.taken]
        seen = np.concatenate([scoring.numbers(self.outputs[0][1]), scoring.numbers(_run(self, noise)[0][1])])
        return scoring.of(seen, len(self.classes), sigmoid=self.last == "sigmoid")


def load(path: Path, card: Card) -> Loaded:
    """The network in inference mode. ModelFileError when it does not load, as for code in it, or classes that nobody has brought along."""
    if card.details.get("code"):
        raise ModelFileError(
            f"{path.name} holds Python code in {', '.join(card.details['code'])}, which is never run",
            hint="Write a layer class in place of a Lambda, and bring its file along: --code layers.py",
        )
    keras = _library()
    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(threads())
    network = _opened(keras, path, card)
    taken = _inputs(keras, network, card, path)
    image = None
    said = card.details.get(STATED_IMAGE)
    if said:
        if len(taken) > 1 or not pictured.image_like(taken[0].shape):
            given = "; ".join(f"{one.name!r}, {one.dtype} of rows x {' x '.join(map(str, one.shape))}" for one in taken)
            raise SignatureError(
                f"the model takes no picture alone: {given}", hint="--image is for models that take pictures and nothing else."
            )
        image = _image(network, taken[0], said)
        assert image.preprocessing is not None
        taken = (Input(taken[0].name, taken[0].dtype, _shape_of(image.preprocessing, taken[0])),)
    return Loaded(network, path, taken, image, card.classes if card.details.get(STATED_LABELS) else ())


def _library() -> Any:
    """Keras. MissingLibrary where it is not installed, or has nothing to compute with."""
    if "keras" not in sys.modules and "KERAS_BACKEND" not in os.environ and find_spec("keras") is not None:
        chosen = next((name for name in (_configured(), *_BACKENDS) if name and find_spec(name) is not None), None)
        if chosen is None:
            raise MissingLibrary("Keras is installed, and nothing that it computes with", hint="pip install 'modelport[keras]'")
        os.environ["KERAS_BACKEND"] = chosen
    return tabular.library("keras", "Keras", "keras")


def _configured() -> str:
    """The backend in the user's keras.json; "" where there is none."""
    folder = Path(os.environ["KERAS_HOME"]) if "KERAS_HOME" in os.environ else Path.home() / ".keras"
    try:
        stated = json.loads((folder / "keras.json").read_text()).get("backend", "")
    except (OSError, ValueError, AttributeError):
        return ""
    return stated if isinstance(stated, str) else ""


def _opened(keras: Any, path: Path, card: Card) -> Any:
    own = vars(sys.modules["__main__"])
    brought = {name: own[name] for name in card.details.get("custom", ()) if name in own}
    lacking = [name for name in card.details.get("custom", ()) if name not in own]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of optimizers that are left out, and of forms that are older
            return keras.saving.load_model(path, custom_objects=brought, compile=False, safe_mode=True)
    except Exception as error:
        if lacking:
            raise ModelFileError(
                f"{path.name} needs {', '.join(lacking)}, which is no part of Keras",
                hint="Bring the file that defines it along: --code layers.py",
            ) from error
        hint = "" if path.suffix == ".keras" else "Keras wants files whose names end in .keras."
        raise ModelFileError(f"{path.name} does not load: {type(error).__name__}: {tabular.first_line(error)}", hint=hint) from error


def _inputs(keras: Any, network: Any, card: Card, path: Path) -> tuple[Input, ...]:
    """What the network takes: as it says itself, or as the file says it was built with."""
    tensors = getattr(network, "inputs", None)
    if tensors:
        names = [tensor.name for tensor in tensors]
        if isinstance(_structure(network), dict):
            names = keras.tree.flatten({name: name for name in _structure(network)})
        given = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in zip(names, tensors, strict=True)]
    else:
        given = [(one["name"], one["dtype"], tuple(one["shape"])) for one in card.details["inputs"]]
    if not given:
        raise ModelFileError(f"{path.name} does not say what it takes", hint="Call the model once, or its build, and save it again.")
    for name, dtype, shape in given:
        if dtype == "string" or not shape:
            raise ModelFileError(f"the input {name!r} of {path.name} is a {dtype} of shape {shape}; tensors with rows are served")
    return tuple(Input(name, dtype, tuple(-1 if size is None else size for size in shape[1:]), 32) for name, dtype, shape in given)


def _structure(network: Any) -> Any:
    """How a network wants several inputs: a list, a dict, or one alone."""
    return getattr(network, "_inputs_struct", None)


def _image(network: Any, taken: Input, said: Any) -> Field:
    """The input as pictures: squished as Keras' own loaders do it, and as they are where the network scales them itself."""
    stated = preprocessing.stated(said)
    own: dict[str, Any] = {"exif": False}
    if not {"resize", "crop", "pad"} & stated.keys():
        own["crop"] = "none"
    if _scales_itself(network) and not {"scale", "mean", "std"} & stated.keys():
        own["scale"] = 1.0
    return pictured.image(Field(taken.name, "tensor", dtype=taken.dtype, shape=taken.shape), {**own, **stated})


def _shape_of(how: Preprocessing, taken: Input) -> tuple[int, ...]:
    if len(taken.shape) == 2:
        return how.shape[:2]
    return (how.channels, how.height, how.width) if how.layout == "NCHW" else how.shape


def _scales_itself(network: Any) -> bool:
    """Whether the network has a layer that scales pixels before its first weights."""
    for layer in _layers(network):
        if type(layer).__name__ in _SCALES:
            return True
        if layer.weights:
            return False
    return False


def _layers(network: Any) -> Iterator[Any]:
    for layer in getattr(network, "layers", ()):
        if getattr(layer, "layers", None):
            yield from _layers(layer)
        else:
            yield layer


def _activation(network: Any) -> str:
    """The name of the activation that computes the first output; "" where it is not known."""
    outputs = getattr(network, "outputs", None)
    layer: Any = outputs[0]._keras_history.operation if outputs else None
    while getattr(layer, "layers", None):
        layer = layer.layers[-1]
    name = type(layer).__name__
    return name.lower() if name in ("Softmax", "Sigmoid") else str(getattr(getattr(layer, "activation", None), "__name__", ""))


def _run(model: Loaded, given: Sequence[Any]) -> tuple[tuple[str, Any], ...]:
    """What the network gives: names and arrays."""
    import keras

    parts = []
    for start in range(0, len(given[0]), _ROWS):
        answer = _call(model.network, [keras.ops.convert_to_tensor(array[start : start + _ROWS]) for array in given])
        parts.append([np.asarray(keras.ops.convert_to_numpy(one)) for one in keras.tree.flatten(answer)])
    names = _names(model.network, answer, len(parts[0]))
    return tuple(zip(names, (np.concatenate(each) for each in zip(*parts, strict=True)), strict=True))


def _call(network: Any, flat: Sequence[Any]) -> Any:
    """What a network gives for its inputs in their order."""
    import keras

    structure = _structure(network)
    packed = (
        flat[0]
        if structure is None or (len(flat) == 1 and not isinstance(structure, dict))
        else keras.tree.pack_sequence_as(structure, list(flat))
    )
    if keras.backend.backend() != "torch":
        return network(packed, training=False)
    import torch

    with torch.no_grad():
        return network(packed, training=False)


def _names(network: Any, answer: Any, count: int) -> list[str]:
    """What its outputs are called; the only one is the prediction."""
    import keras

    if count == 1:
        return ["prediction"]
    if isinstance(answer, dict):
        return list(map(str, keras.tree.flatten({name: name for name in answer})))
    names = list(getattr(network, "output_names", ()))
    return names if len(names) == len(set(names)) == count else [f"output_{place}" for place in range(count)]


def describe(model: Loaded, card: Card) -> Signature:
    """The signature of a network.

    A matrix (rows, k) is k fields; where there are several inputs, one of a single number a row is a field of its name. Stated pictures
    are an image, any other input is a tensor. Its outputs are found by asking it once with a row of zeros: a softmax over k classes gives
    the number of the likeliest, or its label where these are stated. SignatureError where it gives more or fewer numbers than labels.
    """
    answers = model.outputs
    others = tuple(tabular.answered(name, answer) for name, answer in answers)
    if model.last in ("sigmoid", "softmax"):
        others = (replace(others[0], minimum=0.0, maximum=1.0), *others[1:])
    if model.classes:
        scores = tabular.vector(model.scoring.name, model.classes, dtype="float32")
        others = (tabular.label(model.classes), scores, *others[1:])
    return Signature(tuple(_fields(model)), others)


def _fields(model: Loaded) -> Iterator[Field]:
    if model.image is not None:
        yield model.image
        return
    embeds = any(type(layer).__name__ == "Embedding" for layer in _layers(model.network))
    for one in model.taken:
        if one.shape in ((), (1,)) and len(model.taken) > 1:
            yield tabular.number(one.name, one.dtype)
        elif len(model.taken) == 1 and _is_matrix(one) and not embeds:
            yield from (tabular.number(name, one.dtype) for name in tabular.numbered(one.shape[0]))
        else:
            yield Field(one.name, "tensor", dtype=one.dtype, shape=one.shape)


def _is_matrix(one: Input) -> bool:
    return len(one.shape) == 1 and one.shape[0] > 0


def predict(model: Loaded, columns: Columns, signature: Signature) -> Columns:
    """The answers as arrays called by the names that `describe` gave the outputs."""
    answers = _run(model, _given(model, columns, signature))
    plain = {name: answer.reshape(len(answer)) if answer.shape[1:] == (1,) else answer for name, answer in answers}
    if not model.classes:
        return plain
    scores = scoring.scored(answers[0][1], model.scoring, len(model.classes))
    labels = np.array(model.classes, dtype=object if model.labels else np.int64)[scores.argmax(axis=1)]
    return {"prediction": labels, model.scoring.name: scores, **dict(list(plain.items())[1:])}


def _given(model: Loaded, columns: Columns, signature: Signature) -> list[Any]:
    """The columns as the network takes them."""
    first = model.taken[0]
    how = signature.inputs[0].preprocessing
    if how is not None:
        pixels = how.tensor(columns[signature.inputs[0].name])
        given = [pixels.reshape(len(pixels), *first.shape)]
    elif len(model.taken) == 1 and len(signature.inputs) > 1:
        names = tabular.numbered(first.shape[0])
        matrix = tabular.matrix_of(columns, names, signature)
        given = [np.stack(tabular.ordered(columns, names, signature), axis=1) if matrix is None else matrix]
    else:
        arrays = tabular.ordered(columns, [one.name for one in model.taken], signature)
        given = [
            array.reshape(len(array), *one.shape) if one.shape in ((), (1,)) else array
            for one, array in zip(model.taken, arrays, strict=True)
        ]
    return [array.astype(one.dtype, copy=False) for one, array in zip(model.taken, given, strict=True)]


def graph(model: Loaded, card: Card, signature: Signature) -> bytes:
    """The network as ONNX, with what is made of pixels before it and of its numbers behind it. NotConverted says why not."""
    import keras

    if keras.backend.backend() != "torch":
        raise NotConverted(f"what Keras computes with {keras.backend.backend()}; with KERAS_BACKEND=torch it has one")
    fields = [field.name for field in signature.inputs]
    how = signature.inputs[0].preprocessing
    taken = model.taken
    if how is not None:
        taken = (Input(fields[0], "uint8", how.shape),)
    elif (
        len(taken) == 1 and _is_matrix(taken[0]) and len(fields) == 1 and taken[0].shape != (1,)
    ):  # a sequence, and not a field for each place
        taken = (Input(taken[0].name, taken[0].dtype, (-1,), taken[0].shape[0]),)
    names = [name for name, _ in model.outputs]
    if model.labels:
        names[0] = model.scoring.name
    elif model.classes:
        names[:1] = ["prediction", model.scoring.name]
    return graphs.graph(_module(model, how), taken, names, fields=fields, labels=model.labels)


def _module(model: Loaded, how: Preprocessing | None) -> Any:
    """The network as PyTorch follows it: tensors in, tensors out."""
    import keras
    import torch

    shape = model.taken[0].shape

    class Network(torch.nn.Module):  # type: ignore[misc]  # torch need not be installed where types are checked
        def __init__(self) -> None:
            super().__init__()
            self.network = model.network
            self.before = graphs.pixels(how) if how is not None else None
            self.behind = graphs.scores(model.scoring.function or None, len(model.classes)) if model.classes else None
            self.training = False

        def forward(self, *given: Any) -> Any:
            flat = list(given)
            if self.before is not None:
                flat[0] = self.before(flat[0]).reshape(-1, *shape)
            first, *others = keras.tree.flatten(_call(self.network, flat))
            found = first if self.behind is None else self.behind(first)
            if model.classes and not model.labels:
                return (found.argmax(dim=1), found, *others)
            return (found, *others) if others else found

    return Network()


def save(model: Loaded, card: Card, folder: Path) -> None:
    """Nothing: the file is kept as it is."""


def requirements(model: Loaded, card: Card) -> tuple[str, ...]:
    """Keras, what it computes with, and the packages that the network's classes are from."""
    import keras

    packages = {type(layer).__module__.partition(".")[0] for layer in _layers(model.network)} - {"keras"}
    return ("keras", keras.backend.backend(), "numpy", *tabular.distributions(packages))

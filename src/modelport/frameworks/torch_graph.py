"""A PyTorch network becomes an ONNX graph that answers as it does, with what comes before and behind the network inside.

torch.onnx has two exporters. The one that follows TorchScript takes half a second and takes what torch.jit has made too; the other
(dynamo) takes 2 to 5 s and understands newer things. Both are tried, in this order. What they warn of and print is no news to
whoever packs a model: the parity gate looks at the result.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from modelport.frameworks import tabular
from modelport.frameworks.portable.graphs import NotConverted
from modelport.preprocessing import Preprocessing

Activation: TypeAlias = Literal["softmax", "sigmoid"]
OPSET = 18
"""What both exporters write, and onnxruntime 1.14 and later take."""
_FREE = 2
"""How large a free size is when the network is followed: torch.export takes 0 and 1 for fixed."""


@dataclass(frozen=True)
class Input:
    """One input of a network."""

    name: str
    dtype: str
    """numpy's name of it."""
    shape: tuple[int, ...]
    """Of one row; -1 for a size that is free."""
    example: int = _FREE
    """What to take for a free size when the network is tried."""

    def array(self, rows: int) -> Any:
        """Zeros of so many rows."""
        return np.zeros((rows, *(size if size > 0 else self.example for size in self.shape)), self.dtype)


def picture_graph(
    network: Any,
    how: Preprocessing,
    *,
    activation: Activation | None = None,
    labels: Sequence[str] = (),
    threshold: float | None = None,
    name: str = "probabilities",
    field: str = "image",
    one_by_one: bool = False,
) -> bytes:
    """The graph of a network (a torch.nn.Module in evaluation mode) that takes pictures: uint8 (rows, height, width, channels) in.

    Out come float32 `name` (rows, classes), and with `labels` before it the "prediction", the label of the highest; with a `threshold` all
    labels above it, which whoever asks the graph picks. What `how` makes of
    pixels (scale, mean, std, layout, dtype, BGR), the network and the `activation` are inside; cutting and resizing are not. One number for
    two labels is the chance of the second. `one_by_one` is for a network that takes a single picture at a time. NotConverted says why not.
    """
    whole = chain(pixels(how), network, scores(activation, len(labels)))
    taken = Input(field, "uint8", how.shape)
    return graph(whole, (taken,), (name,), fields=(field,), labels=labels, threshold=threshold, one_by_one=one_by_one)


def chain(*parts: Any) -> Any:
    """Networks behind each other as one, in evaluation mode; each is a torch.nn.Module, which nothing changes."""
    import torch

    whole = torch.nn.Sequential(*parts)
    whole.training = False
    return whole


def pixels(how: Preprocessing) -> Any:
    """A network that makes of pixels, uint8 (rows, height, width, channels), what `how.tensor` does."""
    import torch

    means, stds = how.mean or (0.0,) * how.channels, how.std or (1.0,) * how.channels
    spread = (1, how.channels, 1, 1) if how.layout == "NCHW" else (1, 1, 1, how.channels)

    class Pixels(torch.nn.Module):  # type: ignore[misc]  # torch's types are not looked at: it need not be installed
        def __init__(self) -> None:
            super().__init__()
            factors = [how.scale / std for std in stds]
            shifts = [-mean / std for mean, std in zip(means, stds, strict=True)]
            self.register_buffer("factor", torch.tensor(factors, dtype=torch.float32).reshape(spread))
            self.register_buffer("shift", torch.tensor(shifts, dtype=torch.float32).reshape(spread))
            self.training = False

        def forward(self, given: Any) -> Any:
            if how.mode == "BGR":
                given = given.flip(-1)
            if how.layout == "NCHW":
                given = given.permute(0, 3, 1, 2)
            values = given.to(torch.float32)
            if how.scale != 1.0 or how.mean or how.std:
                values = values * self.factor + self.shift
            return values.to(getattr(torch, how.dtype))

    return Pixels()


def scores(activation: Activation | None, count: int = 0) -> Any:
    """A network that makes of another's first output a number for each of `count` labels: float32 (rows, numbers)."""
    import torch

    class Scores(torch.nn.Module):  # type: ignore[misc]  # torch's types are not looked at: it need not be installed
        def __init__(self) -> None:
            super().__init__()
            self.training = False

        def forward(self, given: Any) -> Any:
            first, others = (given[0], tuple(given[1:])) if isinstance(given, list | tuple) else (given, ())
            found = first.to(torch.float32).flatten(1)
            if activation == "softmax":
                found = found.softmax(dim=1)
            elif activation == "sigmoid":
                found = found.sigmoid()
            if count == 2 and found.shape[1] == 1:
                found = torch.cat((1 - found, found), dim=1)
            return (found, *others) if others else found

    return Scores()


def several() -> Any:
    """A network that makes a tuple of what another gives: a dict's tensors in their order."""
    import torch

    class Several(torch.nn.Module):  # type: ignore[misc]  # torch's types are not looked at: it need not be installed
        def __init__(self) -> None:
            super().__init__()
            self.training = False

        def forward(self, given: Any) -> Any:
            return tuple(part for part in given.values() if part is not None) if isinstance(given, dict) else tuple(given)

    return Several()


def graph(
    network: Any,
    inputs: Sequence[Input],
    outputs: Sequence[str],
    *,
    fields: Sequence[str],
    labels: Sequence[str] = (),
    threshold: float | None = None,
    one_by_one: bool = False,
    exporters: Sequence[Callable[..., bytes]] = (),
) -> bytes:
    """The graph of a network that takes a tensor for each of `inputs`, with rows before its shape, and gives one for each of `outputs`.

    `fields` are the fields of the signature that these inputs are made of. With `labels` the first output holds a number for each of
    them, and the label of the highest comes before it as "prediction". `exporters` are those to try, both otherwise. NotConverted says
    why there is none.
    """
    import torch

    rows = 1 if one_by_one else _FREE
    example = tuple(torch.from_numpy(one.array(rows)) for one in inputs)
    why = ""
    for exporter in exporters or (_by_torchscript, _by_dynamo):
        try:
            with _quiet(), torch.no_grad():
                made = exporter(network, example, inputs, outputs, one_by_one)
            return _finished(made, outputs, fields, labels, threshold)
        except ModuleNotFoundError as error:
            why = why or f"{error.name} is not installed: pip install 'modelport[torch]'"
        except Exception as error:  # noqa: BLE001 whatever an exporter runs into, the other may do better
            lacking = "is not installed" in str(error)
            why = why or (f"{tabular.first_line(error)} pip install 'modelport[torch]'" if lacking else f"torch.onnx: {_told(error)}")
    raise NotConverted(why)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {tabular.first_line(error)}"


def _by_torchscript(network: Any, example: Any, inputs: Sequence[Input], outputs: Sequence[str], one_by_one: bool) -> bytes:
    import torch

    if any(isinstance(one, torch.jit.ScriptModule) for one in network.modules()):
        network = torch.jit.trace(network, example, check_trace=False)
    made = io.BytesIO()
    axes: dict[str, dict[int, str]] = {one.name: _axes(one, one_by_one) for one in inputs}
    if not one_by_one:
        axes |= {name: {0: "rows"} for name in outputs}
    torch.onnx.export(
        network,
        example,
        made,
        dynamo=False,
        input_names=[one.name for one in inputs],
        output_names=list(outputs),
        dynamic_axes=axes,
        opset_version=OPSET,
        training=torch.onnx.TrainingMode.PRESERVE,
    )
    return made.getvalue()


def _by_dynamo(network: Any, example: Any, inputs: Sequence[Input], outputs: Sequence[str], one_by_one: bool) -> bytes:
    import torch

    free = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        network,
        example,
        dynamo=True,
        verbose=False,
        input_names=[one.name for one in inputs],
        output_names=list(outputs),
        dynamic_shapes=tuple(dict.fromkeys(_axes(one, one_by_one), free) for one in inputs),
        opset_version=OPSET,
    )
    return bytes(program.model_proto.SerializeToString())


def _axes(one: Input, one_by_one: bool) -> dict[int, str]:
    """The axes of an input whose sizes are free, and their names."""
    rows = {} if one_by_one else {0: "rows"}
    return rows | {axis: f"{one.name}_{axis}" for axis, size in enumerate(one.shape, 1) if size < 0}


def _finished(made: bytes, outputs: Sequence[str], fields: Sequence[str], labels: Sequence[str], threshold: float | None) -> bytes:
    """The graph with the label of the highest number, and with what Modelport says of its graphs in the metadata."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_from_string(made)
    if labels and threshold is None:
        known = helper.make_tensor("modelport_labels", TensorProto.STRING, [len(labels)], [label.encode() for label in labels])
        model.graph.initializer.append(known)
        model.graph.node.extend(
            (
                helper.make_node("ArgMax", [outputs[0]], ["modelport_highest"], axis=1, keepdims=0),
                helper.make_node("Gather", ["modelport_labels", "modelport_highest"], ["prediction"]),
            )
        )
        rows = model.graph.output[0].type.tensor_type.shape.dim[0]
        model.graph.output.insert(0, helper.make_tensor_value_info("prediction", TensorProto.STRING, [rows.dim_param or rows.dim_value]))
    said: dict[str, Any] = {"inputs": list(fields), "lower": [], "null": ""}
    if threshold is not None:
        said |= {"labels": list(labels), "threshold": threshold}
    about = model.metadata_props.add()
    about.key, about.value = "modelport", json.dumps(said, sort_keys=True)
    del model.metadata_props[:-1]
    return bytes(model.SerializeToString(deterministic=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """While a network is exported: nothing is warned of, logged or printed."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)

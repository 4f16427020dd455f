"""fast.ai: learners exported with `learn.export()`.

A vision learner is opened by PyTorch alone, whichever version of fast.ai wrote it: its network is built again of known layers, its labels
and transforms are read, and nothing in the file is run. A tabular learner is computed by fast.ai itself, which unpickles it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from modelport.errors import ModelFileError
from modelport.frameworks import (
    STATED_IMAGE,
    Card,
    Contents,
    Instance,
    allowed,
    fastai_export,
    fastai_tabular,
    instances,
    modules,
    tabular,
    threads,
    torch_graph,
)
from modelport.frameworks.fastai_export import Export, Resampled
from modelport.frameworks.portable.graphs import NotConverted
from modelport.preprocessing import Preprocessing
from modelport.signature import Columns, Field, Signature

_LEARNERS = ("fastai.learner.Learner", "fastai.tabular.learner.TabularLearner", "fastai.text.learner.TextLearner")
_VISION = "fastai.learner.Learner"
_RESIZES = ("fastai.vision.augment.Resize", "fastai.vision.augment.RandomResizedCrop")
_FILE = "learner.pt"
_ROWS = 64
"""Pictures are computed so many at a time: the network's own numbers take many times a picture's memory."""


@dataclass(frozen=True, eq=False)
class Learner:
    """A vision learner in memory."""

    network: modules.Described
    export: Export

    @cached_property
    def answering(self) -> Any:
        """The module that takes pixels, uint8 (rows, height, width, channels), and gives a chance for each label."""
        how = self.export.preprocessing
        return torch_graph.chain(torch_graph.pixels(how), self.computing, torch_graph.scores(self.export.activation))

    @cached_property
    def computing(self) -> Any:
        """The network, with the resizing of batches before it."""
        from modelport.frameworks.fastai_layers import Resample

        network, pixels = modules.built(self.network), self.export.pixels
        resampled = self.export.resampled
        return torch_graph.chain(Resample(pixels.height, pixels.width, resampled), network) if resampled else network


def imports() -> frozenset[str]:
    """The names that an exported learner may import."""
    return allowed.names("fastai", "torch")


def detect(contents: Contents) -> Card | None:
    """The card of an exported learner: its labels, and what it does to a picture first. fast.ai's version is not in the file."""
    root = contents.root
    if not contents.format.startswith("torch-") or not isinstance(root, Instance) or root.cls not in _LEARNERS:
        return None
    transforms = sorted({found.cls for found in instances(root) if found.cls.startswith("fastai.vision.augment.")})
    details: dict[str, Any] = {"transforms": [name.rpartition(".")[2] for name in transforms]}
    resized = next(instances(root, *_RESIZES), None)
    if resized is not None:
        with suppress(ValueError):
            width, height = fastai_export.pair(resized.get("size"))
            details["size"] = [height, width]
    library = "torch" if root.cls == _VISION else "fastai"
    features = fastai_tabular.features(root) if root.cls == fastai_tabular.CLASS else ()
    return Card("fastai", root.cls, library, features=features, classes=fastai_export.vocabulary(root), details=details)


def inert(card: Card) -> bool:
    """Whether a file of this card is opened with nothing of it run: then it may name whatever it will."""
    return card.cls == _VISION


def rebuild(contents: Contents, card: Card) -> Any:
    """The learner that `contents` describes. ModelFileError names a transform, layer or loss that is not known here."""
    if not inert(card):
        return load(contents.path, card)
    tabular.library("torch", "torch", "torch")
    with modules.Archive(contents) as archive:

        def numbers(value: Any) -> tuple[float, ...] | None:
            found = archive.tensor(value)
            return None if found is None else tuple(found.flatten().double().tolist())

        export = fastai_export.read(contents.root, numbers, card.details.get(STATED_IMAGE, {}))
        return Learner(modules.taken(contents.root.get("model"), archive), export)


def load(path: Path, card: Card) -> Any:
    """A tabular learner; or the vision learner that `save` wrote: plain values and tensors, read with `weights_only`."""
    if card.cls == fastai_tabular.CLASS:
        return fastai_tabular.load(path, card)
    if not inert(card):
        raise ModelFileError(f"a {card.cls.rpartition('.')[2]} is recognised, and not served", hint="Vision and tabular learners are.")
    torch = tabular.library("torch", "torch", "torch")
    try:
        raw = torch.load(path, map_location="cpu", weights_only=True)
        return Learner(raw["network"], _export(raw["export"]))
    except Exception as error:
        raise ModelFileError(
            f"{path.name} is no learner that Modelport wrote: {type(error).__name__}",
            hint="A learner that fast.ai exported is packed first: modelport pack export.pkl",
        ) from error


def save(model: Any, card: Card, folder: Path) -> str | None:
    """A vision learner without a line of code: its network's layers by name, their weights, and what is done to pictures."""
    if not isinstance(model, Learner):
        return None
    torch = tabular.library("torch", "torch", "torch")
    export = {**asdict(model.export), "pixels": model.export.pixels.to_dict()}
    torch.save({"network": model.network, "export": export}, folder / _FILE)
    return _FILE


def _export(raw: dict[str, Any]) -> Export:
    pixels = Preprocessing.from_dict(raw["pixels"], _FILE)
    return Export(**{**raw, "pixels": pixels, "resampled": tuple(Resampled(**step) for step in raw["resampled"])})


def graph(model: Any, card: Card, signature: Signature) -> bytes:
    """A vision learner as an ONNX graph of pixels, with all of it inside but what Pillow does. NotConverted says why there is none."""
    if not isinstance(model, Learner):
        raise NotConverted("a tabular learner, which fast.ai computes itself")
    export = model.export
    return torch_graph.picture_graph(
        model.computing,
        export.preprocessing,
        activation=export.activation,
        labels=export.labels,
        threshold=export.threshold,
        name="probabilities" if export.threshold is None else "scores",
        field=signature.inputs[0].name,
    )


_CHANGED = "Does learn.predict answer? The learner may have been changed after it was trained."


def describe(model: Any, card: Card) -> Signature:
    """A picture in; out the label with the chance of each, or all labels whose chance is above the threshold, with the scores of all.

    The network is asked once. ModelFileError where it does not compute a picture, or gives more or fewer numbers than there are labels.
    A tabular learner has its columns.
    """
    if not isinstance(model, Learner):
        return fastai_tabular.describe(model, card)
    labels, pixels = model.export.labels, model.export.pixels
    try:
        gives = _computed(model, np.zeros((1, *pixels.shape), np.uint8)).shape[1:]
    except Exception as error:
        raise ModelFileError(
            f"the network does not compute a picture of {pixels.width} x {pixels.height}: {tabular.first_line(error)}",
            hint=_CHANGED,
        ) from error
    if gives != (len(labels),):
        given = " x ".join(map(str, gives)) or "one"
        raise ModelFileError(f"the learner has {len(labels)} labels, and its network gives {given} numbers for a picture", hint=_CHANGED)
    image = Field("image", "image", preprocessing=pixels)
    if model.export.threshold is None:
        return Signature((image,), (tabular.label(labels), tabular.vector("probabilities", labels, dtype="float32")))
    return Signature((image,), (tabular.several(labels), tabular.vector("scores", labels, dtype="float32")))


def predict(model: Any, columns: Columns, signature: Signature) -> Columns:
    """The labels, and the chance of each label; or what else a tabular learner predicts."""
    if not isinstance(model, Learner):
        return fastai_tabular.predict(model, columns, signature)
    chances = _computed(model, columns[signature.inputs[0].name])
    threshold = model.export.threshold
    return {
        "prediction": tabular.chosen(model.export.labels, chances, threshold),
        "probabilities" if threshold is None else "scores": chances,
    }


def _computed(model: Learner, pixels: tabular.Array) -> tabular.Array:
    torch = tabular.library("torch", "torch", "torch")
    torch.set_num_threads(threads())
    with torch.inference_mode():
        parts = [model.answering(part) for part in torch.from_numpy(np.ascontiguousarray(pixels)).split(_ROWS)]
    return np.asarray(torch.cat(parts).numpy())


def requirements(model: Any, card: Card) -> tuple[str, ...]:
    """What it needs: torch, and torchvision where the network has layers of it; for a tabular learner fast.ai."""
    if not isinstance(model, Learner):
        return ("fastai", "numpy", "pandas", "torch")
    return ("numpy", "torch", *(("torchvision",) if modules.uses(model.network, "torchvision.") else ()))

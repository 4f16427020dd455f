"""What a vision learner that fast.ai exported does to a picture, and how it answers: read out of the file, with nothing of it run.

A learner predicts with its validation loader: what is done to a picture there (`after_item`, with Pillow), to a batch of them
(`after_batch`), and what its loss function makes of the network's numbers. https://docs.fast.ai/data.core.html, vision.augment, losses.
Transforms that only vary pictures while it is trained do nothing here; one that is not known is refused by its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from modelport.errors import ModelFileError, SignatureError
from modelport.frameworks import Instance, Name, instances
from modelport.preprocessing import Preprocessing

_AUGMENT = "fastai.vision.augment."
_ONLY_IN_TRAINING = frozenset(
    _AUGMENT + name
    for name in (
        "FlipItem",
        "DihedralItem",
        "Brightness",
        "Contrast",
        "Saturation",
        "Hue",
        "LightingTfm",
        "SpaceTfm",
        "HSVTfm",
        "RandomErasing",
    )
)
_AFFINE = frozenset(
    _AUGMENT + name
    for name in ("AffineCoordTfm", "Flip", "DeterministicFlip", "Dihedral", "DeterministicDihedral", "Rotate", "Zoom", "Warp")
)
"""They move nothing when they validate, but resize where they have a size."""
_PLAIN = ("fasttransform.transform.Transform", "fastcore.transform.Transform")
_TO_TENSOR = "fastai.data.transforms.ToTensor"
_TO_FLOAT = "fastai.data.transforms.IntToFloatTensor"
_NORMALIZE = "fastai.data.transforms.Normalize"
_SOFTMAX = frozenset(
    f"fastai.losses.{name}"
    for name in ("CrossEntropyLossFlat", "LabelSmoothingCrossEntropyFlat", "LabelSmoothingCrossEntropy", "FocalLossFlat")
)
_SIGMOID = "fastai.losses.BCEWithLogitsLossFlat"
_ONE_LABEL = "fastai.data.transforms.Categorize"
_SEVERAL_LABELS = ("fastai.data.transforms.MultiCategorize", "fastai.data.transforms.EncodedMultiCategorize")
_MODES = {"fastai.vision.core.PILImage": "RGB", "fastai.vision.core.PILImageBW": "L"}
_INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""As Pillow numbers them."""


@dataclass(frozen=True)
class Resampled:
    """One resizing of a batch: the part that is taken of the height and width, and what it becomes."""

    crop: tuple[int, int]
    size: tuple[int, int]
    align_corners: bool


@dataclass(frozen=True)
class Export:
    """How a vision learner predicts."""

    labels: tuple[str, ...]
    threshold: float | None
    """For several labels at once: a label counts whose chance is above it. None where there is one label a picture."""
    pixels: Preprocessing
    """What Pillow makes of a picture."""
    resampled: tuple[Resampled, ...]
    """What is made of the pixels then."""
    divisor: float
    """And by what they are divided."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of what has come of it, one number a channel; none where it is not normalised."""

    @property
    def activation(self) -> Literal["softmax", "sigmoid"]:
        """What makes chances of the network's numbers."""
        return "softmax" if self.threshold is None else "sigmoid"

    @property
    def preprocessing(self) -> Preprocessing:
        """All of it but the resampling."""
        return replace(self.pixels, scale=1 / self.divisor, mean=self.mean, std=self.std, layout="NCHW", dtype="float32")


Numbers: TypeAlias = Callable[[Any], "tuple[float, ...] | None"]
"""The numbers of the tensor that a value of a pickle stands for; None where it stands for none."""


def read(root: Instance, numbers: Numbers, stated: Mapping[str, Any]) -> Export:
    """How the learner in a pickle's root predicts, with what is `stated` of its pictures instead.

    ModelFileError names what of it is not known here.
    """
    loader = _loader(root)
    data = loader.get("dataset")
    lists = items(data.get("tls")) if isinstance(data, Instance) else []
    inputs = data.get("n_inp") if isinstance(data, Instance) else None
    if len(lists) != 2 or inputs != 1:
        raise _not_served(
            f"takes {inputs} inputs and has {max(0, len(lists) - int(inputs or 0))} targets", "One picture in, one target out"
        )
    labels, several = _labels(lists[1])
    threshold = _threshold(root.get("loss_func"), several=several)
    pixels = _pixels(_transforms(loader, "after_item"), _mode(lists[0]), stated)
    if list(_transforms(loader, "before_batch")):
        raise unknown(next(_transforms(loader, "before_batch")))
    return _batch(Export(labels, threshold, pixels, (), 0.0, (), ()), _transforms(loader, "after_batch"), numbers)


def unknown(transform: Any, why: str = "") -> ModelFileError:
    """Why a learner with this transform is not served."""
    name = _named(transform) + (f" ({why})" if why else "")
    return ModelFileError(
        f"this learner changes pictures with {name}, which is not known here: its answers would not be the same",
        hint="Known are Resize, RandomResizedCrop, aug_transforms, Normalize, and what does nothing outside of training.",
    )


def _not_served(what: str, right: str) -> ModelFileError:
    return ModelFileError(f"this learner {what}", hint=f"{right}: learners of that kind are served from their export alone.")


def _loader(root: Instance) -> Instance:
    """The loader with which the learner predicts."""
    loaders = root.get("dls")
    each = loaders.get("loaders") if isinstance(loaders, Instance) else None
    if not isinstance(each, list) or len(each) < 2 or not isinstance(each[1], Instance):
        raise ModelFileError("this learner has no validation loader, with which it would predict", hint="Was it saved with learn.export()?")
    return each[1]


def items(value: Any) -> list[Any]:
    """The elements of a list, or of fastcore's L."""
    found = value.get("items") if isinstance(value, Instance) else value
    return found if isinstance(found, list) else []


def _transforms(loader: Instance, event: str) -> Iterator[Instance]:
    """The transforms of a loader's pipeline, in their order."""
    pipeline = loader.get(event)
    for transform in items(pipeline.get("fs")) if isinstance(pipeline, Instance) else ():
        if _named(transform) != "noop":
            yield transform


def _named(transform: Any) -> str:
    if isinstance(transform, Name):
        return transform.name.rpartition(".")[2]
    if not isinstance(transform, Instance):
        return str(transform)[:80]
    if transform.cls in _PLAIN:
        name = transform.get("_name")
        return name if isinstance(name, str) else next((one.name.rpartition(".")[2] for one in _names(transform)), "a function of its own")
    return transform.cls.rpartition(".")[2] if transform.cls.startswith("fastai.") else transform.cls


def _names(value: Instance) -> Iterator[Name]:
    """The names that stand somewhere in a transform's functions."""
    for one in instances(value):
        for part in (*one.args, *(one.state.values() if isinstance(one.state, dict) else ())):
            if isinstance(part, Name) and not part.name.startswith(("builtins.", "typing.")):
                yield part


# Labels


def vocabulary(value: Any) -> tuple[str, ...]:
    """The labels in the order of the outputs: the first category map in `value` by its numbers."""
    for found in instances(value, "fastai.data.transforms.CategoryMap"):
        numbers = found.get("o2i")
        mapping = numbers.mapping if isinstance(numbers, Instance) else numbers
        if isinstance(mapping, dict) and mapping and all(isinstance(number, int) for number in mapping.values()):
            return tuple(str(label) for label in sorted(mapping, key=lambda label: mapping[label]))
    return ()


def _labels(targets: Any) -> tuple[tuple[str, ...], bool]:
    """The labels, and whether a picture has several."""
    pipeline = targets.get("tfms") if isinstance(targets, Instance) else None
    steps = items(pipeline.get("fs")) if isinstance(pipeline, Instance) else []
    found = [step for step in steps if isinstance(step, Instance) and step.cls in (_ONE_LABEL, *_SEVERAL_LABELS)]
    labels = vocabulary(found[0]) if found else ()
    if not labels:
        what = _named(steps[-1]) if steps else "nothing"
        raise _not_served(f"predicts no labels: its target is made by {what}", "CategoryBlock or MultiCategoryBlock")
    return labels, found[0].cls != _ONE_LABEL


def _threshold(loss: Any, *, several: bool) -> float | None:
    name = loss.cls if isinstance(loss, Instance) else loss.name if isinstance(loss, Name) else str(loss)
    axis = loss.get("axis", -1) if isinstance(loss, Instance) else -1
    if axis == -1 and not several and name in _SOFTMAX:
        return None
    if axis == -1 and several and name == _SIGMOID:
        threshold = loss.get("thresh")
        return float(threshold) if isinstance(threshold, int | float) else 0.5
    wanted = "BCEWithLogitsLossFlat" if several else "CrossEntropyLossFlat"
    raise _not_served(f"has the loss {name.removeprefix('fastai.losses.')}, which does not say what its numbers are", wanted)


# Pictures


def _mode(pictures: Any) -> str:
    """The mode in which pictures are opened."""
    types = items(pictures.get("types")) if isinstance(pictures, Instance) else []
    last = types[-1] if types else None
    name = last.name if isinstance(last, Name) else str(last)
    if name not in _MODES:
        raise _not_served(f"takes {name} and no pictures", "ImageBlock")
    return _MODES[name]


def _pixels(transforms: Iterator[Any], mode: Any, stated: Mapping[str, Any]) -> Preprocessing:
    """What Pillow makes of a picture: one transform that gives it its size, or none where all had the size that is stated."""
    found: Preprocessing | None = None
    for transform in transforms:
        name = transform.cls if isinstance(transform, Instance) else ""
        if name == _TO_TENSOR or _does_nothing(transform):
            continue
        resize = _RESIZES.get(name)
        if resize is None:
            raise unknown(transform)
        if found is not None:
            raise unknown(transform, "a second one that resizes")
        found = _checked(transform, resize)
    own = {"mode": mode, "exif": False, "alpha": "dropped", **stated}
    if found is not None:
        return replace(found, **own)
    if not {"height", "width"} <= own.keys():
        raise ModelFileError(
            "this learner does not resize its pictures, so that the file does not say how large they are",
            hint="State the size that they had: --image 28",
        )
    return Preprocessing(**own)


def _does_nothing(transform: Any) -> bool:
    return isinstance(transform, Instance) and transform.cls in _ONLY_IN_TRAINING and transform.get("split_idx", 0) == 0


def _checked(transform: Instance, made: Callable[[Instance], Preprocessing | None]) -> Preprocessing:
    try:
        found = made(transform)
    except (SignatureError, TypeError, ValueError) as error:
        raise unknown(transform, str(error)) from error
    if found is None:
        raise unknown(transform, "its settings")
    return found


def _resize(transform: Instance) -> Preprocessing | None:
    width, height = pair(transform.get("size"))
    method, pad = transform.get("method"), transform.get("pad_mode")
    how: dict[str, Any] = {"interpolation": _interpolation(transform)}
    if method == "pad" and pad in ("zeros", "border", "reflection"):
        return Preprocessing(height, width, pad=pad, **how)
    return Preprocessing(height, width, crop="none" if method == "squish" else "center", **how) if method in ("crop", "squish") else None


def _random_resized_crop(transform: Instance) -> Preprocessing:
    width, height = pair(transform.get("size"))
    more = math.ceil(max(width, height) * float(transform.get("val_xtra")) / 8) * 8
    return Preprocessing(height, width, resize=(height + more, width + more), interpolation=_interpolation(transform))


_RESIZES: Mapping[str, Callable[[Instance], Preprocessing | None]] = {
    _AUGMENT + "Resize": _resize,
    _AUGMENT + "RandomResizedCrop": _random_resized_crop,
}


def pair(value: Any) -> tuple[int, int]:
    """Two sizes: a number for both, a tuple, or fastcore's fastuple. ValueError for anything else."""
    if isinstance(value, Instance) and value.args:
        value = value.args[0]
    if isinstance(value, int):
        return value, value
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(size, int) for size in value):
        return value[0], value[1]
    raise ValueError(f"its size is {str(value)[:60]}")


def _interpolation(transform: Instance) -> Any:
    """Pillow's resampling: its number, or the member of its enumeration as different Pythons pickle it."""
    mode = transform.get("mode")
    if isinstance(mode, Instance) and mode.args:
        mode = mode.args[-1]
    name = mode.name.rpartition(".")[2] if isinstance(mode, Name) else mode
    return name.lower() if isinstance(name, str) else _INTERPOLATIONS.get(2 if name is None else name, name)


# Batches


def _batch(export: Export, transforms: Iterator[Any], numbers: Numbers) -> Export:
    """The export with what is done to a batch."""
    size = (export.pixels.height, export.pixels.width)
    for transform in transforms:
        name = transform.cls if isinstance(transform, Instance) else ""
        if _does_nothing(transform):
            continue
        if name == _TO_FLOAT and not export.divisor and isinstance(transform.get("div"), int | float) and transform.get("div"):
            export = replace(export, divisor=float(transform.get("div")))
        elif name == _NORMALIZE and not export.mean and export.divisor:
            mean, std = (_channels(transform, key, numbers, export.pixels.channels) for key in ("mean", "std"))
            export = replace(export, mean=mean, std=std)
        elif name in _AFFINE and (transform.get("size") is None or export.divisor):
            if transform.get("size") is not None:
                export = _with(export, transform, Resampled(size, _batch_size(transform), transform.get("align_corners") is True))
        elif name == _AUGMENT + "RandomResizedCropGPU" and export.divisor:
            export = _with(export, transform, Resampled(_middle(transform, size), _batch_size(transform), align_corners=True))
        else:
            raise unknown(transform)
        size = export.resampled[-1].size if export.resampled else size
    if not export.divisor:
        raise _not_served("does not turn pixels into fractions", "IntToFloatTensor")
    return export


def _with(export: Export, transform: Instance, step: Resampled) -> Export:
    if transform.get("mode") != "bilinear":
        raise unknown(transform, f"mode {transform.get('mode')}")
    return replace(export, resampled=(*export.resampled, step))


def _batch_size(transform: Instance) -> tuple[int, int]:
    try:
        return pair(transform.get("size"))
    except ValueError as error:
        raise unknown(transform, str(error)) from error


def _middle(transform: Instance, size: tuple[int, int]) -> tuple[int, int]:
    """The height and width that RandomResizedCropGPU takes of the middle when it validates."""
    height, width = size
    ratio, scale = transform.get("ratio"), transform.get("valid_scale", 1.0)
    if not isinstance(ratio, list | tuple) or len(ratio) != 2 or not isinstance(scale, int | float) or not 0 < scale <= 1:
        raise unknown(transform, "its settings")
    if width / height < ratio[0]:
        height = int(width / ratio[0])
    elif width / height > ratio[1]:
        width = int(height * ratio[1])
    return int(height * scale), int(width * scale)


def _channels(transform: Instance, key: str, numbers: Numbers, channels: int) -> tuple[float, ...]:
    """What a normalisation holds: a number a channel."""
    found = numbers(transform.get(key))
    if found is None or len(found) not in (1, channels):
        raise unknown(transform, f"its {key}")
    return found * channels if len(found) == 1 else found

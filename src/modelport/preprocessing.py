"""What a model takes of a picture: its size, how the picture comes to that size, and what the pixels become."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from modelport.errors import SignatureError

Pixels: TypeAlias = np.ndarray[Any, np.dtype[Any]]
MAX_SIDE = 10_000
MAX_PIXELS = 25_000_000
"""The largest picture that is decoded; see `modelport.pictures`."""

Crop: TypeAlias = Literal["center", "none"]
Pad: TypeAlias = Literal["", "zeros", "border", "reflection"]
Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
Mode: TypeAlias = Literal["RGB", "BGR", "L"]
Alpha: TypeAlias = Literal["white", "dropped"]
Layout: TypeAlias = Literal["NHWC", "NCHW"]


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes what a model takes. First `height` x `width` pixels, just as the training library makes them:

    - `resize` a number: the shorter side is resized to it, then the middle is cut out (torchvision's Resize(256), CenterCrop(224))
    - `resize` (height, width): the whole is resized to that, then the middle is cut out (fast.ai's RandomResizedCrop when it validates)
    - neither: the largest middle part of the right shape is cut out, then resized (fast.ai's Resize); with `crop` "none" the whole is
      squished; with `pad` the whole is kept, and what it lacks of the right shape is filled

    Then, for a model whose graph does not do that itself: x * `scale`, less `mean`, divided by `std` (one number a channel, or none), in
    `layout` and `dtype`. The defaults are those of a graph that takes the pixels as they are.

    `exif` says whether the way up that a camera noted is honoured; torchvision, fast.ai and Keras do not, unless they are told to.
    `alpha` says what becomes of what is transparent: white, as it looks on a page, or, "dropped", the colour that lies hidden there, as
    these libraries take it. SignatureError for what cannot be meant.
    """

    height: int
    width: int
    resize: int | tuple[int, int] | None = None
    crop: Crop = "center"
    pad: Pad = ""
    interpolation: Interpolation = "bilinear"
    mode: Mode = "RGB"
    exif: bool = True
    alpha: Alpha = "white"
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Layout = "NHWC"
    dtype: str = "uint8"

    def __post_init__(self) -> None:
        for name, (right, fits) in _STATED.items():
            if not fits(getattr(self, name)):
                raise SignatureError(f"{name} of the pictures is {getattr(self, name)!r}", hint=f"It is {right}.")
        self._check_sizes()
        self._check_numbers()

    def _check_sizes(self) -> None:
        if self.height * self.width > MAX_PIXELS:
            raise SignatureError(f"pictures of {self.width} x {self.height} pixels are larger than any that is taken")
        if self.resize is not None and (self.crop == "none" or self.pad):
            raise SignatureError("pictures are resized and then cut: crop is 'center', and pad does not go with resize")
        if self.resized_to[0] < self.height or self.resized_to[1] < self.width:
            raise SignatureError(f"pictures resized to {self.resize} have no {self.width} x {self.height} pixels to cut out")

    @property
    def resized_to(self) -> tuple[int, int]:
        """The least height and width after `resize`."""
        if isinstance(self.resize, tuple):
            return self.resize
        return (self.resize, self.resize) if self.resize else (self.height, self.width)

    def _check_numbers(self) -> None:
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (0, self.channels):
                raise SignatureError(
                    f"{name} of the pictures has {len(getattr(self, name))} numbers, and {self.mode} pictures have {self.channels} channels"
                )
        if not np.issubdtype(np.dtype(self.dtype), np.floating) and (self.scale != 1.0 or self.mean or self.std):
            raise SignatureError(
                f"the model takes {self.dtype} pixels, and scale, mean or std would make fractions of them",
                hint="Leave them out: the model does that itself.",
            )

    @property
    def channels(self) -> int:
        return 1 if self.mode == "L" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one picture's pixels: height, width, channels."""
        return self.height, self.width, self.channels

    def to_dict(self) -> dict[str, Any]:
        """As JSON, leaving out what is not set."""
        raw: dict[str, Any] = {"height": self.height, "width": self.width}
        for slot in fields(self)[2:]:
            value = getattr(self, slot.name)
            if value != slot.default:
                raw[slot.name] = list(value) if isinstance(value, tuple) else value
        return raw

    @classmethod
    def from_dict(cls, raw: Any, where: str = "schema") -> Preprocessing:
        """Out of JSON or TOML. SignatureError names the place for an unknown key or a wrong value."""
        if not isinstance(raw, Mapping):
            raise SignatureError(f"{where}: the preprocessing is {str(raw)[:60]!r}", hint="It is a table with height and width.")
        _check_keys(raw, f"{where}: the preprocessing", cls.__dataclass_fields__)
        for key in ("height", "width"):
            if key not in raw:
                raise SignatureError(f"{where}: the preprocessing has no {key}", hint="It says how many pixels the model takes.")
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
        try:
            return cls(**values)
        except SignatureError as error:
            raise SignatureError(f"{where}: {error.message}", hint=error.hint) from error

    def describe(self) -> str:
        """In one line, for people: "224 x 224 RGB, shorter side resized to 256, middle cut out"."""
        words = [f"{self.width} x {self.height} {self.mode}"]
        if isinstance(self.resize, tuple):
            words.append(f"resized to {self.resize[1]} x {self.resize[0]}, middle cut out")
        elif self.resize is not None:
            words.append(f"shorter side resized to {self.resize}, middle cut out")
        else:
            words.append(f"filled up ({self.pad})" if self.pad else "middle cut out" if self.crop == "center" else "squished")
        if self.scale != 1.0 or self.mean or self.std:
            words.append(f"times {self.scale:.6g}")
        words += [f"{name} {', '.join(f'{x:g}' for x in numbers)}" for name, numbers in (("mean", self.mean), ("std", self.std)) if numbers]
        return ", ".join(words)

    def tensor(self, pixels: Pixels) -> Pixels:
        """Pixels (rows, height, width, channels) as the model takes them: scaled and normalised, in its layout and dtype."""
        first = self.layout == "NCHW"
        rows = len(pixels)
        made = np.empty((rows, self.channels, self.height, self.width) if first else (rows, *self.shape), dtype=self.dtype)
        for channel, table in enumerate(self._tables):
            given = pixels[..., self.channels - 1 - channel if self.mode == "BGR" else channel]
            if first:
                np.take(table, given, out=made[:, channel], mode="clip")
            else:
                made[..., channel] = table[given]
        return made

    @cached_property
    def _tables(self) -> list[Pixels]:
        """What each of the 256 values of a pixel becomes, for each channel of the model."""
        values = np.arange(256, dtype=np.float64) * self.scale
        means, stds = self.mean or (0.0,) * self.channels, self.std or (1.0,) * self.channels
        return [((values - mean) / std).astype(self.dtype) for mean, std in zip(means, stds, strict=True)]


def _check_keys(raw: Mapping[str, Any], where: str, known: Iterable[str]) -> None:
    for key in raw:
        if key not in known:
            raise SignatureError(f"{where} has no {str(key)[:60]!r}", hint=f"Keys: {', '.join(known)}.")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_SIDE


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_resize(value: Any) -> bool:
    return value is None or _is_size(value) or (isinstance(value, tuple) and len(value) == 2 and all(map(_is_size, value)))


def _one_of(words: Sequence[str]) -> tuple[str, Any]:
    return "one of " + ", ".join(map(repr, words)), lambda value: value in words


_DTYPES = ("float32", "float16", "float64", "uint8", "int8", "int32", "int64")
_STATED: dict[str, tuple[str, Any]] = {
    "height": (f"a number of pixels from 1 to {MAX_SIDE}", _is_size),
    "width": (f"a number of pixels from 1 to {MAX_SIDE}", _is_size),
    "resize": ("a number of pixels for the shorter side, or [height, width]", _is_resize),
    "crop": _one_of(get_args(Crop)),
    "pad": _one_of(get_args(Pad)),
    "interpolation": _one_of(get_args(Interpolation)),
    "mode": _one_of(get_args(Mode)),
    "exif": ("true or false", lambda value: isinstance(value, bool)),
    "alpha": _one_of(get_args(Alpha)),
    "scale": ("a number that is not 0", lambda value: _is_number(value) and value != 0),
    "mean": ("a list of numbers, one a channel", lambda value: isinstance(value, tuple) and all(map(_is_number, value))),
    "std": (
        "a list of numbers above 0, one a channel",
        lambda value: isinstance(value, tuple) and all(_is_number(each) and each > 0 for each in value),
    ),
    "layout": _one_of(get_args(Layout)),
    "dtype": _one_of(_DTYPES),
}
"""What may be stated of each: in words, and as a test."""

PRESETS: dict[str, dict[str, Any]] = {
    "imagenet": {
        "height": 224, "width": 224, "resize": 256, "crop": "center", "scale": 1 / 255,
        "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225),
    },
}  # fmt: skip
"""Preprocessing by name. imagenet is that of torchvision's ResNets and of most models that were trained on ImageNet."""


def stated(said: Any) -> dict[str, Any]:
    """What somebody says of the pictures that a model takes, as keys of `Preprocessing`; the model itself says the others.

    `said` is a size (224), or a table of such keys in which `size` stands for height and width alike, and `preset` for all keys of a preset
    that are not said besides. SignatureError for anything else.
    """
    if not isinstance(said, Mapping):
        said = {"size": said}
    _check_keys(said, "image", [*Preprocessing.__dataclass_fields__, "size", "preset"])
    own = {key: tuple(value) if isinstance(value, list) else value for key, value in said.items()}
    size, preset = own.pop("size", None), own.pop("preset", None)
    if preset is not None and preset not in PRESETS:
        raise SignatureError(f"there is no preset {preset!r}", hint=f"Presets: {', '.join(PRESETS)}.")
    if size is not None:
        if not _is_size(size):
            raise SignatureError(
                f"the size of the pictures is {size!r}", hint="It is a number of pixels, such as 224; or state height and width."
            )
        own = {"height": size, "width": size, **own}
    made = {**PRESETS.get(preset or "", {}), **own}
    for key, value in made.items():
        right, fits = _STATED[key]
        if not fits(value):
            raise SignatureError(f"{key} of the pictures is {value!r}", hint=f"It is {right}.")
    if preset is not None and "resize" not in own:
        made["resize"] = _resize_of(PRESETS[preset], made)
    return made


def _resize_of(preset: Mapping[str, Any], made: Mapping[str, Any]) -> int | None:
    """What a preset resizes to for another size: in the same proportion; nothing where the middle is not cut out."""
    cut = made["crop"] == "center" and not made.get("pad")
    return round(preset["resize"] / preset["height"] * max(made["height"], made["width"])) if cut else None

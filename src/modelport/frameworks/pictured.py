"""An input that takes a tensor becomes one that takes pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from modelport.errors import SignatureError
from modelport.preprocessing import Preprocessing
from modelport.signature import Field


def image(field: Field, stated: Mapping[str, Any]) -> Field:
    """The model's field as an image, of which some is stated; the model's own shape says the layout, the dtype, and the size if it has one.

    SignatureError where the two do not fit.
    """
    if field.kind != "image":
        return Field("image", "image", description=field.description, preprocessing=_preprocessing(field, stated))
    return replace(field, preprocessing=replace(field.preprocessing, **stated) if field.preprocessing else Preprocessing(**stated))


def image_like(shape: Sequence[int]) -> str:
    """Where the channels stand in a tensor of this shape ("NCHW", "NHWC"); "" where it can be no picture. A free size may be any."""
    if len(shape) == 2:
        return "NHWC"  # grey pictures, with no axis for channels
    if len(shape) != 3:
        return ""
    if shape[0] in (1, 3) or set(shape) == {-1}:
        return "NCHW"
    return "NHWC" if shape[-1] in (1, 3) else "NCHW" if shape[0] == -1 else ""


def _preprocessing(field: Field, stated: Mapping[str, Any]) -> Preprocessing:
    """What is stated, and what the model's own input says."""
    layout = stated.get("layout") or image_like(field.shape)
    sizes = (*field.shape, 1) if len(field.shape) == 2 else field.shape if layout == "NHWC" else (*field.shape[1:], field.shape[0])
    own: dict[str, Any] = {"dtype": field.dtype, "mode": "L" if sizes[2] == 1 else stated.get("mode", "RGB")}
    own |= {name: size for name, size in zip(("height", "width"), sizes, strict=False) if size > 0}
    for name, value in own.items():
        if stated.get(name, value) != value:
            raise SignatureError(
                f"the pictures' {name} is stated as {stated[name]}, and the model takes {value}: {field.name!r} is {sized(field)}",
                hint="State what it was trained with: --image, or [image] in modelport.toml.",
            )
    if not {"height", "width"} <= own.keys() | stated.keys():
        raise SignatureError(
            f"the model takes pictures of any size: its input {field.name!r} is {sized(field)}", hint="State the size: --image 224"
        )
    if np.dtype(field.dtype or "float32").kind == "f":
        own["scale"] = 1 / 255
    return Preprocessing(**{**own, "layout": layout, **stated})


def sized(field: Field) -> str:
    """A field's kind and shape, for people: "float32 of rows x 3 x any x any"."""
    if not field.shape:
        return f"a {field.kind}"
    return f"{field.dtype or field.kind} of {' x '.join(['rows', *('any' if size < 0 else str(size) for size in field.shape)])}"

"""What a model takes of a picture is stated once, checked early, and becomes the numbers that the training library would give."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from modelport.errors import SignatureError
from modelport.preprocessing import PRESETS, Preprocessing, stated

IMAGENET = Preprocessing(**PRESETS["imagenet"], layout="NCHW", dtype="float32")


def wrong(**values: Any) -> str:
    with pytest.raises(SignatureError) as caught:
        Preprocessing(**{"height": 32, "width": 32, **values})
    return f"{caught.value.message} {caught.value.hint}"


def test_it_goes_through_json_and_keeps_what_is_set_alone() -> None:
    for how in (Preprocessing(224, 192), IMAGENET, Preprocessing(8, 8, resize=(9, 10)), Preprocessing(8, 9, mode="BGR", exif=False)):
        raw = json.loads(json.dumps(how.to_dict()))
        assert Preprocessing.from_dict(raw) == how
    assert Preprocessing(224, 192).to_dict() == {"height": 224, "width": 192}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"height": 0}, "height of the pictures is 0 It is a number of pixels from 1 to 10000"),
        ({"width": True}, "width of the pictures is True"),
        ({"height": 9000, "width": 9000}, "larger than any that is taken"),
        ({"resize": 30}, "pictures resized to 30 have no 32 x 32 pixels to cut out"),
        ({"resize": (40, 20)}, "have no 32 x 32 pixels"),
        ({"resize": 40, "crop": "none"}, "resized and then cut"),
        ({"resize": 40, "pad": "zeros"}, "resized and then cut"),
        ({"crop": "middle"}, "one of 'center', 'none'"),
        ({"interpolation": "best"}, "'bilinear'"),
        ({"mode": "CMYK"}, "'RGB', 'BGR', 'L'"),
        ({"alpha": "black"}, "'white', 'dropped'"),
        ({"scale": 0, "dtype": "float32"}, "a number that is not 0"),
        ({"mean": (0.5,), "dtype": "float32"}, "mean of the pictures has 1 numbers, and RGB pictures have 3 channels"),
        ({"std": (1.0, 0.0, 1.0), "dtype": "float32"}, "numbers above 0"),
        ({"mean": (0.5, 0.5, 0.5)}, "the model takes uint8 pixels, and scale, mean or std would make fractions of them"),
        ({"dtype": "bfloat16"}, "'float32'"),
    ],
)
def test_what_cannot_be_meant_is_refused(values: dict[str, Any], words: str) -> None:
    assert words in wrong(**values)


def test_a_table_out_of_a_file_is_named_with_its_place() -> None:
    for raw, words in (
        (7, "bundle.json: the preprocessing is '7'"),
        ({"height": 3}, "bundle.json: the preprocessing has no width"),
        ({"height": 3, "width": 3, "hight": 3}, "bundle.json: the preprocessing has no 'hight'"),
        ({"height": 3, "width": 3, "crop": 1}, "bundle.json: crop of the pictures is 1"),
    ):
        with pytest.raises(SignatureError) as caught:
            Preprocessing.from_dict(raw, "bundle.json")
        assert caught.value.message.startswith(words)


def test_pixels_become_what_torchvision_would_make_of_them() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    scaled = pixels.astype(np.float32) / np.float32(255)  # ToTensor, then Normalize
    mean, std = (np.array(numbers, np.float32) for numbers in (IMAGENET.mean, IMAGENET.std))
    want = ((scaled - mean) / std).transpose(0, 3, 1, 2)
    got = IMAGENET.tensor(pixels)
    assert (got.dtype, got.shape) == (np.float32, (2, 3, 224, 224))
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float64", "int32"])
def test_layout_dtype_and_the_order_of_channels(layout: Any, dtype: str) -> None:
    pixels = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    plain = pixels if layout == "NHWC" else pixels.transpose(0, 3, 1, 2)
    got = Preprocessing(3, 4, layout=layout, dtype=dtype).tensor(pixels)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, plain)
    swapped = Preprocessing(3, 4, layout=layout, dtype=dtype, mode="BGR").tensor(pixels[..., ::-1])
    np.testing.assert_array_equal(swapped, plain)
    assert Preprocessing(3, 4, layout=layout, dtype=dtype, mode="L").tensor(pixels[..., :1]).size == 24


def test_what_people_say_is_a_size_a_preset_or_a_table() -> None:
    assert stated(64) == {"height": 64, "width": 64}
    assert stated({"size": 64, "mean": [0.5, 0.5, 0.5]}) == {"height": 64, "width": 64, "mean": (0.5, 0.5, 0.5)}
    assert stated({"preset": "imagenet"}) == PRESETS["imagenet"]
    assert stated({"preset": "imagenet", "size": 299})["resize"] == 342
    assert stated({"preset": "imagenet", "height": 100, "width": 300})["resize"] == 343
    assert stated({"preset": "imagenet", "crop": "none"})["resize"] is None
    assert stated({"preset": "imagenet", "resize": 224})["resize"] == 224
    for said, words in (
        ("big", "the size of the pictures is 'big'"),
        ({"siz": 3}, "image has no 'siz'"),
        ({"preset": "imagnet"}, "there is no preset 'imagnet'"),
        ({"size": 224, "std": [1, 1, 0]}, "std of the pictures is (1, 1, 0)"),
    ):
        with pytest.raises(SignatureError) as caught:
            stated(said)
        assert words in caught.value.message


def test_it_is_described_in_one_line() -> None:
    assert Preprocessing(224, 224).describe() == "224 x 224 RGB, middle cut out"
    assert Preprocessing(8, 9, crop="none").describe() == "9 x 8 RGB, squished"
    assert Preprocessing(8, 9, pad="zeros").describe() == "9 x 8 RGB, filled up (zeros)"
    assert IMAGENET.describe() == (
        "224 x 224 RGB, shorter side resized to 256, middle cut out, times 0.00392157, mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225"
    )

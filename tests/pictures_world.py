"""Pictures for tests, made here: of every format, mode and orientation, and such as nobody should send."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def pattern(width: int, height: int, channels: int = 3) -> np.ndarray[Any, Any]:
    """Smooth pixels that tell left from right and top from bottom."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    layers = [across, down, (across + down) / 2, np.full_like(down, 255)]
    return np.stack(layers[:channels], axis=-1).round().astype(np.uint8)


def noise(width: int, height: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def image(width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(pattern(width, height)).convert(mode)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    return png[:33] + png_chunk(kind, body) + png[33:]


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    """A JPEG with one more segment at its beginning."""
    return jpeg[:2] + bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2) + body + jpeg[2:]


def hollow_png(width: int, height: int, scanlines: int = 1) -> bytes:
    """A PNG that says it is huge and is small: its pixels are all 0."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = zlib.compressobj(9)
    line = b"\0" * (1 + 3 * width)
    body = b"".join(packed.compress(line) for _ in range(scanlines)) + packed.flush()
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


# Networks

COLOURS = ("red", "green", "blue")


def network(
    *,
    size: int | str = 8,
    layout: str = "NCHW",
    dtype: str = "float32",
    last: str = "",
    channels: int = 3,
    rows: int | str = "rows",
    sharpness: float = 4.0,
    trailing: bool = False,
) -> bytes:
    """A convolutional network as ONNX that tells which colour a picture has: the more of it, the higher its number.

    `last` is an operator behind the numbers; with one channel it gives one number, which is higher for light pictures.
    """
    from onnx import TensorProto, helper, numpy_helper

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    box = np.zeros((channels, channels, 3, 3), np.float32)
    for channel in range(channels):
        box[channel, channel] = 1 / 9
    weights = {"box": box, "factor": np.eye(channels, dtype=np.float32) * sharpness, "shift": np.full(channels, -sharpness / 2, np.float32)}
    shape = [rows, channels, size, size] if layout == "NCHW" else [rows, size, size, channels]
    nodes, value = [], "pixels"

    def then(operator: str, *more: str, **attributes: Any) -> None:
        nonlocal value
        made = f"v{len(nodes)}"
        nodes.append(helper.make_node(operator, [value, *more], [made], **attributes))
        value = made

    if dtype != "float32":
        then("Cast", to=TensorProto.FLOAT)
    if layout == "NHWC":
        then("Transpose", perm=[0, 3, 1, 2])
    then("Conv", "box", pads=[1, 1, 1, 1])
    then("Relu")
    then("GlobalAveragePool")
    then("Flatten")
    then("Gemm", "factor", "shift")
    if last:
        then(last, **({"axis": -1} if last == "Softmax" else {}))
    if trailing:
        weights["form"] = np.array([-1, channels, 1, 1], np.int64)
        then("Reshape", "form")
    then("Identity")
    nodes[-1].output[0] = "numbers"
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("pixels", kind, shape)],
        [helper.make_tensor_value_info("numbers", TensorProto.FLOAT, [rows, channels, 1, 1] if trailing else [rows, channels])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="tests")
    model.ir_version = 9
    return bytes(model.SerializeToString())


def plain(colour: str, width: int = 20, height: int = 16, kind: str = "PNG") -> bytes:
    """A picture of one colour."""
    return encoded(Image.new("RGB", (width, height), colour if colour != "green" else (0, 255, 0)), kind)

"""A picture's bytes become pixels: what is let in, and how it is decoded, cut and resized as a `Preprocessing` says.

Only JPEG, PNG and WEBP are taken, told by their content. `look` reads the header first: how large the picture is, how many frames it has
and which way up it is are known, and all metadata thrown away, before Pillow sees a byte of it. So nothing that a picture carries beside
its pixels (EXIF, ICC profiles, compressed texts) is ever unpacked, and Pillow has nothing to warn of.

    bytes -> look -> limits -> decode (a JPEG no larger than it must be) -> upright -> colours -> cut and resize -> uint8
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from modelport.errors import MissingLibrary
from modelport.preprocessing import MAX_PIXELS, MAX_SIDE, Pixels, Preprocessing

MEDIA_TYPES = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
"""The media types of the pictures that are taken, and Pillow's names for them."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_MOST_WORK = 500_000_000
"""Pixels of all scans of a progressive JPEG together, each of which goes over the whole picture."""
_LARGE_PIXELS = 2_000_000
"""Of pictures larger than this one is decoded at a time, so that memory stays bounded however many come at once."""
_MOST_CHUNKS = 20_000
_MOST_THREADS = 8
_SPARE = 2
"""A JPEG is decoded at a fraction of its size where that is still so many times what the model takes."""


class PictureError(Exception):
    """A picture that is not taken. The message is for whoever sent it, and made here: never what a library said of the bytes."""


# What a picture is


@dataclass(frozen=True, slots=True)
class Head:
    """What a picture says of itself."""

    format: str
    """JPEG, PNG or WEBP."""
    width: int
    height: int
    """As it is stored, before it is turned upright."""
    frames: int = 1
    orientation: int = 1
    """As EXIF has it, from 1 to 8; 1 is upright."""
    scans: int = 1
    """How often a JPEG goes over the picture."""


def look(data: bytes) -> tuple[Head, bytes]:
    """A picture's head, and the picture without its metadata. PictureError when it is none, or is cut short."""
    if data[:3] == b"\xff\xd8\xff":
        return _look_jpeg(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _look_png(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _look_webp(data)
    raise PictureError(f"is {_kind(data)}, and no JPEG, PNG or WEBP picture")


def media_type(data: bytes) -> str:
    """The media type of a picture by its first bytes: "image/png". PictureError when it is none that is taken."""
    kind = look(data)[0].format
    return next(name for name, format in MEDIA_TYPES.items() if format == kind)


_MAGIC = (
    (b"%!PS", "PostScript"), (b"\xc5\xd0\xd3\xc6", "PostScript"), (b"%PDF", "a PDF file"), (b"GIF8", "a GIF"), (b"BM", "a BMP picture"),
    (b"II*\0", "a TIFF picture"), (b"MM\0*", "a TIFF picture"), (b"8BPS", "a Photoshop picture"), (b"PK\x03\x04", "a ZIP archive"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"), (b"{", "JSON"),
)  # fmt: skip


def _kind(data: bytes) -> str:
    """What bytes that are no picture seem to be, in words."""
    if not data:
        return "empty"
    if data[4:8] == b"ftyp":
        return "an AVIF picture" if data[8:12] in (b"avif", b"avis") else "a HEIC picture" if data[8:11] in (b"hei", b"mif") else "a video"
    start = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start[:4].lower() == b"<svg" or (start[:5] == b"<?xml" and b"<svg" in data[:4096]):
        return "an SVG drawing"
    if start[:1] == b"<":
        return "HTML or XML"
    return next((words for magic, words in _MAGIC if data.startswith(magic)), "something else")


_CUT_SHORT = "is cut short: the file ends before the picture does"
_DAMAGED = "is damaged, or of a variety that is not read"


def _look_jpeg(data: bytes) -> tuple[Head, bytes]:
    """The segments before the first scan; of those that belong to applications only JFIF's and Adobe's are kept."""
    kept: list[bytes | memoryview] = [data[:2]]
    size, components, at_once, orientation, position = (0, 0), 0, True, 1, 2
    for marker, start, position in _segments(data):
        body = data[start + 2 : position]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size, components = (int.from_bytes(body[3:5]), int.from_bytes(body[1:3])), body[5] if len(body) > 5 else 0
            at_once = marker in (0xC0, 0xC1)
        elif marker == 0xDA:
            at_once = at_once and body[:1] == bytes([components])
        elif marker == 0xE1 and body[:6] == b"Exif\0\0":
            orientation = _orientation(body[6:])
        if marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(b"\xff" + bytes([marker]) + data[start:position])
    if data.rfind(b"\xff\xd9", position) < 0:  # in a scan 0xff is followed by 0 or by the number of a restart
        raise PictureError(_CUT_SHORT)
    scans = 1 if at_once else 1 + data.count(b"\xff\xda", position)
    kept.append(memoryview(data)[position:])
    return Head("JPEG", *_checked(*size), orientation=orientation, scans=scans), b"".join(kept)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The segments of a JPEG (ITU-T T.81, annex B) up to the head of its first scan: the marker, where it begins behind that, and ends."""
    position, marker = 2, 0
    while marker != 0xDA:
        position = data.find(b"\xff", position)
        while position >= 0 and data[position : position + 1] == b"\xff":
            position += 1
        if position < 0 or position + 3 > len(data):
            raise PictureError(_CUT_SHORT)
        marker, position = data[position], position + 1
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # these have no length
            continue
        end = position + int.from_bytes(data[position : position + 2])
        if marker == 0xD9 or end < position + 2:
            raise PictureError(_DAMAGED)
        if end > len(data):
            raise PictureError(_CUT_SHORT)
        yield marker, position, end
        position = end


def _look_png(data: bytes) -> tuple[Head, bytes]:
    """The chunks (https://www.w3.org/TR/png-3); what does not say what the pixels are is left out."""
    kept = [data[:8]]
    position, frames, orientation, chunks = 8, 1, 1, 0
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        chunks += 1
        if end > len(data):
            break
        if (chunks == 1) != (kind == b"IHDR") or (chunks == 1 and length != 13) or chunks > _MOST_CHUNKS:
            raise PictureError(_DAMAGED)
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(data[position:end])
        elif kind == b"acTL" and length == 8:
            frames = int.from_bytes(data[position + 8 : position + 12])
        elif kind == b"eXIf":
            orientation = _orientation(data[position + 8 : end - 4])
        if kind == b"IEND":
            return Head("PNG", *_checked(*struct.unpack_from(">II", data, 16)), frames=frames, orientation=orientation), b"".join(kept)
        position = end
    raise PictureError(_CUT_SHORT)


def _look_webp(data: bytes) -> tuple[Head, bytes]:
    """The chunks (RFC 9649). Of several sizes that they give the largest counts."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data) or len(data) < 20:
        raise PictureError(_CUT_SHORT)
    position, width, height, frames, still, orientation, chunks = 12, 0, 0, 0, 0, 1, 0
    while position + 8 <= end:
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        body = data[position + 8 : min(end, position + 8 + length)]
        chunks += 1
        if position + 8 + length > end:
            raise PictureError(_CUT_SHORT)
        if chunks > _MOST_CHUNKS:
            raise PictureError(_DAMAGED)
        size = _webp_size(kind, body)
        width, height = max(width, size[0]), max(height, size[1])
        frames += kind == b"ANMF"
        still += kind in (b"VP8 ", b"VP8L")
        if kind == b"EXIF":
            orientation = _orientation(body.removeprefix(b"Exif\0\0"))
        position += 8 + length + length % 2
    if still > 1:
        raise PictureError(_DAMAGED)
    return Head("WEBP", *_checked(width, height), frames=max(1, frames), orientation=orientation), data[:end]


def _webp_size(kind: bytes, body: bytes) -> tuple[int, int]:
    """Width and height where the chunk gives them, else 0."""
    if kind == b"VP8X" and len(body) >= 10:
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8 " and len(body) >= 10:
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    if kind == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"ANMF" and len(body) >= 12:
        return 1 + int.from_bytes(body[6:9], "little"), 1 + int.from_bytes(body[9:12], "little")
    return 0, 0


def _checked(width: int, height: int) -> tuple[int, int]:
    if not width or not height:
        raise PictureError(_DAMAGED)
    return width, height


def _orientation(tiff: bytes) -> int:
    """The tag Orientation of EXIF (CIPA DC-008, section 4.6.5) in its first directory; 1 where there is none that makes sense."""
    orders: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
    order = orders.get(tiff[:4])
    if order is None:
        return 1
    start = int.from_bytes(tiff[4:8], order)
    entries = int.from_bytes(tiff[start : start + 2], order)
    for at in range(start + 2, min(start + 2 + 12 * entries, len(tiff) - 11), 12):
        if tiff[at : at + 2] == (0x0112).to_bytes(2, order) and tiff[at + 2 : at + 4] == (3).to_bytes(2, order):
            found = int.from_bytes(tiff[at + 8 : at + 10], order)
            return found if 1 <= found <= 8 else 1
    return 1


# Pixels


def decode(data: bytes, how: Preprocessing | None = None) -> Pixels:
    """A picture's pixels: uint8 of `how.shape`; without `how`, those of the whole picture, upright, (height, width, 3).

    PictureError says what is wrong with it; MissingLibrary where Pillow is not installed.
    """
    head, plain = look(data)
    box = _draft_box(head, how) if how else None
    if _check_limits(head, box) > _LARGE_PIXELS:
        return _large().submit(_pixels, head, plain, box, how).result()
    return _pixels(head, plain, box, how)


def _pixels(head: Head, plain: bytes, box: tuple[int, int] | None, how: Preprocessing | None) -> Pixels:
    mode = "L" if how and how.mode == "L" else "RGB"
    image = _loaded(head, plain, box)
    if how is None or how.exif:
        image = _upright(image, head.orientation)
    image = _colours(image, mode, transparent=how is None or how.alpha == "white")
    pixels = np.asarray(_in_mode(_on_white(_fitted(image, how) if how else image), mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def decode_all(pictures: Sequence[bytes], how: Preprocessing | None = None) -> list[Pixels | PictureError]:
    """The pixels of several pictures, or what is wrong with each; decoded in parallel, a few at once."""

    def one(data: bytes) -> Pixels | PictureError:
        try:
            return decode(data, how)
        except PictureError as error:
            return error

    if len(pictures) < 2:
        return [one(data) for data in pictures]
    return list(_threads().map(one, pictures))


@cache
def _large() -> ThreadPoolExecutor:
    """The one thread that decodes large pictures: one at a time, and always in the same thread's memory, which malloc keeps apart."""
    return ThreadPoolExecutor(1, "large-picture")


@cache
def _threads() -> ThreadPoolExecutor:
    """As many threads as this process has for its computations."""
    share = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ThreadPoolExecutor(min(_MOST_THREADS, int(share) if share.isdecimal() and int(share) else cores), "picture")


def _draft_box(head: Head, how: Preprocessing) -> tuple[int, int] | None:
    """The least width and height at which a JPEG may be decoded; None where it is decoded as it is."""
    if head.format != "JPEG" or how.interpolation == "nearest":
        return None
    height, width = how.resized_to
    if how.exif and head.orientation > 4:
        height, width = width, height
    return _SPARE * width, _SPARE * height


def _check_limits(head: Head, box: tuple[int, int] | None) -> float:
    """How many pixels are decoded. PictureError when a picture has more than is taken, or moves."""
    width, height = head.width, head.height
    if max(width, height) > MAX_SIDE:
        raise PictureError(f"is {width:,} x {height:,} pixels; at most {MAX_SIDE:,} each way are taken")
    if head.frames != 1:
        raise PictureError(f"moves: it has {head.frames:,} frames, and one is taken")
    smaller = min(width // box[0], height // box[1]) if box else 1
    scale = max(s for s in (1, 2, 4, 8) if s <= max(1, smaller))
    pixels = width * height * (2 if head.format == "WEBP" else 1) / scale**2  # WEBP is decoded by way of a canvas of the same size
    if pixels > MAX_PIXELS:
        most = MAX_PIXELS // 2 if head.format == "WEBP" else MAX_PIXELS
        raise PictureError(f"has {width * height:,} pixels ({width:,} x {height:,}); at most {most:,} are taken of a {head.format}")
    if head.scans > 1 and head.scans * width * height > _MOST_WORK:
        raise PictureError(f"goes {head.scans:,} times over its {width * height:,} pixels, which takes too long; save it again")
    return width * height if head.scans > 1 else pixels


def _loaded(head: Head, plain: bytes, box: tuple[int, int] | None) -> Any:
    """Pillow's image, decoded. Its plugins are called by name: none but these three is ever tried on what was sent."""
    try:
        from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin
    except ModuleNotFoundError as error:
        raise MissingLibrary("Pillow is not installed, which decodes pictures", hint="pip install 'modelport[image]'") from error
    except ImportError as error:
        raise MissingLibrary(f"Pillow is installed and does not import: {error}", hint="pip install --force-reinstall pillow") from error
    plugins: dict[str, Any] = {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
    }
    try:
        image = plugins[head.format](io.BytesIO(plain))
        if image.size != (head.width, head.height):
            raise PictureError(_DAMAGED)
        if box is not None:
            image.draft(None, box)
        image.load()
    except (PictureError, MemoryError):
        raise
    except Exception as error:  # damaged bytes make it raise nearly anything, and what it says is not for callers
        raise PictureError(_CUT_SHORT if "truncated" in str(error) else _DAMAGED) from error
    return image


def _upright(image: Any, orientation: int) -> Any:
    from PIL.Image import Transpose

    turns = (None, Transpose.FLIP_LEFT_RIGHT, Transpose.ROTATE_180, Transpose.FLIP_TOP_BOTTOM, Transpose.TRANSPOSE, Transpose.ROTATE_270,
             Transpose.TRANSVERSE, Transpose.ROTATE_90)  # fmt: skip
    turn = turns[orientation - 1]
    return image if turn is None else image.transpose(turn)


def _colours(image: Any, mode: str, *, transparent: bool = True) -> Any:
    """The image as L, RGB, or RGBA where parts of it are `transparent`: modes that can be resized. L stays, also where RGB is wanted."""
    if image.mode.startswith("I"):  # 16 bits: Pillow would cut off what is above 255
        from PIL import Image

        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if transparent and (image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info):
        image = _in_mode(image, "RGBA")
        if image.getextrema()[3][0] < 255:
            return image
    if image.mode == "L" or (image.mode == "1" and mode == "RGB"):
        return _in_mode(image, "L")
    return _in_mode(_in_mode(image, "RGB"), mode)


def _in_mode(image: Any, mode: str) -> Any:
    return image if image.mode == mode else image.convert(mode)


def _on_white(image: Any) -> Any:
    from PIL import Image

    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image) if image.mode == "RGBA" else image


def _fitted(image: Any, how: Preprocessing) -> Any:
    """The image at height x width; rounded just as torchvision and fast.ai round."""
    width, height = image.size
    if how.resize is None:
        if how.pad:
            image = _padded(image, how)
        elif how.crop == "center":
            part = min(width / how.width, height / how.height)
            image = _cut(image, (max(1, int(part * how.width)), max(1, int(part * how.height))), int)
        return _scaled(image, (how.width, how.height), how)
    if isinstance(how.resize, tuple):
        size = how.resize[1], how.resize[0]
    else:
        short, long = min(width, height), max(width, height)
        other = int(how.resize * long / short)
        size = (how.resize, other) if width <= height else (other, how.resize)
    return _cut(_scaled(image, size, how), (how.width, how.height), round)


def _scaled(image: Any, size: tuple[int, int], how: Preprocessing) -> Any:
    from PIL.Image import Resampling

    if size == image.size:
        return image
    _check_made(image, size)
    return image.resize(size, Resampling[how.interpolation.upper()])


def _cut(image: Any, size: tuple[int, int], rounded: Callable[[float], int]) -> Any:
    """The middle of an image."""
    left, top = (rounded((whole - part) / 2) for whole, part in zip(image.size, size, strict=True))
    return image if size == image.size else image.crop((left, top, left + size[0], top + size[1]))


def _padded(image: Any, how: Preprocessing) -> Any:
    """The image with as much around it as it lacks of the right shape."""
    from PIL import Image

    width, height = image.size
    whole = max(width / how.width, height / how.height)
    size = int(whole * how.width), int(whole * how.height)  # of a side that fits it may be one less than the image has
    _check_made(image, size)
    image = image.crop((0, 0, min(width, size[0]), min(height, size[1])))
    width, height = image.size
    left, top = -int((width - size[0]) / 2), -int((height - size[1]) / 2)
    around = [(top, size[1] - height - top), (left, size[0] - width - left)]
    pixels = np.asarray(image)
    modes: dict[str, Any] = {"zeros": "constant", "border": "edge", "reflection": "reflect"}
    return Image.fromarray(np.pad(pixels, around + [(0, 0)] * (pixels.ndim - 2), mode=modes[how.pad]))


def _check_made(image: Any, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise PictureError(f"is {image.size[0]:,} x {image.size[1]:,} pixels: too long and narrow for this model")


# Pictures in folders and texts, and pictures made


_DATA_URL = re.compile(r"data:[a-z0-9.+/-]*(;[a-z0-9=.-]+)*;base64,", re.IGNORECASE)


def find(folder: Path) -> list[Path]:
    """The pictures in a folder and the folders in it, by their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def from_base64(text: str) -> bytes:
    """The bytes of a picture in base64, also as a data URL, and in lines. PictureError when it is no base64."""
    match = _DATA_URL.match(text)
    start = match.end() if match else 0
    try:
        return base64.b64decode(text[start:].encode("ascii").translate(None, b" \t\r\n"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise PictureError("is no picture in base64") from None


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png(pixels: Pixels) -> bytes:
    """Pixels, uint8 (height, width, 1 or 3), as a PNG."""
    height, width, channels = pixels.shape
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def example() -> bytes:
    """A picture made here, of 48 x 36 pixels: patches that are redder to the right and greener to the bottom."""
    across, down = np.meshgrid(np.linspace(0, 255, 8), np.linspace(0, 255, 6))
    patches = np.stack([across, down, np.full_like(down, 128)], axis=-1).astype(np.uint8)
    return png(patches.repeat(6, axis=0).repeat(6, axis=1))


def smaller(data: bytes, side: int) -> bytes:
    """The whole picture upright with a shorter side of at most `side` pixels, as a JPEG: to be kept as an example."""
    head, plain = look(data)
    box = (_SPARE * side, _SPARE * side) if head.format == "JPEG" else None
    _check_limits(head, box)
    image = _colours(_upright(_loaded(head, plain, box), head.orientation), "RGB")
    part = min(1.0, side / min(image.size))
    image = _on_white(image.resize((max(1, round(part * image.size[0])), max(1, round(part * image.size[1])))))
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=85)
    return out.getvalue()

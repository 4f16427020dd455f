"""The words between a child process and its parent: frames of JSON, with arrays and bytes in them; never a pickle, in either direction."""

from __future__ import annotations

import base64
import json
import re
from typing import Any, Callable

import numpy as np

HEAD = 8
"""The bytes of a frame's length, which stand before it, highest first."""
_PLAIN = re.compile(r"[<>|=]?([biuf][1-8]|M8\[\w{1,3}\])")


class Nonsense(ValueError):
    """Bytes that are no frame."""


def dump(value: Any) -> bytes:
    """A frame: dicts, lists, texts, numbers, None, bytes, numpy arrays and numpy scalars."""
    text = json.dumps(value, default=_put).encode("utf-8")
    return len(text).to_bytes(HEAD, "big") + text


def _put(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "biufM":
            data: Any = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode("ascii")
            return {"array": value.dtype.str, "shape": value.shape, "data": data}
        return {"array": "O", "shape": value.shape, "data": value.ravel().tolist()}
    raise TypeError(f"a {type(value).__name__} has no place in a frame")


def load(text: bytes) -> Any:
    """What a frame holds, without its length. Nonsense when it is none."""
    try:
        return json.loads(text.decode("utf-8"), object_hook=_take)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Nonsense(str(error)[:200]) from None


def _take(found: dict[str, Any]) -> Any:
    if set(found) == {"bytes"}:
        return base64.b64decode(found["bytes"], validate=True)
    if set(found) != {"array", "shape", "data"}:
        return found
    shape = tuple(int(size) for size in found["shape"])
    if found["array"] == "O":
        array = np.empty(len(found["data"]), dtype=object)
        array[:] = found["data"]
        return array.reshape(shape)
    if not _PLAIN.fullmatch(found["array"]):
        raise ValueError(f"{found['array']!r} is no dtype of a frame")
    return np.frombuffer(bytearray(base64.b64decode(found["data"], validate=True)), dtype=found["array"]).reshape(shape)


def receive(read: Callable[[int], bytes], largest: int) -> bytes | None:
    """The next frame out of `read`, which gives up to so many bytes, without its length; None when there is no more.

    Nonsense for one of more than `largest` bytes, or that breaks off.
    """
    head = _exactly(read, HEAD)
    if not head:
        return None
    size = int.from_bytes(head, "big")
    if size > largest:
        raise Nonsense(f"a frame of {size} bytes")
    text = _exactly(read, size)
    if len(head) < HEAD or len(text) < size:
        raise Nonsense("a frame that breaks off")
    return text


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    parts = []
    while size > 0:
        part = read(min(size, 1 << 20))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)

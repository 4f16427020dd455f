"""Numpy's dtypes, arrays and scalars, made from what a pickle says of them."""

from __future__ import annotations

import io
import math
import re
from tokenize import TokenError
from typing import Any, TypeAlias

import numpy as np

from modelport.frameworks import Instance, Name
from modelport.inspection.bounds import Malformed

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
_CODE = re.compile(r"[<>=|]?[?bBhHiIlLqQuefdgFDGSUVOMmc][0-9]{0,9}")


def dtype(code: Any, state: Any = None) -> np.dtype[Any] | None:
    """The dtype that `numpy.dtype(code)` and its `__setstate__(state)` would make; None for one that is no plain dtype of numpy's.

    Malformed where the state contradicts itself: joblib reads an array by the item size and the object flag of the state, and a
    reader that believed another part of it would take bytes for data that joblib takes for opcodes.
    """
    if isinstance(code, Name):
        code = {"numpy.record": "V", "numpy.void": "V"}.get(code.name, code)
    if isinstance(code, bytes):
        code = code.decode("latin-1")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return None
    made = np.dtype("O" if code.lstrip("<>=|").startswith("O") else code)
    if state is None:
        return made
    if not isinstance(state, tuple) or not 7 <= len(state) <= 9 or (len(state) > 7 and type(state[7]) is not int):
        raise Malformed("holds a numpy dtype that is none")
    order, itemsize = state[1], state[5]
    made = _with_state(made, state)
    if (made.kind in "SUV" and made.itemsize != itemsize) or (len(state) > 7 and bool(state[7] & 1) != made.hasobject):
        raise Malformed("holds a numpy dtype that contradicts itself")
    order = order.decode("latin-1") if isinstance(order, bytes) else order
    return made.newbyteorder(">" if order == ">" else "<") if order in ("<", ">") else made


def _with_state(made: np.dtype[Any], state: tuple[Any, ...]) -> np.dtype[Any]:
    inner, names, fields, itemsize = state[2:6]
    if (inner is not None or names or fields) and made.kind != "V":
        raise Malformed("holds a numpy dtype that is none")
    if inner is not None:
        return _sub_array(inner)
    if names:
        return _record(names, fields, itemsize)
    if made.kind in "SUV" and type(itemsize) is int and 0 < itemsize < 2**31:
        return np.dtype(f"{made.kind}{itemsize // (4 if made.kind == 'U' else 1)}")
    return _dated(made.kind, state[-1]) if made.kind in "Mm" and isinstance(state[-1], tuple) else made


def _sub_array(inner: Any) -> np.dtype[Any]:
    if not isinstance(inner, tuple) or len(inner) != 2:
        raise Malformed("holds a numpy dtype that is none")
    base, shape = inner
    return np.dtype((_settled(base), _shape(shape if isinstance(shape, tuple) else (shape,))))


def _record(names: Any, fields: Any, itemsize: Any) -> np.dtype[Any]:
    if not isinstance(names, tuple) or not isinstance(fields, dict) or len(names) > 10_000:
        raise Malformed("holds a numpy dtype that is none")
    parts = [fields[name] for name in names]
    as_text = [name.decode("latin-1") if isinstance(name, bytes) else name for name in names]
    formats = [_settled(part[0]) for part in parts]
    return np.dtype({"names": as_text, "formats": formats, "offsets": [part[1] for part in parts], "itemsize": itemsize})


def _dated(kind: str, metadata: tuple[Any, ...]) -> np.dtype[Any]:
    unit, count = metadata[1][0], metadata[1][1]
    text = unit.decode("ascii") if isinstance(unit, bytes) else unit
    if not re.fullmatch(r"[A-Za-zμ]{1,7}", str(text)) or not isinstance(count, int) or not 0 < count < 2**31:
        raise Malformed("holds a numpy dtype that is none")
    return np.dtype(f"{kind}8" if text == "generic" else f"{kind}8[{count}{text}]")


def _settled(value: Any) -> np.dtype[Any]:
    """A dtype wherever a pickle holds one, built already or not yet."""
    if isinstance(value, np.dtype):
        return value
    made = dtype(value.args[0], value.state) if isinstance(value, Instance) and value.cls == "numpy.dtype" and value.args else None
    if made is None:
        raise Malformed("holds a numpy array of a dtype that numpy does not have")
    return made


def _shape(shape: Any) -> tuple[int, ...]:
    if isinstance(shape, int) and not isinstance(shape, bool):
        shape = (shape,)
    if not isinstance(shape, (tuple, list)) or len(shape) > 64:
        raise Malformed("holds a numpy array without a shape")
    if any(isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 0 or size >= 2**62 for size in shape):
        raise Malformed("holds a numpy array whose shape is no shape")
    return tuple(int(size) for size in shape)


def array(shape: Any, of: Any, fortran: Any, raw: Any) -> Array:
    """The array that `ndarray.__setstate__` would make: a view of `raw` (bytes), or of the elements of the list `raw`."""
    sizes, kind = _shape(shape), _settled(of)
    count = math.prod(sizes)
    if isinstance(raw, list):
        if not kind.hasobject or len(raw) != count:
            raise Malformed(f"holds a numpy array of {count} elements that has {len(raw)}")
        flat = np.fromiter(raw, dtype=object, count=count)
    else:
        if isinstance(raw, str):
            raw = raw.encode("latin-1")
        if not isinstance(raw, (bytes, bytearray)) or kind.hasobject:
            raise Malformed("holds a numpy array without its elements")
        if len(raw) != count * kind.itemsize:
            raise Malformed(f"holds a numpy array of {count * kind.itemsize} bytes that has {len(raw)}")
        flat = view(raw, 0, kind, count)
    made = flat.reshape(sizes, order="F" if fortran else "C")
    made.flags.writeable = False
    return made


def view(data: bytes | bytearray, start: int, of: np.dtype[Any], count: int) -> Array:
    """`count` elements of `data` from `start` on, not copied."""
    if count == 0 or of.itemsize == 0:
        return np.empty(0 if count == 0 else min(count, 1), of)
    return np.frombuffer(data, of, count, start)


def scalar(of: Any, raw: Any) -> Any:
    """What `numpy.core.multiarray.scalar(of, raw)` would make."""
    kind = _settled(of)
    if kind.hasobject:
        return raw
    if isinstance(raw, str):
        raw = raw.encode("latin-1")
    if not isinstance(raw, (bytes, bytearray)) or len(raw) != kind.itemsize or kind.itemsize == 0:
        raise Malformed("holds a numpy scalar of the wrong length")
    return np.frombuffer(raw, kind, 1)[0]


def stored(wrapper: Instance, data: bytes, start: int) -> tuple[Array | None, int]:
    """The array that joblib wrote behind its NumpyArrayWrapper at `start`, and where it ends; None when it is one of objects.

    The layout is joblib's (numpy_pickle.NumpyArrayWrapper): since 1.3 one byte says how many bytes of padding follow it.
    """
    kind, sizes = _settled(wrapper.get("dtype")), _shape(wrapper.get("shape"))
    if kind.hasobject:
        return None, start
    if wrapper.get("numpy_array_alignment_bytes") is not None:
        if start >= len(data):
            raise Malformed("is cut short: the elements of an array are missing")
        start += 1 + data[start]
    count = math.prod(sizes)
    end = start + count * kind.itemsize
    if end > len(data):
        raise Malformed(f"is cut short: an array of {count * kind.itemsize} bytes has only {max(len(data) - start, 0)} of them")
    flat = view(data, start, kind, count)
    made = flat.reshape(sizes[::-1]).transpose() if wrapper.get("order") == "F" else flat.reshape(sizes)
    made.flags.writeable = False
    return made, end


def npy(data: bytes) -> Array:
    """The array in a .npy file (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html). Malformed for one of objects."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        sizes, fortran, kind = header(file)
    except (ValueError, SyntaxError, TokenError, TypeError, KeyError) as error:
        raise Malformed(f"is damaged: the header of an array in it does not parse ({error})") from None
    count = math.prod(_shape(sizes))
    if kind.hasobject or len(data) - file.tell() < count * kind.itemsize:
        raise Malformed(f"is cut short: an array of {count * kind.itemsize} bytes has only {len(data) - file.tell()} of them")
    return view(data, file.tell(), kind, count).reshape(sizes, order="F" if fortran else "C")

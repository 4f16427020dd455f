"""Compressed files, inflated within bounds."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

from modelport.errors import MissingLibrary
from modelport.inspection.bounds import Malformed

FLOOR = 64 * 1024**2
"""What any file may inflate to."""
RATIO = 200
"""How many times its size a larger file may inflate to: forests do 5 to 20 times, tables of zeros a hundred."""
CEILING = 8 * 1024**3
MEMORY = 512 * 1024**2
"""What lzma may take for its dictionary: the highest preset takes 65 MB to unpack."""
ZF = b"ZF"
ZF_HEADER = len(ZF) + len(hex(2**64))
PREFIXES = {
    "zlib": b"\x78",
    "gzip": b"\x1f\x8b",
    "bz2": b"BZ",
    "lzma": b"\x5d\x00",
    "xz": b"\xfd7zXZ",
    "lz4": b"\x04\x22\x4d\x18",
    "zf": ZF,
}
"""How compressed files begin, as joblib tells them apart."""
_CHUNK = 1024**2


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def compression(head: bytes) -> str | None:
    """The name of the compression that a file beginning with `head` has, or None."""
    return next((name for name, prefix in PREFIXES.items() if head.startswith(prefix)), None)


def inflate(data: bytes, name: str) -> bytes:
    """`data` without its compression. Malformed when it is damaged, cut short or inflates beyond bounds; MissingLibrary for lz4."""
    allowed = allowed_bytes(len(data))
    try:
        if name == "zf":
            return _inflate_zf(data, allowed)
        return _inflate(data, _DECOMPRESSORS[name], allowed)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError) as error:
        raise Malformed(f"is damaged: what is compressed with {name} in it does not unpack ({error})") from None


def allowed_bytes(size: int) -> int:
    """What `size` compressed bytes may inflate to."""
    return min(max(FLOOR, RATIO * size), CEILING)


def bomb(allowed: int) -> Malformed:
    return Malformed(f"is a bomb: it unpacks to more than {allowed // 1024**2:,} MB, {RATIO} times its size and more than any model needs")


def _inflate(data: bytes, start: Callable[[], _Decompressor], allowed: int) -> bytes:
    """The members of `data`, unpacked one after the other until the rest is none."""
    parts: list[bytes] = []
    total, position = 0, 0
    while position < len(data) and (not position or data.startswith(data[:2], position)):
        member = start()
        while not member.eof:
            if member.needs_input:
                if position >= len(data):
                    raise Malformed("is cut short: its compressed data has no end")
                part = member.decompress(data[position : position + _CHUNK], _CHUNK)
                position = min(position + _CHUNK, len(data))
            else:
                part = member.decompress(b"", _CHUNK)
            total += len(part)
            if total > allowed:
                raise bomb(allowed)
            parts.append(part)
        position -= len(member.unused_data or b"")
    return b"".join(parts)


def _inflate_zf(data: bytes, allowed: int) -> bytes:
    """The layout of joblib before 0.10: "ZF", the length in hexadecimal filled up with blanks to 19 bytes, and zlib data."""
    digits = data[len(ZF) : ZF_HEADER].strip().removesuffix(b"L")
    try:
        length = int(digits, 16)
    except ValueError:
        raise Malformed("is damaged: it begins like a file of joblib before 0.10, and its length is no number") from None
    if length > allowed:
        raise bomb(allowed)
    start = ZF_HEADER + (data[ZF_HEADER : ZF_HEADER + 1] == b" ")
    made = _inflate(data[start:], _DECOMPRESSORS["zlib"], allowed)
    if len(made) != length:
        raise Malformed(f"is damaged: it should unpack to {length} bytes and unpacks to {len(made)}")
    return made


class _Zlib:
    """zlib's decompressor with the manners of those of bz2 and lzma: it keeps what it has not unpacked yet."""

    def __init__(self, bits: int) -> None:
        self._inner = zlib.decompressobj(bits)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _lz4() -> _Decompressor:
    try:
        import lz4.frame
    except ImportError:
        raise MissingLibrary("is compressed with lz4, and the package lz4 is not installed", hint="pip install lz4") from None
    made: _Decompressor = lz4.frame.LZ4FrameDecompressor()
    return made


_DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {
    "zlib": lambda: _Zlib(zlib.MAX_WBITS),
    "gzip": lambda: _Zlib(zlib.MAX_WBITS | 16),
    "bz2": bz2.BZ2Decompressor,
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MEMORY),
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY),
    "lz4": _lz4,
}

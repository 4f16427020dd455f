"""Shared libraries: which others each asks for, and which of these are nowhere, read from their bytes.

https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.dynamic.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

MACHINES = {62: "amd64", 183: "arm64"}
"""e_machine: EM_X86_64 and EM_AARCH64."""
PACKAGES = {
    "libGL.so.1": "libgl1", "libatomic.so.1": "libatomic1", "libffi.so.8": "libffi8", "libgcc_s.so.1": "libgcc-s1",
    "libgfortran.so.5": "libgfortran5", "libgomp.so.1": "libgomp1", "libopenblas.so.0": "libopenblas0", "libquadmath.so.0": "libquadmath0",
    "libsqlite3.so.0": "libsqlite3-0", "libssl.so.3": "libssl3", "libstdc++.so.6": "libstdc++6", "libz.so.1": "zlib1g",
}  # fmt: skip
"""The packages of Debian that bring a library."""
_DYNAMIC = 2
_LOAD = 1
_NEEDED, _STRTAB, _STRSZ = 1, 5, 10
_LARGEST = 1 << 24


@dataclass(frozen=True)
class Library:
    """What a shared library says of itself."""

    machine: str
    """"amd64", "arm64", or the number of another."""
    needed: tuple[str, ...]
    """The names of the libraries that it asks for."""


def read(path: Path) -> Library | None:
    """What a file says; None when it is no shared library of 64 bits, or none that reads."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
            if head[:6] != b"\x7fELF\x02\x01":
                return None
            (machine,) = struct.unpack_from("<H", head, 18)
            (offset,) = struct.unpack_from("<Q", head, 32)
            entry, count = struct.unpack_from("<HH", head, 54)
            file.seek(offset)
            table = file.read(entry * count)
            segments = [struct.unpack_from("<IIQQQQ", table, at * entry) for at in range(count)]
            found = MACHINES.get(machine, f"machine {machine}")
            at = next(((start, size) for kind, _, start, _, _, size in segments if kind == _DYNAMIC), None)
            if at is None:
                return Library(found, ())
            file.seek(at[0])
            raw = file.read(min(at[1], _LARGEST))
            tags = [struct.unpack_from("<qQ", raw, place) for place in range(0, len(raw) - 15, 16)]
            values = dict(reversed(tags))
            strings = next(
                (start + values[_STRTAB] - address for kind, _, start, address, _, size in segments
                 if kind == _LOAD and address <= values.get(_STRTAB, -1) < address + size),
                None,
            )  # fmt: skip
            if strings is None:
                return Library(found, ())
            file.seek(strings)
            text = file.read(min(values.get(_STRSZ, 0), _LARGEST))
    except (struct.error, OSError, ValueError):
        return None
    return Library(found, tuple(_string(text, value) for tag, value in tags if tag == _NEEDED))


def missing(paths: Iterable[Path], there: Iterable[str]) -> Mapping[str, tuple[Path, ...]]:
    """The libraries that some of `paths` ask for and that are neither among them nor `there`, with those that ask."""
    asked: dict[str, list[Path]] = {}
    names = set(there)
    for path in paths:
        names.add(path.name)
        library = read(path)
        for name in library.needed if library else ():
            asked.setdefault(name, []).append(path)
    return {name: tuple(by) for name, by in sorted(asked.items()) if name not in names}


def _string(text: bytes, at: int) -> str:
    return text[at : text.index(b"\0", at)].decode("utf-8", "replace")

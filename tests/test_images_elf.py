"""What shared libraries ask for is read from them, as readelf reads it."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import images_world
from modelport.images import elf


def libraries() -> list[Path]:
    """Some that are here for sure: those of this Python."""
    import msgspec
    import numpy as np

    folders = [Path(np.__file__).parent, Path(msgspec.__file__).parent, Path(np.__file__).parents[1] / "numpy.libs"]
    return sorted(path for folder in folders for path in folder.rglob("*.so*"))


def test_it_says_what_readelf_says() -> None:
    images_world.needed("readelf")
    found = libraries()
    assert len(found) > 10
    for path in found:
        said = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
        needed = tuple(line.partition("[")[2].rstrip("]") for line in said.splitlines() if "(NEEDED)" in line)
        library = elf.read(path)
        assert library is not None
        assert library.needed == needed, path


def test_a_library_is_found_beside_the_one_that_asks_or_there(tmp_path: Path) -> None:
    asking = next(path for path in libraries() if "_multiarray_umath" in path.name)
    missing = elf.missing([asking], ())
    assert "libc.so.6" in missing
    assert all(by == (asking,) for by in missing.values())
    assert "libc.so.6" not in elf.missing([asking], ["libc.so.6"])
    beside = [asking, *libraries()]
    assert not [name for name in elf.missing(beside, ()) if "openblas" in name], "numpy brings its own"


def test_what_is_no_library_or_is_cut_short_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.so"
    for content in (b"", b"text", b"\x7fELF", b"\x7fELF\x02\x01" + b"\xff" * 58, b"\x7fELF\x01\x01" + b"\0" * 58):
        path.write_bytes(content)
        assert elf.read(path) is None, content
    whole = libraries()[0].read_bytes()
    for length in range(0, 4096, 64):
        path.write_bytes(whole[:length])
        elf.read(path)  # raises nothing


def test_the_processor_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.so"
    head = b"\x7fELF\x02\x01\x01" + b"\0" * 9
    for machine, name in ((62, "amd64"), (183, "arm64"), (243, "machine 243")):
        path.write_bytes(head + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 0, 0, 0, 0))
        library = elf.read(path)
        assert library is not None
        assert library.machine == name

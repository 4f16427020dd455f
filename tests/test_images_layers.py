"""Layers are the same bytes of the same files, whatever the clock, the owner or the number of cores."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import tarfile
from pathlib import Path

import pytest

from modelport.errors import ModelportError
from modelport.images import layers


def made(folder: Path, files: layers.Files, **about: object) -> layers.Layer:
    folder.mkdir()
    layers.write(folder, "tests", files, **about)  # type: ignore[arg-type]
    return layers.read(folder)


def test_folders_come_before_what_is_in_them_and_everything_has_one_time_and_owner(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o700)
    layer = made(tmp_path / "layer", {"/opt/b/z": b"zz", "/opt/a": script, "/opt/b/run": b"r"}, executable=["/opt/b/run"])
    with tarfile.open(layer.path) as tar:
        entries = [(one.name, one.isdir(), oct(one.mode), one.mtime, one.uid, one.gid, one.uname, one.gname) for one in tar]
        assert tar.extractfile("opt/b/z").read() == b"zz"  # type: ignore[union-attr]
    same = (layers.MTIME, 0, 0, "", "")
    assert entries == [
        ("opt", True, "0o755", *same),
        ("opt/a", False, "0o755", *same),
        ("opt/b", True, "0o755", *same),
        ("opt/b/run", False, "0o755", *same),
        ("opt/b/z", False, "0o644", *same),
    ]
    assert layer.unpacked == len("#!/bin/sh\n") + 3


def test_the_digests_are_those_of_the_bytes(tmp_path: Path) -> None:
    layer = made(tmp_path / "layer", {"/a": b"x" * 5_000_000})
    packed = layer.path.read_bytes()
    assert layer.digest == "sha256:" + hashlib.sha256(packed).hexdigest()
    assert layer.diff_id == "sha256:" + hashlib.sha256(gzip.decompress(packed)).hexdigest()
    assert layer.size == len(packed)


def test_another_owner_time_and_order_give_the_same_layer(tmp_path: Path) -> None:
    files: dict[str, Path | bytes] = {}
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            path = tmp_path / folder / str(number)
            path.write_bytes(bytes([number]) * 1000)
            os.utime(path, (number, 1_000_000_000 if folder == "one" else 1_500_000_000))
    first = made(tmp_path / "first", {f"/x/{number}": tmp_path / "one" / str(number) for number in range(3)})
    files = {f"/x/{number}": tmp_path / "two" / str(number) for number in reversed(range(3))}
    (tmp_path / "two" / "0").chmod(0o600)
    second = made(tmp_path / "second", files)
    assert first.path.read_bytes() == second.path.read_bytes()


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 2048, 1 << 20, (1 << 20) + 1, 3_333_333])
def test_what_is_compressed_in_blocks_is_one_stream_again(tmp_path: Path, size: int) -> None:
    content = random.Random(size).randbytes(size // 2) + b"a" * (size - size // 2)
    layer = made(tmp_path / "layer", {"/a": content})
    with tarfile.open(layer.path, "r:gz") as tar:
        assert tar.extractfile("a").read() == content  # type: ignore[union-attr]
    assert gzip.decompress(layer.path.read_bytes())


def test_a_long_name_is_kept(tmp_path: Path) -> None:
    name = "/" + "/".join("folder" * 5 for _ in range(8)) + "/größe.py"
    with tarfile.open(made(tmp_path / "layer", {name: b""}).path) as tar:
        assert tar.getnames()[-1] == name[1:]


def test_a_layer_that_was_cut_is_not_taken(tmp_path: Path) -> None:
    layer = made(tmp_path / "layer", {"/a": b"a"})
    layer.path.write_bytes(layer.path.read_bytes()[:-1])
    with pytest.raises(ModelportError, match=r"layer\.tar\.gz was changed after it was made"):
        layers.read(tmp_path / "layer")

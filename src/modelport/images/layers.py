"""Layers: tars of files that are the same bytes wherever and whenever they are made of the same files.

Names are sorted with their folders before them, owner and time are fixed, modes are 0644 or 0755. An image's id rests on the digests of the
tars (diff_id); that of a compressed blob rests on zlib's version, too.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tarfile
import zlib
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO, TypeAlias

from modelport.errors import ModelportError
from modelport.images.manifests import Descriptor

MTIME = 315532800
"""1980-01-01, the first day that a zip file can name."""
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_BLOB, _ABOUT = "layer.tar.gz", "layer.json"
_LEVEL = 6
_BLOCK = 1 << 20
_WINDOW = 1 << 15
_AHEAD = 4

Files: TypeAlias = Mapping[str, Path | bytes]
"""What stands in a layer, by its absolute place: "/opt/modelport/bin/modelport"."""


@dataclass(frozen=True)
class Layer:
    """A layer that is made: a compressed blob in a folder of its own."""

    folder: Path
    name: str
    """What is in it, in a word: "dependencies"."""
    diff_id: str
    digest: str
    size: int
    """Bytes of the blob."""
    unpacked: int
    """Bytes of the files."""
    parts: Mapping[str, int]
    """Bytes of the files of each part of it: of each distribution."""

    @property
    def path(self) -> Path:
        return self.folder / _BLOB

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.digest, self.size, LAYER)


def write(folder: Path, name: str, files: Files, *, executable: Iterable[str] = (), parts: Mapping[str, int] | None = None) -> None:
    """Make a layer of the files in `folder`. Those at the places `executable`, and files that are marked so, may be run."""
    blob = folder / _BLOB
    unpacked, may_run = 0, frozenset(executable)
    with blob.open("wb") as out, _Gzip(out) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
            for place in sorted(_with_folders(files)):
                source = files.get(f"/{place}")
                info = tarfile.TarInfo(place)
                info.mtime = MTIME
                if source is None:
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(info)
                    continue
                with BytesIO(source) if isinstance(source, bytes) else source.open("rb") as content:
                    runs = f"/{place}" in may_run or (isinstance(source, Path) and bool(os.fstat(content.fileno()).st_mode & 0o100))
                    info.size, info.mode = content.seek(0, os.SEEK_END), 0o755 if runs else 0o644
                    content.seek(0)
                    tar.addfile(info, content)
                unpacked += info.size
    about = Layer(folder, name, packed.diff_id, packed.digest, blob.stat().st_size, unpacked, dict(parts or {name: unpacked}))
    (folder / _ABOUT).write_text(json.dumps({key: value for key, value in asdict(about).items() if key != "folder"}))


def read(folder: Path) -> Layer:
    """The layer that `write` made in a folder. ModelportError when it is no more what it was."""
    layer = Layer(folder, **json.loads((folder / _ABOUT).read_bytes()))
    if layer.path.stat().st_size != layer.size:
        raise damaged(layer.path)
    return layer


def damaged(path: Path) -> ModelportError:
    return ModelportError(f"{path} was changed after it was made", hint=f"Remove the folder {path.parent}, and build again.")


def _with_folders(files: Files) -> set[str]:
    """Every place without its first slash, and every folder on the way there."""
    places = {place.removeprefix("/") for place in files}
    return places | {str(parent) for place in places for parent in PurePosixPath(place).parents if str(parent) != "."}


class _Gzip:
    """A gzip file whose blocks are compressed on all cores: the same bytes however many there are.

    Each block is deflated with the end of the one before it as its dictionary, so that one stream comes out, as from pigz
    (https://zlib.net/pigz/).
    """

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1)
        self._waiting: deque[Future[bytes]] = deque()
        self._block = bytearray()
        self._before = b""
        self._sum, self._size = 0, 0
        self._plain, self._packed = hashlib.sha256(), hashlib.sha256()
        self._put(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff")

    @property
    def diff_id(self) -> str:
        return "sha256:" + self._plain.hexdigest()

    @property
    def digest(self) -> str:
        return "sha256:" + self._packed.hexdigest()

    def write(self, content: bytes) -> int:
        self._block += content
        while len(self._block) > _BLOCK:  # the last block is kept until it is known to be the last
            block = bytes(self._block[:_BLOCK])
            del self._block[:_BLOCK]
            self._deflate(block, last=False)
        return len(content)

    def tell(self) -> int:
        return self._size + len(self._block)

    def __enter__(self) -> _Gzip:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._threads:
            if kind is None:
                self._deflate(bytes(self._block), last=True)
                while self._waiting:
                    self._put(self._waiting.popleft().result())
                self._put(struct.pack("<II", self._sum, self._size & 0xFFFFFFFF))

    def _deflate(self, block: bytes, *, last: bool) -> None:
        self._waiting.append(self._threads.submit(_deflated, block, self._before, last))
        self._before = block[-_WINDOW:]
        self._sum = zlib.crc32(block, self._sum)
        self._size += len(block)
        self._plain.update(block)
        if len(self._waiting) > _AHEAD * (os.cpu_count() or 1):
            self._put(self._waiting.popleft().result())

    def _put(self, content: bytes) -> None:
        self._packed.update(content)
        self._out.write(content)


def _deflated(block: bytes, before: bytes, last: bool) -> bytes:
    arguments = (_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_DEFAULT_STRATEGY)
    deflate = zlib.compressobj(*arguments, before) if before else zlib.compressobj(*arguments)
    return deflate.compress(block) + deflate.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)

"""Input files read in chunks: CSV, TSV, JSON lines and Parquet, from paths or standard input; and folders of pictures."""

from __future__ import annotations

import csv
import gzip
import io
import os
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from modelport import pictures
from modelport.batch.cells import Cells
from modelport.errors import ModelportError, UnknownReference, UsageError

SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}
PICTURES = "pictures"
"""The form of a folder of pictures, or of a picture: a row for each, and one column, with its path."""
STANDARD = "-"
MAX_ROWS = 65_536
"""Rows in a chunk at most: what a model is asked at once."""
_BLOCK_BYTES = 4 * 2**20
"""Bytes of a text file that are read at once, and so the longest row it may have."""
_CHUNK_BYTES = 32 * 2**20
_WORTH_ROWS = 4_096


@dataclass(frozen=True)
class BadRow:
    """A row that is none: the reader could not take it apart."""

    number: int
    reason: str
    text: str = ""


@dataclass(frozen=True)
class Chunk:
    """Some rows of one file."""

    source: str
    numbers: np.ndarray[Any, np.dtype[np.int64]]
    """Which row of the file each is, from 1 and without the header; for JSON lines the line."""
    columns: dict[str, Cells]
    text: bool = False
    """Whether the cells are those of a CSV file."""
    records: list[dict[str, Any]] | None = None
    """The rows as they are, out of JSON lines."""
    bad: list[BadRow] = field(default_factory=list)
    progress: float | None = None
    """How much of the file has been read, from 0 to 1; None when nobody knows its length."""


@dataclass(frozen=True)
class Source:
    """An input file, or standard input, and how it is to be read."""

    path: str
    form: str
    """csv, tsv, jsonl, parquet or pictures."""
    delimiter: str = ","
    column: str = ""
    """What the column with the paths of pictures is called."""

    @property
    def name(self) -> str:
        return "standard input" if self.path == STANDARD else self.path

    @property
    def folder(self) -> Path:
        """Where the paths in its cells begin."""
        if self.path == STANDARD:
            return Path()
        return Path(self.path) if self.form == PICTURES and Path(self.path).is_dir() else Path(self.path).parent

    def names(self) -> list[str] | None:
        """The columns, before anything is computed; None where only the rows say (JSON lines, standard input)."""
        if self.form == PICTURES:
            return [self.column]
        schema = self.schema()
        if schema is not None:
            return list(schema.names)
        if self.form == "jsonl" or self.path == STANDARD:
            return None
        with _opened(self.path) as stream:
            return _header(_Head(stream), self)

    def schema(self) -> Any:
        """The columns of a Parquet file with their types; None for the others."""
        return _parquet(self.path).schema_arrow if self.form == "parquet" and self.path != STANDARD else None

    def chunks(self, only: Sequence[str] | None = None, most: int | None = None) -> Iterator[Chunk]:
        """The rows in order, some at a time, `most` at most. The same file gives the same chunks. `only` these columns are needed.

        ModelportError when the file does not read.
        """
        chunks = self._chunks(only)
        return chunks if most is None else chain.from_iterable(_divided(chunk, most) for chunk in chunks)

    def _chunks(self, only: Sequence[str] | None) -> Iterator[Chunk]:
        if self.form == PICTURES:
            yield _picture_chunk(self)
            return
        if self.form == "parquet":
            yield from _parquet_chunks(self, only)
            return
        with _opened(self.path) as stream:
            yield from _json_chunks(self, stream) if self.form == "jsonl" else _csv_chunks(self, stream)


def find(words: Sequence[str], form: str | None, delimiter: str | None, picture: str | None = None) -> list[Source]:
    """The files that paths, globs and "-" stand for; folders of pictures too, where `picture` names the field that they are for.

    UnknownReference for none, UsageError for a file of no known kind.
    """
    paths: list[str] = []
    for word in words:
        if word == STANDARD or Path(word).exists():
            paths.append(word)
            continue
        anchor = Path(word).anchor
        found = sorted(str(path) for path in Path(anchor).glob(word.removeprefix(anchor))) if any(sign in word for sign in "*?[") else []
        if not found:
            raise UnknownReference(f"there is no file {word}", hint="DATA is a CSV, TSV, JSON lines or Parquet file, a glob of them, or -.")
        paths += found
    return [_source(path, form, delimiter, picture) for path in paths]


def form_of(path: str) -> str | None:
    """What a file's name says of its format; .gz is looked through. None when it says nothing."""
    plain = Path(path.removesuffix(".gz"))
    return SUFFIXES.get(plain.suffix.lower())


def line_of(source: Source, number: int) -> int | None:
    """The line of a file on which its row `number` begins; None when nobody can look any more."""
    if source.path == STANDARD or source.form not in ("csv", "tsv"):
        return None
    with _opened(source.path) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="") as text:
        reader = csv.reader(text, delimiter=source.delimiter)
        count, line = -1, 1
        try:
            for row in reader:
                count += bool(row)
                if row and count == number:
                    return line
                line = reader.line_num + 1
        except csv.Error:  # a cell longer than this reader takes
            return None
    return None


def _source(path: str, form: str | None, delimiter: str | None, picture: str | None) -> Source:
    if picture is not None and form is None and (Path(path).is_dir() or Path(path).suffix.lower() in pictures.SUFFIXES):
        return Source(path, PICTURES, column=picture)
    known = form or form_of(path)
    if known is None and not Path(path).is_dir():
        what = "standard input has no name that says its format" if path == STANDARD else f"{path} is of no known format"
        raise UsageError(what, hint="--format csv, tsv, jsonl or parquet says it.")
    if Path(path).is_dir():
        raise UsageError(f"{path} is a folder", hint=f"A glob names the files in it: '{path.rstrip('/')}/*.csv'")
    assert known is not None
    return Source(path, known, delimiter or ("\t" if known == "tsv" else ","))


def _picture_chunk(source: Source) -> Chunk:
    """The pictures of a folder, by their names. UsageError when there are none."""
    path = Path(source.path)
    found = [file.relative_to(path).as_posix() for file in pictures.find(path)] if path.is_dir() else [path.name]
    if not found:
        raise UsageError(f"{path} holds no pictures", hint=f"Their names end with {', '.join(pictures.SUFFIXES)}.")
    numbers = np.arange(1, len(found) + 1, dtype=np.int64)
    return Chunk(source.name, numbers, {source.column: pa.array(found, pa.string())}, text=True, progress=1.0)


def _divided(chunk: Chunk, most: int) -> Iterator[Chunk]:
    """The same rows, `most` at a time; the bad ones go with the first."""
    rows = len(chunk.numbers)
    for start in range(0, max(rows, 1), most):
        stop = min(start + most, rows)
        columns = {name: cells[start:stop] for name, cells in chunk.columns.items()}
        records = None if chunk.records is None else chunk.records[start:stop]
        progress = None if chunk.progress is None else chunk.progress * stop / max(rows, 1)
        yield Chunk(chunk.source, chunk.numbers[start:stop], columns, chunk.text, records, [] if start else chunk.bad, progress)


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == STANDARD:
        yield sys.stdin.buffer
        return
    try:
        with cast("BinaryIO", gzip.open(path)) if path.endswith(".gz") else Path(path).open("rb") as stream:
            yield stream
    except OSError as error:
        raise ModelportError(f"cannot read {path}: {error.strerror or error}") from error


class _Head(io.RawIOBase):
    """A stream whose beginning can be looked at before it is read, and which says how far it has been read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.head = stream.read(_BLOCK_BYTES)
        self._given = 0
        self._raw = getattr(stream, "fileobj", stream)
        self._size = _size(self._raw)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        begun = self.head[self._given : self._given + size] if size >= 0 else self.head[self._given :]
        self._given += len(begun)
        return begun if len(begun) == size else begun + self._stream.read(size - len(begun) if size >= 0 else -1)

    @property
    def progress(self) -> float | None:
        return float(self._raw.tell() / self._size) if self._size else None


def _size(raw: Any) -> int:
    """The bytes of a regular file, 0 of a pipe or a terminal."""
    try:
        about = os.fstat(raw.fileno())
    except OSError:
        return 0
    return about.st_size if stat.S_ISREG(about.st_mode) else 0


def _header(stream: _Head, source: Source) -> list[str]:
    """The names in a CSV file's first line. UsageError when there are none, or one twice."""
    if not stream.head.strip():
        raise UsageError(f"{source.name} is empty", hint="Its first line names the columns.")
    if stream.head.startswith(b"PAR1"):
        raise UsageError(f"{source.name} is a Parquet file", hint="--format parquet")
    text = stream.head.decode("utf-8-sig", "surrogateescape")
    names = next((row for row in csv.reader(io.StringIO(text, newline=""), delimiter=source.delimiter) if row), [])
    foreign = [name for name in names if any("\udc80" <= letter <= "\udcff" for letter in name)]
    if foreign:
        raise UsageError(
            f"{source.name} is not UTF-8 text: its header holds {os.fsencode(foreign[0])!r}",
            hint=f"Convert it first, for example: iconv -f latin1 -t utf-8 {source.path} > utf8.csv",
        )
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise UsageError(f"{source.name} has two columns called {twice[0]!r}", hint="Give each a name of its own.")
    return names


def _csv_chunks(source: Source, stream: BinaryIO) -> Iterator[Chunk]:
    head = _Head(stream)
    names = _header(head, source)
    bad: list[BadRow] = []

    def keep(row: Any) -> str:
        bad.append(BadRow(row.number - 1, f"the row has {row.actual_columns} cells, and the header {row.expected_columns}", row.text))
        return "skip"

    number = 1
    try:
        reader = pyarrow.csv.open_csv(
            head,
            read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(delimiter=source.delimiter, newlines_in_values=True, invalid_row_handler=keep),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.binary()),
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
                check_utf8=False,
            ),
        )
        for batch in _gathered(reader):
            numbers, mine = _numbered(batch.num_rows, number, bad)
            number = int(numbers[-1]) + 1
            for start in range(0, batch.num_rows, MAX_ROWS):
                some = numbers[start : start + MAX_ROWS]
                among = [row for row in mine if row.number < some[-1]]
                del mine[: len(among)]
                yield _text_chunk(source, batch.slice(start, MAX_ROWS), some, among, head.progress)
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        raise ModelportError(
            f"{source.name} does not read as {source.form} after row {number - 1}: {str(error).splitlines()[0]}",
            hint=f"A quote that is never closed does this, and a row of more than {_BLOCK_BYTES} bytes.",
        ) from error
    if bad or number == 1:
        yield Chunk(
            source.name, np.empty(0, dtype=np.int64), {name: pa.array([], pa.string()) for name in names}, text=True, bad=bad, progress=1.0
        )


def _gathered(batches: Iterable[Any]) -> Iterator[Any]:
    """Batches put together until they are worth a chunk: each column costs its time once a chunk, and a table may have thousands."""
    waiting: list[Any] = []
    rows = size = 0
    for batch in chain(batches, [None]):
        if batch is not None:
            waiting.append(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows and (batch is None or rows >= _WORTH_ROWS or size >= _CHUNK_BYTES):
            yield waiting[0] if len(waiting) == 1 else pa.Table.from_batches(waiting).combine_chunks().to_batches()[0]
            waiting, rows, size = [], 0, 0


def _numbered(rows: int, first: int, bad: list[BadRow]) -> tuple[np.ndarray[Any, np.dtype[np.int64]], list[BadRow]]:
    """The numbers of the next `rows` rows, between which the bad ones lie; those are taken out of `bad`."""
    candidates = np.arange(first, first + rows + len(bad), dtype=np.int64)
    numbers = candidates[~np.isin(candidates, [row.number for row in bad])][:rows]
    mine = [row for row in bad if len(numbers) and row.number < numbers[-1]]
    del bad[: len(mine)]
    return numbers, mine


def _text_chunk(
    source: Source, batch: Any, numbers: np.ndarray[Any, np.dtype[np.int64]], bad: list[BadRow], progress: float | None
) -> Chunk:
    """A chunk of UTF-8 cells; a row with any other bytes is bad."""
    columns = {}
    wrong: dict[int, BadRow] = {}
    for name, cells in zip(batch.schema.names, batch.columns, strict=True):
        try:
            columns[name] = cells.cast(pa.string())
        except pa.ArrowInvalid:
            texts = []
            for index, cell in enumerate(cells.to_pylist()):
                try:
                    texts.append(cell.decode())
                except UnicodeDecodeError:
                    texts.append(cell.decode(errors="replace"))
                    wrong.setdefault(index, BadRow(int(numbers[index]), f"the cell {name!r} is not UTF-8 text", texts[-1]))
            columns[name] = pa.array(texts, type=pa.string())
    if wrong:
        good = np.ones(len(numbers), dtype=np.bool_)
        good[list(wrong)] = False
        columns = {name: cells.filter(pa.array(good)) for name, cells in columns.items()}
        numbers, bad = numbers[good], sorted([*bad, *wrong.values()], key=lambda row: row.number)
    return Chunk(source.name, numbers, columns, text=True, bad=bad, progress=progress)


def _json_chunks(source: Source, stream: BinaryIO) -> Iterator[Chunk]:
    head = _Head(stream)
    if head.head.lstrip()[:1] == b"[":
        raise UsageError(
            f"{source.name} is one JSON list, not JSON lines", hint=f"One object a line: jq -c '.[]' {source.path} > data.jsonl"
        )
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    lines = enumerate(_lines(head, source), start=1)
    while True:
        numbers: list[int] = []
        records: list[dict[str, Any]] = []
        bad: list[BadRow] = []
        size = 0
        for number, line in islice(lines, MAX_ROWS):
            size += len(line)
            if line.strip():
                try:
                    records.append(decode(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line))
                    numbers.append(number)
                except (ValueError, RecursionError) as error:
                    bad.append(BadRow(number, f"is no JSON object: {error}", line.decode(errors="replace").strip()[:200]))
            if size >= _CHUNK_BYTES:
                break
        if not size:
            return
        names = dict.fromkeys(name for record in records for name in record)
        columns: dict[str, Cells] = {name: [record.get(name) for record in records] for name in names}
        yield Chunk(source.name, np.asarray(numbers, dtype=np.int64), columns, records=records, bad=bad, progress=head.progress)


def _lines(head: _Head, source: Source) -> Iterator[bytes]:
    buffered = io.BufferedReader(_Raw(head), 2**20)
    count = 0
    while line := buffered.readline(_BLOCK_BYTES):
        count += 1
        if len(line) == _BLOCK_BYTES and not line.endswith(b"\n"):
            raise ModelportError(
                f"{source.name} line {count} is longer than {_BLOCK_BYTES} bytes", hint="JSON lines hold one object a line."
            )
        yield line


class _Raw(io.RawIOBase):
    """A `_Head` as the standard library's buffers read one."""

    def __init__(self, head: _Head) -> None:
        self._head = head

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _parquet(path: str) -> Any:
    try:
        return pyarrow.parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise ModelportError(f"{path} does not read as parquet: {str(error).splitlines()[0]}") from error


def _usual(column: Any) -> Any:
    """A column in the usual type instead of a view, for which pyarrow has few functions."""
    if pa.types.is_string_view(column.type):
        return column.cast(pa.string())
    return column.cast(pa.binary()) if pa.types.is_binary_view(column.type) else column


def _parquet_chunks(source: Source, only: Sequence[str] | None) -> Iterator[Chunk]:
    with tempfile.TemporaryDirectory(prefix="modelport-stdin-") as folder:
        path = source.path
        if path == STANDARD:  # the end of a Parquet file is read first
            path = str(Path(folder, "stdin.parquet"))
            with Path(path).open("wb") as out:
                while block := sys.stdin.buffer.read(2**20):
                    out.write(block)
        with _parquet(path) as file:
            meta, schema = file.metadata, file.schema_arrow
            twice = [name for name, times in Counter(schema.names).items() if times > 1]
            if twice:
                raise UsageError(f"{source.name} has two columns called {twice[0]!r}", hint="Give each a name of its own.")
            size = sum(meta.row_group(group).total_byte_size for group in range(meta.num_row_groups))
            rows = max(64, min(MAX_ROWS, int(_CHUNK_BYTES / max(1.0, size / max(1, meta.num_rows)))))
            columns = None if only is None or any("." in name for name in only) else [name for name in schema.names if name in set(only)]
            done = 0
            try:
                for batch in file.iter_batches(batch_size=rows, columns=columns, use_threads=False):
                    numbers = np.arange(done + 1, done + batch.num_rows + 1, dtype=np.int64)
                    done += batch.num_rows
                    cells = {name: _usual(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)}
                    yield Chunk(source.name, numbers, cells, progress=done / max(1, meta.num_rows))
                if not done:
                    yield Chunk(source.name, np.empty(0, dtype=np.int64), {each.name: _usual(pa.array([], each.type)) for each in schema})
            except (pa.ArrowInvalid, OSError) as error:
                raise ModelportError(f"{source.name} does not read after row {done}: {str(error).splitlines()[0]}") from error

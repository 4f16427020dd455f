"""Answers beside their input columns, as the bytes or tables of an output file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from modelport.batch.cells import Converted, arrow_type, plain_value
from modelport.batch.sources import Chunk
from modelport.errors import ModelContract, ModelportError, UsageError
from modelport.signature import Field, Signature

Answers: TypeAlias = Mapping[str, list[Any]]
"""Output name -> one plain value a row."""

DELIMITERS = {"csv": ",", "tsv": "\t"}


@dataclass(frozen=True)
class Layout:
    """What the columns of an output are."""

    form: str
    """csv, tsv, jsonl or parquet."""
    outputs: tuple[Field, ...]
    kept: Mapping[str, Any] | None = None
    """The input columns that stand beside the answers, with their pyarrow types; None when they are left out."""

    def header(self) -> bytes:
        """What a text file begins with."""
        if self.form not in DELIMITERS:
            return b""
        names = [*(self.kept or {}), *(name for output in self.outputs for name, _ in _flat(output))]
        return _lines([pa.array([name]) for name in names], DELIMITERS[self.form])

    def rows(self, chunk: Chunk, converted: Converted, answers: Answers) -> Any:
        """A chunk's part of the output: bytes, or a table for Parquet. `answers` are those to its good rows."""
        if self.form == "jsonl":
            return msgspec.json.Encoder().encode_lines(self._records(chunk, converted, answers))
        columns = [self._cells(name, chunk, converted) for name in self.kept or {}]
        for output in self.outputs:
            columns += [
                _array(kind, values, output) for (_, kind), values in zip(_flat(output), _split(output, answers[output.name]), strict=True)
            ]
        if self.form in DELIMITERS:
            return _lines(columns, DELIMITERS[self.form])
        try:
            return pa.table(
                [pc.cast(column, kind) for column, kind in zip(columns, self.schema().types, strict=True)], schema=self.schema()
            )
        except pa.ArrowInvalid as error:
            raise ModelportError(f"{chunk.source}: a column is of another type than in the file before: {error}") from error

    def schema(self) -> Any:
        """The columns of a Parquet file."""
        answers = [pair for output in self.outputs for pair in _flat(output)]
        return pa.schema([*(self.kept or {}).items(), *answers])

    def _records(self, chunk: Chunk, converted: Converted, answers: Answers) -> Iterable[dict[str, Any]]:
        """Input records with the answers beside the fields, as the service gives them."""
        kept: Iterable[dict[str, Any]]
        if self.kept is None:
            kept = ({} for _ in range(int(converted.good.sum())))
        elif chunk.records is not None:
            kept = (record for record, good in zip(chunk.records, converted.good, strict=True) if good)
        else:
            cells = [_plain_list(self._cells(name, chunk, converted)) for name in self.kept]
            kept = (dict(zip(self.kept, row, strict=True)) for row in zip(*cells, strict=True))
        names = [output.name for output in self.outputs]
        rows = zip(*(answers[name] for name in names), strict=True)
        return [{**record, **dict(zip(names, row, strict=True))} for record, row in zip(kept, rows, strict=True)]

    def _cells(self, name: str, chunk: Chunk, converted: Converted) -> Any:
        """An input column's good rows: as the file has them, or typed where the file has no types and the output does."""
        cells = chunk.columns.get(name)
        typed = converted.typed.get(name)
        if typed is not None and not (chunk.text and self.form in DELIMITERS) and (chunk.text or isinstance(cells, list)):
            return typed
        if cells is None:
            return pa.nulls(int(converted.good.sum()), pa.string())
        if isinstance(cells, list):
            cells = pa.array([_json_text(value) for value in cells], type=pa.string())
        return cells.filter(pa.array(converted.good))


def layout(signature: Signature, form: str, chunk: Chunk, *, only_predictions: bool) -> Layout:
    """The output's columns, decided on the first chunk. UsageError when an input column has the name of an answer."""
    if only_predictions:
        return Layout(form, signature.outputs)
    fields = {field.name: field for field in signature.inputs}
    kept: dict[str, Any] = {}
    for name, cells in chunk.columns.items():
        typed = arrow_type(fields[name]) if name in fields else None
        kept[name] = (typed or pa.string()) if chunk.text or isinstance(cells, list) else cells.type
    check_clash(signature, form, kept, chunk.source)
    return Layout(form, signature.outputs, kept)


def check_clash(signature: Signature, form: str, kept: Iterable[str], where: str) -> None:
    """UsageError when an input column has the name of an answer."""
    names = {output.name if form == "jsonl" else name for output in signature.outputs for name, _ in _flat(output)}
    for name in kept:
        if name in names:
            raise UsageError(
                f"{where} has a column {name!r}, which is the name of an answer",
                hint="--only-predictions leaves the file's columns out; or rename the column.",
            )


def merge(layout: Layout, parts: Sequence[Path], target: Path, *, header: bytes | None = None) -> None:
    """One file out of its parts, in order; a text file begins with `header`, by default the layout's."""
    if layout.form == "parquet":
        with pyarrow.parquet.ParquetWriter(target, layout.schema()) as writer:
            for part in parts:
                writer.write_table(pyarrow.parquet.read_table(part, partitioning=None, schema=layout.schema()))
        return
    with target.open("wb") as out:
        out.write(layout.header() if header is None else header)
        for part in parts:
            with part.open("rb") as rows:
                shutil.copyfileobj(rows, out, 2**20)


def write_part(rows: Any, path: Path) -> None:
    """The bytes or the table of one chunk in a file of its own."""
    if isinstance(rows, bytes):
        path.write_bytes(rows)
    else:
        pyarrow.parquet.write_table(rows, path)


def rejected_rows(rows: Sequence[tuple[str, ...]]) -> bytes:
    """Lines of a CSV file of bad rows."""
    return _lines([pa.array(column, type=pa.string()) for column in zip(*rows, strict=True)], ",") if rows else b""


def _flat(output: Field) -> list[tuple[str, Any]]:
    """The columns of an output and their types: "probabilities.setosa" for each element of a vector with names."""
    if output.shape and output.choices:
        return [(f"{output.name}.{choice}", pa.float64()) for choice in output.choices]
    if output.shape:
        kind = pa.float64()
        for _ in output.shape:
            kind = pa.list_(kind)
        return [(output.name, kind)]
    return [(output.name, arrow_type(output) or pa.string())]


def _split(output: Field, values: list[Any]) -> list[list[Any]]:
    if output.shape and output.choices:
        return [[None if row is None else row[str(choice)] for row in values] for choice in output.choices]
    if arrow_type(output) is None and not output.shape:
        return [[_json_text(value) for value in values]]
    if output.kind == "datetime":
        import datetime as dt

        return [[None if value is None else dt.datetime.fromisoformat(value) for value in values]]
    return [values]


def _array(kind: Any, values: list[Any], output: Field) -> Any:
    try:
        return pa.array(values, type=kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise ModelContract(f"output {output.name!r} is no {output.kind}: {error}") from error


def _plain_list(cells: Any) -> list[Any]:
    return [plain_value(value) for value in cells.to_pylist()]


def _json_text(value: Any) -> str | None:
    """A JSON value in one cell: a text as it is, anything else as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _lines(columns: Sequence[Any], delimiter: str) -> bytes:
    """The columns as lines of CSV (RFC 4180, with \\n between them)."""
    if not columns or not len(columns[0]):
        return b""
    cells = [_quoted(_texts(column), delimiter, alone=len(columns) == 1) for column in columns]
    ends = pa.array([""] * len(cells[0]))
    joined = pc.binary_join_element_wise(*cells, delimiter, null_handling="replace", null_replacement="") if len(cells) > 1 else cells[0]
    lines = pc.binary_join_element_wise(joined, ends, "\n")
    _, offsets, data = lines.buffers()  # the texts of an array lie one behind the other
    places = np.frombuffer(offsets, dtype=np.int32)
    return bytes(memoryview(data)[places[lines.offset] : places[lines.offset + len(lines)]])


def _texts(column: Any) -> Any:
    """Cells as text: numbers in their shortest exact form, times in ISO 8601, nested values in JSON."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _texts(column.dictionary_decode())
    if pa.types.is_nested(kind) or pa.types.is_timestamp(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return pa.array([_json_text(plain_value(value)) for value in column.to_pylist()], type=pa.string())
    return pc.cast(column, pa.string())


def _quoted(cells: Any, delimiter: str, *, alone: bool) -> Any:
    """Cells in quotes where they need them; an empty cell that is `alone` too, as an empty line is no row."""
    needs = pc.match_substring_regex(cells, f'[{delimiter}"\r\n]')
    if alone:
        cells = pc.fill_null(cells, "")
        needs = pc.or_(pc.fill_null(needs, False), pc.equal(cells, ""))
    if not pc.any(needs).as_py():
        return cells
    quote = pa.scalar('"')
    return pc.if_else(needs, pc.binary_join_element_wise(quote, pc.replace_substring(cells, '"', '""'), quote, ""), cells)

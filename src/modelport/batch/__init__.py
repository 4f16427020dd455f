"""Predictions for whole files: CSV, TSV, JSON lines and Parquet, in chunks, so that memory stays bounded."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelport import __version__, engines
from modelport.bundle import Bundle
from modelport.engines import Engine
from modelport.errors import FieldError, InvalidInput, MissingLibrary, ModelContract, ModelFailed, ModelportError, UsageError, pointer
from modelport.signature import Columns, Signature, did_you_mean, to_plain

try:
    import pyarrow as pa
except ModuleNotFoundError as error:
    raise MissingLibrary("pyarrow is not installed, which reads and writes the files", hint="pip install 'modelport[batch]'") from error
except ImportError as error:
    raise MissingLibrary(f"pyarrow is installed and does not import: {error}", hint="pip install --force-reinstall pyarrow") from error

from modelport.batch import cells, results, sources
from modelport.batch.parts import Counts, Parts

if TYPE_CHECKING:
    from modelport.batch.sources import Chunk, Source

REJECTS = ("file", "row", "field", "reason", "value")
"""The columns of a file of bad rows. A row counts from 1 without the header; of JSON lines it is the line."""
_MOST_FAILURES = 1_000
_MOST_PICTURES = 32
"""What a model is asked of pictures at once: a network takes several megabytes for each."""
_DATA_HINT = "--rejects rejects.csv keeps bad rows apart and goes on with the others."


@dataclass(frozen=True)
class Options:
    """How files are read and written. Each is a flag of `modelport predict`."""

    form: str | None = None
    """csv, tsv, jsonl or parquet; None goes by the file's name. The flag is --format."""
    output_form: str | None = None
    """None goes by the output's name, else as the input. The flag is --output-format."""
    delimiter: str | None = None
    only_predictions: bool = False
    rejects: Path | None = None
    """Where bad rows go; without it the first one stops the run."""
    resume: bool = False
    """Go on where a run with the same inputs, bundle and options was killed."""


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    rows: int
    """Rows read."""
    rejected: int
    """Rows among them that got no answer."""
    resumed: int
    """Rows among them that an earlier run had done."""
    outputs: tuple[str, ...]
    rejects: str | None = None
    absent: tuple[str, ...] = ()
    """Fields whose columns the files do not have: null, or the default, in every row."""


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    rows: int
    resumed: int
    fraction: float | None
    """From 0 to 1; None when the input's length is not known."""


def predict(
    bundle: Bundle,
    data: Sequence[str],
    output: str = sources.STANDARD,
    options: Options | None = None,
    *,
    engine: Engine | None = None,
    report: Callable[[Progress], object] | None = None,
) -> Summary:
    """Answer every row of the files `data` (paths, globs, "-") and write the answers, with the input's columns beside them, to `output`.

    `output` is a file, into which all go in order; a folder (it exists, or ends with /), in which each gets a file of its name; or "-".
    Nothing stands there until all is done. `engine` is the bundle loaded, where it is at hand already. `report` hears of progress.

    InvalidInput for the first bad row when `options.rejects` is None, UsageError and UnknownReference for files that cannot be taken,
    ModelFailed and ModelContract when the model does not answer.
    """
    options = options or Options()
    picture = next((one.name for one in bundle.signature.inputs if one.kind == "image"), None)
    found = sources.find(data, options.form, options.delimiter, picture)
    engine = engine or engines.load(bundle)
    if output == sources.STANDARD or not (output.endswith("/") or Path(output).is_dir()):
        return _Run(bundle, engine, options, found, output, report).run()
    if options.rejects is not None and len(found) > 1:
        raise UsageError("--rejects takes one output file", hint="Write all into one file with -o FILE, or call it once for each.")
    summaries = [_Run(bundle, engine, options, [source], target, report).run() for source, target in _targets(found, output, options)]
    absent = tuple(dict.fromkeys(name for summary in summaries for name in summary.absent))
    counts = [sum(getattr(summary, key) for summary in summaries) for key in ("rows", "rejected", "resumed")]
    written = tuple(name for summary in summaries for name in summary.outputs)
    return Summary(counts[0], counts[1], counts[2], written, summaries[0].rejects, absent)


def _targets(found: Sequence[Source], folder: str, options: Options) -> list[tuple[Source, str]]:
    """The file in `folder` for each source. UsageError when two would be the same."""
    taken: dict[str, Source] = {}
    for source in found:
        if source.path == sources.STANDARD:
            raise UsageError("standard input has no name for a file in a folder", hint="-o names a file.")
        name = Path(source.path.removesuffix(".gz"))
        form = options.output_form or ("csv" if source.form == sources.PICTURES else None)
        target = str(Path(folder, f"{name.stem}.{form}" if form else name.name))
        if target in taken:
            raise UsageError(f"{taken[target].path} and {source.path} would both be written to {target}", hint="Write them one at a time.")
        taken[target] = source
    return [(source, target) for target, source in taken.items()]


@dataclass
class _Run:
    """One output file being made."""

    bundle: Bundle
    engine: Engine
    options: Options
    sources: Sequence[Source]
    output: str
    report: Callable[[Progress], object] | None
    absent: tuple[str, ...] = field(default=(), init=False)

    def run(self) -> Summary:
        options = self.options
        form = self._form()
        self._check()
        if self.output != sources.STANDARD:
            return self._into(Path(self.output), form)
        if options.resume:
            raise UsageError("--resume goes on with a file", hint="-o names it.")
        with tempfile.TemporaryDirectory(prefix="modelport-predict-") as folder:
            summary = self._into(Path(folder, f"output.{form}"), form)
            with Path(folder, f"output.{form}").open("rb") as made:
                shutil.copyfileobj(made, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        return Summary(summary.rows, summary.rejected, summary.resumed, (sources.STANDARD,), summary.rejects, summary.absent)

    def _form(self) -> str:
        """The format of the output."""
        form = self.options.output_form or (None if self.output == sources.STANDARD else sources.form_of(self.output))
        if form is None and self.output != sources.STANDARD:
            raise UsageError(f"{self.output} is of no known format", hint="--output-format csv, tsv, jsonl or parquet says it.")
        if self.output.endswith(".gz"):
            raise UsageError(f"{self.output}: compressed output is not written", hint="Parquet is compressed: -o out.parquet")
        first = self.sources[0].form
        return form or ("csv" if first in ("parquet", sources.PICTURES) else first)

    def _check(self) -> None:
        """Everything that can be wrong before the first row is read."""
        written = [Path(path) for path in (self.output, self.options.rejects) if path is not None and path != sources.STANDARD]
        read = [Path(source.path) for source in self.sources if source.path != sources.STANDARD]
        for path in written:
            if any(path.exists() and path.samefile(other) for other in read):
                raise UsageError(f"{path} is read and cannot be written at once", hint="-o names another file.")
        if len(written) == 2 and written[0].absolute() == written[1].absolute():
            raise UsageError("the bad rows cannot go to the output itself", hint=_DATA_HINT)
        if self.options.resume and len(read) < len(self.sources):
            raise UsageError("standard input cannot be read again from its beginning", hint="--resume takes files.")
        if len({source.form for source in self.sources}) > 1:
            raise UsageError("the files are of several formats", hint="One output takes one format: call it once for each.")
        self._check_columns()

    def _check_columns(self) -> None:
        first: Sequence[str] | None = None
        for source in self.sources:
            names, schema = source.names(), source.schema()
            if names is None:
                continue
            self._check_names(names, source)
            for each in self.bundle.signature.inputs if schema is not None else ():
                if each.name in names:
                    cells.check_type(each, schema.field(each.name).type, source.name)
            if not self.options.only_predictions:
                results.check_clash(self.bundle.signature, self._form(), names, source.name)
                first = first or names
                self._check_same(first, names, source)

    def _check_same(self, first: Sequence[str], names: Sequence[str], source: Source) -> None:
        """UsageError when two files that go into one output have different columns."""
        if set(first) != set(names):
            other = sorted(set(first) ^ set(names))[0]
            raise UsageError(
                f"{self.sources[0].name} and {source.name} have different columns: {other!r} is in one of them only",
                hint="--only-predictions leaves the files' columns out; a folder as -o gives each file its own output.",
            )

    def _check_names(self, names: Sequence[str], source: Source) -> None:
        """UsageError when a column that the model needs is not there, or seems misspelt."""
        fields = self.bundle.signature.inputs
        used, there = {field.name for field in fields}, set(names)
        unused = [name for name in names if name not in used]
        missing = [field for field in fields if field.name not in there]
        wrong = [(field.name, did_you_mean(field.name, unused)) for field in missing[:20]]
        needed = [field.name for field in missing if not field.optional]
        guessed = [name for name, near in wrong if near]
        if needed or guessed:
            name = (needed or guessed)[0]
            more = f" (nor {len(needed) - 1} more that the model needs)" if len(needed) > 1 else ""
            hint = f"It has: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}."
            sign = next((sign for sign in ";\t|" if sign in names[0]), "") if len(names) == 1 else ""
            if sign:
                hint = f"Its cells seem to be separated by something else: --delimiter '{sign}'"
            raise UsageError(f"{source.name} has no column {name!r}{more}{dict(wrong).get(name, '')}", hint=hint)
        self.absent = tuple(dict.fromkeys([*self.absent, *(field.name for field in missing)]))

    def _into(self, output: Path, form: str) -> Summary:
        with Parts(output, self._identity(form), resume=self.options.resume) as parts:
            done = len(parts.counts)
            resumed = sum((counts.rows for counts in parts.counts), start=0)
            try:
                layout = self._answer_all(parts, form, done)
                self._finish(parts, layout)
            except ModelportError as error:
                if not parts.counts or isinstance(error, UsageError | InvalidInput | ModelFailed | ModelContract):
                    parts.discard()  # there is nothing to go on with, or it would come to the same
                raise
            parts.discard()
            total = sum(parts.counts, start=Counts())
        rejects = str(self.options.rejects) if self.options.rejects else None
        return Summary(total.rows, total.rejected, resumed, (str(output),), rejects, self.absent)

    def _identity(self, form: str) -> dict[str, Any]:
        about: list[dict[str, Any]] = []
        for source in self.sources:
            if source.path == sources.STANDARD:
                about.append({"path": source.path})
                continue
            stat = Path(source.path).stat()
            about.append({"path": str(Path(source.path).resolve()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns})
        return {
            "inputs": about,
            "bundle": self.bundle.digest,
            "engine": self.engine.name,
            "format": [self.sources[0].form, self.sources[0].delimiter, form],
            "only-predictions": self.options.only_predictions,
            "rejects": str(self.options.rejects) if self.options.rejects else None,
            "versions": [__version__, pa.__version__],
        }

    def _answer_all(self, parts: Parts, form: str, done: int) -> results.Layout:
        signature = self.bundle.signature
        layout: results.Layout | None = None
        only = [field.name for field in signature.inputs] if self.options.only_predictions else None
        most = _MOST_PICTURES if any(field.kind == "image" for field in signature.inputs) else None
        index = 0
        for place, source in enumerate(self.sources):
            for chunk in source.chunks(only, most):
                if layout is None:
                    if source.path == sources.STANDARD and chunk.records is None:
                        self._check_names(list(chunk.columns), source)
                    layout = results.layout(signature, form, chunk, only_predictions=self.options.only_predictions)
                if index >= done:
                    self._answer(chunk, layout, parts, source)
                    self._tell(parts, done, chunk, place)
                index += 1
        return layout or results.Layout(form, signature.outputs, None if self.options.only_predictions else {})

    def _answer(self, chunk: Chunk, layout: results.Layout, parts: Parts, source: Source) -> None:
        """One chunk: its columns converted, answered and kept."""
        if chunk.records is not None and layout.kept is not None:
            self._check_record_names(chunk, layout)
        converted = cells.convert(self.bundle.signature.inputs, chunk.columns, len(chunk.numbers), text=chunk.text, folder=source.folder)
        rejected: list[tuple[int, str, str, str]] = [(row.number, "", row.reason, row.text) for row in chunk.bad]
        rejected += [(int(chunk.numbers[cell.index]), cell.field, cell.reason, cell.value) for cell in converted.wrong]
        if rejected and self.options.rejects is None:
            raise self._stopped(source, min(rejected))
        answers, failures = self._answers(converted.columns, int(converted.good.sum()))
        if failures:
            places = converted.good.nonzero()[0]
            rejected += [(int(chunk.numbers[places[index]]), "", reason, "") for index, reason in failures]
            if self.options.rejects is None:
                raise self._stopped(source, min(rejected))
            converted = _without(converted, [index for index, _ in failures])
        rows = layout.rows(chunk, converted, answers)
        lines = [(source.name, str(number), name, reason, value) for number, name, reason, value in sorted(rejected)]
        counts = Counts(len(chunk.numbers) + len(chunk.bad), len({row[0] for row in rejected}))
        parts.add(lambda path: results.write_part(rows, path), results.rejected_rows(lines), counts)

    def _check_record_names(self, chunk: Chunk, layout: results.Layout) -> None:
        """JSON lines say their columns row by row."""
        results.check_clash(self.bundle.signature, layout.form, chunk.columns, chunk.source)
        new = [name for name in chunk.columns if name not in (layout.kept or {})]
        if new and layout.form != "jsonl":
            raise UsageError(
                f"{chunk.source} has the key {new[0]!r} from line {chunk.numbers[0]} on, which the lines before do not have",
                hint="Write JSON lines, or leave the input's columns out with --only-predictions.",
            )

    def _answers(self, columns: Columns, rows: int) -> tuple[dict[str, list[Any]], list[tuple[int, str]]]:
        """The good rows' answers as plain values, and the rows that the model could not answer, with what it said."""
        failures: list[tuple[int, str]] = []
        answers = _answers(
            self.engine, self.bundle.signature, columns, 0, rows, failures, most=_MOST_FAILURES if self.options.rejects else 1
        )
        return answers, failures

    def _stopped(self, source: Source, bad: tuple[int, str, str, str]) -> ModelportError:
        """The error that names a bad row by its file, number and line."""
        number, name, reason, value = bad
        line = sources.line_of(source, number)
        place = f"{source.name} {'line' if source.form == 'jsonl' else 'row'} {number}" + (f" (line {line})" if line else "")
        if source.form == sources.PICTURES:
            place = str(source.folder / value)
        error = InvalidInput([FieldError(pointer(number, *([name] if name else [])), reason, got=value)], hint=_DATA_HINT)
        error.message = f"{place}{', ' + repr(name) if name else ''}: {reason}"
        error.args = (error.message,)
        return error

    def _finish(self, parts: Parts, layout: results.Layout) -> None:
        """The rejects first and the output last: where it stands, all is done."""
        many = range(len(parts.counts))
        if self.options.rejects is not None:
            rejects = results.Layout("csv", ())

            def write(path: Path) -> None:
                results.merge(rejects, [parts.rejects(index) for index in many], path, header=results.rejected_rows([REJECTS]))

            parts.finish(write, self.options.rejects)
        parts.finish(lambda path: results.merge(layout, [parts.path(index) for index in many], path), parts.output)

    def _tell(self, parts: Parts, done: int, chunk: Chunk, place: int) -> None:
        if self.report is None:
            return
        fraction = None if chunk.progress is None else (place + chunk.progress) / len(self.sources)
        resumed = sum(counts.rows for counts in parts.counts[:done])
        self.report(Progress(sum(counts.rows for counts in parts.counts), resumed, fraction))


def _answers(
    engine: Engine, signature: Signature, columns: Columns, first: int, rows: int, failures: list[tuple[int, str]], *, most: int
) -> dict[str, list[Any]]:
    """Plain answers to the rows from `first` on; a row with which the model fails is found by halving, and put into `failures`."""
    if not rows:
        return {output.name: [] for output in signature.outputs}
    try:
        answers = engine.predict({name: column[first : first + rows] for name, column in columns.items()})
        return _plain(signature, answers)
    except (InvalidInput, ModelFailed, _NoAnswer) as error:
        if rows == 1:
            failures.append((first, error.args[0] if isinstance(error, _NoAnswer) else error.message))
            if len(failures) >= most > 1:
                raise ModelFailed(f"the model failed with {most} rows, the last time so: {failures[-1][1]}") from error
            return {output.name: [] for output in signature.outputs}
    half = rows // 2
    begin = _answers(engine, signature, columns, first, half, failures, most=most)
    if failures and most == 1:
        return begin
    end = _answers(engine, signature, columns, first + half, rows - half, failures, most=most)
    return {name: [*values, *end[name]] for name, values in begin.items()}


class _NoAnswer(Exception):
    """An answer that holds NaN, infinity or something that is no value."""


def _plain(signature: Signature, answers: Columns) -> dict[str, list[Any]]:
    try:
        return {output.name: to_plain(output, answers[output.name]) for output in signature.outputs}
    except ModelContract as error:
        raise _NoAnswer(error.message) from error


def _without(converted: cells.Converted, failed: Iterable[int]) -> cells.Converted:
    """The chunk without the good rows that the model failed with."""
    places = converted.good.nonzero()[0]
    still = np.ones(len(places), dtype=np.bool_)
    still[list(failed)] = False
    good = converted.good.copy()
    good[places[~still]] = False
    typed = {name: values.filter(pa.array(still)) for name, values in converted.typed.items()}
    return cells.Converted(converted.columns, typed, good, converted.wrong)

"""`modelport predict`: predictions for whole files."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from modelport.cli.output import counted
from modelport.cli.references import engine_option, model_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelport.batch import Progress, Summary

_FORMS = click.Choice(["csv", "tsv", "jsonl", "parquet"])


@click.command()
@click.argument("ref")
@click.argument("files", metavar="DATA...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="PATH", default="-", help="A file, a folder (one file for each), or - for standard output.")
@click.option("--format", "form", type=_FORMS, help="The format of DATA, where its name does not say.")
@click.option("--output-format", "output_form", type=_FORMS, help="The format of the output, where its name does not say.")
@click.option("--delimiter", metavar="SIGN", help="What separates the cells of a CSV file: ';' for example.")
@click.option("--only-predictions", is_flag=True, help="Leave the columns of DATA out of the output.")
@click.option("--rejects", metavar="FILE", help="Write bad rows to this CSV file, and go on with the others.")
@click.option("--resume", is_flag=True, help="Go on where the same run was killed.")
@click.option("--json", "as_json", is_flag=True, help="Say what was done as JSON.")
@engine_option
@model_options
def command(ref: str, files: tuple[str, ...], output: str, as_json: bool, **flags: Any) -> None:
    """Write predictions for every row of DATA: CSV, TSV, JSON lines or Parquet files, globs, folders of pictures, or - for standard input.

    The columns of DATA stand beside the predictions, also those that the model does not use; class probabilities are columns of their own,
    probabilities.setosa. Several files go into one, in order. The output appears when all is done. Values are written as they are: a
    spreadsheet that opens a CSV file may run a cell that begins with =, + or @. A cell for a picture is its path, from the file's folder.

    \b
    modelport predict iris data.csv -o out.parquet
    modelport predict iris 'data/*.csv' -o predicted/ --only-predictions
    modelport predict iris data.csv -o out.csv --rejects rejects.csv
    modelport predict ants photos/ -o labels.csv
    """
    import json
    from dataclasses import asdict

    from modelport import engines
    from modelport.batch import Options, predict
    from modelport.cli.references import open_reference

    words = {key: flags.pop(key) for key in ("form", "output_form", "delimiter", "only_predictions", "resume")}
    rejects = flags.pop("rejects")
    if words["delimiter"] is not None and len(words["delimiter"].encode()) != 1:
        raise click.BadParameter("one ASCII character", param_hint="--delimiter")
    options = Options(**words, rejects=Path(rejects) if rejects else None)
    opened = open_reference(ref, flags)
    engine = engines.load(opened.bundle, flags["engine"])
    engines.verify_golden(engine, opened.bundle)
    bar = Bar(sys.stderr, time.monotonic) if sys.stderr.isatty() else None
    try:
        summary = predict(opened.bundle, files, output, options, engine=engine, report=bar)
    finally:
        if bar is not None:
            bar.clear()
    if as_json:
        click.echo(json.dumps(asdict(summary)), err=output == "-")
    else:
        click.echo(_text(summary), err=True)
    if summary.rows and summary.rejected == summary.rows:
        from modelport.errors import ModelportError

        raise ModelportError("no row could be predicted", hint=f"{summary.rejects} says why.")


def _text(summary: Summary) -> str:
    done = summary.rows - summary.rejected
    resumed = f", {summary.resumed:,} of {summary.rows:,} by the run before" if summary.resumed else ""
    lines = [f"{counted(done, 'row')} predicted{resumed}"]
    if summary.outputs != ("-",):
        lines[0] += f": {', '.join(summary.outputs[:8])}{', ...' if len(summary.outputs) > 8 else ''}"
    if summary.rejects:
        lines.append(f"{counted(summary.rejected, 'row')} rejected: {summary.rejects}")
    if summary.absent:
        lines.append(f"null or the default in every row, as the data has no such column: {', '.join(summary.absent[:8])}")
    return "\n".join(lines)


class Bar:
    """The line on a terminal that says how far a run is."""

    def __init__(self, out: TextIO, clock: Callable[[], float]) -> None:
        self._out = out
        self._clock = clock
        self._begun = clock()
        self._width = 0

    def __call__(self, progress: Progress) -> None:
        line = bar_line(progress, self._clock() - self._begun)
        self._out.write(f"\r{line:<{self._width}}")
        self._out.flush()
        self._width = len(line)

    def clear(self) -> None:
        self._out.write(f"\r{'':<{self._width}}\r")
        self._out.flush()


def bar_line(progress: Progress, seconds: float, width: int = 24) -> str:
    """'[======>     ]  43%  1,203,000 rows  85,200 rows/s  0:12 left'."""
    done = progress.rows - progress.resumed
    rate = done / seconds if seconds > 0 else 0.0
    line = f"{progress.rows:,} rows  {rate:,.0f} rows/s"
    if progress.fraction is None:
        return line
    filled = round(progress.fraction * width)
    left = ""
    if progress.fraction > 0 and rate > 0:
        remaining = progress.rows / progress.fraction - progress.rows
        minutes, rest = divmod(round(remaining / rate), 60)
        left = f"  {minutes // 60}:{minutes % 60:02}:{rest:02} left" if minutes >= 60 else f"  {minutes}:{rest:02} left"
    return f"[{'=' * filled:<{width}}] {progress.fraction:4.0%}  {line}{left}"

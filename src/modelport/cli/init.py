"""`modelport init`: a modelport.toml and a train.py for a new project."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("model", required=False)
@click.option("--name", metavar="NAME", help="The bundle's name; the file's own, or the folder's, otherwise.")
@click.option("--sample", metavar="FILE", help="A few real input rows: .csv, .parquet, .json, .jsonl.")
@click.option("--target", metavar="COLUMN", help="The column that the model predicts.")
def command(model: str | None, name: str | None, sample: str | None, target: str | None) -> None:
    """Begin a project in this folder: modelport.toml, and a train.py.

    MODEL is a model file that is there already: it is read, and not run, to find out what it takes and how one like it is trained.
    Without it train.py trains a first one on data that come with scikit-learn. Nothing is overwritten.

    \b
    modelport init
    modelport init model.pkl --target price
    """
    from modelport import scaffold
    from modelport.cli.output import aligned
    from modelport.inspection import inspect

    here = Path()
    seen = inspect(model) if model else None
    asked = scaffold.Asked(Path(model).as_posix() if model else None, seen, name, sample, target)
    made = scaffold.files(asked, frozenset(path.name for path in here.iterdir()))
    for file, text in made.items():
        with (here / file).open("x", encoding="utf-8") as out:
            out.write(text)
    rows = [("wrote", file) for file in made]
    script = "train.py"
    if script not in made and Path(script).exists():
        rows.append(("kept", f"{script}, which [train] runs"))
    elif script not in made:
        assert model is not None, "where there is no model yet, a script trains the first"
        rows.append(("not", f"{script}: {model} does not say how such a model is trained"))
    click.echo(f"{aligned(rows)}\n\nnext: {_next(model, trains=script in made)}")


def _next(model: str | None, *, trains: bool) -> str:
    if model is None:
        return "modelport train"
    return "modelport pack; and when train.py knows your data.csv, modelport train" if trains else "modelport pack"

"""`modelport train`: a project's training command is run, and what it wrote is packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from modelport.cli.references import trust_options


@click.command()
@click.option("--to", metavar="PATH", help="Write the bundle to a new folder, or to a .tar, instead of the store.")
@trust_options
@click.option("--json", "as_json", is_flag=True, help="Say it as JSON.")
def command(to: str | None, as_json: bool, **flags: Any) -> None:
    """Train the project's model, and pack it.

    Runs the [train] command of modelport.toml in this folder, then packs the model it wrote, with the metrics it wrote.

    \b
    modelport train
    modelport train --to bundle
    """
    from modelport import project, training
    from modelport.cli.pack import pack_and_say
    from modelport.cli.references import model_and_options
    from modelport.errors import UsageError

    here = project.find(Path())
    if here is None:
        raise UsageError(f"there is no {project.FILE} in this folder", hint="`modelport init` writes one.")
    metrics = training.run(here)
    path, options = model_and_options(None, flags)
    if metrics:
        options["metric"] = {**options.get("metric", {}), **metrics}
    pack_and_say(path, options, to, as_json=as_json)

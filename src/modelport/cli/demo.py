"""`modelport demo`: serve a small model that comes with Modelport, so that nobody needs a model to see what this is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from modelport.cli.references import Opened
from modelport.cli.serve import serve, serving_options, settings_of


@click.command()
@serving_options
def command(**flags: Any) -> int:
    """Serve the iris flowers: four measures in centimetres to a species, as an ONNX model of 600 bytes."""
    import modelport
    from modelport.bundle import open_bundle

    folder = Path(modelport.__file__).parent / "demo"

    def opened() -> list[Opened]:
        bundle = open_bundle(folder)
        return [Opened(bundle.name, "", bundle)]

    return serve(opened, settings_of(flags))

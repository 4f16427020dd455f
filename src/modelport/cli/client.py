"""`modelport client`: a typed Python module for one model."""

from __future__ import annotations

from pathlib import Path

import click

from modelport.cli.references import open_reference


@click.command()
@click.argument("ref")
def command(ref: str) -> None:
    """Write a typed Python module for one model to standard output: a dataclass for the input, one for the output, and predict().

    REF is a name in the store, a bundle's folder or .tar, or a model file. The module needs httpx, not modelport.
    `modelport.Client` asks any model without one.

    \b
    modelport client iris > iris_client.py
    """
    from modelport import bundle as bundles
    from modelport.client_source import client_source
    from modelport.store import Store

    if bundles.is_bundle(Path(ref)):
        text = client_source(bundles.open_bundle(Path(ref)))
    elif Path(ref).is_file():
        text = client_source(open_reference(ref).bundle)
    else:
        entry, bundle = Store().get(ref)
        text = client_source(bundle, str(entry.version))
    click.echo(text.encode(), nl=False)

"""`modelport reload`: a running service looks again what to serve."""

from __future__ import annotations

import click


@click.command()
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="The address that the service listens on.")
@click.option("--port", type=int, metavar="PORT", help="Its port: $PORT or 8000.")
def command(host: str, port: int | None) -> None:
    """Let a running service look again what to serve, and wait for what comes of it.

    A name in the store is its newest version then, and a model file is packed again if it has changed. New workers take over one by one,
    and no request is lost. When this ends with 0, all answers are of what it names; with 1 or 3 the service goes on as before, or says so.
    It asks from the machine, or the container, that the service runs in, as the service's user or as root.
    """
    import os

    from modelport.cli.serve import port_of
    from modelport.serving import reloading

    served = reloading.ask(host, port_of(os.environ) if port is None else port)
    models = ", ".join(f"{model.label}  {model.digest}" for model in served.models)
    click.echo(f"{'serving  ' if served.changed else 'unchanged'}  {models}")

"""`modelport run`: an application of somebody else, served as models are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from modelport.cli.serve import serving_options

_Command = TypeVar("_Command", bound=Callable[..., Any])
_OF_MODELS = {"cors": (), "threads": None, "engine": "auto", "allow_url": (), "max_rows": 100_000}
"""The flags of `serve` that say something about models, and their values where there are none."""


def _options(command: _Command) -> _Command:
    """The flags of `serve` that are not about models."""
    before = getattr(command, "__click_params__", [])
    command = serving_options(command)
    parameters = vars(command)["__click_params__"]
    vars(command)["__click_params__"] = [one for one in parameters if one in before or one.name not in _OF_MODELS]
    return command


@click.command()
@click.argument("app", metavar="MODULE:APP")
@_options
def command(app: str, **flags: Any) -> int:
    """Serve an ASGI or WSGI application as models are served.

    MODULE is looked for in this folder first; APP is the application in it (FastAPI, Starlette, Django, Flask, ...), or a function with ()
    that makes it. It gets a supervisor that replaces workers, /livez, /readyz and /metrics, a log line for each request, spans, limits, API
    keys, and an end that finishes what is under way. WebSockets are not carried.

    \b
    modelport run app:app
    modelport run shop.main:create_app() --workers 4 --timeout 10
    """
    from dataclasses import replace

    from modelport.cli.serve import base_url, settings_of
    from modelport.serving import hosted
    from modelport.serving.control import Model
    from modelport.serving.supervisor import run

    folder = Path.cwd()
    hosted.find(app, folder)
    settings = replace(settings_of({**_OF_MODELS, **flags}), app=app)

    def resolve() -> list[Model]:
        return [hosted.find(app, folder)]

    def started(host: str, port: int) -> None:
        base = base_url(host, port)
        click.echo(f"serving {app}\n  at     {base}/\n  ready  {base}/readyz\nCtrl+C stops it.", err=True)

    return run(resolve, settings, started, lambda text: click.echo(text, err=True))

"""`modelport`: the group of all verbs, each in its own module and imported only when it is called."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click

from modelport import __version__
from modelport.errors import ModelportError

VERBS = {
    "serve": "an API, its docs and a web page, now",
    "run": "an ASGI or WSGI application of your own, served as models are",
    "reload": "a running service looks again what to serve",
    "demo": "serve a small model that comes with Modelport",
    "inspect": "what a model file holds, read without running it",
    "doctor": "whether a model can be served here, and what that takes",
    "init": "begin a project: modelport.toml and train.py",
    "train": "run the project's training, and pack the model",
    "pack": "a model file becomes a versioned bundle",
    "build": "a container image of a bundle, with or without Docker",
    "predict": "predictions for CSV, Parquet or JSON lines files",
    "list": "the bundles in the store",
    "show": "what a bundle holds",
    "alias": "name a version: iris@production",
    "remove": "take versions out of the store",
    "export": "files for Docker, Compose, Kubernetes, Knative and CI",
    "check": "whether a service or an image keeps a platform's contract",
    "client": "a typed Python client for one model",
}
"""Each verb with its line of help; `modelport <verb>` runs the command in modelport.cli.<verb>."""


class Verbs(click.Group):
    """A group that imports a verb's module when the verb is called, so that --help and the others start fast."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command: click.Command = import_module(f"modelport.cli.{name}").command
        command.name = name
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(self, context: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in VERBS and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, VERBS, n=1)
            context.fail(f"there is no verb {name!r}" + (f"; did you mean {near[0]!r}?" if near else f". Verbs: {', '.join(VERBS)}."))
        return super().resolve_command(context, args)


@click.command(
    cls=Verbs,
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, "--version", message="modelport %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def modelport(context: click.Context, debug: bool) -> None:
    """A trained model file becomes a live, watched service.

    \b
    modelport serve model.pkl               an API, its docs and a web page, now
    modelport pack model.pkl --name iris    a versioned bundle
    modelport serve iris                    the newest version of it
    modelport predict iris data.csv         predictions for a file
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong use, 3 refused by a gate."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _fill_standard_descriptors()
    try:
        code: Any = modelport.main(arguments, prog_name="modelport", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except ModelportError as error:
        _trace(arguments)
        _complain(error.message, error.hint)
        sys.exit(error.exit_code)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "modelport"
        _complain(error.format_message().removesuffix("."), f"`{path} --help` shows how it is used.")
        sys.exit(2)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except OSError as error:
        _trace(arguments)
        _complain(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error), "")
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 a traceback is for those who ask for it
        _trace(arguments)
        _complain(
            f"{type(error).__name__}: {error}",
            "This is a mistake in Modelport: please report it with what `modelport --debug ...` prints.",
        )
        sys.exit(1)


def _fill_standard_descriptors() -> None:
    """Open what was closed by whoever started this: the next file or socket would get its number, and what is printed would go there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _trace(arguments: list[str]) -> None:
    """The traceback of the error that is being handled, where --debug asks for it."""
    if "--debug" in arguments:
        import traceback

        traceback.print_exc()


def _complain(message: str, hint: str) -> None:
    click.echo(f"error: {message}", err=True)
    if hint:
        click.echo(f"hint:  {hint}", err=True)

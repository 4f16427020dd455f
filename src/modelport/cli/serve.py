"""`modelport serve`: an API, its docs and a web page, now."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from modelport.cli.references import engine_option, files_of, open_reference, packing_options
from modelport.cli.watch import Watch

if TYPE_CHECKING:
    from modelport.cli.references import Opened
    from modelport.serving.settings import Settings

_Command = TypeVar("_Command", bound=Callable[..., Any])
_SIZE = re.compile(r"([0-9]+)\s*([kmg]?)(i?b)?", re.IGNORECASE)


def serving_options(command: _Command) -> _Command:
    """The flags that say how a service runs, or variables of their names; `settings_of` makes its Settings of them."""
    for option in reversed(
        (
            _option("--host", metavar="ADDRESS", help="The address to listen on: 127.0.0.1, or what Vertex AI needs."),
            click.option("--port", type=int, metavar="PORT", help="The port: $PORT or 8000; 0 takes a free one."),
            _option("--keys", metavar="FILE", help="API keys: a file with one sha256 in hexadecimal a line. Or MODELPORT_API_KEY."),
            _option("--public", is_flag=True, help="Anyone who reaches the address may ask."),
            _option("--host-name", metavar="NAME", multiple=True, help="A name of the service beside localhost; again for more; * any."),
            _option("--cors", metavar="ORIGIN", multiple=True, help="An origin whose pages may call it; again for more; * any."),
            _option("--workers", type=click.IntRange(1, 256), help="How many processes answer; by the cores and a measurement otherwise."),
            _option("--threads", type=click.IntRange(1, 256), help="How many threads each has; by a measurement otherwise, mostly one."),
            engine_option,
            _option(
                "--allow-url",
                metavar="HOST",
                multiple=True,
                is_flag=False,
                flag_value="*",
                help="Fetch pictures that callers name by URL: from any public host; or from HOST, *.HOST or an origin alone.",
            ),
            _option("--timeout", type=click.FloatRange(0.01), default=30.0, show_default=True, help="Seconds an answer may take."),
            _option(
                "--drain-delay", type=click.FloatRange(0), default=0.0, show_default=True, help="Seconds it takes calls when told to stop."
            ),
            _option("--grace", type=click.FloatRange(0), default=30.0, show_default=True, help="Seconds for what is under way after that."),
            _option("--metrics-port", type=int, metavar="PORT", help="/metrics on a port of its own too, which asks for no key."),
            _option("--log-lines", type=click.IntRange(0), default=100, show_default=True, help="Answers a second that each process logs."),
            _option("--max-memory", metavar="SIZE", help="Replace a worker that has grown beyond this."),
            _option("--max-body", metavar="SIZE", help="The largest body taken: 16MB; a picture alone 10MB."),
            _option("--max-rows", type=click.IntRange(1), default=100_000, show_default=True, help="The most rows in one body."),
        )
    ):
        command = option(command)
    return command


def _option(flag: str, **about: Any) -> Callable[[_Command], _Command]:
    """An option that the environment may state too: --drain-delay is MODELPORT_DRAIN_DELAY."""
    return click.option(flag, envvar=f"MODELPORT_{flag.removeprefix('--').replace('-', '_').upper()}", **about)


@click.command()
@click.argument("refs", nargs=-1, required=True, metavar="REF...", envvar="MODELPORT_REF")
@serving_options
@packing_options
@click.option("--watch", is_flag=True, help="Load it again when its files change, while you edit them.")
def command(refs: tuple[str, ...], watch: bool, **flags: Any) -> int:
    """Serve models: an API, its docs and a web page.

    REF is a model file, a .py file with functions, a table, a bundle, or a name in the store. Several are served together, each below
    /models/<name>/.

    \b
    modelport serve model.pkl
    modelport serve service.py --watch
    modelport serve iris shipping:3 --port 9000
    MODELPORT_API_KEY=... modelport serve iris --host 0.0.0.0 --host-name api.example.com
    """
    settings = settings_of(flags)
    if len(refs) > 1 and flags.get("name"):
        raise click.UsageError("--name names one model, and there are several")
    watched = _watched(refs, flags) if watch else None
    return serve(lambda: [open_reference(ref, flags, apart=True) for ref in refs], settings, watched)


def _watched(refs: Sequence[str], flags: dict[str, Any]) -> Watch:
    """What looks at the files of the models that are served. UsageError when one is none of a file."""
    from modelport import bundle as bundles
    from modelport.errors import UsageError

    for ref in refs:
        if bundles.is_bundle(Path(ref)) or not Path(ref).is_file():
            raise UsageError(
                f"--watch looks at model files, and {ref} is none", hint="A bundle does not change; a service reads anew on SIGHUP."
            )
    return Watch(lambda: [file for ref in refs for file in files_of(ref, flags)])


def serve(open_models: Callable[[], Sequence[Opened]], settings: Settings, watched: Watch | None = None) -> int:
    """Serve the models until told to stop; the exit code. They are opened again when the service is told to reload.

    Or when what is `watched` has changed: then they may also take and give other fields than before.
    """
    from modelport.serving.control import Model
    from modelport.serving.supervisor import run

    opened: list[Opened] = []

    def resolve() -> list[Model]:
        if watched is not None:
            watched.begin()
        found = open_models()
        if watched is None:
            _check_compatible(opened, found)
        opened[:] = found
        return [Model(one.name, one.version, str(one.bundle.folder.resolve()), one.bundle.digest) for one in found]

    def started(host: str, port: int) -> None:
        click.echo(welcome(opened, settings, host, port), err=True)

    return run(resolve, settings, started, lambda text: click.echo(text, err=True), changed=watched.changed if watched else None)


def _check_compatible(before: Sequence[Opened], now: Sequence[Opened]) -> None:
    """Whether who calls what was served can call what is to be served. Refused names the model that takes or gives other fields."""
    from modelport.errors import Refused

    for old, new in zip(before, now, strict=False):
        if old.name != new.name or _fields(old) != _fields(new):
            raise Refused(
                f"{new.name} is not called as {old.name} was: its name, or the fields it takes or gives, are others",
                hint="Stop the service and start it again; or serve it beside the other.",
            )


def _fields(opened: Opened) -> list[list[tuple[str, str, tuple[int, ...]]]]:
    signature = opened.bundle.signature
    return [[(field.name, field.kind, field.shape) for field in fields] for fields in (signature.inputs, signature.outputs)]


def settings_of(flags: dict[str, Any]) -> Settings:
    """The settings that flags and environment state. UsageError for what cannot be meant or would not be safe."""
    from modelport import project
    from modelport.serving.settings import Settings, keys_of, read_keys

    environment = os.environ
    keys = keys_of(environment["MODELPORT_API_KEY"]) if "MODELPORT_API_KEY" in environment else frozenset()
    if flags["keys"]:
        keys |= read_keys(Path(flags["keys"]))
    if flags["allow_url"]:
        from modelport.serving.fetch import Allowed

        Allowed(tuple(flags["allow_url"]))
    on_vertex = "AIP_HTTP_PORT" in environment
    return Settings(
        # Vertex AI reaches the container from outside, and asks for no key: what stands before it does.
        host=flags["host"] or ("0.0.0.0" if on_vertex else "127.0.0.1"),  # noqa: S104
        port=flags["port"] if flags["port"] is not None else port_of(environment),
        keys=keys,
        public=flags["public"] or on_vertex,
        host_names=tuple(name.lower() for name in flags["host_name"]),
        cors=tuple(origin.lower().rstrip("/") for origin in flags["cors"]),
        max_memory_bytes=size_of(flags["max_memory"], "--max-memory") if flags["max_memory"] else None,
        max_body_bytes=size_of(flags["max_body"]) if flags["max_body"] else Settings.max_body_bytes,
        max_picture_bytes=size_of(flags["max_body"]) if flags["max_body"] else Settings.max_picture_bytes,
        allow_url=tuple(word.lower().rstrip("/") for word in flags["allow_url"]),
        max_rows=flags["max_rows"],
        workers=flags["workers"],
        threads=flags["threads"],
        engine=flags["engine"],
        timeout_s=flags["timeout"],
        drain_delay_s=flags["drain_delay"],
        grace_s=flags["grace"],
        metrics_port=flags["metrics_port"],
        log_lines_per_s=flags["log_lines"],
        title=flags.get("title") or "",
        subtitle=flags.get("subtitle") or "",
        description=project.description(flags.get("description") or ""),
        predict_route=environment.get("AIP_PREDICT_ROUTE", ""),
        health_route=environment.get("AIP_HEALTH_ROUTE", ""),
    )


def base_url(host: str, port: int) -> str:
    """Where whoever started the service reaches it."""
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host  # noqa: S104  only compared with
    return f"http://{shown}:{port}"


def welcome(opened: Sequence[Opened], settings: Settings, host: str, port: int) -> str:
    """What to try, for whoever started the service."""
    base = base_url(host, port)
    served = ", ".join(f"{one.name}:{one.version}" if one.version else one.name for one in opened)
    lines = [f"serving {served}", f"  page   {base}/", f"  docs   {base}/docs"]
    path = "/predict" if len(opened) == 1 else f"/models/{opened[0].name}/predict"
    examples = opened[0].bundle.read_json("example.json")
    key = ' -H "Authorization: Bearer $MODELPORT_API_KEY"' if settings.keys else ""
    if any(field.kind == "image" for field in opened[0].bundle.signature.inputs):
        lines.append(f"  try    curl {base}{path}{key} -F image=@picture.jpg")
    elif examples:
        body = shlex.quote(json.dumps(examples[0], ensure_ascii=False, separators=(",", ":")))
        lines.append(f"  try    curl {base}{path}{key} -H 'Content-Type: application/json' -d {body}")
    also = [path.removesuffix("predict") + name for name in opened[0].bundle.functions]
    if also:
        lines.append(f"  also   {', '.join(also)}")
    left_out = opened[0].bundle.card.details.get("not_served")
    if left_out:
        lines.append(f"  not    {', '.join(left_out)}: not all annotated")
    lines.append("Ctrl+C stops it.")
    return "\n".join(lines)


def port_of(environment: Any) -> int:
    """The port that the platform names: PORT, or Vertex AI's AIP_HTTP_PORT."""
    from modelport.errors import UsageError

    for name in ("AIP_HTTP_PORT", "PORT"):
        if name in environment:
            if not environment[name].isdecimal():
                raise UsageError(f"{name} is {environment[name]!r}, which is no port")
            return int(environment[name])
    return 8000


def size_of(text: str, flag: str = "--max-body") -> int:
    """Bytes of a size such as 16MB or 512k; a kilobyte is 1024 bytes."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise click.BadParameter(f"{text!r} is no size; one is like 16MB or 512k", param_hint=flag)
    power = " kmg".index(match[2].lower() or " ")
    return int(match[1]) << 10 * power

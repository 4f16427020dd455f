"""What a REF on the command line stands for: a model file, a bundle in a folder or tar, or a name in the store."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from modelport import __version__
from modelport.errors import ModelportError, UnknownReference, UsageError

if TYPE_CHECKING:
    from modelport.bundle import Bundle

_Command = TypeVar("_Command", bound=Callable[..., Any])
_REF = "It is a model file, a bundle, or a name in the store: `modelport list`."
_CACHED_BUNDLES = 20
IMAGE_FLAGS = ("image", "resize", "crop", "mean", "std", "preprocess")
"""The flags of `packing_options` that together are the option `image` of `pack`."""
_SIZE = re.compile(r"([0-9]{1,5})(?:x([0-9]{1,5}))?")


@dataclass(frozen=True)
class Opened:
    """What a reference led to: the bundle, and the version it has in the store ("" when it is not out of a store)."""

    name: str
    version: str
    bundle: Bundle


def packing_options(command: _Command) -> _Command:
    """The flags that say something about a model when it is packed; they arrive as keyword arguments of the same names."""
    for option in reversed(
        (
            click.option("--name", metavar="NAME", help="The bundle's name; the file's own otherwise."),
            click.option("--sample", metavar="FILE", help="A few real input rows: .csv, .parquet, .json, .jsonl."),
            click.option("--target", metavar="COLUMN", help="The sample's column that the model predicts."),
            click.option("--schema", metavar="FILE", help="State the inputs: .json or .toml."),
            click.option("--output", metavar="NAME", multiple=True, help="Name the model's output; again for the next one."),
            click.option(
                "--key", metavar="COLUMN", multiple=True, help="Serve a table by this column; again for several. Or a checkpoint's key."
            ),
            click.option("--code", metavar="FILE", multiple=True, help="A .py file with what the pickle needs; model.py:make_model."),
            click.option("--include", metavar="PATH", multiple=True, help="A file or folder beside the model that its code reads."),
            click.option(
                "--python-env",
                metavar="PYTHON",
                help="Where a model of another library version is loaded: auto makes an environment, none refuses; or a Python's path.",
            ),
            click.option("--metric", metavar="NAME=NUMBER", multiple=True, help="A metric to keep: rmse=4.1."),
            click.option("--data", metavar="FILE", multiple=True, help="The training data, to keep its sha256."),
            click.option("--label", metavar="KEY=VALUE", multiple=True, help="A label to keep."),
            click.option("--image", metavar="SIZE", help="It takes pictures of so many pixels: 224, or WIDTHxHEIGHT."),
            click.option("--resize", metavar="SIZE", help="What their shorter side is resized to before: 256, or WIDTHxHEIGHT."),
            click.option(
                "--crop", type=click.Choice(["center", "none", "pad"]), help="Cut the middle out, squish the whole, or fill it up."
            ),
            click.option("--mean", metavar="NUMBERS", help="What is taken off each channel, from 0 to 1: 0.485,0.456,0.406."),
            click.option("--std", metavar="NUMBERS", help="What each channel is divided by then: 0.229,0.224,0.225."),
            click.option("--preprocess", metavar="PRESET", help="All of these at once: imagenet."),
            click.option("--labels", metavar="FILE", help="What the model's answers are called: one label a line."),
            click.option("--title", metavar="TEXT", envvar="TITLE", default="", help="The page's title."),
            click.option("--subtitle", metavar="TEXT", envvar="SUBTITLE", default="", help="The line below it."),
            click.option("--description", metavar="TEXT", default="", help="What the model does: Markdown, or a file of it: about.md."),
            click.option(
                "--onnx", type=click.Choice(["auto", "off"]), help="Serve it from ONNX where that is proven to answer alike (auto)."
            ),
        )
    ):
        command = option(command)
    return trust_options(command)


def tell(line: str) -> None:
    """Show a line of progress, where it is not taken for output."""
    click.echo(line, err=True)


def model_options(command: _Command) -> _Command:
    """The flags of packing that have a say in the answers, for a REF that may be a model file."""
    asked = {"sample", "target", "schema", "code", "include", "python_env", "onnx", "labels", *IMAGE_FLAGS, "trust", "trust_version"}
    before = getattr(command, "__click_params__", [])
    command = packing_options(command)
    kept = [option for option in vars(command)["__click_params__"] if option in before or option.name in asked]
    vars(command)["__click_params__"] = kept
    return command


def trust_options(command: _Command) -> _Command:
    """The flags that open the gates."""
    for option in (
        click.option("--trust-version", is_flag=True, help="Load it although another version of the library wrote it."),
        click.option("--trust", is_flag=True, help="Load it although it would import names off the allow-list."),
    ):
        command = option(command)
    return command


def engine_option(command: _Command) -> _Command:
    """The flag that says what computes the answers."""
    told = "What answers: onnx, native, or auto, which is ONNX where the bundle has it."
    return click.option("--engine", type=click.Choice(["auto", "onnx", "native"]), default="auto", show_default=True, help=told)(command)


def open_reference(ref: str, options: Mapping[str, Any] | None = None, *, apart: bool = False) -> Opened:
    """The bundle that `ref` stands for, allowed to be loaded; `options` are those of `packing_options` or `trust_options`, and the engine.

    `apart` says that a model file is packed in a process of its own.
    UnknownReference when there is no such thing. Untrusted and VersionMismatch from the gates, which a bundle out of the own store has
    passed when it was packed; UsageError where it does not have the engine.
    """
    from modelport import bundle as bundles
    from modelport import gates

    options = options or {}
    path = Path(ref)
    trust, trust_version, engine = bool(options.get("trust")), bool(options.get("trust_version")), options.get("engine") or "auto"
    if bundles.is_bundle(path):
        opened = bundles.open_bundle(path)
        gates.check_bundle(opened, trust=trust, trust_version=trust_version, engine=engine)
        return Opened(opened.name, "", opened)
    if path.is_file() or os.sep in ref:
        opened = _packed(path, options, apart=apart)
        gates.check_stored(opened, trust_version=trust_version, engine=engine)
        return Opened(opened.name, "", opened)
    from modelport.store import Store

    try:
        entry, opened = Store().get(ref)
    except UnknownReference as error:
        if path.suffix or path.exists():
            what = f"{path} is a folder, and no bundle" if path.exists() else f"there is no file {path}"
            raise UnknownReference(f"{what}; and the store has no such name", hint=_REF) from error
        raise
    gates.check_stored(opened, trust_version=trust_version, engine=engine)
    return Opened(entry.name, str(entry.version), opened)


def model_and_options(ref: str | None, flags: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The model file to pack and the options for it: the flags, then what modelport.toml in this folder states.

    Without `ref` it is the project's model. A project that names another model has no say.
    """
    from modelport import project

    here = project.find(Path())
    if ref is None:
        if here is None or here.model is None:
            raise UsageError("which model?", hint='`modelport pack MODEL`, or name it in modelport.toml: model = "model.pkl"')
        path = here.model
    else:
        path = Path(ref)
    if not path.exists():
        raise UnknownReference(
            f"there is no file {path}", hint=_REF if ref else "modelport.toml names it: its paths are from its own folder."
        )
    options = {key: value for key, value in flags.items() if value not in (None, "", (), False) and key not in IMAGE_FLAGS}
    image = image_of(flags)
    if image:
        options["image"] = image
    for key in ("metric", "label"):
        if key in options:
            options[key] = _pairs(key, options[key])
    if here is not None and (here.model is None or here.model.resolve() == path.resolve()):
        if image and isinstance(here.options.get("image"), Mapping):
            options["image"] = {**here.options["image"], **image}
        options = {**here.options, **options}
    return path, options


def image_of(flags: Mapping[str, Any]) -> dict[str, Any]:
    """What the flags say of the pictures that a model takes, as the option `image` of `pack`. UsageError for what cannot be read."""
    said: dict[str, Any] = {}
    if flags.get("preprocess"):
        said["preset"] = flags["preprocess"]
    if flags.get("image"):
        width, height = _size("--image", flags["image"])
        said |= {"height": height or width, "width": width}
    if flags.get("resize"):
        width, height = _size("--resize", flags["resize"])
        said["resize"] = (height, width) if height else width
    if flags.get("crop") == "pad":
        said |= {"crop": "none", "pad": "zeros"}
    elif flags.get("crop"):
        said["crop"] = flags["crop"]
    return said | {key: _numbers(key, flags[key]) for key in ("mean", "std") if flags.get(key)}


def _size(flag: str, text: str) -> tuple[int, int]:
    """Width and height; 0 is one that is not said."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{flag} {text!r} is no size", hint=f"A number of pixels, {flag} 224, or two, {flag} 320x240.")
    return int(match[1]), int(match[2] or 0)


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--{flag} {text!r} are no numbers", hint=f"One for each channel, with commas: --{flag} 0.5,0.5,0.5") from None


def files_of(ref: str, options: Mapping[str, Any]) -> list[Path]:
    """The files that a bundle is made of when `ref` is a model file: itself, what it imports and reads, and what states its options."""
    from modelport import project

    path, options = _stated(Path(ref), options)
    try:
        named = _named_files(path, options)
    except ModelportError:  # what it imports cannot be told while there is a mistake in it
        named = [path, *path.parent.glob("*.py")]
    return [*named, Path(project.FILE)]


def _stated(path: Path, flags: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    from modelport.packing import Options

    return model_and_options(str(path), {key: flags.get(key) for key in (*Options.__dataclass_fields__, *IMAGE_FLAGS)})


def _packed(path: Path, flags: Mapping[str, Any], *, apart: bool) -> Bundle:
    """The bundle of a model file, packed into the cache unless the same file was packed there with the same words."""
    from modelport import bundle as bundles
    from modelport import caches

    path, options = _stated(path, flags)
    cache = caches.root() / "bundles"

    def pack(folder: Path) -> None:
        if apart:
            from modelport.cli import apart as other

            other.pack(path, folder, options)
        else:
            from modelport.packing import Options, pack_file

            pack_file(path, folder, Options(**options), told=tell)

    return bundles.open_bundle(caches.made(cache, _key(path, options), pack, _CACHED_BUNDLES))


def _key(path: Path, options: Mapping[str, Any]) -> str:
    """A hash of all that the bundle is made of: the file, the words, the files they name, this Modelport and what is installed."""
    digest = hashlib.sha256(__version__.encode())
    for folder in sys.path:
        for name in sorted(path.name for path in Path(folder).glob("*.dist-info")):
            digest.update(name.encode())
    digest.update(json.dumps({key: str(value) for key, value in options.items()}, sort_keys=True).encode())
    for file in _named_files(path, options):
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:32]


def _named_files(path: Path, options: Mapping[str, Any]) -> list[Path]:
    """The model file, what it imports and reads, and the files that its options name."""
    from modelport import code_files, project

    code = code_files.collect(path, options.get("code", ()), options.get("include", ()))
    named = [*(options.get(key) for key in ("sample", "schema", "labels")), *options.get("data", ()), *code.values()]
    named.append(project.description_file(options.get("description")))
    return [file for file in (path, *(Path(one) for one in named if isinstance(one, str | Path))) if file.is_file()]


def _pairs(flag: str, words: Any) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UsageError(f"--{flag} {word!r} is no pair", hint=f"--{flag} {'rmse=4.1' if flag == 'metric' else 'team=pricing'}")
        try:
            pairs[key] = float(value) if flag == "metric" else value
        except ValueError:
            raise UsageError(f"--metric {word!r}: {value!r} is no number", hint="--metric rmse=4.1") from None
    return pairs

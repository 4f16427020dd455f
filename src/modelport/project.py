"""A project: a folder with a modelport.toml that states once what would otherwise be flags.

    name = "shipping"
    model = "model.pkl"
    sample = "sample.csv"
    target = "price_paid"
    output = ["shipping_estimated_price"]
    title = "Shipping price"

    [metric]
    rmse = 4.1

    [[inputs]]
    name = "price"
    kind = "number"
    minimum = 0

A model of pictures states what it takes of them, and what its answers are called:

    labels = "labels.txt"

    [image]
    size = 224
    resize = 256
    mean = [0.485, 0.456, 0.406]
    std = [0.229, 0.224, 0.225]

How the model is trained, for `modelport train` and for images that train it:

    [train]
    command = "python train.py"
    metrics = "metrics.json"
    requirements = "requirements.txt"

`metrics` is a JSON file that the command writes, an object of numbers; `requirements` names what training needs beside Modelport.

Its keys are the options of `pack` by the same names, with `model` for the model file and `inputs` and `outputs` for what the schema states.
"""

from __future__ import annotations

import math
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelport.errors import UsageError
from modelport.signature import Signature, did_you_mean

FILE = "modelport.toml"
_TEXT = ("name", "target", "title", "subtitle", "description", "onnx")
_PATH = ("model", "sample", "schema", "labels")
_PATHS = ("code", "include", "data")
_LISTS = ("output", "key")
_TABLES = ("metric", "label")
_MOST_TEXT = 100_000
_TRAIN = ("command", "metrics", "requirements")
KEYS = (*_TEXT, *_PATH, *_PATHS, *_LISTS, *_TABLES, "image", "train", "inputs", "outputs")


@dataclass(frozen=True)
class Train:
    """How a project's model is trained: the table [train]. Paths are from the project's folder."""

    command: tuple[str, ...]
    """The words of the command, which runs in the project's folder."""
    metrics: Path | None = None
    """The JSON file that the command writes: an object of numbers."""
    requirements: Path | None = None
    """What training needs beside Modelport, as pip takes it."""


@dataclass(frozen=True)
class Project:
    """What a modelport.toml states: the model file, and the options of `pack` that it sets. Paths are from its folder."""

    folder: Path
    model: Path | None
    options: Mapping[str, Any]
    train: Train | None = None


def find(folder: Path) -> Project | None:
    """The project in `folder`, or None where there is no modelport.toml. UsageError names a wrong key or value."""
    path = folder / FILE
    return read(path) if path.is_file() else None


def read(path: Path) -> Project:
    """The project that a modelport.toml states. UsageError names a wrong key or value."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} does not read as TOML: {error}") from error
    folder = path.parent
    options: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in KEYS:
            raise UsageError(f"{path} has no {key!r}{did_you_mean(key, KEYS)}", hint=f"Keys: {', '.join(KEYS)}.")
        options[key] = _value(path, folder, key, value)
    stated: dict[str, Any] = {side: options.pop(side) for side in ("inputs", "outputs") if side in options}
    if stated:
        if "schema" in options:
            raise UsageError(f"{path} has both 'schema' and '{next(iter(stated))}'", hint="State the fields in one place.")
        options["schema"] = Signature.from_dict(stated, str(path))
    model, train = options.pop("model", None), options.pop("train", None)
    return Project(folder, model, options, train)


def _train(path: Path, folder: Path, raw: Any) -> Train:
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: train is {raw!r}", hint='It is a table: [train], and below it command = "python train.py".')
    for key in raw:
        if key not in _TRAIN:
            raise UsageError(f"{path}: [train] has no {key!r}{did_you_mean(key, _TRAIN)}", hint=f"Keys: {', '.join(_TRAIN)}.")
    command = raw.get("command")
    try:
        words = shlex.split(command) if isinstance(command, str) else command
    except ValueError as error:
        raise UsageError(f"{path}: [train] command is {command!r}: {error}", hint="It is read as a shell would split it.") from error
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words) or not words[0]:
        raise UsageError(f"{path}: [train] command is {command!r}", hint='It is like "python train.py", or a list of words.')
    for key in ("metrics", "requirements"):
        if key in raw and (not isinstance(raw[key], str) or not raw[key]):
            raise UsageError(f"{path}: [train] {key} is {raw[key]!r}", hint="It is the path of a file, from the project's folder.")
    metrics, requirements = (folder / raw[key] if key in raw else None for key in ("metrics", "requirements"))
    return Train(tuple(words), metrics, requirements)


def description(said: str | Path) -> str:
    """What a model does, in Markdown: `said` itself, or what stands in the .md file that it names. UsageError when that does not read."""
    path = description_file(said)
    if path is None:
        return str(said)
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the description {path} does not read: {error}", hint="It is text, or the path of a Markdown file.") from error
    if len(text) > _MOST_TEXT:
        raise UsageError(
            f"the description {path} has {len(text):,} characters; at most {_MOST_TEXT:,} are taken",
            hint="The page shows it: say what people need who use the model, and link to the rest.",
        )
    return text


def description_file(said: str | Path | None) -> Path | None:
    """The file that a description is read from; None where it is the text itself."""
    return Path(said) if said and str(said).endswith(".md") and "\n" not in str(said) else None


def _value(path: Path, folder: Path, key: str, value: Any) -> Any:
    def wrong(right: str) -> UsageError:
        return UsageError(f"{path}: {key} is {value!r}", hint=f"It is {right}.")

    if key in _TEXT or key in _PATH:
        if not isinstance(value, str):
            raise wrong("a string")
        return folder / value if key in _PATH or (key == "description" and description_file(value)) else value
    if key in _PATHS or key in _LISTS:
        if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
            raise wrong("a list of strings")
        return [folder / part for part in value] if key in _PATHS else value
    if key in _TABLES:
        fits = is_finite if key == "metric" else lambda part: isinstance(part, str)
        if not isinstance(value, dict) or not all(map(fits, value.values())):
            raise wrong(f"a table of {'finite numbers' if key == 'metric' else 'strings'}")
        return value
    return _train(path, folder, value) if key == "train" else value


def is_finite(value: Any) -> bool:
    """Whether a value is a number that a metric may be."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number too large for a float
        return False

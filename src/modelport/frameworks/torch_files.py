"""PyTorch's files become networks. Names that were accepted are all they may import: torch.load is told `weights_only` always."""

from __future__ import annotations

import importlib
import json
import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelport.errors import ModelFileError, UsageError
from modelport.frameworks import Card, tabular

FACTORY = "factory"
"""In a card's details: what makes the network that weights belong to, as "module:name"."""
KEY = "key"
"""In a card's details: where a checkpoint keeps the weights, as whoever packs it says."""
STATE_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Where checkpoints keep the weights, as a rule."""
_PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and Lightning put before the names of weights."""
_SHOWN = 4
_TEXT = re.compile(r'"(?:[^"\\\n]|\\.)*"(?!")')
"""A string as torch.jit writes it into TorchScript."""
_RUNS = re.compile(
    r"(?<![\w.])(?:torch|ops)\b(?!\s*:)"
    r"(?!(?:(?<=torch)|(?<=ops)\.(?:aten|prims?|torchvision|prepacked|_?quantized\w*|mkldnn\w*))\.(?!(?:save|load|from_file|autograd)\b)\w)"
    r"[^\n]{0,40}|[\"'#\\]",
    re.ASCII,
)
"""Where TorchScript names its operators otherwise than by calling one that does nothing to files, or is not as torch.jit writes it: under
another name, with a quote, a comment or a continued line, any of them could be called."""
_TARGET = re.compile(
    r"#?torch\.ops\.(?!\w+\.(?:save|load|from_file)\b)(?:aten|prim|prims|higher_order|torchvision|quantized\w*)\.\w+(?:\.\w+)?"
    r"|_operator\.(?!attrgetter|methodcaller|call)\w+|math\.\w+|torch\.sym_\w+"
)
"""What a node of an exported program may call."""
_NAMES = (
    r"Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|ModularIndexing|IntTrueDiv|FloatTrueDiv"
    r"|TruncToInt|CeilToInt|FloorToInt|RoundToInt|ToFloat|Eq|Ne|Ge|Gt|Le|Lt|And|Or|Not|positive|nonnegative|integer|True|False"
)
_EXPRESSION = re.compile(rf"(?:\b(?:{_NAMES})\b|\b[suz]\d+\b|'[suz]\d+'|\b\d+(?:\.\d+)?\b|[-+*/(),=<>&|~ ])*")
"""How sizes are written in an exported program; they are evaluated as Python when it is loaded."""


def opened(path: Path, card: Card) -> Any:
    """The network in `path`, in evaluation mode where it has one. ModelFileError when it does not load."""
    torch = tabular.library("torch", "PyTorch", "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecated forms, and of what is slow to load
        if card.cls == "torch.jit.ScriptModule":
            _check_script(path)
            network = _tried(path, lambda: torch.jit.load(str(path), map_location="cpu"))
        elif card.cls == "torch.export.ExportedProgram":
            _check_program(path)
            with _weights_only():
                return _tried(path, lambda: torch.export.load(str(path)).module(check_guards=False))
        else:
            network = _network(path, card, _loaded(path, card))
            if any(weight.dtype in (torch.float16, torch.bfloat16) for weight in network.parameters()):
                network = network.float()  # processors compute in halves slowly, or not at all
    return network.eval()


def _tried(path: Path, load: Any) -> Any:
    try:
        return load()
    except Exception as error:
        raise tabular.not_loaded(path, error) from error


def _loaded(path: Path, card: Card) -> Any:
    """What torch.save or safetensors wrote, on the CPU."""
    import torch

    if card.details.get("format") == "safetensors":
        tabular.library("safetensors", "safetensors", "torch")
        from safetensors.torch import load_file

        return _tried(path, lambda: load_file(path))
    accepted = [(_named(path, name), name) for name in card.details.get("imports", ())]
    try:
        with torch.serialization.safe_globals(accepted):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        unknown = re.search(r"(?:GLOBAL|global) (\S+)", str(error))
        if unknown:
            raise ModelFileError(
                f"{path.name} would import {unknown[1]}, which is no part of a network", hint="Save the weights alone: model.state_dict()."
            ) from error
        raise tabular.not_loaded(path, error) from error


def _named(path: Path, name: str) -> Any:
    """The class or function of that name. The caller has checked that the file may import it."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError as error:
            if not ".".join(parts[:end]).startswith(error.name or "\0"):
                raise ModelFileError(
                    f"{path.name} needs {name}, and {error.name} is not installed", hint=f"pip install {error.name}"
                ) from error
            continue
        try:
            for part in parts[end:]:
                found = getattr(found, part)
        except AttributeError:
            break
        return found
    top = parts[0]
    hint = "Bring the file that defines it along: --code model.py" if top == "__main__" else f"Install {top}, or bring your own file along."
    raise ModelFileError(f"{path.name} needs {name}, which is not here", hint=hint)


# Weights, and the code they belong to


def _network(path: Path, card: Card, loaded: Any) -> Any:
    """The network: what was loaded, or that of the user's code with the weights that were loaded."""
    import torch

    if isinstance(loaded, torch.nn.Module):
        return loaded
    weights = _weights(path, card, loaded)
    if isinstance(weights, torch.nn.Module):
        return weights
    network = _made(path, card)
    weights = _unprefixed(weights, network.state_dict())
    try:
        differ = network.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        lines = [line.strip().rstrip(".") for line in str(error).splitlines()[1:] if line.strip()]
        raise _misfit(path, card, "; ".join(lines[:_SHOWN]) or tabular.first_line(error)) from error
    named = (("missing", differ.missing_keys), ("unexpected", differ.unexpected_keys))
    problems = [f"{what} {_some(keys)}" for what, keys in named if keys]
    if problems:
        raise _misfit(path, card, "; ".join(problems))
    return network


def _misfit(path: Path, card: Card, what: str) -> ModelFileError:
    return ModelFileError(
        f"the weights in {path.name} do not fit the network that {card.details[FACTORY]} makes: {what}",
        hint="Is it the same network, with as many classes, as the one that was trained?",
    )


def _weights(path: Path, card: Card, loaded: Any) -> Any:
    """The weights in what was loaded: itself, or what stands under the key that is said, or under a usual one."""
    import torch

    if not isinstance(loaded, Mapping):
        raise ModelFileError(
            f"{path.name} holds a {type(loaded).__name__}, and neither a network nor weights", hint="Save model.state_dict()."
        )
    if loaded and all(isinstance(value, torch.Tensor) for value in loaded.values()):
        return loaded
    key = card.details.get(KEY)
    found = [key] if key else [name for name in STATE_KEYS if isinstance(loaded.get(name), Mapping | torch.nn.Module)]
    keys = ", ".join(map(str, list(loaded)[:12]))
    if not found or not isinstance(loaded.get(found[0]), Mapping | torch.nn.Module):
        what = f"has no weights under {key!r}" if key else "does not say where its weights are"
        raise ModelFileError(f"the checkpoint {path.name} {what}; its keys: {keys}", hint="Name the key: --key model")
    return loaded[found[0]]


def _made(path: Path, card: Card) -> Any:
    """The network that the user's code makes."""
    import torch

    factory = card.details.get(FACTORY, "")
    if not factory:
        raise ModelFileError(
            f"{path.name} holds weights alone; the network they belong to is code",
            hint="Bring a function along that makes it: --code model.py:make_model",
        )
    module, _, name = factory.partition(":")
    make = getattr(importlib.import_module(module), name, None)
    if not callable(make):
        raise UsageError(f"{module}.py has no function {name!r}", hint="--code model.py:make_model names one that gives the network.")
    try:
        network = make()
    except Exception as error:
        raise ModelFileError(
            f"{factory} raised {type(error).__name__}: {tabular.first_line(error)}", hint="It is called without arguments."
        ) from error
    if not isinstance(network, torch.nn.Module):
        raise ModelFileError(f"{factory} gives a {type(network).__name__}, and no torch.nn.Module", hint="Let it return the network.")
    return network


def _unprefixed(weights: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights by the names that the network gives them."""
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in weights) and not any(name.startswith(prefix) for name in own):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


# What files might do when they are loaded


@contextmanager
def _weights_only() -> Iterator[None]:
    """While an exported program is loaded, which torch reads pickles of: these hold nothing but tensors."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _parts(path: Path, ending: str) -> Iterator[str]:
    """The parts of an archive whose names end so, for Python's reader and for torch's own, for which case does not count."""
    from torch._C import PyTorchFileReader

    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            if part.filename.lower().endswith(ending):
                yield archive.read(part).decode("utf-8", "replace")
    try:
        reader = PyTorchFileReader(str(path))
    except RuntimeError:  # programs of before 2.7 are in no folder: torch reads them as Python does
        return
    for name in reader.get_all_records():
        if name.lower().endswith(ending):
            yield reader.get_record(name).decode("utf-8", "replace")


def _check_script(path: Path) -> None:
    """ModelFileError when a TorchScript file has code that could write or read files: as it computes, or already as it is loaded."""
    for code in _parts(path, ".py"):
        found = _RUNS.search(_TEXT.sub("", code))
        if found:
            raise ModelFileError(
                f"{path.name} is TorchScript with {found[0]!r} in it: it would touch files, or could", hint="No network needs to."
            )


def _check_program(path: Path) -> None:
    """ModelFileError when an exported program calls what is no operator, or has sizes that are more than arithmetic.

    torch.export.load looks functions up by the names that the file gives, and evaluates the sizes as Python. So would it the conditions on
    the inputs, which are left out.
    """
    waiting: list[Any] = [json.loads(part) for part in _parts(path, ".json")]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            waiting += part.values()
            called = part.get("target") if "inputs" in part else part.get("as_operator")
            for text, right in ((part.get("expr_str"), _EXPRESSION), (called, _TARGET)):
                if isinstance(text, str) and not right.fullmatch(text):
                    raise ModelFileError(
                        f"{path.name} has {text[:80]!r} where an operator or a size is expected", hint="No network needs that."
                    )

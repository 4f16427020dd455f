"""`modelport inspect`: what a model file holds, read without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from modelport.frameworks import Card
    from modelport.inspection import Inspection

_LIBRARIES = {"scikit-learn": "scikit-learn", "xgboost": "XGBoost", "lightgbm": "LightGBM", "catboost": "CatBoost", "torch": "PyTorch"}
_FORMATS = {
    "torch-zip": "torch.save (zip)", "torch-legacy": "torch.save (before 1.6)", "torchscript": "TorchScript", "pt2": "torch.export (.pt2)",
    "xgboost-json": "XGBoost JSON", "xgboost-ubj": "XGBoost UBJ", "lightgbm-text": "LightGBM text", "catboost-cbm": "CatBoost binary",
    "catboost-json": "CatBoost JSON", "onnx": "ONNX", "keras": "Keras 3", "hdf5": "HDF5", "tflite": "TensorFlow Lite", "gguf": "GGUF",
    "python": "Python",
}  # fmt: skip
_LONGEST = 100


@click.command()
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Say it as JSON.")
def command(file: str, as_json: bool) -> None:
    """Say what a model file holds, without running it.

    Its library and version, class, inputs and labels, everything that loading it would import, and what would go wrong when it is loaded
    here. The file is read in a process of its own, with bounded memory and time.

    \b
    modelport inspect model.pkl
    modelport inspect model.pkl --json
    """
    import json

    from modelport.inspection import inspect

    seen = inspect(file)
    click.echo(json.dumps(seen.to_dict(), indent=2) if as_json else _page(seen))


def _page(seen: Inspection) -> str:
    from modelport.cli.output import aligned

    lines = [aligned([(name, _plain(value)) for name, value in _rows(seen)])]
    if seen.warnings:
        lines += ["", *(f"! {_plain(warning)}" for warning in seen.warnings)]
    if seen.advice:
        lines += ["", "next", *(f"  {_plain(line)}" for line in seen.advice)]
    return "\n".join(lines)


def _rows(seen: Inspection) -> list[tuple[str, str]]:
    from modelport.cli.output import short_list, size
    from modelport.inspection import inert

    rows = [("file", f"{seen.path}  {size(seen.size)}"), ("format", _format(seen))]
    card = seen.card
    if card is not None:
        library = _LIBRARIES.get(card.library, card.library) or "Python"
        wrote = card.version or ("" if seen.format in ("python", "onnx") else "version not in the file")
        here = f"  (here: {seen.installed})" if seen.installed else ""
        rows.append(("library", f"{library} {wrote}".strip() + here))
        rows.append(("class", card.cls))
        if card.features or card.feature_count is not None:
            rows.append(("inputs", _inputs(card)))
        if card.classes:
            rows.append(("classes", _cut(short_list([str(value) for value in card.classes], 8))))
        rows += [(name.replace("_", " "), _cut(_shown(value))) for name, value in card.details.items() if _tells(name, value)]
    if seen.imports:
        fine = "none of which is imported" if inert(card) else "all on the allow-list"
        off = f"{len(seen.refused)} not on the allow-list" if seen.refused else fine
        names = "1 name" if len(seen.imports) == 1 else f"{len(seen.imports)} names"
        rows.append(("imports", f"{names}, {off}"))
    rows += [("", f"refused: {name}") for name in seen.refused[:10]]
    if len(seen.refused) > 10:
        rows.append(("", f"and {len(seen.refused) - 10} more: --json lists them"))
    return rows


def _format(seen: Inspection) -> str:
    parts = [_FORMATS.get(seen.format, seen.format)]
    if seen.protocol is not None:
        parts.append(f"protocol {seen.protocol}")
    if seen.compression:
        parts.append(seen.compression)
    return ", ".join(parts)


def _inputs(card: Card) -> str:
    from modelport.cli.output import short_list

    tensors = card.details.get("inputs")
    if isinstance(tensors, list) and all(isinstance(tensor, dict) for tensor in tensors):
        return _cut(short_list([f"{tensor['name']} {tensor['dtype']} {_shown(tensor['shape'], True)}" for tensor in tensors], 8))
    count = len(card.features) or card.feature_count
    return _cut(f"{count}: {short_list(list(card.features), 8)}" if card.features else f"{count}, without names")


def _tells(name: str, value: Any) -> bool:
    return name not in ("inputs", "imports") and value not in ("", [], {}, None)


def _shown(value: Any, within: bool = False) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(part, True)}".strip() for name, part in list(value.items())[:8])
    if isinstance(value, (list, tuple)):
        text = ", ".join(_shown(part, True) for part in value[:8]) + (f" and {len(value) - 8} more" if len(value) > 8 else "")
        return f"[{text}]" if within else text
    return "?" if value is None else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _plain(text: str) -> str:
    """Text of a file as it may stand on a terminal: no control characters, no halves of surrogate pairs."""
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)

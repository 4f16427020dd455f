"""`modelport pack`: a model file becomes a versioned bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelport.cli.references import model_and_options, packing_options, tell

if TYPE_CHECKING:
    from modelport.bundle import Bundle
    from modelport.signature import Field


@click.command()
@click.argument("model", required=False)
@packing_options
@click.option("--to", metavar="PATH", help="Write the bundle to a new folder, or to a .tar, instead of the store.")
@click.option("--json", "as_json", is_flag=True, help="Say it as JSON.")
def command(model: str | None, to: str | None, as_json: bool, **flags: Any) -> None:
    """Pack a model file into a versioned bundle.

    MODEL is a file that scikit-learn, XGBoost, LightGBM, CatBoost, PyTorch, fast.ai, Keras or ONNX wrote. Without it, modelport.toml in
    this folder says which.

    \b
    modelport pack model.pkl --name iris --sample rows.csv
    modelport pack model.json --output shipping_estimated_price --metric rmse=4.1
    """
    path, options = model_and_options(model, flags)
    pack_and_say(path, options, to, as_json=as_json)


def pack_and_say(path: Path, options: Mapping[str, Any], to: str | None, *, as_json: bool) -> None:
    """Pack a model file into the store, or to the path `to`, and print what became of it."""
    import json

    from modelport.packing import Options, pack_file
    from modelport.store import Store

    with tempfile.TemporaryDirectory(prefix="modelport-pack-") as folder:
        bundle = pack_file(path, Path(folder), Options(**options), told=tell)
        if to is None:
            entry = Store().add(bundle)
            ref = f"{entry.name}:{entry.version}"
        else:
            ref = _write_to(bundle, Path(to))
        if as_json:
            click.echo(json.dumps({"ref": ref, **bundle.to_dict()}))
        else:
            click.echo(_summary(ref, bundle))


def _write_to(bundle: Bundle, target: Path) -> str:
    import shutil

    from modelport.errors import UsageError

    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise UsageError(f"{target} exists", hint="Bundles are not overwritten: name a new path, or remove it first.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".packing-", dir=target.parent) as staging:
        made = Path(staging) / target.name
        if target.suffix == ".tar":
            with made.open("wb") as out:
                bundle.write_tar(out)
        else:
            shutil.copytree(bundle.folder, made)
        made.rename(target)
    return str(target)


def _summary(ref: str, bundle: Bundle) -> str:
    from modelport.cli.output import aligned, proven, short_list, size

    golden = bundle.golden()
    assert golden is not None, "a bundle that was just packed has golden rows"
    card, signature = bundle.card, bundle.signature
    wrote = f"{card.library} {card.version}" if card.version else card.library
    rows = (
        "one row made from the signature; give --sample for real ones"
        if golden["synthesised"]
        else f"{len(golden['rows'])} rows of the {'table' if card.framework == 'lookup' else 'sample'}"
    )
    kept = "reproduced" if golden["tolerance"] is not None else "not the same twice, so asked at each start and not compared"
    table = [
        ("packed", f"{ref}  {bundle.digest[:19]}"),
        ("model", ", ".join(filter(None, (card.cls.rpartition(".")[2], wrote, size(bundle.size), f"kept as {bundle.model}")))),
        *([("functions", short_list([bundle.function, *bundle.functions]))] if bundle.functions else []),
        ("inputs", short_list([f"{field.name} ({_kind(field)})" for field in signature.inputs])),
        ("outputs", short_list([f"{field.name} ({field.kind})" for field in signature.outputs])),
        ("golden", f"{rows}: {kept}"),
    ]
    if bundle.lineage.get("metrics"):
        table.append(("metrics", short_list([f"{name} {value:g}" for name, value in bundle.lineage["metrics"].items()])))
    if bundle.card.details.get("not_served"):
        table.append(("not served", f"{short_list(bundle.card.details['not_served'])}: not all annotated"))
    proof = bundle.parity()
    if proof is not None:
        table.append(("onnx", proven(proof)))
    if bundle.trusted:
        table.append(("trusted", short_list(list(bundle.trusted))))
    if bundle.lineage.get("git", {}).get("dirty"):
        table.append(("git", f"{bundle.lineage['git']['commit'][:12]}, with changes that are not committed"))
    return f"{aligned(table)}\n\nnext: modelport serve {ref}"


def _kind(field: Field) -> str:
    return f"{field.kind}: {field.preprocessing.describe()}" if field.preprocessing else field.kind

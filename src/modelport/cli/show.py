"""`modelport show`: what a bundle holds, an image, or a model file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelport.bundle import Bundle
    from modelport.errors import ModelportError
    from modelport.serving.trial import Tried
    from modelport.signature import Field, Signature
    from modelport.store import Entry

_MOST_FIELDS = 40
_MOST_REQUIREMENTS = 12


@click.command()
@click.argument("ref")
@click.option("--engines", "measured", is_flag=True, help="Measure how fast each engine answers here, and show that.")
@click.option("--json", "as_json", is_flag=True, help="Say it as JSON.")
def command(ref: str, as_json: bool, measured: bool) -> None:
    """Show what REF holds: a name in the store, a bundle's folder or .tar, a model file (as `modelport inspect`), or an image.

    An image is a .tar, or has its registry in its name: registry.example.com/team/iris:3. It is read, and not run.

    Nothing of the model is run, unless --engines is said: then each engine is loaded in a process of its own, and asked for 1, 8, 64 and
    512 rows of the example. Of a model file it tells with which of them it would be served.
    """
    import json

    from modelport import bundle as bundles
    from modelport.images.names import has_registry
    from modelport.store import Store

    if measured:
        _show_engines(ref, as_json=as_json)
        return
    path = Path(ref)
    entry = None
    if bundles.is_bundle(path):
        bundle = bundles.open_bundle(path)
    elif path.suffix == ".tar" if path.is_file() else has_registry(ref):
        from modelport.cli import show_image

        click.echo(show_image.text(ref, as_json=as_json))
        return
    elif path.is_file():
        from modelport.cli.inspect import command as inspect

        inspect.main([ref, "--json"] if as_json else [ref], prog_name="modelport inspect", standalone_mode=False)
        return
    else:
        entry, bundle = Store().get(ref)
    if as_json:
        about: dict[str, object] = {"added": entry.added, "aliases": list(entry.aliases)} if entry else {}
        example = (bundle.read_json("example.json") or [None])[0]
        about |= {"parity": bundle.parity()}
        ref = entry.ref if entry else ref
        click.echo(json.dumps({"ref": ref, "folder": str(bundle.folder), **about, **bundle.to_dict(), "example": example}))
    else:
        click.echo(_text(entry.ref if entry else ref, bundle, entry))


def _text(ref: str, bundle: Bundle, entry: Entry | None) -> str:
    import json

    from modelport.cli.output import aligned, size, table

    card = bundle.card
    facts = [("bundle", ref if entry else f"{bundle.name}, in {ref}"), ("digest", bundle.digest)]
    if entry:
        facts += [("added", entry.added), ("aliases", ", ".join(f"{entry.name}@{alias}" for alias in entry.aliases))]
    facts += [
        ("model", ", ".join(filter(None, (card.cls, f"{card.library} {card.version or ''}".strip())))),
        ("functions", ", ".join([bundle.function, *bundle.functions]) if bundle.functions else ""),
        *parity_facts(bundle),
        ("title", bundle.title),
        ("about", " ".join(filter(None, (bundle.subtitle, _opening(bundle.description))))),
        ("python", bundle.python),
        ("created", bundle.created or ""),
        ("labels", ", ".join(f"{key}={value}" for key, value in sorted(bundle.labels.items()))),
        ("trusted", ", ".join(bundle.trusted)),
        *lineage_facts(bundle.lineage),
    ]
    parts = [aligned([(name, value) for name, value in facts if value])]
    parts += field_tables(bundle.signature)
    example = bundle.read_json("example.json")
    if example:
        text = json.dumps(example[0], ensure_ascii=False)
        parts.append(f"example\n{text if len(text) <= 1000 else text[:997] + '...'}")
    files = [(name, size(about["size"])) for name, about in sorted(bundle.files.items())]
    parts.append(table(("file", "size"), [*files, ("together", size(bundle.size))]))
    parts.extend(_requirements(bundle))
    parts.append(f"next: modelport serve {ref}")
    return "\n\n".join(parts)


def _opening(text: str) -> str:
    """The first paragraph of Markdown, in one line."""
    parts = (" ".join(part.split()) for part in text.replace("\r", "").split("\n\n"))
    return next((part for part in parts if part and not part.startswith("#")), "")


def field_tables(signature: Signature) -> list[str]:
    """The inputs, and the outputs."""
    from modelport.cli.output import table

    tables = []
    for title, fields in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        rows = [_field(field) for field in fields[:_MOST_FIELDS]]
        more = f"\n... and {len(fields) - _MOST_FIELDS} more; --json has them all" if len(fields) > _MOST_FIELDS else ""
        tables.append(table((title, "kind", "null", "values"), rows) + more)
    return tables


def _field(field: Field) -> tuple[str, str, str, str]:
    from modelport.cli.output import short_list

    values = short_list([str(choice) for choice in field.choices]) if field.choices else ""
    if field.minimum is not None or field.maximum is not None:
        low = "" if field.minimum is None else f"from {field.minimum:g} "
        values = f"{low}{'' if field.maximum is None else f'to {field.maximum:g}'}".strip()
    if field.preprocessing is not None:
        values = field.preprocessing.describe()
    kind = field.kind + (f" {'x'.join(map(str, field.shape))}" if field.shape else "")
    return field.name, kind, "yes" if field.nullable else "", "; ".join(filter(None, (values, field.description)))


def lineage_facts(lineage: Any) -> list[tuple[str, str]]:
    """What the model was made from, flattened: git.commit, metrics.rmse."""
    facts: list[tuple[str, str]] = []
    for name, value in sorted(lineage.items()):
        if isinstance(value, dict):
            facts.extend((f"{name}.{key}", f"{part:g}" if isinstance(part, float) else str(part)) for key, part in sorted(value.items()))
        else:
            facts.append((name, str(value)))
    return facts


def _requirements(bundle: Bundle) -> list[str]:
    pins = [f"{name}=={version}" for name, version in bundle.pins()]
    more = [f"... and {len(pins) - _MOST_REQUIREMENTS} more"] if len(pins) > _MOST_REQUIREMENTS else []
    return ["\n".join(["requirements", *pins[:_MOST_REQUIREMENTS], *more])] if pins else []


def parity_facts(bundle: Bundle) -> list[tuple[str, str]]:
    """What is known of the model as ONNX: how it was proven that it answers alike, or why there is none."""
    from modelport.cli.output import proven

    parity = bundle.parity()
    if parity is None:
        return []
    facts = [("onnx", proven(parity))]
    if parity["passed"]:
        versions = parity["versions"]
        library = f"{bundle.card.library} {versions.get(bundle.card.library, bundle.card.version or '')}".strip()
        others = ", ".join(f"{name} {number}" for name, number in versions.items() if name != bundle.card.library)
        rows = f"{parity['rows_of_sample']:,} of the rows are of the sample"
        facts.append(("", f"{rows}; against {library} on Python {parity['python']}; {others}"))
    return facts


def measured_engines(ref: str, bundle: Bundle, flags: Mapping[str, object]) -> dict[str, Tried | ModelportError]:
    """Each engine that the bundle has, measured in a process of its own; or why it could not be."""
    from modelport.bundle import ONNX
    from modelport.cli.references import open_reference
    from modelport.errors import ModelportError
    from modelport.serving.trial import attempt

    names = ("onnx",) if bundle.card.framework == "onnx" else ("onnx", "native") if ONNX in bundle.files else ("native",)
    tried: dict[str, Tried | ModelportError] = {}
    for name in names:
        try:
            tried[name] = attempt(open_reference(ref, {**flags, "engine": name}).bundle, name)
        except ModelportError as error:
            tried[name] = error
    return tried


def chosen(bundle: Bundle, tried: Mapping[str, Tried | ModelportError]) -> dict[int, str]:
    """For each measured number of rows the engine that a service asks."""
    from modelport import engines

    curves = {name: one.curve for name, one in tried.items() if not isinstance(one, Exception)}
    if not curves:
        return {}
    names = list(curves)
    if engines.beside(bundle) is None:
        return {rows: names[0] for rows, _ in curves[names[0]]}
    places = engines.fastest(list(curves.values()))
    return {rows: names[places[rows - 1]] for curve in curves.values() for rows, _ in curve}


def _show_engines(ref: str, *, as_json: bool) -> None:
    import json

    from modelport.cli.references import open_reference
    from modelport.errors import ModelFailed

    opened = open_reference(ref)
    tried = measured_engines(ref, opened.bundle, {})
    failed = [one for one in tried.values() if isinstance(one, Exception)]
    if len(failed) == len(tried):
        raise ModelFailed(f"no engine of {opened.name} could be measured: {failed[0].message}", hint=failed[0].hint)
    faster = chosen(opened.bundle, tried)
    if as_json:
        click.echo(json.dumps({"ref": ref, "engines": engines_json(tried, faster)}))
    else:
        click.echo(_engines_text(ref, tried, faster))


def engines_json(tried: Mapping[str, Tried | ModelportError], faster: Mapping[int, str]) -> list[dict[str, object]]:
    """What was measured of each engine, as JSON values."""
    said: list[dict[str, object]] = []
    for name, one in tried.items():
        if isinstance(one, Exception):
            said.append({"engine": name, "reason": one.message})
            continue
        curve = [{"rows": rows, "seconds": seconds, "chosen": faster.get(rows) == name} for rows, seconds in one.curve]
        said.append({"engine": name, "start_seconds": round(one.seconds, 3), "memory_bytes": one.memory_bytes, "calls": curve})
    return said


def _engines_text(ref: str, tried: Mapping[str, Tried | ModelportError], faster: Mapping[int, str]) -> str:
    from modelport.cli.output import aligned, size, table

    curves = {name: dict(one.curve) for name, one in tried.items() if not isinstance(one, Exception)}
    header = ["rows", *(cell for name in curves for cell in (f"{name} ms", "rows/s", ""))]
    rows = []
    for count in sorted({count for curve in curves.values() for count in curve}):
        line = [str(count)]
        for name, curve in curves.items():
            if count in curve:
                line += [f"{curve[count] * 1000:.3f}", f"{count / curve[count]:,.0f}", "*" if faster.get(count) == name else ""]
            else:
                line += ["", "", ""]
        rows.append(line)
    facts = []
    for name, one in tried.items():
        if isinstance(one, Exception):
            facts.append((name, f"not measured: {one.message}"))
        else:
            memory = f", {size(one.memory_bytes)} of memory" if one.memory_bytes else ""
            facts.append((name, f"starts in {one.seconds:.2f} s{memory}"))
    return f"{table(header, rows)}\n\n{aligned([('*', 'answers in a service, for so many rows'), *facts])}\n\nnext: modelport serve {ref}"

"""`modelport show`: what a bundle holds, or a model file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from modelport.bundle import Bundle
    from modelport.signature import Field
    from modelport.store import Entry

_MOST_FIELDS = 40
_MOST_REQUIREMENTS = 12


@click.command()
@click.argument("ref")
@click.option("--json", "as_json", is_flag=True, help="Say it as JSON.")
def command(ref: str, as_json: bool) -> None:
    """Show what REF holds: a name in the store, a bundle's folder or .tar, or a model file (as `modelport inspect`).

    Nothing of the model is run.
    """
    import json

    from modelport import bundle as bundles
    from modelport.store import Store

    path = Path(ref)
    entry = None
    if bundles.is_bundle(path):
        bundle = bundles.open_bundle(path)
    elif path.is_file():
        from modelport.cli.inspect import command as inspect

        inspect.main([ref, "--json"] if as_json else [ref], prog_name="modelport inspect", standalone_mode=False)
        return
    else:
        entry, bundle = Store().get(ref)
    if as_json:
        about = {"added": entry.added, "aliases": list(entry.aliases)} if entry else {}
        example = (bundle.read_json("example.json") or [None])[0]
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
        ("model", f"{card.cls}, {card.library} {card.version or ''}".rstrip()),
        ("title", bundle.title),
        ("about", " ".join(filter(None, (bundle.subtitle, bundle.description)))),
        ("python", bundle.python),
        ("created", bundle.created or ""),
        ("labels", ", ".join(f"{key}={value}" for key, value in sorted(bundle.labels.items()))),
        ("trusted", ", ".join(bundle.trusted)),
        *_lineage(bundle.lineage),
    ]
    parts = [aligned([(name, value) for name, value in facts if value])]
    for title, fields in (("inputs", bundle.signature.inputs), ("outputs", bundle.signature.outputs)):
        rows = [_field(field) for field in fields[:_MOST_FIELDS]]
        more = f"\n... and {len(fields) - _MOST_FIELDS} more; --json has them all" if len(fields) > _MOST_FIELDS else ""
        parts.append(table((title, "kind", "null", "values"), rows) + more)
    example = bundle.read_json("example.json")
    if example:
        text = json.dumps(example[0], ensure_ascii=False)
        parts.append(f"example\n{text if len(text) <= 1000 else text[:997] + '...'}")
    files = [(name, size(about["size"])) for name, about in sorted(bundle.files.items())]
    parts.append(table(("file", "size"), [*files, ("together", size(bundle.size))]))
    parts.extend(_requirements(bundle))
    parts.append(f"next: modelport serve {ref}")
    return "\n\n".join(parts)


def _field(field: Field) -> tuple[str, str, str, str]:
    from modelport.cli.output import short_list

    values = short_list([str(choice) for choice in field.choices]) if field.choices else ""
    if field.minimum is not None or field.maximum is not None:
        low = "" if field.minimum is None else f"from {field.minimum:g} "
        values = f"{low}{'' if field.maximum is None else f'to {field.maximum:g}'}".strip()
    kind = field.kind + (f" {'x'.join(map(str, field.shape))}" if field.shape else "")
    return field.name, kind, "yes" if field.nullable else "", "; ".join(filter(None, (values, field.description)))


def _lineage(lineage: Any) -> list[tuple[str, str]]:
    """What the model was made from, flattened: git.commit, metrics.rmse."""
    facts: list[tuple[str, str]] = []
    for name, value in sorted(lineage.items()):
        if isinstance(value, dict):
            facts.extend((f"{name}.{key}", f"{part:g}" if isinstance(part, float) else str(part)) for key, part in sorted(value.items()))
        else:
            facts.append((name, str(value)))
    return facts


def _requirements(bundle: Bundle) -> list[str]:
    if "requirements.txt" not in bundle.files:
        return []
    lines = (bundle.folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split(" ")[0] for line in lines if line and not line.startswith(("#", " "))]
    more = [f"... and {len(pins) - _MOST_REQUIREMENTS} more"] if len(pins) > _MOST_REQUIREMENTS else []
    return ["\n".join(["requirements", *pins[:_MOST_REQUIREMENTS], *more])] if pins else []

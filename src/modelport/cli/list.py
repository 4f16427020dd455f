"""`modelport list`: the bundles in the store."""

from __future__ import annotations

import click


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Say it as JSON.")
def command(name: str | None, as_json: bool) -> None:
    """List the bundles in the store, or the versions of one NAME.

    The store is the folder or URL in MODELPORT_STORE, by default ~/.modelport.
    """
    import json

    from modelport.cli.output import size, table
    from modelport.store import Store

    store = Store()
    entries = store.entries(name)
    if as_json:
        click.echo(json.dumps([entry.to_dict() for entry in entries]))
        return
    if not entries:
        click.echo(f"{store.url} has no bundles yet\n\nnext: modelport pack MODEL --name NAME")
        return
    rows = [
        (
            entry.name,
            str(entry.version),
            ", ".join(entry.aliases),
            entry.cls.rpartition(".")[2],
            size(entry.size),
            entry.added[:16].replace("T", " "),
        )
        for entry in entries
    ]
    click.echo(table(("name", "version", "aliases", "class", "size", "added (UTC)"), rows))
    click.echo(f"\nnext: modelport show {entries[-1].ref}")

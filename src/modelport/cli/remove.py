"""`modelport remove`: take versions out of the store."""

from __future__ import annotations

import click


@click.command()
@click.argument("refs", metavar="REF...", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Also a version that an alias stands for, and the alias with it.")
@click.option("--json", "as_json", is_flag=True, help="Say it as JSON.")
def command(refs: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Take versions out of the store: iris:2, or several. Their numbers are not given again.

    A version that an alias stands for is refused unless --force says so.
    """
    import json

    from modelport.cli.output import size
    from modelport.store import Store

    store = Store()
    removed = []
    for ref in refs:
        entry = store.remove(ref, force=force)
        removed.append(entry.to_dict())
        if not as_json:
            aliases = "".join(f", and {entry.name}@{alias}" for alias in entry.aliases)
            click.echo(f"removed {entry.ref} ({size(entry.size)}){aliases}")
    if as_json:
        click.echo(json.dumps(removed))

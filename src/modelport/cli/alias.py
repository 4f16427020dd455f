"""`modelport alias`: name a version, so that iris@production can move from one to the next."""

from __future__ import annotations

import click


@click.command()
@click.argument("ref")
@click.argument("alias", required=False)
@click.option("--remove", is_flag=True, help="Take the alias away: `modelport alias iris@production --remove`.")
@click.option("--json", "as_json", is_flag=True, help="Say it as JSON.")
def command(ref: str, alias: str | None, remove: bool, as_json: bool) -> None:
    """Let NAME@ALIAS stand for the version that REF names.

    \b
    modelport alias iris:3 production
    modelport serve iris@production
    """
    import json

    from modelport.errors import UsageError
    from modelport.store import Store

    store = Store()
    if remove:
        if alias is not None:
            raise UsageError("--remove takes the alias in REF", hint=f"`modelport alias {ref.partition(':')[0]}@{alias} --remove`")
        entry = store.unalias(ref)
        said = f"{ref} is no more; it was {entry.ref}"
    elif alias is None:
        raise UsageError(f"which alias for {ref}?", hint=f"`modelport alias {ref} production`")
    else:
        entry = store.alias(ref, alias)
        said = f"{entry.name}@{alias} is {entry.ref}  {entry.digest[:19]}\n\nnext: modelport serve {entry.name}@{alias}"
    click.echo(json.dumps(entry.to_dict()) if as_json else said)

"""`modelport doctor`: whether a model can be served here, and what that takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelport.cli.references import model_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelport.bundle import Bundle
    from modelport.errors import ModelportError
    from modelport.frameworks import Card
    from modelport.serving.trial import Tried

_MOST_PINS = 6


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    status: str
    """ok, note (it matters, and does not stand in the way) or problem."""
    about: str
    """What was looked at, in a word."""
    said: str
    do: str = ""
    """What to do about it, a sentence."""


@click.command()
@click.argument("ref")
@click.option("--json", "as_json", is_flag=True, help="Say it as JSON.")
@model_options
def command(ref: str, as_json: bool, **flags: Any) -> int:
    """Say whether REF can be served here, and what that takes: a model file, a bundle, or a name in the store.

    Which version wrote it and which is here, what it needs, what it would import, whether it becomes ONNX; then each engine is loaded in a
    process of its own, and its speed and memory are measured. A model file is packed for that as `modelport serve` would; nothing of a file
    that a gate refuses is run.

    The exit code is 0 when it can be served, 3 when a gate refuses it, 1 when it cannot be served.

    \b
    modelport doctor model.pkl --sample rows.csv
    modelport doctor iris
    """
    import json

    examined = _Examined(ref, flags)
    examined.examine()
    if as_json:
        findings = [asdict(finding) for finding in examined.findings]
        click.echo(json.dumps({"ref": ref, "exit_code": examined.exit_code, "findings": findings, "engines": examined.engines}))
    else:
        click.echo(_text(ref, examined.findings, examined.exit_code))
    return examined.exit_code


def _text(ref: str, findings: list[Finding], exit_code: int) -> str:
    from modelport.cli.output import table

    rows = [(finding.status, finding.about, ". ".join(filter(None, (finding.said, finding.do)))) for finding in findings]
    end = {0: f"next: modelport serve {ref}", 3: "a gate refuses it"}.get(exit_code, "it cannot be served here")
    return "\n".join(table(rows[0], rows[1:]).splitlines()) + f"\n\n{end}"


class _Examined:
    """What was found about one reference."""

    def __init__(self, ref: str, flags: Mapping[str, Any]) -> None:
        self.ref, self.flags = ref, flags
        self.findings: list[Finding] = []
        self.engines: list[dict[str, object]] = []
        self.exit_code = 0

    def examine(self) -> None:
        """Look at one thing after the other, until one stands in the way. UnknownReference where there is nothing to look at."""
        from modelport.cli.references import open_reference
        from modelport.errors import ModelportError, UnknownReference

        try:
            self.findings += self._at_rest()
            opened = open_reference(self.ref, self.flags)
            self.findings += _of_bundle(opened.bundle)
            self._measure(opened.bundle)
        except UnknownReference:
            raise
        except ModelportError as error:
            self._stop(error)

    def _at_rest(self) -> Iterator[Finding]:
        """What can be known without loading anything."""
        from modelport import bundle as bundles
        from modelport.cli.output import size
        from modelport.errors import UnknownReference
        from modelport.inspection import inspect
        from modelport.store import Store

        path = Path(self.ref)
        if path.is_file() and not bundles.is_bundle(path):
            seen = inspect(path)
            yield Finding("ok", "file", f"{path}, {size(seen.size)}: {seen.format}")
            if seen.card is not None:
                yield from _of_card(seen.card)
                yield from _of_environment(seen.card, seen.imports)
            if seen.imports and not seen.refused:
                yield Finding("ok", "imports", f"{len(seen.imports)} names, all on the allow-list")
            return
        if bundles.is_bundle(path):
            ref, bundle = str(path), bundles.open_bundle(path)
        else:
            try:
                entry, bundle = Store().get(self.ref)
            except UnknownReference:  # whoever opens it says what it might have been
                return
            ref = entry.ref
        yield Finding("ok", "bundle", f"{ref}, {size(bundle.size)}: every byte is as it was packed, {bundle.digest[:19]}")
        yield from _of_card(bundle.card)

    def _measure(self, bundle: Bundle) -> None:
        """Load each engine in a process of its own. The error of the one that answers in a service."""
        from modelport.cli.show import chosen, engines_json, measured_engines

        tried = measured_engines(self.ref, bundle, self.flags)
        self.engines = engines_json(tried, chosen(bundle, tried))
        for place, (name, one) in enumerate(tried.items()):
            if not isinstance(one, Exception):
                self.findings.append(Finding("ok", "engine", f"{name} {_speed(one)}"))
            elif place:
                self.findings.append(Finding("note", "engine", f"{name}, which a service does not need: {one.message}"))
            else:
                raise one

    def _stop(self, error: ModelportError) -> None:
        """What stands in the way, and the exit code of that."""
        from modelport.errors import Refused

        self.findings.append(Finding("problem", _ABOUT.get(error.code, "model"), error.message, error.hint))
        self.exit_code = Refused.exit_code if isinstance(error, Refused) else 1


_ABOUT = {
    "untrusted": "trust", "version-mismatch": "version", "golden-mismatch": "golden", "missing-library": "library", "model-file": "file",
    "bundle": "bundle", "signature": "inputs",
}  # fmt: skip
"""What an error is about, by its code."""


def _of_card(card: Card) -> Iterator[Finding]:
    """The model, the version that wrote it, and the one that is here."""
    from modelport.inspection.report import installed_version

    outputs = f", {len(card.classes)} classes" if card.classes else ""
    inputs = f", {card.feature_count or len(card.features)} inputs" if card.feature_count or card.features else ""
    yield Finding("ok", "model", f"{card.cls}{inputs}{outputs}")
    if card.framework == "onnx":
        return
    here, wrote = installed_version(card), card.version
    if here is None:
        yield Finding("note", "version", f"written by {card.library} {wrote or 'of unknown version'}, which is not installed here")
    elif wrote is None:
        yield Finding("note", "version", f"the file does not say which {card.library} wrote it; {here} is installed")
    else:
        status = "ok" if wrote.split(".")[:2] == here.split(".")[:2] else "note"
        yield Finding(status, "version", f"written by {card.library} {wrote}; {here} is installed")


def _of_environment(card: Card, imports: tuple[str, ...]) -> Iterator[Finding]:
    """The environment in which a model of another version is loaded, when it is packed."""
    from modelport import gates
    from modelport.cli.output import short_list
    from modelport.conversion import environments

    if not gates.other_version(card):
        return
    recipe = environments.recipe(card, imports)
    here = environments.interpreters()
    usable = [version for version in recipe.pythons if version in here]
    what = short_list(recipe.requirements) + (f", as of {recipe.until}" if recipe.until else "")
    if usable:
        yield Finding("ok", "python", f"{usable[0]} is here, and loads it with {what}; uv makes that environment when it is packed")
    elif recipe.pythons:
        wanted = f"one of Python {', '.join(recipe.pythons)}, for {what}"
        yield Finding("problem", "python", f"it wants {wanted}; none is here", f"`uv python install {recipe.pythons[0]}`")
    else:
        yield Finding("problem", "python", f"{recipe.requirements[0]} has wheels for very old Pythons only")


def _of_bundle(bundle: Bundle) -> Iterator[Finding]:
    """What was found when it was packed, and what it needs."""
    from modelport.cli.output import short_list
    from modelport.cli.show import parity_facts

    yield Finding("ok", "inputs", short_list([f"{field.name} ({field.kind})" for field in bundle.signature.inputs]))
    for about, said in parity_facts(bundle)[:1]:
        yield Finding("note" if said.startswith("native: ") else "ok", about, said)
    pins = bundle.pins()
    if pins:
        differ = [f"{name} {pinned} (here: {_installed(name) or 'none'})" for name, pinned in pins if _installed(name) != pinned]
        said = f"Python {bundle.python}, {short_list([f'{name} {pinned}' for name, pinned in pins], _MOST_PINS)}"
        yield Finding("note" if differ else "ok", "needs", said + (f"; not as here: {short_list(differ)}" if differ else ""))


def _speed(tried: Tried) -> str:
    from modelport.cli.output import counted, size

    calls = ", ".join(f"{rows:,} {'row' if rows == 1 else 'rows'} in {seconds * 1000:.3g} ms" for rows, seconds in tried.curve)
    memory = f", {size(tried.memory_bytes)} a worker" if tried.memory_bytes else ""
    return f"starts in {tried.seconds:.2f} s{memory}; {calls}; {counted(tried.golden_rows, 'golden row')} reproduced"


def _installed(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name).partition("+")[0]  # as pins are written
    except PackageNotFoundError:
        return None

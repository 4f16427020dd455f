"""What every framework must do, as a test that others can import.

from modelport.testing import check_framework

def test_my_framework(tmp_path):
    check_framework("mine", tmp_path / "model.bin", scratch=tmp_path)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import distributions, packages_distributions
from pathlib import Path
from typing import Any

from modelport import engines, inference, inspection, plugins
from modelport.frameworks import Card, Contents, Framework
from modelport.signature import Columns, Signature

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+(\(\))?")


def check_framework(
    name: str, model: Path, scratch: Path, records: Sequence[dict[str, Any]] = (), framework: Framework | None = None
) -> None:
    """Prove that the framework called `name` keeps the contract of `modelport.frameworks.Framework` with the file `model`.

    `records` are input rows for it; without them one is made from what the model says of itself. `scratch` is an empty folder.
    `framework` is the module itself where it is not installed under its name yet. AssertionError says which promise is broken.
    """
    framework = framework or plugins.framework(name)
    names = framework.imports()
    assert isinstance(names, frozenset), f"{name}.imports() is a {type(names).__name__}, not a frozenset"
    assert all(_NAME.fullmatch(one) for one in names), f"{name}.imports() holds what is no module.name"

    contents = inspection.read(model)
    card = framework.detect(contents)
    assert card is not None, f"{name}.detect() does not know its own file"
    assert card.framework == name, f"{name}.detect() gives a card of {card.framework!r}"

    loaded = _loaded(framework, contents, card)
    described = framework.describe(loaded, card)
    signature = inference.infer(described, card, None, None)
    rows = list(records) or [signature.example()]
    answers = _answers(framework, loaded, signature, described, rows)
    for output in described.outputs:
        assert output.name in answers, f"{name}.predict() lacks the output {output.name!r} that describe() lists"
        assert len(answers[output.name]) == len(rows), f"{name}.predict() gives {len(answers[output.name])} answers to {len(rows)} rows"
    whole = _records(described, answers)
    alone = [_records(described, _answers(framework, loaded, signature, described, [row]))[0] for row in rows]
    assert all(map(_close, whole, alone)), f"{name}.predict() answers a row alone otherwise than among others, or in another order"

    first, again = scratch / "first", scratch / "again"
    first.mkdir()
    again.mkdir()
    saved = framework.save(loaded, card, first)
    if saved is not None:
        framework.save(_loaded(framework, contents, card), card, again)
        assert (first / saved).read_bytes() == (again / saved).read_bytes(), f"{name}.save() writes other bytes for the same model"
        reloaded = framework.load(first / saved, card)
        kept = _records(described, _answers(framework, reloaded, signature, described, rows))
        assert all(map(_close, whole, kept)), f"{name}.load() of what save() wrote answers differently"
    installed = {one.metadata["Name"].lower() for one in distributions()} | set(packages_distributions())
    for requirement in framework.requirements(loaded, card):
        assert requirement.lower() in installed, f"{name}.requirements() names {requirement!r}, which is not installed and yet it works"


def _loaded(framework: Framework, contents: Contents, card: Card) -> Any:
    rebuild = getattr(framework, "rebuild", None) if contents.format in inspection.PICKLES else None
    return framework.load(contents.path, card) if rebuild is None else rebuild(contents, card)


def _answers(framework: Framework, model: Any, signature: Signature, described: Signature, rows: Sequence[dict[str, Any]]) -> Columns:
    return framework.predict(model, signature.columns(rows), signature)


def _records(described: Signature, answers: Columns) -> list[dict[str, Any]]:
    return Signature((), described.outputs).records(answers)


def _close(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return not engines.difference(one, other, 1e-5)

"""Small bundles for tests that need one and do not care how it was packed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from modelport import bundle as bundles
from modelport.bundle import Bundle
from modelport.frameworks import Card
from modelport.signature import Field, Signature

IRIS = Signature(
    inputs=(
        Field("petal length (cm)", "number", minimum=0.0, example=1.4, description="length of a petal in cm"),
        Field("petal width (cm)", "number", nullable=True, example=0.2),
    ),
    outputs=(
        Field("prediction", "category", choices=("setosa", "versicolor")),
        Field("probabilities", "number", shape=(2,), choices=("setosa", "versicolor")),
    ),
)


def write(folder: Path, name: str = "iris", signature: Signature = IRIS, content: bytes = b"a model", **about: Any) -> Bundle:
    """A bundle in `folder` whose model is `content`, which no framework loads."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.bin").write_bytes(content)
    (folder / "example.json").write_text(json.dumps([signature.example()]))
    (folder / "requirements.txt").write_text("# pinned\nscikit-learn==1.9.1\n")
    card = Card(framework="sklearn", cls="sklearn.svm._classes.SVC", library="scikit-learn", version="1.9.1")
    return bundles.write(folder, name=name, card=card, signature=signature, model="model/model.bin", python="3.11", **about)

"""Bundles whose model stands in them as ONNX too, as packing makes them where the answers are proven the same."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import models
from modelport import bundle as bundles
from modelport.bundle import MANIFEST, Bundle
from modelport.packing import Options, pack_file

PARITY = {
    "passed": True, "reason": "", "precision": "float32", "rows": 1212, "rows_of_sample": 150, "rows_made": 1062, "flips": 0,
    "largest_difference": 4.8e-07, "relative": False, "tolerance": 1e-4, "python": "3.11",
    "versions": {"scikit-learn": "1.9.1", "skl2onnx": "1.20.0", "onnx": "1.23.2", "onnxruntime": "1.31.1"}, "tries": [],
}  # fmt: skip


def changed(bundle: Bundle, folder: Path, files: Mapping[str, bytes], *, without: Sequence[str] = (), **about: Any) -> Bundle:
    """A copy of the bundle in `folder` with other files, and a digest that covers them."""
    shutil.copytree(bundle.folder, folder)
    for name in (MANIFEST, *without):
        (folder / name).unlink()
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    kept = {slot.name: getattr(bundle, slot.name) for slot in fields(Bundle) if slot.name not in ("folder", "digest", "files")}
    return bundles.write(folder, **(kept | about))


def iris(folder: Path, files: Mapping[str, bytes] | None = None, **about: Any) -> Bundle:
    """Logistic regression in scikit-learn's form, labels in words, and the same as ONNX; with the evidence above."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000).fit(models.iris(), models.iris_species())
    return converted("iris", model, models.iris(), folder, files or {}, **about)


def shipping(folder: Path, files: Mapping[str, bytes] | None = None, **about: Any) -> Bundle:
    """Boosted trees in the format of XGBoost, and the same as ONNX; with the evidence above."""
    return converted("shipping", models.xgboost_regressor().model, models.shipping(), folder, files or {}, **about)


def writes(path: Path) -> bytes:
    """A pickle that makes a file when it is loaded."""

    class Payload:
        def __reduce__(self) -> Any:
            return open, (str(path), "w")

    return pickle.dumps(Payload())


def converted(name: str, trained: Any, sample: Any, folder: Path, files: Mapping[str, bytes], **about: Any) -> Bundle:
    """The model packed, and the bundle changed."""
    packed, path = folder.with_name(f"{folder.name}-packed"), folder.with_name(f"{folder.name}.pkl")
    path.write_bytes(pickle.dumps(trained))
    packed.mkdir()
    bundle = pack_file(path, packed, Options(name=name, sample=sample))
    assert bundle.parity() is not None
    return changed(bundle, folder, {"parity.json": json.dumps(PARITY).encode(), **files}, **about)

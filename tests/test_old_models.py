"""Every model in data/old_models, written by a library of years ago, answers today what it answered then."""

from __future__ import annotations

from pathlib import Path

import old_models
import pytest

TABLE = [path.relative_to(old_models.MODELS).as_posix() for path in old_models.old_models()]
FILES = sorted(TABLE, key=lambda file: (file.split("/")[0], "pipeline" not in file))
"""The pipelines of each version first: the environment that is made for them has what the others need, too."""


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache for this file: an environment takes seconds to make."""
    monkeypatch.setenv("MODELPORT_CACHE", str(tmp_path_factory.getbasetemp() / "environments-of-old-models"))


@pytest.mark.parametrize("file", FILES)
def test_an_old_model_answers_as_it_did(file: str, tmp_path: Path, old_pythons: None) -> None:
    result = old_models.served_today(old_models.MODELS / file, tmp_path)
    assert result.rows >= 24
    assert (result.flips, result.good) == (0, True)
    assert result.engine.startswith("ONNX") or file in ("catboost-1.2/categories.pkl", "xgboost-1.6.2/categories.joblib")


def test_every_model_stands_in_the_table_of_the_docs() -> None:
    lines = old_models.PAGE.read_text(encoding="utf-8").splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| ") and "`" in line]
    assert [row[2].strip("`") for row in rows] == TABLE
    assert {row[-1] for row in rows} == {"✓ |"}

"""The contract suite passes what keeps the contract, and names the promise that is broken."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import models
from modelport import plugins
from modelport.testing import check_framework


@pytest.mark.parametrize("name", ["iris_svc", "xgboost_regressor", "lightgbm_classifier", "catboost_regressor"])
def test_own_frameworks_keep_the_contract(name: str, tmp_path: Path) -> None:
    path = models.write(name, tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    frame = models.MODELS[name]().frame
    described = [] if name.startswith("lightgbm") else models.records(frame.head(5))
    check_framework(models.MODELS[name]().framework, path, scratch, described)


def test_a_framework_that_swaps_rows_is_found_out(tmp_path: Path) -> None:
    own = plugins.framework("sklearn")

    def swapped(model: Any, columns: Any, signature: Any) -> Any:
        return {name: np.flip(answer, axis=0) for name, answer in own.predict(model, columns, signature).items()}

    functions = {name: getattr(own, name) for name in ("imports", "detect", "load", "describe", "save", "requirements")}
    wrong = SimpleNamespace(**functions, predict=swapped)
    path = models.write("iris_svc", tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(AssertionError, match="in another order"):
        check_framework("sklearn", path, scratch, models.records(models.MODELS["iris_svc"]().frame), framework=wrong)

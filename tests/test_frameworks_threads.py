"""That the number of threads which a service's workers are told reaches each library, in a process that is told as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOLD = """
import json
import sys
from dataclasses import replace
from pathlib import Path

import models
from modelport.frameworks import Card, catboost, lightgbm, onnx, sklearn, xgboost


class Asked:
    '''A model that keeps what it is asked with.'''

    def __init__(self, model):
        self.model = model

    def __getattr__(self, name):
        return getattr(self.model, name)

    def predict(self, rows, **asked):
        self.asked = asked
        return self.model.predict(rows, **asked)


def load(module, name):
    trained = models.MODELS[name]()
    card = Card(trained.framework, f"{type(trained.model).__module__}.{type(trained.model).__name__}", trained.framework)
    return module.load(models.write(name, Path(sys.argv[1])), card), card


def asked(module, name, model, card, watched):
    columns = models.columns(models.MODELS[name]().frame)
    if module is lightgbm:
        columns = {column.replace(" ", "_"): values for column, values in columns.items()}
    module.predict(model, columns, module.describe(model, card))
    return watched.asked


forest, _ = load(sklearn, "random_forest")
models.MODELS["grid_search"]().model.n_jobs = 2
search, _ = load(sklearn, "grid_search")
session = load(onnx, "onnx_svc")[0].session
booster = load(xgboost, "xgboost_booster")[0].booster
light, card = load(lightgbm, "lightgbm_booster")
light = replace(light, booster=Asked(light.booster))
cat, cat_card = load(catboost, "catboost_native")
cat = Asked(cat)
print(json.dumps({
    "forest": forest.n_jobs,
    "search": search.n_jobs,
    "onnx": session.get_session_options().intra_op_num_threads,
    "xgboost": int(json.loads(booster.save_config())["learner"]["generic_param"]["nthread"]),
    "lightgbm": asked(lightgbm, "lightgbm_booster", light, card, light.booster)["num_threads"],
    "catboost": asked(catboost, "catboost_native", cat, cat_card, cat)["thread_count"],
}))
"""


@pytest.mark.parametrize(("told", "threads"), [("2", 2), ("1", 1), ("", 1)])
def test_each_library_computes_with_as_many_threads_as_the_process_is_told(told: str, threads: int, tmp_path: Path) -> None:
    """And with one where it is told nothing. A search's n_jobs are processes, of which a worker starts none."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": told}
    done = subprocess.run([sys.executable, "-c", TOLD, str(tmp_path)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    libraries = ("forest", "onnx", "xgboost", "lightgbm", "catboost")
    assert json.loads(done.stdout) == dict.fromkeys(libraries, threads) | {"search": 1}

"""Makes the model files and the rows that every tool serves: run once by the Python of an environment that has the libraries.

`python models.py FOLDER ROOT`: trains the two examples of ROOT by their own scripts, converts them to ONNX, and writes for each kind of
model the rows to send and the model's own answers to them.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import onnxmltools
import pandas as pd
from onnx import TensorProto, helper
from onnxmltools.convert.common.data_types import FloatTensorType as XGBoostFloats
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.pipeline import make_pipeline

from slow import Slow

BATCHES, BATCH_ROWS = 4, 1000
SLOW_S = 0.005


def main(folder: Path, root: Path) -> None:
    for example in ("iris", "shipping"):
        (folder / example).mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, root / "examples" / example / "train.py"], cwd=folder / example, check=True)
    _iris(folder / "iris", folder)
    _shipping(folder / "shipping")


def _iris(folder: Path, top: Path) -> None:
    model = joblib.load(folder / "iris.joblib")
    rows = pd.read_csv(folder / "sample.csv")
    _write_rows(folder, rows, [model.predict(rows).tolist()], [rows])
    graph = convert_sklearn(model, initial_types=[("rows", FloatTensorType([None, rows.shape[1]]))], options={id(model): {"zipmap": False}})
    del graph.graph.output[1:]  # the label alone: what the other tools answer
    graph.graph.output[0].name, before = "prediction", graph.graph.output[0].name
    for node in graph.graph.node:
        node.output[:] = ["prediction" if name == before else name for name in node.output]
    onnx.save(_with_columns(graph, list(rows.columns)), folder / "iris.onnx")
    steps = _steps(SLOW_S)
    for name, each_row in (("slow", False), ("slow_rows", True)):
        (top / name).mkdir(exist_ok=True)
        joblib.dump(make_pipeline(Slow(model, steps, each_row)), top / name / "iris.joblib")
        for shared in ("rows.json", "sample.csv"):
            (top / name / shared).write_bytes((folder / shared).read_bytes())


def _shipping(folder: Path) -> None:
    with (folder / "shipping.pkl").open("rb") as file:
        model = pickle.load(file)
    model.save_model(folder / "shipping.ubj")
    orders = pd.read_csv(folder / "new_orders.csv")
    known = pd.read_csv(folder / "sample.csv")[list(orders.columns)]
    everything = pd.concat([orders, known], ignore_index=True)
    batches = [everything.iloc[(np.arange(BATCH_ROWS) + 300 * n) % len(everything)] for n in range(BATCHES)]
    single = orders.head(200)
    _write_rows(folder, single, [model.predict(single).tolist(), *(model.predict(batch).tolist() for batch in batches)], [single, *batches])
    booster = model.get_booster()
    booster.feature_names = None  # onnxmltools takes f0, f1, ... only
    graph = onnxmltools.convert_xgboost(model, initial_types=[("rows", XGBoostFloats([None, orders.shape[1]]))], target_opset=15)
    onnx.save(_with_columns(graph, list(orders.columns)), folder / "shipping.onnx")


def _write_rows(folder: Path, rows: pd.DataFrame, answers: list[list[Any]], batches: list[pd.DataFrame]) -> None:
    """rows.json: the columns' names; the single rows with their answers; then the batches with theirs."""
    sets = [{"rows": batch.to_numpy().tolist(), "answers": answer} for batch, answer in zip(batches, answers, strict=True)]
    (folder / "rows.json").write_text(json.dumps({"columns": list(rows.columns), "single": sets[0], "batches": sets[1:]}))


def _with_columns(model: Any, names: list[str]) -> Any:
    """The same graph with an input of one column for each field in place of the one matrix, so that requests can name the fields."""
    graph = model.graph
    assert len(graph.input) == 1
    matrix = graph.input[0].name
    del graph.input[:]
    graph.input.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in names)
    if not any(opset.domain == "" for opset in model.opset_import):
        model.opset_import.append(helper.make_operatorsetid("", 15))
    graph.node.insert(0, helper.make_node("Concat", names, [matrix], name="columns", axis=1))
    onnx.checker.check_model(model)
    return model


def _steps(seconds: float) -> int:
    """How many steps of `Slow` take so long on this machine."""
    one = Slow(None, 1, each_row=False)
    one.work(1)
    times = []
    for _ in range(20):
        begun = time.thread_time()
        one.work(20)
        times.append(time.thread_time() - begun)
    return max(1, round(seconds / (min(times) / 20)))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())

"""What ONNX is worth behind HTTP: the same bundle served by ONNX and by the model's own library, on one core.

Three models as packing makes them, each proven as ONNX: the SVC of W1, the boosted trees of W2, and a pipeline that imputes, scales
and one-hot encodes numbers and strings before a logistic regression. The server is `modelport serve --engine`, one worker of one thread.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.load import drive
from bench.servers import cores, free_port, running
from bench.works import Exchange, answer_to

ROUNDS, SECONDS, WARM_S = 3, 4, 1
BATCH_ROWS = 1000
MODELS = {
    "iris": "W1: SVC of scikit-learn, 4 numbers",
    "shipping": "W2: 200 trees of XGBoost, depth 6, 5 numbers",
    "strings": "pipeline of scikit-learn: impute, scale, one-hot; 4 numbers and 3 strings; logistic regression",
}
ENGINES = ("native", "onnx")


@dataclass(frozen=True)
class Asked:
    """What a service of one model is asked."""

    single: list[Exchange]
    batch: list[Exchange]


def run(*options: str) -> str:
    """The table. Options: the models to measure."""
    chosen = [name for name in MODELS if name in options or not options]
    server_core, load_core = cores() or (None, None)
    rates: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        subprocess.run([sys.executable, "-m", "bench.engines", str(folder), *chosen], check=True)
        asked = {name: _asked(folder / f"{name}.json") for name in chosen}
        proofs = {name: json.loads((folder / name / "parity.json").read_text()) for name in chosen}
        for _ in range(ROUNDS):
            for name in chosen:
                for engine in ENGINES:
                    port = free_port()
                    words = [Path(sys.executable).with_name("modelport"), "serve", folder / name, "--engine", engine]
                    words += ["--workers", "1", "--threads", "1", "--port", str(port), "--max-body", "64MB"]
                    environment = {**os.environ, "MODELPORT_STORE": str(folder / "store"), "OMP_NUM_THREADS": "1"}
                    with running(words, port, folder, environment, asked[name].single[0], server_core):
                        _check(port, asked[name])
                        drive(port, asked[name].single, 32, WARM_S, folder, load_core)
                        many = drive(port, asked[name].single, 32, SECONDS, folder, load_core)
                        alone = drive(port, asked[name].single, 1, SECONDS, folder, load_core)
                        batch = drive(port, asked[name].batch, 4, SECONDS, folder, load_core)
                        seen = (many.requests_per_s, many.p99_ms, alone.p50_ms, batch.requests_per_s * BATCH_ROWS)
                        rates.setdefault((name, engine), []).append(seen)
    middle = {key: [statistics.median(values) for values in zip(*seen, strict=True)] for key, seen in rates.items()}
    lines = [
        "# ONNX against the model's own library, through the whole server",
        "",
        "`python -m bench engines`: `modelport serve` of a bundle with `--engine native` and `--engine onnx` on one core, wrk on another.",
        f"The median of {ROUNDS} interleaved rounds of {SECONDS} s. Every answer is first compared with the model's own.",
        "",
        "| model | engine | 32 connections, requests/s | p99 ms | 1 connection, p50 ms | 1,000 rows a request, rows/s |",
        "|---|---|---|---|---|---|",
    ]
    for name in chosen:
        native = middle[name, "native"]
        for engine in ENGINES:
            rate, p99, p50, rows = middle[name, engine]
            times = "" if engine == "native" else f" ({rate / native[0]:.1f} times)"
            wide = "" if engine == "native" else f" ({rows / native[3]:.1f} times)"
            lines.append(f"| {MODELS[name]} | {engine} | {rate:,.0f}{times} | {p99:.2f} | {p50:.3f} | {rows:,.0f}{wide} |")
    lines += ["", "How they were proven:", ""]
    for name, proof in proofs.items():
        kind = "relative " if proof["relative"] else ""
        lines.append(
            f"- {name}: {proof['rows']:,} rows, {proof['flips']} flips, largest {kind}difference {proof['largest_difference']:.1g}, "
            f"in {proof['precision']}"
        )
    return "\n".join(lines) + "\n"


def _asked(path: Path) -> Asked:
    rows = json.loads(path.read_text())
    pairs = list(zip(rows["inputs"], rows["outputs"], strict=True))
    single = [Exchange("/predict", json.dumps(given, separators=(",", ":")).encode(), (answer,)) for given, answer in pairs[:200]]
    every = (pairs * -(-BATCH_ROWS // len(pairs)))[:BATCH_ROWS]
    body = json.dumps([given for given, _ in every], separators=(",", ":")).encode()
    return Asked(single, [Exchange("/predict", body, tuple(answer for _, answer in every))])


def _check(port: int, asked: Asked) -> None:
    """RuntimeError when an answer is not the model's own."""
    from modelport.engines import difference

    for exchange in (*asked.single, *asked.batch):
        status, body = answer_to(port, exchange.request, timeout_s=30)
        got = json.loads(body)
        wanted: Any = list(exchange.answers) if isinstance(got, list) else exchange.answers[0]
        differs = difference(wanted, got, 1e-4)
        if status != 200 or differs:
            raise RuntimeError(f"answers wrongly: status {status}; {differs}")


# In a process of its own: the models


def _make(folder: Path, names: list[str]) -> None:
    """For each model a bundle, and rows with the answers of its own library."""
    import pickle

    from modelport import engines
    from modelport.packing import Options, pack_file

    for name in names:
        model, frame = {"iris": _iris, "shipping": _shipping, "strings": _strings}[name]()
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(model))
        (folder / name).mkdir()
        bundle = pack_file(folder / f"{name}.pkl", folder / name, Options(name=name, sample=frame))
        if "model.onnx" not in bundle.files:
            raise RuntimeError(f"{name} has no ONNX: {bundle.read_json('parity.json')['reason']}")
        shown = frame.head(400)
        records = json.loads(shown.to_json(orient="records"))
        outputs = engines.load(bundle, "native").answer(records)
        (folder / f"{name}.json").write_text(json.dumps({"inputs": records, "outputs": outputs}))


def _iris() -> tuple[Any, Any]:
    from sklearn.datasets import load_iris
    from sklearn.svm import SVC

    data = load_iris(as_frame=True)
    frame = data.data.set_axis(["sepal_length", "sepal_width", "petal_length", "petal_width"], axis=1)
    return SVC(kernel="linear").fit(frame, data.target.map(dict(enumerate(data.target_names))).astype(object)), frame


def _shipping() -> tuple[Any, Any]:
    import numpy as np
    import pandas as pd
    from xgboost import XGBRegressor

    random = np.random.default_rng(3)
    rows = 2000
    frame = pd.DataFrame(
        {
            "price": random.lognormal(4, 1, rows).round(2),
            "product_weight_g": random.integers(50, 30_000, rows).astype(float),
            "product_height_cm": random.integers(2, 100, rows).astype(float),
            "delivery_distance_km": random.gamma(2, 300, rows).round(3),
            "product_volume_cm3": random.integers(100, 200_000, rows).astype(float),
        }
    )
    price = 8 + frame["product_weight_g"] / 700 + frame["delivery_distance_km"] / 60 + frame["price"] / 90 + random.normal(size=rows)
    return XGBRegressor(n_estimators=200, max_depth=6, n_jobs=1).fit(frame, price), frame


def _strings() -> tuple[Any, Any]:
    import numpy as np
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    random = np.random.default_rng(5)
    rows = 2000
    frame = pd.DataFrame({name: random.normal(50, 20, rows).round(2) for name in ("age", "income", "balance", "months")})
    frame.loc[random.random(rows) < 0.1, "income"] = np.nan
    for name, count in (("city", 40), ("job", 12), ("plan", 4)):
        frame[name] = random.choice([f"{name} {index}" for index in range(count)], rows)
    prepare = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["age", "income", "balance", "months"]),
        (OneHotEncoder(handle_unknown="ignore"), ["city", "job", "plan"]),
    )
    leaves = (frame["age"] + frame["balance"] + random.normal(0, 20, rows) > 100).map({True: "leaves", False: "stays"})
    return make_pipeline(prepare, LogisticRegression(max_iter=1000)).fit(frame, leaves), frame


if __name__ == "__main__":
    _make(Path(sys.argv[1]), sys.argv[2:])

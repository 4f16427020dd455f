"""Make the bundle that `modelport demo` serves: iris flowers by logistic regression, as ONNX.

    python tools/make_demo.py

Run it again after a change of the bundle's format; the same libraries give the same bytes.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import click

from modelport.packing import Options, pack_file

TARGET = Path(__file__).parent.parent / "src" / "modelport" / "demo"
MEASURES = {
    "sepal_length": ("length of a sepal in cm", 4.0, 8.0),
    "sepal_width": ("width of a sepal in cm", 1.5, 5.0),
    "petal_length": ("length of a petal in cm", 0.5, 7.5),
    "petal_width": ("width of a petal in cm", 0.0, 3.0),
}


def main() -> None:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    iris = load_iris(as_frame=True)
    frame = iris.data.set_axis(list(MEASURES), axis=1)
    species = iris.target_names[iris.target]
    model = LogisticRegression(max_iter=1000).fit(frame.to_numpy(), species)
    graph = to_onnx(model, initial_types=[("measures", FloatTensorType([None, 4]))], options={"zipmap": False}, target_opset=15)
    graph.doc_string = "iris flowers by logistic regression"
    schema = {
        "inputs": [
            {"name": name, "kind": "number", "description": words, "minimum": low, "maximum": high, "dtype": "float32"}
            for name, (words, low, high) in MEASURES.items()
        ]
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "iris.onnx"
        path.write_bytes(graph.SerializeToString())
        options = Options(
            name="iris",
            schema=schema,
            sample=frame.iloc[::15],
            title="Iris species",
            subtitle="Which iris is it? Four measures of a flower, in centimetres.",
            description="Logistic regression on the 150 flowers that R. A. Fisher published in 1936, as ONNX.",
            metric={"accuracy": round(float(model.score(frame.to_numpy(), species)), 4)},
        )
        made = Path(folder) / "bundle"
        made.mkdir()
        bundle = pack_file(path, made, options)
        shutil.rmtree(TARGET, ignore_errors=True)
        shutil.copytree(made, TARGET)
    click.echo(f"{TARGET}: {bundle.size} bytes, {bundle.digest}")


if __name__ == "__main__":
    main()

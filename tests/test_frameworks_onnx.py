"""What ONNX graphs say of themselves, and that they answer as onnxruntime does, whatever the form of their inputs and outputs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx as library
import pytest
from onnx import TensorProto, helper

import models
from faults_world import SOURCE
from modelport import engines
from modelport.errors import ModelFileError
from modelport.frameworks import Card, onnx
from modelport.packing import Options, pack_file
from modelport.signature import Field

CARD = Card("onnx", "onnx.ModelProto", "onnxruntime")
IRIS = models.iris().to_numpy()
COLUMNS = {f"x{index}": IRIS[:, index] for index in range(4)}


def convert(model: Any, kinds: list[tuple[str, Any]] | None = None, **options: Any) -> Any:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    return to_onnx(model, initial_types=kinds or [("X", FloatTensorType([None, 4]))], **options)


def graph(nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> Any:
    made = helper.make_model(helper.make_graph(nodes, "graph", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    library.checker.check_model(made)
    return made


def tensor(name: str, kind: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[Any], onnx.Loaded]:
    """What puts a graph into a file and loads it."""

    def write_and_load(made: Any) -> onnx.Loaded:
        (tmp_path / "graph.onnx").write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
        return onnx.load(tmp_path / "graph.onnx", CARD)

    return write_and_load


Opened = Callable[[Any], onnx.Loaded]


def test_a_matrix_is_a_field_for_each_column_and_the_labels_stand_in_the_file(opened: Opened) -> None:
    card = Card("onnx", "onnx.ModelProto", "onnxruntime", classes=("setosa", "versicolor", "virginica"))
    assert onnx.describe(opened(models.onnx_svc().model), card).to_dict() == {
        "inputs": [{"name": f"x{index}", "kind": "number", "dtype": "float32"} for index in range(4)],
        "outputs": [
            {"name": "prediction", "kind": "category", "choices": ["setosa", "versicolor", "virginica"]},
            {
                "name": "probabilities",
                "kind": "number",
                "dtype": "float32",
                "shape": [3],
                "choices": ["setosa", "versicolor", "virginica"],
            },
        ],
    }


def test_an_input_of_one_value_a_row_is_a_field_and_a_zipmap_tells_the_labels(opened: Opened) -> None:
    assert onnx.describe(opened(models.onnx_pipeline().model), CARD).to_dict() == {
        "inputs": [
            {"name": "Größe", "kind": "number", "dtype": "float32"},
            {"name": "rooms", "kind": "number", "dtype": "float32"},
            {"name": "class", "kind": "string"},
        ],
        "outputs": [
            {"name": "prediction", "kind": "category", "choices": ["cheap", "dear"]},
            {"name": "probabilities", "kind": "number", "dtype": "float32", "shape": [2], "choices": ["cheap", "dear"]},
        ],
    }


def test_a_label_that_the_file_does_not_explain_is_what_it_is(opened: Opened) -> None:
    outputs = onnx.describe(opened(models.onnx_svc().model), CARD).outputs
    assert outputs == (Field("prediction", "string"), Field("probabilities", "number", dtype="float32", shape=(3,)))


@pytest.mark.parametrize("name", ["isolation_forest", "kmeans"])
def test_outliers_and_clusters(name: str, opened: Opened) -> None:
    model = opened(convert(models.MODELS[name]().model, target_opset={"": 21, "ai.onnx.ml": 3}))
    signature = onnx.describe(model, CARD)
    kinds = [(field.name, field.kind, field.shape, field.choices) for field in signature.outputs]
    answers = onnx.predict(model, COLUMNS, signature)
    if name == "isolation_forest":
        assert kinds == [("prediction", "category", (), (1, -1)), ("score", "number", (), ())]
        np.testing.assert_allclose(answers["score"], models.isolation_forest().model.decision_function(models.iris()), atol=1e-5)
        assert answers["score"].shape == (150,)
    else:
        assert kinds == [("prediction", "integer", (), ()), ("scores", "number", (3,), ())]
        np.testing.assert_array_equal(answers["prediction"], models.kmeans().model.predict(IRIS))


def test_several_outputs_of_a_regressor_are_a_vector(opened: Opened) -> None:
    from skl2onnx.common.data_types import FloatTensorType

    model = opened(convert(models.multi_output().model, [("X", FloatTensorType([None, 2]))]))
    assert onnx.describe(model, CARD).outputs == (Field("prediction", "number", dtype="float32", shape=(2,)),)


def test_missing_values_are_taken_where_the_graph_fills_them(opened: Opened) -> None:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline

    native = make_pipeline(SimpleImputer(), LinearRegression()).fit(IRIS, np.arange(150.0))
    converted = convert(native)
    model = opened(converted)
    assert not any(field.nullable for field in onnx.describe(model, CARD).inputs)
    card = Card("onnx", "onnx.ModelProto", "onnxruntime", details={"nodes": {node.op_type: 1 for node in converted.graph.node}})
    signature = onnx.describe(model, card)
    assert all(field.nullable for field in signature.inputs)
    answer = onnx.predict(model, signature.columns([dict.fromkeys(COLUMNS)]), signature)
    np.testing.assert_allclose(answer["prediction"], native.predict(np.full((1, 4), np.nan)), rtol=1e-5)


def test_boosted_trees_know_where_missing_values_go(opened: Opened) -> None:
    model = opened(models.onnx_xgboost().model)
    card = Card("onnx", "onnx.ModelProto", "onnxruntime", details={"nodes": {"TreeEnsembleRegressor": 1}})
    assert all(field.nullable for field in onnx.describe(model, card).inputs)


def test_integers_booleans_and_doubles_have_their_kinds(opened: Opened) -> None:
    kinds = {"n": TensorProto.INT64, "yes": TensorProto.BOOL, "d": TensorProto.DOUBLE, "f": TensorProto.FLOAT16}
    casts = [helper.make_node("Cast", [name], [f"{name}_cast"], to=TensorProto.FLOAT) for name in kinds]
    total = helper.make_node("Sum", [f"{name}_cast" for name in kinds], ["total"])
    inputs = [tensor(name, kind, [None, 1]) for name, kind in kinds.items()]
    model = opened(graph([*casts, total], inputs, [tensor("total", 1, [None, 1])]))
    signature = onnx.describe(model, CARD)
    assert [(field.name, field.kind, field.dtype) for field in signature.inputs] == [
        ("n", "integer", None),
        ("yes", "boolean", None),
        ("d", "number", "float64"),
        ("f", "number", "float16"),
    ]
    columns = signature.columns([{"n": 3, "yes": True, "d": 0.5, "f": 1.5}, {"n": -3, "yes": False, "d": 0, "f": 0}])
    assert onnx.predict(model, columns, signature)["prediction"].tolist() == [6.0, -3.0]


@pytest.mark.parametrize("batch", [None, 1])
def test_pictures_go_in_as_tensors_also_where_the_graph_takes_one_row_at_a_time(batch: int | None, opened: Opened) -> None:
    node = helper.make_node("ReduceMean", ["picture"], ["mean"], axes=[2, 3], keepdims=0)
    model = opened(graph([node], [tensor("picture", 1, [batch, 3, 2, 2])], [tensor("mean", 1, [batch, 3])]))
    signature = onnx.describe(model, CARD)
    assert signature.inputs == (Field("picture", "tensor", dtype="float32", shape=(3, 2, 2)),)
    assert signature.outputs == (Field("prediction", "number", dtype="float32", shape=(3,)),)
    pictures = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    np.testing.assert_array_equal(onnx.predict(model, {"picture": pictures}, signature)["prediction"], pictures.mean(axis=(2, 3)))


def test_a_row_without_a_second_axis_is_a_field_and_outputs_have_their_own_names(opened: Opened) -> None:
    nodes = [helper.make_node("Neg", ["a"], ["minus"]), helper.make_node("Abs", ["a"], ["size"])]
    model = opened(graph(nodes, [tensor("a", 1, [None])], [tensor("minus", 1, [None]), tensor("size", 1, [None])]))
    signature = onnx.describe(model, CARD)
    assert [field.name for field in signature.outputs] == ["prediction", "size"]
    answers = onnx.predict(model, {"a": np.array([1.0, -2.0])}, signature)
    assert {name: answer.tolist() for name, answer in answers.items()} == {"prediction": [-1.0, 2.0], "size": [1.0, 2.0]}


def test_a_free_number_of_columns_is_a_tensor(opened: Opened) -> None:
    model = opened(graph([helper.make_node("Abs", ["a"], ["b"])], [tensor("a", 1, [None, None])], [tensor("b", 1, [None, None])]))
    assert onnx.describe(model, CARD).inputs == (Field("a", "tensor", dtype="float32", shape=(-1,)),)


def test_what_is_no_tensor_is_refused(opened: Opened) -> None:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [None]))
    node = helper.make_node("SequenceLength", ["many"], ["count"])
    model = graph([node], [helper.make_value_info("many", kind)], [tensor("count", 7, [])])
    with pytest.raises(ModelFileError, match=r"input 'many' of the graph is a seq\(tensor\(float\)\); Modelport takes tensors"):
        opened(model)


def test_a_text_model_that_wants_a_locale_says_so(tmp_path: Path) -> None:
    from skl2onnx.common.data_types import StringTensorType

    model = convert(models.text().model, [("text", StringTensorType([None, 1]))])
    path = tmp_path / "text.onnx"
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "locale":
                attribute.s = b"xx_NOWHERE.UTF-8"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match=r"text\.onnx wants a locale that this machine does not have"):
        onnx.load(path, CARD)


def test_a_text_model_has_a_field_of_text(opened: Opened) -> None:
    from skl2onnx.common.data_types import StringTensorType

    vectorizer = models.text().model.steps[0][1]
    native = models.text().model
    converted = convert(native, [("text", StringTensorType([None, 1]))], options={id(vectorizer): {"locale": "C"}})
    card = Card("onnx", "onnx.ModelProto", "onnxruntime", details={"nodes": {node.op_type: 1 for node in converted.graph.node}})
    model = opened(converted)
    signature = onnx.describe(model, card)
    assert signature.inputs == (Field("text", "text"),)
    prose = models.columns(models.text().frame)
    np.testing.assert_array_equal(onnx.predict(model, prose, signature)["prediction"], native.predict(prose["text"]))


def test_a_graph_is_saved_as_it_is_with_the_weights_that_lie_beside_it(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    weights = helper.make_tensor("w", TensorProto.FLOAT, [400], np.arange(400, dtype=np.float32).tobytes(), raw=True)
    node = helper.make_node("Gather", ["w", "row"], ["value"])
    made = helper.make_graph([node], "graph", [tensor("row", 7, [None])], [tensor("value", 1, [None])], [weights])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    library.save(model, tmp_path / "own.onnx", save_as_external_data=True, location="own.weights", size_threshold=0)
    card = Card("onnx", "onnx.ModelProto", "onnxruntime", details={"external_data": ["own.weights"]})
    assert onnx.save(onnx.load(tmp_path / "own.onnx", card), card, tmp_path / "there") == "model.onnx"
    assert (tmp_path / "there" / "model.onnx").read_bytes() == (tmp_path / "own.onnx").read_bytes()
    restored = onnx.load(tmp_path / "there" / "model.onnx", card)
    assert onnx.predict(restored, {"row": np.array([7, 399])}, onnx.describe(restored, card))["prediction"].tolist() == [7.0, 399.0]


# Texts


def text_graph(shape: list[Any], *, words: bool) -> Any:
    """A graph that takes texts: how often "good" and "bad" stand in each, from which a label comes; or the text in capitals."""
    given = [helper.make_tensor_value_info("review", TensorProto.STRING, shape)]
    if not words:
        nodes = [helper.make_node("StringNormalizer", ["review"], ["shouted"], case_change_action="UPPER", locale="C")]
        made = [helper.make_tensor_value_info("shouted", TensorProto.STRING, shape)]
        return helper.make_model(helper.make_graph(nodes, "shout", given, made), opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    counts = {"mode": "TF", "min_gram_length": 1, "max_gram_length": 1, "max_skip_count": 0, "ngram_counts": [0], "ngram_indexes": [0, 1]}
    nodes = [
        helper.make_node("StringSplit", ["review"], ["words", "lengths"]),
        helper.make_node("TfIdfVectorizer", ["words"], ["counts"], pool_strings=["bad", "good"], **counts),
        helper.make_node("Softmax", ["counts"], ["chances"], axis=-1),
    ]
    made = [helper.make_tensor_value_info("chances", TensorProto.FLOAT, ["rows", 2])]
    return helper.make_model(helper.make_graph(nodes, "reviews", given, made), opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_a_graph_of_texts_takes_prose_and_its_numbers_get_their_labels(tmp_path: Path) -> None:
    path = tmp_path / "reviews.onnx"
    path.write_bytes(text_graph(["rows"], words=True).SerializeToString())
    (tmp_path / "bundle").mkdir()
    bundle = pack_file(path, tmp_path / "bundle", Options(labels=("bad", "good")))
    assert [(field.name, field.kind) for field in bundle.signature.inputs] == [("review", "text")]
    texts = ["good good film", "a bad, bad film", "good or bad"]
    answers = engines.load(bundle).answer([{"review": text} for text in texts])
    assert [answer["prediction"] for answer in answers[:2]] == ["good", "bad"]
    assert answers[2]["probabilities"] == pytest.approx({"bad": 0.5, "good": 0.5})


@pytest.mark.parametrize("shape", [["rows"], [1]])
def test_a_graph_may_answer_with_texts(tmp_path: Path, shape: list[Any]) -> None:
    path = tmp_path / "shout.onnx"
    path.write_bytes(text_graph(shape, words=False).SerializeToString())
    (tmp_path / "bundle").mkdir()
    bundle = pack_file(path, tmp_path / "bundle", Options())
    assert [field.kind for field in (*bundle.signature.inputs, *bundle.signature.outputs)] == ["text", "string"]
    assert engines.load(bundle).answer([{"review": "twelve"}, {"review": ""}]) == [{"prediction": "TWELVE"}, {"prediction": ""}]


def test_nothing_is_kept_or_reported_by_the_library(tmp_path: Path) -> None:
    """onnxruntime has telemetry, which would begin with an id on disk."""
    demo = Path(__file__).parent.parent / "src" / "modelport" / "demo"
    program = "import sys; from pathlib import Path; from modelport import engines; from modelport.bundle import open_bundle"
    program += "; engines.load(open_bundle(Path(sys.argv[1])))"
    own = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONPATH": SOURCE}
    done = subprocess.run([sys.executable, "-c", program, str(demo)], env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


# Memory


@pytest.mark.skipif(sys.platform != "linux", reason="what a process has is read where Linux tells it")
def test_a_large_graph_does_not_keep_what_was_needed_to_read_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {f"weights_{layer}": rng.normal(size=(512, 512, 3, 3)).astype(np.float32) for layer in range(3)}
    values = ["picture", *(f"value_{layer}" for layer in range(3))]
    inner = helper.make_graph(
        [helper.make_node("Conv", [values[at], name], [values[at + 1]], pads=[1] * 4) for at, name in enumerate(weights)],
        "large",
        [tensor(values[0], TensorProto.FLOAT, ["n", 512, 4, 4])],
        [tensor(values[-1], TensorProto.FLOAT, ["n", 512, 4, 4])],
        [library.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(inner, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "large.onnx"
    path.write_bytes(made.SerializeToString())
    program = f"""
from pathlib import Path
import onnxruntime
from modelport.frameworks import Card, onnx

def mb():
    (line,) = (line for line in Path("/proc/self/smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) / 1024

before = mb()
kept = onnx.load(Path({str(path)!r}), Card("onnx", "onnx.ModelProto", "onnxruntime"))
print(mb() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2 * path.stat().st_size / 1e6, "without giving back it is three times the file"

"""Networks of Keras 3, trained here: described, converted to ONNX within 1e-4, and served without Keras; code in a file is never run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import needed

os.environ.setdefault("KERAS_BACKEND", "torch")
needed.torch("torch", "keras", "onnx", "onnxscript")

import keras
import numpy as np
import pytest

from modelport import engines, inspection
from modelport.bundle import Bundle
from modelport.engines import Engine
from modelport.errors import ModelFileError, ModelportError, SignatureError, Untrusted
from modelport.packing import Options, pack_file
from modelport.signature import Field, to_array
from modelport.testing import check_framework

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")  # Keras' own

RNG = np.random.default_rng(0)
MEASURES = ("sepal length", "sepal width", "petal length", "petal width")
SPECIES = ("setosa", "versicolor", "virginica")
COLOURS = ("red", "green", "blue")


def flowers(rows: int = 90) -> tuple[Any, Any]:
    """Three kinds of four measures, and which they are."""
    kinds = np.arange(rows) % 3
    middles = np.array([[5.0, 3.4, 1.5, 0.3], [5.9, 2.8, 4.3, 1.3], [6.6, 3.0, 5.6, 2.0]])
    return (middles[kinds] + RNG.normal(0, 0.2, (rows, 4))).astype("float32"), kinds


def walls(size: int = 12, rows: int = 60, channels: int = 3) -> tuple[Any, Any]:
    """Pictures that are mostly of one colour, and of which; grey ones are dark, middling or bright."""
    kinds = np.arange(rows) % 3
    pixels = RNG.integers(0, 60, (rows, size, size, channels))
    for row, kind in enumerate(kinds):
        pixels[row, ..., kind if channels == 3 else 0] += 60 * (kind + 1) if channels == 1 else 180
    return pixels.astype("uint8"), kinds


def trained(network: Any, given: Any, wanted: Any, loss: Any, epochs: int = 30) -> Any:
    keras.utils.set_random_seed(0)
    network.compile(optimizer=keras.optimizers.Adam(0.02), loss=loss)
    network.fit(given, wanted, epochs=epochs, batch_size=32, verbose=0)
    return network


def classifier(activation: str | None = "softmax") -> Any:
    given, kinds = flowers()
    scale = keras.layers.Normalization()
    scale.adapt(given)
    network = keras.Sequential(
        [
            keras.Input((4,), name="measures"),
            scale,
            keras.layers.Dense(8, "relu"),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(3, activation),
        ]
    )
    return trained(network, given, kinds, keras.losses.SparseCategoricalCrossentropy(from_logits=activation is None))


def binary() -> Any:
    given, kinds = flowers()
    network = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(1, "sigmoid")])
    return trained(network, given, (kinds == 2).astype("float32"), "binary_crossentropy")


def several_right() -> Any:
    given, kinds = flowers()
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "tanh"), keras.layers.Dense(2, "sigmoid")])
    return trained(network, given, np.stack([kinds > 0, kinds == 2], axis=1).astype("float32"), "binary_crossentropy")


def regressor() -> Any:
    given, _ = flowers()
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "gelu"), keras.layers.Dense(1)])
    return trained(network, given, given @ np.array([1.0, 2.0, -1.0, 0.5], dtype="float32"), "mse")


def pictures(*, rescaling: bool = True, channels: int = 3, size: int | None = 12) -> Any:
    given, kinds = walls(channels=channels)
    layers: list[Any] = [keras.Input((size, size, channels))]
    if rescaling:
        layers.append(keras.layers.Rescaling(1 / 127.5, offset=-1))
    layers += [
        keras.layers.Conv2D(6, 3, padding="same", activation="relu"), keras.layers.MaxPooling2D(2), keras.layers.BatchNormalization(),
        keras.layers.SeparableConv2D(8, 3, activation="swish"), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, "softmax"),
    ]  # fmt: skip
    return trained(
        keras.Sequential(layers), given.astype("float32") / (1 if rescaling else 255), kinds, "sparse_categorical_crossentropy", 12
    )


def flat_pictures() -> Any:
    given, kinds = walls(8, channels=1)
    network = keras.Sequential(
        [keras.Input((8, 8)), keras.layers.Flatten(), keras.layers.Dense(16, "relu"), keras.layers.Dense(3), keras.layers.Softmax()]
    )
    return trained(network, given[..., 0].astype("float32") / 255, kinds, "sparse_categorical_crossentropy")


def several_inputs(structure: Callable[[list[Any]], Any] = lambda inputs: {one.name: one for one in inputs}) -> Any:
    age, income, history = keras.Input((1,), name="age"), keras.Input((), name="income"), keras.Input((5,), name="history")
    joined = keras.layers.Concatenate()([age, keras.layers.Reshape((1,))(income), history])
    hidden = keras.layers.Dense(8, "relu")(joined)
    outputs = {"risk": keras.layers.Dense(1, "sigmoid", name="risk")(hidden), "months": keras.layers.Dense(3, name="months")(hidden)}
    network = keras.Model(structure([age, income, history]), outputs)
    given = {"age": RNG.normal(size=(60, 1)), "income": RNG.normal(size=60), "history": RNG.normal(size=(60, 5))}
    arrays = {name: array.astype("float32") for name, array in given.items()}
    wanted = {"risk": (given["age"] > 0).astype("float32"), "months": arrays["history"][:, :3]}
    packed = arrays if isinstance(structure([age]), dict) else list(arrays.values())
    return trained(network, packed, wanted, {"risk": "binary_crossentropy", "months": "mse"}, 5)


def words(layer: str = "LSTM") -> Any:
    tokens = RNG.integers(1, 20, (60, 7))
    recurrent = {
        "LSTM": lambda: keras.layers.LSTM(6),
        "GRU": lambda: keras.layers.Bidirectional(keras.layers.GRU(5)),
        "mean": keras.layers.GlobalAveragePooling1D,
    }[layer]
    network = keras.Sequential(
        [keras.Input((7,), dtype="int32"), keras.layers.Embedding(20, 4), recurrent(), keras.layers.Dense(2, "softmax")]
    )
    return trained(network, tokens, (tokens[:, 0] > 10).astype(int), "sparse_categorical_crossentropy", 3)


MADE: dict[str, Callable[[], Any]] = {
    "classifier": classifier, "logits": lambda: classifier(None), "binary": binary, "several right": several_right, "regressor": regressor,
    "pictures": pictures, "plain pictures": lambda: pictures(rescaling=False), "grey pictures": lambda: pictures(channels=1),
    "flat pictures": flat_pictures, "pictures of any size": lambda: pictures(size=None), "several inputs": several_inputs,
    "a list of inputs": lambda: several_inputs(lambda inputs: inputs), "lstm": words, "gru": lambda: words("GRU"),
    "embedding": lambda: words("mean"),
}  # fmt: skip


@pytest.fixture(scope="module")
def networks() -> Callable[[str], Any]:
    """Each network, trained once."""
    made: dict[str, Any] = {}

    def network(name: str) -> Any:
        if name not in made:
            made[name] = MADE[name]()
        return made[name]

    return network


@pytest.fixture
def packed(networks: Callable[[str], Any], tmp_path: Path) -> Callable[..., Bundle]:
    def pack(name: str, **options: Any) -> Bundle:
        path = tmp_path / "model.keras"
        networks(name).save(path)
        (tmp_path / "bundle").mkdir()
        return pack_file(path, tmp_path / "bundle", Options(**options))

    return pack


def asked(engine: Engine, rows: int = 40) -> dict[str, Any]:
    """Rows of noise for its signature."""
    columns: dict[str, Any] = {}
    for field in engine.signature.inputs:
        if field.preprocessing is not None:
            columns[field.name] = walls(field.preprocessing.height, rows, field.preprocessing.channels)[0]
        elif field.kind == "tensor" and (field.dtype or "").startswith("int"):
            columns[field.name] = RNG.integers(1, 20, (rows, *field.shape)).astype(field.dtype)
        else:
            columns[field.name] = to_array(field, list(RNG.normal(3, 2, (rows, *field.shape))))
    return columns


def apart(bundle: Bundle) -> tuple[float, int]:
    """How far its ONNX is from Keras itself, on rows that neither has seen: the largest difference, and rows with another label."""
    graph, native = engines.load(bundle), engines.load(bundle, "native")
    assert (graph.name, native.name) == ("onnx", "native")
    columns = asked(native)
    far, flips = 0.0, 0
    ours, theirs = graph.predict(columns), native.predict(columns)
    for output in native.signature.outputs:
        if output.kind == "category":
            flips += int((ours[output.name] != theirs[output.name]).sum())
        else:
            far = max(far, float(np.abs(ours[output.name].astype(float) - theirs[output.name].astype(float)).max()))
    return far, flips


def parity(bundle: Bundle) -> Any:
    found = bundle.parity()
    assert found is not None
    assert found["passed"], found
    return found


@pytest.mark.parametrize("name", MADE)
def test_a_network_becomes_onnx_that_answers_as_it_does(name: str, packed: Callable[..., Bundle]) -> None:
    options = {"image": 8 if name == "flat pictures" else 12} if "pictures" in name else {}
    bundle = packed(name, **options)
    found = parity(bundle)
    assert found["largest_difference"] < 1e-4
    assert found["versions"]["keras"] == keras.__version__
    far, flips = apart(bundle)
    assert (far < 1e-4, flips) == (True, 0)
    needs = {name for name, _ in bundle.pins()}
    assert "onnxruntime" in needs
    assert not needs & {"keras", "torch"}


def test_a_table_of_numbers_is_a_field_for_each_column_and_a_softmax_gives_labels(packed: Callable[..., Bundle]) -> None:
    rows, kinds = flowers(20)
    sample = [dict(zip(MEASURES, map(float, row), strict=True)) for row in rows]
    bundle = packed("classifier", sample=sample, labels=SPECIES, output=["species"])
    assert [field.name for field in bundle.signature.inputs] == list(MEASURES)
    assert bundle.signature.outputs[0] == Field("species", "category", choices=SPECIES)
    assert bundle.signature.outputs[1].name == "probabilities"
    answers = engines.load(bundle).answer(sample)
    assert [answer["species"] for answer in answers] == [SPECIES[kind] for kind in kinds]
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_without_labels_a_softmax_gives_the_number_of_the_class(packed: Callable[..., Bundle]) -> None:
    bundle = packed("classifier")
    assert bundle.signature.outputs[0] == Field("prediction", "category", choices=(0, 1, 2))
    rows, kinds = flowers(6)
    answers = engines.load(bundle).answer([dict(zip(("x0", "x1", "x2", "x3"), map(float, row), strict=True)) for row in rows])
    assert [answer["prediction"] for answer in answers] == kinds.tolist()
    assert set(answers[0]["probabilities"]) == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("name", "labels", "outputs"),
    [
        ("logits", SPECIES, ["prediction", "probabilities"]),
        ("binary", ("other", "virginica"), ["prediction", "probabilities"]),
        ("several right", ("large", "virginica"), ["prediction", "scores"]),
        ("regressor", None, ["prediction"]),
    ],
)
def test_what_the_numbers_are_follows_from_what_computes_them(
    name: str, labels: Any, outputs: list[str], packed: Callable[..., Bundle], networks: Callable[[str], Any]
) -> None:
    bundle = packed(name, labels=labels)
    parity(bundle)
    assert [field.name for field in bundle.signature.outputs] == outputs
    rows, _ = flowers(9)
    columns = {field.name: rows[:, at].astype("float64") for at, field in enumerate(bundle.signature.inputs)}
    answers = engines.load(bundle).predict(columns)
    own = networks(name).predict(rows, verbose=0)
    if name == "logits":
        powers = np.exp(own)
        own = powers / powers.sum(axis=1, keepdims=True)
    elif name == "binary":
        own = np.column_stack((1 - own, own))
    elif name == "regressor":
        own = own[:, 0]
    assert answers[outputs[-1]] == pytest.approx(own, abs=1e-4)


def test_several_inputs_are_fields_by_their_names_and_several_outputs_too(packed: Callable[..., Bundle]) -> None:
    bundle = packed("several inputs")
    fields = {field.name: (field.kind, field.shape) for field in bundle.signature.inputs}
    assert fields == {"age": ("number", ()), "income": ("number", ()), "history": ("tensor", (5,))}
    assert {field.name: field.shape for field in bundle.signature.outputs} == {"risk": (), "months": (3,)}
    (answer,) = engines.load(bundle).answer([{"history": [1.0, 0.0, 2.0, 0.5, 0.1], "income": 1.0, "age": -2.0}])
    assert 0 <= answer["risk"] <= 1
    assert len(answer["months"]) == 3


@pytest.mark.parametrize(
    ("name", "scale", "mode"), [("pictures", 1.0, "RGB"), ("plain pictures", 1 / 255, "RGB"), ("grey pictures", 1.0, "L")]
)
def test_pictures_are_taken_as_they_are_where_the_network_scales_them_itself(
    name: str, scale: float, mode: str, packed: Callable[..., Bundle], networks: Callable[[str], Any]
) -> None:
    bundle = packed(name, image=12, labels=COLOURS if mode == "RGB" else ("dark", "middling", "bright"))
    how = bundle.signature.inputs[0].preprocessing
    assert how is not None
    assert (how.scale, how.mode, how.layout, how.crop, how.exif) == (scale, mode, "NHWC", "none", False)
    pixels, _kinds = walls(12, 30, 1 if mode == "L" else 3)
    answers = engines.load(bundle).predict({"image": pixels})
    own = networks(name).predict(pixels.astype("float32") * scale, verbose=0)
    assert answers["probabilities"] == pytest.approx(own, abs=1e-4)
    assert [bundle.signature.outputs[0].choices.index(label) for label in answers["prediction"]] == own.argmax(axis=1).tolist()


def test_what_does_not_fit_is_said_when_it_is_packed(packed: Callable[..., Bundle], tmp_path: Path) -> None:
    for name, options, words in (
        ("classifier", {"labels": ("a", "b")}, "2 labels are stated, and the model gives 3 numbers"),
        ("pictures", {"image": 32}, "the pictures' height is stated as 32, and the model takes 12"),
        ("classifier", {"image": 12}, "takes no picture alone: 'measures', float32 of rows x 4"),
        ("several inputs", {"image": 12}, "takes no picture alone: 'age', float32 of rows x 1; 'history'"),
    ):
        with pytest.raises(SignatureError) as raised:
            packed(name, **options)
        assert words in raised.value.message
        (tmp_path / "bundle").rmdir()


def test_served_from_onnx_it_needs_neither_keras_nor_torch(packed: Callable[..., Bundle]) -> None:
    bundle = packed("classifier", labels=SPECIES)
    program = (
        "import sys, json; from pathlib import Path; from modelport import engines; from modelport.bundle import open_bundle; "
        f"bundle = open_bundle(Path({str(bundle.folder)!r})); engine = engines.load(bundle); engines.verify_golden(engine, bundle); "
        "print(json.dumps([engine.name, [name for name in ('keras', 'torch') if name in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert json.loads(done.stdout) == ["onnx", []], done.stderr


def test_onnx_may_be_left_out_and_keras_answers_itself(packed: Callable[..., Bundle]) -> None:
    bundle = packed("classifier", onnx="off", labels=SPECIES)
    assert bundle.parity() is None
    assert {"keras", "torch"} <= {name for name, _ in bundle.pins()}
    engine = engines.load(bundle)
    assert engine.name == "native"
    assert engines.verify_golden(engine, bundle) == 1


# Code


LAYERS = """
    import keras


    class Doubled(keras.layers.Layer):
        def call(self, given):
            return 2 * given


    def cube(given):
        return given**3
"""


def test_a_lambda_is_refused_by_its_name_and_never_run(tmp_path: Path) -> None:
    network = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x * 2, name="twice"), keras.layers.Dense(1)])
    path = tmp_path / "model.keras"
    network.save(path)
    (tmp_path / "bundle").mkdir()
    with pytest.raises(Untrusted) as raised:
        pack_file(path, tmp_path / "bundle", Options())
    assert "Python code in the layer twice" in raised.value.message
    with pytest.raises(ModelFileError) as trusted:
        pack_file(path, tmp_path / "bundle", Options(trust=True))
    assert "holds Python code in twice" in trusted.value.message


def with_own(folder: Path) -> Path:
    """A network with a layer and an activation of one's own."""
    from textwrap import dedent

    own: dict[str, Any] = {"__name__": "__main__"}
    (folder / "layers.py").write_text(dedent(LAYERS))
    exec(dedent(LAYERS), own)
    network = keras.Sequential([keras.Input((2,)), own["Doubled"](name="twice"), keras.layers.Dense(3, activation=own["cube"])])
    network.save(folder / "model.keras")
    return folder / "model.keras"


def test_own_layers_are_refused_by_name_unless_their_file_comes_along(tmp_path: Path) -> None:
    path = with_own(tmp_path)
    (tmp_path / "bundle").mkdir()
    with pytest.raises(ModelportError) as raised:
        pack_file(path, tmp_path / "bundle", Options())
    assert "Doubled" in raised.value.message
    assert "--code" in raised.value.hint
    bundle = pack_file(path, tmp_path / "bundle", Options(code=[tmp_path / "layers.py"]))
    parity(bundle)
    given = RNG.normal(size=(5, 2)).astype("float32")
    answers = engines.load(bundle).predict({"x0": given[:, 0].astype(float), "x1": given[:, 1].astype(float)})
    dense = engines.load(bundle, "native").model.network.layers[-1]
    kernel, bias = (np.asarray(keras.ops.convert_to_numpy(weight)) for weight in dense.weights)
    assert answers["prediction"] == pytest.approx((2 * given @ kernel + bias) ** 3, abs=1e-4)


def test_a_class_of_a_file_that_nobody_brought_is_never_looked_for(tmp_path: Path) -> None:
    """What a file names is taken from Keras, or from the code that was brought: no module is imported for it."""
    import zipfile

    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    network.save(tmp_path / "good.keras")
    with zipfile.ZipFile(tmp_path / "good.keras") as good, zipfile.ZipFile(tmp_path / "bad.keras", "w") as bad:
        for name in good.namelist():
            data = good.read(name)
            if name == "config.json":
                data = data.replace(b'"class_name": "Dense"', b'"class_name": "Popen"').replace(
                    b'"module": "keras.layers"', b'"module": "subprocess"'
                )
            bad.writestr(name, data)
    contents = inspection.read(tmp_path / "bad.keras")
    assert "__main__.Popen" in inspection.refused(contents, inspection.card(contents))
    (tmp_path / "bundle").mkdir()
    with pytest.raises(ModelFileError):
        pack_file(tmp_path / "bad.keras", tmp_path / "bundle", Options(trust=True))


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_file_that_is_cut_short_is_told(cut: float, networks: Callable[[str], Any], tmp_path: Path) -> None:
    networks("regressor").save(tmp_path / "model.keras")
    data = (tmp_path / "model.keras").read_bytes()
    (tmp_path / "model.keras").write_bytes(data[: int(len(data) * cut)])
    (tmp_path / "bundle").mkdir()
    with pytest.raises(ModelFileError):
        pack_file(tmp_path / "model.keras", tmp_path / "bundle", Options())


# What computes


@pytest.mark.parametrize(
    ("variables", "file", "chosen"),
    [
        ({}, None, "torch"),
        ({}, '{"backend": "tensorflow"}', "torch"),
        ({}, "not json", "torch"),
        ({"KERAS_BACKEND": "torch"}, '{"backend": "jax"}', "torch"),
        (
            {"KERAS_BACKEND": "tensorflow"},
            None,
            "Keras is installed and does not import: ModuleNotFoundError: No module named 'tensorflow'",
        ),
    ],
)
def test_keras_computes_with_what_the_user_chose_or_what_is_there(
    variables: dict[str, str], file: str | None, chosen: str, tmp_path: Path
) -> None:
    if file is not None:
        (tmp_path / "keras.json").write_text(file)
    program = """
from modelport.errors import MissingLibrary
from modelport.frameworks import keras
try:
    print(keras._library().backend.backend())
except MissingLibrary as error:
    print(error.message)
"""
    kept = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    environment = {**kept, "KERAS_HOME": str(tmp_path), **variables}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == chosen, done.stderr


def test_it_keeps_the_contract(networks: Callable[[str], Any], tmp_path: Path) -> None:
    networks("regressor").save(tmp_path / "model.keras")
    check_framework("keras", tmp_path / "model.keras", tmp_path)

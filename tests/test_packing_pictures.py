"""ONNX models of pictures that others made are served with what is stated of them; what does not fit is said when they are packed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from PIL import Image

from modelport import engines, pictures
from modelport.bundle import Bundle
from modelport.cli.main import modelport
from modelport.cli.references import image_of, model_and_options
from modelport.engines import Engine
from modelport.errors import SignatureError, UsageError
from modelport.packing import Options, pack_file
from modelport.preprocessing import PRESETS, Preprocessing, stated
from modelport.store import Store
from pictures_world import COLOURS, network, plain

FULL = 4 * (22 / 24) ** 2
"""What a picture of 8 x 8 pixels of one colour has of it: `network` takes what lies outside for black."""


def packed(tmp_path: Path, graph: bytes, **options: Any) -> Bundle:
    path = tmp_path / "colours.onnx"
    path.write_bytes(graph)
    folder = tmp_path / f"bundle-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    return pack_file(path, folder, Options(**options))


def answer(engine: Engine | Bundle, *colours: str) -> list[dict[str, Any]]:
    engine = engines.load(engine) if isinstance(engine, Bundle) else engine
    return engine.answer([{"image": pictures.to_base64(plain(colour))} for colour in colours])


def why(tmp_path: Path, graph: bytes, **options: Any) -> str:
    with pytest.raises(SignatureError) as caught:
        packed(tmp_path, graph, **options)
    return f"{caught.value.message} | {caught.value.hint}"


def test_a_network_is_asked_with_pictures_and_answers_with_labels(tmp_path: Path) -> None:
    bundle = packed(tmp_path, network(), image=8, labels=COLOURS)
    (field,) = bundle.signature.inputs
    assert (field.name, field.kind) == ("image", "image")
    assert field.preprocessing == Preprocessing(8, 8, scale=1 / 255, layout="NCHW", dtype="float32")
    assert [(output.name, output.kind, output.choices) for output in bundle.signature.outputs] == [
        ("prediction", "category", COLOURS),
        ("probabilities", "number", COLOURS),
    ]
    for colour, record in zip(COLOURS, answer(bundle, *COLOURS), strict=True):
        assert record["prediction"] == colour
        assert sum(record["probabilities"].values()) == pytest.approx(1)
        assert record["probabilities"][colour] == pytest.approx(np.exp(FULL) / (np.exp(FULL) + 2), rel=1e-4)


def test_the_numbers_are_those_of_the_graph_on_what_torchvision_would_feed_it(tmp_path: Path) -> None:
    """The whole way beside one written by hand: open, resize, crop, normalise, run, softmax."""
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).resize((320, 240))
    out = io.BytesIO()
    photo.save(out, "JPEG")
    bundle = packed(tmp_path, network(size=224, sharpness=1.0), image={"preset": "imagenet"}, labels=list(COLOURS))
    (got,) = engines.load(bundle).answer([{"image": pictures.to_base64(out.getvalue())}])

    opened = Image.open(io.BytesIO(out.getvalue())).convert("RGB").resize((341, 256), Image.Resampling.BILINEAR)
    pixels = np.asarray(opened.crop((58, 16, 282, 240))).astype(np.float32) / 255
    mean, std = (np.array(PRESETS["imagenet"][name], np.float32) for name in ("mean", "std"))
    session = onnxruntime.InferenceSession(str(bundle.model_path))
    logits = session.run(None, {"pixels": ((pixels - mean) / std).transpose(2, 0, 1)[None]})[0][0]
    chances = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(list(got["probabilities"].values()), chances, atol=1e-5)


@pytest.mark.parametrize(
    ("graph", "options", "name"),
    [
        ({"last": "Softmax"}, {}, "probabilities"),
        ({"last": "Sigmoid"}, {}, "scores"),
        ({"layout": "NHWC"}, {}, "probabilities"),
        ({"dtype": "uint8", "layout": "NHWC", "sharpness": 0.05}, {}, "probabilities"),
        ({"dtype": "float16"}, {}, "probabilities"),
        ({"rows": 1}, {}, "probabilities"),
        ({"trailing": True}, {}, "probabilities"),
        ({"size": "side"}, {}, "probabilities"),
        ({"size": 9}, {"image": {"size": 9, "resize": 12, "mean": [0.1] * 3, "std": [0.5] * 3}}, "probabilities"),
    ],
)
def test_whatever_the_graph_takes_and_ends_with(tmp_path: Path, graph: Any, options: Any, name: str) -> None:
    bundle = packed(tmp_path, network(**graph), **{"image": 8, "labels": COLOURS, **options})
    assert bundle.signature.outputs[1].name == name
    records = answer(bundle, "blue", "red", "green")
    assert [record["prediction"] for record in records] == ["blue", "red", "green"]
    sums = [sum(record[name].values()) for record in records]
    assert all(0 <= share <= 1 for record in records for share in record[name].values())
    if name == "probabilities":
        assert sums == pytest.approx([1, 1, 1], abs=1e-3)


def test_softmax_is_taken_of_logits_alone(tmp_path: Path) -> None:
    logits, chances = (answer(packed(tmp_path, network(last=last), image=8, labels=COLOURS), "red")[0] for last in ("", "Softmax"))
    assert logits["probabilities"] == pytest.approx(chances["probabilities"], abs=1e-6)


@pytest.mark.parametrize("last", ["", "Sigmoid"])
def test_one_number_for_two_labels_is_the_chance_of_the_second(tmp_path: Path, last: str) -> None:
    bundle = packed(tmp_path, network(channels=1, last=last), image=8, labels=["dark", "light"])
    assert bundle.signature.inputs[0].preprocessing.mode == "L"
    light, dark = answer(bundle, "white", "black")
    assert (light["prediction"], dark["prediction"]) == ("light", "dark")
    assert light["probabilities"]["light"] == pytest.approx(1 / (1 + np.exp(2 - FULL)), abs=1e-4)


def test_without_labels_the_numbers_are_what_they_are(tmp_path: Path) -> None:
    (record,) = answer(packed(tmp_path, network(), image=8), "red")
    assert record["prediction"] == pytest.approx([FULL - 2, -2, -2], abs=1e-4)


def test_colours_in_the_order_of_opencv(tmp_path: Path) -> None:
    bundle = packed(tmp_path, network(), image={"size": 8, "mode": "BGR"}, labels=["blue", "green", "red"])
    assert [record["prediction"] for record in answer(bundle, "red", "blue")] == ["red", "blue"]


def test_what_does_not_fit_is_said_when_it_is_packed(tmp_path: Path) -> None:
    assert "the pictures' height is stated as 9, and the model takes 8: 'pixels' is float32 of rows x 3 x 8 x 8" in why(
        tmp_path, network(), image=9
    )
    any_size = "the model takes pictures of any size: its input 'pixels' is float32 of rows x 3 x any x any | State the size: --image 224"
    assert why(tmp_path, network(size="side"), image={"mean": [0.5] * 3}) == any_size
    assert "mode is stated as RGB, and the model takes L" in why(tmp_path, network(channels=1), image={"size": 8, "mode": "RGB"})
    assert "uint8 pixels, and scale, mean or std would make fractions" in why(tmp_path, network(dtype="uint8"), image={"mean": [0.5] * 3})
    assert "4 labels are stated, and the model gives 3 numbers" in why(tmp_path, network(), image=8, labels=["a", "b", "c", "d"])
    assert "there is no preset 'resnet'" in why(tmp_path, network(), image={"preset": "resnet"})


def test_a_model_of_numbers_takes_no_pictures(tmp_path: Path) -> None:
    import models

    path = models.write("onnx_svc", tmp_path)
    (tmp_path / "bundle").mkdir()
    with pytest.raises(SignatureError, match="the model takes no pictures: 'x0', a number; 'x1', a number"):
        pack_file(path, tmp_path / "bundle", Options(image=224))
    with pytest.raises(SignatureError, match="the model names its answers itself"):
        pack_file(path, tmp_path / "bundle", Options(labels=("a", "b", "c")))
    path = models.write("iris_svc", tmp_path)
    (tmp_path / "other").mkdir()
    with pytest.raises(SignatureError, match="the model names its answers itself: it gives prediction"):
        pack_file(path, tmp_path / "other", Options(labels=("a", "b", "c")))


def test_labels_stand_in_a_file_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("red\n green \r\nblue\n\n", encoding="utf-8-sig")
    bundle = packed(tmp_path, network(), image=8, labels=file)
    assert bundle.card.classes == COLOURS
    for text, words in (("red\n\nblue", "line 2 of the labels"), ("red\nred\nblue", "the label 'red' stands twice"), ("", "labels are []")):
        file.write_text(text)
        with pytest.raises(UsageError) as caught:
            packed(tmp_path, network(), image=8, labels=file)
        assert words in caught.value.message
    with pytest.raises(UsageError, match="do not read"):
        packed(tmp_path, network(), image=8, labels=tmp_path / "none.txt")


def test_a_schema_may_state_the_picture_too(tmp_path: Path) -> None:
    stated = {"kind": "image", "description": "Of a wall"}
    whole = {"inputs": [{"name": "pixels", **stated, "preprocessing": {"height": 8, "width": 8}}]}
    renamed = {"inputs": [{"name": "photo", **stated}]}
    for name, options in (("pixels", {"schema": whole}), ("photo", {"schema": renamed, "image": 8})):
        (field,) = packed(tmp_path, network(), labels=COLOURS, **options).signature.inputs
        assert (field.name, field.description, field.preprocessing.dtype) == (name, "Of a wall", "float32")


# What is kept of a sample


def test_without_a_sample_the_golden_row_is_a_made_picture(tmp_path: Path) -> None:
    bundle = packed(tmp_path, network(), image=8, labels=COLOURS)
    golden = bundle.read_json("golden.json")
    assert golden["synthesised"]
    assert golden["rows"][0]["input"] == bundle.read_json("example.json")[0] == {"image": pictures.to_base64(pictures.example())}


def test_a_folder_of_pictures_is_a_sample(tmp_path: Path) -> None:
    folder = tmp_path / "walls"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number:02}.jpg").write_bytes(plain(COLOURS[number % 3], 800, 600, "JPEG"))
    bundle = packed(tmp_path, network(), image=8, labels=COLOURS, sample=folder)
    golden = bundle.read_json("golden.json")
    assert (golden["synthesised"], len(golden["rows"]), len(bundle.read_json("example.json"))) == (False, 5, 1)
    kept = pictures.from_base64(golden["rows"][0]["input"]["image"])
    assert pictures.look(kept)[0].height == 256
    assert {row["output"]["prediction"] for row in golden["rows"]} == set(COLOURS)
    assert bundle.size < 200_000
    assert "\npillow==" in (bundle.folder / "requirements.txt").read_text()


def test_a_file_with_paths_is_a_sample(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "wall.png").write_bytes(plain("blue"))
    (tmp_path / "rows.csv").write_text("path\na/wall.png\na/wall.png\n")
    bundle = packed(tmp_path, network(), image=8, labels=COLOURS, sample=tmp_path / "rows.csv")
    assert bundle.signature.inputs[0].name == "path"
    assert bundle.read_json("golden.json")["rows"][0]["output"]["prediction"] == "blue"


def test_a_sample_that_holds_no_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "numbers.csv").write_text("x\n1\n")
    (tmp_path / "bad.png").write_bytes(b"GIF89a")
    refused = {"empty": "holds no pictures", "bad.png": "of the sample is a GIF, and no JPEG", "none.png": "cannot be read"}
    for sample, words in refused.items():
        with pytest.raises(UsageError, match=words):
            packed(tmp_path, network(), image=8, sample=tmp_path / sample)
    assert "column 'x' of the sample is a integer" in why(tmp_path, network(), image=8, sample=tmp_path / "numbers.csv")


# On the command line


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({}, {}),
        ({"image": "224"}, {"height": 224, "width": 224}),
        ({"image": "320x240"}, {"height": 240, "width": 320}),
        ({"image": "224", "resize": "256", "crop": "center"}, {"height": 224, "width": 224, "resize": 256, "crop": "center"}),
        ({"resize": "300x260"}, {"resize": (260, 300)}),
        ({"crop": "pad"}, {"crop": "none", "pad": "zeros"}),
        ({"preprocess": "imagenet", "mean": "0.5, 0.5,0.5", "std": "1,1,1"}, {"preset": "imagenet", "mean": (0.5,) * 3, "std": (1.0,) * 3}),
    ],
)
def test_flags_say_the_same(flags: dict[str, str], said: dict[str, Any]) -> None:
    assert image_of(flags) == said
    if said:
        stated(said)


@pytest.mark.parametrize(
    ("flags", "words"), [({"image": "big"}, "--image 'big' is no size"), ({"mean": "a,b"}, "--mean 'a,b' are no numbers")]
)
def test_flags_that_cannot_be_read_are_named(flags: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        image_of(flags)


def test_it_is_packed_shown_and_served_by_the_same_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELPORT_STORE", str(tmp_path / "store"))
    Path("colours.onnx").write_bytes(network(size=24))
    Path("labels.txt").write_text("\n".join(COLOURS))
    run = CliRunner().invoke
    words = ["colours.onnx", "--image", "24", "--resize", "28", "--mean", "0.1,0.1,0.1", "--std", "0.5,0.5,0.5", "--labels", "labels.txt"]
    done = run(modelport, ["pack", *words])
    assert done.exit_code == 0, done.output
    assert "image (image: 24 x 24 RGB, shorter side resized to 28, middle cut out, " in done.output
    shown = run(modelport, ["show", "colours"]).output
    assert "24 x 24 RGB, shorter side resized to 28" in shown
    assert len(max(shown.splitlines(), key=len)) < 1200
    Path("modelport.toml").write_text(
        'model = "colours.onnx"\nlabels = "labels.txt"\n[image]\nresize = 28\nmean = [0.1, 0.1, 0.1]\nstd = [0.5, 0.5, 0.5]\n'
    )
    path, options = model_and_options(None, {"image": "24"})
    folder = tmp_path / "again"
    folder.mkdir()
    assert pack_file(path, folder, Options(**options)).signature == Store().get("colours")[1].signature

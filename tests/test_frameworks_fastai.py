"""Learners that fast.ai exported answer here as `learn.predict` does, opened by PyTorch alone and with nothing of the file run."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import needed
import payloads
from modelport import engines, inspection, pictures
from modelport.bundle import Bundle
from modelport.engines import Engine
from modelport.errors import ModelFileError, Untrusted
from modelport.frameworks import Card, fastai
from modelport.packing import Options, pack_file
from modelport.preprocessing import Preprocessing
from modelport.testing import check_framework
from pictures_world import encoded, exif, noise, pattern

HERE = Path(__file__).parent
OLD = HERE / "data" / "fastai_2.7.19"
TOLERANCE = 1e-4
LABELS = ("circle", "square", "triangle")
VARIANTS = (
    "crop", "crop-wide", "pad", "pad-zeros", "pad-border", "squish", "nearest", "random-crop", "flips", "augmented", "batch-resize",
    "batch-resize-half", "batch-crop", "batch-crop-wide", "normalised", "normalised-by-data", "grey", "smoothed", "focal", "several",
    "resnet", "xresnet",
)  # fmt: skip


def photos() -> dict[str, bytes]:
    """Pictures of many sizes and kinds, none so large that a JPEG is decoded at a fraction of its size."""
    photo = Image.fromarray((noise(150, 110) // 2 + pattern(150, 110) // 2).astype(np.uint8))
    seen_through = photo.copy()
    seen_through.putalpha(Image.fromarray(pattern(150, 110)[..., 0]))
    return {
        "photo.jpg": encoded(photo.resize((120, 90)), "JPEG", quality=90),
        "tall.png": encoded(photo.rotate(90, expand=True)),
        "square.png": encoded(photo.resize((64, 64))),
        "small.png": encoded(photo.resize((20, 31))),
        "band.png": encoded(photo.resize((200, 31))),
        "post.png": encoded(photo.resize((33, 151))),
        "odd.webp": encoded(photo.resize((97, 49)), "WEBP", lossless=True),
        "grey.png": encoded(photo.convert("L")),
        "ink.png": encoded(photo.convert("1")),
        "palette.png": encoded(photo.quantize(32)),
        "printed.jpg": encoded(photo.resize((110, 90)).convert("CMYK"), "JPEG", quality=90),
        "turned.jpg": encoded(photo.resize((120, 90)), "JPEG", quality=90, exif=exif(6)),
        "seen-through.png": encoded(seen_through),
    }


def plain_photos() -> dict[str, bytes]:
    """Pictures whose pixels are the same whichever Pillow wrote them."""
    sizes = ((64, 64), (120, 90), (45, 151), (20, 31))
    mixed = {(width, height): noise(width, height) // 2 + pattern(width, height) // 2 for width, height in sizes}
    return {f"{width}x{height}.png": encoded(Image.fromarray(pixels.astype(np.uint8))) for (width, height), pixels in mixed.items()}


@dataclass(frozen=True)
class World:
    """Exports of the installed fast.ai, pictures, and what its learners answer to them."""

    exports: Path
    pictures: Mapping[str, bytes]
    answers: Mapping[str, Mapping[str, Any]]


def exported(folder: Path, shown: Mapping[str, bytes], *variants: str) -> World:
    given = folder / "pictures"
    given.mkdir()
    for name, data in shown.items():
        (given / name).write_bytes(data)
    command = [sys.executable, str(HERE / "fastai_exports.py"), str(given), str(folder / "exports"), *variants]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return World(folder / "exports", shown, json.loads((folder / "exports" / "answers.json").read_text()))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    needed.torch("fastai", "torchvision")
    return exported(tmp_path_factory.mktemp("fastai"), photos())


def opened(path: Path) -> tuple[Engine, Card]:
    """The learner in an export, computed by PyTorch."""
    contents = inspection.read(path)
    card = fastai.detect(contents)
    assert card is not None
    return engines.engine_of(fastai, fastai.rebuild(contents, card), card), card


def as_onnx(native: Engine, card: Card, folder: Path) -> Engine:
    """The same, converted."""
    graph = folder / "model.onnx"
    graph.write_bytes(fastai.graph(native.model, card, native.signature))
    return engines.load_onnx(graph, native.signature)


def packed(path: Path, folder: Path, **options: Any) -> Bundle:
    folder.mkdir()
    return pack_file(path, folder, Options(name="learner", **options))


def records(shown: Mapping[str, bytes]) -> list[dict[str, str]]:
    return [{"image": pictures.to_base64(shown[name])} for name in sorted(shown)]


def assert_alike(engine: Engine, shown: Mapping[str, bytes], answers: Mapping[str, Any]) -> None:
    """No other label, and no chance that differs by 1e-4."""
    for name, got in zip(sorted(shown), engine.answer(records(shown)), strict=True):
        label, chances = answers[name]
        assert got["prediction"] == label, name
        (numbers,) = (value for key, value in got.items() if key in ("probabilities", "scores"))
        assert np.abs(np.array(list(numbers.values())) - chances).max() < TOLERANCE, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_picture_is_answered_as_by_learn_predict(world: World, variant: str, tmp_path: Path) -> None:
    native, card = opened(world.exports / f"{variant}.pkl")
    assert_alike(native, world.pictures, world.answers[variant])
    assert_alike(as_onnx(native, card, tmp_path), world.pictures, world.answers[variant])


@pytest.mark.parametrize("variant", ["pad", "several"])
def test_an_export_of_2_7_is_opened_too(variant: str, tmp_path: Path) -> None:
    """fast.ai 2.8 refuses it; it was written, and its pictures answered, by

    pip install --no-deps --target OLD fastai==2.7.19 fastcore==1.7.29 fastprogress==1.0.3 fastdownload==0.0.7
    PYTHONPATH=OLD python tests/fastai_exports.py PICTURES FOLDER pad several
    """
    needed.torch("torch")
    native, card = opened(OLD / f"{variant}.pkl")
    answers = json.loads((OLD / "answers.json").read_text())[variant]
    assert_alike(native, plain_photos(), answers)
    bundle = packed(OLD / f"{variant}.pkl", tmp_path / "bundle")
    assert_alike(engines.load(bundle), plain_photos(), answers)
    assert inspection.refused(inspection.read(OLD / f"{variant}.pkl"), card) == ()


def test_the_answers_are_worth_comparing(world: World) -> None:
    """Learners that answered the same to everything would prove nothing."""
    assert set(world.answers) == set(VARIANTS)
    for variant, answers in world.answers.items():
        chances = np.array([numbers for _, numbers in answers.values()])
        assert np.ptp(chances, axis=0).max() > 0.5, variant
        assert len({str(label) for label, _ in answers.values()}) >= len(LABELS), variant


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("random-crop-alone", "changes pictures with RandomCrop, which is not known here: its answers would not be the same"),
        ("own-function", "changes pictures with brighten"),
        ("unsized", "does not resize its pictures"),
        ("own-layer", "layer 1 is a __main__.Doubled, and that layer is not known here"),
        ("hooked", "layer 0 is computed with a hook, torch.nn.utils.spectral_norm.SpectralNorm"),
        ("raw-loss", "has the loss torch.nn.modules.loss.CrossEntropyLoss, which does not say what its numbers are"),
        ("wrong-width", "the learner has 3 labels, and its network gives 4 numbers for a picture"),
        ("batch-nearest", "changes pictures with Flip (mode nearest)"),
        ("regression", "predicts no labels: its target is made by RegressionSetup"),
    ],
)
def test_what_is_not_known_is_refused_by_its_name(world: World, variant: str, words: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        opened(world.exports / f"{variant}.pkl")
    assert words in caught.value.message
    assert caught.value.hint


def test_an_export_becomes_a_bundle_that_is_served_from_onnx(world: World, tmp_path: Path) -> None:
    bundle = packed(world.exports / "resnet.pkl", tmp_path / "bundle")
    parity = bundle.parity()
    assert parity is not None
    assert parity["passed"], parity["reason"]
    assert parity["flips"] == 0
    engine = engines.load(bundle)
    assert engine.name == "onnx"
    assert_alike(engine, world.pictures, world.answers["resnet"])
    assert_alike(engines.load(bundle, "native"), world.pictures, world.answers["resnet"])
    (field,) = bundle.signature.inputs
    assert field.preprocessing == Preprocessing(96, 96, exif=False, alpha="dropped")
    assert {line.split("==")[0] for line in (bundle.folder / "requirements.txt").read_text().split()} >= {"numpy", "onnxruntime", "pillow"}
    assert "fastai" not in (bundle.folder / "requirements.txt").read_text()
    assert "torch" not in (bundle.folder / "requirements.txt").read_text()
    contents = inspection.read(bundle.model_path)
    assert not [name for name in contents.imports if name.startswith(("fastai", "fastcore", "fasttransform"))]


def test_a_learner_that_does_not_resize_is_told_how_large_its_pictures_are(world: World, tmp_path: Path) -> None:
    bundle = packed(world.exports / "unsized.pkl", tmp_path / "bundle", image=96)
    assert bundle.signature.inputs[0].preprocessing == Preprocessing(96, 96, exif=False, alpha="dropped")
    assert (bundle.parity() or {})["passed"]


def test_several_labels_are_a_list(world: World, tmp_path: Path) -> None:
    bundle = packed(world.exports / "several.pkl", tmp_path / "bundle")
    first, second = bundle.signature.outputs
    assert (first.kind, first.schema) == (
        "json",
        {"type": "array", "items": {"enum": ["circle", "drawn", "square", "triangle"]}, "uniqueItems": True},
    )
    assert (second.name, second.choices) == ("scores", ("circle", "drawn", "square", "triangle"))
    assert_alike(engines.load(bundle), world.pictures, world.answers["several"])


def test_the_framework_keeps_its_contract(world: World, tmp_path: Path) -> None:
    check_framework("fastai", world.exports / "crop.pkl", tmp_path, records(world.pictures))


def test_nothing_in_the_file_is_run(world: World, tmp_path: Path) -> None:
    """An export that runs a command when it is loaded is opened as any other, and the command is not run."""
    done = tmp_path / "it ran"
    path = tmp_path / "export.pkl"
    with zipfile.ZipFile(world.exports / "crop.pkl") as original, zipfile.ZipFile(path, "w") as made:
        for name in original.namelist():
            data = original.read(name)
            if name.endswith("data.pkl"):
                data = f"c{payloads.POSIX.replace('.', chr(10))}\n(Vtouch '{done}'\ntR0".encode() + data
            made.writestr(name, data)
    assert payloads.POSIX in inspection.read(path).imports
    bundle = packed(path, tmp_path / "bundle")
    assert_alike(engines.load(bundle, "native"), world.pictures, world.answers["crop"])
    assert not done.exists()


def test_fast_ai_need_not_be_installed(world: World, tmp_path: Path) -> None:
    """In a process in which nothing of fast.ai can be imported."""
    program = f"""
import sys
for name in ("fastai", "fastcore", "fasttransform", "torchvision"):
    sys.modules[name] = None
from pathlib import Path
from modelport import inspection
from modelport.packing import Options, pack_file
seen = inspection.inspect({str(world.exports / "crop.pkl")!r})
bundle = pack_file(Path({str(world.exports / "crop.pkl")!r}), Path({str(tmp_path)!r}) / "bundle", Options(name="learner"))
print(bundle.parity()["passed"])
"""
    (tmp_path / "bundle").mkdir()
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr[-2000:]


def test_a_large_jpeg_decoded_smaller_is_answered_almost_the_same(world: World, tmp_path: Path) -> None:
    """The one thing that is not as fast.ai does it: three times as fast, and so close that no label changes."""
    across, down = np.meshgrid(np.linspace(0, 9, 1600), np.linspace(0, 7, 1200))
    smooth = np.stack([np.sin(across * down), np.cos(across), np.sin(down)], axis=-1) * 100 + 128
    data = encoded(Image.fromarray(smooth.astype(np.uint8)), "JPEG", quality=95)
    native, _ = opened(world.exports / "crop.pkl")
    as_png = encoded(Image.open(io.BytesIO(data)))
    small, whole = native.answer([{"image": pictures.to_base64(data)}, {"image": pictures.to_base64(as_png)}])
    assert small["prediction"] == whole["prediction"]
    assert small["probabilities"] == pytest.approx(whole["probabilities"], abs=0.01)


def test_what_inspect_says_of_an_export(world: World) -> None:
    seen = inspection.inspect(world.exports / "batch-crop.pkl")
    assert seen.card is not None
    assert (seen.card.framework, seen.card.library) == ("fastai", "torch")
    assert seen.card.classes == ("circle", "square", "triangle")
    assert seen.card.details["size"] == [115, 115]
    assert (seen.refused, seen.missing, seen.warnings) == ((), (), ())


# Tabular learners


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needed.torch("fastai", "torchvision")
    folder = tmp_path_factory.mktemp("tables")
    command = [sys.executable, str(HERE / "fastai_tables.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.parametrize("name", ["classifier", "regressor"])
def test_a_tabular_learner_answers_as_learn_predict_does(tables: Path, name: str, tmp_path: Path) -> None:
    """In a process of its own, as warnings of fast.ai's own imports are errors here."""
    program = f"""
import json
from pathlib import Path
from modelport import engines
from modelport.packing import Options, pack_file
bundle = pack_file(Path({str(tables / name)!r} + ".pkl"), Path({str(tmp_path)!r}), Options(name="people", trust=True))
rows = json.loads(Path({str(tables / "answers.json")!r}).read_text())["rows"]
inputs = [[field.name, field.kind, field.nullable, list(field.choices)] for field in bundle.signature.inputs]
print(json.dumps([inputs, bundle.parity()["reason"], engines.load(bundle).answer(rows)]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    inputs, reason, got = json.loads(done.stdout)
    assert inputs == [
        ["work", "string", True, ["field", "home", "office"]],
        ["rooms", "integer", True, []],
        ["age", "number", True, []],
        ["hours", "number", False, []],
    ]
    assert reason == "no ONNX form: a tabular learner, which fast.ai computes itself"
    wanted = json.loads((tables / "answers.json").read_text())[name]
    for answer, numbers in zip(got, wanted, strict=True):
        if name == "regressor":
            assert answer == {"rent": pytest.approx(numbers[0], abs=TOLERANCE)}
        else:
            assert answer["probabilities"] == pytest.approx(dict(zip(("high", "low"), numbers, strict=True)), abs=TOLERANCE)
            assert answer["prediction"] == ("high" if numbers[0] > numbers[1] else "low")


def test_a_tabular_learner_is_a_pickle_that_must_be_trusted(tables: Path, tmp_path: Path) -> None:
    with pytest.raises(Untrusted) as caught:
        packed(tables / "classifier.pkl", tmp_path / "bundle")
    assert "not on the allow-list for fastai" in caught.value.message
    seen = inspection.inspect(tables / "classifier.pkl")
    assert (seen.card and seen.card.features, seen.python) == (("work", "rooms", "age", "hours"), "")


def test_to_serve_one_needs_onnxruntime_numpy_and_pillow_alone(tmp_path: Path) -> None:
    """In a process in which neither fast.ai nor torch, nor what writes ONNX, can be imported."""
    needed.torch("torch")
    bundle = packed(OLD / "pad.pkl", tmp_path / "bundle")
    program = f"""
import json, sys
for name in ("fastai", "fastcore", "torch", "torchvision", "onnx", "onnxscript", "pandas", "sklearn"):
    sys.modules[name] = None
from pathlib import Path
from modelport import engines
from modelport.bundle import open_bundle
bundle = open_bundle(Path({str(bundle.folder)!r}))
engine = engines.load(bundle)
engines.verify_golden(engine, bundle)
print(json.dumps(engine.answer(json.loads(sys.stdin.read()))))
"""
    asked = json.dumps(records(plain_photos()))
    done = subprocess.run([sys.executable, "-c", program], input=asked, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads((OLD / "answers.json").read_text())["pad"]
    for name, got in zip(sorted(plain_photos()), json.loads(done.stdout), strict=True):
        assert got["prediction"] == answers[name][0]
        assert list(got["probabilities"].values()) == pytest.approx(answers[name][1], abs=TOLERANCE)

"""What an image holds and how it starts is the same, whoever makes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import bundles
from modelport import __version__, store
from modelport import bundle as bundle_files
from modelport.bundle import Bundle
from modelport.errors import BundleError
from modelport.frameworks import Card
from modelport.images import plan
from modelport.signature import Field, Signature

IMAGE = Signature(inputs=(Field("image", "image"),), outputs=(Field("prediction", "category", choices=("ant", "bee")),))
RUNTIME = [f"{name}=={version(name)}" for name in plan.RUNTIME]


def bundle(folder: Path, requirements: str, *, onnx: bool = False, framework: str = "sklearn", **about: object) -> Bundle:
    """A bundle with these pins."""
    written = bundles.write(folder, **about)  # type: ignore[arg-type]
    (folder / "bundle.json").unlink()
    (folder / "requirements.txt").write_text(requirements)
    if onnx:
        (folder / "model.onnx").write_bytes(b"a graph")
    values = {"name": written.name, "signature": written.signature, "model": written.model, "python": "3.11", **about}
    card = Card(framework=framework, cls="a.Model", library="scikit-learn", version="1.9.1")
    return bundle_files.write(folder, **{"card": card, **values})


def test_onnx_needs_onnxruntime_and_numpy_alone(tmp_path: Path) -> None:
    wanted = plan.plan(bundle(tmp_path / "b", "flatbuffers==1\nnumpy==2.1.0\nonnxruntime==1.30.0\nprotobuf==5\n", onnx=True), 3)
    others = [line for line in RUNTIME if not line.startswith("numpy")]
    assert wanted.requirements == tuple(sorted([*others, "numpy==2.1.0", "onnxruntime==1.30.0"]))
    assert {"flatbuffers", "protobuf", "sympy"} <= set(wanted.left_out)
    assert (wanted.ref, wanted.base, wanted.pythons) == ("iris:3", "python:3.11-slim", ("3.11", "3.12", "3.13"))


def test_what_answers_natively_has_the_pins_it_was_packed_with_and_one_python(tmp_path: Path) -> None:
    wanted = plan.plan(bundle(tmp_path / "b", "numpy==2.1.0\nscikit-learn==1.9.1\nscipy==1.16.0\n"))
    others = [line for line in RUNTIME if not line.startswith("numpy")]
    assert wanted.requirements == tuple(sorted([*others, "numpy==2.1.0", "scikit-learn==1.9.1", "scipy==1.16.0"]))
    assert wanted.left_out == ()
    assert wanted.pythons == ("3.11",)


def test_nothing_for_graphics_cards_comes_along(tmp_path: Path) -> None:
    pins = "nvidia-nccl-cu12==2.27\nnumpy==2.1.0\ntorch==2.13.0\ntriton==3.5\nxgboost==3.2.0\n"
    lines = plan.plan(bundle(tmp_path / "b", pins)).requirements
    assert {"torch==2.13.0", "xgboost-cpu==3.2.0"} <= set(lines)
    assert not [line for line in lines if line.startswith(("nvidia", "triton", "xgboost=="))]
    assert "xgboost==2.0.3" in plan.plan(bundle(tmp_path / "old", "numpy==1.26.4\nxgboost==2.0.3\n")).requirements, "there was no other yet"


@pytest.mark.parametrize("line", ["--index-url=http://x.example/simple", "-r/etc/hosts", "a@http://x.example/a.whl", "numpy", "numpy==-e."])
def test_what_is_no_exact_pin_gets_to_no_installer(line: str, tmp_path: Path) -> None:
    """A bundle that brings no code is taken from anywhere: what its requirements could say to uv and pip is bounded."""
    with pytest.raises(BundleError, match=r"requirements\.txt has '.*', which is no exact pin") as raised:
        plan.plan(bundle(tmp_path / "b", f"scipy==1.16.0\n{line}\n"))
    assert repr(line) in raised.value.message


def test_pictures_are_decoded_by_pillow(tmp_path: Path) -> None:
    lines = plan.plan(
        bundle(tmp_path / "b", "numpy==2.1.0\nonnxruntime==1.30.0\npillow==11.2.1\n", onnx=True, signature=IMAGE)
    ).requirements
    assert "pillow==11.2.1" in lines


def test_what_serving_needs_is_among_what_modelport_requires() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    names = {line.partition(";")[0].split(">")[0].split("<")[0].strip() for line in project["dependencies"]}
    assert set(plan.RUNTIME) <= names
    low, high = project["requires-python"].removeprefix(">=").split(",<")
    assert plan.PYTHONS[0] == low
    assert int(plan.PYTHONS[-1].split(".")[1]) + 1 == int(high.split(".")[1])


def test_the_labels_say_what_it_is_without_running_it(tmp_path: Path) -> None:
    lineage = {"git": {"commit": "abc", "dirty": False, "time": 1}, "metrics": {"rmse": 4.1}}
    wanted = plan.plan(bundle(tmp_path / "b", "", lineage=lineage, labels={"team": "pricing"}, title="Irises", subtitle="Which is it?"), 3)
    said = plan.labels(wanted)
    assert said["modelport.bundle.ref"] == "iris:3"
    assert said["modelport.bundle.digest"] == wanted.bundle.digest
    assert Signature.from_dict(json.loads(said["modelport.signature"])) == wanted.bundle.signature
    assert json.loads(said["modelport.lineage"]) == lineage
    assert said["modelport.label.team"] == "pricing"
    assert said["org.opencontainers.image.revision"] == "abc"
    assert (said["org.opencontainers.image.title"], said["org.opencontainers.image.version"]) == ("Irises", "3")
    assert said["modelport.version"] == __version__


def test_a_signature_of_thousands_of_fields_is_no_label(tmp_path: Path) -> None:
    wide = Signature(tuple(Field(f"field_{number}", "number") for number in range(5000)), bundles.IRIS.outputs)
    assert "modelport.signature" not in plan.labels(plan.plan(bundle(tmp_path / "b", "", signature=wide)))


def test_its_store_has_the_one_version_and_no_clock(tmp_path: Path) -> None:
    wanted = plan.plan(bundle(tmp_path / "b", "numpy==2.1.0\n"), 3)
    placed = plan.model_files(wanted)
    for place, source in placed.items():
        target = tmp_path / "store" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source if isinstance(source, bytes) else source.read_bytes())
    entry, opened = store.Store(tmp_path / "store").get("iris:3")
    assert (entry.ref, entry.size, opened.digest) == ("iris:3", wanted.bundle.size, wanted.bundle.digest)
    assert store.Store(tmp_path / "store").get("iris")[0].version == 3
    assert plan.model_files(wanted) == placed


def test_modelport_in_it_starts_with_what_serving_needs(tmp_path: Path) -> None:
    """The files alone, in a Python that has none of what only training and packing need, say what they are asked to do."""
    for place, source in plan.modelport_files().items():
        target = tmp_path / "lib" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source if isinstance(source, bytes) else source.read_bytes())
    script = tmp_path / "modelport"
    script.write_bytes(plan.script(sys.executable))
    script.chmod(0o755)
    environment = {"PYTHONPATH": str(tmp_path / "lib"), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run([script, "serve", "--help"], capture_output=True, text=True, env=environment, check=True)
    assert "Serve models" in done.stdout
    code = "import modelport; print(modelport.__file__)"
    where = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True).stdout.strip()
    assert where == str(tmp_path / "lib" / "modelport" / "__init__.py")
    assert not (tmp_path / "lib" / "modelport" / "demo").exists()


@pytest.mark.parametrize(("variables", "port"), [({"PORT": "1"}, 1), ({"PORT": "2", "AIP_HTTP_PORT": "1"}, 1)])
def test_the_health_check_asks_the_port_that_is_served_and_fails_where_nobody_answers(variables: dict[str, str], port: int) -> None:
    done = subprocess.run(plan.health(sys.executable), capture_output=True, text=True, env=variables, check=False)
    assert done.returncode == 1
    assert "Connection refused" in done.stderr

"""PyTorch models, in whichever file they are kept, answer from ONNX as the network itself does; what does not fit is said when packed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import needed

needed.torch("torch", "onnx", "onnxscript")

import httpx
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import torch_world as world
from modelport import engines, gates, inspect, pack, pictures
from modelport.bundle import ONNX, Bundle
from modelport.bundle import write as write_bundle
from modelport.cli.main import modelport
from modelport.errors import ModelFileError, SignatureError, Untrusted, UsageError
from modelport.frameworks import Card
from modelport.packing import Options, pack_file
from modelport.serving.service import services_of
from modelport.signature import Field, Signature
from modelport.store import Store
from modelport.testing import check_framework
from pictures_world import encoded
from serving_world import live


def packed(path: Path, **options: Any) -> Bundle:
    folder = path.parent / f"bundle-{len(list(path.parent.iterdir()))}"
    folder.mkdir()
    return pack_file(path, folder, Options(**options))


def of_pictures(path: Path, **options: Any) -> Bundle:
    return packed(path, **{"image": world.STATED, "labels": world.LABELS, **options})


def why(path: Path, kind: type[Exception] = ModelFileError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        of_pictures(path, **options)
    return f"{getattr(caught.value, 'message', '')} | {getattr(caught.value, 'hint', '')}"


def make_model(folder: Path) -> list[str]:
    return [str(folder / "colony_net.py:make_model")]


# The files in which people keep them


def saved_state(net: Any, path: Path) -> Path:
    torch.save(net.state_dict(), path)
    return path


def saved_tensors(net: Any, path: Path) -> Path:
    needed.torch("safetensors")
    from safetensors.torch import save_file

    save_file(net.state_dict(), path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def saved_module(net: Any, path: Path) -> Path:
    torch.save(net, path)
    return path


def saved_in_dict(net: Any, path: Path) -> Path:
    torch.save({"epoch": 1, "net": net}, path)
    return path


FILES: dict[str, tuple[Any, str]] = {
    "TorchScript": (world.script, ""),
    "traced": (world.trace, ""),
    "exported program": (lambda net, path: world.program(net, path.with_suffix(".pt2")), ""),
    "exported for one row": (lambda net, path: world.program(net, path.with_suffix(".pt2"), rows=1), ""),
    "weights": (saved_state, ":make_model"),
    "safetensors": (saved_tensors, ":make_model"),
    "checkpoint": (world.checkpoint, ":make_model"),
    "checkpoint of several processes": (lambda net, path: world.checkpoint(net, path, "state_dict", "module."), ":make_model"),
    "module": (saved_module, ""),
    "module in a checkpoint": (saved_in_dict, ""),
}


@pytest.mark.parametrize("kind", FILES)
def test_it_answers_from_onnx_and_by_torch_as_the_network_does(kind: str, tmp_path: Path) -> None:
    save, function = FILES[kind]
    net = world.network(tmp_path)
    path = save(net, tmp_path / "colony.pt")
    code = [f"{tmp_path / 'colony_net.py'}{function}"] if function or "module" in kind else []
    bundle = of_pictures(path, code=code)
    parity = bundle.parity()
    assert parity is not None
    assert (parity["passed"], parity["reason"], parity["flips"], ONNX in bundle.files) == (True, "", 0, True)
    assert (parity["rows_made"], parity["versions"]["torch"]) == (parity["rows"], torch.__version__)
    want = world.answers(net, world.pictures())
    for engine in ("onnx", "native"):
        got = engines.load(bundle, engine).predict({"image": world.pictures()})
        np.testing.assert_allclose(got["probabilities"], want, atol=1e-5)
        assert got["prediction"].tolist() == [world.LABELS[place] for place in want.argmax(axis=1)]
    assert (bundle.folder / "requirements.txt").read_text().startswith("flatbuffers==")


def test_the_signature_says_what_becomes_of_a_picture_and_how_its_answers_are_called(tmp_path: Path) -> None:
    bundle = of_pictures(world.script(world.network(tmp_path), tmp_path / "colony.pt"))
    (image,) = bundle.signature.inputs
    assert (image.name, image.kind, image.preprocessing) == ("image", "image", world.HOW)
    assert [(field.name, field.kind, field.choices) for field in bundle.signature.outputs] == [
        ("prediction", "category", world.LABELS),
        ("probabilities", "number", world.LABELS),
    ]


def test_of_a_checkpoint_the_weights_alone_are_kept(tmp_path: Path) -> None:
    path = world.checkpoint(world.network(tmp_path), tmp_path / "colony.pt")
    bundle = of_pictures(path, code=make_model(tmp_path))
    kept = torch.load(bundle.model_path, weights_only=True)
    assert set(kept) == set(world.network(tmp_path).state_dict())
    assert bundle.files["model/model.pt"]["size"] < path.stat().st_size
    assert bundle.card.details["keys"] == ["epoch", "model", "optimizer", "args"]


def test_a_file_out_of_the_framework_keeps_the_contract(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    torch.save(net, tmp_path / "plain.pt")
    (tmp_path / "scratch").mkdir()
    check_framework("torch", tmp_path / "plain.pt", tmp_path / "scratch")


def test_a_network_that_is_at_hand_is_packed(tmp_path: Path) -> None:
    entry = pack(torch.nn.Sequential(torch.nn.Linear(3, 2)), store=Store(str(tmp_path / "store")), name="live")
    bundle = Store(str(tmp_path / "store")).get("live")[1]
    assert (entry.version, bundle.card.cls, ONNX in bundle.files) == (1, "torch.nn.modules.container.Sequential", True)


# Numbers rather than pictures


def test_a_matrix_is_fields_and_a_sample_names_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).eval()
    path = saved_module(net, tmp_path / "house.pt")
    assert [field.name for field in packed(path).signature.inputs] == ["x0", "x1", "x2", "x3"]
    rows = np.random.default_rng(0).normal(size=(50, 4)).round(3)
    sample = [dict(zip(("rooms", "age", "area", "floor"), row, strict=True)) for row in rows.tolist()]
    bundle = packed(path, sample=sample, output=("price",))
    assert [(field.name, field.kind) for field in bundle.signature.inputs] == [(name, "number") for name in sample[0]]
    assert bundle.parity()["rows_of_sample"] == 50  # type: ignore[index]
    got = engines.load(bundle).answer(sample)
    with torch.inference_mode():
        want = net(torch.from_numpy(rows.astype(np.float32))).numpy().ravel()
    np.testing.assert_allclose([record["price"] for record in got], want, rtol=1e-4)


def test_tokens_go_in_as_a_tensor_of_integers(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.EmbeddingBag(50, 8, mode="mean"), torch.nn.Linear(8, 2)).eval()
    bundle = packed(saved_module(net, tmp_path / "tokens.pt"), labels=("calm", "cross"))
    (field,) = bundle.signature.inputs
    assert (field.kind, field.dtype, field.shape) == ("tensor", "int64", (-1,))
    (record,) = engines.load(bundle, "native").answer([{"x": [3, 4, 4, 49]}])
    with torch.inference_mode():
        want = net(torch.tensor([[3, 4, 4, 49]])).softmax(1).numpy()[0]
    assert list(record["probabilities"].values()) == pytest.approx(want.tolist(), rel=1e-4)


class Twins(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Linear(3, 2)
        self.other = torch.nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"first": self.one(x), "second": self.other(x)}


def test_several_outputs_keep_their_names(tmp_path: Path) -> None:
    net = Twins().eval()
    path = tmp_path / "twins.pt2"
    world.program(net, path, shape=(3,))
    bundle = packed(path)
    assert [(field.name, field.shape) for field in bundle.signature.outputs] == [("first", (2,)), ("second", (4,))]
    (record,) = engines.load(bundle).answer([{"x0": 1.0, "x1": 2.0, "x2": 3.0}])
    with torch.inference_mode():
        want = net(torch.tensor([[1.0, 2.0, 3.0]]))
    assert record["second"] == pytest.approx(want["second"][0].tolist(), rel=1e-4)


# What the numbers are


@pytest.mark.parametrize("kept", [saved_module, world.script])
@pytest.mark.parametrize(
    ("last", "name"),
    [
        (torch.nn.Identity(), "probabilities"),
        (torch.nn.Softmax(dim=1), "probabilities"),
        (torch.nn.LogSoftmax(dim=1), "probabilities"),
        (torch.nn.Sigmoid(), "scores"),
    ],
)
def test_what_computes_the_last_numbers_says_what_they_are(last: Any, name: str, kept: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), last).eval()
    bundle = packed(kept(net, tmp_path / "net.pt"), labels=world.LABELS)
    assert bundle.signature.outputs[1].name == name
    (record,) = engines.load(bundle).answer([{"x0": 1.0, "x1": -2.0, "x2": 3.0, "x3": 0.5}])
    with torch.inference_mode():
        raw = net[0](torch.tensor([[1.0, -2.0, 3.0, 0.5]]))
    want = raw.sigmoid() if name == "scores" else raw.softmax(1)
    assert list(record[name].values()) == pytest.approx(want[0].tolist(), rel=1e-4)


def test_a_network_that_flattens_its_pictures_takes_them_in_the_size_that_is_stated(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8 * 6, 3)).eval()
    bundle = packed(saved_module(net, tmp_path / "grey.pt"), image={"width": 8, "height": 6, "mode": "L"}, labels=world.LABELS)
    pixels = np.arange(48, dtype=np.uint8).reshape(1, 6, 8, 1) * 5
    got = engines.load(bundle).predict({"image": pixels})["probabilities"]
    with torch.inference_mode():
        want = net(torch.from_numpy(pixels.astype(np.float32) / 255)).softmax(1).numpy()
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_taken(kind: torch.dtype, tmp_path: Path) -> None:
    net = world.network(tmp_path).to(kind)
    bundle = of_pictures(saved_module(net, tmp_path / "colony.pt"), code=[str(tmp_path / "colony_net.py")])
    assert ONNX in bundle.files
    got = engines.load(bundle).predict({"image": world.pictures()})["probabilities"]
    np.testing.assert_allclose(got, world.answers(net.float(), world.pictures()), atol=1e-5)


# Where there is no graph of it


class Decides(torch.nn.Module):
    """Does one thing or another by what it is given, which following it once does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) if float(x.sum()) > 0 else -self.fc(x)


def test_a_graph_that_answers_otherwise_is_not_served_and_the_reason_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Decides().eval()
    torch.save(net, tmp_path / "decides.pt")
    bundle = packed(tmp_path / "decides.pt", code=[__file__])
    parity = bundle.parity()
    assert parity is not None
    assert not parity["passed"]
    assert parity["reason"]
    assert ONNX not in bundle.files
    requirements = (bundle.folder / "requirements.txt").read_text()
    assert f"\ntorch=={torch.__version__.partition('+')[0]}" in requirements
    rows = [{"x0": value, "x1": 0.0, "x2": 0.0} for value in (-1.0, 3.0, 1.0, -4.0)]
    with torch.inference_mode():
        want = [net(torch.tensor([list(row.values())]))[0].tolist() for row in rows]
    got = engines.load(bundle).answer(rows)
    assert [record["prediction"] for record in got] == [pytest.approx(one, abs=1e-6) for one in want], "a row depends on those beside it"


# What does not fit


def test_labels_that_are_too_few_or_many_are_told(tmp_path: Path) -> None:
    path = world.script(world.network(tmp_path), tmp_path / "colony.pt")
    assert "2 labels are stated, and the model gives 3 numbers" in why(path, SignatureError, labels=["ant", "bee"])


def test_pictures_of_another_size_than_the_network_takes_are_told(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten(), torch.nn.Linear(2 * 14 * 14, 3))
    path = saved_module(net, tmp_path / "fixed.pt")
    of_pictures(path)
    told = why(path, SignatureError, image=20)
    assert "the model does not take pictures of 20 x 20: RuntimeError: mat1 and mat2 shapes cannot be multiplied" in told
    assert "--image" in told
    seems = why(path, SignatureError, image=None)
    assert "seems to take pictures, and does not say of which size" in seems
    program = world.program(world.network(tmp_path), tmp_path / "colony.pt2")
    assert "the pictures' height is stated as 20, and the model takes 16" in why(program, SignatureError, image=20)


def test_weights_need_their_code(tmp_path: Path) -> None:
    net = world.network(tmp_path)
    told = why(saved_state(net, tmp_path / "colony.pt"))
    assert told.startswith("colony.pt holds weights alone; the network they belong to is code |")
    assert "--code model.py:make_model" in told


def test_inspect_says_how_weights_are_served(tmp_path: Path) -> None:
    net = world.network(tmp_path)
    for path in (saved_state(net, tmp_path / "colony.pt"), world.checkpoint(net, tmp_path / "last.pt"), saved_tensors(net, tmp_path / "c")):
        assert inspect(path).advice[-1] == f"modelport serve {path} --code model.py:make_model"
    assert inspect(world.script(net, tmp_path / "script.pt")).advice == (f"modelport serve {tmp_path / 'script.pt'}",)


def test_a_checkpoint_names_its_keys_where_the_weights_are_not_found(tmp_path: Path) -> None:
    path = world.checkpoint(world.network(tmp_path), tmp_path / "colony.pt", key="ema")
    code = make_model(tmp_path)
    told = why(path, code=code)
    assert told.startswith("the checkpoint colony.pt does not say where its weights are; its keys: epoch, ema, optimizer, args |")
    assert "has no weights under 'emma'; its keys: epoch, ema" in why(path, code=code, key="emma")
    assert ONNX in of_pictures(path, code=code, key="ema").files
    with pytest.raises(UsageError, match="several keys are named"):
        of_pictures(path, code=code, key=("ema", "model"))


def test_weights_of_another_network_are_told_in_one_line(tmp_path: Path) -> None:
    net = world.network(tmp_path)
    code = tmp_path / "colony_net.py"
    path = saved_state(net, tmp_path / "colony.pt")
    told = why(path, code=[f"{code}:make_wider"])
    assert "do not fit the network that colony_net:make_wider makes: size mismatch for fc.weight" in told
    weights = net.state_dict()
    weights["head.weight"] = weights.pop("fc.weight")
    torch.save(weights, path)
    assert "makes: missing fc.weight; unexpected head.weight |" in why(path, code=[f"{code}:make_model"])


@pytest.mark.parametrize(
    ("function", "kind", "words"),
    [
        ("make_modle", UsageError, "colony_net.py has no function 'make_modle'"),
        ("make_nothing", ModelFileError, "colony_net:make_nothing gives a dict, and no torch.nn.Module"),
        ("make_mistake", ModelFileError, "colony_net:make_mistake raised RuntimeError: no weights for you"),
    ],
)
def test_code_that_makes_no_network_is_told(function: str, kind: type[Exception], words: str, tmp_path: Path) -> None:
    path = saved_state(world.network(tmp_path), tmp_path / "colony.pt")
    assert words in why(path, kind, code=[f"{tmp_path / 'colony_net.py'}:{function}"])


def test_a_function_is_named_for_weights_alone(tmp_path: Path) -> None:
    import models

    path = models.write("iris_svc", tmp_path)
    world.code(tmp_path)
    with pytest.raises(UsageError, match=r"--code names make_model\(\)"):
        packed(path, code=make_model(tmp_path))


# Files that would do more than hold a network


class Runs:
    def __reduce__(self) -> Any:
        return (print, ("run",))


def test_a_module_of_somebodys_own_is_refused_without_its_code(tmp_path: Path) -> None:
    path = saved_module(world.network(tmp_path), tmp_path / "colony.pt")
    with pytest.raises(Untrusted, match=r"would import colony_net\.Net, not on the allow-list for torch"):
        of_pictures(path)


def test_a_checkpoint_that_would_run_code_is_refused_and_stays_so_when_trusted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    net = world.network(tmp_path)
    path = tmp_path / "colony.pt"
    torch.save({"model": net.state_dict(), "hook": Runs()}, path)
    with pytest.raises(Untrusted, match=r"would import builtins\.print"):
        of_pictures(path, code=make_model(tmp_path))
    of_pictures(path, code=make_model(tmp_path), trust=True)
    assert capfd.readouterr().out == "run\n"


def rewritten(path: Path, part: str, old: str, new: str, *, renamed: str = "") -> Path:
    """A zip archive with a text in one of its parts replaced, and the part perhaps called otherwise at its end."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    found = next(name for name in parts if name.endswith(part) and old.encode() in parts[name])
    parts[found] = parts[found].replace(old.encode(), new.encode())
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name[: -len(renamed)] + renamed if name == found and renamed else name, data)
    return path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("torch.ops.aten.conv2d.default", "torch.serialization.os.system"),
        ("torch.ops.aten.conv2d.default", "torch.ops.aten.from_file.default"),
        ("torch.ops.aten.conv2d.default", "_operator.attrgetter"),
        ("Symbol('s77', positive=True, integer=True)", "__import__('os').system('true')"),
        ("Symbol('s77', positive=True, integer=True)", "print"),
    ],
)
def test_an_exported_program_that_would_run_code_is_refused(old: str, new: str, tmp_path: Path) -> None:
    path = rewritten(world.program(world.network(tmp_path), tmp_path / "colony.pt2"), "models/model.json", old, new)
    assert f"colony.pt2 has {new!r} where an operator or a size is expected" in why(path)


def test_the_conditions_of_an_exported_program_are_not_run(tmp_path: Path) -> None:
    path = world.program(world.network(tmp_path), tmp_path / "colony.pt2")
    rewritten(path, "models/model.json", '"guards_code": ', '"guards_code": ["1 / 0"], "before": ')
    assert ONNX in of_pictures(path).files


def test_torchscript_that_touches_files_is_refused(tmp_path: Path) -> None:
    class Writes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.save(x, "somewhere")
            return self.fc(x)

    path = world.script(Writes(), tmp_path / "writes.pt")
    with pytest.raises(ModelFileError, match="it would touch files"):
        packed(path)


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("code/__torch__/colony_net.py", 'torch.save (x, "{mark}")'),
        ("code/__torch__/colony_net.py", 'torch.\\\n      save(x, "{mark}")'),
        ("code/__torch__/colony_net.py", 'torch.autograd.save(x, "{mark}")'),
        ("code/__torch__/colony_net.py", 'ops.aten.save(x, "{mark}")'),
        ("code/__torch__/colony_net.py", 'ops.image.write_file("{mark}", x)'),
        ("code/__torch__/colony_net.py", 't = torch\n    t.save(x, "{mark}")'),
        ("code/__torch__/colony_net.py", 'f = torch.save\n    f(x, "{mark}")'),
        ("code/__torch__/colony_net.py", 'getattr(torch, "sa" "ve")(x, "{mark}")'),
        ("code/__torch__/colony_net.py", '_9 = """\n    " """\n    torch.save(x, "{mark}")'),
        ("code/__torch__/colony_net.PY", 'torch.save(x, "{mark}")'),
    ],
)
def test_torchscript_touches_no_files_however_it_is_written(part: str, line: str, tmp_path: Path) -> None:
    path, mark = world.script(world.network(tmp_path), tmp_path / "colony.pt"), tmp_path / "mark"
    begins = "x: Tensor) -> Tensor:\n"
    rewritten(path, part.lower(), begins, f"{begins}    {line.format(mark=mark)}\n", renamed=part)
    assert "it would touch files, or could" in why(path)
    assert not mark.exists()


def test_torchscript_may_speak_of_torch_and_have_parts_of_that_name(tmp_path: Path) -> None:
    class Speaks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ops = torch.nn.Sequential(torch.nn.Linear(3, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.dim() != 2:
                raise ValueError("it's a torch tensor of rows # and columns that torch.save( wrote")
            out: torch.Tensor = self.ops(x)
            return out

    path = world.script(Speaks(), tmp_path / "speaks.pt")
    assert [field.name for field in packed(path).signature.outputs] == ["prediction"]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"factory": "os:getcwd"}, "would call os:getcwd to make its network"),
        ({"imports": ["antigravity.fly"]}, r"would import antigravity\.fly"),
    ],
)
def test_a_bundle_whose_card_names_more_than_its_file_needs_trust(said: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    torch.save({"fc.weight": torch.zeros(2, 3)}, tmp_path / "model" / "m.pt")
    card = Card("torch", "state_dict", "torch", details=said)
    signature = Signature((Field("x", "number"),), (Field("prediction", "number"),))
    foreign = write_bundle(tmp_path, name="foreign", card=card, signature=signature, model="model/m.pt", python="3.11")
    with pytest.raises(Untrusted, match=message):
        gates.check_bundle(foreign)
    gates.check_bundle(foreign, trust=True)


# Served


def test_it_is_served_without_torch(tmp_path: Path) -> None:
    bundle = of_pictures(world.script(world.network(tmp_path), tmp_path / "colony.pt"))
    program = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "onnx", "onnxscript"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import json
from pathlib import Path
from modelport import bundle, engines
opened = bundle.open_bundle(Path({str(bundle.folder)!r}))
engine = engines.load(opened)
engines.verify_golden(engine, opened)
print(json.dumps(engine.answer([opened.signature.example()])))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == engines.load(bundle).answer([bundle.signature.example()])


def test_a_picture_is_answered_over_http_as_the_network_would(tmp_path: Path) -> None:
    net = world.network(tmp_path)
    bundle = of_pictures(world.checkpoint(net, tmp_path / "colony.pt"), code=make_model(tmp_path))
    sent = encoded(Image.fromarray(world.pictures()[0]).resize((60, 40)), "PNG")
    want = world.answers(net, pictures.decode(sent, world.HOW)[None])[0]
    services = services_of("colony", "1", bundle, engines.load(bundle))
    for service in services:
        service.warm_up()
    with live(services) as server, server.client() as client:
        answer: httpx.Response = client.post("/predict", content=sent, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200, answer.text
    assert list(answer.json()["probabilities"].values()) == pytest.approx(want.tolist(), abs=1e-5)


def test_flags_and_modelport_toml_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELPORT_STORE", str(tmp_path / "store"))
    world.checkpoint(world.network(tmp_path), tmp_path / "colony.pt", key="ema")
    Path("labels.txt").write_text("\n".join(world.LABELS))
    words = "--code colony_net.py:make_model --key ema --image 16 --resize 20 --mean 0.4,0.5,0.6 --std 0.2,0.3,0.4 --labels labels.txt"
    done = CliRunner().invoke(modelport, ["pack", "colony.pt", "--name", "flags", *words.split()])
    assert done.exit_code == 0, done.output
    Path("modelport.toml").write_text(
        'model = "colony.pt"\nname = "stated"\ncode = ["colony_net.py:make_model"]\nkey = ["ema"]\nlabels = "labels.txt"\n'
        "[image]\nsize = 16\nresize = 20\nmean = [0.4, 0.5, 0.6]\nstd = [0.2, 0.3, 0.4]\n"
    )
    done = CliRunner().invoke(modelport, ["pack"])
    assert done.exit_code == 0, done.output
    one, other = (Store().get(name)[1] for name in ("flags", "stated"))
    assert one.signature == other.signature
    assert (one.folder / ONNX).read_bytes() == (other.folder / ONNX).read_bytes()


def test_a_folder_of_pictures_proves_it(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, pixels in enumerate(world.pictures(4)):
        (folder / f"{number}.png").write_bytes(encoded(Image.fromarray(pixels).resize((50, 50))))
    bundle = of_pictures(world.script(world.network(tmp_path), tmp_path / "colony.pt"), sample=folder)
    assert bundle.parity()["rows_of_sample"] == 4  # type: ignore[index]
    assert not bundle.read_json("golden.json")["synthesised"]


# Graphs that people exported themselves


@pytest.mark.parametrize("dynamo", [False, True])
def test_onnx_of_both_exporters_is_served(dynamo: bool, tmp_path: Path) -> None:
    net = world.network(tmp_path)
    path = tmp_path / "colony.onnx"
    free: dict[str, Any] = (
        {"dynamic_shapes": ({0: torch.export.Dim("rows")},)} if dynamo else {"dynamic_axes": {"x": {0: "rows"}, "y": {0: "rows"}}}
    )
    world.deprecated(
        torch.onnx.export, net, (torch.zeros(2, 3, 16, 16),), path, dynamo=dynamo, input_names=["x"], output_names=["y"], **free
    )
    bundle = of_pictures(path)
    got = engines.load(bundle).predict({"image": world.pictures()})
    np.testing.assert_allclose(got["probabilities"], world.answers(net, world.pictures()), atol=1e-5)


def test_where_onnx_is_off_torch_answers(tmp_path: Path) -> None:
    bundle = of_pictures(world.script(world.network(tmp_path), tmp_path / "colony.pt"), onnx="off")
    assert ONNX not in bundle.files
    assert engines.load(bundle).name == "native"

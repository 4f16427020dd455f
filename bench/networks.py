"""A network that takes pictures, behind HTTP: Modelport, which serves it from ONNX, beside FastAPI and LitServe with torch, on one core.

`python -m bench networks [--only TOOL,...] [--rounds 3] [--seconds 5]`

W5: torchvision's ResNet-18 on JPEGs of 224 x 224 pixels. The weights are random: they cost the same, and are the same for all. Each answer
is compared with the network's own before anything is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.environments import ROOT, WORK, environment, versions
from bench.load import Measured, drive
from bench.servers import busy_s, cores, free_port, own_s, running
from bench.works import Exchange, answer_to

CONNECTIONS = (8, 1)
WARM_S = 2
PICTURES = 8
TORCH = ("torch==2.13.0", "pillow", "numpy")
TORCHVISION = ("torchvision==0.28.0",)
MADE = WORK / "networks"
_BOUNDARY = "modelport-bench"


@dataclass(frozen=True)
class Service:
    """One row: what it is made of, and how it is started and asked."""

    name: str
    title: str
    env: str
    """The name of its environment, which services that need the same share."""
    requirements: tuple[str, ...]
    alone: tuple[str, ...]
    """What comes without its own requirements: torchvision would bring CUDA."""
    command: Callable[[Path, int], list[str | Path]]
    """Its words, of an environment's bin/ and a port."""
    field: str = ""
    """The form's field for the picture; "" where the body is the picture."""


def _uvicorn(programs: Path, port: int) -> list[str | Path]:
    return [programs / "uvicorn", "service:app", "--host", "127.0.0.1", "--port", str(port), "--no-access-log"]


FASTAPI = (*TORCH, "fastapi", "uvicorn[standard]", "python-multipart")
SERVICES = {
    one.name: one
    for one in (
        Service(
            "modelport",
            "Modelport, from ONNX",
            "modelport",
            (f"{ROOT}[image]",),
            (),
            lambda programs, port: [programs / "modelport", "serve", "bundle", "--port", str(port), "--workers", "1", "--threads", "1"],
        ),
        Service(
            "fastapi-torch-lean",
            "FastAPI + torch, well written: frozen TorchScript, no torchvision",
            "fastapi",
            FASTAPI,
            TORCHVISION,
            _uvicorn,
        ),
        Service("fastapi-torch", "FastAPI + torch, as tutorials write it", "fastapi", FASTAPI, TORCHVISION, _uvicorn, "image"),
        Service(
            "litserve-torch",
            "LitServe + torch, batching on",
            "litserve",
            (*TORCH, "litserve", "python-multipart"),
            TORCHVISION,
            lambda programs, port: [programs / "python", "service.py", str(port)],
            "request",
        ),
    )
}
BASE = "fastapi-torch"
COLUMNS = (f"requests/s, {CONNECTIONS[0]} connections", "p50 ms", "p99 ms", "processor ms a request", "requests/s, 1 connection", "p50 ms")
COLUMNS += ("PSS MB", "RSS MB", "start s")


@dataclass(frozen=True)
class Row:
    """One life of a service."""

    service: str
    many: Measured
    alone: Measured
    server_ms: float
    """Processor time of the server for one request, with many connections."""
    pss_mb: float
    rss_mb: float
    start_s: float
    others_cores: float


def run(*options: str) -> str:
    """The table."""
    asked = _arguments(options)
    words = [word for word in asked.only.split(",") if word]
    chosen = [one for name, one in SERVICES.items() if not words or any(name.startswith(word) for word in words)]
    folders = {one.name: environment(f"networks-{one.env}", one.requirements, one.alone) for one in chosen}
    _make()
    for one in chosen:
        _lone_torchvision(folders[one.name], one.alone)
    rows: list[Row] = []
    for number in range(asked.rounds):
        turn = number % len(chosen)
        rows += [_measure(one, folders[one.name], asked.seconds) for one in chosen[turn:] + chosen[:turn]]
    return _text(options, asked, chosen, rows, {name: versions(folder) for name, folder in folders.items()})


def _arguments(options: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench networks", description=__doc__)
    parser.add_argument("--only", default="", help=f"of {', '.join(SERVICES)}, by the beginning of their names")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each run of wrk")
    return parser.parse_args(options)


def _measure(one: Service, env: Path, seconds: int) -> Row:
    server_core, load_core = cores() or (None, None)
    folder = WORK / "run" / f"networks-{one.name}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(MADE, folder)
    code = Path(__file__).parent / "tools" / one.name.replace("-", "_")
    if code.is_dir():
        shutil.copytree(code, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    asked, port = _exchanges(one), free_port()
    with running(one.command(env / "bin", port), port, folder, _variables(env, folder), asked[0], server_core) as server:
        _check(port, asked)
        drive(port, asked, CONNECTIONS[0], WARM_S, folder, load_core)
        machine, own, mine = busy_s(), server.processor_s(), own_s()
        many = drive(port, asked, CONNECTIONS[0], seconds, folder, load_core)
        own, mine, machine = server.processor_s() - own, own_s() - mine, busy_s() - machine
        alone = drive(port, asked, CONNECTIONS[1], seconds, folder, load_core)
        rss, pss = server.memory()
        for seen in (many, alone):
            if seen.bad_status or seen.socket_errors:
                raise RuntimeError(f"{one.name}: {seen.bad_status} bad answers, {seen.socket_errors} broken connections")
        each_ms = own / (many.requests_per_s * seconds) * 1000
        return Row(one.name, many, alone, each_ms, pss, rss, server.start_s, max(0.0, (machine - own - mine) / seconds))


def _variables(env: Path, folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("LANG", "LC_ALL", "TMPDIR")}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**kept, **threads, "PATH": f"{env / 'bin'}:{os.environ.get('PATH', '')}", "HOME": str(folder), "DO_NOT_TRACK": "1"}


def _exchanges(one: Service) -> list[Exchange]:
    known = json.loads((MADE / "answers.json").read_text())
    asked = []
    for number in range(PICTURES):
        data, kind = (MADE / f"{number}.jpg").read_bytes(), "image/jpeg"
        if one.field:
            head = f'Content-Disposition: form-data; name="{one.field}"; filename="{number}.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
            data = f"--{_BOUNDARY}\r\n{head}".encode() + data + f"\r\n--{_BOUNDARY}--\r\n".encode()
            kind = f"multipart/form-data; boundary={_BOUNDARY}"
        asked.append(Exchange("/predict", data, tuple(known[number]), kind))
    return asked


def _check(port: int, asked: Sequence[Exchange]) -> None:
    """RuntimeError when an answer is not the network's own."""
    for exchange in asked:
        status, body = answer_to(port, exchange.request, timeout_s=60)
        answer = json.loads(body) if status == 200 else {}
        label, chance = exchange.answers
        got = answer.get("probability", answer.get("probabilities", {}).get(label, -1.0))
        if answer.get("prediction") != label or abs(got - chance) > 1e-4:
            raise RuntimeError(f"answers wrongly: status {status}, {body[:200].decode(errors='replace')}, and not {label} ({chance:.5f})")


def _text(
    options: Sequence[str], asked: argparse.Namespace, chosen: Sequence[Service], rows: Sequence[Row], installed: dict[str, dict[str, str]]
) -> str:
    def middle(name: str, value: Callable[[Row], float]) -> float:
        return statistics.median(value(row) for row in rows if row.service == name)

    base = BASE if any(one.name == BASE for one in chosen) else chosen[0].name
    lines = [
        "# A network that takes pictures, behind HTTP",
        "",
        f"`{' '.join(['python -m bench networks', *options])}`",
        "",
        "ResNet-18 on JPEGs of 224 x 224 pixels, the same weights in each. One core for the server, one for the load; the middle of",
        f"{asked.rounds} interleaved rounds of {asked.seconds} s. Memory is that of all of a service's processes after the load, start is",
        f"to the first right answer. Other programs took {statistics.mean(row.others_cores for row in rows):.2f} cores meanwhile.",
        "",
        f"| | {' | '.join(COLUMNS)} |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    rate, memory = middle(base, lambda row: row.many.requests_per_s), middle(base, lambda row: row.pss_mb)
    for one in chosen:
        own_rate, own_memory = middle(one.name, lambda row: row.many.requests_per_s), middle(one.name, lambda row: row.pss_mb)
        times = "" if one.name == base else f" ({own_rate / rate:.2f}x)"
        share = "" if one.name == base else f" ({own_memory / memory:.2f}x)"
        cells = (
            f"{own_rate:.1f}{times}",
            f"{middle(one.name, lambda row: row.many.p50_ms):.1f}",
            f"{middle(one.name, lambda row: row.many.p99_ms):.1f}",
            f"{middle(one.name, lambda row: row.server_ms):.1f}",
            f"{middle(one.name, lambda row: row.alone.requests_per_s):.1f}",
            f"{middle(one.name, lambda row: row.alone.p50_ms):.1f}",
            f"{own_memory:.0f}{share}",
            f"{middle(one.name, lambda row: row.rss_mb):.0f}",
            f"{middle(one.name, lambda row: row.start_s):.2f}",
        )
        lines.append(f"| {one.title} | {' | '.join(cells)} |")
    lines += ["", "Versions:", ""]
    shown = ("modelport", "onnxruntime", "torch", "torchvision", "fastapi", "litserve", "uvicorn", "pillow")
    for one in chosen:
        found = installed[one.name]
        lines.append(f"- {one.title}: {', '.join(f'{name} {found[name]}' for name in shown if name in found)}")
    return "\n".join(lines) + "\n"


# What is served: made once, in an environment that has torch


def _lone_torchvision(env: Path, alone: Sequence[str]) -> None:
    """Lets torchvision, which came without CUDA's libraries, be imported."""
    if alone:
        subprocess.run([env / "bin" / "python", ROOT / "tools" / "torchvision_beside_cpu_torch.py"], check=True)


def _make() -> None:
    """The weights, the pictures with the network's own answers, and the bundle, in MADE. RuntimeError when that fails."""
    env = environment("networks-made", (f"{ROOT}[image]", *TORCH, "onnx", "onnxscript"), TORCHVISION)
    _lone_torchvision(env, TORCHVISION)
    shutil.rmtree(MADE, ignore_errors=True)
    MADE.mkdir(parents=True)
    words = [env / "bin" / "python", "-W", "ignore", "-m", "bench.networks", MADE]
    variables = {**_variables(env, MADE), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(list(map(str, words)), cwd=MADE, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the network could not be made: {done.stderr.strip()[-600:]}")


def _made(folder: Path) -> None:
    import numpy as np
    import torch
    from PIL import Image
    from torchvision.models import resnet18

    from modelport.packing import Options, pack_file
    from modelport.preprocessing import PRESETS, Preprocessing

    torch.manual_seed(0)
    network = resnet18(num_classes=1000).eval()
    with torch.no_grad():
        network.fc.weight.mul_(8)  # so that the answers differ by more than rounding does
    torch.save(network.state_dict(), folder / "resnet.pt")
    torch.jit.trace(network, torch.zeros(1, 3, 224, 224)).save(str(folder / "resnet.torchscript"))
    (folder / "network.py").write_text("from torchvision.models import resnet18\n\n\ndef make():\n    return resnet18(num_classes=1000)\n")
    labels = [f"kind-{number}" for number in range(1000)]
    (folder / "labels.txt").write_text("\n".join(labels))
    random = np.random.default_rng(0)
    how = Preprocessing(
        224, 224, layout="NCHW", dtype="float32", scale=1 / 255, mean=PRESETS["imagenet"]["mean"], std=PRESETS["imagenet"]["std"]
    )
    answers = []
    for number in range(PICTURES):
        coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((224, 224), Image.Resampling.BICUBIC)
        grain = np.asarray(coarse, np.int16) + random.integers(-20, 21, (224, 224, 3))
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=88)
        pixels = np.asarray(Image.open(folder / f"{number}.jpg").convert("RGB"))[None]
        with torch.inference_mode():
            chances = network(torch.from_numpy(how.tensor(pixels))).softmax(dim=1)[0]
        answers.append([labels[int(chances.argmax())], float(chances.max())])
    (folder / "answers.json").write_text(json.dumps(answers))
    (folder / "bundle").mkdir()
    said = {"size": 224, "mean": PRESETS["imagenet"]["mean"], "std": PRESETS["imagenet"]["std"]}
    options = Options(name="resnet", image=said, labels=labels, code=[folder / "network.py:make"])
    bundle = pack_file(folder / "resnet.pt", folder / "bundle", options)
    if "model.onnx" not in bundle.files:
        raise RuntimeError(f"there is no ONNX of it: {bundle.read_json('parity.json')['reason']}")


if __name__ == "__main__":
    _made(Path(sys.argv[1]))

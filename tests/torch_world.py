"""Small PyTorch networks for tests, and the files in which people keep them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelport.preprocessing import Preprocessing

CODE = '''"""The network, as people have it in a file of its own."""

import torch


class Net(torch.nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)
        self.drop = torch.nn.Dropout()
        self.fc = torch.nn.Linear(4, classes)

    def forward(self, x):
        return self.fc(self.drop(self.norm(self.conv(x)).relu().mean((2, 3))))


def make_model():
    return Net()


def make_wider():
    return Net(classes=5)


def make_nothing():
    return {"no": "network"}


def make_mistake():
    raise RuntimeError("no weights for you")
'''
LABELS = ("ant", "bee", "wasp")
HOW = Preprocessing(
    16, 16, resize=20, exif=False, alpha="dropped", scale=1 / 255, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), layout="NCHW", dtype="float32"
)
STATED = {"size": 16, "resize": 20, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
"""The same, as it is stated."""


def code(folder: Path, name: str = "colony_net") -> Path:
    """The file with the network's code."""
    path = folder / f"{name}.py"
    path.write_text(CODE)
    return path


def network(folder: Path, name: str = "colony_net") -> Any:
    """A network of the class in that file, with weights that training might have left, in evaluation mode."""
    file = code(folder, name)
    sys.path.insert(0, str(file.parent))
    try:
        made = import_module(name).Net()
    finally:
        sys.path.remove(str(file.parent))
    torch.manual_seed(0)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    with torch.no_grad():
        made.norm.running_mean.uniform_(-0.5, 0.5)
        made.norm.running_var.uniform_(0.5, 2.0)
    return made.eval()


def pictures(count: int = 5) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def answers(net: Any, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The chances that the network itself gives pictures."""
    with torch.inference_mode():
        return np.asarray(net(torch.from_numpy(HOW.tensor(pixels))).softmax(dim=1).numpy())


def deprecated(make: Callable[..., Any], *given: Any, **more: Any) -> Any:
    """What a function gives that warns of being deprecated: what it makes stays in the world."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(*given, **more)


def script(net: Any, path: Path) -> Path:
    deprecated(torch.jit.script, net).save(str(path))
    return path


def trace(net: Any, path: Path) -> Path:
    deprecated(torch.jit.trace, net, torch.zeros(1, 3, 16, 16)).save(str(path))
    return path


def program(net: Any, path: Path, *, rows: int | None = None, shape: tuple[int, ...] = (3, 16, 16)) -> Path:
    """An exported program: for so many rows at a time, or for any number of them."""
    free = ({0: torch.export.Dim("rows")},) if rows is None else None
    torch.export.save(deprecated(torch.export.export, net, (torch.zeros(rows or 2, *shape),), dynamic_shapes=free), path)
    return path


def checkpoint(net: Any, path: Path, key: str = "model", prefix: str = "") -> Path:
    """What a training script leaves behind: an epoch, the weights, and what it needs to go on."""
    optimizer = torch.optim.Adam(net.parameters())
    weights = {f"{prefix}{name}": value for name, value in net.state_dict().items()}
    torch.save({"epoch": 7, key: weights, "optimizer": optimizer.state_dict(), "args": {"lr": 0.1}}, path)
    return path

# ruff: noqa: F403, F405 fast.ai is made for such an import
"""`python fastai_exports.py PICTURES FOLDER [VARIANT ...]`: learners of the installed fast.ai, exported to FOLDER, and what each predicts.

Run in a process of its own: fast.ai takes seconds to import, and warns. FOLDER/answers.json has for each variant and each picture in
PICTURES what `learn.predict` answers: the label, or the list of labels, and the chances.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

import numpy as np
import torch
from fastai.vision.all import *
from fastai.vision.models import xresnet
from PIL import Image

LABELS = ("circle", "square", "triangle")


def small(channels: int = 3, outputs: int = 3) -> Any:
    """A network of fast.ai's layers that is quick to compute."""
    body = nn.Sequential(ConvLayer(channels, 8, stride=2), ConvLayer(8, 16, stride=2), ResBlock(1, 16, 16))
    head = nn.Sequential(AdaptiveConcatPool2d(), Flatten(), *LinBnDrop(32, 16, p=0.1, act=nn.ReLU()), nn.Linear(16, outputs))
    return nn.Sequential(body, head)


def as_if_trained(learn: Any, pictures: list[Path]) -> None:
    """Means and variances as training would leave them, and a last layer whose numbers differ from picture to picture."""
    batch = learn.dls.test_dl(pictures, bs=len(pictures), num_workers=0).one_batch()[0]
    last = [layer for layer in learn.model.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        for _ in range(30):
            learn.model(batch)
        learn.model.eval()
        numbers = learn.model(batch).as_subclass(Tensor)
        last.weight *= 2 / numbers.std(0, keepdim=True).T
        before = 0 if last.bias is None else last.bias
        last.bias = nn.Parameter(2 * (before - numbers.mean(0)) / numbers.std(0))


def plainly(
    *items: Any, batch: Any = (), network: Callable[[], Any] = small, picture: Any = PILImage, loss: Any = None
) -> Callable[..., Any]:
    def made(folder: Path) -> Any:
        block = DataBlock(
            blocks=(ImageBlock(picture), CategoryBlock),
            get_items=get_image_files,
            get_y=parent_label,
            splitter=RandomSplitter(0.3, seed=0),
            item_tfms=list(items),
            batch_tfms=list(batch),
        )
        return Learner(block.dataloaders(folder, bs=8, num_workers=0), network(), loss_func=loss or CrossEntropyLossFlat())

    return made


def with_drawn(path):
    """Two labels; a function of a script, which an export of 2.7 names and one of 2.8 holds as code. fast.ai takes annotations to heart."""
    return [path.parent.name, "drawn"]


def several(folder: Path) -> Any:
    block = DataBlock(
        blocks=(ImageBlock, MultiCategoryBlock),
        get_items=get_image_files,
        get_y=with_drawn,
        splitter=RandomSplitter(0.3, seed=0),
        item_tfms=Resize(64),
    )
    return Learner(block.dataloaders(folder, bs=8, num_workers=0), small(outputs=4), loss_func=BCEWithLogitsLossFlat(thresh=0.3))


def resnet(folder: Path) -> Any:
    loaders = ImageDataLoaders.from_folder(
        folder, valid_pct=0.3, seed=0, item_tfms=Resize(96), batch_tfms=aug_transforms(size=64), bs=8, num_workers=0
    )
    learn = vision_learner(loaders, resnet18, pretrained=False)
    learn.dls.add_tfms([Normalize.from_stats(*imagenet_stats)], "after_batch")
    return learn


VARIANTS: dict[str, Callable[[Path], Any]] = {
    "crop": plainly(Resize(64)),
    "crop-wide": plainly(Resize((48, 80))),
    "pad": plainly(Resize(64, method=ResizeMethod.Pad)),
    "pad-zeros": plainly(Resize((64, 50), method=ResizeMethod.Pad, pad_mode=PadMode.Zeros)),
    "pad-border": plainly(Resize(49, method=ResizeMethod.Pad, pad_mode=PadMode.Border)),
    "squish": plainly(Resize(64, method=ResizeMethod.Squish)),
    "nearest": plainly(Resize(64, resamples=(Image.NEAREST, Image.NEAREST))),
    "random-crop": plainly(RandomResizedCrop(64, min_scale=0.4)),
    "flips": plainly(FlipItem(), DihedralItem(), Resize(64)),
    "augmented": plainly(Resize(64), batch=[*aug_transforms(flip_vert=True), Saturation(), Hue(), RandomErasing()]),
    "batch-resize": plainly(Resize(96), batch=aug_transforms(size=56)),
    "batch-resize-half": plainly(Resize((130, 150)), batch=aug_transforms(size=(48, 60))),
    "batch-crop": plainly(Resize(115), batch=aug_transforms(size=56, min_scale=0.75)),
    "batch-crop-wide": plainly(Resize((96, 150)), batch=aug_transforms(size=56, min_scale=0.75)),
    "normalised": plainly(Resize(64), batch=[Normalize.from_stats(*imagenet_stats)]),
    "normalised-by-data": plainly(Resize(64), batch=[*aug_transforms(), Normalize()]),
    "grey": plainly(Resize(64), picture=PILImageBW, network=lambda: small(1)),
    "smoothed": plainly(Resize(64), loss=LabelSmoothingCrossEntropyFlat()),
    "focal": plainly(Resize(64), loss=FocalLossFlat()),
    "several": several,
    "resnet": resnet,
    "xresnet": plainly(Resize(64), network=lambda: xresnet.xse_resnext18(n_out=3)),
}


@Transform
def brighten(picture: PILImage) -> Any:
    return PILImage.create(np.minimum(255, np.asarray(picture) + 40).astype(np.uint8))


class Doubled(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * 2


def regression(folder: Path) -> Any:
    block = DataBlock(
        blocks=(ImageBlock, RegressionBlock),
        get_items=get_image_files,
        get_y=lambda path: float(len(path.parent.name)),
        splitter=RandomSplitter(0.3, seed=0),
        item_tfms=Resize(64),
    )
    return Learner(block.dataloaders(folder, bs=8, num_workers=0), small(outputs=1))


REFUSED: dict[str, Callable[[Path], Any]] = {
    "random-crop-alone": plainly(Resize(80), RandomCrop(64)),
    "own-function": plainly(Resize(64), brighten),
    "unsized": plainly(),
    "own-layer": plainly(Resize(64), network=lambda: nn.Sequential(small(), Doubled())),
    "hooked": plainly(Resize(64), network=lambda: nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(3, 3, 1)), small())),
    "raw-loss": plainly(Resize(64), loss=nn.CrossEntropyLoss()),
    "wrong-width": plainly(Resize(64), network=lambda: small(outputs=4)),
    "batch-nearest": plainly(Resize(96), batch=aug_transforms(size=56, mode="nearest")),
    "regression": regression,
}


def shapes(folder: Path) -> None:
    """A few pictures to make loaders of: one of each label and size is enough."""
    random = np.random.default_rng(0)
    for label in LABELS:
        for number in range(4):
            path = folder / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(path)


def answer(learn: Any, path: Path) -> Any:
    with learn.no_bar(), learn.no_logging():
        label, _, chances = learn.predict(path)
    return [list(label) if isinstance(label, L) else str(label), chances.tolist()]


def main(pictures: Path, folder: Path, *variants: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    given = sorted(pictures.iterdir())
    answers = {}
    with tempfile.TemporaryDirectory() as data:
        shapes(Path(data))
        for name, make in {**VARIANTS, **REFUSED}.items():
            if variants and name not in variants:
                continue
            torch.manual_seed(0)
            learn = make(Path(data))
            if name in VARIANTS:
                as_if_trained(learn, given)
            learn.path = folder
            if name in VARIANTS:
                answers[name] = {path.name: answer(learn, path) for path in given}
            learn.export(f"{name}.pkl")
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]), *sys.argv[3:])

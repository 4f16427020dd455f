"""The layers that fast.ai adds to PyTorch's, as its vision learners compute with them, and how it resizes batches; after fast.ai 2.8.

Only what computes is here: a layer's sizes and weights come out of the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelport.frameworks.fastai_export import Resampled


class AdaptiveConcatPool(nn.Module):
    """The largest and the mean of each channel."""

    mp: nn.Module
    ap: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.mp(x), self.ap(x)], 1)


class Flatten(nn.Module):
    """A row of numbers for each picture; with `full` one for all."""

    full: bool

    def forward(self, x: Tensor) -> Tensor:
        return x.view(-1) if self.full else x.flatten(1)


class BatchNorm1dFlat(nn.BatchNorm1d):
    """BatchNorm1d of the last axis, whatever comes before."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(-1, x.shape[-1])).view(x.shape)


class SigmoidRange(nn.Module):
    """Numbers between `low` and `high`."""

    low: float
    high: float

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x) * (self.high - self.low) + self.low


class ResBlock(nn.Module):
    """A block of XResNet."""

    convpath: nn.Module
    idpath: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.convpath(x) + self.idpath(x))
        return out


class MergeLayer(nn.Module):
    """What went into the block, beside what has come of it or added to that."""

    dense: bool

    def forward(self, x: Tensor, original: Tensor) -> Tensor:
        return torch.cat([x, original], dim=1) if self.dense else x + original


class ProdLayer(nn.Module):
    """What went into the block times what has come of it."""

    def forward(self, x: Tensor, original: Tensor) -> Tensor:
        return x * original


class SequentialEx(nn.Module):
    """Layers one behind the other, of which some take what went into the first, too."""

    layers: nn.ModuleList

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for layer in self.layers:
            out = layer(out, x) if isinstance(layer, MergeLayer | ProdLayer) else layer(out)
        return out


LAYERS: Mapping[str, Any] = {
    "fastai.layers.AdaptiveConcatPool1d": AdaptiveConcatPool,
    "fastai.layers.AdaptiveConcatPool2d": AdaptiveConcatPool,
    "fastai.layers.BatchNorm1dFlat": BatchNorm1dFlat,
    "fastai.layers.ConvLayer": nn.Sequential,
    "fastai.layers.Flatten": Flatten,
    "fastai.layers.Identity": nn.Identity,
    "fastai.layers.LinBnDrop": nn.Sequential,
    "fastai.layers.MergeLayer": MergeLayer,
    "fastai.layers.PoolFlatten": nn.Sequential,
    "fastai.layers.ProdLayer": ProdLayer,
    "fastai.layers.ResBlock": ResBlock,
    "fastai.layers.SequentialEx": SequentialEx,
    "fastai.layers.SigmoidRange": SigmoidRange,
    "fastai.layers.SimpleCNN": nn.Sequential,
    "fastai.layers.ToTensorBase": nn.Identity,
    "fastai.vision.models.xresnet.XResNet": nn.Sequential,
}
"""By the name that a pickle gives them. Those that only put others together are Sequential."""


class Resample(nn.Module):
    """A batch of pictures (rows, channels, height, width) cut and resized as fast.ai does it when it validates.

    Each axis is resized by itself, so that all of it is a product with a matrix on either side.
    """

    def __init__(self, height: int, width: int, steps: Sequence[Resampled]) -> None:
        super().__init__()
        self.register_buffer("down", _axis(height, steps, 0))
        self.register_buffer("across", _axis(width, steps, 1).T.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down @ x @ self.across
        return out


def _axis(size: int, steps: Sequence[Resampled], which: int) -> Tensor:
    """What becomes of the pixels along the height (0) or the width (1): a matrix (out, in)."""
    made = torch.eye(size, dtype=torch.float64)
    for step in steps:
        start = (len(made) - step.crop[which]) // 2
        made = _area(made[start : start + step.crop[which]], step)
        made = functional.interpolate(made.T[None], size=step.size[which], mode="linear", align_corners=step.align_corners)[0].T
    return made.float()


def _area(rows: Tensor, step: Resampled) -> Tensor:
    """What fastai.vision.augment._grid_sample does before it makes a batch less than half as large: it puts pixels together until twice
    the size is left. It measures the height before by the width after, and the width by the two coordinates of a point."""
    factor = min(step.crop[0] / step.size[1], step.crop[1] / 2) / 2
    reach = 1.0 if step.align_corners else 1 / (1 - 1 / max(step.size))
    if factor <= 1 or factor <= reach:
        return rows
    return functional.adaptive_avg_pool1d(rows.T[None], math.floor(float(len(rows)) * (1 / factor)))[0].T

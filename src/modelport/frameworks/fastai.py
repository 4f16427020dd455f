"""fastai: learners exported with `learn.export()`."""

from __future__ import annotations

from typing import Any

from modelport.frameworks import Card, Contents, Instance, allowed, instances

_LEARNERS = ("fastai.learner.Learner", "fastai.tabular.learner.TabularLearner", "fastai.text.learner.TextLearner")
_CATEGORIES = ("fastai.data.transforms.CategoryMap", "fastai.data.transforms.Categorize", "fastai.data.transforms.MultiCategorize")
_RESIZES = ("fastai.vision.augment.Resize", "fastai.vision.augment.RandomResizedCrop", "fastai.vision.augment.RandomResizedCropGPU")


def imports() -> frozenset[str]:
    """The names that an exported learner may import."""
    return allowed.names("fastai", "torch")


def detect(contents: Contents) -> Card | None:
    """The card of an exported learner: its labels, and what it does to a picture first. fastai's version is not in the file."""
    root = contents.root
    if not contents.format.startswith("torch-") or not isinstance(root, Instance) or root.cls not in _LEARNERS:
        return None
    transforms = sorted({found.cls for found in instances(root) if found.cls.startswith("fastai.vision.augment.")})
    details: dict[str, Any] = {"transforms": [name.rpartition(".")[2] for name in transforms]}
    size = next((found.get("size") for found in instances(root, *_RESIZES) if found.get("size") is not None), None)
    if isinstance(size, (tuple, list)) and all(isinstance(side, int) for side in size):
        details["size"] = list(size)
    elif isinstance(size, int):
        details["size"] = [size, size]
    return Card("fastai", root.cls, "fastai", classes=_vocabulary(root), details=details)


def _vocabulary(root: Instance) -> tuple[Any, ...]:
    """The labels in the order of the outputs: the keys of a category map's o2i, by their numbers."""
    for found in instances(root, *_CATEGORIES):
        numbers = found.get("o2i")
        mapping = numbers.mapping if isinstance(numbers, Instance) else numbers
        if isinstance(mapping, dict) and mapping and all(isinstance(number, int) for number in mapping.values()):
            return tuple(str(label) for label in sorted(mapping, key=lambda label: mapping[label]))
    return ()

"""How a kind of model file is recognised, loaded, described and called: one module a framework.

A framework is a module with the functions of `Framework`. Modelport's own are found by name (`modelport.frameworks.<name>`), others by the
entry point group `modelport.frameworks`. A framework module imports its library inside functions only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from modelport.signature import Columns, Signature


@dataclass
class Instance:
    """An object in a pickle, read and not made: the name of its class, and what the pickle would have given it."""

    cls: str
    """The class or function the pickle names, as "module.qualified_name"."""
    args: tuple[Any, ...] = ()
    """What it would have been called with."""
    state: Any = None
    """What would have been set on it: a dict of attributes as a rule."""
    items: list[Any] = field(default_factory=list)
    """What would have been appended or extended to it."""
    mapping: dict[Any, Any] = field(default_factory=dict)
    """What would have been set on it by key."""

    def get(self, attribute: str, default: Any = None) -> Any:
        """An attribute out of the state, or `default`."""
        return self.state.get(attribute, default) if isinstance(self.state, dict) else default


@dataclass(frozen=True)
class Contents:
    """A model file as its bytes describe it, with nothing of it run."""

    path: Path
    size: int
    format: str
    """pickle, joblib, torch-zip, torch-legacy, torchscript, pt2, skops, xgboost-json, xgboost-ubj, lightgbm-text, catboost-cbm,
    catboost-json, onnx, keras, hdf5, safetensors, tflite, gguf, python."""
    compression: str | None = None
    """zlib, gzip, bz2, xz, lzma, lz4, or zf (joblib before 0.10)."""
    protocol: int | None = None
    """The pickle protocol: the highest its opcodes say."""
    imports: tuple[str, ...] = ()
    """Every "module.name" a pickle would import, sorted."""
    root: Any = None
    """The top object: for a pickle an `Instance` (numpy arrays are real arrays, plain values plain values); for the other formats a
    dict of what their headers say."""


@dataclass(frozen=True)
class Card:
    """What a framework reads out of `Contents`: everything known of a model before it is loaded."""

    framework: str
    cls: str
    """The class that is held, as "module.Name"; for a format without classes its own word for it."""
    library: str
    """The distribution to install for it: "scikit-learn"."""
    version: str | None = None
    """The version of the library that wrote the file; None where the file does not say."""
    features: tuple[str, ...] = ()
    """Names of the input columns, where the file has them."""
    feature_count: int | None = None
    classes: tuple[Any, ...] = ()
    """The class labels of a classifier, as plain Python values."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """More for people to read: {"objective": "reg:squarederror", "trees": 50}. JSON values only."""


class Framework(Protocol):
    """What a module must offer to be a framework. `modelport.testing` proves that one does."""

    def imports(self) -> frozenset[str]:
        """The "module.name"s that a pickle of this framework may import without being trusted by hand."""
        ...

    def detect(self, contents: Contents) -> Card | None:
        """The model's card when `contents` is of this framework, else None. Must not import the library."""
        ...

    def load(self, path: Path, card: Card) -> Any:
        """The model in `path`, in memory. The caller has checked trust and version. ModelFileError when it does not load."""
        ...

    def describe(self, model: Any, card: Card) -> Signature:
        """The signature as far as the model itself knows it. A field whose kind it cannot know has kind "unknown"."""
        ...

    def predict(self, model: Any, columns: Columns, signature: Signature) -> Columns:
        """The answers to `columns` (each of shape (rows, ...)): one array of the same length per output of `signature`."""
        ...

    def save(self, model: Any, card: Card, folder: Path) -> str | None:
        """The model written to `folder` in the framework's safe format: the file's name; or None when there is none for it."""
        ...

    def requirements(self, model: Any, card: Card) -> tuple[str, ...]:
        """The distributions needed to load and call it, by name and unpinned: ("scikit-learn", "numpy")."""
        ...

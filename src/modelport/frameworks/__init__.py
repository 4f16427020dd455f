"""How a kind of model file is recognised, loaded, described and called: one module a framework.

A framework is a module with the functions of `Framework`. Modelport's own are found by name (`modelport.frameworks.<name>`), others by the
entry point group `modelport.frameworks`. A framework module imports its library inside functions only.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from modelport.signature import Columns, Signature


@dataclass(eq=False, slots=True)
class Instance:
    """An object in a pickle, read and not made: the name of its class, and what the pickle would have given it.

    An object that a function makes carries the function's name: `Instance("numpy.random._pickle.__randomstate_ctor", ...)`.
    """

    cls: str
    """The class or function the pickle names, as "module.qualified_name", with Python 2's module names turned into Python 3's."""
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


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that a pickle names as a value: `dtype=numpy.float64`, `func=numpy.log`."""

    name: str
    """As "module.qualified_name"."""


@dataclass(frozen=True)
class Contents:
    """A model file as its bytes describe it, with nothing of it run."""

    path: Path
    size: int
    format: str
    """pickle, joblib, torch-zip, torch-legacy, torchscript, pt2, skops, xgboost-json, xgboost-ubj, lightgbm-text, catboost-cbm,
    catboost-json, json (an object or a list of objects), onnx, keras, hdf5, safetensors, tflite, gguf, python."""
    compression: str | None = None
    """zlib, gzip, bz2, xz, lzma, lz4, or zf (joblib before 0.10)."""
    protocol: int | None = None
    """The pickle protocol: the highest its opcodes say."""
    imports: tuple[str, ...] = ()
    """Every "module.name" a pickle would import, sorted."""
    calls: tuple[str, ...] = ()
    """Those of them it would call with arguments, or hand to a call, sorted. Objects are mostly made without: then only their state is
    set, by the class's own `__setstate__` if it has one."""
    root: Any = None
    """What the file holds, by format. Every key stands there always, with "", {}, [] or None for what the file does not say.

    pickle, joblib, torch-zip, torch-legacy, skops
        The top object. An object of a class is an `Instance`, a class or function itself a `Name`. None, bool, int, float, complex, str,
        bytes, bytearray, tuple, list, dict, set, frozenset, slice and range are themselves; so are numpy arrays (read-only; those of
        objects too, with Instances in them), numpy scalars and dtypes. collections.OrderedDict and defaultdict are dicts. A pandas or
        scipy object is an Instance, and so is what persistent ids name (torch): `Instance("persistent", args=(the id,))`. Objects may
        refer to each other in circles.
        A model that stands in the pickle as the text or bytes of another format is taken apart where it stands: wherever bytes,
        a bytearray or a str in an Instance's state (and dicts in it) is one, there is a dict instead:
        {"format": "xgboost-ubj", "raw": the bytes or str as they were, "root": the root as below}. Formats there: xgboost-ubj,
        xgboost-json, lightgbm-text, catboost-cbm. So for XGBRegressor: root.get("_Booster").get("handle")["root"]["version"].
        XGBoost's old binary buffer (before 1.0) stays bytes.
    xgboost-json, xgboost-ubj
        {"version": [3, 2, 0], "learner": {"feature_names": [str], "feature_types": [str], "attributes": {str: str},
        "objective": {"name": str, ...}, "learner_model_param": {"num_class": str, "num_feature": str, "num_target": str,
        "base_score": str}, "gradient_booster": {"name": "gbtree" | "dart" | "gblinear", "trees": int},
        "categories": {feature index: [its values]}}, "config": {...} (only of a pickled booster, else {})}.
        "categories" is what version 3.1 and later write for categorical columns.
    lightgbm-text
        {"version": "v4", "objective": "binary sigmoid:1", "num_class": 1, "max_feature_idx": 3, "feature_names": [str],
        "feature_infos": [str] ("[0:1]", "none", "1:2:3" for categories), "pandas_categorical": [[values]], "trees": int,
        "parameters": {str: str} (of the [name: value] lines at the end), "header": {every key of the header: str}}
    catboost-cbm, catboost-json
        {"release": "1.2.10" | None, "features": [{"name": str, "kind": "number" | "category" | "text" | "embedding", "nullable": bool,
        "borders": [float]}] (in the order of the columns), "class_names": [values], "params": {...} (all of them, as trained),
        "info": {every key of model_info}, "trees": int, "dimension": int (answers a row)}
    onnx
        {"producer_name": str, "producer_version": str, "ir_version": int, "domain": str, "doc": str, "opsets": {"": 21, "ai.onnx.ml": 3},
        "inputs": [{"name": str, "dtype": "float32", "shape": [None, 4]}], "outputs": likewise, "nodes": {"TreeEnsembleClassifier": 1},
        "last": ["Softmax"] (the operator that computes each output, behind those that only change its form; "" for none),
        "strings": {"cats_strings": [[str]], "classlabels_strings": [[str]]}, "integers": {"classlabels_int64s": [[int]],
        "cats_int64s": [[int]]} (one inner list a node that has it; at most 10,000 values each),
        "metadata": {str: str}, "external_data": [file names]}. dtype is numpy's name of it, "string" for text.
        A dimension without a fixed size is None. An input that is not a tensor has the
        dtype "sequence", "map", "optional" or "sparse" and the shape []. Inputs that are initializers too are left out.
    keras
        {"keras_version": str, "date_saved": str, "class": "Sequential", "layers": [{"class": str, "name": str}],
        "inputs": [{"name": str, "dtype": str, "shape": [None, 4]}], "code": [names of the layers that hold code: Lambda],
        "custom": [names of classes and functions that are no part of Keras]}
    torchscript
        {"code": [paths of its code files], "forward": "forward(self, x: Tensor) -> Tensor" | ""}
    pt2
        {"torch_version": str | None, "inputs": [{"name": str, "dtype": str, "shape": [None, 4]}]}
    safetensors
        {"tensors": {name: {"dtype": "F32", "shape": [2, 3]}}, "metadata": {str: str}}
    python
        {"doc": str, "functions": [{"name": str, "line": int, "doc": str, "parameters": [{"name": str, "annotation": str | None,
        "default": str | None}], "returns": str | None, "answers": bool (it has a `return` with a value)}], "public": [the names in
        `__all__`] | None, "classes": [str], "imports": [module names]}; annotations as written
    json
        the value itself
    hdf5, tflite, gguf
        {}: recognised only
    """


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


STATED_LABELS = "stated_labels"
"""In a card's details: its classes are the labels that whoever packs the model stated, and the model itself does not know them."""
STATED_IMAGE = "stated_image"
"""In a card's details: what whoever packs the model stated of the pictures that it takes, as `modelport.preprocessing.stated` gives it."""


def instances(root: Any, *classes: str) -> Iterator[Instance]:
    """Every `Instance` in `root`, nearest first, each once; only those whose cls is one of `classes` when some are given.

    Goes through states, arguments, items, mappings, lists, tuples, dicts, sets and arrays of objects.
    """
    waiting, seen = deque([root]), set()
    while waiting:
        value = waiting.popleft()
        if isinstance(value, (str, bytes, int, float)) or id(value) in seen:
            continue
        if isinstance(value, Instance):
            seen.add(id(value))
            if not classes or value.cls in classes:
                yield value
            waiting.extend((value.state, value.args, value.items, value.mapping))
        elif isinstance(value, dict):
            seen.add(id(value))
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple, set, frozenset)):
            seen.add(id(value))
            waiting.extend(value)
        elif isinstance(value, np.ndarray) and value.dtype == object:
            seen.add(id(value))
            waiting.extend(value.ravel().tolist())


@cache
def threads() -> int:
    """How many threads a model's library computes with, for libraries that must be told: as many as OMP_NUM_THREADS tells the others.

    `modelport serve` sets that variable for its workers. One where it is not set: a service has many small calls to make, and several
    threads make a single row slower in most libraries.
    """
    return threads_in(os.environ) or 1


def threads_in(environment: Mapping[str, str]) -> int | None:
    """What OMP_NUM_THREADS says in an environment, of nested levels the outermost; None where it says no number.

    https://gcc.gnu.org/onlinedocs/libgomp/OMP_005fNUM_005fTHREADS.html
    """
    first = environment.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isascii() and first.isdecimal() and int(first) else None


class Caller(Protocol):
    """How a model that is loaded is described, called and kept: the part of a framework that needs the model."""

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


class Framework(Caller, Protocol):
    """What a module must offer to be a framework. `modelport.testing` proves that one does.

    One whose models stand in pickles as bytes of its own format may offer `rebuild(contents, card)` too: the model in the pickle that
    `contents` describes, made of these bytes. Then its pickles are never loaded. `inert(card)` says of which files it takes values alone,
    so that they may name whatever they will: nothing of it is imported, and no code in them is run.

    One that can write a model as ONNX may offer `graph(model, card, signature)`: the bytes of a graph that takes and gives what `predict`
    does, with inputs and outputs in the signature's order, pictures as their pixels (uint8), and {"inputs": [names of the fields]} as JSON
    in its metadata under "modelport". NotConverted says why there is none. The gate of `modelport.conversion` decides whether it is served.
    """

    def imports(self) -> frozenset[str]:
        """The "module.name"s that a pickle of this framework may import without being trusted by hand.

        With "()" behind the name, it may be called with arguments, too: "numpy.dtype()".
        """
        ...

    def detect(self, contents: Contents) -> Card | None:
        """The model's card when `contents` is of this framework, else None. Must not import the library."""
        ...

    def load(self, path: Path, card: Card) -> Any:
        """The model in `path`, in memory. The caller has checked trust and version. ModelFileError when it does not load."""
        ...

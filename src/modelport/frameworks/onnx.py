"""ONNX: graphs that onnxruntime computes, with tabular inputs as fields, pictures, and classifiers' outputs as labels and probabilities."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from modelport.errors import ModelFileError
from modelport.frameworks import STATED_LABELS, Card, Contents, scoring, tabular, threads
from modelport.frameworks.scoring import Scoring
from modelport.signature import Columns, Field, Kind, Signature

_DTYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(int64)": "int64",
    "tensor(int32)": "int32", "tensor(int16)": "int16", "tensor(int8)": "int8", "tensor(uint8)": "uint8", "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32", "tensor(uint64)": "uint64", "tensor(bool)": "bool", "tensor(string)": "object",
}  # fmt: skip
_LARGE = 8_000_000
"""Of graphs larger than this, in bytes, memory is given back that is not needed."""
_TEXT_NODES = frozenset({"TfIdfVectorizer", "Tokenizer", "StringNormalizer"})


@dataclass(frozen=True)
class _Input:
    name: str
    dtype: str
    shape: tuple[int, ...]
    """Of one row; -1 for a size that is free."""
    columns: int
    """How many fields it takes; 0 when it is a field of its own."""
    flat: bool
    """Whether its shape is (rows,), with no axis for columns."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A session and what it takes and gives."""

    session: Any
    path: Path
    inputs: tuple[_Input, ...]
    roles: tuple[str, ...]
    """What each output of the graph is, in their order: "prediction", "probabilities", "score", or its own name."""
    one_by_one: bool
    """Whether the graph takes a single row at a time."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What Modelport's own conversion says of its graphs: the names of the fields in "inputs", what a string that is missing is called in
    "null", and the fields whose texts go in in lower case in "lower"; for pictures with several labels "labels" and the "threshold" above
    which one counts. Empty for any other graph."""
    last: str = ""
    """The operator that computes the first output."""
    labels: tuple[str, ...] = ()
    """What whoever packed the graph calls the elements of its first output."""

    @cached_property
    def scoring(self) -> Scoring:
        """What the first output of a graph with stated labels holds."""
        return _scoring(self)

    @cached_property
    def free(self) -> int:
        """What to take for a size that is free when the graph is tried: networks for pictures of any size do not take a single pixel."""
        return _free(self)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The fields that it takes, in order."""
        if self.about:
            return tuple(self.about["inputs"])
        return tuple(name for one in self.inputs for name in _names(self, one))


def imports() -> frozenset[str]:
    """Nothing: an ONNX file is no pickle."""
    return frozenset()


def detect(contents: Contents) -> Card | None:
    """A graph in an ONNX file."""
    if contents.format != "onnx":
        return None
    root = contents.root
    known = root["strings"] | root["integers"]
    labels = [values for key in ("classlabels_strings", "classlabels_int64s") for values in known.get(key, ())]
    sizes = [one["shape"] for one in root["inputs"]]
    matrix = len(sizes) == 1 and len(sizes[0]) == 2
    named = len(sizes) > 1
    return Card(
        "onnx",
        "onnx.ModelProto",
        "onnxruntime",
        features=tuple(one["name"] for one in root["inputs"]) if named else (),
        feature_count=sizes[0][1] if matrix else len(sizes) or None,
        classes=tabular.labels(labels[0]) if labels else (),
        details={
            "producer": f"{root['producer_name']} {root['producer_version']}".strip(),
            "opsets": dict(root["opsets"]),
            "nodes": dict(root["nodes"]),
            "last": list(root["last"]),
            "external_data": list(root["external_data"]),
        },
    )


def load(path: Path, card: Card) -> Loaded:
    """The graph in a session on the CPU. ModelFileError when onnxruntime does not take it."""
    labels = card.classes if card.details.get(STATED_LABELS) else ()
    try:
        return replace(_open(path), last=next(iter(card.details.get("last", ())), ""), labels=labels)
    except ModelFileError:
        raise
    except Exception as error:
        raise _refused(path.name, error) from error


def _refused(name: str, error: Exception) -> ModelFileError:
    text = tabular.first_line(error)
    if "locale" in str(error):
        return ModelFileError(
            f"{name} wants a locale that this machine does not have: {text}",
            hint="Convert it with the option locale='C' of skl2onnx's text converter, or install the locale.",
        )
    if "opset" in str(error) or "IR version" in str(error):
        return ModelFileError(f"{name} is newer than the installed onnxruntime: {text}", hint="pip install --upgrade onnxruntime")
    return ModelFileError(f"onnxruntime does not take {name}: {text}", hint="Check it with onnx.checker.check_model, or export it again.")


def _open(path: Path) -> Loaded:
    # From version 1.32 on it keeps an id of the machine on disk, and reports to its maker what runs, unless it is told not to.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    ort = tabular.library("onnxruntime", "onnxruntime", "onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads(), 1
    # threads that wait for work would turn in circles, on cores that other workers and the event loop need
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # 4 is fatal alone: what is wrong is raised too, and some exporters' shapes draw a warning at each call
    options.log_severity_level = 4
    large = path.stat().st_size > _LARGE
    # the arena keeps the memory of the largest call; networks pay less than a twentieth of their time for giving it back
    options.enable_cpu_mem_arena = not large
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    if large:
        _give_back()
    given, gives = session.get_inputs(), session.get_outputs()
    about = json.loads(session.get_modelmeta().custom_metadata_map.get("modelport", "{}"))
    return Loaded(
        session=session,
        path=path,
        inputs=tuple(_input(one, alone=len(given) == 1) for one in given),
        roles=(*(["prediction"] if "threshold" in about else []), *(one.name for one in gives)) if about else _roles(gives),
        one_by_one=any(one.shape[:1] == [1] for one in given),
        about=about,
    )


def _give_back() -> None:
    """Give back to the system what was needed to read a graph, several times its size, and is free: glibc keeps it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _roles(given: Any) -> tuple[str, ...]:
    """A label with probabilities or with a score behind it is a classifier's or an outlier detector's answer, as converters write them."""
    names = [one.name for one in given]
    if len(given) > 1 and given[0].type in ("tensor(int64)", "tensor(string)", "tensor(int32)", "tensor(bool)"):
        if given[1].type.startswith("seq(map(") or "prob" in names[1].lower():
            return ("prediction", "probabilities", *names[2:])
        if names[1] in ("score", "scores") and given[1].shape[1:] == [1]:
            return ("prediction", "score", *names[2:])
    return ("prediction", *(name if name != "prediction" else "prediction_1" for name in names[1:]))


def _input(given: Any, *, alone: bool) -> _Input:
    if given.type not in _DTYPES:
        what = f"input {given.name!r} of the graph is a {given.type}; Modelport takes tensors"
        raise ModelFileError(what, hint="Export it with tensors alone.")
    shape = tuple(size if isinstance(size, int) else -1 for size in given.shape[1:])
    width = shape[0] if len(shape) == 1 else 1 if not shape else 0
    columns = max(width, 0) if alone or width == 1 else 0
    return _Input(given.name, _DTYPES[given.type], shape, columns, flat=not shape)


def describe(model: Loaded, card: Card) -> Signature:
    """The signature of a graph. A single matrix (rows, k) is k fields; an input of one value a row is a field; any other is a tensor.

    What it answers is found by asking it once with a row of zeros. The labels of a classifier stand in the file, in its answer, or were
    stated: then its numbers are `Scoring`. SignatureError where they are not as many as the labels.
    """
    nodes = set(card.details.get("nodes", ()))
    nullable = _takes_missing(model, nodes)
    inputs = []
    for one in model.inputs:
        kind = _kind(one.dtype, text=bool(_TEXT_NODES & nodes))
        if not one.columns:
            inputs.append(Field(one.name, "tensor", dtype=one.dtype, shape=one.shape))
            continue
        for name in _names(model, one):
            dtype = one.dtype if kind == "number" else None
            inputs.append(Field(name, kind, dtype=dtype, nullable=nullable and kind == "number"))
    return Signature(tuple(inputs), _outputs(model, card.classes))


def _kind(dtype: str, *, text: bool) -> Kind:
    if dtype == "object":
        return "text" if text else "string"
    if dtype == "bool":
        return "boolean"
    return "number" if dtype.startswith("float") else "integer"


def _names(model: Loaded, one: _Input) -> tuple[str, ...]:
    """The fields that an input takes."""
    return tabular.numbered(one.columns) if len(model.inputs) == 1 and one.columns > 1 else (one.name,)


def _takes_missing(model: Loaded, nodes: set[str]) -> bool:
    """Whether the graph was made to take missing values: it imputes, or boosted trees were converted that know where NaN goes.

    Any graph computes something of NaN; here it must be a number as well.
    """
    boosted = model.session.get_modelmeta().producer_name in ("OnnxMLTools", "CatBoost") and "TreeEnsembleClassifier" in nodes | {
        node.replace("Regressor", "Classifier") for node in nodes
    }
    if "Imputer" not in nodes and not boosted:
        return False
    answers = _run(model, _zeros(model, 1, missing=True))
    return all(answer.dtype.kind != "f" or bool(np.isfinite(answer).all()) for answer in map(_array, answers))


def _free(model: Loaded) -> int:
    for size in (1, 32, 224):
        try:
            _run(model, _zeros(model, size))
        except Exception as error:  # noqa: BLE001 whatever onnxruntime raises means that it cannot compute this
            problem = tabular.first_line(error)
        else:
            return size
    raise ModelFileError(f"{model.path.name} does not compute a row of zeros: {problem}", hint="Does onnxruntime compute it elsewhere?")


def _zeros(model: Loaded, free: int, *, missing: bool = False) -> dict[str, Any]:
    """A row of zeros, empty texts, or missing values; with `free` in place of a size that may be any."""
    feed = {}
    for one in model.inputs:
        fill: Any = "" if one.dtype == "object" else np.nan if missing and one.dtype.startswith("float") else 0
        feed[one.name] = np.full((1, *(size if size > 0 else free for size in one.shape)), fill, dtype=one.dtype)
    return feed


def _outputs(model: Loaded, classes: tuple[Any, ...]) -> tuple[Field, ...]:
    if model.labels:
        scores = tabular.vector(model.scoring.name, model.labels, dtype="float32")
        return (tabular.label(model.labels), scores, *_fields(_run(model, _zeros(model, model.free))[1:], model.roles[1:], ()))
    return _fields(_run(model, _zeros(model, model.free)), model.roles, classes)


def _fields(raw: list[Any], roles: tuple[str, ...], classes: tuple[Any, ...]) -> tuple[Field, ...]:
    if "probabilities" in roles:
        chances = raw[1]
        labels = tuple(chances[0]) if isinstance(chances, list) else classes
        classes = labels if len(labels) == _array(chances).shape[1] else ()
    fields = []
    for role, answer in zip(roles, map(_array, raw), strict=True):
        if role == "prediction" and "probabilities" in roles and classes:
            fields.append(tabular.label(classes))
        elif role == "prediction" and "score" in roles:
            fields.append(tabular.label((1, -1)))
        elif answer.ndim == 2:
            fields.append(tabular.vector(role, classes if role == "probabilities" else (), answer.shape[1], str(answer.dtype)))
        elif answer.ndim > 2:
            fields.append(Field(role, "tensor", dtype=str(answer.dtype), shape=answer.shape[1:]))
        elif answer.dtype.kind == "f":
            fields.append(Field(role, "number", dtype=str(answer.dtype)))
        else:
            fields.append(Field(role, _kind(str(answer.dtype), text=False)))
    return tuple(fields)


def predict(model: Loaded, columns: Columns, signature: Signature) -> Columns:
    """The answers as arrays called by the names that `describe` gave the outputs."""
    if not model.about:  # what we convert takes the pixels themselves
        columns = _with_tensors(columns, signature)
    first = model.inputs[0]
    matrix = tabular.matrix_of(columns, model.names, signature) if first.columns > 1 else None
    if matrix is not None:
        return _answers(model, _run(model, {first.name: matrix.astype(first.dtype, copy=False)}))
    names = model.names
    arrays = iter(tabular.ordered(columns, names, signature))
    feed: dict[str, Any] = {}
    for one in model.inputs:
        mine = [next(arrays) for _ in range(one.columns or 1)]
        if one.dtype == "object" and model.about:
            mine = [_texts(model, names[len(feed)], array) for array in mine]
        rows = mine[0] if one.flat or not one.columns else np.stack(mine, axis=1) if len(mine) > 1 else mine[0].reshape(-1, 1)
        if rows.ndim == 4 and len(one.shape) == 2:  # grey pictures for a graph without an axis for channels
            rows = rows[..., 0]
        feed[one.name] = rows.astype(one.dtype, copy=False)
    return _answers(model, _run(model, feed))


def _with_tensors(columns: Columns, signature: Signature) -> Columns:
    """The columns with what the graph takes of pictures in place of their pixels."""
    taken = {field.name: field.preprocessing for field in signature.inputs if field.preprocessing is not None}
    return {**columns, **{name: how.tensor(columns[name]) for name, how in taken.items()}} if taken else columns


def _answers(model: Loaded, raw: list[Any]) -> Columns:
    """What the graph gave, by the names of the outputs."""
    if "threshold" in model.about:
        chosen = tabular.chosen(model.about["labels"], raw[0], model.about["threshold"])
        return {"prediction": chosen, **dict(zip(model.roles[1:], map(_array, raw), strict=True))}
    if not model.labels:
        return dict(zip(model.roles, map(_array, raw), strict=True))
    scores = scoring.scored(raw[0], model.scoring, len(model.labels))
    return {
        "prediction": tabular.chosen(model.labels, scores),
        model.scoring.name: scores,
        **dict(zip(model.roles[1:], map(_array, raw[1:]), strict=True)),
    }


def _scoring(model: Loaded) -> Scoring:
    """What they are: by what computes them, and by what they are for a row of zeros and one of noise."""
    rng = np.random.default_rng(0)
    zeros = _zeros(model, model.free)
    noise = {name: row if row.dtype == object else rng.integers(0, 2, row.shape).astype(row.dtype) for name, row in zeros.items()}
    seen = np.concatenate([scoring.numbers(_run(model, feed)[0]) for feed in (zeros, noise)])
    return scoring.of(seen, len(model.labels), sigmoid=model.last == "Sigmoid")


def _texts(model: Loaded, name: str, column: tabular.Array) -> tabular.Array:
    """A column of strings as a converted graph takes it: with a word for what is missing, and lower case where its words are."""
    texts = [model.about["null"] if text is None else text for text in column.tolist()]
    if name in model.about["lower"]:
        texts = [text.lower() for text in texts]
    return np.array(texts, dtype=object)


def _run(model: Loaded, feed: dict[str, Any]) -> list[Any]:
    """What the graph gives for each output: an array, or the list of dicts that a ZipMap makes."""
    rows = len(next(iter(feed.values())))
    if not model.one_by_one or rows == 1:
        return list(model.session.run(None, feed))
    each = [model.session.run(None, {name: array[row : row + 1] for name, array in feed.items()}) for row in range(rows)]
    return [list(chain(*parts)) if isinstance(parts[0], list) else np.concatenate(parts) for parts in zip(*each, strict=True)]


def _array(answer: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """An output as an array: probabilities out of dicts by label; a column of one value a row without its second axis."""
    if isinstance(answer, list):
        return np.array([list(row.values()) for row in answer], dtype=np.float32)
    array = np.asarray(answer)
    return array.ravel() if array.ndim == 2 and array.shape[1] == 1 else array


def save(model: Loaded, card: Card, folder: Path) -> str | None:
    """The graph as it is: ONNX holds no code."""
    shutil.copyfile(model.path, folder / "model.onnx")
    for name in card.details.get("external_data", ()):
        shutil.copyfile(model.path.parent / name, folder / name)
    return "model.onnx"


def requirements(model: Loaded, card: Card) -> tuple[str, ...]:
    """What it needs: onnxruntime and numpy."""
    return ("onnxruntime", "numpy")

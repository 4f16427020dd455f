"""scikit-learn: estimators and pipelines, in pickles, joblib and skops files."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from modelport.errors import MissingLibrary, ModelFileError
from modelport.frameworks import Card, Contents, Instance, allowed, instances, tabular, threads
from modelport.frameworks.portable import estimators
from modelport.plugins import framework
from modelport.signature import Columns, Field, Kind, Signature

_SKOPS_FACTOR, _SKOPS_BYTES = 4, 2_000_000
"""A skops file is kept when it has at most four times the bytes of the pickle and 2 MB more."""


def imports() -> frozenset[str]:
    """The names that a pickle of a scikit-learn model may import; pipelines hold models of the other libraries too."""
    return allowed.names("sklearn", "xgboost", "lightgbm", "catboost", "scipy", "pandas", "joblib")


def detect(contents: Contents) -> Card | None:
    """An estimator, a pipeline, or a class of one's own that is a scikit-learn estimator, in a pickle, joblib or skops file."""
    root = contents.root
    if not isinstance(root, Instance) or root.cls.split(".")[0] in estimators.OTHERS:
        return None
    own = root.cls.startswith("__main__.") or root.get("n_features_in_") is not None
    if not (own or root.cls.startswith("sklearn.") or root.get("_sklearn_version")) or root.cls.startswith("sklearn.utils."):
        return None
    first, last = list(_way(root, 0)), list(_way(root, -1))
    names = _first_of(first, "feature_names_in_")
    count = _first_of(first, "n_features_in_")
    shape = root.get("shape_fit_")
    if count is None and isinstance(shape, tuple) and len(shape) == 2:
        count = shape[1]
    classes = _first_of(last, "classes_")
    version = _first_of(list(instances(root)), "_sklearn_version")
    return Card(
        "sklearn",
        root.cls,
        "scikit-learn",
        version=version if isinstance(version, str) else None,
        features=tuple(map(str, tabular.labels(names))),
        feature_count=tabular.whole(count) or None,
        classes=tabular.labels(classes),
        details=_details(root),
    )


def _way(held: Any, step: int) -> Iterator[Instance]:
    """An estimator and what it leads to: the best one of a search, the first or last step of a pipeline."""
    seen = set()
    while isinstance(held, Instance) and id(held) not in seen:
        seen.add(id(held))
        yield held
        steps = held.get("steps")
        pair = steps[step] if isinstance(steps, list) and steps else None
        held = pair[1] if isinstance(pair, tuple) and len(pair) == 2 else held.get("best_estimator_")


def _first_of(found: Sequence[Instance], attribute: str) -> Any:
    return next((value for value in (one.get(attribute) for one in found) if value is not None), None)


def _details(root: Instance) -> dict[str, Any]:
    """The steps of a pipeline, the best one of a search, the number of trees, and the version of another library's model in it."""
    details: dict[str, Any] = {}
    for one in instances(root):
        if one.cls.split(".")[0] in estimators.OTHERS:
            carried = tabular.embedded(one, "xgboost-ubj", "xgboost-json", "catboost-cbm")
            header = carried["root"] if carried is not None else {}
            release = header.get("release") or ".".join(map(str, header.get("version", ())))
            details |= {one.cls.split(".")[0]: release} if release else {}
    for one in _way(root, -1):
        steps, trees = one.get("steps"), one.get("estimators_")
        if one is not root and "steps" not in details:
            details["best"] = one.cls.rpartition(".")[2]
        if isinstance(steps, list):
            held = [step[1] for step in steps if isinstance(step, tuple) and len(step) == 2]
            details["steps"] = [step.cls.rpartition(".")[2] if isinstance(step, Instance) else str(step) for step in held]
        elif isinstance(trees, list) and one.get("n_estimators") is not None:
            details["trees"] = len(trees)
    return details


# Loading


def load(path: Path, card: Card) -> Any:
    """The estimator in a pickle, joblib or skops file.

    VersionMismatch when another version of scikit-learn wrote it, ModelFileError when it does not load.
    """
    tabular.library("sklearn", "scikit-learn", "sklearn")
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    model = _from_skops(path, card) if is_zip else tabular.unpickled(path, card)
    estimators.use_threads(model, threads())
    return model


def _from_skops(path: Path, card: Card) -> Any:
    skops = tabular.library("skops.io", "skops", "sklearn")
    with tabular.of_one_version(path, card):
        try:
            return skops.load(path, trusted=skops.get_untrusted_types(file=path))
        except Exception as error:
            raise tabular.not_loaded(path, error) from error


# Describing


def describe(model: Any, card: Card) -> Signature:
    """The signature of an estimator: its columns as its steps know them, and what it answers.

    An estimator that knows neither the names nor the number of its columns has no inputs: a sample or a schema must say them.
    """
    view = _view(model)
    if view.takes in estimators.OTHERS:
        described: Signature = framework(view.takes).describe(view.last, card)
        return described
    try:
        return signature_of(view.columns, estimators.outputs(view))
    except ModuleNotFoundError as error:
        raise MissingLibrary(f"the model needs {error.name}, which is not installed", hint="pip install 'modelport[sklearn]'") from error


def signature_of(columns: Sequence[estimators.Column], outputs: Sequence[estimators.Output]) -> Signature:
    """The signature of an estimator, here or in a child process, with these columns and outputs."""
    inputs = (
        Field(one.name, cast("Kind", one.kind), nullable=bool(one.nullable), choices=one.choices, example=one.example) for one in columns
    )
    answers = (Field(one.name, cast("Kind", one.kind), dtype=one.dtype, shape=one.shape, choices=one.choices) for one in outputs)
    return Signature(tuple(inputs), tuple(answers))


@tabular.PerModel
def _view(model: Any) -> estimators.View:
    """How a model is called, found out once."""
    try:
        return estimators.view(model, _columns_of_another, estimators.OTHERS)
    except estimators.NotServed as error:
        raise ModelFileError(error.message, hint=error.hint) from error


def _columns_of_another(model: Any) -> Sequence[Any]:
    """What the framework of a model of another library tells of its columns."""
    name = estimators.package(model)
    described: Signature = framework(name).describe(model, Card(name, "", ""))
    return described.inputs


# Predicting


def predict(model: Any, columns: Columns, signature: Signature) -> Columns:
    """The answers as arrays called by the names that `describe` gave the outputs."""
    view = _view(model)
    if view.takes in estimators.OTHERS:
        return framework(view.takes).predict(view.last, columns, signature)
    names = view.names or tuple(field.name for field in signature.inputs)
    try:
        return estimators.answers(view, estimators.rows(view, tabular.ordered(columns, names, signature), names))
    except estimators.NotServed as error:
        raise ModelFileError(error.message, hint=error.hint) from error


# Saving


def save(model: Any, card: Card, folder: Path) -> str | None:
    """The model as skops, when skops is installed, trusts all its types and does not make it much larger than a pickle; else None.

    The same model gives the same bytes: skops names the parts of a file by their addresses in memory; here they are counted.
    """
    data = _as_skops(model)
    if data is None:
        return None
    (folder / "model.skops").write_bytes(data)
    return "model.skops"


def _as_skops(model: Any) -> bytes | None:
    if find_spec("skops") is None or any(
        hasattr(part, "tree_") or hasattr(part, "_predictors") or estimators.package(part) != "sklearn" for part in estimators.parts(model)
    ):
        # trees are not trusted by skops, and finding that out takes it minutes for a large forest
        return None
    import skops.io

    for part in estimators.parts(model):
        vars(part).pop("_stop_words_id", None)  # an address in memory, that a vectorizer keeps once it has been called
    try:
        data = skops.io.dumps(model)
        if skops.io.get_untrusted_types(data=data):
            return None
    except Exception:  # noqa: BLE001 whatever it cannot hold, it is not the format for this model
        return None
    if len(data) > _SKOPS_FACTOR * len(pickle.dumps(model)) + _SKOPS_BYTES:
        return None
    return _reproducible(data)


def _reproducible(data: bytes) -> bytes:
    """A skops file with its ids and names counted from 0, no dates, and its members in order."""
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        members = {name: source.read(name) for name in source.namelist()}
    ids: dict[int, int] = {}
    names: dict[str, str] = {}

    def counted(node: Any) -> Any:
        if isinstance(node, list):
            return [counted(one) for one in node]
        if not isinstance(node, dict):
            return node
        out = {key: counted(one) for key, one in node.items()}
        if isinstance(out.get("__id__"), int):
            out["__id__"] = ids.setdefault(out["__id__"], len(ids))
        if out.get("file") in members:
            out["file"] = names.setdefault(out["file"], f"{len(names)}{Path(out['file']).suffix}")
        return out

    schema = json.dumps(counted(json.loads(members.pop("schema.json"))))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as written:
        for name, content in [("schema.json", schema.encode()), *((names[name], content) for name, content in members.items())]:
            written.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def requirements(model: Any, card: Card) -> tuple[str, ...]:
    """The distributions of every estimator in it; pandas where columns go by name; skops where it is saved so."""
    view = _view(model)
    parts = list(estimators.parts(model))
    packages = {estimators.package(part) for part in parts} | {"sklearn", "numpy"}
    functions = [part.func for part in parts if type(part).__name__ == "FunctionTransformer"]
    packages |= {str(getattr(function, "__module__", "")).split(".")[0] for function in functions}
    if view.takes == "frame":
        packages.add("pandas")
    if _as_skops(model) is not None:
        packages.add("skops")
    return tabular.distributions(packages)

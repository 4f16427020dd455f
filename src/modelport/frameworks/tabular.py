"""What the frameworks of tabular models share: columns as a matrix or a frame, labels as output fields, libraries and pickles opened."""

from __future__ import annotations

import importlib
import pickle
import re
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from modelport.errors import MissingLibrary, ModelFileError, SignatureError, VersionMismatch
from modelport.frameworks import Card, Contents, Instance
from modelport.frameworks.portable.tables import frame as frame
from modelport.frameworks.portable.tables import matrix as matrix
from modelport.frameworks.portable.tables import numbered as numbered
from modelport.frameworks.portable.tables import plain as plain
from modelport.frameworks.portable.tables import rounded as rounded
from modelport.signature import Columns, Field, MatrixColumns, Signature

Model = TypeVar("Model")
View = TypeVar("View")
Array = np.ndarray[Any, np.dtype[Any]]


class PerModel(Generic[View]):
    """What a function made of a model, kept for as long as the model lives, so that a prediction does not pay for it again.

    Models are told apart by identity: some libraries' models cannot be hashed.
    """

    def __init__(self, make: Callable[[Any], View]) -> None:
        self._make = make
        self._kept: dict[int, tuple[weakref.ref[Any], View]] = {}
        self.__doc__ = make.__doc__

    def __call__(self, model: Any) -> View:
        key = id(model)
        kept = self._kept.get(key)
        if kept is not None and kept[0]() is model:
            return kept[1]
        view = self._make(model)
        self._kept[key] = (weakref.ref(model, lambda _: self._kept.pop(key, None)), view)
        return view


# Libraries and files


def library(module: str, distribution: str, extra: str) -> Any:
    """The imported library. MissingLibrary tells one that is not installed from one that is installed and does not import."""
    if find_spec(module) is None:
        raise MissingLibrary(f"{distribution} is not installed", hint=f"pip install 'modelport[{extra}]'")
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise MissingLibrary(
            f"{distribution} is installed and does not import: {type(error).__name__}: {first_line(error)}",
            hint=f"Install it anew: pip install --force-reinstall {distribution}",
        ) from error


def unpickled(path: Path, card: Card) -> Any:
    """The object in a pickle or joblib file, compressed or not. Runs what the pickle says: the caller has checked that it may.

    VersionMismatch as `of_one_version`; ModelFileError, with the cause in one line, when it does not load.
    """
    with of_one_version(path, card):
        try:
            return _unpickled(path)
        except Exception as error:
            raise _not_loaded(path, card, error) from error


@contextmanager
def of_one_version(path: Path, card: Card) -> Iterator[None]:
    """While a model is loaded: VersionMismatch when scikit-learn finds a part that another minor version of it wrote.

    One that is not the card's, that is, which the caller has seen and accepted. What else a library warns of while it loads is of no use to
    who serves the model, and is dropped.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    accepted = _minor(card.version or "pre-0.18")
    for warning in (one.message for one in told):
        wrote, here = getattr(warning, "original_sklearn_version", None), getattr(warning, "current_sklearn_version", None)
        if card.library == "scikit-learn" and wrote and _minor(wrote) not in (_minor(str(here)), accepted):
            raise VersionMismatch(
                f"{path.name} was written by scikit-learn {wrote}, you have {here}: its answers may differ",
                hint=f"Install that version: pip install scikit-learn=={wrote}",
            )


def _unpickled(path: Path) -> Any:
    if find_spec("joblib") is not None:
        import joblib

        return joblib.load(path)
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301 the caller has checked what it would import


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _not_loaded(path: Path, card: Card, error: Exception) -> ModelFileError:
    """Why a pickle did not load, in words."""
    text = first_line(error)
    wrote = f" {card.version}" if card.version else ""
    lost = re.search(r"Can't get attribute '(?P<name>[^']+)' on <module '(?P<module>[^']+)'", text) or re.match(
        r"module '(?P<module>[^']+)' has no attribute '(?P<name>[^']+)'$", text
    )
    if lost:
        name, module = lost["name"], lost["module"]
        if module in ("__main__", "__mp_main__"):
            return ModelFileError(
                f"{path.name} needs {name!r}, which was defined in the script or notebook that trained the model",
                hint="Put its definition into a module and bring that along: --code my_code.py",
            )
        return ModelFileError(
            f"{path.name} needs {module}.{name}, which the installed {module.split('.')[0]} does not have",
            hint=f"It was written with another version; {card.library}{wrote} wrote the model.",
        )
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.split(".")[0]
        if top != error.name and find_spec(top) is not None:
            return ModelFileError(
                f"{path.name} needs the module {error.name}, which the installed {top} does not have",
                hint=f"It was written with another version; {card.library}{wrote} wrote the model.",
            )
        return ModelFileError(
            f"{path.name} needs the module {error.name!r}, which is not here",
            hint=f"Install the package that has it, or bring your own file along: --code {top}.py",
        )
    if isinstance(error, EOFError | pickle.UnpicklingError):
        return ModelFileError(f"{path.name} is cut short or damaged: {text or type(error).__name__}", hint="Copy or save it again.")
    return ModelFileError(
        f"{path.name} does not load: {type(error).__name__}: {text}",
        hint=f"It was written by {card.library}{wrote}; load it with the library versions that it was trained with." if wrote else "",
    )


def not_loaded(path: Path, error: Exception) -> ModelFileError:
    """Why a file in a library's own format did not load."""
    return ModelFileError(f"{path.name} does not load: {type(error).__name__}: {first_line(error)}", hint="Copy or save it again.")


def distributions(packages: Iterable[str]) -> tuple[str, ...]:
    """The distributions that packages come from, sorted; those of one's own code and of Python itself are left out."""
    from importlib.metadata import packages_distributions

    known = packages_distributions()
    return tuple(sorted({known[package][0] for package in packages if package in known}))


def embedded(instance: Any, *formats: str) -> Mapping[str, Any] | None:
    """The model in a library's own format that a pickled object carries in its state; None when it carries none.

    It is what `Contents` puts in its place: {"format", "raw", "root"}.
    """
    state = instance.state if isinstance(instance, Instance) and isinstance(instance.state, dict) else {}
    return next((value for value in state.values() if isinstance(value, dict) and value.get("format") in formats), None)


def not_carried(contents: Contents, card: Card) -> ModelFileError:
    """Why no model could be rebuilt from a pickle: the object in it has not been trained, or carries no bytes that are known."""
    name = card.cls.rpartition(".")[2]
    root = contents.root
    booster = root if root.cls.endswith((".Booster", ".CatBoost")) else root.get("_Booster", root)
    if not any(
        isinstance(value, bytes | bytearray | str | dict) and len(value) > 32 for value in (getattr(booster, "state", None) or {}).values()
    ):
        return ModelFileError(f"this {name} has not been trained", hint="Call its fit, then save it.")
    return ModelFileError(
        f"{contents.path.name} holds a {name} in a form that {card.library} has given up",
        hint="Load it with the version that wrote it, and save it in the library's own format: save_model.",
    )


def pickled(path: Path, card: Card) -> ModelFileError:
    """Why a pickle is not loaded by a library whose models are rebuilt from the bytes in it."""
    return ModelFileError(
        f"{path.name} is a pickle, and {card.library} models are not unpickled",
        hint=f"`modelport pack {path.name}` rebuilds the model from the bytes in it.",
    )


MAX_CLASSES = 100_000
"""More classes than any model has: a file that speaks of more is damaged, or made to be."""


def labels(classes: Any) -> tuple[Any, ...]:
    """The class labels in what a file holds for them, as plain values; none when it holds anything but a list of such."""
    values = plain(classes) if isinstance(classes, np.ndarray | list | tuple) and len(classes) <= MAX_CLASSES else ()
    return values if all(isinstance(value, str | int | float) for value in values) else ()


def whole(text: Any) -> int:
    """The integer that a header of a file gives, as a number or in digits; 0 when it is none."""
    return int(text) if isinstance(text, int | np.integer) or (isinstance(text, str) and text.isdecimal() and len(text) < 10) else 0


def check_fitted(model: Any) -> None:
    """ModelFileError when a model has not been trained."""
    asked = getattr(model, "__sklearn_is_fitted__", None) or getattr(model, "is_fitted", None)
    if asked is not None and not asked():
        raise ModelFileError(f"this {type(model).__name__} has not been trained", hint="Call its fit, then save it.")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 300 characters of it."""
    return next(iter(str(error).strip().splitlines()), "")[:300]


# Columns in


def ordered(columns: Columns, names: Sequence[str], signature: Signature) -> list[Array]:
    """The arrays of `columns` in the order of the model's own `names`: by name, or by position where the signature has other names.

    SignatureError when the signature has neither these names nor as many fields.
    """
    try:
        return [columns[name] for name in names]
    except KeyError:
        if len(signature.inputs) != len(names):
            shown = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
            raise SignatureError(
                f"the model takes {len(names)} columns ({shown}), the signature has {len(signature.inputs)}",
                hint="State a field for each column of the model.",
            ) from None
        return [columns[field.name] for field in signature.inputs]


def matrix_of(columns: Columns, names: Sequence[str], signature: Signature) -> Array | None:
    """The matrix (rows, columns) whose columns are what `ordered` gives; None where they are not those of one."""
    if not isinstance(columns, MatrixColumns) or len(columns) != len(names):
        return None
    in_order = all(map(str.__eq__, columns, names)) or not all(name in columns for name in names)
    return columns.matrix if in_order and len(signature.inputs) == len(names) else None


def codes(array: Array, numbers: Mapping[Any, int]) -> Array:
    """A column's values as the numbers of their categories; NaN for what has none."""
    return np.array([numbers.get(value, np.nan) for value in array.tolist()], dtype=np.float64)


# Fields


def label(classes: Sequence[Any], name: str = "prediction") -> Field:
    """The output that names one of `classes`."""
    return Field(name, "category", choices=tuple(classes))


def several(classes: Sequence[str], name: str = "prediction") -> Field:
    """The output that lists some of `classes`, or none."""
    return Field(name, "json", schema={"type": "array", "items": {"enum": list(classes)}, "uniqueItems": True})


def chosen(classes: Sequence[Any], chances: Array, threshold: float | None = None) -> Array:
    """For each row of `chances` (rows, classes) the likeliest class; with a threshold the list of all that are above it."""
    if threshold is None:
        return np.asarray(np.array(classes, dtype=object)[chances.argmax(axis=1)])
    found = np.empty(len(chances), dtype=object)
    for index, row in enumerate((chances > threshold).tolist()):
        found[index] = [name for name, high in zip(classes, row, strict=True) if high]
    return found


def number(name: str, dtype: str) -> Field:
    """The field that holds one value of this dtype a row: a number, an integer or a boolean."""
    return Field(name, "number", dtype=dtype) if dtype.startswith("float") else Field(name, "boolean" if dtype == "bool" else "integer")


def answered(name: str, answer: Array) -> Field:
    """The output of which `answer` (rows, ...) is an example: one value a row, several, or a tensor."""
    dtype, shape = str(answer.dtype), answer.shape[1:]
    if shape in ((), (1,)):
        return number(name, dtype)
    return vector(name, (), shape[0], dtype) if len(shape) == 1 else Field(name, "tensor", dtype=dtype, shape=shape)


def vector(name: str, names: Sequence[Any] = (), size: int = 0, dtype: str = "float64") -> Field:
    """An output of several numbers a row: named, or of `size`."""
    return Field(name, "number", dtype=dtype, shape=(len(names) or size,), choices=tuple(names))


def both_classes(second: Array) -> Array:
    """Probabilities of the second of two classes, (rows,), as those of both, (rows, 2)."""
    return np.column_stack((1.0 - second, second))

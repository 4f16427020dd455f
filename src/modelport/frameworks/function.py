"""Python functions that answer for themselves, in a .py file: their annotations and docstrings are the signature.

    def load():                    runs once, when the file is loaded; what it returns is the first argument of each function
    def predict(loaded, x: float, kind: Literal["a", "b"] = "a") -> float:
    def predict_batch(loaded, columns):     answers for predict where it is there: a mapping of name to numpy array in, arrays out

Served are `predict` and every other public function whose parameters and return are annotated: those in `__all__`, or without an underscore
before their name. They may be async. While the file runs and `load` does, the current folder is the file's own.
"""

from __future__ import annotations

import ast
import asyncio
import hashlib
import inspect
import os
import sys
import threading
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from importlib.metadata import packages_distributions
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

import numpy as np

from modelport.errors import InvalidInput, ModelContract, ModelFileError, ModelportError, SignatureError
from modelport.frameworks import Card, Contents
from modelport.frameworks.annotations import MISSING, Record, Scalar, Value, member, unreadable, value_of
from modelport.frameworks.docstrings import described
from modelport.signature import Columns, Field, Signature, WrongValue, to_array

LOAD, BATCH, PREDICT = "load", "predict_batch", "predict"
TAKEN = frozenset({"docs", "invocations", "livez", "metrics", "models", "ping", "readyz", "static", "v1", "v2"})
"""Paths that a service has already: no function can be asked there."""


def imports() -> frozenset[str]:
    """Nothing: a .py file is no pickle. It runs as it is."""
    return frozenset()


def detect(contents: Contents) -> Card | None:
    """The card of a .py file that defines functions: of `predict` when there is one, else of the first that is served.

    Its details name the other functions that are served, and those that are not although they are public.
    """
    if contents.format != "python":
        return None
    functions = {function["name"]: function for function in contents.root["functions"]}
    load = functions.pop(LOAD, None)
    functions.pop(BATCH, None)
    named = contents.root["public"]
    public = [name for name in functions if (name in named if named is not None else not name.startswith("_"))]
    passed = load is not None and load["answers"]
    served = [name for name in public if name == PREDICT or _is_typed(functions[name], passed=passed)]
    if not public:
        return None
    chosen = functions[PREDICT if PREDICT in served else (served or public)[0]]
    names = tuple(parameter["name"] for parameter in chosen["parameters"][1 if passed else 0 :])
    details: dict[str, Any] = {"signature": _signature(chosen), "doc": described(chosen["doc"])[0]}
    if load is not None:
        details["load"] = "passed" if passed else "called"
    others = [name for name in served if name != chosen["name"]]
    left_out = [name for name in public if name not in served and name != chosen["name"]]
    details |= {key: some for key, some in (("other_functions", others), ("not_served", left_out)) if some}
    return Card("function", f"{contents.path.stem}.{chosen['name']}", "", None, names, len(names), details=details)


def _is_typed(function: Mapping[str, Any], *, passed: bool) -> bool:
    """Whether all it takes and gives is annotated, and it gives something."""
    parameters = function["parameters"][1 if passed else 0 :]
    return function["returns"] not in (None, "None") and all(parameter["annotation"] for parameter in parameters)


def _signature(function: Mapping[str, Any]) -> str:
    """As it is written: "predict(a: float, b: int = 3) -> float"."""
    parameters = []
    for parameter in function["parameters"]:
        annotation = f": {parameter['annotation']}" if parameter["annotation"] else ""
        default = f" = {parameter['default']}" if parameter["default"] else ""
        parameters.append(f"{parameter['name']}{annotation}{default}")
    returns = f" -> {function['returns']}" if function["returns"] else ""
    return f"{function['name']}({', '.join(parameters)}){returns}"


@dataclass(frozen=True)
class Function:
    """A function of a loaded file, with what its annotations say."""

    name: str
    doc: str
    call: Callable[..., Any]
    batch: Callable[..., Any] | None
    loaded: tuple[Any, ...]
    """What `load` returned, as the first argument; () where that is not passed."""
    parameters: tuple[Parameter, ...]
    record: Record | None
    """The class of the only parameter, whose fields are the inputs; None where the parameters are."""
    returns: Value
    module: ModuleType
    signature: Signature
    is_async: bool


@dataclass(frozen=True)
class Parameter:
    """A parameter: its name, what is known of its value, and whether it is passed by position."""

    name: str
    value: Value
    by_position: bool


def load(path: Path, card: Card) -> Function:
    """The function that the card names, of the file at `path`, which runs once for all its functions.

    ModelFileError, with the line, for what it or its `load` raises. SignatureError for annotations that say nothing a field can hold.
    """
    name = card.cls.rpartition(".")[2]
    if name in TAKEN:
        hint = "Call it by another name; or leave it out of __all__, or put an underscore before it, if it is not for callers."
        raise SignatureError(f"{path.name} has a function {name!r}, and a service answers at /{name} itself", hint=hint)
    loaded = _run(path, passed=card.details.get("load") == "passed")
    call = getattr(loaded.module, name, None)
    if not callable(call):
        raise ModelFileError(f"{path.name} has no function {name!r} once it has run")
    doc, about = described(inspect.getdoc(call))
    if loaded.passed:
        _check_passed(call, loaded.passed[0])
    given = _parameters(call, skip=len(loaded.passed), about=about)
    only = given[0].value if len(given) == 1 and isinstance(given[0].value, Record) else None
    returns = _returns(call, name)
    return Function(
        name,
        doc,
        call,
        getattr(loaded.module, BATCH, None) if name == PREDICT else None,
        loaded.passed,
        given,
        only,
        returns,
        loaded.module,
        _described(name, given, only, returns),
        inspect.iscoroutinefunction(inspect.unwrap(call)),
    )


def describe(model: Function, card: Card) -> Signature:
    """Inputs by the parameters, or by the fields of the only one when it is a record; outputs by what is returned.

    A record that is returned has its fields as outputs; anything else is one output, called "prediction", or by the function's name where
    that is another than predict.
    """
    return model.signature


def _described(name: str, parameters: Sequence[Parameter], record: Record | None, returns: Value) -> Signature:
    values = list(record.members.values()) if record else [parameter.value for parameter in parameters]
    if _is_outputs(returns):
        outputs = [one.field for one in returns.members.values()]
    else:
        outputs = [replace(returns.field, name="prediction" if name == PREDICT else name)]
    return Signature(tuple(value.field for value in values), tuple(map(_as_output, outputs)))


def _is_outputs(returns: Value) -> TypeGuard[Record]:
    """Whether what is returned is a record whose fields are the outputs."""
    return isinstance(returns, Record) and not returns.field.nullable


def predict(model: Function, columns: Columns, signature: Signature) -> Columns:
    """What the function answers to each row, or its `predict_batch` to all of them.

    InvalidInput for what is wrong inside records and lists, or what the function raises as such; ModelContract when what it returns is not
    what it is annotated to.
    """
    outputs = model.signature.outputs
    if model.batch is not None:
        return _batch_answers(model, model.batch(*model.loaded, columns), outputs)
    calls = [_arguments(model, row) for row in _rows(columns, signature)]
    made = [model.call(*positional, **named) for positional, named in calls]
    rows = [_record(model, outputs, answer) for answer in (_await_all(made) if model.is_async else made)]
    return {output.name: _column(output, [row[output.name] for row in rows]) for output in outputs}


def save(model: Function, card: Card, folder: Path) -> None:
    """Nothing: the file is kept as it is."""


def requirements(model: Function, card: Card) -> tuple[str, ...]:
    """The distributions of what the file imports, and the modules beside it."""
    folder = Path(model.module.__file__ or "").resolve().parent
    files = {Path(model.module.__file__ or "").resolve()}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py") and Path(file).resolve().is_relative_to(folder):
            files.add(Path(file).resolve())
    names = {name for file in files for name in _imported(file)} - sys.stdlib_module_names - {file.stem for file in files} - {"modelport"}
    known = packages_distributions()
    return tuple(sorted({known[name][0] for name in names if name in known}))


def _imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


# The file


@dataclass(frozen=True)
class _Loaded:
    module: ModuleType
    passed: tuple[Any, ...]


_files: dict[tuple[str, bytes], _Loaded] = {}
_running = threading.RLock()


def _run(path: Path, *, passed: bool) -> _Loaded:
    """The file as a module, and what its `load` returned; both once for all functions of the same file."""
    source = path.read_bytes()
    key = (str(path.resolve()), hashlib.sha256(source).digest())
    with _running:
        if key not in _files:
            with _in_folder(path.resolve().parent), _told(path):
                module = _module(path.resolve(), key[1].hex()[:16])
                load = getattr(module, LOAD, None)
                answer = _await_all([load()])[0] if inspect.iscoroutinefunction(load) else load() if callable(load) else None
            _files[key] = _Loaded(module, (answer,) if passed else ())
        return _files[key]


def _module(path: Path, digest: str) -> ModuleType:
    """Under a name that no other file has: two services may well both be called service.py."""
    name = f"{path.stem}_{digest}"
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    """While a file runs: its folder is the current one, and the modules beside it are imported.

    Nothing is written beside it, now or when it imports something later: a bundle never changes.
    """
    before = os.getcwd()  # noqa: PTH109  as it is, and not resolved
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """ModelFileError for what a file raises when it runs, with the line of it."""
    try:
        yield
    except ModelportError:
        raise
    except SyntaxError as error:
        raise ModelFileError(f"{Path(error.filename or path).name}, line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        lines = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == path.resolve().parent]
        where = f"{Path(lines[-1].filename).name}, line {lines[-1].lineno}" if lines else path.name
        hint = ""
        if isinstance(error, ModuleNotFoundError):
            hint = "Install it, or put the module beside the file."
        elif isinstance(error, FileNotFoundError):
            hint = "Files that the code reads come along with --include FILE, or include = [...] in modelport.toml."
        elif isinstance(error, SystemExit):
            hint = 'It ends the program when it is loaded: put what is for the command line below `if __name__ == "__main__":`.'
        raise ModelFileError(f"{where}: {type(error).__name__}: {error}", hint=hint) from error


# What the annotations say


def _parameters(call: Callable[..., Any], *, skip: int, about: Mapping[str, str]) -> tuple[Parameter, ...]:
    hints = _hints(call)
    parameters = list(inspect.signature(call).parameters.values())[skip:]
    found = []
    for parameter in parameters:
        where = f"{call.__name__}(): {parameter.name}"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            hint = "Name each of them: its name is the field's."
            raise SignatureError(f"{call.__name__}() takes any number of arguments, in {str(parameter)!r}", hint=hint)
        absent = MISSING if parameter.default is parameter.empty else parameter.default
        if parameter.name in hints:
            value = value_of(hints[parameter.name], where)
        elif type(absent) in (bool, int, float, str):
            value = value_of(type(absent), where)
        else:
            value = Scalar(Field("", "unknown"))
        value = member(value, parameter.name, absent, about.get(parameter.name, ""), where)
        found.append(Parameter(parameter.name, value, parameter.kind is parameter.POSITIONAL_ONLY))
    return tuple(found)


def _check_passed(call: Callable[..., Any], answer: Any) -> None:
    """SignatureError when the function has no parameter for what `load` returned, or one that is an input by its annotation."""
    first = next(iter(inspect.signature(call).parameters.values()), None)
    name = call.__name__
    if first is None or first.kind not in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
        what = f"{name}() has no parameter for what {LOAD}() returns"
    else:
        hint = _hints(call).get(first.name)
        kind = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
        if kind not in (bool, int, float, str, date, datetime) or isinstance(answer, kind):
            return
        given = f"{name}() gets what {LOAD}() returns, a {type(answer).__name__}, as its first argument"
        what = f"{given}, and {first.name!r} is annotated {kind.__name__}"
    raise SignatureError(what, hint=f"Give it a parameter for that before its inputs; or let {LOAD}() set globals and return nothing.")


def _returns(call: Callable[..., Any], name: str) -> Value:
    hints = _hints(call)
    if hints.get("return") in (None, type(None)):
        raise SignatureError(
            f"{name}() does not say what it returns",
            hint="Annotate it: -> float, -> str, a dataclass or TypedDict with a field for each output, or a list of them.",
        )
    return value_of(hints["return"], f"what {name}() returns")


def _hints(call: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(inspect.unwrap(call), include_extras=True)
    except Exception as error:
        raise unreadable(f"the annotations of {call.__name__}()", error) from error


def _as_output(field: Field) -> Field:
    """A field as what comes out: what it was limited to as an input, or when it was left out, is no matter."""
    return replace(field, default=None, example=None)


# Calls


def _rows(columns: Columns, signature: Signature) -> Iterator[list[Any]]:
    """The rows of columns as plain Python values, None for null: as `signature.check` gives them."""
    return map(list, zip(*(_values(field, columns[field.name]) for field in signature.inputs), strict=True))


def _values(field: Field, column: np.ndarray[Any, np.dtype[Any]]) -> list[Any]:
    values = [part.tolist() if isinstance(part, np.ndarray) else part for part in column.tolist()]
    if field.nullable and column.dtype.kind == "f" and not field.shape:
        values = [None if value != value else value for value in values]
    if field.kind == "integer" and not field.shape:
        values = [value if value is None else int(value) for value in values]
    return values


def _arguments(model: Function, row: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments for one row, by position and by name. InvalidInput lists what is wrong inside records and lists."""
    errors: list[Any] = []
    if model.record is not None:
        made = [model.record.build(row, (), errors)]
    else:
        pairs = zip(model.parameters, row, strict=True)
        made = [parameter.value.make(value, (parameter.value.field.name,), errors) for parameter, value in pairs]
    if errors:
        raise InvalidInput(errors)
    positional = [value for parameter, value in zip(model.parameters, made, strict=True) if parameter.by_position]
    named = {parameter.name: value for parameter, value in zip(model.parameters, made, strict=True) if not parameter.by_position}
    return [*model.loaded, *positional], named


def _record(model: Function, outputs: Sequence[Field], answer: Any) -> dict[str, Any]:
    """What the function returned as JSON values by output. ModelContract when it is not what is annotated."""
    try:
        if _is_outputs(model.returns):
            given = model.returns.plain(answer)
            return {output.name: given.get(output.name) for output in outputs}
        return {outputs[0].name: model.returns.plain(answer)}
    except WrongValue as wrong:
        raise ModelContract(f"{model.name}() returned what it is not annotated to: {wrong}") from wrong


def _column(output: Field, values: Sequence[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    if output.kind in ("number", "integer", "boolean") and not output.shape:
        return to_array(output, values)
    column = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        column[row] = value
    return column


def _batch_answers(model: Function, answer: Any, outputs: Sequence[Field]) -> Columns:
    """What `predict_batch` returned: a mapping of output to its values, or the values of an only output, one a row."""
    if not isinstance(answer, Mapping):
        if len(outputs) > 1:
            names = ", ".join(output.name for output in outputs)
            raise ModelContract(f"{BATCH}() returned a {type(answer).__name__}; expected a mapping with {names}")
        answer = {outputs[0].name: answer}
    values = list(model.returns.members.values()) if _is_outputs(model.returns) else [model.returns]
    columns = {}
    for output, value in zip(outputs, values, strict=True):
        given = answer.get(output.name)
        if given is None or isinstance(given, str | bytes) or not hasattr(given, "__len__"):
            raise ModelContract(f"{BATCH}() returned no values for {output.name!r}")
        try:
            columns[output.name] = _column(output, [value.plain(one) for one in given])
        except WrongValue as wrong:
            raise ModelContract(f"{BATCH}() returned for {output.name!r} what {PREDICT} is not annotated to: {wrong}") from wrong
    return columns


class _Loop:
    """An event loop on a thread of its own, for functions that are async; made when the first is called."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="async functions", daemon=True).start()


_loops: list[_Loop] = []


def _await_all(coroutines: Sequence[Any]) -> list[Any]:
    """What the coroutines return; they run at the same time."""

    async def gathered() -> list[Any]:
        return list(await asyncio.gather(*coroutines))

    with _running:
        if not _loops:
            _loops.append(_Loop())
    return asyncio.run_coroutine_threadsafe(gathered(), _loops[0].loop).result()

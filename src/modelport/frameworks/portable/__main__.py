"""The child process in which a model is loaded, asked and converted: `python -I __main__.py FD MEMORY CPU_SECONDS`.

It reads requests from the socket FD and writes an answer to each, see `wire`. Before it opens anything it limits itself: memory, time
and sizes of files by the system's limits, and the network by a namespace that has none where the system allows it, else by refusing
sockets in Python. Who started it ends it, whatever it does.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

_NAME = "_modelport_portable"
_LARGEST_FRAME = 1 << 32
_LARGEST_FILE = 1 << 28
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_VERSIONS = re.compile(r"from version (\S+) when using version (\S+?)\.?(\s|$)")


def _limit(memory: int, seconds: int) -> None:
    """Bound this process, where the system can: macOS has no limit of the address space."""
    import resource

    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, _LARGEST_FILE),
        (resource.RLIMIT_AS, memory),
    ):
        try:
            resource.setrlimit(what, (most, most))
        except (ValueError, OSError):
            continue


def _leave_network() -> None:
    """Go where there is no network: the interfaces of a new namespace are all down. Else no socket is made by Python."""
    if sys.platform.startswith("linux"):
        import ctypes

        unshare = getattr(ctypes.CDLL(None, use_errno=True), "unshare", None)
        user, group = os.getuid(), os.getgid()
        if unshare is not None and unshare(_NEW_NETWORK) == 0:
            return
        if unshare is not None and unshare(_NEW_USER | _NEW_NETWORK) == 0:
            for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
                try:
                    Path("/proc/self", name).write_text(text)
                except OSError:  # files are opened by the same ids without it; only their names are lost
                    continue
            return
    refuse_sockets()


def refuse_sockets() -> None:
    """Let Python make no socket from now on, which is less than to have no network: native code is not asked."""
    if hasattr(sys, "addaudithook"):
        sys.addaudithook(_refuse)
        return
    import _socket
    import socket

    def refused(*args: Any, **kwargs: Any) -> Any:
        _refuse("socket.__new__", args)

    for module in (socket, _socket):  # before 3.8 there are no hooks
        for name in ("socket", "SocketType", "getaddrinfo"):
            setattr(module, name, refused)


def _refuse(event: str, args: Any) -> None:
    if event in ("socket.__new__", "socket.connect", "socket.getaddrinfo"):
        raise PermissionError("a model has no business on the network")


def _package() -> None:
    """Make the folder of this file a package under a name that no model has, so that its files find each other and nothing else does."""
    package = ModuleType(_NAME)
    package.__path__ = [str(Path(__file__).resolve().parent)]
    sys.modules[_NAME] = package


def _part(name: str) -> Any:
    """A file of this folder, imported; nothing is written beside it."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        return importlib.import_module(f"{_NAME}.{name}")
    finally:
        sys.dont_write_bytecode = before


class _Told(Exception):
    """What is answered in place of an answer: a kind of error and its words."""

    def __init__(self, kind: str, text: str, **more: str) -> None:
        super().__init__(text)
        self.answer = {"kind": kind, "text": text, **more}


class _Child:
    """The model that is loaded, and what can be asked of it: each public method is a verb."""

    def __init__(self) -> None:
        self._kind = ""
        self._model: Any = None
        self._view: Any = None

    def load(self, kind: str, path: str, code: str | None = None, vendored: bool = False) -> dict[str, Any]:
        """Load a model file: of the kind "sklearn" any pickle, joblib or skops file, else one in the library's own format.

        `vendored` is whether the joblib that came along with scikit-learn before 0.21 wrote it, which alone reads its arrays.
        """
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            if code:
                _bring(code)
            self._model = _load_sklearn(path, vendored) if kind == "sklearn" else _LOADERS[kind](path)
        self._kind = kind
        for warning in told:
            _check_versions(type(warning.message).__name__, str(warning.message))
        return {}

    def describe(self) -> dict[str, Any]:
        """The columns that a scikit-learn model takes, what it answers, and the versions of what has computed an answer."""
        estimators = _part("estimators")
        estimators.use_threads(self._model, 1)
        self._view = estimators.view(self._model)
        return {
            "columns": [vars(column) for column in self._view.columns],
            "outputs": [vars(output) for output in estimators.outputs(self._view)],
            "versions": _versions(),
        }

    def predict(self, arrays: Any, names: Any) -> dict[str, Any]:
        """The answers of a scikit-learn model to columns, by the names of its outputs."""
        estimators = _part("estimators")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {"answers": estimators.answers(self._view, estimators.rows(self._view, arrays, names))}

    def boundaries(self, columns: Any) -> dict[str, Any]:
        """Rows made from the model itself, by the names of the columns."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {"rows": _part("boundaries").rows(self._kind, self._model, columns)}

    def convert(self, columns: Any, precision: str) -> dict[str, Any]:
        """The model as an ONNX graph."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = _part("to_onnx").convert(self._kind, self._model, columns, precision)
        return {"graph": graph}


def _load_sklearn(path: str, vendored: bool) -> Any:
    with Path(path).open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    if is_zip:
        import skops.io

        return skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
    if vendored:
        from sklearn.externals import joblib
    else:
        import joblib
    return joblib.load(path)


def _load_xgboost(path: str) -> Any:
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(path)
    return booster


def _load_lightgbm(path: str) -> Any:
    import lightgbm

    return lightgbm.Booster(model_file=path)


def _load_catboost(path: str) -> Any:
    import catboost

    return catboost.CatBoost().load_model(path, format="json" if path.endswith(".json") else "cbm")


_LOADERS = {"xgboost": _load_xgboost, "lightgbm": _load_lightgbm, "catboost": _load_catboost}


def _bring(code: str) -> None:
    """Import the modules in the folder `code`, and put their names where a notebook or script would have them: in `__main__`."""
    script = ModuleType("__main__")
    sys.path.insert(0, code)
    sys.dont_write_bytecode = True
    for file in sorted(Path(code).glob("*.py")):
        for key, value in vars(importlib.import_module(file.stem)).items():
            if not key.startswith("__"):
                vars(script).setdefault(key, value)
    sys.modules["__main__"] = script


def _check_versions(name: str, text: str) -> None:
    """A library that finds parts of another version of itself in the file warns; answers with those parts may be wrong."""
    if name != "InconsistentVersionWarning" and not text.startswith("Trying to unpickle"):
        return
    found = _VERSIONS.search(text)
    wrote, here = (found.group(1), found.group(2)) if found else ("", "")
    # before 0.18 no version was written: what came just after is all there is to go by
    if wrote != "pre-0.18" and (not found or wrote.split(".")[:2] != here.split(".")[:2]):
        raise _Told("version", text.split("\n")[0])


def _versions() -> dict[str, str]:
    """The versions of Python and of the libraries that are loaded by now."""
    names = {"sklearn": "scikit-learn"}
    wanted = ("sklearn", "numpy", "scipy", "pandas", "xgboost", "lightgbm", "catboost", "onnx", "skl2onnx", "onnxmltools")
    found = {name: getattr(sys.modules.get(name), "__version__", None) for name in wanted}
    found_here = {names.get(name, name): str(version) for name, version in found.items() if version}
    return {"python": ".".join(map(str, sys.version_info[:2])), **found_here}


def _answer(child: _Child, request: Any) -> bytes:
    """The frame that answers a request, or that tells the error."""
    estimators, wire = _part("estimators"), _part("wire")
    try:
        answer = getattr(child, request["verb"])(**request["body"])
        return bytes(wire.dump({"id": request["id"], "answer": answer}))
    except _Told as told:
        error = told.answer
    except estimators.NotServed as not_served:
        error = {"kind": "not-served", "text": not_served.message, "hint": not_served.hint}
    except ModuleNotFoundError as missing:
        error = {"kind": "module", "text": str(missing), "module": missing.name or ""}
    except MemoryError:
        error = {"kind": "memory", "text": "it takes more memory than is allowed"}
    except BaseException as raised:  # noqa: BLE001 also what ends a process: whatever the model raises is told
        text = next(iter(str(raised).strip().splitlines()), "")[:300]
        kind = "not-converted" if any(cls.__name__ == "NotConverted" for cls in type(raised).__mro__) else "raised"
        error = {"kind": kind, "text": text, "type": type(raised).__name__}
    return bytes(wire.dump({"id": request["id"], "error": error}))


def _written(fd: int, frame: bytes) -> None:
    view = memoryview(frame)
    while view:
        view = view[os.write(fd, view[: 1 << 20]) :]


def main() -> None:
    """Answer requests until there are no more."""
    fd, memory, seconds = (int(word) for word in sys.argv[1:4])
    os.set_inheritable(fd, False)
    _leave_network()
    _limit(memory, seconds)
    _package()
    wire = _part("wire")
    child = _Child()
    while True:
        frame = wire.receive(lambda size: os.read(fd, size), _LARGEST_FRAME)
        if frame is None:
            os._exit(0)
        _written(fd, _answer(child, wire.load(frame)))


if __name__ == "__main__":
    main()

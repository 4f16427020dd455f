"""A model in a process of its own, of whichever Python fits it: loaded, asked and converted there, and never here.

What runs there is `modelport.frameworks.portable`. Both sides speak JSON over a socket, so nothing that the child says runs anything here.
A child that dies, hangs, prints or answers nonsense is ended, and gives one error.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from modelport.errors import ModelFailed, ModelFileError, ModelportError, VersionMismatch
from modelport.frameworks import Card, tabular
from modelport.frameworks.portable import __file__ as _portable
from modelport.frameworks.portable import wire
from modelport.frameworks.portable.estimators import Column, Output
from modelport.frameworks.portable.graphs import NeedsConverter, NotConverted
from modelport.frameworks.sklearn import signature_of
from modelport.signature import Columns, Signature

MEMORY = 4 * 1024**3
"""The address space that a child may take, and twenty times the model's size on top."""
CPU_S = 600
"""The time on a processor that a child may take in all."""
SECONDS: Mapping[str, float] = {"load": 120.0, "describe": 60.0, "predict": 120.0, "boundaries": 120.0, "convert": 300.0}
"""How long the answer to each verb may take."""
_LARGEST_ANSWER = 1 << 31
_KEPT = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ")
"""What a child sees of the environment: no keys, no addresses."""


class ModuleMissing(ModelFileError):
    """Raised when the model imports a module that the child's Python does not have."""

    def __init__(self, message: str, module: str) -> None:
        super().__init__(message)
        self.module = module


class Child:
    """A Python process with one model in it. A context manager: leaving it ends the process and all that it started."""

    def __init__(self, python: Path, *, size: int = 0, memory: int = MEMORY, cpu_s: int = CPU_S) -> None:
        """Start it. `size` is the model file's, in bytes."""
        self._socket, theirs = socket.socketpair()
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 closed with the child
        self._number = 0
        self.python = python
        command = [
            str(python),
            "-I",
            str(Path(_portable).with_name("__main__.py")),
            str(theirs.fileno()),
            str(memory + 20 * size),
            str(cpu_s),
        ]
        try:
            self._process = subprocess.Popen(  # noqa: S603 the words are ours, and no shell reads them
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                pass_fds=[theirs.fileno()],
                env=_environment(),
                start_new_session=True,
            )
        except OSError as error:
            self._socket.close()
            self._said.close()
            raise ModelFileError(f"{python} does not start: {error.strerror or error}", hint="Name another Python.") from None
        finally:
            theirs.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def ask(self, verb: str, *, seconds: float | None = None, **body: Any) -> dict[str, Any]:
        """What the child answers to `verb` (see `portable/__main__.py`), within `seconds`.

        VersionMismatch when the model holds parts of another version of its library; ModuleMissing; NotConverted for what has no form in
        ONNX; ModelFailed for what a model raises when it is asked; ModelFileError for all else, as when the child dies, does not answer or
        answers nonsense: it is ended then.
        """
        allowed = SECONDS[verb] if seconds is None else seconds
        self._number += 1
        try:
            said = self._exchange({"id": self._number, "verb": verb, "body": body}, time.monotonic() + allowed)
            if not isinstance(said, dict) or said.get("id") != self._number:
                raise wire.Nonsense("another answer than that to the question")
        except TimeoutError:
            self.close()
            raise ModelFileError(f"{_DOING[verb]} took longer than {allowed:g} s in its own process, which was ended") from None
        except wire.Nonsense as nonsense:
            self.close()
            raise ModelFileError(f"{_DOING[verb]} gave nonsense in its own process, which was ended: {nonsense}") from None
        except OSError:
            raise self._dead(verb) from None
        error, answer = said.get("error"), said.get("answer")
        if isinstance(error, dict):
            raise _raised(verb, error)
        if not isinstance(answer, dict):
            self.close()
            raise ModelFileError(f"{_DOING[verb]} gave nonsense in its own process, which was ended")
        return answer

    def _exchange(self, request: Mapping[str, Any], deadline: float) -> Any:
        """One frame there and one back. TimeoutError after the deadline, ConnectionError when there is nobody."""

        def read(size: int) -> bytes:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            return self._socket.recv(size)

        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        self._socket.sendall(wire.dump(request))
        frame = wire.receive(read, _LARGEST_ANSWER)
        if frame is None:
            raise ConnectionResetError
        return wire.load(frame)

    def _dead(self, verb: str) -> ModelFileError:
        """Why there is no child any more."""
        last = ""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        if not self._said.closed:
            self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - 4096))
            lines = [line.strip() for line in self._said.read(4096).decode("utf-8", "replace").splitlines() if line.strip()]
            last = f": {lines[-1][:200]}" if lines else ""
        self.close()
        code = self._process.returncode
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return ModelFileError(f"{_DOING[verb]} ended its process {how}{last}")

    def close(self) -> None:
        """End the process, and all that it has started in its session."""
        self._socket.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._said.close()


_DOING = {
    "load": "loading the model",
    "describe": "asking what the model takes",
    "predict": "asking the model",
    "boundaries": "making rows of the model",
    "convert": "converting the model",
}


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith("OPENBLAS_")}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT"), "1")
    return {**kept, **threads}


def _raised(verb: str, error: Mapping[str, Any]) -> ModelportError | NotConverted:
    """What the child says went wrong, as an error."""
    kind, text = error.get("kind"), str(error.get("text", ""))[:300]
    if kind == "version":
        return VersionMismatch(f"the model holds parts of other versions: {text}")
    if kind == "module":
        return ModuleMissing(f"{_DOING[verb]} needs the module {error.get('module')!r}, which is not there", str(error.get("module")))
    if kind == "not-served":
        return ModelFileError(text, hint=str(error.get("hint", "")))
    if kind == "not-converted":
        return NeedsConverter(text) if error.get("type") == "NeedsConverter" else NotConverted(text)
    if kind == "raised" and verb != "load":
        return ModelFailed(f"the model raised {error.get('type')}: {text}")
    what = f"{error.get('type')}: {text}" if kind == "raised" else text
    return ModelFileError(f"{_DOING[verb]} failed: {what}")


class Remote:
    """How a scikit-learn model in a child is described and called: what `frameworks.sklearn` is for one in this process.

    The model that goes with it in an `engines.Engine` is the child.
    """

    def __init__(self, child: Child, path: Path, code: Path | None = None, *, vendored: bool = False) -> None:
        """Let the child load the model in `path`, with the modules in the folder `code`. Raises as `Child.ask`.

        `vendored` is whether the joblib that came along with scikit-learn before 0.21 wrote the file.
        """
        self._child = child
        brought = str(code.resolve()) if code else None
        child.ask("load", kind="sklearn", path=str(path.resolve()), code=brought, vendored=vendored)
        described = child.ask("describe")
        try:
            self.versions = {str(name): str(version) for name, version in described["versions"].items()}
            self.python = self.versions["python"]
            self.columns = tuple(Column(**_tuples(one)) for one in described["columns"])
            self._described = signature_of(self.columns, [Output(**_tuples(one)) for one in described["outputs"]])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelFileError(f"{path.name} describes itself in nonsense: {tabular.first_line(error)}") from None

    def describe(self, model: Any, card: Card) -> Signature:
        """The signature as the model knows it."""
        return self._described

    def predict(self, model: Child, columns: Columns, signature: Signature) -> Columns:
        """The child's answers, by the names that `describe` gave the outputs."""
        names = tuple(column.name for column in self.columns) or tuple(field.name for field in signature.inputs)
        answers: Columns = model.ask("predict", arrays=tabular.ordered(columns, names, signature), names=names).get("answers", {})
        return answers

    def save(self, model: Any, card: Card, folder: Path) -> str | None:
        """There is no other format for it here: the file is kept as it came."""
        return None

    def requirements(self, model: Any, card: Card) -> tuple[str, ...]:
        """What its ONNX graph needs: of an old model nothing else is served."""
        return ("numpy", "onnxruntime")

    def boundaries(self, columns: Sequence[Mapping[str, Any]]) -> Mapping[str, Sequence[Any]]:
        """Rows made from the model itself, as `frameworks.portable.boundaries.rows`."""
        rows: Mapping[str, Sequence[Any]] = self._child.ask("boundaries", columns=list(columns)).get("rows", {})
        return rows

    def convert(self, columns: Sequence[Mapping[str, Any]], precision: str) -> bytes:
        """The model as an ONNX graph, as `frameworks.portable.to_onnx.convert`. NotConverted says why not."""
        graph = self._child.ask("convert", columns=list(columns), precision=precision).get("graph")
        if not isinstance(graph, bytes):
            raise ModelFileError(f"{_DOING['convert']} gave no graph")
        return graph


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields with tuples where JSON has lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}

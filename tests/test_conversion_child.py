"""A model in a child process answers as in this one; whatever its file does to the child, the caller gets one clear error."""

from __future__ import annotations

import fcntl
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from modelport import engines, packing
from modelport.conversion import environments
from modelport.conversion.child import Child, ModuleMissing, Remote
from modelport.errors import ModelFailed, ModelFileError, VersionMismatch
from modelport.frameworks import Card, portable
from modelport.frameworks.portable import wire
from modelport.signature import Field, Signature

PYTHON = Path(sys.executable)
CARD = Card("sklearn", "sklearn.Any", "scikit-learn")


@pytest.fixture
def child() -> Iterator[Child]:
    with Child(PYTHON) as made:
        yield made


class Payload:
    """A pickle of it calls `function` with `arguments` when it is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def running(source: str, tmp_path: Path) -> Path:
    """A pickle that runs Python `source` when it is loaded."""
    return written(Payload(exec, source), tmp_path)


def written(value: Any, tmp_path: Path) -> Path:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(value))
    return path


def load(child: Child, path: Path, seconds: float = 60) -> dict[str, Any]:
    return child.ask("load", kind="sklearn", path=str(path), seconds=seconds)


# Models


SKLEARN = (
    "iris_svc", "iris_svc_proba", "random_forest", "hist_gradient_boosting", "hist_gradient_boosting_numbers", "pipeline",
    "strict_pipeline", "grid_search", "multi_output", "multi_label", "isolation_forest", "kmeans", "text", "wide_200",
)  # fmt: skip


@pytest.mark.parametrize("name", SKLEARN)
def test_a_model_says_and_answers_the_same_in_a_child(name: str, tmp_path: Path, child: Child) -> None:
    path = models.write(name, tmp_path)
    here = packing.load(path, CARD)
    there = engines.engine_of(Remote(child, path), child, CARD)
    assert there.signature == here.signature
    columns = models.columns(models.MODELS[name]().frame)
    given = {field.name: columns[field.name] for field in here.signature.inputs}
    expected = here.predict(given)
    for output, answer in there.predict(given).items():
        np.testing.assert_array_equal(answer, expected[output])
        assert answer.dtype == expected[output].dtype or answer.dtype == object


def test_a_model_of_ones_own_brings_its_code(tmp_path: Path, child: Child) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "mine.py").write_text(
        "class Weighted:\n    def __init__(self, weight):\n        self.weight = weight\n"
        "    def predict(self, rows):\n        return rows.sum(axis=1) * self.weight\n"
    )
    script = (
        "import pickle, sys\nfrom mine import *\nWeighted.__module__ = '__main__'\npickle.dump(Weighted(2.0), open(sys.argv[1], 'wb'))\n"
    )
    path = tmp_path / "model.pkl"
    subprocess.run([sys.executable, "-c", script, path], cwd=code, check=True)
    with pytest.raises(ModelFileError, match="Can't get attribute 'Weighted'"):
        load(child, path)
    with Child(PYTHON) as other:
        remote = Remote(other, path, code)
        answer = remote.predict(other, {"a": np.array([1.5])}, Signature((Field("a", "number"),), ()))
        np.testing.assert_array_equal(answer["prediction"], [3.0])
    assert not list(code.glob("__pycache__"))


def test_parts_of_another_version_are_refused(child: Child) -> None:
    with pytest.raises(VersionMismatch, match=r"Trying to unpickle estimator SVC from version 1\.3\.2"):
        load(child, models.OLD / "scikit-learn-1.3.2" / "svc.pkl")


def test_a_module_that_is_not_there_is_named(tmp_path: Path, child: Child) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"cno_such_module.inner\nThing\n.")
    with pytest.raises(ModuleMissing, match="needs the module 'no_such_module'") as caught:
        load(child, path)
    assert caught.value.module == "no_such_module"


def test_a_file_that_is_no_pickle_is_one_line(tmp_path: Path, child: Child) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x04nonsense")
    with pytest.raises(ModelFileError, match="loading the model failed: ") as caught:
        load(child, path)
    assert "\n" not in caught.value.message


def test_what_a_model_raises_when_it_is_asked_is_told_and_the_child_lives_on(tmp_path: Path, child: Child) -> None:
    path = models.write("iris_svc", tmp_path)
    remote = Remote(child, path)
    signature = remote.describe(child, CARD)
    with pytest.raises(ModelFailed, match="the model raised ValueError"):
        remote.predict(child, {field.name: np.array([np.nan]) for field in signature.inputs}, signature)
    answer = remote.predict(child, {field.name: np.array([1.0]) for field in signature.inputs}, signature)
    assert answer["prediction"].tolist() == ["setosa"]


# Children that misbehave


def test_a_child_that_ends_at_once_is_told(tmp_path: Path, child: Child) -> None:
    with pytest.raises(ModelFileError, match="loading the model ended its process with exit code 3"):
        load(child, written(Payload(os._exit, 3), tmp_path))


def test_a_child_that_is_killed_or_aborts_is_told_with_its_last_words(tmp_path: Path, child: Child) -> None:
    source = "import os, sys; sys.stderr.write('Fatal: no more\\n'); sys.stderr.flush(); os.abort()"
    with pytest.raises(ModelFileError, match="ended its process by SIGABRT: Fatal: no more"):
        load(child, running(source, tmp_path))


def test_exit_in_a_pickle_is_an_error_as_any(tmp_path: Path, child: Child) -> None:
    with pytest.raises(ModelFileError, match="loading the model failed: SystemExit: 0"):
        load(child, written(Payload(sys.exit, 0), tmp_path))


def test_a_child_that_never_answers_is_ended(tmp_path: Path, child: Child) -> None:
    with pytest.raises(ModelFileError, match="took longer than 1 s in its own process, which was ended"):
        load(child, running("while True: pass", tmp_path), seconds=1)
    with pytest.raises(ModelFileError, match="ended its process by SIGKILL"):
        load(child, running("", tmp_path))


def test_what_a_child_prints_disturbs_nothing(tmp_path: Path, child: Child) -> None:
    load(child, running("import sys; print('x' * 1_000_000); print('y' * 1_000_000, file=sys.stderr)", tmp_path))


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b"\xff" * 64, "a frame of"),
        (b"\0" * 7 + b"\x02{]", "nonsense"),
        (wire.dump({"id": 99, "answer": {}}), "another answer"),
        (wire.dump([1]), "another answer"),
        (wire.dump({"id": 1, "answer": [1]}), "nonsense"),
        (wire.dump({"id": 1, "answer": {"array": "O", "shape": [7], "data": [1]}}), "nonsense"),
        (wire.dump({"id": 1, "answer": {"array": "|O8", "shape": [1], "data": "AAAA"}}), "no dtype of a frame"),
    ],
)
def test_an_answer_that_is_none_is_refused(frame: bytes, words: str, tmp_path: Path, child: Child) -> None:
    source = f"import os, sys; os.write(int(sys.argv[1]), {frame!r})"
    with pytest.raises(ModelFileError, match=words):
        load(child, running(source, tmp_path))


def test_a_model_that_describes_itself_in_nonsense_is_refused(tmp_path: Path, child: Child) -> None:
    frames = wire.dump({"id": 1, "answer": {}}) + wire.dump({"id": 2, "answer": {"columns": [{"kind": 7}]}})
    path = running(f"import os, sys; os.write(int(sys.argv[1]), {frames!r})", tmp_path)
    with pytest.raises(ModelFileError, match="describes itself in nonsense"):
        Remote(child, path)


def test_a_hundred_gigabytes_are_not_given(tmp_path: Path, child: Child) -> None:
    with pytest.raises(ModelFileError, match="takes more memory than is allowed"):
        load(child, written(Payload(bytearray, 100_000_000_000), tmp_path))


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
def test_there_is_no_network(family: str, tmp_path: Path, child: Child) -> None:
    with socket.socket(getattr(socket, family)) as server:
        server.bind(("::1" if family == "AF_INET6" else "127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        source = f"import socket; socket.socket(socket.{family}).connect({server.getsockname()[:2]!r})"
        with pytest.raises(ModelFileError, match=r"loading the model failed: (OSError|PermissionError)"):
            load(child, running(source, tmp_path))
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("python", [sys.executable, "3.7"])
def test_where_the_system_leaves_the_network_python_makes_no_socket(python: str) -> None:
    """As in a container that allows no namespaces: 3.7 has no audit hooks, and goes another way."""
    program = environments.interpreters().get(python, Path(python))
    if not program.is_file() and not os.environ.get("CI"):
        pytest.skip(f"there is no Python {python}")
    source = f"import runpy; runpy.run_path({str(Path(portable.__file__).with_name('__main__.py'))!r})['refuse_sockets']()\n"
    for attempt in (
        "import socket; socket.socket()",
        "import _socket; _socket.socket()",
        "import socket; socket.getaddrinfo('localhost', 1)",
    ):
        done = subprocess.run([program, "-I", "-c", source + attempt], capture_output=True, text=True, check=False)
        assert done.stderr.strip().endswith("PermissionError: a model has no business on the network")


def test_what_a_child_starts_ends_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    source = (
        f"import fcntl, os, signal\nready, done = os.pipe()\nif os.fork() == 0:\n    file = open({str(lock)!r}, 'w')\n"
        "    fcntl.flock(file, fcntl.LOCK_EX)\n    os.write(done, b'x')\n    signal.pause()\nos.read(ready, 1)\n"
    )
    with Child(PYTHON) as child:
        load(child, running(source, tmp_path))
        with lock.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # given once the process that held it is gone


def test_a_child_sees_no_keys_of_the_environment(tmp_path: Path, child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPORT_API_KEY", "secret")
    with Child(PYTHON) as other, pytest.raises(ModelFileError, match=r"AssertionError: \[\]"):
        load(other, running("import os; raise AssertionError([one for one in os.environ if 'KEY' in one])", tmp_path))


def test_a_python_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not start: No such file"):
        Child(tmp_path / "python")
    (tmp_path / "python").write_text("#!/bin/sh\necho no such python >&2\nexit 127\n")
    (tmp_path / "python").chmod(0o755)
    with Child(tmp_path / "python") as child, pytest.raises(ModelFileError, match="exit code 127: no such python"):
        load(child, models.OLD / "scikit-learn-1.3.2" / "svc.pkl")

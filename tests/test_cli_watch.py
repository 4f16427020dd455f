"""`modelport serve --watch` loads a file again when it changes; a mistake in it is told, and what was served stays."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from textwrap import dedent
from typing import Any

import httpx
import pytest

from modelport.cli.watch import Watch
from test_cli_serve import run, started


def test_a_file_has_changed_when_its_time_or_size_has_and_it_rests(tmp_path: Path) -> None:
    first, second = tmp_path / "a.py", tmp_path / "b.py"
    first.write_text("1")
    watch = Watch(lambda: [first, second])
    watch.begin()
    assert not watch.changed()
    first.write_text("22")
    assert not watch.changed(), "it may still be written to"
    assert watch.changed()
    assert watch.changed(), "nobody has read it"
    watch.begin()
    assert not watch.changed()
    second.write_text("new")
    assert [watch.changed(), watch.changed()] == [False, True]
    watch.begin()
    os.utime(first, ns=(1, 1))
    assert [watch.changed(), watch.changed()] == [False, True]
    watch.begin()
    first.unlink()
    assert [watch.changed(), watch.changed()] == [False, True]


@contextmanager
def watched(tmp_path: Path, *arguments: str) -> Iterator[tuple[httpx.Client, Queue[str]]]:
    """A client of the service, and what it says on its standard error, line by line."""
    with started(tmp_path, "serve", *arguments, "--watch", "--port", "0", "--workers", "1") as (process, _, url):
        said: Queue[str] = Queue()

        def listen() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                said.put(line.rstrip("\n"))

        threading.Thread(target=listen, daemon=True).start()
        # Each request has a connection of its own: one that is open stays with the old worker until that has let go of it.
        with httpx.Client(base_url=url, timeout=60, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)) as client:
            yield client, said


def until(said: Queue[str], words: str) -> str:
    """The next line with these words."""
    while True:
        line = said.get(timeout=100)
        if words in line:
            return line


def write(path: Path, source: str) -> None:
    """As editors do: the new file takes the place of the old one."""
    beside = path.with_suffix(".new")
    beside.write_text(source)
    beside.replace(path)


def test_a_change_is_served_a_mistake_is_told_and_the_old_stays(tmp_path: Path) -> None:
    service, helper = tmp_path / "service.py", tmp_path / "rates_to_watch.py"
    write(helper, "RATE = 2\n")
    write(service, "from rates_to_watch import RATE\n\ndef predict(x: float) -> float:\n    return RATE * x\n")
    with watched(tmp_path, "service.py") as (client, said):

        def answer(**record: Any) -> Any:
            return client.post("/predict", json=record).json()

        assert answer(x=3) == {"prediction": 6.0}
        write(helper, "RATE = 5\n")
        until(said, "served now: service")
        assert answer(x=3) == {"prediction": 15.0}

        write(service, "from rates_to_watch import RATE\n\ndef predict(x: float) -> float\n    return RATE * x\n")
        assert "service.py is no Python: line 3" in until(said, "not reloaded, and served as before")
        assert answer(x=3) == {"prediction": 15.0}
        write(service, "from rates_to_watch import RATE\n\nRATES = RATE['a']\n\ndef predict(x: float) -> float:\n    return RATE * x\n")
        assert "service.py, line 3: TypeError" in until(said, "not reloaded, and served as before")
        assert answer(x=3) == {"prediction": 15.0}

        source = "def predict(y: int, z: int = 1) -> int:\n    return y + z\n\ndef twice(y: int) -> int:\n    return 2 * y\n"
        write(service, source)
        until(said, "served now: service")
        assert answer(y=1) == {"prediction": 2}
        assert client.get("/twice?y=4").json() == {"twice": 8}


def test_code_that_ends_its_process_does_not_end_the_service(tmp_path: Path) -> None:
    service = tmp_path / "service.py"
    write(service, "def predict(x: int) -> int:\n    return x\n")
    with watched(tmp_path, "service.py") as (client, said):
        write(service, "import os\n\nos._exit(3)\n\ndef predict(x: int) -> int:\n    return x\n")
        assert "the process that loaded service.py has ended" in until(said, "not reloaded, and served as before")
        assert client.post("/predict", json={"x": 1}).json() == {"prediction": 1}


def test_the_project_and_the_files_it_names_are_watched(tmp_path: Path) -> None:
    project, data = tmp_path / "modelport.toml", tmp_path / "rates.json"
    write(data, "2")
    source = """
        from pathlib import Path

        def load():
            return int(Path("rates.json").read_text())

        def predict(rate, x: int) -> int:
            return rate * x
        """
    write(tmp_path / "service.py", dedent(source))
    write(project, 'model = "service.py"\ninclude = ["rates.json"]\n')
    with watched(tmp_path, "service.py") as (client, said):
        assert client.post("/predict", json={"x": 3}).json() == {"prediction": 6}
        write(data, "7")
        until(said, "served now")
        assert client.post("/predict", json={"x": 3}).json() == {"prediction": 21}
        write(project, 'model = "service.py"\ninclude = ["rates.json"]\noutput = ["product"]\n')
        until(said, "served now")
        assert client.post("/predict", json={"x": 3}).json() == {"product": 21}


@pytest.mark.parametrize("ref", ["iris", "folder"])
def test_only_files_are_watched(ref: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    done = run(tmp_path, "serve", ref, "--watch")
    assert done.returncode == 2
    assert f"--watch looks at model files, and {ref} is none" in done.stderr


def test_who_starts_it_is_told_of_the_functions(tmp_path: Path) -> None:
    source = "def predict(x: int) -> int:\n    return x\n\ndef twice(x: int) -> int:\n    return 2 * x\n\ndef helper(x):\n    return x\n"
    (tmp_path / "service.py").write_text(source)
    with watched(tmp_path, "service.py") as (_, said):
        until(said, "  try    curl ")
        assert said.get(timeout=100) == "  also   /twice"
        assert said.get(timeout=100) == "  not    helper: not all annotated"


def test_a_mistake_at_the_start_ends_with_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text("def predict(x: int):\n    return x\n")
    done = run(tmp_path, "serve", "service.py", "--port", "0")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: predict() does not say what it returns",
        "hint:  Annotate it: -> float, -> str, a dataclass or TypedDict with a field for each output, or a list of them.",
    ]

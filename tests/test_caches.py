"""What a cache holds is whole, or not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from modelport import caches

CHILD = """
import sys
from pathlib import Path
from modelport import caches

def fill(folder):
    (folder / "half").write_text("half")
    print("filling", flush=True)
    sys.stdin.read()

caches.made(Path(sys.argv[1]), "name", fill, 5)
"""


def filled(text: str, calls: list[str]) -> object:
    def fill(folder: Path) -> None:
        calls.append(text)
        (folder / "whole").write_text(text)

    return fill


def test_it_is_filled_once(tmp_path: Path) -> None:
    calls: list[str] = []
    for text in ("first", "second"):
        folder = caches.made(tmp_path / "cache", "name", filled(text, calls), 5)  # type: ignore[arg-type]
        assert (folder / "whole").read_text() == "first"
    assert calls == ["first"]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        caches.made(tmp_path, "name", fails, 5)
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_killed_half_way_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin, child.stdout:
        assert child.stdout.readline() == "filling\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not (tmp_path / "name").exists()
    left = list(tmp_path.iterdir())
    assert [path.name[:8] for path in left] == [".making-"]
    calls: list[str] = []
    assert (caches.made(tmp_path, "name", filled("whole", calls), 5) / "whole").read_text() == "whole"  # type: ignore[arg-type]
    os.utime(left[0], (0, 0))
    caches.prune(tmp_path, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["name"], "it is swept away when it is a day old"


def test_two_at_once_give_one(tmp_path: Path) -> None:
    both = threading.Barrier(2)

    def fill(folder: Path) -> None:
        (folder / "whole").write_text("whole")
        both.wait(30)

    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(caches.made(tmp_path, "name", fill, 5))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / "name"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["name"]

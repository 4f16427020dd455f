"""The commands in README and the tutorials do what the pages say, in the order in which a reader types them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import needed

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "tutorials").glob("*.md"))]
NEEDS = {"docs/tutorials/ants-bees.md": ("torch", "torchvision"), "docs/tutorials/calligraphy.md": ("fastai", "torchvision")}
"""What a page needs that is not installed everywhere."""
_MADE = (".pkl", ".joblib", ".csv", ".pt", "metrics.json", "parameters.json", "labels.txt", "photos", "drawn", "samples")
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Reader:
    """Types the commands of a page into a shell, in a folder with the examples and a store of its own."""

    def __init__(self, home: Path) -> None:
        self.folder = home
        shutil.copytree(ROOT / "examples", home / "examples", ignore=_made)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "HOME": str(home), "MODELPORT_STORE": str(home / "store"), "MODELPORT_CACHE": str(home / "cache")}
        # threads that wait for work would turn in circles, on cores that other tests need
        self.environment = {**os.environ, **own, "PORT": self.port, "OMP_WAIT_POLICY": "PASSIVE"}
        self.server: subprocess.Popen[str] | None = None

    def types(self, line: str) -> str:
        line = line.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
        words = shlex.split(line, comments=True)
        if words[:1] == ["cd"]:
            self.folder = self.folder / words[1]
            return ""
        if words[:2] in (["modelport", "serve"], ["modelport", "demo"]):
            self.stop()
            self.server = subprocess.Popen(words, cwd=self.folder, env=self.environment, text=True, stderr=subprocess.PIPE)
            self._wait_until_ready()
            return ""
        done = subprocess.run(["bash", "-c", line], cwd=self.folder, env=self.environment, text=True, capture_output=True, timeout=300)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _wait_until_ready(self) -> None:
        wait = [
            "curl",
            "--silent",
            "--show-error",
            "--fail",
            "--retry",
            "60",
            "--retry-delay",
            "1",
            "--retry-all-errors",
            "--output",
            os.devnull,
        ]
        ready = subprocess.run([*wait, f"http://127.0.0.1:{self.port}/readyz"], text=True, capture_output=True, timeout=90)
        assert ready.returncode == 0, ready.stderr

    def stop(self) -> None:
        if self.server:
            self.server.terminate()
            self.server.communicate(timeout=30)
            self.server = None


def _made(folder: str, names: list[str]) -> list[str]:
    """What the examples make beside their files, as .gitignore has it; what lies deeper came with them."""
    beside = Path(folder).parent == ROOT / "examples"
    drawn = beside and Path(folder).name == "ants-bees"
    return [name for name in names if name == "__pycache__" or (beside and name.endswith(_MADE)) or (drawn and name == "data")]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    one = Reader(tmp_path)
    yield one
    one.stop()


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_works_and_every_answer_shown_is_the_answer(page: str, reader: Reader) -> None:
    if page in NEEDS:
        needed.torch(*NEEDS[page])
    if "calligraphy" in page:
        needed.fonts("Blankenburg", "DancingScript", "DejaVuSerif")
    printed = ""
    for language, block in _FENCE.findall((ROOT / page).read_text()):
        if language == "sh":
            for line in block.replace("\\\n", " ").splitlines():
                if line.strip() and not line.startswith("#"):
                    printed = reader.types(line)
        elif language == "json":
            shown = json.loads(block)
            assert _close(json.loads(printed), shown), f"{page} shows {shown}, the answer was {printed}"


def _close(answer: Any, shown: Any) -> bool:
    """Equal, with the digits of a float that a page leaves out allowed for."""
    if isinstance(answer, dict) and isinstance(shown, dict):
        return answer.keys() == shown.keys() and all(_close(answer[key], shown[key]) for key in answer)
    if isinstance(answer, list) and isinstance(shown, list):
        return len(answer) == len(shown) and all(_close(one, other) for one, other in zip(answer, shown, strict=True))
    if isinstance(answer, float) and isinstance(shown, float):
        return abs(answer - shown) <= 0.01 * max(1.0, abs(shown))
    return bool(answer == shown)

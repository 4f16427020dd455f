"""A tool serving a work, from its installation to its first right answers: what every measurement here begins with."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.environments import LIBRARIES, ROOT, WORK, environment
from bench.servers import Server, cores, running
from bench.tools import Tool, place, variables
from bench.works import Exchange, Work, check, exchanges

MODELS = WORK / "models"


@dataclass(frozen=True)
class Serving:
    """A running service, its folder, and what to ask it."""

    server: Server
    folder: Path
    asked: list[Exchange]

    @property
    def port(self) -> int:
        return self.server.port


@contextlib.contextmanager
def serving(tool: Tool, work: Work) -> Iterator[Serving]:
    """The tool on the server's core, its answers found equal to the model's; ended with the block.

    InstallError, ServerError, or RuntimeError when its preparation fails or an answer is wrong.
    """
    env = environment(tool.name, tool.requirements)
    make_models()
    where = place(tool, work, env)
    words = variables(tool, where)
    tool.prepare(where, words)
    asked = exchanges(work, tool.wire, MODELS)
    server_core, _ = cores() or (None, None)
    core = None if tool.several_cores else server_core
    with running(tool.command(where), where.port, where.folder, words, asked[0], core) as server:
        if tool.answers and (wrong := check(where.port, work, tool.wire, asked)):
            raise RuntimeError(f"answers wrongly: {wrong}")
        yield Serving(server, where.folder, asked)


def make_models() -> None:
    """The model files and rows in MODELS, made once, and again when what makes them has changed. InstallError, RuntimeError."""
    here = Path(__file__).parent
    sources = [here / "models.py", here / "slow.py", *sorted((ROOT / "examples").glob("*/train.py"))]
    state = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()
    made = WORK / "models.made"
    if made.is_file() and made.read_text() == state:
        return
    env = environment("models", (*LIBRARIES, "skl2onnx", "onnxmltools", "packaging"))
    shutil.rmtree(MODELS, ignore_errors=True)
    MODELS.mkdir(parents=True)
    words = [env / "bin" / "python", "-W", "ignore", here / "models.py", MODELS, ROOT]
    done = subprocess.run(list(map(str, words)), env=one_thread(), capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"the models could not be made: {done.stderr.strip()[-600:]}")
    made.write_text(state)


def one_thread() -> dict[str, str]:
    """The environment for this package's own scripts: one thread for the numeric libraries, bench/ on the path."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}

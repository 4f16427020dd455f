"""The child process in which a file is read: whatever the file does to its reader, the caller gets one clear line.

Its answer is one line of JSON over a pipe, never a pickle.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from modelport.errors import MissingLibrary, ModelFileError, ModelportError
from modelport.inspection.bounds import SECONDS, Budget
from modelport.inspection.report import Inspection, card_from_dict, card_to_dict, report

MEMORY = 2 * 1024**3
"""The memory that reading may take, on top of Python and numpy themselves and of ten times the file's size."""
_GRACE_S = 20
_ERRORS = {kind.code: kind for kind in (ModelFileError, MissingLibrary)}


def inspect_in_child(path: Path, *, memory: int = MEMORY, seconds: float = SECONDS) -> Inspection:
    """Start the child, and make the inspection of what it answers. ModelFileError when it answers nothing within the limits."""
    # -P: a numpy.py beside the model is not numpy. One thread: each would take its own share of the memory allowed.
    command = [sys.executable, "-P", "-m", "modelport.inspection", str(path), str(memory), str(seconds)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(  # noqa: S603 the words are ours, and no shell reads them
            command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=seconds + _GRACE_S
        )
    except subprocess.TimeoutExpired:
        raise ModelFileError(f"{path} is a bomb: it takes longer than {seconds:g} s to read") from None
    except ValueError:
        raise ModelFileError(f"{str(path)!r} is no name of a file") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise _silent(path, done) from None
    if "error" in answer:
        raise _ERRORS[answer["error"]](answer["message"], hint=answer["hint"])
    card = card_from_dict(answer["card"]) if answer["card"] else None
    return report(answer["contents"], card, tuple(answer["refused"]), answer["python"])


def _silent(path: Path, done: subprocess.CompletedProcess[bytes]) -> ModelportError:
    """The error for a child that ended without an answer: by a signal, out of memory, or by a fault of ours."""
    said = done.stderr.decode("utf-8", "replace").strip()
    last = (said.splitlines() or [""])[-1][:200]
    if done.returncode < 0 or "MemoryError" in said:
        return ModelFileError(f"{path} is a bomb: it takes more memory or time to read than is allowed")
    return ModelFileError(f"{path} cannot be inspected: {last or f'the reader ended with exit code {done.returncode}'}")


def answer(path: Path, memory: int, seconds: float) -> dict[str, Any]:
    """What the child says: contents, card and what is refused, or the error; JSON values only."""
    from modelport.inspection import card, foreign_python, inert, refused
    from modelport.inspection.files import read

    _limit(path, memory, seconds)
    try:
        contents = read(path, Budget(seconds=seconds))
        found = card(contents)
        unknown = refused(contents, found)
        python = "" if inert(found) else foreign_python(contents)
    except ModelportError as error:
        kind = error.code if error.code in _ERRORS else ModelFileError.code
        return {"error": kind, "message": error.message, "hint": error.hint}
    plain = {name: getattr(contents, name) for name in ("size", "format", "compression", "protocol", "imports")}
    card_said = card_to_dict(found) if found else None
    return {"contents": {"path": str(path), **plain}, "card": card_said, "refused": unknown, "python": python}


def _limit(path: Path, memory: int, seconds: float) -> None:
    """Bound this process, where the system can: Windows has no such limits, and macOS none of the address space."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 10, int(seconds) + 15))
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        allowed = taken + memory + 10 * path.stat().st_size
        resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))

"""The finished parts of a run, in a folder beside its output, so that a killed run leaves no half file and can be taken up again."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from modelport.errors import ModelportError, UsageError


@dataclass(frozen=True)
class Counts:
    """Rows of a run, or of a part of one."""

    rows: int = 0
    """Rows read."""
    rejected: int = 0
    """Rows among them that got no answer."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.rows + other.rows, self.rejected + other.rejected)


class Parts:
    """The parts of the run that writes `output`; a context manager that holds the run's folder for itself.

        .out.parquet.work/state.json    what is run: inputs, bundle, options; another run does not go on from here
                          0.part        the output's rows of the first chunk
                          0.rejects     the rows of it that got no answer
                          0.json        how many they were; written last: a part without it does not count

    `identity` is what the run must have in common with the one it goes on from. UsageError names what differs, and when another process
    is writing the same output.
    """

    def __init__(self, output: Path, identity: Mapping[str, Any], *, resume: bool) -> None:
        self.output = output
        self.folder = output.with_name(f".{output.name}.work")
        self.counts: list[Counts] = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise UsageError(f"cannot write to {output.parent}: {error.strerror}", hint="-o names the output file.") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise UsageError(f"another run is writing {output}", hint="Wait for it, or write to another file.") from None
        try:
            self._begin(identity, resume=resume)
        except BaseException:
            os.close(self._lock)
            raise

    def _begin(self, identity: Mapping[str, Any], *, resume: bool) -> None:
        state = self.folder / "state.json"
        if resume and state.exists():
            self._check(json.loads(state.read_bytes()), json.loads(json.dumps(identity)))
            while (done := self.folder / f"{len(self.counts)}.json").exists():
                self.counts.append(Counts(**json.loads(done.read_bytes())))
            return
        for leftover in self.folder.iterdir():
            if leftover.name != "lock":
                leftover.unlink()
        _write(state, lambda path: path.write_text(json.dumps(identity, indent=2)))

    def _check(self, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        for key in now:
            if then.get(key) != now[key]:
                raise UsageError(
                    f"cannot go on with {self.output}: {key} was {json.dumps(then.get(key))} and is {json.dumps(now[key])}",
                    hint="Without --resume the run begins anew.",
                )

    def add(self, part: Callable[[Path], object], rejects: bytes, counts: Counts) -> None:
        """Keep the next chunk's part, which `part` writes to a path."""
        index = len(self.counts)
        _write(self.path(index), part)
        _write(self.rejects(index), lambda path: path.write_bytes(rejects))
        _write(self.folder / f"{index}.json", lambda path: path.write_text(json.dumps({"rows": counts.rows, "rejected": counts.rejected})))
        self.counts.append(counts)

    def path(self, index: int) -> Path:
        return self.folder / f"{index}.part"

    def rejects(self, index: int) -> Path:
        return self.folder / f"{index}.rejects"

    def finish(self, write: Callable[[Path], object], target: Path) -> None:
        """Put what `write` writes to a path in the place of `target` in one step."""
        partial = target.with_name(f".{target.name}.partial")
        try:
            write(partial)
            partial.replace(target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ModelportError(f"cannot write {target}: {error.strerror}", hint="--resume goes on where the run stopped.") from error

    def discard(self) -> None:
        """Take the folder away: the run is done, or cannot be gone on with."""
        shutil.rmtree(self.folder)

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._lock)


def _write(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    try:
        write(partial)
        partial.replace(path)
    except OSError as error:
        raise ModelportError(f"cannot write {path}: {error.strerror}", hint="--resume goes on where the run stopped.") from error

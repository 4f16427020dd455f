"""Whether the files that a service was made of have changed since."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

_Stamps: TypeAlias = dict[Path, tuple[int, int]]


class Watch:
    """Looks at files by their times and sizes. `files` says which they are, anew each time they were read."""

    def __init__(self, files: Callable[[], Iterable[Path]]) -> None:
        self._find = files
        self._files: list[Path] = []
        self._seen: _Stamps = {}
        self._last: _Stamps = {}

    def begin(self) -> None:
        """The files are about to be read: what changes from now on counts."""
        self._files = list(self._find())
        self._seen = self._last = self._stamps()

    def changed(self) -> bool:
        """Whether one has changed, and none since the last question: who writes several is given the time to."""
        now, before = self._stamps(), self._last
        self._last = now
        return now != self._seen and now == before

    def _stamps(self) -> _Stamps:
        stamps = {}
        for path in self._files:
            with suppress(OSError):
                status = path.stat()
                stamps[path] = (status.st_mtime_ns, status.st_size)
        return stamps

"""The service's log: one line a request, readable on a terminal and JSON otherwise. Never bodies, never keys."""

from __future__ import annotations

import json
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO


class Log:
    """Writes lines to `out`."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._readable = self._out.isatty()

    def request(
        self, *, request_id: str, method: str, path: str, status: int, seconds: float, rows: int | None, model: str, client: str
    ) -> None:
        """One request that was answered; `path` without its query, which may hold what is secret."""
        path = path[:200]
        if self._readable:
            count = f"  {rows} rows" if rows is not None else ""
            clock = datetime.now().astimezone().strftime("%H:%M:%S")
            self._write(f"{clock}  {status}  {method:<4} {_printable(path)}  {seconds * 1000:.1f} ms{count}")
            return
        entry: dict[str, Any] = {"event": "request", "request_id": request_id, "method": method, "path": path, "status": status}
        entry["ms"] = round(seconds * 1000, 3)
        if rows is not None:
            entry["rows"] = rows
        if model:
            entry["model"] = model
        self._event(entry | {"client": client})

    def failure(self, error: BaseException, request_id: str) -> None:
        """What went wrong inside, in full: the answer names only its id."""
        trace = "".join(traceback.format_exception(error))
        if self._readable:
            self._write(f"request {request_id} failed:\n{trace.rstrip()}")
        else:
            self._event({"event": "failure", "request_id": request_id, "error": f"{type(error).__name__}: {error}", "traceback": trace})

    def event(self, event: str, **about: Any) -> None:
        """Something that happened to the service itself; said on a terminal elsewhere."""
        if not self._readable:
            self._event({"event": event, **about})

    def _event(self, entry: dict[str, Any]) -> None:
        self._write(json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **entry}))

    def _write(self, line: str) -> None:
        self._out.write(line + "\n")
        self._out.flush()


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)

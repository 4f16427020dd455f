"""The way of a plain `POST /predict`: from the bytes of a connection to the batcher and back, with no ASGI scope, task or middleware."""

from __future__ import annotations

from typing import Protocol


class Board(Protocol):
    """What whoever watches over this process sees of its connections; each has a slot, given to its `Connection` when it was made."""

    def owed(self, slot: int, change: int) -> None:
        """+1: a request has come whose answer is not out; -1: its answer was handed to the socket."""
        ...

    def closed(self, slot: int) -> None:
        """The connection is closed, and its slot free."""
        ...


class Recorder(Protocol):
    """Counts and logs the requests that took the fast path; called once for each, after its answer was handed to the socket."""

    def answered(
        self, service: str, path: str, status: int, rows: int, seconds: float, validate_s: float, encode_s: float,
        request_id: str, client: str, traceparent: str,
    ) -> None:
        """Positional. `seconds` is from the request's last byte to the answer; status 499 is a caller who left."""
        ...

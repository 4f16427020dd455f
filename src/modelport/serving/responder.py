"""The few answers that the supervisor gives itself: health, and an error where no worker can answer."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus

from modelport.errors import ModelportError, Unavailable
from modelport.serving.guard import OPEN, answer_headers, uuid7
from modelport.serving.problems import Answer, problem
from modelport.serving.settings import Settings

_LIVE = {"/livez": b'{"status":"alive"}', "/v2/health/live": b'{"live":true}'}
_MOST_HEAD = 32 * 2**10


def asked(head: bytes) -> tuple[str, str] | None:
    """The method and the path at the beginning of a request; None when its first line is not complete."""
    line, newline, _ = head.partition(b"\r\n")
    if not newline and len(head) < _MOST_HEAD:
        return None
    words = line.decode("latin-1").split(" ")
    return (words[0], words[1].partition("?")[0]) if len(words) == 3 else ("", "")


def is_health(method: str, path: str, settings: Settings) -> bool:
    """Whether it is asked how the service is."""
    return method in ("GET", "HEAD") and (path in OPEN or path == settings.health_route != "")


def answer(method: str, path: str, reason: str, settings: Settings) -> bytes:
    """The answer to a request while no worker can answer, for `reason`: alive, and nothing else."""
    if method in ("GET", "HEAD") and path in _LIVE:
        return render(Answer(_LIVE[path]), settings, uuid7(), head_only=method == "HEAD")
    return refusal(Unavailable(reason), settings, path=path, head_only=method == "HEAD")


def refusal(error: ModelportError, settings: Settings, *, path: str = "", request_id: str = "", head_only: bool = False) -> bytes:
    """An error as an answer after which the connection is closed."""
    request_id = request_id or uuid7()
    return render(problem(error, path, request_id), settings, request_id, head_only=head_only)


def render(answer: Answer, settings: Settings, request_id: str, *, head_only: bool = False) -> bytes:
    """The bytes of an answer, after which the connection is closed."""
    headers = answer_headers(answer, settings, request_id=request_id, model="", traceparent=b"", origin=None, closing=True)
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}".encode(), b"date: " + formatdate(usegmt=True).encode()]
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join([*lines, b"", b"" if head_only else answer.body])

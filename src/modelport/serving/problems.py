"""Errors become answers: problem documents (RFC 9457), or the form that a dialect has for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from modelport.errors import (
    FieldError,
    InvalidInput,
    ModelContract,
    ModelFailed,
    ModelportError,
    RequestError,
    Unauthorized,
    Unavailable,
    pointer,
)

PROBLEM_JSON = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back: the body, its type, and headers beyond those every answer has."""

    body: bytes
    content_type: str = "application/json"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def problem(error: Exception, path: str, request_id: str, headers: dict[str, str] | None = None) -> Answer:
    """The answer to a request for `path` that failed.

    Of what is not the caller's to mend it says no more than the id under which it stands in the log: a message from inside may hold values,
    paths or keys. The answer to a wrong key is always the same.
    """
    known = public(error)
    more = dict(headers or {})
    if isinstance(known, Unauthorized):
        more["WWW-Authenticate"] = 'Bearer realm="modelport"'
    if isinstance(known, Unavailable):
        more["Retry-After"] = str(known.retry_after_s)
    status = 400 if is_dialect(path) and known.status == 422 else known.status
    if is_dialect(path):
        return Answer(msgspec.json.encode({"error": _in_one_line(known, request_id)}), status=status, headers=more)
    document: dict[str, Any] = {
        "type": f"urn:modelport:{known.code}",
        "title": known.title,
        "status": status,
        "detail": known.message,
    }
    if isinstance(known, InvalidInput):
        document["errors"] = [wrong.to_dict() for wrong in known.errors]
    elif known.row is not None:
        document["errors"] = [FieldError(pointer(known.row), known.title).to_dict()]
    if known.hint:
        document["hint"] = known.hint
    if not isinstance(known, Unauthorized):
        document["request_id"] = request_id
    return Answer(msgspec.json.encode(document), PROBLEM_JSON, status, more)


def public(error: Exception) -> ModelportError:
    """The error as the caller may see it."""
    if isinstance(error, RequestError | ModelContract):
        return error
    if isinstance(error, ModelFailed):
        hidden = ModelFailed("the model raised an error; what it was stands in the service's log under this request's id")
        return hidden if error.row is None else hidden.at_row(error.row)
    return ModelportError("something failed inside the service; what it was stands in its log under this request's id")


def is_dialect(path: str) -> bool:
    """Whether the path belongs to a protocol that has its own form for errors."""
    return path in ("/v1", "/v2") or path.startswith(("/v1/", "/v2/"))


def _in_one_line(error: ModelportError, request_id: str) -> str:
    text = error.message
    if isinstance(error, InvalidInput):
        text = "; ".join(f"{wrong.pointer}: {wrong.detail}".removeprefix(": ") for wrong in error.errors[:20])
        if len(error.errors) > 20:
            text += f"; and {len(error.errors) - 20} more"
    if error.hint:
        text += f". {error.hint}"
    return text if error.status < 500 else f"{text} ({request_id})"

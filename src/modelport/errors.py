"""Every error Modelport raises on purpose.

    ModelportError                 1   500   something went wrong that has a name
    ├── UsageError                 2   400   the command or call is wrong: who called must change it
    │   ├── SignatureError         2   422   the inputs cannot be known: state them
    │   └── UnknownReference       2   404   no such file, bundle, version or alias
    ├── MissingLibrary             1   500   a library is not installed: install it
    ├── NoEnvironment              1   500   no environment of a model's time can be made
    ├── ModelFileError             1   500   the model file cannot be read or loaded
    ├── TrainingFailed             1   500   a training command fails, or does not write what it should
    ├── BundleError                1   500   a bundle is damaged, or is not one
    ├── RegistryError              1   500   a registry or a container engine cannot be reached, refuses, or errs
    ├── Refused                    3   403   a gate said no: the message says which, and how to open it
    │   ├── Untrusted              3   403   a pickle would import what is not on the allow-list
    │   ├── VersionMismatch        3   409   written by another version of the library
    │   └── GoldenMismatch         3   503   the model does not give its recorded answers any more
    ├── ModelFailed                1   500   the model raised while it answered
    ├── ModelContract              1   500   the model's answer has the wrong length, a NaN, or no JSON form
    └── RequestError               1   400   a request cannot be answered: the caller must change it
        ├── MalformedBody          1   400   the body does not parse
        ├── InvalidInput           1   422   the body parses, and values in it are wrong; lists each of them
        ├── Unauthorized           1   401   no key, or not a key of this service
        ├── NotFound               1   404   no such path or model
        ├── MethodNotAllowed       1   405   the path exists, not for this method
        ├── NotAcceptable          1   406   no form of the answer that the caller takes
        ├── RequestTimeout         1   408   the body did not arrive in time
        ├── BodyTooLarge           1   413   more bytes or rows than the limit
        ├── UnsupportedMediaType   1   415   a content type or encoding that is not taken
        ├── WrongHost              1   421   a Host header that is not this service's
        ├── HeadersTooLarge        1   431   more header bytes than the limit
        ├── Unavailable            1   503   not ready, draining or overloaded: try again later
        └── DeadlineExceeded       1   504   the model did not answer in time

The numbers are the exit code of the command line and the status of the HTTP answer. Exit codes: 0 done, 1 failed,
2 wrong use, 3 refused by a gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar


class ModelportError(Exception):
    """The root: every error raised on purpose is one of these.

    `message` names the place, the wrong value and what would be right; `hint` says what to do next, in one line.
    """

    code: ClassVar[str] = "failed"
    title: ClassVar[str] = "Failed"
    exit_code: ClassVar[int] = 1
    status: ClassVar[int] = 500
    request_id: str = ""
    """Where a client raises what a service answered: the id under which the request stands in the service's log."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.row: int | None = None
        """Which row of the request it is about, where that is known."""

    def at_row(self, row: int) -> ModelportError:
        """The same error, about this row of a request of several."""
        self.row = row
        return self


class UsageError(ModelportError):
    """Raised for a command, argument or setting that is wrong; who wrote it must change it."""

    code = "usage"
    title = "Wrong use"
    exit_code = 2
    status = 400


class SignatureError(UsageError):
    """Raised when a model's inputs cannot be known from what was given; who packs must state them."""

    code = "signature"
    title = "The inputs are not known"
    status = 422


class UnknownReference(UsageError):
    """Raised when a file, bundle, version or alias does not exist."""

    code = "unknown-reference"
    title = "No such model"
    status = 404


class MissingLibrary(ModelportError):
    """Raised when a library the model needs is not installed, or is installed and does not import."""

    code = "missing-library"
    title = "A library is missing"


class NoEnvironment(ModelportError):
    """Raised when no environment can be made for a model: no Python for it, no wheels, or no package registry."""

    code = "no-environment"
    title = "No environment for the model"


class ModelFileError(ModelportError):
    """Raised when a model file is empty, cut short, of no known kind, or fails to load."""

    code = "model-file"
    title = "The model file cannot be used"


class TrainingFailed(ModelportError):
    """Raised when a project's training command fails, or does not write the model or the metrics that it should."""

    code = "training-failed"
    title = "The training failed"


class BundleError(ModelportError):
    """Raised when a folder or tar is no bundle, or a byte of it is not what its manifest says."""

    code = "bundle"
    title = "The bundle is damaged"


class RegistryError(ModelportError):
    """Raised when an image registry or a container engine cannot be reached, refuses, or answers what it should not."""

    code = "registry"
    title = "The registry did not do it"


class Refused(ModelportError):
    """Raised when a gate says no; the message says which gate and how to open it."""

    code = "refused"
    title = "Refused"
    exit_code = 3
    status = 403


class Untrusted(Refused):
    """Raised when a pickle would import names that are not on the allow-list and nobody said to trust it."""

    code = "untrusted"
    title = "The file would run code"


class VersionMismatch(Refused):
    """Raised when a model was written by another version of its library than the one installed, or holds code of another Python."""

    code = "version-mismatch"
    title = "Written by another version"
    status = 409


class GoldenMismatch(Refused):
    """Raised when a model no longer gives the answers that were recorded when it was packed."""

    code = "golden-mismatch"
    title = "The recorded answers are not reproduced"
    status = 503


class ModelFailed(ModelportError):
    """Raised when the model raises while it answers; the cause is chained and stands in the log only."""

    code = "model-failed"
    title = "The model failed"


class ModelContract(ModelportError):
    """Raised when a model's answer has the wrong length, holds NaN or infinity, or has no JSON form."""

    code = "model-contract"
    title = "The model broke its contract"


class RequestError(ModelportError):
    """Raised when a request cannot be answered as it is; the caller must change it."""

    code = "request"
    title = "The request cannot be answered"
    status = 400


class MalformedBody(RequestError):
    """Raised when a body is not the JSON or CSV it says it is."""

    code = "malformed-body"
    title = "The body does not parse"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong value: where it stands (RFC 6901 JSON pointer), what was expected there and what was got."""

    pointer: str
    detail: str
    expected: str = ""
    got: Any = None

    def to_dict(self) -> dict[str, Any]:
        return {"pointer": self.pointer, "detail": self.detail, "expected": self.expected, "got": self.got}


class InvalidInput(RequestError):
    """Raised when values do not fit the signature; `errors` lists each of them, not the first.

    A model's own code raises it as `InvalidInput("country", "no figures for 'Atlantis'")`.
    """

    code = "invalid-input"
    title = "The input does not fit the model"
    status = 422

    def __init__(self, field: str | Sequence[FieldError], detail: str = "", *, hint: str = "") -> None:
        if isinstance(field, str):
            self.errors: tuple[FieldError, ...] = (FieldError(pointer(field), detail),)
        else:
            self.errors = tuple(field)
        first = self.errors[0]
        more = f" (and {len(self.errors) - 1} more)" if len(self.errors) > 1 else ""
        super().__init__(f"{first.pointer or '/'}: {first.detail}{more}", hint=hint)

    def at_row(self, row: int) -> ModelportError:
        """The same error, with the row before each pointer."""
        return InvalidInput([replace(wrong, pointer=pointer(row) + wrong.pointer) for wrong in self.errors], hint=self.hint)


class Unauthorized(RequestError):
    """Raised when a request brings no key, or one that is not a key of this service."""

    code = "unauthorized"
    title = "A key is needed"
    status = 401


class NotFound(RequestError):
    """Raised when a path or a model's name does not exist here."""

    code = "not-found"
    title = "Not found"
    status = 404


class MethodNotAllowed(RequestError):
    """Raised when a path exists, but not for this method."""

    code = "method-not-allowed"
    title = "Method not allowed"
    status = 405


class NotAcceptable(RequestError):
    """Raised when the Accept header leaves no form in which the answer could be given."""

    code = "not-acceptable"
    title = "No acceptable form of the answer"
    status = 406


class RequestTimeout(RequestError):
    """Raised when a request's body does not arrive in time."""

    code = "request-timeout"
    title = "The body came too slowly"
    status = 408


class BodyTooLarge(RequestError):
    """Raised when a body has more bytes, or a list more rows, than the limit."""

    code = "too-large"
    title = "The body is too large"
    status = 413


class UnsupportedMediaType(RequestError):
    """Raised when a body's content type, charset or encoding is not taken here."""

    code = "unsupported-media-type"
    title = "The content type is not taken"
    status = 415


class WrongHost(RequestError):
    """Raised when the Host header is not one of this service's names."""

    code = "wrong-host"
    title = "Not a name of this service"
    status = 421


class HeadersTooLarge(RequestError):
    """Raised when the request's line and headers are larger than the limit."""

    code = "headers-too-large"
    title = "The headers are too large"
    status = 431


class Unavailable(RequestError):
    """Raised when the service is not ready, is draining, or cannot answer in time; try again after so many seconds."""

    code = "unavailable"
    title = "Not available now"
    status = 503

    def __init__(self, message: str, *, hint: str = "", retry_after_s: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(RequestError):
    """Raised when the model did not answer before the deadline."""

    code = "deadline-exceeded"
    title = "The model did not answer in time"
    status = 504


def by_code() -> dict[str, type[ModelportError]]:
    """The classes of this module by code."""
    found: dict[str, type[ModelportError]] = {}
    waiting: list[type[ModelportError]] = [ModelportError]
    while waiting:
        kind = waiting.pop()
        found.setdefault(kind.code, kind)
        waiting.extend(other for other in kind.__subclasses__() if other.__module__ == __name__)
    return found


def pointer(*parts: str | int) -> str:
    """An RFC 6901 JSON pointer to `parts`, from the root of the body; no parts is the root itself, ''."""
    path = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)
    return path if path.isascii() else path.encode("utf-8", "replace").decode()  # half a surrogate pair stands in no answer

"""A client for a running service: predictions in the kind they are asked in, and the service's errors as exceptions."""

from __future__ import annotations

import base64
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload
from urllib.parse import quote, urlsplit

import httpx

from modelport import __version__
from modelport.errors import (
    DeadlineExceeded,
    FieldError,
    InvalidInput,
    ModelportError,
    RequestError,
    Unavailable,
    UsageError,
    by_code,
    pointer,
)

if TYPE_CHECKING:
    import pandas as pd

_RETRIED = frozenset({429, 502, 503})
"""The service, or what stands before it, did not take the request up. 504 is not among them: the model was asked."""
_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 10.0


class Client:
    """One model of a running service.

        with modelport.Client("https://iris.example.com", key) as iris:
            iris.predict({"petal_length": 1.4, "petal_width": 0.2})       -> {"prediction": "setosa", ...}

    A picture is a pathlib.Path, or the bytes of a file: as a record's value, or in place of the record of a model that takes it alone:

        ants.predict(Path("ant.jpg"))                                       -> {"prediction": "ant", ...}

    `model` names one of several that are served together. `timeout_s` is for a call with all its retries. `retries` is how often a
    request is sent again when it was not answered: predicting twice does no harm. `transport` and `wait` are there for tests.

    Its methods raise what the service raised (`modelport.errors`: InvalidInput, Unauthorized, ...), with `request_id` to find it in the
    service's log; Unavailable when the service is not reached, DeadlineExceeded when it does not answer in time. Threads may share one.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        model: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 3,
        transport: httpx.BaseTransport | None = None,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        try:
            urlsplit(url)  # stricter with brackets than httpx
            self._root = httpx.URL(url.rstrip("/"))
        except (ValueError, httpx.InvalidURL) as error:
            raise UsageError(f"{url!r} is no URL: {error}", hint="For example http://127.0.0.1:8000") from error
        if self._root.scheme not in ("http", "https") or not self._root.host or self._root.query or self._root.fragment:
            raise UsageError(f"{url!r} is no URL of a service", hint="For example http://127.0.0.1:8000")
        self.url = str(self._root)
        self._base = f"{self.url}/models/{quote(model, safe='')}" if model is not None else self.url
        self._timeout_s, self._retries, self._wait = timeout_s, retries, wait
        self._image: str | None = None
        headers = {"User-Agent": f"modelport/{__version__}", "Accept": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        # A redirect is never followed: it could lead the key to another host.
        self._http = httpx.Client(headers=headers, follow_redirects=False, transport=transport)

    @overload
    def predict(self, inputs: Mapping[str, Any] | Path | bytes, *, function: str = "predict") -> dict[str, Any]: ...

    @overload
    def predict(self, inputs: Sequence[Mapping[str, Any] | Path | bytes], *, function: str = "predict") -> list[dict[str, Any]]: ...

    @overload
    def predict(self, inputs: pd.DataFrame, *, function: str = "predict") -> pd.DataFrame: ...

    def predict(self, inputs: Any, *, function: str = "predict") -> Any:
        """The answer to a record, the answers to a list of records, or those to a DataFrame as one with the same index.

        `function` is the name of the one to ask, where the service has several. Values may be those of numpy and pandas; NaN, NaT and NA
        are sent as null, times as ISO 8601, a Path as the file's bytes in base64. InvalidInput lists each wrong value; its pointers begin
        with the row's position. UsageError for a file that cannot be read.
        """
        frame = _is_frame(inputs)
        if isinstance(inputs, Path | bytes):
            inputs = {self._picture(): inputs}
        elif not (frame or isinstance(inputs, Mapping | str)) and isinstance(inputs, Sequence):
            inputs = [{self._picture(): one} if isinstance(one, Path | bytes) else one for one in inputs]
        elif not (frame or isinstance(inputs, Mapping)):
            raise UsageError(f"predict() takes a record, a list of records, a DataFrame or a picture, not {type(inputs).__name__}")
        body = json.dumps(_plain(_records(inputs) if frame else inputs, ()), allow_nan=False).encode()
        answer = self._ask("POST", f"{self._base}/{quote(function, safe='')}", body)
        return _as_frame(answer, inputs) if frame else answer

    def info(self) -> dict[str, Any]:
        """What the service says of the model: name, version, digest, signature, endpoints; or the list of its models."""
        answer: dict[str, Any] = self._ask("GET", f"{self._base}/")
        return answer

    def _picture(self) -> str:
        """The name of the model's only image, which is looked up once. UsageError where it has none, or several."""
        if self._image is None:
            fields = self.info().get("signature", {}).get("inputs", ())
            images = [field["name"] for field in fields if field.get("kind") == "image"]
            if len(images) != 1:
                names = ", ".join(str(field["name"]) for field in fields) or "models: name one with Client(..., model=...)"
                raise UsageError(f"{self._base} takes no picture alone: it takes {names}", hint="Send a record: {name: value, ...}.")
            self._image = str(images[0])
        return self._image

    def ready(self) -> bool:
        """Whether the service has just predicted correctly and takes requests; False also when it is not reached. It is asked once."""
        try:
            self._once("GET", f"{self.url}/readyz", None, time.monotonic() + self._timeout_s)
        except (_Again, Unavailable, DeadlineExceeded):
            return False
        return True

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ask(self, method: str, url: str, body: bytes | None = None) -> Any:
        deadline = time.monotonic() + self._timeout_s
        for attempt in range(self._retries + 1):
            try:
                return self._once(method, url, body, deadline)
            except _Again as again:
                delay_s = min(_FIRST_DELAY_S * 2**attempt, _LONGEST_DELAY_S) * random.uniform(0.5, 1)  # noqa: S311 - only to spread callers
                delay_s = max(delay_s, again.after_s)
                if attempt == self._retries or time.monotonic() + delay_s >= deadline:
                    raise again.error from again.__cause__
                self._wait(delay_s)
        raise AssertionError("a last attempt returns or raises")

    def _once(self, method: str, url: str, body: bytes | None, deadline: float) -> Any:
        """One request. `_Again` when it may be sent again."""
        with self._told(), self._http.stream(method, url, content=body, headers=_headers(body), timeout=_left(deadline)) as response:
            content = bytearray()
            for piece in response.iter_bytes():
                content += piece
                _left(deadline)  # raises: a server that sends a byte now and then would never time out otherwise
        if response.is_success:
            return _value(response, bytes(content))
        error = _error(response, bytes(content))
        if response.status_code in _RETRIED:
            raise _Again(error, _after_s(response))
        raise error

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what httpx raises into errors of Modelport."""
        try:
            yield
        except httpx.ConnectTimeout as error:
            raise Unavailable(f"{self.url} was not reached within {self._timeout_s:g} s") from error
        except httpx.TimeoutException as error:
            raise self._too_late() from error
        except _Late as error:
            raise self._too_late() from error
        except httpx.TransportError as error:
            unavailable = Unavailable(
                f"{self.url} was not reached: {error or type(error).__name__}", hint="Is it running? `curl -i URL/livez`"
            )
            raise _Again(unavailable) from error

    def _too_late(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self.url} did not answer within {self._timeout_s:g} s", hint="Client(..., timeout_s=...) waits longer.")


class _Again(Exception):
    """A request that was not taken up, and may be sent again `after_s` from now; `error` is what else there is to raise."""

    def __init__(self, error: ModelportError, after_s: float = 0.0) -> None:
        super().__init__(error.message)
        self.error = error
        self.after_s = after_s


class _Late(Exception):
    """The deadline has passed."""


def _left(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise _Late
    return left_s


def _headers(body: bytes | None) -> dict[str, str]:
    return {} if body is None else {"Content-Type": "application/json"}


def _value(response: httpx.Response, content: bytes) -> Any:
    if not content:
        return None
    try:
        return json.loads(content)
    except ValueError as error:
        kind = response.headers.get("content-type", "no content type")
        raise ModelportError(
            f"{response.url} answered {response.status_code} with {kind}, which is no JSON",
            hint="Is this the address of a Modelport service?",
        ) from error


def _error(response: httpx.Response, content: bytes) -> ModelportError:
    """The exception that an answer stands for: by its problem document (RFC 9457), else by its status."""
    if response.is_redirect:
        target = response.headers.get("location", "nowhere")
        hint = "Give the client the address it redirects to: it follows none, so that the key stays where it was sent."
        return UsageError(f"{response.url} redirects to {target}", hint=hint)
    try:
        problem = json.loads(content)
        code = problem["type"].removeprefix("urn:modelport:")
    except (ValueError, KeyError, TypeError, AttributeError):
        problem, code = {}, ""
    kind = by_code().get(code) or _by_status(response.status_code)
    text = problem.get("detail") or f"{response.url} answered {response.status_code} {response.reason_phrase}"
    hint = str(problem.get("hint", ""))
    error = InvalidInput(_field_errors(problem), hint=hint) if kind is InvalidInput else kind(str(text), hint=hint)
    error.request_id = response.headers.get("x-request-id", "") or str(problem.get("request_id", ""))
    return error


def _field_errors(problem: Mapping[str, Any]) -> list[FieldError]:
    found = [wrong for wrong in problem.get("errors") or () if isinstance(wrong, Mapping)]
    listed = [
        FieldError(str(one.get("pointer", "")), str(one.get("detail", "")), str(one.get("expected", "")), one.get("got")) for one in found
    ]
    return listed or [FieldError("", str(problem.get("detail", "the input does not fit the model")))]


def _by_status(status: int) -> type[ModelportError]:
    if status in _RETRIED:
        return Unavailable
    kinds = {kind.status: kind for kind in by_code().values() if issubclass(kind, RequestError) and kind.status != 400}
    return kinds.get(status, RequestError if 400 <= status < 500 else ModelportError)


def _after_s(response: httpx.Response) -> float:
    """What Retry-After says (RFC 9110, section 10.2.3): seconds, or a date."""
    text = response.headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()) if text else 0.0
    except (ValueError, TypeError):
        return 0.0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint="A pathlib.Path stands for the picture in that file.") from error


def _is_frame(inputs: Any) -> bool:
    """Whether it is a pandas DataFrame: only somebody who has imported pandas can have one."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(inputs, pandas.DataFrame)


def _records(frame: Any) -> list[dict[str, Any]]:
    names = [str(name) for name in frame.columns]
    columns = [frame.iloc[:, index].tolist() for index in range(len(names))]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _as_frame(answers: list[dict[str, Any]], asked: Any) -> Any:
    """One column an output; of probabilities one a class, "probabilities.setosa", as in files."""
    import pandas as pd

    flat = []
    for answer in answers:
        row: dict[str, Any] = {}
        for name, value in answer.items():
            if isinstance(value, dict):
                row.update({f"{name}.{part}": number for part, number in value.items()})
            else:
                row[name] = value
        flat.append(row)
    return pd.DataFrame(flat, index=asked.index)


def _plain(value: Any, path: tuple[str | int, ...]) -> Any:
    """A value as JSON has it. InvalidInput, with where it stands, for one that JSON cannot hold."""
    if value is None or isinstance(value, str | bool | int) or type(value).__name__ in ("NAType", "NaTType"):
        return None if value is not None and not isinstance(value, str | bool | int) else value
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float):
        if math.isinf(value):
            raise InvalidInput([FieldError(pointer(*path), f"is {value}, which JSON cannot hold", "a finite number", str(value))])
        return None if math.isnan(value) else float(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(part, (*path, str(key))) for key, part in value.items()}
    if isinstance(value, Path | bytes):
        return base64.b64encode(value if isinstance(value, bytes) else _read(value)).decode()
    if isinstance(value, list | tuple):
        return [_plain(part, (*path, index)) for index, part in enumerate(value)]
    if isinstance(value, date | time_of_day):
        return value.isoformat()
    if hasattr(value, "tolist"):  # numpy's scalars and arrays, pandas' Series
        moments = getattr(getattr(value, "dtype", None), "kind", "") == "M" and hasattr(value, "astype")
        return _plain((value.astype("datetime64[us]") if moments else value).tolist(), path)
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise InvalidInput([FieldError(pointer(*path), f"is a {kind}, which JSON cannot hold", "a JSON value", kind)])

"""What stands before every path: limits, the Host header, API keys, CORS, the headers each answer has, and the line in the log.

It refuses first and asks by the raw path of the request, never by a URL put together from headers (CVE-2026-48710). Whatever is not named
as open needs the key.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from typing import Any, TypeAlias

from modelport.errors import BodyTooLarge, HeadersTooLarge, RequestError, RequestTimeout, Unauthorized, UnsupportedMediaType, WrongHost
from modelport.serving.negotiation import prefers_page
from modelport.serving.problems import Answer, problem, public
from modelport.serving.settings import Settings, is_loopback
from modelport.serving.telemetry import Telemetry
from modelport.serving.tracing import NO_TRACE

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/livez", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready"})
"""Paths that need no key: they say whether the service is well, and nothing of the model."""
_PAGE = re.compile(rb"(/models/[a-z0-9._-]{1,128})?/(docs|static/[a-z0-9._-]{1,64})?")
"""The page and its files hold no data; what the page shows it fetches, with the key."""
_HOST = re.compile(rb"([A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_DRAINED_BYTES = 64 * 2**10
_LINGER_SECONDS = 2.0

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_SECURITY = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


class Guard:
    """Wraps an ASGI application."""

    def __init__(self, app: App, settings: Settings, telemetry: Telemetry) -> None:
        self._app, self._settings, self._telemetry = app, settings, telemetry
        self.open_requests = 0
        """Requests that have come and are not answered."""
        self._open = {path.encode() for path in (*OPEN, settings.health_route) if path}
        self._hosts = host_names(settings.host, settings.host_names)
        self._keys = [bytes.fromhex(key) for key in settings.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "lifespan and websockets are turned off in the server"
        start = time.perf_counter()
        exchange = Exchange(scope, receive, send, self._settings)
        traces = [value for name, value in scope["headers"] if name == b"traceparent"]
        if len(traces) == 1:
            exchange.trace = self._telemetry.trace(traces[0])
        self.open_requests += 1
        scope["modelport"] = exchange
        try:
            preflight = self._check(scope, exchange)
            if preflight is not None:
                await exchange.answer(preflight)
            else:
                await self._app(scope, exchange.receive, send)
        except Disconnected:
            exchange.status = 499
        except Exception as error:  # noqa: BLE001  whatever it is, the caller gets an answer and the log the whole story
            if not isinstance(public(error), RequestError):
                self._telemetry.log.failure(error, exchange.request_id)
            await exchange.fail(error)
        finally:
            self.open_requests -= 1
            self._telemetry.answered(
                exchange.model.split(" ")[0].split(":")[0],
                scope["raw_path"].decode("ascii", "replace"),
                exchange.status,
                -1 if exchange.rows is None else exchange.rows,
                time.perf_counter() - (exchange.complete_at or start),
                exchange.validate_s,
                exchange.encode_s,
                exchange.request_id,
                scope["client"][0] if scope.get("client") else "",
                exchange.trace,
                scope["method"],
            )

    def _check(self, scope: Scope, exchange: Exchange) -> Answer | None:
        """Refuse what must be refused; the answer to a CORS preflight, which has no key."""
        headers = exchange.headers
        size = sum(len(name) + len(value) + 4 for name, value in scope["headers"]) + len(scope["raw_path"]) + len(scope["query_string"])
        if size > self._settings.max_header_bytes:
            raise HeadersTooLarge(f"the request's line and headers are {size} bytes; at most {self._settings.max_header_bytes} are taken")
        self.check_host([value for name, value in scope["headers"] if name == b"host"], scope["http_version"])
        if scope["method"] == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers:
            return self._preflight(exchange)
        if self._keys and not self._is_open(scope, headers):
            exchange.caller = self.check_key(headers)
        if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            encoding = headers[b"content-encoding"][:40].decode("latin-1")
            raise UnsupportedMediaType(f"the content encoding {encoding!r} is not taken here", hint="Send the body as it is.")
        length = headers.get(b"content-length", b"0")
        if len(length) > 18 or int(length) > self._settings.max_body_bytes:
            raise _too_large(self._settings.max_body_bytes)
        return None

    def check_host(self, hosts: list[bytes], version: str) -> None:
        """WrongHost unless the Host headers are one, and that a name of this service."""
        check_host(hosts, version, self._hosts)

    def _preflight(self, exchange: Exchange) -> Answer | None:
        """The answer to a preflight; None leaves it to the application."""
        return _preflight(exchange)

    def _is_open(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        if scope["method"] not in ("GET", "HEAD"):
            return False
        if scope["raw_path"] in self._open:
            return True
        match = _PAGE.fullmatch(scope["raw_path"])
        return match is not None and (bool(match[2]) or prefers_page(headers.get(b"accept", b"").decode("latin-1")))

    def check_key(self, headers: dict[bytes, bytes]) -> str:
        """Unauthorized unless the headers hold a key of this service; a name for the key that does not tell it."""
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        given = bearer.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        digest = hashlib.sha256(given).digest()
        matches = [hmac.compare_digest(digest, key) for key in self._keys]
        if not any(matches):
            raise Unauthorized(
                "this service needs an API key, and the request has none that it knows",
                hint='Send "Authorization: Bearer KEY" or "X-API-Key: KEY".',
            )
        return digest.hex()[:12]

    @property
    def has_keys(self) -> bool:
        return bool(self._keys)


class Disconnected(Exception):
    """The caller went away before the body was there."""


class Exchange:
    """One request and its answer: the id it has, the body as far as it has come, and what the log shall say of it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: Settings) -> None:
        self._receive, self._send, self.settings = receive, send, settings
        self._path = scope["path"]
        self.query: bytes = scope["query_string"]
        self.headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        """The first of each name."""
        given = self.headers.get(b"x-request-id", b"")
        self.request_id = given_id(given) or uuid7()
        self.caller: str = scope["client"][0] if scope.get("client") else ""
        """Whose turn it is when many wait: the key's name, or the address."""
        about = scope.get("extensions", {}).get("modelport", {})
        self.slot: int = about.get("slot", -1)
        """The connection's place on the board."""
        self.when_left: set[Callable[[], None]] = about.get("when_left", set())
        """What is called when the caller goes away before it has its answer."""
        self._sending: Callable[[], None] = about.get("sending", lambda: None)
        self.model = ""
        """The X-Model header, once it is known which model is asked."""
        self.trace = NO_TRACE
        self.rows: int | None = None
        self.validate_s = self.encode_s = 0.0
        self.complete_at = 0.0
        """When the last of the body had come, by `perf_counter`; 0 where there is none."""
        self.status = 0
        self._deadline: float | None = None
        self._received = 0
        self._complete = b"content-length" not in self.headers and b"transfer-encoding" not in self.headers

    def header(self, name: str) -> str | None:
        value = self.headers.get(name.encode())
        return None if value is None else value.decode("latin-1")

    async def receive(self) -> Message:
        """The next part of the body. BodyTooLarge by what came, not by what was announced; RequestTimeout; Disconnected."""
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self.settings.body_timeout_s
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise RequestTimeout(f"the body did not arrive within {self.settings.body_timeout_s:g} s") from None
        if message["type"] == "http.disconnect":
            raise Disconnected
        self._received += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._complete:
            self.complete_at = time.perf_counter()
        if self._received > self.settings.max_body_bytes:
            raise _too_large(self.settings.max_body_bytes)
        return message

    async def passed_on(self) -> Message:
        """What an application of somebody else receives: the parts of the body, and in the end that its caller is gone."""
        if self._complete:
            return await self._receive()
        try:
            return await self.receive()
        except Disconnected:
            return {"type": "http.disconnect"}

    def begin(self, status: int) -> None:
        """An answer that is not sent by `answer` begins."""
        self.status = status
        self._sending()

    async def body(self) -> bytes:
        """The whole body."""
        parts = []
        while True:
            message = await self.receive()
            parts.append(message.get("body", b""))
            if self._complete:
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def fail(self, error: Exception, headers: dict[str, str] | None = None) -> None:
        """Answer with an error, unless an answer has begun: then the connection is all that can be ended."""
        if self.status:
            raise error
        await self.answer(problem(error, self._path, self.request_id, headers))

    async def answer(self, answer: Answer) -> None:
        """Send an answer.

        Where the caller is still sending a body that nobody will read, a short one is read and dropped. Of a long one some is, after the
        answer: closing at once would reset the connection, and the answer would be lost on its way (RFC 9112, section 9.6).
        """
        length = self.headers.get(b"content-length", b"")
        if not self._complete and 0 < len(length) < 10 and int(length) <= _DRAINED_BYTES:
            await self._drop(_DRAINED_BYTES)
        unread = not self._complete
        self.status = answer.status
        headers = answer_headers(
            answer,
            self.settings,
            request_id=self.request_id,
            model=self.model,
            traceparent=self.trace.own,
            origin=self.headers.get(b"origin"),
            closing=unread,
        )
        self._sending()
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer.body, "more_body": unread})
        if unread:
            await self._drop(4 * self.settings.max_body_bytes)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drop(self, most: int) -> None:
        dropped = 0
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while not self._complete and dropped <= most:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        return
                    dropped += len(message.get("body", b""))
                    self._complete = not message.get("more_body", False)
        except TimeoutError:
            return


def answer_headers(
    answer: Answer, settings: Settings, *, request_id: str, model: str, traceparent: bytes, origin: bytes | None, closing: bool
) -> list[tuple[bytes, bytes]]:
    """The headers of an answer, in order; `origin` as the request has it, `traceparent` as it goes out."""
    headers = [(b"content-type", answer.content_type.encode())] if answer.content_type else []
    if answer.status not in (204, 304):
        headers.append((b"content-length", str(len(answer.body)).encode()))
    own = {"X-Request-Id": request_id}
    if model:
        own["X-Model"] = model
    if traceparent:
        own["traceparent"] = traceparent.decode()
    own["Vary"] = "Accept, Origin" if settings.cors else "Accept"
    own |= cors_headers(settings, origin)
    headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in (answer.headers | own).items()]
    if "Cache-Control" not in answer.headers:
        headers.append((b"cache-control", b"no-store"))
    if closing:
        headers.append((b"connection", b"close"))
    return headers + _SECURITY


def cors_headers(settings: Settings, origin: bytes | None) -> dict[str, str]:
    """What lets a page of this origin read the answer; nothing where it may not."""
    name = None if origin is None else origin.decode("latin-1")
    if name is None or name == "null" or not ("*" in settings.cors or name in settings.cors):
        return {}
    return {
        "Access-Control-Allow-Origin": "*" if "*" in settings.cors else name,
        "Access-Control-Expose-Headers": "X-Request-Id, X-Model, traceparent, Retry-After",
    }


def given_id(header: bytes) -> str:
    """The request id that a caller gave; '' where it is none."""
    return header.decode() if _REQUEST_ID.fullmatch(header) else ""


class _Ids:
    """Makes UUIDs of version 7 (RFC 9562): the time in milliseconds, a count within it (section 6.2, method 1), and chance.

    Every request needs one: so all but the count is made once a millisecond.
    """

    _COUNTS = tuple(f"{count:03x}" for count in range(4096))

    def __init__(self) -> None:
        self._milliseconds = 0
        self._counts: Iterator[str] = iter(())
        self._before = self._after = ""

    def __call__(self) -> str:
        milliseconds = time.time_ns() // 1_000_000
        count = next(self._counts, "")
        if milliseconds != self._milliseconds or not count:
            digits, chance = f"{milliseconds:012x}", int.from_bytes(os.urandom(8)) & (1 << 62) - 1 | 1 << 63
            self._milliseconds, self._counts = milliseconds, iter(self._COUNTS)
            self._before, self._after = f"{digits[:8]}-{digits[8:]}-7", f"-{chance >> 48:04x}-{chance & (1 << 48) - 1:012x}"
            count = next(self._counts)
        return f"{self._before}{count}{self._after}"


uuid7 = _Ids()


def check_host(hosts: list[bytes], version: str, allowed: frozenset[str] | None) -> None:
    """WrongHost unless the Host headers are one, and that allowed; None is any."""
    if not hosts and version == "1.0" and allowed is None:
        return
    match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if match is None:
        raise WrongHost("the request has no Host header, or one that is no host")
    name = match[1].decode().lower().rstrip(".")
    if allowed is not None and name not in allowed:
        raise WrongHost(f"{name!r} is not a name of this service", hint=f"If it is one, start it with --host-name {name}.")


def host_names(address: str, named: Sequence[str]) -> frozenset[str] | None:
    """The names that the Host header may have where `address` is listened on, and has the names `named` too; None is any.

    Where only this machine can connect, a strange Host is a page in its browser that plays at being this service (DNS rebinding). On other
    addresses the names that lead here are not known, and there is a key or the word --public, so any is taken unless some are named.
    """
    if "*" in named or not (named or is_loopback(address)):
        return None
    own = f"[{address}]" if ":" in address else address
    return frozenset({"localhost", "127.0.0.1", "[::1]", own.lower(), *named})


def _preflight(exchange: Exchange) -> Answer:
    headers = {"Access-Control-Max-Age": "600"}
    if cors_headers(exchange.settings, exchange.headers.get(b"origin")):
        headers["Access-Control-Allow-Methods"] = "GET, POST"
        headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type, X-API-Key, X-Request-Id, traceparent"
    return Answer(b"", "", 204, headers)


def _too_large(most: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {most:,} bytes", hint="Send it in parts, or raise --max-body.")

"""The way of a plain `POST /predict`: from the bytes of a connection to the batcher and back, with no ASGI scope, task or middleware.

`Connection` is uvicorn's protocol with a shorter way through it. A request takes that way when it is JSON in Modelport's own form and there
is nothing unusual about it; every other is left to uvicorn and the application, which give the same answers, byte for byte. Whatever is
not right beyond doubt, a wrong value in a body too, is nothing for this way: it goes to the application as if nobody had looked.

    data_received -> (a head seen before, or uvicorn's parser) -> _take -> Batcher.submit ... _on_answer -> _send -> transport.write

This rests on the inside of uvicorn.protocols.http.httptools_impl; tests/test_fastpath.py fails when that changes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from typing import Any, Protocol

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from modelport.errors import HeadersTooLarge, ModelContract, ModelFailed, RequestError, RequestTimeout, Unavailable
from modelport.serving.app import Application
from modelport.serving.batching import Batcher, Work
from modelport.serving.guard import answer_headers, cors_headers, given_id, uuid7
from modelport.serving.inputs import Rows
from modelport.serving.negotiation import CSV, JSON, choose
from modelport.serving.outputs import Answers
from modelport.serving.problems import Answer, problem, public
from modelport.serving.service import Service
from modelport.serving.tracing import NO_TRACE, Trace

_LARGEST_BODY = 256 * 2**10
"""A larger body keeps the loop too long: the application reads it on a thread."""
_JSON_TYPES = frozenset({b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"})
_UNUSUAL = (b"transfer-encoding", b"content-encoding", b"expect", b"upgrade")
_MOST_PENDING = 64
"""Requests of one connection under way, from which on no more are read."""
_MOST_HEADS, _LONGEST_HEAD = 1024, 2048
_READ_BYTES = 2**18
"""What one read of a socket may bring."""
_ID = "\0"
"""Stands for the request's id where the headers of an answer are prepared; no header can hold it."""


class Board(Protocol):
    """What whoever watches over this process sees of its connections; each has a slot, given to its `Connection` when it was made."""

    def owed(self, slot: int, change: int) -> None:
        """+1: a request has come whose answer is not out; -1: it is counted otherwise from now on."""
        ...

    def sending(self, slot: int) -> None:
        """An answer is about to be written."""
        ...

    def sent(self, slot: int, whole: bool) -> None:
        """It was: all of it has left and the connection stays, or it is not `whole` yet."""
        ...

    def flushed(self, slot: int) -> None:
        """Whatever was not sent yet is."""
        ...


class Recorder(Protocol):
    """Counts and logs the requests that took the fast path; called once for each, after its answer was handed to the socket."""

    def answered(
        self, service: str, path: str, status: int, rows: int, seconds: float, validate_s: float, encode_s: float,
        request_id: str, client: str, trace: Trace,
    ) -> None:  # fmt: skip
        """Positional. `seconds` is from the request's last byte to the answer; status 499 is a caller who left."""
        ...


@dataclass(slots=True, eq=False)
class Head:
    """What the line and the headers of a request say, as far as the fast path wants to know."""

    service: Service
    batcher: Batcher[Rows, Answers]
    read: Callable[[bytes], Rows | None]
    """Reads the body."""
    path: str
    length: int
    """Bytes of the body."""
    caller: str
    """The name of the key; '' where it is the address that counts."""
    request_id: str
    """The caller's own; '' where one is made."""
    trace: Trace
    origin: bytes | None
    headers: str
    """Those of the answer that come after the request's id, which they begin with the end of."""

    @property
    def recurs(self) -> bool:
        """Whether the next request may well have the very same head."""
        return not self.request_id and not self.trace.parent


@dataclass(slots=True, eq=False)
class _Request(Work[Rows, Answers]):
    """A request under way on the fast path."""

    head: Head | None = None
    decoded: float = 0.0
    """When its body had been read, by `perf_counter`."""
    status: int = 0
    """Of the answer; 0 until there is one."""
    answer: Answer | None = None
    """The answer to a request that failed."""
    reply: bytes = b""
    """The body of the answer to one that did not."""
    encode_s: float = 0.0


class FastPath:
    """What the connections of one process share: which requests are taken, and the heads of those that were."""

    def __init__(self, app: Application, *, recorder: Recorder | None = None, board: Board | None = None, tick_s: float = 1.0) -> None:
        self.app, self.settings, self.guard = app, app.settings, app.guard
        self.recorder, self.board = recorder or app.telemetry, board
        self.heads: dict[bytes, Head] = {}
        """The bytes of a request's head, up to its empty line -> what it says. The parser makes the same of the same bytes."""
        self.connections: set[Connection] = set()
        self._services = {path.encode(): service for path, service in app.plain_paths().items()}
        self._prepared: dict[tuple[str, str], str] = {}
        self.dated: list[tuple[bytes, bytes]] | None = None
        """The server's own headers, as they were when `opening` was made of them."""
        self.opening = ""
        """How an answer of status 200 begins, up to its length."""
        app.telemetry.metrics.in_flight.append(lambda: sum(len(connection._pending) for connection in self.connections))
        self._tick_s = tick_s
        self._timer: asyncio.TimerHandle | None = None

    # Requests

    def head(self, url: bytes, headers: list[tuple[bytes, bytes]]) -> Head | None:
        """What the head of a POST by HTTP/1.1 says, if it asks for nothing unusual."""
        service = self._services.get(url)
        given = dict(headers)
        if service is None or len(given) < len(headers) or given.get(b"content-type", b"").lower() not in _JSON_TYPES:
            return None
        digits = given.get(b"content-length", b"")
        if not digits.isdigit() or len(digits) > 9 or not 0 < int(digits) <= min(_LARGEST_BODY, self.settings.max_body_bytes):
            return None
        if any(name in given for name in _UNUSUAL) or not _wants_json(given.get(b"accept", b"")):
            return None
        if len(url) + sum(len(name) + len(value) + 4 for name, value in headers) > self.settings.max_header_bytes:
            return None
        try:
            self.guard.check_host([given[b"host"]] if b"host" in given else [], "1.1")
            caller = self.guard.check_key(given) if self.guard.has_keys else ""
        except RequestError:
            return None
        trace, origin = self.app.telemetry.trace(given.get(b"traceparent", b"")), given.get(b"origin")
        return Head(
            service,
            service.batcher(self.settings),
            service.inputs.quick,
            url.decode(),
            int(digits),
            caller,
            given_id(given.get(b"x-request-id", b"")),
            trace,
            origin,
            self._headers(service, trace.own, origin),
        )

    def remember(self, data: bytes, body: bytes, head: Head) -> None:
        """Know `head` again: `data` is a whole request as it came, and `body` its body."""
        size = len(data) - len(body)
        if not head.recurs or size > _LONGEST_HEAD or data.find(b"\r\n\r\n") != size - 4 or not data.endswith(body):
            return
        if len(self.heads) >= _MOST_HEADS:
            self.heads.clear()
        self.heads[data[:size]] = head

    # Answers

    def date(self, server: ServerState) -> None:
        """Make `opening` of the server's own headers, which are new once a second."""
        self.dated = server.default_headers
        headers = [*self.dated, (b"content-type", JSON.encode())]
        self.opening = (STATUS_LINE[200] + _lines(headers) + b"content-length: ").decode("latin-1")

    def _headers(self, service: Service, trace: bytes, origin: bytes | None) -> str:
        allowed = cors_headers(self.settings, origin).get("Access-Control-Allow-Origin", "")
        known = self._prepared.get((service.name, allowed)) if not trace else None
        if known is None:
            every = answer_headers(
                Answer(b""), self.settings, request_id=_ID, model=service.label, traceparent=trace, origin=origin, closing=False
            )
            before, known = _lines(every).decode("latin-1").split(_ID)
            assert before == f"content-type: {JSON}\r\ncontent-length: 0\r\nx-request-id: ", "what `Connection._send` writes itself"
            if not trace:
                self._prepared[service.name, allowed] = known
        return known

    def failure(self, answer: Answer, server: ServerState, request_id: str, head: Head | None, *, closing: bool) -> bytes:
        """An answer of any status, as bytes."""
        headers = answer_headers(
            answer,
            self.settings,
            request_id=request_id,
            model=head.service.label if head else "",
            traceparent=head.trace.own if head else b"",
            origin=head.origin if head else None,
            closing=False,
        )
        last = [(b"connection", b"close")] if closing else []
        return STATUS_LINE[answer.status] + _lines([*server.default_headers, *headers, *last]) + b"\r\n" + answer.body

    # Time

    def opened(self, connection: Connection) -> None:
        self.connections.add(connection)
        if self._timer is None:
            self._timer = connection.loop.call_later(self._tick_s, self._tick, connection.loop)

    def ticks(self, seconds: float) -> int:
        """So many seconds in the ages of connections."""
        return max(1, round(seconds / self._tick_s))

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """One timer for all connections: to set and cancel one for each request would cost more than reading it."""
        self._timer = loop.call_later(self._tick_s, self._tick, loop) if self.connections else None
        for connection in tuple(self.connections):
            connection.tick()


class _Unanswered:
    """Stands where uvicorn keeps the request before the one that begins, while fast answers are owed: so that it waits for its turn."""

    response_complete = False


class Connection(HttpToolsProtocol):
    """One connection. `slot` is its place on the board.

    At any time the answers owed are first those of `_pending`, all fast, then those of uvicorn's cycle and pipeline: a request that comes
    while uvicorn owes an answer takes uvicorn's way.
    """

    def __init__(
        self,
        shared: FastPath,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        slot: int = -1,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._shared, self._slot = shared, slot
        self._address = ""
        self._pending: deque[_Request] = deque()
        self._when_left: set[Callable[[], None]] = set()
        """What the application wants called when the caller goes away."""
        self._ending = False
        """Whether nothing more is read, and the connection ends with the last answer that is owed."""
        # The message that is being read
        self._between = True
        """Whether the parser stands between two messages."""
        self._in_head = False
        self._chunk = b""
        """What is fed to the parser, if a message begins with it."""
        self._head: Head | None = None
        """Of a request whose body is awaited for the fast path."""
        self._parts: list[bytes] = []
        self._method = b""
        self._upgrades = False
        """Whether it asks for another protocol."""
        self._bytes = self._body_bytes = 0
        self._last_seen = b"\0"
        """The head of the last request that was looked for among those that are known: mostly that of the next one."""
        self._age = 0
        """Ticks since something was last asked or answered."""
        self._unread = 0
        """Bytes that had not left at the last tick."""
        self._asked = False
        self._done = self._on_answer
        """What the batcher calls with the answer."""

    # The socket

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # so that `write_paused` says whether something has not left yet
        self._address = self.client[0] if self.client else ""
        self._shared.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head is not None:
            self._take_ordinarily()
        super().connection_lost(exc)
        self._shared.connections.discard(self)
        for tell in tuple(self._when_left):
            tell()
        while self._pending:
            self._abandon(self._pending.popleft())

    def data_received(self, data: bytes) -> None:
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        if self._ending:
            return
        if self._between and (self.cycle is None or self.cycle.response_complete):
            data = self._take_known(data)
        if data:
            self._parse(data)

    def eof_received(self) -> bool | None:  # type: ignore[override]  # true keeps the connection open for the answers
        """The caller sends nothing more. It may wait for its answers still, or be gone: the same to see.

        So what can be computed at once is, and what would have to wait is not.
        """
        if self._head is not None:
            self._take_ordinarily()
        ordinary = self._is_cycle_open()
        if ordinary and self.cycle.more_body:
            return None
        for request in [request for request in self._pending if request.head is not None and request.head.batcher.busy]:
            if request.is_waiting:
                self._pending.remove(request)
                self._abandon(request)
        if ordinary:
            self.cycle.keep_alive = False
        self._ending = True
        return bool(self._pending or ordinary)

    def pause_writing(self) -> None:
        """The caller does not read its answers: nothing more is read of it."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._shared.board is not None and not self.transport.is_closing():
            self._shared.board.flushed(self._slot)
        self._resume_reading()

    def _resume_reading(self) -> None:
        if len(self._pending) < _MOST_PENDING and not self.flow.write_paused and not self.pipeline:
            self.flow.resume_reading()

    def shutdown(self) -> None:
        """End with the last answer that is owed."""
        if self._head is not None:
            self._take_ordinarily()
        if self._pending and not self.pipeline:
            self._ending = True
        else:
            super().shutdown()

    def tick(self) -> None:
        """Time passes: end what is idle, what sends its head too slowly, and what does not read its answer.

        A slow body is for the application, which has a deadline.
        """
        if self._head is not None:
            self._take_ordinarily()
        elif self.flow.write_paused:
            self._tick_unread()
        elif self._pending or self._is_cycle_open():
            self._age = 0
        else:
            self._age += 1
            seconds = self.timeout_keep_alive if self._between and self._asked else self._shared.settings.body_timeout_s
            if self._age <= self._shared.ticks(seconds) or self.transport.is_closing():
                return
            if self._between:
                self.transport.close()
            else:
                self._refuse(RequestTimeout(f"the request did not arrive within {seconds:g} s"))

    def _tick_unread(self) -> None:
        """Cut off who has taken nothing of its answer for as long as a connection may be idle."""
        unread = self.transport.get_write_buffer_size()
        self._age = self._age + 1 if unread == self._unread else 0
        self._unread = unread
        if self._age > self._shared.ticks(self.timeout_keep_alive):
            self.transport.abort()

    # Reading

    def _take_known(self, data: bytes) -> bytes:
        """Take requests whose heads are known, as many as `data` begins with; what is left of it."""
        while data:
            if not data.startswith(self._last_seen):
                end = data.find(b"\r\n\r\n")
                if end < 0:
                    break
                self._last_seen = data[: end + 4]
            head = self._shared.heads.get(self._last_seen)
            if head is None:
                break
            start = len(self._last_seen)
            stop = start + head.length
            if stop > len(data) or not self._take(head, data[start:stop]):
                break
            data = data[stop:]
        return data

    def _parse(self, data: bytes) -> None:
        self._chunk = data if self._between else b""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # The parser takes what follows for another protocol. Here HTTP/1.1 goes on: the request is read again as if it did not ask.
            self._upgrades = False
            self.parser = httptools.HttpRequestParser(self)
            if not self._ending:
                self._parse(self._head_without_upgrade() + data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(RequestError("what was sent is no HTTP request"))
            return
        self._bytes += len(data)
        if not self._between and self._bytes > self._shared.settings.max_header_bytes + _READ_BYTES + 16 * self._body_bytes:
            most = self._shared.settings.max_header_bytes
            self._refuse(HeadersTooLarge(f"the request's line and headers, or what stands around its body, is over {most} bytes"))

    def _head_without_upgrade(self) -> bytes:
        options = [token.strip().lower() for name, value in self.headers if name == b"connection" for token in value.split(b",")]
        headers = [(name, value) for name, value in self.headers if name not in (b"upgrade", b"connection")]
        if b"close" in options:
            headers.append((b"connection", b"close"))
        return self._method + b" " + self.url + b" HTTP/1.1\r\n" + _lines(headers) + b"\r\n"

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._between = False
        self._in_head = self._asked = True
        self._bytes = self._body_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # what comes after a body in chunks is dropped
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._age = 0
        parser = self.parser
        self._method = parser.get_method()
        self._upgrades = parser.should_upgrade() and self._method != b"CONNECT"
        if self._upgrades:
            return
        if self._method == b"POST" and parser.get_http_version() == "1.1" and not self._is_cycle_open() and not self._ending:
            self._head = self._shared.head(self.url, self.headers)
        if self._head is None:
            self._begin_ordinarily()
        if self._method == b"CONNECT":
            self.cycle.keep_alive = False
            self._ending = True

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._head is None:
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        self._between = True
        if self._upgrades:
            return
        head = self._head
        if head is None:
            super().on_message_complete()
            return
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        last = not self.parser.should_keep_alive()
        if not self._take(head, body):
            self._take_ordinarily()
            super().on_message_complete()
            return
        self._head, self._parts = None, []
        if last:
            self._ending = True
        elif self._chunk:
            self._shared.remember(self._chunk, body, head)

    def _is_cycle_open(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # The ordinary way

    def _begin_ordinarily(self) -> None:
        """Leave the request whose head was read to uvicorn, behind the answers that are owed."""
        if self._shared.board is not None:
            self._shared.board.owed(self._slot, 1)
        self.scope["extensions"] = {"modelport": {"slot": self._slot, "when_left": self._when_left, "sending": self._sending}}
        if self._pending:
            self.cycle = _Unanswered()  # type: ignore[assignment]
        super().on_headers_complete()
        if self._shared.app.draining:
            self.cycle.keep_alive = False

    def _take_ordinarily(self) -> None:
        """The request that was for the fast path is not, after all: as if nothing had happened."""
        body = b"".join(self._parts)
        self._head, self._parts = None, []
        self._begin_ordinarily()
        if body:
            super().on_body(body)

    def _sending(self) -> None:
        """An answer is about to be written."""
        if self._shared.board is not None and self.parser is not None:  # or else the connection is gone, and its slot may be another's
            self._shared.board.sending(self._slot)

    def on_response_complete(self) -> None:
        if self._shared.board is not None:
            self._shared.board.sent(self._slot, not (self.flow.write_paused or self.transport.is_closing()))
        self._age = 0
        super().on_response_complete()

    def _refuse(self, error: RequestError) -> None:
        """Answer bytes that are no request, and close; where answers to others are owed, close behind those."""
        self._ending = True
        if self._pending:
            return
        if self._is_cycle_open() and (self.pipeline or self.cycle.response_started or not self.cycle.more_body):
            self.cycle.keep_alive = False
            return
        request_id = uuid7()
        self._sending()
        self.transport.write(self._shared.failure(problem(error, "", request_id), self.server_state, request_id, None, closing=True))
        self.transport.close()
        self._shared.app.telemetry.answered("", "", error.status, -1, 0.0, 0.0, 0.0, request_id, self._address, NO_TRACE, "")

    # The fast way

    def _take(self, head: Head, body: bytes) -> bool:
        """Hand a request to the batcher; False when its body needs a closer look."""
        arrived = perf_counter()
        rows = head.read(body)
        if rows is None or not 0 < rows.count <= self._shared.settings.max_rows:
            return False
        batcher, board, pending = head.batcher, self._shared.board, self._pending
        request = _Request(
            rows,
            self.loop.time() + batcher.timeout_s,
            head.caller or self._address,
            self._done,  # type: ignore[arg-type]  # it is given the work that was submitted: a _Request
            self._slot,
            body,
            head.request_id or uuid7(),
            head.service.name,
            arrived,
            0,
            head,
            perf_counter(),
        )
        pending.append(request)
        if len(pending) >= _MOST_PENDING:
            self.flow.pause_reading()
        if board is not None:
            board.owed(self._slot, 1)
        try:
            head.service.check(body)
            batcher.submit(request)
        except (ModelFailed, Unavailable) as error:
            self._done(request, None, 0, error)
        return True

    def _on_answer(self, request: _Request, answers: Answers | None, start: int, error: Exception | None) -> None:
        """The model answered, or will not: called by the batcher."""
        if answers is not None:
            begun, rows = perf_counter(), request.rows
            try:
                request.reply = answers.json(start, start + rows.count, single=rows.single)
                request.status = 200
            except ModelContract as broken:
                error = broken
            request.encode_s = perf_counter() - begun
        if error is not None:
            self._fail(request, error)
        pending = self._pending
        while pending and pending[0].status:
            self._send(pending.popleft())

    def _fail(self, request: _Request, error: Exception) -> None:
        assert request.head is not None
        if not isinstance(public(error), RequestError):
            self._shared.app.log.failure(error, request.request_id)
        request.answer = problem(error, request.head.path, request.request_id)
        request.status = request.answer.status

    def _send(self, request: _Request) -> None:
        """Write an answer."""
        shared, head, server = self._shared, request.head, self.server_state
        assert head is not None
        last = not self._pending
        closing = last and (self._ending or shared.app.draining) and not self.pipeline
        board = shared.board
        if board is not None:
            board.sending(self._slot)
        if request.answer is None:
            if server.default_headers is not shared.dated:
                shared.date(server)
            reply = request.reply
            end = "connection: close\r\n\r\n" if closing else "\r\n"
            lines = f"{shared.opening}{len(reply)}\r\nx-request-id: {request.request_id}{head.headers}{end}"
            self.transport.write(lines.encode("latin-1") + reply)
        else:
            self.transport.write(shared.failure(request.answer, server, request.request_id, head, closing=closing))
        if board is not None:
            board.sent(self._slot, not (closing or self.flow.write_paused))
        self._record(request, request.status)
        if last:
            self._after_last(closing=closing)

    def _after_last(self, *, closing: bool) -> None:
        """No fast answer is owed any more: see to what comes next."""
        self._age = 0
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif closing:
            self.transport.close()
        elif self.flow.read_paused:
            self._resume_reading()

    def _record(self, request: _Request, status: int) -> None:
        """Tell that a request is over."""
        head = request.head
        assert head is not None
        self._shared.recorder.answered(
            request.service,
            head.path,
            status,
            request.rows.count,
            perf_counter() - request.arrived,
            request.decoded - request.arrived,
            request.encode_s,
            request.request_id,
            self._address,
            head.trace,
        )

    def _abandon(self, request: _Request) -> None:
        """The caller left."""
        request.cancel()
        self._record(request, 499)


@lru_cache(256)
def _wants_json(accept: bytes) -> bool:
    try:
        return choose(accept.decode("latin-1"), (JSON, CSV)) == JSON
    except RequestError:
        return False


def _lines(headers: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)

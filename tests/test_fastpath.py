"""The fast path answers as the application does, byte for byte, and does with sockets what the application's protocol does."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import socket
import threading
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import httptools
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from modelport.errors import InvalidInput
from modelport.serving.app import create_app
from modelport.serving.batching import Pace
from modelport.serving.fastpath import Connection, FastPath
from modelport.serving.listener import bind
from modelport.serving.logs import Log
from modelport.serving.server import Server
from modelport.serving.service import Service
from modelport.serving.settings import Settings, keys_of
from modelport.signature import Columns, Field, Signature
from serving_world import FLOWER, IRIS, Sink, by_petal, make_service

KEY = "sesame"
ORIGIN = "https://app.example.com"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def moody(columns: Columns) -> Columns:
    """As `by_petal`, but for some lengths of the petal it fails in every way a model can."""
    length = columns["petal_length"]
    if (length == 13).any():
        raise ZeroDivisionError("secret")
    if (length == 15).any():
        raise InvalidInput("petal_length", "no such petal")
    answers = dict(by_petal(columns))
    answers["probabilities"] = np.where((length == 14)[:, None], np.nan, answers["probabilities"])
    return answers


def post(body: bytes | str = b"", *lines: str, path: str = "/predict", line: str = "", length: bool = True) -> bytes:
    """A request as bytes; `lines` stand in for the headers that every request here has otherwise."""
    body = body.encode() if isinstance(body, str) else body
    head = [line or f"POST {path} HTTP/1.1", *(lines or ("Host: localhost", "Content-Type: application/json"))]
    if length:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def flower(**changes: Any) -> bytes:
    return json.dumps(FLOWER | changes).encode()


GOOD = post(flower())


# Reading answers


class Reader:
    """Takes answers off a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.data = connection, b""

    def answer(self, *, head_only: bool = False) -> bytes:
        """The next answer, without interim ones; b"" when the connection is closed before its end."""
        while True:
            head, found, rest = self.data.partition(b"\r\n\r\n")
            if found:
                status = int(head.split(b" ", 2)[1])
                if status == 100:
                    self.data = rest
                    continue
                match = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
                size = 0 if head_only or match is None else int(match[1])
                if len(rest) >= size:
                    self.data = rest[size:]
                    return head + found + rest[:size]
            try:
                more = self.connection.recv(65536)
            except ConnectionResetError:
                more = b""
            if not more:
                return b""
            self.data += more

    @property
    def is_closed(self) -> bool:
        try:
            return self.connection.recv(1) == b""
        except ConnectionResetError:
            return True


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def body_of(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def normal(answer: bytes) -> bytes:
    """An answer without what differs from request to request."""
    answer = re.sub(rb"\r\ndate: [^\r]+", b"", answer)
    return re.sub(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", b"ID", answer)


# Servers


@contextmanager
def serving(service: Service, http: Any = None, **chosen: Any) -> Iterator[tuple[int, Sink, Server]]:
    """A real server in a thread; `http` is the protocol in place of the fast path."""
    listener = bind("127.0.0.1", 0)
    log = Sink()
    chosen_settings = Settings(**chosen)
    app = create_app([service], chosen_settings, Log(log))
    server = Server(app, chosen_settings, http)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield listener.getsockname()[1], log, server
    finally:
        server.should_exit = True
        thread.join()
        app.telemetry.close()


@contextmanager
def dial(port: int) -> Iterator[Reader]:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Reader(connection)


@pytest.fixture(scope="module")
def two_ways() -> Iterator[tuple[int, int]]:
    """The ports of the same service by the fast path and without it."""
    chosen: dict[str, Any] = {"keys": keys_of(KEY), "cors": (ORIGIN,), "max_rows": 5, "max_body_bytes": 2000, "max_header_bytes": 1500}
    first = make_service(moody)
    second = Service(first.name, first.version, first.bundle, first.engine)
    second.warm_up()
    with serving(first, **chosen) as (fast, _, _), serving(second, HttpToolsProtocol, **chosen) as (plain, _, _):
        yield fast, plain


# The same answers both ways

USUAL = {
    "Host": ["localhost", "127.0.0.1:80", "LOCALHOST", "evil.example", "a b", ""],
    "Content-Type": ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/json;charset=latin-1",
                     "text/csv", "text/plain", ""],
    "Authorization": [f"Bearer {KEY}", f"bearer  {KEY}", "Bearer wrong", "Basic x", ""],
}  # fmt: skip
UNUSUAL = {
    "Accept": ["*/*", "application/json", "text/csv", "text/html", "application/json;q=0.1, text/csv", "image/png"],
    "X-API-Key": [KEY, "wrong"],
    "X-Request-Id": ["mine", "a b", "x" * 129, "\xe9"],
    "traceparent": [TRACE, "00-0-0-0", TRACE.upper()],
    "Origin": [ORIGIN, "https://evil.example", "null"],
    "Content-Encoding": ["identity", "gzip"],
    "Connection": ["keep-alive", "close", "x, close"],
    "Expect": ["100-continue"],
    "Upgrade": ["h2c"],
    "X-Filler": ["", "f" * 1600],
    "Cookie": ["a=b"],
}


def lines_of(draw: Callable[..., Any]) -> list[str]:
    """The headers of a request: mostly usual, and a few more."""
    given = {name: draw(st.just(values[0]) | st.sampled_from(values)) for name, values in USUAL.items()}
    for name in draw(st.lists(st.sampled_from(list(UNUSUAL)), max_size=2)):
        given[name] = draw(st.sampled_from(UNUSUAL[name]))
    lines = [f"{name}: {value}" for name, value in draw(st.permutations(list(given.items()))) if value]
    return [*lines, draw(st.sampled_from(lines))] if lines and draw(st.integers(0, 15)) == 0 else lines


VALUES = st.sampled_from([1.0, 5, -0.0, 13, 14, 15, "5", None, True, 1e400, [1]])
RECORDS = st.builds(lambda value: FLOWER | {"petal_length": value}, VALUES) | st.sampled_from(
    [FLOWER, FLOWER, dict(reversed(FLOWER.items())), {}, {"petal_length": 1}, FLOWER | {"more": 1}]
)
BODIES = (
    (RECORDS | st.lists(RECORDS, max_size=7)).map(lambda value: json.dumps(value).encode())
    | st.sampled_from(
        [b"", b"{", b"null", b"[]", b"1", b'"', b" " + flower(), flower() + b"x", b"\xef\xbb\xbf" + flower(), flower() * 60, b"\xff",
         b'{"petal_length":1,' + flower()[1:], b"sepal_length,sepal_width,petal_length,petal_width\n5.1,3.5,1.4,0.2\n", b"[" * 1000,
         flower().replace(b"1.4", b"NaN"), flower().replace(b"petal_length", rb"petal_l\u0065ngth")]
    )
)  # fmt: skip
PATHS = st.sampled_from(
    ["/predict"] * 6
    + ["/models/iris/predict", "/invocations", "/predict?a=b", "/predict/", "//predict", "/%70redict", "/predict;x",
       "http://evil.example/predict", "http://localhost/predict", "/models/rose/predict", "/", "/v1/models/iris:predict", "/predict#f"]
)  # fmt: skip


@st.composite
def requests(draw: Callable[..., Any]) -> bytes:
    lines, body = lines_of(draw), draw(BODIES)
    method = draw(st.sampled_from(["POST"] * 8 + ["GET", "PUT", "OPTIONS"]))
    line = f"{method} {draw(PATHS)} HTTP/{draw(st.sampled_from(['1.1'] * 9 + ['1.0']))}"
    if draw(st.integers(0, 9)):
        return post(body, *lines, line=line)
    size = draw(st.integers(1, 9))
    parts = [body[at : at + size] for at in range(0, len(body), size)] + [b""]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return post(chunks, *lines, "Transfer-Encoding: chunked", line=line, length=False)


def exchange(port: int, sent: Sequence[bytes], cuts: Sequence[int]) -> list[bytes]:
    """What comes back for requests that are sent one behind the other, cut at these places; b"" where the connection was closed."""
    everything = b"".join(sent)
    places = sorted({min(cut, len(everything)) for cut in cuts} | {0, len(everything)})
    with dial(port) as reader:
        for start, stop in pairwise(places):
            try:
                reader.connection.sendall(everything[start:stop])
            except (BrokenPipeError, ConnectionResetError):  # it has been closed after a refusal
                break
        return [normal(reader.answer()) for _ in sent]


@settings(max_examples=300, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=3), st.lists(st.integers(0, 1200), max_size=3))
def test_the_same_requests_get_the_same_bytes_both_ways(two_ways: tuple[int, int], sent: list[bytes], cuts: list[int]) -> None:
    fast, plain = two_ways
    assert exchange(fast, sent, cuts) == exchange(plain, sent, cuts)


@pytest.mark.parametrize("body", [flower(), *(flower(petal_length=mood) for mood in (13, 14, 15)), b"[]", b"{", b"[{}]"])
@pytest.mark.parametrize("more", [[], ["Connection: close"], [f"Origin: {ORIGIN}"], [f"traceparent: {TRACE}"], ["X-Request-Id: mine"]])
def test_these_requests_get_the_same_bytes_both_ways(two_ways: tuple[int, int], body: bytes, more: list[str]) -> None:
    """Each twice, so that the second meets a head that is known."""
    fast, plain = two_ways
    sent = [post(body, "Host: localhost", "Content-Type: application/json", f"Authorization: Bearer {KEY}", *more)] * 2
    assert exchange(fast, sent, [len(sent[0])]) == exchange(plain, sent, [len(sent[0])])


# One connection, with a transport made here


class Transport(asyncio.Transport):
    """Keeps what is written, and how the connection was treated."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1234), "sockname": ("127.0.0.1", 80)})
        self.written = b""
        self.closed = self.paused = self.aborted = False
        self.unsent = 0
        """What the caller has not taken."""

    def write(self, data: Any) -> None:
        assert not self.closed, "written to after it was closed"
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert (high, low) == (0, None), "the connection is told of whatever is not sent"

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.closed = self.aborted = True


class Watch:
    """A board and a recorder."""

    def __init__(self) -> None:
        self.debt = 0
        self.is_sending = False
        self.statuses: list[int] = []

    def owed(self, slot: int, change: int) -> None:
        assert slot == 7
        self.debt += change
        assert self.debt >= 0

    def sending(self, slot: int) -> None:
        self.is_sending = True

    def sent(self, slot: int, whole: bool) -> None:
        assert self.is_sending, "an answer left unannounced"
        self.is_sending = not whole
        self.owed(slot, -1)

    def flushed(self, slot: int) -> None:
        self.is_sending = False

    def answered(self, service: str, path: str, status: int, rows: int, seconds: float, *more: Any) -> None:
        assert (service, path) == ("iris", "/predict")
        assert seconds >= 0
        self.statuses.append(status)


class Talk:
    """A connection on the loop that runs."""

    def __init__(self, service: Service, **chosen: Any) -> None:
        self.app = create_app([service], Settings(**chosen), Log(Sink()))
        self.server = Server(self.app, Settings(**chosen))
        self.server.config.load()
        self.server.server_state.default_headers = [(b"date", b"today")]
        self.watch = Watch()
        self.shared = FastPath(self.app, recorder=self.watch, board=self.watch, tick_s=3600.0)
        self.transport = Transport()
        self.connection = self.dial(self.transport)

    def dial(self, transport: Transport) -> Connection:
        connection = Connection(self.shared, self.server.config, self.server.server_state, {}, asyncio.get_running_loop(), slot=7)
        connection.connection_made(transport)
        return connection

    def send(self, data: bytes) -> None:
        self.connection.data_received(data)

    async def answers(self, count: int) -> list[bytes]:
        """So many answers, as soon as they are there."""
        while True:
            found = re.findall(rb"HTTP/1\.1 \d+ (?:.|\n)*?\r\n\r\n(?:.|\n)*?(?=HTTP/1\.1 \d|$)", self.transport.written)
            if len(found) >= count:
                assert len(found) == count
                return found
            await asyncio.sleep(0)

    async def turn(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    @property
    def was_fast(self) -> bool:
        """Whether no request so far took the ordinary way."""
        return self.connection.cycle is None


def talk(story: Callable[[Talk], Any], service: Service | None = None, **chosen: Any) -> None:
    """Tell a story on a new loop."""

    async def main() -> None:
        told = Talk(service or make_service(), **chosen)
        try:
            await asyncio.wait_for(story(told), 30)
        finally:
            if told.shared._timer is not None:
                told.shared._timer.cancel()

    asyncio.run(main())


def test_a_plain_request_takes_the_fast_path_whether_its_head_is_known_or_not() -> None:
    async def story(told: Talk) -> None:
        for _ in range(3):
            told.send(GOOD)
        assert len(told.shared.heads) == 1
        first, *others = await told.answers(3)
        assert status(first) == 200
        assert [normal(other) for other in others] == [normal(first)] * 2
        assert told.was_fast
        assert told.watch.statuses == [200] * 3
        assert told.watch.debt == 0

    talk(story)


def test_a_request_may_be_cut_at_any_byte() -> None:
    async def story(told: Talk) -> None:
        told.send(GOOD)
        (whole,) = await told.answers(1)
        for known in (True, False):
            for cut in range(1, len(GOOD)):
                if not known:
                    told.shared.heads.clear()
                told.transport.written = b""
                told.send(GOOD[:cut])
                await told.turn()
                assert told.transport.written == b""
                told.send(GOOD[cut:])
                (answer,) = await told.answers(1)
                assert normal(answer) == normal(whole)
        assert told.was_fast

    talk(story)


def test_a_request_may_come_byte_by_byte() -> None:
    async def story(told: Talk) -> None:
        for byte in GOOD * 2:
            told.send(bytes([byte]))
        assert [status(answer) for answer in await told.answers(2)] == [200, 200]
        assert told.was_fast

    talk(story)


def echo(columns: Columns) -> Columns:
    return {"prediction": columns["petal_length"]}


def numbered() -> Service:
    return make_service(echo, Signature(IRIS.inputs, (Field("prediction", "number"),)))


@given(st.lists(st.sampled_from(["fast", "known", "ordinary", "refused", "list"]), min_size=1, max_size=12), st.integers(1, 3000))
@settings(max_examples=60, deadline=None)
def test_requests_sent_one_behind_the_other_are_answered_in_their_order(kinds: list[str], size: int) -> None:
    sent, expected = b"", []
    for number, kind in enumerate(kinds):
        length = "0" if kind == "refused" else f"{number}.5"
        body = f'{{"sepal_length":1,"sepal_width":1,"petal_length":{length!s},"petal_width":1}}'.replace(": ", ":")
        expected.append(422 if kind == "refused" else number + 0.5)
        if kind == "refused":
            body = body.replace('"petal_length":0', '"petal_length":"0"')
        more = {"ordinary": ["Accept-Encoding: gzip", "Content-Encoding: identity"], "known": []}.get(kind, [f"X-Number: {number}"])
        sent += post(f"[{body}]" if kind == "list" else body, "Host: localhost", "Content-Type: application/json", *more)

    async def story(told: Talk) -> None:
        for at in range(0, len(sent), size):
            told.send(sent[at : at + size])
        got = []
        for answer in await told.answers(len(kinds)):
            value = body_of(answer)
            got.append(422 if status(answer) == 422 else (value[0] if isinstance(value, list) else value)["prediction"])
        assert got == expected
        assert told.watch.debt == 0

    talk(story, numbered())


def test_who_sends_very_many_requests_at_once_is_not_read_until_they_are_answered() -> None:
    async def story(told: Talk) -> None:
        told.send(GOOD * 100)
        assert told.transport.paused
        assert len(await told.answers(100)) == 100
        assert not told.transport.paused

    talk(story)


def test_who_does_not_read_its_answers_is_not_read_either() -> None:
    async def story(told: Talk) -> None:
        told.connection.pause_writing()
        assert told.transport.paused
        told.send(GOOD)
        await told.answers(1)
        assert told.transport.paused
        told.connection.resume_writing()
        assert not told.transport.paused

    talk(story)


@pytest.mark.parametrize("request_", [GOOD, GOOD.replace(b"Host", b"Content-Encoding: identity\r\nHost")], ids=["fast", "ordinary"])
def test_whether_an_answer_may_be_cut_off_is_known_until_all_of_it_has_left(request_: bytes) -> None:
    class Slow(Transport):
        """Keeps a part of what is written, as a full socket does."""

        def write(self, data: Any) -> None:
            assert told_.watch.is_sending
            super().write(data)
            if not told_.connection.flow.write_paused:
                told_.connection.pause_writing()

    async def story(told: Talk) -> None:
        nonlocal told_
        told_ = told
        told.transport = Slow()
        told.connection = told.dial(told.transport)
        told.send(request_)
        while b"HTTP/1.1 200" not in told.transport.written:
            await asyncio.sleep(0)
        told.connection.flow.resume_writing()  # the ordinary way waits for it before it writes the body
        while told.watch.debt:
            await asyncio.sleep(0)
        assert told.watch.is_sending
        told.connection.resume_writing()
        assert not told.watch.is_sending

    told_: Talk
    talk(story)


def test_who_takes_nothing_of_its_answer_for_long_is_cut_off() -> None:
    async def story(told: Talk) -> None:
        told.send(GOOD)
        await told.answers(1)
        told.shared._tick_s = 1.0
        told.connection.pause_writing()
        for _ in range(5):
            told.transport.unsent = 1000 - told.transport.unsent  # it takes some now and then
            for _ in range(75):
                told.connection.tick()
        assert not told.transport.closed
        told.connection.tick()
        assert not told.transport.aborted
        told.connection.tick()
        assert told.transport.aborted

    talk(story)


# Those who leave, and those who are slow


def test_a_caller_who_sends_nothing_more_gets_its_answer_and_then_the_connection_ends() -> None:
    async def story(told: Talk) -> None:
        told.send(GOOD)
        assert told.connection.eof_received() is True
        (answer,) = await told.answers(1)
        assert status(answer) == 200
        assert b"\r\nconnection: close\r\n" in answer
        assert told.transport.closed

    talk(story)


def test_with_nothing_owed_the_end_of_what_is_sent_ends_the_connection() -> None:
    async def story(told: Talk) -> None:
        assert not told.connection.eof_received()
        told.send(GOOD[:-5])

    talk(story)


class Gate:
    """A model that answers when it is let."""

    def __init__(self) -> None:
        self.calls = 0
        self.begun, self.open = threading.Event(), threading.Event()
        self.open.set()

    def __call__(self, columns: Columns) -> Columns:
        self.calls += 1
        self.begun.set()
        assert self.open.wait(30)
        return by_petal(columns)


def gated() -> tuple[Gate, Service]:
    """A model on its thread, and the first call under way once it is asked."""
    gate = Gate()
    service = make_service(gate)
    service.pace = Pace([(1, 1.0)])
    gate.begun.clear()
    gate.open.clear()
    gate.calls = 0
    return gate, service


def test_a_caller_who_left_is_not_computed_whether_it_closed_or_was_cut_off() -> None:
    gate, service = gated()

    async def story(told: Talk) -> None:
        told.send(GOOD)
        await asyncio.to_thread(gate.begun.wait, 30)
        closing, broken, ordinary = told.dial(Transport()), told.dial(Transport()), told.dial(Transport())
        closing.data_received(GOOD)
        broken.data_received(GOOD)
        ordinary.data_received(GOOD.replace(b"Host", b"Content-Encoding: identity\r\nHost"))
        await told.turn()
        assert service.batcher(told.shared.settings).waiting == 3
        assert closing.eof_received() is False
        broken.connection_lost(ConnectionResetError())
        ordinary.connection_lost(ConnectionResetError())
        gate.open.set()
        (answer,) = await told.answers(1)
        assert status(answer) == 200
        await told.turn()
        assert gate.calls == 1
        assert sorted(told.watch.statuses) == [200, 499, 499]

    talk(story, service)


def test_a_slow_body_is_left_to_the_application_which_has_a_deadline() -> None:
    async def story(told: Talk) -> None:
        told.send(GOOD[:-3])
        told.connection.tick()
        assert not told.was_fast
        await told.turn()
        told.send(GOOD[-3:])
        (answer,) = await told.answers(1)
        assert status(answer) == 200

    talk(story)


def test_a_body_that_does_not_come_is_408() -> None:
    with serving(make_service(), body_timeout_s=0.1) as (port, _, _), dial(port) as reader:
        reader.connection.sendall(GOOD[:-3])
        answer = reader.answer()
        assert status(answer) == 408
        assert body_of(answer)["type"] == "urn:modelport:request-timeout"


def test_a_head_that_does_not_come_is_408_and_an_idle_connection_is_closed() -> None:
    async def story(told: Talk) -> None:
        told.shared._tick_s = 10.0
        silent = Transport()
        other = told.dial(silent)
        told.send(GOOD[:20])
        for _ in range(4):
            told.connection.tick()
            other.tick()
        assert status(told.transport.written) == 408
        assert told.transport.closed
        assert silent.closed
        assert silent.written == b""

    talk(story, body_timeout_s=30.0)


def test_the_time_between_two_requests_is_not_that_of_a_slow_one() -> None:
    async def story(told: Talk) -> None:
        told.shared._tick_s = 1.0
        told.send(GOOD)
        await told.answers(1)
        for _ in range(75):
            told.connection.tick()
        assert not told.transport.closed
        told.connection.tick()
        assert told.transport.closed

    talk(story, body_timeout_s=3.0)


# Strange requests, over real sockets


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(make_service()) as (port, _, _):
        yield port


@pytest.mark.parametrize(
    "nonsense",
    [b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET\r\n\r\n", b"POST /predict HTTP/9.9\r\n\r\n",
     b"POST /pre\x00dict HTTP/1.1\r\nHost: localhost\r\n\r\n",
     post(b"0\r\n\r\n", "Host: localhost", "Content-Type: application/json", "Transfer-Encoding: chunked"),
     post(b"x", "Host: localhost", "Content-Length: 2"), post(b"x", "Host: localhost", "Content-Length : 1", length=False)],
)  # fmt: skip
def test_what_is_no_http_is_400_with_a_problem_and_the_connection_ends(port: int, nonsense: bytes) -> None:
    with dial(port) as reader:
        reader.connection.sendall(nonsense)
        answer = reader.answer()
        assert status(answer) == 400
        assert body_of(answer)["type"] == "urn:modelport:request"
        assert reader.is_closed


@pytest.mark.parametrize(
    "nonsense", [b"\x16\x03\x01\r\n\r\n", b"POST /predict HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"]
)
def test_nonsense_behind_a_request_does_not_take_its_answer(port: int, nonsense: bytes) -> None:
    """And nothing of it becomes a second request."""
    for good in (GOOD, GOOD.replace(b"Host", b"Content-Encoding: identity\r\nHost")):
        with dial(port) as reader:
            reader.connection.sendall(good + nonsense + GOOD)
            assert status(reader.answer()) == 200
            assert reader.answer() == b""


def test_a_body_that_looks_like_a_request_is_none(port: int) -> None:
    smuggled = b'{"a":"' + GOOD + b'"}'
    with dial(port) as reader:
        reader.connection.sendall(post(smuggled) + GOOD)
        assert [status(reader.answer()), status(reader.answer())] == [400, 200]


def test_a_head_without_end_is_431(port: int) -> None:
    with dial(port) as reader:
        reader.connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX: ")
        try:
            for _ in range(100):
                reader.connection.sendall(b"x" * 65536)
        except (BrokenPipeError, ConnectionResetError):
            return  # it is refused while it is still sent
        assert status(reader.answer()) == 431


def test_a_million_bytes_of_headers_are_431(port: int) -> None:
    with dial(port) as reader:
        try:
            reader.connection.sendall(post(flower(), "Host: localhost", *(f"X-{number}: {'x' * 1000}" for number in range(1000))))
        except (BrokenPipeError, ConnectionResetError):
            return
        assert reader.answer()[:12] in (b"", b"HTTP/1.1 431")


def test_an_upgrade_is_not_made_and_the_connection_lives_on(port: int) -> None:
    """As Java's client asks for HTTP/2 without TLS."""
    upgrade = GOOD.replace(b"Host", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\nHost")
    for sent in ([upgrade, GOOD], [upgrade + GOOD], [GOOD, upgrade, GOOD]):
        with dial(port) as reader:
            for part in sent:
                reader.connection.sendall(part)
            for _ in range(b"".join(sent).count(b"POST ")):
                assert status(reader.answer()) == 200


def test_the_body_of_a_request_that_asks_for_an_upgrade_is_no_request(port: int) -> None:
    upgrade = post(GOOD, "Host: localhost", "Content-Type: application/json", "Connection: upgrade", "Upgrade: h2c")
    with dial(port) as reader:
        reader.connection.sendall(upgrade + GOOD)
        assert [status(reader.answer()), status(reader.answer())] == [400, 200]


def test_a_tunnel_is_not_made(port: int) -> None:
    with dial(port) as reader:
        reader.connection.sendall(b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n" + GOOD)
        assert status(reader.answer()) in (400, 404, 405)
        assert reader.answer() == b""


def test_a_body_that_is_announced_is_asked_for(port: int) -> None:
    with dial(port) as reader:
        asked = GOOD.replace(b"Host", b"Expect: 100-continue\r\nHost")
        head, _, body = asked.partition(b"\r\n\r\n")
        reader.connection.sendall(head + b"\r\n\r\n")
        assert reader.connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        reader.connection.sendall(body)
        assert status(reader.answer()) == 200


def test_http_1_0_is_answered_and_closed(port: int) -> None:
    with dial(port) as reader:
        reader.connection.sendall(GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert status(reader.answer()) == 200
        assert reader.is_closed


def test_after_the_last_request_nothing_more_is_read(port: int) -> None:
    with dial(port) as reader:
        reader.connection.sendall(GOOD.replace(b"Host", b"Connection: close\r\nHost") + GOOD)
        answer = reader.answer()
        assert status(answer) == 200
        assert b"\r\nconnection: close\r\n" in answer
        assert reader.answer() == b""


def test_empty_lines_before_a_request_are_nothing(port: int) -> None:
    with dial(port) as reader:
        for sent in (b"\r\n" + GOOD, b"\r\n\r\n" + GOOD, GOOD):
            reader.connection.sendall(sent)
            assert status(reader.answer()) == 200


# What is known of heads


def test_a_head_with_the_callers_own_id_or_trace_is_not_kept() -> None:
    async def story(told: Talk) -> None:
        told.send(post(flower(), "Host: localhost", "Content-Type: application/json", "X-Request-Id: mine"))
        told.send(post(flower(), "Host: localhost", "Content-Type: application/json", f"traceparent: {TRACE}"))
        first, second = await told.answers(2)
        assert b"\r\nx-request-id: mine\r\n" in first
        assert b"\r\ntraceparent: " + TRACE.encode() in second
        assert told.shared.heads == {}
        assert told.was_fast

    talk(story)


def test_only_heads_of_bounded_size_and_number_are_kept() -> None:
    async def story(told: Talk) -> None:
        told.send(post(flower(), "Host: localhost", "Content-Type: application/json", "X: " + "x" * 3000))
        assert told.shared.heads == {}
        for number in range(1100):
            told.send(post(flower(), "Host: localhost", "Content-Type: application/json", f"X: {number}"))
            assert len(told.shared.heads) <= 1024
            await told.turn()

    talk(story)


@pytest.mark.parametrize("changed", [b"Bearer wrong", b"Bearer sesam", b"Bearer sesame2"])
def test_a_known_head_opens_for_no_other_key(changed: bytes) -> None:
    async def story(told: Talk) -> None:
        right = post(flower(), "Host: localhost", "Content-Type: application/json", f"Authorization: Bearer {KEY}")
        told.send(right)
        told.send(right)
        told.send(right.replace(b"Bearer sesame", changed))
        assert [status(answer) for answer in await told.answers(3)] == [200, 200, 401]

    talk(story, keys=keys_of(KEY))


# Overload, and the end


def test_what_cannot_wait_is_503_with_the_seconds_after_which_to_come_again() -> None:
    gate, service = gated()

    async def story(told: Talk) -> None:
        told.send(GOOD)
        await asyncio.to_thread(gate.begun.wait, 30)
        waiting, refused = Transport(), Transport()
        told.dial(waiting).data_received(GOOD)
        told.dial(refused).data_received(GOOD)
        assert status(refused.written) == 503
        assert re.search(rb"\r\nretry-after: [1-9]", refused.written)
        assert b"connection: close" not in refused.written
        gate.open.set()
        await told.answers(1)
        while not waiting.written:
            await asyncio.sleep(0)
        assert status(waiting.written) == 200
        assert told.watch.debt == 0

    talk(story, service, max_waiting=1)


def test_a_model_that_does_not_answer_in_time_is_504() -> None:
    gate, service = gated()
    with serving(service, timeout_s=0.05) as (port, _, _), dial(port) as reader:
        reader.connection.sendall(GOOD)
        answer = reader.answer()
        gate.open.set()
        assert status(answer) == 504
        assert body_of(answer)["type"] == "urn:modelport:deadline-exceeded"


def test_while_the_service_ends_each_answer_says_that_the_connection_does() -> None:
    async def story(told: Talk) -> None:
        told.app.draining = True
        told.send(GOOD * 2)
        first, second = await told.answers(2)
        assert b"\r\nconnection: close\r\n" not in first
        assert b"\r\nconnection: close\r\n" in second
        assert told.transport.closed

    talk(story)


def test_a_connection_told_to_end_first_answers_what_it_owes() -> None:
    async def story(told: Talk) -> None:
        told.send(GOOD)
        told.connection.shutdown()
        assert not told.transport.closed
        (answer,) = await told.answers(1)
        assert status(answer) == 200
        assert told.transport.closed
        idle = Transport()
        told.dial(idle).shutdown()
        assert idle.closed

    talk(story)


# What this rests on


def test_the_inside_of_uvicorn_is_as_the_fast_path_knows_it() -> None:
    """When this fails, read uvicorn/protocols/http/httptools_impl.py again before the versions in pyproject.toml are moved on."""
    members = {name: member for name, member in vars(HttpToolsProtocol).items() if inspect.isfunction(member)}
    methods = {name: list(inspect.signature(member).parameters) for name, member in members.items()}
    assert methods == {
        "__init__": ["self", "config", "server_state", "app_state", "_loop"],
        "connection_made": ["self", "transport"],
        "connection_lost": ["self", "exc"],
        "eof_received": ["self"],
        "_unset_keepalive_if_required": ["self"],
        "_get_upgrade": ["self"],
        "_should_upgrade_to_ws": ["self"],
        "_unsupported_upgrade_warning": ["self"],
        "_should_upgrade": ["self"],
        "data_received": ["self", "data"],
        "handle_websocket_upgrade": ["self"],
        "send_400_response": ["self", "msg"],
        "on_message_begin": ["self"],
        "on_url": ["self", "url"],
        "on_header": ["self", "name", "value"],
        "on_headers_complete": ["self"],
        "_start_asgi_task": ["self", "cycle", "app"],
        "on_body": ["self", "body"],
        "on_message_complete": ["self"],
        "on_response_complete": ["self"],
        "shutdown": ["self"],
        "pause_writing": ["self"],
        "resume_writing": ["self"],
        "timeout_keep_alive_handler": ["self"],
    }
    for name, uses in {
        "__init__": ["self.parser", "self.pipeline", "self.cycle", "self.flow", "self.timeout_keep_alive_task", "self.server_state"],
        "on_headers_complete": [
            "self.url",
            "existing_cycle.response_complete",
            "self.pipeline.appendleft((self.cycle, app))",
            "self._start_asgi_task",
        ],
        "on_header": ["self.headers.append((name, value))", "name.lower()"],
        "on_response_complete": ["self.pipeline.pop()", "self.flow.resume_reading()"],
        "on_message_begin": ["self.scope", 'self.url = b""'],
        "connection_lost": ["self.cycle.disconnected = True"],
    }.items():
        source = inspect.getsource(getattr(HttpToolsProtocol, name))
        for use in uses:
            assert use in source, f"{name} has no {use!r} any more"
    cycle = set(inspect.signature(httptools_impl.RequestResponseCycle).parameters)
    assert {"scope", "transport", "flow", "message_event", "keep_alive", "on_response"} <= cycle
    assert httptools_impl.STATUS_LINE[200] == b"HTTP/1.1 200 OK\r\n"


def test_the_parser_can_be_asked_once_the_message_is_complete() -> None:
    """A request whose body needs a closer look is handed to uvicorn only then."""
    seen = []

    class Listener:
        def on_message_complete(self) -> None:
            seen.append((parser.get_method(), parser.get_http_version(), parser.should_keep_alive(), parser.should_upgrade()))

    parser = httptools.HttpRequestParser(Listener())
    parser.feed_data(GOOD + GOOD.replace(b"Host", b"Connection: close\r\nHost"))
    assert seen == [(b"POST", "1.1", True, False), (b"POST", "1.1", False, False)]


@pytest.mark.parametrize("name", ["uvicorn", "httptools"])
def test_only_tested_versions_are_installed(name: str) -> None:
    pyproject = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    (wanted,) = [one for one in map(Requirement, pyproject["project"]["dependencies"]) if one.name == name]
    assert "<" in str(wanted.specifier), f"{name} needs a bound: the fast path rests on its inside"
    assert wanted.specifier.contains(version(name))

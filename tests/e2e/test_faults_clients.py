"""The service and callers who are too many, too slow, gone or hostile: real processes and sockets.

The numbers are those of section C of the list of conformance scenarios. What is proved elsewhere is not repeated here:

    30  the 60 seconds at ten times the capacity, with their times and the memory: bench/overload.py
    31  in the batcher alone: test_batching.py, test_expired_work_is_never_computed
    32  by the way a caller leaves: test_fastpath.py, test_a_caller_who_left_is_not_computed_whether_it_closed_or_was_cut_off
    33  one slow head, one slow body: test_fastpath.py, test_a_head_that_does_not_come_is_408_and_...; test_serving_guard.py
    35  a chunked body without end, headers over the limit, spellings of a path, hosts: test_serving_guard.py, test_fastpath.py
    37  each bad body with its pointer, both ways through the service: test_serving_contract.py, test_fastpath.py
    38  belongs to models of images, which there are none of yet
    39  the turns that callers take: test_batching.py, test_a_flood_does_not_keep_others_from_being_taken

"Below 50 ms" and "below 250 ms" are for bench/; here it is only seen that an answer does not wait for the model's.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import resource
import select
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faults_world import Running, ask, make_bundle, serving
from misbehaving import ANSWER, SLEEP, WAIT

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="the workers of a service are found in /proc")

CALL_S = 0.004
"""What the model takes for a row in the tests of overload."""
CALLERS = 1000


@pytest.fixture(scope="module", autouse=True)
def _descriptors() -> Iterator[None]:
    """As many descriptors as this process may have; the services that it starts have them too."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "misbehaving").folder


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose example costs what the requests of these tests do, so that the service expects it."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "slow", what=WAIT, number=CALL_S).folder


@pytest.fixture(scope="module")
def steady(bundle: Path) -> Iterator[Running]:
    """A service that no test hurts."""
    with serving(bundle) as running:
        yield running


# Overload


def test_30_and_40_of_far_too_much_what_can_be_answered_is_and_health_all_the_while(slow: Path) -> None:
    """Scenarios 30 and 40.

    The rest is refused and told when to come again; the model computes nothing that nobody gets; and afterwards all is as before.
    """

    async def flooded(service: Running) -> tuple[Counter[int], list[str], list[int]]:
        statuses: Counter[int] = Counter()
        refused: list[str] = []
        enough, turns = asyncio.Event(), asyncio.Semaphore(0)

        async def insist() -> None:
            async with _connection(service) as (reader, writer):
                while not enough.is_set():
                    status, headers, _ = await _asked(reader, writer, _post(WAIT, CALL_S))
                    statuses[status] += 1
                    if status == 503:
                        refused.append(headers["retry-after"])
                        await turns.acquire()
                    else:  # ten of those who were refused ask again for each who was not: ten times what can be answered
                        for _ in range(10):
                            turns.release()

        async def look() -> list[int]:
            seen = []
            while statuses[200] < 500 or len(seen) < 60:
                for path in ("/livez", "/readyz", "/metrics"):
                    async with _connection(service) as (reader, writer):
                        seen.append((await _asked(reader, writer, _get(path)))[0])
            return seen

        callers = [asyncio.create_task(insist()) for _ in range(CALLERS)]
        seen = await look()
        enough.set()
        for _ in callers:
            turns.release()
        await asyncio.gather(*callers)
        return statuses, refused, seen

    with serving(slow, "--timeout", "2") as service:
        (worker,) = service.workers()
        with service.client() as client:
            statuses, refused, health = asyncio.run(flooded(service))
            assert set(health) == {200}
            assert set(statuses) <= {200, 503, 504}
            assert statuses[503] > 6 * statuses[200], "it was not far too much"
            assert statuses[504] < statuses[200] / 2  # how many is for bench/overload.py
            assert {after.isdecimal() and int(after) > 0 for after in refused} == {True}
            metrics = client.get("/metrics").text
            assert [ask(client).status_code for _ in range(50)] == [200] * 50
        assert service.workers() == [worker]
        assert service.stop() == 0
    (computed,) = [float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("modelport_batch_rows_sum")]
    assert statuses[200] <= computed <= statuses[200] + statuses[504]


def test_31_what_has_waited_too_long_is_not_computed(slow: Path) -> None:
    """Scenario 31. Behind a call that is longer than its deadline, in a service that knows that calls may be long."""
    with serving(slow, "--timeout", "2") as service, service.client() as client, ThreadPoolExecutor(2) as callers:
        ask(client, SLEEP, 1.8)  # calls may take twice the longest so far
        service.wait_for_line("asleep")
        long = callers.submit(ask, client, SLEEP, 3.4)
        service.wait_for_line("asleep")
        late = callers.submit(ask, client, SLEEP, 0.0)
        assert [long.result().status_code, late.result().status_code] == [504, 504]
        while ask(client).status_code == 503:  # the long call is not over yet
            pass
        assert service.stop() == 0
        assert "asleep" not in service.lines()


def test_32_who_leaves_is_not_computed_and_no_error(slow: Path) -> None:
    """Scenario 32."""
    with serving(slow) as service, service.client() as client, ThreadPoolExecutor(1) as caller:
        stays = caller.submit(ask, client, SLEEP, 2.0)
        service.wait_for_line("asleep")
        with service.dial() as leaves:
            leaves.sendall(_post(SLEEP, 0.0, "X-Request-Id: gone"))
        while (entry := service.wait_for("request"))["status"] == 200:
            pass
        assert (entry["request_id"], entry["status"]) == ("gone", 499)
        assert stays.result().status_code == 200
        assert ask(client).status_code == 200
        metrics = client.get("/metrics").text
        assert 'status="5' not in metrics
        assert 'modelport_requests_shed_total{model="misbehaving",reason="left"} 1.0' in metrics
        assert service.stop() == 0
        assert "asleep" not in service.lines()


def test_39_who_floods_the_service_keeps_nobody_else_waiting(slow: Path) -> None:
    """Scenario 39. Hundreds of requests of one address wait all the time; those of another are taken in turn, and none is refused."""
    overtaken: list[int] = []

    async def flooded(service: Running) -> None:
        answered = 0
        enough, full = asyncio.Event(), asyncio.Event()

        async def insist() -> None:
            nonlocal answered
            async with _connection(service) as (reader, writer):
                while not enough.is_set():
                    status, _, _ = await _asked(reader, writer, _post(WAIT, CALL_S))
                    answered += status == 200
                    if answered >= CALLERS:
                        full.set()

        callers = [asyncio.create_task(insist()) for _ in range(CALLERS)]
        await full.wait()
        async with _connection(service, "127.0.0.2") as (reader, writer):
            for _ in range(30):
                before = answered
                status, _, _ = await _asked(reader, writer, _post(ANSWER, 2.0))
                assert status == 200
                overtaken.append(answered - before)
        enough.set()
        await asyncio.gather(*callers)

    with serving(slow, "--timeout", "10") as service:
        asyncio.run(flooded(service))
        # In one line with all others it would come behind nearly 1000. In turn it waits for the running call, and for its own.
        assert sorted(overtaken)[len(overtaken) // 2] < CALLERS / 2


# Slow and idle callers

WITH_A_SHORT_DEADLINE = """
import sys
from modelport.cli.references import open_reference
from modelport.cli.serve import serve
from modelport.serving.settings import Settings

bundle = sys.argv[sys.argv.index("serve") + 1]
raise SystemExit(serve(lambda: [open_reference(bundle, {"trust": True})], Settings(port=0, workers=1, body_timeout_s=3.0)))
"""
"""Becomes the service that the words behind it name, but for one setting."""


def test_33_a_thousand_callers_who_send_a_byte_now_and_then_are_ended_and_hurt_nobody(bundle: Path) -> None:
    """Scenario 33.

    Half of them are slow with their headers, and half with their body. The deadline, which no flag sets, is shorter here.
    """
    many = min(1000, _most_connections())
    with serving(bundle, before=[sys.executable, "-c", WITH_A_SHORT_DEADLINE]) as service, service.client() as client:
        slow = [service.dial() for _ in range(many)]
        watch = select.poll()
        for number, connection in enumerate(slow):
            head = _post(ANSWER, 2.0, "X-Slow: ", length=10_000)
            connection.sendall(head if number % 2 else head[: head.index(b"X-Slow: ") + 8])
            watch.register(connection, select.POLLIN)
        waiting = {connection.fileno(): connection for connection in slow}
        answers = []
        while waiting:
            assert ask(client).status_code == 200
            for descriptor, _ in watch.poll(0):
                watch.unregister(descriptor)
                answers.append(_rest(waiting.pop(descriptor)))
            for connection in waiting.values():
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has ended just now
                    connection.sendall(b"x")
        assert len(answers) == many
        assert {answer[:12] for answer in answers} <= {b"HTTP/1.1 408", b""}  # nothing, where a byte of ours crossed the answer
        assert b"HTTP/1.1 408" in {answer[:12] for answer in answers}
        assert ask(client).status_code == 200


def test_34_thousands_of_idle_connections_keep_nobody_waiting(bundle: Path) -> None:
    """Scenario 34. Each has asked once, stays, and can ask again."""
    many = min(5000, _most_connections())
    with serving(bundle, workers=2) as service, contextlib.ExitStack() as held:
        idle = [held.enter_context(service.dial()) for _ in range(many)]
        for _ in range(2):
            for connection in idle:
                connection.sendall(_get("/livez"))
            for connection in idle:
                assert _status(connection) == 200
            with service.client() as client:
                assert [ask(client).status_code for _ in range(20)] == [200] * 20


def test_34_without_descriptors_callers_wait_and_it_is_logged_once(bundle: Path) -> None:
    """Scenario 34. And whoever closes a connection lets another in."""
    with serving(bundle, before=["prlimit", "--nofile=150:150", "--"]) as service, contextlib.ExitStack() as held:
        connections = [held.enter_context(service.dial()) for _ in range(200)]
        for connection in connections:
            connection.sendall(_get("/livez"))
        service.wait_for("accept-failed")
        answered = 0
        for connection in connections:
            answered += _status(connection) == 200
            connection.close()
        assert answered == 200
        with service.client() as client:
            assert ask(client).status_code == 200
        assert service.stop() == 0
        said = [entry["event"] for entry in service.entries()]
        assert (said.count("accept-failed"), said.count("worker-gone")) == (1, 0)


# Hostile bytes

SMUGGLED = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: smuggled\r\n\r\n"
"""What must not be taken for a request of its own where a server before this one would take it for a body."""
CHUNKED = b"0\r\n\r\n" + SMUGGLED


def _attack(*headers: str, body: bytes = CHUNKED, length: int | None = None, line: str = "POST /predict HTTP/1.1") -> bytes:
    lines = [line, "Host: localhost", "Content-Type: application/json", *headers]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


TWICE = {
    "both lengths": _attack("Transfer-Encoding: chunked", length=len(CHUNKED)),
    "both lengths, the other way round": _attack(f"Content-Length: {len(CHUNKED)}", "Transfer-Encoding: chunked"),
    "a length and a chunk": _attack("Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED), length=4),
    "a space before the colon": _attack("Transfer-Encoding : chunked", length=len(CHUNKED)),
    "a tab before the value": _attack("Transfer-Encoding:\tchunked", length=len(CHUNKED)),
    "a control character before the value": _attack("Transfer-Encoding: \x0bchunked", length=len(CHUNKED)),
    "a word that is nearly chunked": _attack("Transfer-Encoding: xchunked", length=len(CHUNKED)),
    "chunked and something else": _attack("Transfer-Encoding: chunked, identity", length=len(CHUNKED)),
    "chunked twice": _attack("Transfer-Encoding: chunked", "Transfer-Encoding: identity", length=len(CHUNKED)),
    "a quoted word": _attack('Transfer-Encoding: "chunked"', length=len(CHUNKED)),
    "a header that goes on in the next line": _attack("Transfer-Encoding:\r\n chunked", length=len(CHUNKED)),
    "a name behind a bare line feed": _attack("X: y\nTransfer-Encoding: chunked", length=len(CHUNKED)),
    "a name behind a bare carriage return": _attack("X: y\rTransfer-Encoding: chunked", length=len(CHUNKED)),
    "two lengths": _attack(f"Content-Length: {len(CHUNKED)}", length=5),
    "two lengths in one": _attack(f"Content-Length: 5, {len(CHUNKED)}"),
    "a length with a sign": _attack(f"Content-Length: +{len(CHUNKED)}"),
    "a negative length": _attack("Content-Length: -5"),
    "a hexadecimal length": _attack("Content-Length: 0x5"),
    "a length beyond 64 bits": _attack("Content-Length: 18446744073709551621"),
    "a chunk's size beyond 64 bits": _attack("Transfer-Encoding: chunked", body=b"10000000000000000\r\n" + CHUNKED),
    "a negative chunk": _attack("Transfer-Encoding: chunked", body=b"-1\r\n" + CHUNKED),
    "a chunk of no size": _attack("Transfer-Encoding: chunked", body=b"\r\n" + CHUNKED),
    "a chunk that is longer than it says": _attack("Transfer-Encoding: chunked", body=b"1\r\nxy\r\n" + CHUNKED),
    "a body that begins a line too soon": _attack("Transfer-Encoding: chunked", line="POST /predict HTTP/1.0", length=len(CHUNKED)),
    "a space in the path": _attack(line="POST /predict HTTP/1.1 HTTP/1.1", length=len(CHUNKED)),
    "a NUL in the path": _attack(line="POST /pre\x00dict HTTP/1.1", length=len(CHUNKED)),
    "a NUL in a header": _attack("X: a\x00b", length=len(CHUNKED)),
    "a length that lies": _attack(length=5, body=b"{}xxx" + b"yy\r\n\r\n" + SMUGGLED),
    "a million bytes of headers": _attack("X: " + "x" * 1_000_000, length=len(CHUNKED)),
    "an unknown version": _attack(line="POST /predict HTTP/3.7", length=len(CHUNKED)),
    "no version": b"GET /predict\r\n" + SMUGGLED,
}


@pytest.mark.parametrize("name", TWICE)
def test_35_no_byte_of_a_request_becomes_another(steady: Running, name: str) -> None:
    """Scenario 35.

    Whatever is not clear is refused, and nothing behind it is read: never two answers, where a server before this saw one request.
    """
    answer = _said(steady, TWICE[name])
    assert b"smuggled" not in answer
    statuses = _statuses(answer)
    assert len(statuses) <= 1 or name == "a length that lies"
    assert all(400 <= status < 500 for status in statuses), answer[:200]
    with steady.client() as client:
        assert ask(client).status_code == 200


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (_attack(length=17 * 2**20, body=b""), [413]),
        (_attack("Transfer-Encoding: chunked", body=(b"100000\r\n" + b" " * 2**20 + b"\r\n") * 17), [413]),
        (_attack(line="GET http://localhost/livez HTTP/1.1", body=b""), [200]),
        (_attack(line="GET http://evil.example/livez HTTP/1.1", body=b""), [200]),
        (_attack("Host: evil.example", line="GET /livez HTTP/1.1", body=b""), [421]),
        (b"GET /livez HTTP/1.1\r\nHost: evil.example\r\n\r\n", [421]),
        (b"GET /livez HTTP/1.1\r\nHost: localhost:80:80@x\r\n\r\n", [421]),
        (b"GET /livez HTTP/1.1\r\n\r\n", [421]),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 40, [200] * 40),
    ],
    ids=["announced too large", "too large in chunks", "absolute", "absolute and strange", "two hosts", "strange host", "no such host",
         "no host", "pipelining"],
)  # fmt: skip
def test_35_a_request_that_is_no_attack_by_itself_has_its_status(steady: Running, sent: bytes, statuses: list[int]) -> None:
    """Scenario 35. An absolute form is taken by its path, and its Host header is what counts (as test_serving_guard.py says)."""
    answer = _said(steady, sent)
    assert _statuses(answer) in (statuses, [] if len(sent) > 2**20 else statuses)  # what is still being sent may cut the answer off
    with steady.client() as client:
        assert ask(client).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "br", "gzip, gzip", "x-gzip"])
def test_36_a_body_that_unpacks_to_very_much_is_refused_unread(steady: Running, encoding: str) -> None:
    """Scenario 36."""
    (worker,) = steady.workers()
    bomb = gzip.compress(bytes(200 * 2**20), 1)
    before = _highest_memory(worker)
    with steady.client() as client:
        answer = client.post("/predict", content=bomb, headers={"Content-Type": "application/json", "Content-Encoding": encoding})
        assert answer.status_code == 415
        assert ask(client).status_code == 200
    assert _highest_memory(worker) - before < 20 * 2**20


ROW = '{"what": 0, "number": %s}'
WRONG: dict[str, tuple[bytes, int]] = {
    "NaN": ((ROW % "NaN").encode(), 422),
    "1e400": ((ROW % "1e400").encode(), 422),
    "an integer of 5,000 digits": ((ROW % ("9" * 5000)).encode(), 422),
    "two of one key": (b'{"what": 0, "number": 2, "number": 3}', 400),
    "100,000 deep": ((ROW % ("[" * 100_000)).encode(), 400),
    "100,000 deep, and closed": ((ROW % ("[" * 100_000 + "]" * 100_000)).encode(), 400),
    "a lone surrogate": ((ROW % '"\\ud800"').encode(), 400),
    "a byte order mark": (b"\xef\xbb\xbf" + (ROW % "2").encode(), 400),
    "something behind it": ((ROW % "2").encode() + b" x", 400),
    "UTF-16": ((ROW % "2").encode("utf-16"), 400),
    "Latin-1": ('{"größe": 1}'.encode("latin-1"), 400),
    "nothing": (b"", 400),
    "null": (b"null", 422),
    "a list of lists": (b"[[0, 2]]", 422),
    "a number": (b"3", 422),
}


def test_37_whatever_a_body_holds_it_is_refused_by_name_and_hurts_nobody(steady: Running) -> None:
    """Scenario 37. All on one connection, with a good request behind each."""
    with steady.client() as client:
        for name, (body, status) in WRONG.items():
            answer = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
            assert (name, answer.status_code, answer.headers["content-type"]) == (name, status, "application/problem+json")
            if b'"number"' in body and status == 422:
                assert (name, [error["pointer"] for error in answer.json()["errors"]]) == (name, ["/number"])
            assert ask(client).json() == {"prediction": 4.0}


# The callers of these tests


def _post(what: int, number: float, *headers: str, length: int | None = None) -> bytes:
    body = json.dumps({"what": what, "number": number}).encode()
    lines = ["POST /predict HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def _rest(connection: socket.socket) -> bytes:
    """All that comes until the connection ends, however it does."""
    parts = []
    with connection, contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def _said(service: Running, sent: bytes) -> bytes:
    """The answers to bytes, after which no more are sent."""
    connection = service.dial()
    with contextlib.suppress(OSError):  # it was refused before all was sent
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
    return _rest(connection)


def _statuses(answers: bytes) -> list[int]:
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


def _status(connection: socket.socket) -> int:
    """The status of an answer of /livez."""
    answer = b""
    while not answer.endswith(b"}"):
        part = connection.recv(65536)
        assert part, "the connection was closed"
        answer += part
    return _statuses(answer)[0]


@contextlib.asynccontextmanager
async def _connection(service: Running, own: str = "127.0.0.1") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*service.address, local_addr=(own, 0))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, dict[str, str], bytes]:
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


def _most_connections() -> int:
    """How many connections this process, the supervisor or a worker can have, with some descriptors left."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200


def _highest_memory(process: int) -> int:
    (line,) = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024

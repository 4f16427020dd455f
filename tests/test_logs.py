"""The log: what a line says, and that neither a reader who does not read nor a flood of requests keeps the service from answering."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import IO, Any, TextIO

import httpx
import pytest

from modelport.serving.logs import Log, Sampler
from serving_world import FLOWER, live, make_service

LINE: dict[str, Any] = {"request_id": "an-id", "method": "POST", "path": "/predict", "status": 200, "seconds": 0.0012}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, TextIO]]:
    """A pipe: the descriptor to read from, and what to write to."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as out:
        try:
            yield reader, out
        finally:
            with contextlib.suppress(OSError):
                os.close(reader)


def drain(reader: int, into: list[bytes]) -> threading.Thread:
    """Read all that comes until the other end is closed."""

    def read() -> None:
        with os.fdopen(os.dup(reader), "rb") as stream:
            into.extend(stream)

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def test_a_request_is_one_line_of_json() -> None:
    out = io.StringIO()
    log = Log(out)
    log.request(**LINE, rows=2, model="iris:3", client="10.0.0.1", traceparent="00-1-2-01", one_in=8)
    assert log.close()
    entry = json.loads(out.getvalue())
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "event": "request", "request_id": "an-id", "method": "POST", "path": "/predict", "status": 200, "ms": 1.2, "rows": 2,
        "model": "iris:3", "client": "10.0.0.1", "traceparent": "00-1-2-01", "sampled_1_in": 8,
    }  # fmt: skip
    assert out.getvalue().count("\n") == 1


def test_on_a_terminal_a_line_is_for_eyes() -> None:
    out = Terminal()
    log = Log(out)
    log.event("serving", port=8000)
    log.request(**LINE, rows=2, one_in=4)
    log.request(**{**LINE, "path": "/a\x1b[31m\nb", "status": 404})
    log.failure(ValueError("why"), "an-id")
    assert log.close()
    first, second, *failure = out.getvalue().splitlines()
    assert first[8:] == "  200  POST /predict  1.2 ms  2 rows  (1 of 4)"
    assert second[8:] == "  404  POST /a?[31m?b  1.2 ms"
    assert failure == ["request an-id failed:", "ValueError: why"]


def test_of_very_many_failures_not_each_has_its_traceback() -> None:
    out = io.StringIO()
    log = Log(out, clock=Clock(), chance=lambda: 0.999)
    for number in range(50):
        log.failure(ValueError(number), str(number))
    assert log.close()
    entries = list(map(json.loads, out.getvalue().splitlines()))
    assert [entry["error"] for entry in entries] == [f"ValueError: {number}" for number in range(50)]
    assert 10 <= sum("traceback" in entry for entry in entries) < 20


def test_what_json_cannot_say_is_said_otherwise() -> None:
    out = io.StringIO()
    log = Log(out)
    log.event("odd", path=os, text="\udc80")
    assert log.close()
    assert json.loads(out.getvalue())["text"] == "\udc80"


def test_up_to_the_rate_everything_is_taken_and_beyond_it_a_sample_that_adds_up() -> None:
    clock, chance = Clock(), random.Random(1)
    sampler = Sampler(100, clock, chance.random)
    assert [sampler.take() for _ in range(100)] == [1] * 100
    for _ in range(20):
        clock.now += 1
        taken = [sampler.take() for _ in range(10_000)]
        assert sum(one_in > 0 for one_in in taken) < 1000
    # in a second like the one before, about as many as wanted, and each stands for as many as were left out
    clock.now += 1
    taken = [sampler.take() for _ in range(10_000)]
    assert 60 <= sum(one_in > 0 for one_in in taken) <= 160
    assert sum(taken) == pytest.approx(10_000, rel=0.3)
    clock.now += 2
    assert sampler.take() == 1


def test_every_request_is_as_likely_to_be_taken_whoever_sent_it() -> None:
    clock, chance = Clock(), random.Random(2)
    sampler = Sampler(100, clock, chance.random)
    counts = [0, 0]
    for _ in range(50):
        clock.now += 1
        for number in range(4000):
            counts[number % 2] += sampler.take()
    assert counts[0] == pytest.approx(100_000, rel=0.1)
    assert counts[1] == pytest.approx(100_000, rel=0.1)


def test_no_lines_of_ordinary_requests_are_wanted_at_a_rate_of_0() -> None:
    log = Log(io.StringIO(), lines_per_s=0)
    assert [log.sample(status) for status in (200, 404, 503, 500, 504)] == [0, 0, 0, 1, 1]
    assert log.counts == {"written": 0, "sampled_out": 3, "dropped": 0}


def test_refusals_and_answers_do_not_push_each_other_out_and_errors_are_always_logged() -> None:
    log = Log(io.StringIO(), lines_per_s=10, clock=Clock(), chance=lambda: 0.999)
    assert 0 in [log.sample(401) for _ in range(100)]
    assert log.sample(200) == 1
    assert [log.sample(500) for _ in range(1000)] == [1] * 1000


def test_lines_that_nobody_reads_are_dropped_and_counted_and_nothing_waits_for_them() -> None:
    """Scenario 53: the log's driver is stuck."""
    with pipe() as (reader, out):
        log = Log(out, most_waiting=100)
        for number in range(10_000):
            log.request(**{**LINE, "request_id": str(number)})
        assert not log.flush(0)
        dropped = log.counts["dropped"]
        assert dropped > 0
        lines: list[bytes] = []
        reading = drain(reader, lines)
        assert log.flush(30)
        log.request(**{**LINE, "request_id": "later"})
        assert log.close(30)
        assert log.counts == {"written": 10_001 - dropped, "sampled_out": 0, "dropped": dropped}
        out.close()
        reading.join()
    entries = list(map(json.loads, lines))
    assert len(entries) == 10_001 - dropped
    assert entries[-1]["request_id"] == "later"


def test_a_reader_who_is_gone_is_counted_and_the_next_is_written_to() -> None:
    with pipe() as (reader, out):
        log = Log(out)
        os.close(reader)
        log.request(**LINE)
        assert log.flush(30)
        assert log.counts == {"written": 0, "sampled_out": 0, "dropped": 1}
        other_reader, other_writer = os.pipe()
        os.dup2(other_writer, out.fileno())
        os.close(other_writer)
        log.request(**LINE)
        assert log.close(30)
        assert log.counts == {"written": 1, "sampled_out": 0, "dropped": 1}
        assert json.loads(os.read(other_reader, 4096))["request_id"] == "an-id"
        os.close(other_reader)


def test_a_pipe_that_another_program_made_nonblocking_loses_nothing() -> None:
    with pipe() as (reader, out):
        os.set_blocking(out.fileno(), False)
        log = Log(out)
        for number in range(3000):
            log.request(**{**LINE, "request_id": str(number)})
        lines: list[bytes] = []
        reading = drain(reader, lines)
        assert log.close(30)
        out.close()
        reading.join()
    assert [json.loads(line)["request_id"] for line in lines] == list(map(str, range(3000)))


def test_what_is_said_after_the_end_is_dropped() -> None:
    out = io.StringIO()
    log = Log(out)
    assert log.close()
    log.request(**LINE)
    assert log.counts["dropped"] == 1


STUCK = """
import sys
from modelport.serving.logs import Log
log = Log()
for _ in range(2000):
    log.event("x", text="x" * 1000)
print("closed", log.close(0), file=sys.stderr)
"""


def test_a_process_ends_though_nobody_reads_its_log() -> None:
    with pipe() as (_, out):
        ended = subprocess.run([sys.executable, "-c", STUCK], stdout=out, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"closed False\n")


WITHOUT = """
import sys
assert sys.stdout is None
from modelport.serving.logs import Log
log = Log()
log.event("x")
assert log.close()
"""


def test_a_process_without_any_standard_output_has_no_log_and_works() -> None:
    code = f"import os\nos.close(1)\nos.execv({sys.executable!r}, [{sys.executable!r}, '-c', {WITHOUT!r}])"
    ended = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_the_service_answers_while_nobody_reads_its_log() -> None:
    """Scenario 53, with a real service: more is said than the pipe and the queue hold."""
    with pipe() as (reader, out):
        log = Log(out, lines_per_s=10**9, most_waiting=10)
        with live(make_service(), log=log) as running, running.client() as client:
            while not log.counts["dropped"]:
                assert client.post("/predict", json=FLOWER).status_code == 200
            assert dropped_lines(running.port) > 0
            lines: list[bytes] = []
            reading = drain(reader, lines)
            assert log.flush(30)
        assert log.close(30)
        out.close()
        reading.join()
    assert {json.loads(line)["status"] for line in lines} == {200}


def dropped_lines(port: int) -> float:
    """What the metrics say of lines that were dropped."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=30).text
    (line,) = [line for line in text.splitlines() if line.startswith('modelport_log_lines_total{fate="dropped"}')]
    return float(line.split()[-1])


def test_a_real_service_answers_and_ends_while_nobody_reads_its_log() -> None:
    """Scenario 53, as processes: the pipe is full, and the workers and their supervisor still do what they are told."""
    words = [sys.executable, "-c", "from modelport.cli.main import main; main()"]
    words += ["demo", "--port", "0", "--workers", "1", "--log-lines", "1000000", "--metrics-port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    serving = json.loads(process.stdout.readline())
    body = json.dumps(FLOWER).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", serving["port"]), timeout=30) as connection, connection.makefile("rb") as answers:
        while not dropped_lines(serving["metrics_port"]):
            connection.sendall((head.encode() + body) * 50)
            assert [next_status(answers) for _ in range(50)] == [200] * 50
    process.terminate()
    assert process.wait(60) == 0
    process.stdout.close()


def next_status(answers: IO[bytes]) -> int:
    """The status of an answer, which is read to its end."""
    status = int(answers.readline().split()[1])
    length = 0
    while (line := answers.readline()) != b"\r\n":
        name, _, given = line.partition(b":")
        length = int(given) if name.lower() == b"content-length" else length
    answers.read(length)
    return status


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_a_real_service_that_was_started_with_its_standard_streams_closed_answers(closed: tuple[int, ...]) -> None:
    """Scenario 53: what is printed goes nowhere, above all not to a socket that got the number of a closed stream."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        "import os, sys\nfor number in sys.argv[3:]:\n    os.close(int(number))\nos.execv(sys.executable, [sys.executable, *sys.argv[1:3]])"
    )
    serve = f"import sys; sys.argv[1:] = ['demo', '--workers', '1', '--port', '{port}']; from modelport.cli.main import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, "-c", serve, *map(str, closed)], stdout=subprocess.DEVNULL)
    try:
        while (answer := ask(port)) is None or answer.status_code == 503:
            assert process.poll() is None
        assert (answer.status_code, answer.json()["prediction"]) == (200, "setosa")
    finally:
        process.terminate()
        assert process.wait(60) == 0


def ask(port: int) -> httpx.Response | None:
    """The answer to a prediction; None while nobody listens."""
    try:
        return httpx.post(f"http://127.0.0.1:{port}/predict", json=FLOWER, trust_env=False, timeout=30)
    except httpx.ConnectError:
        return None

"""What callers get whose worker is lost in the middle of things: their answer, an error, or the end of the connection, and never another's.

Real processes, signals and sockets. They belong to scenarios 14 to 20 of the list of conformance scenarios.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from faults_world import Running, ask, held, make_bundle, outcome, serving
from misbehaving import ANSWER, GATED, GATED_EXIT, HOLD_LOCK, LOOP, WAIT

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="the workers of a service are found in /proc")

WAITERS, MANY = 4, 150
PATIENT = ["--timeout", "10"]
"""Who is asked again waits so long for the next worker, too."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "misbehaving").folder


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes 5 ms for a row, so that it is called on its thread, and MANY rows are too many to share a call."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "slow", what=WAIT, number=0.005).folder


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Where GATED and GATED_EXIT wait."""
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


def at(gate: Path) -> dict[str, str]:
    return {"MISBEHAVE_GATE": str(gate)}


# Who waits


@pytest.mark.parametrize("kind", ["light", "slow"])
def test_who_waits_behind_a_call_that_ends_the_process_is_answered_by_the_next(bundle: Path, slow: Path, gate: Path, kind: str) -> None:
    """Scenario 18: only the request that did it fails. A light model is called on the loop, so that who waits was not even read."""
    chosen = slow if kind == "slow" else bundle
    with serving(chosen, **at(gate)) as service, service.client() as client, ThreadPoolExecutor(WAITERS + 1) as callers:
        deadly = callers.submit(ask, client, GATED_EXIT)
        with held(gate):
            waiting = [callers.submit(ask, client, ANSWER, number) for number in range(WAITERS)]
            if kind == "slow":
                _until(service, "requests_waiting", WAITERS)
        assert deadly.result().status_code == 500
        _check(waiting)
        assert service.stop() == 0
        gone = [entry["detail"] for entry in service.entries() if entry["event"] == "worker-gone"]
        assert gone == ["a worker is gone: it exited with code 3; 1 requests were not answered"]


def test_who_waits_behind_a_call_that_never_ends_is_answered_by_another_worker(slow: Path, gate: Path) -> None:
    """Scenario 20: the call that is stuck gets 504 when its time is over, and those who came later are asked elsewhere."""
    with serving(slow, *PATIENT, **at(gate)) as service, service.client() as client, ThreadPoolExecutor(WAITERS + 2) as callers:
        first = callers.submit(ask, client, GATED)
        with held(gate):
            stuck = callers.submit(ask, client, LOOP)
            _until(service, "queue_age_seconds", 0.5)
        assert first.result().status_code == 200
        waiting = [callers.submit(ask, client, ANSWER, number) for number in range(WAITERS)]
        assert stuck.result().status_code == 504
        _check(waiting)


def test_who_waits_behind_a_call_that_holds_the_interpreter_s_lock_is_answered_by_another_worker(slow: Path, gate: Path) -> None:
    """Scenario 20: nothing in the worker runs any more, and what it knew stands on the board."""
    with serving(slow, *PATIENT, **at(gate)) as service, service.client() as client, ThreadPoolExecutor(WAITERS + 2) as callers:
        first = callers.submit(ask, client, GATED)
        with held(gate):
            stuck = callers.submit(ask, client, HOLD_LOCK)
            _until(service, "queue_age_seconds", 1.0)
            bodies = [b"[%b]" % b",".join([b'{"what":0,"number":%d}' % number] * MANY) for number in range(WAITERS)]
            json_ = {"Content-Type": "application/json"}
            waiting = [callers.submit(client.post, "/predict", content=body, headers=json_) for body in bodies]
            _until(service, "requests_waiting", 1 + WAITERS)
        assert first.result().status_code == 200
        assert stuck.result().status_code == 504
        answers = [answer.result() for answer in waiting]
        assert [answer.status_code for answer in answers] == [200] * WAITERS
        assert [answer.json() for answer in answers] == [[{"prediction": 2.0 * number}] * MANY for number in range(WAITERS)]


def _check(waiting: list[Future[httpx.Response]]) -> None:
    answers = [answer.result() for answer in waiting]
    assert [answer.status_code for answer in answers] == [200] * WAITERS
    assert [answer.json()["prediction"] for answer in answers] == [2.0 * number for number in range(WAITERS)]


def test_who_waits_with_more_than_is_kept_is_told_to_try_again(slow: Path, gate: Path) -> None:
    """A body of some kilobytes; and the second of two requests that were sent at once. Neither hangs."""
    with serving(slow, **at(gate)) as service, service.client() as client, ThreadPoolExecutor(3) as callers, service.dial() as pipelined:
        deadly = callers.submit(ask, client, GATED_EXIT)
        with held(gate):
            long = callers.submit(client.post, "/predict", content=_body(1.0) + b" " * 5000, headers={"Content-Type": "application/json"})
            pipelined.sendall(_post(1.0) * 2)
            _until(service, "requests_waiting", 3)
        assert deadly.result().status_code == 500
        refused = long.result()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert [status for status, _ in _answers(_rest(pipelined))] == [503]


# Who is being answered


def test_14_whatever_a_killed_worker_was_doing_no_caller_gets_a_wrong_answer_or_waits_for_ever(bundle: Path) -> None:
    """Scenario 14: under full load, one worker after the other is killed at once. Each number has its own answer; a few connections end."""
    outcomes: Counter[str] = Counter()
    enough = threading.Event()

    def insist(service: Running, caller: int) -> None:
        number = float(caller)
        while not enough.is_set():
            with service.dial() as connection:
                answer = b""
                while not enough.is_set() and (answer := _exchanged(connection, number)):
                    ((status, said),) = _answers(answer)
                    assert status in (200, 503)
                    outcomes[str(status)] += 1
                    if status == 503:
                        break
                    assert said == {"prediction": 2.0 * number}
                    number += 100.0
                outcomes["cut"] += not answer

    with serving(bundle, workers=2) as service, ThreadPoolExecutor(16) as callers:
        insisting = [callers.submit(insist, service, caller) for caller in range(16)]
        for round_ in range(4):
            answered = outcomes["200"]
            while outcomes["200"] < answered + 500:
                assert not any(one.done() and one.exception() for one in insisting)
            os.kill(service.workers()[round_ % 2], signal.SIGKILL)
            service.wait_for("worker-gone")
            service.wait_for("worker-ready")
        enough.set()
        for one in insisting:
            one.result()
    assert outcomes["503"] + outcomes["cut"] <= 4 * 16


def test_14_of_requests_sent_one_behind_the_other_a_killed_worker_answers_the_first_ones_in_order(bundle: Path) -> None:
    """Scenario 14, pipelined: what comes are the answers to the first requests, then at most one error, then the end.

    On a machine with too little time a worker may refuse some of them, as it would any other, in their place.
    """
    often, at_once = 60, 24

    def insist(service: Running, caller: int) -> tuple[int, int]:
        whole = broken = 0
        for burst in range(often):
            numbers = [float(1000 * burst + 50 * caller + at) for at in range(at_once)]
            with service.dial() as connection:
                connection.sendall(b"".join(map(_post, numbers)))
                connection.shutdown(socket.SHUT_WR) if burst % 2 else None  # half of them send nothing more
                answers = _answers(_some(connection, at_once))
            for number, (status, said) in zip(numbers, answers, strict=False):
                assert status == 503 or said == {"prediction": 2.0 * number}
            lost = [at for at, (status, said) in enumerate(answers) if status == 503 and "wait for the model" not in str(said)]
            assert lost in ([], [len(answers) - 1])
            good = sum(status == 200 for status, _ in answers)
            whole += good == at_once
            broken += good < at_once
        return whole, broken

    with serving(bundle, workers=2) as service, ThreadPoolExecutor(8) as callers:
        insisting = [callers.submit(insist, service, caller) for caller in range(8)]
        for round_ in range(2):
            with service.client() as client:
                assert ask(client).status_code == 200
            os.kill(service.workers()[round_], signal.SIGKILL)
            service.wait_for("worker-ready")
        done = [one.result() for one in insisting]
    assert sum(whole for whole, _ in done) > 8 * often / 2


ROWS = 200_000
"""Their answers are more than the sockets between a service and its caller hold."""
LARGE = ["--max-rows", str(ROWS), "--max-body", "64MB"]


def test_a_caller_who_has_had_a_part_of_its_answer_sees_the_connection_end(bundle: Path) -> None:
    """The rest is gone with the worker. It does not hang, no other answer is put behind it, and nobody else notices."""
    with serving(bundle, *LARGE) as service, service.client() as client, _reader(service) as reader:
        beginning = _half_read(service, reader)
        os.kill(service.workers()[0], signal.SIGKILL)
        service.wait_for("worker-gone")
        said = beginning + _rest(reader)
        length = int(re.findall(rb"content-length: (\d+)", said)[0])
        assert said.count(b"HTTP/1.1 ") == 1
        assert len(said.partition(b"\r\n\r\n")[2]) < length
        service.wait_for("worker-ready")
        assert ask(client).status_code == 200
        assert service.stop() == 0
        (gone,) = [entry["detail"] for entry in service.entries() if entry["event"] == "worker-gone"]
        assert gone.endswith("1 requests were not answered")


def test_a_slow_reader_gets_all_of_its_answer_though_the_service_reloads(bundle: Path, tmp_path: Path) -> None:
    """The old worker stays until the answer has left, and so does the reload."""
    link = tmp_path / "current"
    link.symlink_to(bundle)
    better = make_bundle(tmp_path / "better", factor=3.0).folder
    with serving(link, *LARGE) as service, _reader(service) as reader:
        (old,) = service.workers()
        said = _half_read(service, reader)
        link.unlink()
        link.symlink_to(better)
        reload = service.reload()
        service.wait_for("reloaded")
        assert old in service.workers()
        while not said.endswith(b"]"):
            said += reader.recv(2**20)
        assert json.loads(said.partition(b"\r\n\r\n")[2]) == [{"prediction": 2.0}] * ROWS
        assert outcome(reload)[0] == 0
        assert old not in service.workers()
        reader.sendall(_post(1.0))
        assert _answers(_some(reader, 1)) == [(200, {"prediction": 3.0})]


def test_4_who_does_not_read_its_answer_is_waited_for_until_the_grace_is_over(bundle: Path) -> None:
    """Scenario 4."""
    with serving(bundle, *LARGE, "--grace", "0.5") as service, _reader(service) as reader:
        _half_read(service, reader)
        assert service.stop() == 1
        assert [entry["requests"] for entry in service.entries() if entry["event"] == "stopped-early"] == [1]


# The callers of these tests


def _body(number: float) -> bytes:
    return json.dumps({"what": ANSWER, "number": number}).encode()


def _post(number: float) -> bytes:
    body = _body(number)
    return b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def _exchanged(connection: socket.socket, number: float) -> bytes:
    """The answer to a question; nothing where the connection has ended."""
    try:
        connection.sendall(_post(number))
    except OSError:
        return b""
    return _some(connection, 1)


def _some(connection: socket.socket, count: int) -> bytes:
    """So many answers, or those that come before the connection ends."""
    said = b""
    with suppress(ConnectionResetError, BrokenPipeError):
        while len(_answers(said)) < count and (part := connection.recv(2**20)):
            said += part
    return said


def _rest(connection: socket.socket) -> bytes:
    """All that comes until the connection ends, however it does."""
    parts = []
    with suppress(ConnectionResetError):
        while part := connection.recv(2**20):
            parts.append(part)
    return b"".join(parts)


def _answers(said: bytes) -> list[tuple[int, object]]:
    """Status and body of each answer that is complete."""
    answers = []
    while (head := said.partition(b"\r\n\r\n"))[1]:
        length = int(re.findall(rb"content-length: (\d+)", head[0])[0])
        if len(head[2]) < length:
            break
        answers.append((int(head[0][9:12]), json.loads(head[2][:length])))
        said = head[2][length:]
    return answers


def _reader(service: Running) -> socket.socket:
    """A caller who takes little at a time."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.settimeout(60)
    reader.connect(service.address)
    return reader


def _half_read(service: Running, reader: socket.socket) -> bytes:
    """The beginning of a large answer, of which the worker has not got rid yet."""
    body = b"what,number\n" + b"0,1\n" * ROWS
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\nAccept: application/json\r\nContent-Length: %d\r\n\r\n"
    reader.sendall(head % len(body) + body)
    said = b""
    while len(said) < 1000:
        said += reader.recv(1000)
    assert service.wait_for("request")["status"] == 200
    return said


def _until(service: Running, name: str, least: float) -> None:
    """Wait until this of what is measured of the model has come so far."""
    with service.client() as client:
        while True:
            lines = client.get("/metrics").text.splitlines()
            (value,) = [line.split()[-1] for line in lines if line.startswith(f"modelport_{name}{{")]
            if float(value) >= least:
                return

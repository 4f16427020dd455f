"""The service under faults: real processes, signals and sockets. The numbers are those of the list of conformance scenarios."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from faults_world import PROGRAM, SIGNATURE, Running, ask, free_port, held, launched, make_bundle, serving
from misbehaving import (
    ANSWER,
    CALLS,
    CLOSE_STDOUT,
    EXIT,
    GATED,
    HOLD_LOCK,
    INTERRUPT,
    LEAK,
    LOOP,
    NAN,
    NOTHING,
    PRINT,
    RAISE,
    SEGFAULT,
    SHORT,
    SLEEP,
    SYS_EXIT,
)
from modelport.bundle import open_bundle
from modelport.signature import Field

CONTAINER = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child")


def _has_namespaces() -> bool:
    try:
        return subprocess.run([*CONTAINER, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="the workers of a service are found in /proc")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "misbehaving").folder


@pytest.fixture(scope="module")
def steady(bundle: Path) -> Iterator[Running]:
    """A service that no test hurts."""
    with serving(bundle) as running:
        yield running


# A. Lifecycle


def test_1_sigterm_ends_an_idle_service_with_0(bundle: Path) -> None:
    """Scenario 1, and 12: no process is left either."""
    with serving(bundle) as service:
        workers = service.workers()
        with service.client() as client:
            assert ask(client).json() == {"prediction": 4.0}
            assert service.stop() == 0
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_2_sigterm_lets_what_is_under_way_finish(bundle: Path) -> None:
    """Scenario 2: 50 requests are with the model, or wait for it."""
    with serving(bundle, "--drain-delay", "1") as service, service.client() as client, ThreadPoolExecutor(50) as callers:
        answers = [callers.submit(ask, client, SLEEP, 0.02) for _ in range(50)]
        service.wait_for_line("asleep")
        assert service.stop() == 0
        assert [answer.result().status_code for answer in answers] == [200] * 50


def test_3_during_the_drain_delay_connections_are_taken_and_readyz_says_503(bundle: Path) -> None:
    """Scenario 3."""
    with serving(bundle, "--drain-delay", "3") as service:
        service.process.send_signal(signal.SIGTERM)
        with service.client() as client:
            while (ready := client.get("/readyz")).status_code == 200:
                pass
            answer = ask(client)
        assert ready.status_code == 503
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert service.process.wait(60) == 0


def test_4_what_takes_longer_than_the_grace_gets_an_error_and_the_exit_code_is_1(bundle: Path) -> None:
    """Scenario 4."""
    with serving(bundle, "--grace", "0.2") as service, service.client() as client, ThreadPoolExecutor(1) as caller:
        answer = caller.submit(ask, client, SLEEP, 60)
        service.wait_for_line("asleep")
        assert service.stop() == 1
        assert answer.result().status_code == 503
        assert [entry["requests"] for entry in service.entries() if entry["event"] == "stopped-early"] == [1]


def test_5_a_second_signal_ends_it_at_once(bundle: Path) -> None:
    """Scenario 5."""
    with serving(bundle) as service, service.client() as client, ThreadPoolExecutor(1) as caller:
        answer = caller.submit(ask, client, SLEEP, 60)
        service.wait_for_line("asleep")
        service.process.send_signal(signal.SIGINT)
        _until_refused(service)
        assert service.stop(signal.SIGINT) == 1
        assert answer.result().status_code == 503


def test_5_no_worker_outlives_a_supervisor_that_was_killed(bundle: Path, tmp_path: Path) -> None:
    """Scenario 5.

    Neither one that is stuck in a call nor one that loads: what is under way has the time that it has when the service is stopped.
    """
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    own = {"MISBEHAVE_GATE": str(gate)}
    with serving(bundle, "--grace", "1", **own) as service, service.client() as client, ThreadPoolExecutor(1) as caller:
        caller.submit(ask, client, GATED)
        with held(gate):
            (stuck,) = service.workers()
            service.stop(signal.SIGKILL)
            _until_ended(stuck)
    with launched(bundle, "--grace", "1", "--workers", "1", MISBEHAVE_AT_LOAD=str(gate)) as service, held(gate):
        (loading,) = service.workers()
        service.stop(signal.SIGKILL)
        _until_ended(loading)


def test_6_and_13_a_long_load_is_alive_not_ready_and_can_be_stopped(bundle: Path, tmp_path: Path) -> None:
    """Scenarios 6 and 13."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    port = free_port()
    with launched(bundle, "--port", str(port), MISBEHAVE_AT_LOAD=str(gate)) as service:
        service.url = f"http://127.0.0.1:{port}"
        opened = os.open(gate, os.O_WRONLY)  # opens when the model is being loaded
        workers = service.workers()
        with service.client() as client:
            assert client.get("/livez").status_code == 200
            ready = client.get("/readyz")
            assert (ready.status_code, "it is loading for" in ready.json()["detail"]) == (503, True)
            refused = ask(client)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert service.stop() == 0
        os.close(opened)
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


@pytest.mark.skipif(not _has_namespaces(), reason="a container's process 1 can be had only where namespaces can be made")
def test_7_as_process_1_of_a_container_it_takes_in_orphans_and_ends_with_0(bundle: Path) -> None:
    """Scenario 7."""
    words = [sys.executable, "-c", PROGRAM, "serve", str(bundle), "--trust", "--port", "0", "--workers", "1"]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    process = subprocess.Popen([*CONTAINER, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    service = Running(process)
    try:
        service.wait_for("worker-ready")
        (first,) = service.workers()
        orphan = "import os, signal; os.fork() or os.fork() or os._exit(0)"  # its parent ends before it does
        subprocess.run(["nsenter", "-t", str(first), "-U", "-p", sys.executable, "-c", orphan], check=True)
        while _zombies(first):
            pass
        os.kill(first, signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        service.entries()


def test_8_a_reload_loses_no_request_and_each_answer_is_of_one_version(bundle: Path, tmp_path: Path) -> None:
    """Scenario 8: under load, and afterwards all answers are the new model's."""
    better = make_bundle(tmp_path / "better", factor=3.0)
    digests = {open_bundle(bundle).digest: 4.0, better.digest: 6.0}
    link = tmp_path / "current"
    link.symlink_to(bundle)
    stop = threading.Event()

    def keep_asking(client: httpx.Client) -> list[httpx.Response]:
        answers = [ask(client)]
        while not stop.is_set():
            answers.append(ask(client))
        return answers

    with serving(link, workers=2) as service, ThreadPoolExecutor(8) as callers:
        clients = [service.client() for _ in range(8)]
        answers = [callers.submit(keep_asking, client) for client in clients]
        link.unlink()
        link.symlink_to(better.folder)
        service.process.send_signal(signal.SIGHUP)
        service.wait_for("reloaded")
        service.wait_for("worker-ready")
        with service.client() as client:
            assert ask(client).json() == {"prediction": 6.0}
        stop.set()
        every = [answer for some in answers for answer in some.result()]
        for client in clients:
            client.close()
        assert {answer.status_code for answer in every} == {200}
        assert all(answer.json()["prediction"] == digests[answer.headers["x-model"].split()[1]] for answer in every)
        assert {answer.json()["prediction"] for answer in every} == {4.0, 6.0}
        assert service.stop() == 0


def test_9_a_reload_of_what_cannot_be_served_changes_nothing(bundle: Path, tmp_path: Path) -> None:
    """Scenario 9: wrong answers, other fields, a damaged byte."""
    wrong = make_bundle(tmp_path / "wrong", golden=5.0)
    other = make_bundle(tmp_path / "other", signature=replace(SIGNATURE, outputs=(Field("answer", "number"),)))
    damaged = make_bundle(tmp_path / "damaged", factor=4.0)
    (damaged.folder / "example.json").write_text("[]")
    link = tmp_path / "current"
    link.symlink_to(bundle)
    with serving(link) as service, service.client() as client:
        workers = service.workers()
        for bad, reason in ((wrong, "answers differently now"), (other, "are others"), (damaged, "example.json")):
            link.unlink()
            link.symlink_to(bad.folder)
            service.process.send_signal(signal.SIGHUP)
            assert reason in service.wait_for("reload-failed")["detail"]
            assert ask(client).json() == {"prediction": 4.0}
        assert set(workers) <= set(service.workers())


def test_11_what_keeps_it_from_starting_is_one_line_and_an_exit_code(bundle: Path, tmp_path: Path) -> None:
    """Scenario 11: the port is taken; the recorded answers are not given."""
    with socket.create_server(("127.0.0.1", 0)) as other, launched(bundle, "--port", str(other.getsockname()[1])) as service:
        assert service.process.wait(60) == 2
        assert service.entries() == []
    wrong = make_bundle(tmp_path / "wrong", golden=5.0)
    with launched(wrong.folder) as service:
        assert service.process.wait(60) == 3
        assert service.entries() == []


def test_12_nothing_is_left_open_however_often_connections_and_workers_come_and_go(bundle: Path) -> None:
    """Scenario 12: as many descriptors as before."""
    with serving(bundle) as service:
        before = _descriptors(service)
        for _ in range(3):
            for _ in range(20):
                with service.client() as client:
                    assert ask(client).status_code == 200
            os.kill(service.workers()[0], signal.SIGKILL)
            service.wait_for("worker-ready")
        with service.client() as client:
            assert ask(client).status_code == 200
        assert _descriptors(service) <= before + 1  # the last connection may be closing


# B. Workers


def test_14_a_worker_that_is_killed_hurts_nobody_else(bundle: Path) -> None:
    """Scenario 14: its idle connections go on with another worker, which also answers what it computed, and it is replaced."""
    with serving(bundle, workers=2) as service, service.client() as client, ThreadPoolExecutor(9) as callers:
        idle = [service.client() for _ in range(8)]
        list(callers.map(ask, idle))
        doomed = callers.submit(ask, client, SLEEP, 2)
        service.wait_for_line("asleep")
        busy = max(service.workers(), key=_is_asleep)
        os.kill(busy, signal.SIGKILL)
        service.wait_for_line("asleep")
        assert doomed.result().json() == {"prediction": 4.0}
        assert [answer.status_code for answer in callers.map(ask, idle)] == [200] * 8
        gone = service.wait_for("worker-gone")
        assert (gone["process"], "SIGKILL" in gone["detail"]) == (busy, True)
        service.wait_for("worker-ready")
        for one in idle:
            one.close()


def test_15_without_workers_it_says_so_at_once_and_recovers_by_itself(bundle: Path) -> None:
    """Scenario 15."""
    with serving(bundle, workers=2) as service, service.client() as client:
        for worker in service.workers():
            os.kill(worker, signal.SIGKILL)
        service.wait_for("worker-gone", 2)
        ready, answer, live = client.get("/readyz"), ask(client), client.get("/livez")
        assert (ready.status_code, live.status_code) == (503, 200)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["type"] == "urn:modelport:unavailable"
        service.wait_for("worker-ready")
        assert ask(client).status_code == 200


def test_16_a_stopped_worker_is_replaced(bundle: Path) -> None:
    """Scenario 16: its victim gets an error in time."""
    with serving(bundle, "--timeout", "1") as service, service.client() as client, ThreadPoolExecutor(1) as caller:
        assert ask(client).status_code == 200
        (worker,) = service.workers()
        os.kill(worker, signal.SIGSTOP)
        victim = caller.submit(ask, client)
        service.wait_for("worker-gone")
        assert victim.result().status_code in (200, 504)  # the worker had not read from it; and another may not be ready in time
        service.wait_for("worker-ready")
        assert ask(client).status_code == 200
        assert worker not in service.workers()


def test_17_a_supervisor_that_is_stopped_answers_no_probe_and_goes_on_when_it_is_continued(bundle: Path) -> None:
    """Scenario 17: a probe has a connection of its own, so that whoever watches sees it, and restarts the service. Callers are answered."""
    with serving(bundle) as service, service.client() as client:
        assert ask(client).status_code == 200
        workers = service.workers()
        service.process.send_signal(signal.SIGSTOP)
        with pytest.raises(httpx.ReadTimeout), httpx.Client(base_url=service.url, timeout=1, trust_env=False) as probe:
            probe.get("/livez")
        assert ask(client).status_code == 200
        service.process.send_signal(signal.SIGCONT)
        with service.client() as probe:
            assert probe.get("/livez").status_code == 200
            assert probe.get("/readyz").status_code == 200
        assert service.workers() == workers
        assert service.stop() == 0


@pytest.mark.parametrize("what", [EXIT, SEGFAULT])
def test_18_a_request_that_ends_the_process_hurts_no_other_in_its_batch(bundle: Path, what: int) -> None:
    """Scenario 18: it is found by asking each of the batch again, alone."""
    with serving(bundle) as service, service.client() as client, ThreadPoolExecutor(9) as callers:
        first = callers.submit(ask, client, SLEEP, 1)
        service.wait_for_line("asleep")
        answers = list(callers.map(lambda number: ask(client, what if number == 3 else ANSWER, number), range(8)))
        assert first.result().status_code == 200
        assert [answer.status_code for answer in answers] == [500 if number == 3 else 200 for number in range(8)]
        assert [answer.json().get("prediction") for answer in answers] == [None if number == 3 else 2.0 * number for number in range(8)]
        assert answers[3].json()["type"] == "urn:modelport:model-failed"
        assert service.stop() == 0
        assert len([entry for entry in service.entries() if entry["event"] == "worker-gone"]) <= 2


def test_19_the_same_poison_again_costs_no_worker(bundle: Path) -> None:
    """Scenario 19: a request that has ended a process is known from then on, whatever its headers and its way."""
    with serving(bundle, workers=2) as service, service.client() as client:
        for number in range(20):
            assert ask(client, SEGFAULT, headers={"X-Request-Id": str(number)}).status_code == 500
        assert ask(client, SEGFAULT, headers={"Accept-Encoding": "identity", "Expect": "100-continue"}).status_code == 500
        assert ask(client).json() == {"prediction": 4.0}
        service.stop()
        events = [entry["event"] for entry in service.entries()]
        assert (events.count("worker-gone"), events.count("denied")) == (1, 1)


@pytest.mark.parametrize("what", [LOOP, HOLD_LOCK])
def test_20_a_call_that_never_ends_is_504_and_health_is_answered_meanwhile(bundle: Path, what: int) -> None:
    """Scenario 20: also when it holds the interpreter's lock, so that nothing in the worker can run."""
    with serving(bundle, "--timeout", "1") as service, service.client() as client, ThreadPoolExecutor(1) as caller:
        victim = caller.submit(ask, client, what)
        with service.client() as probe:
            while probe.get("/readyz").status_code == 200:  # until the call has begun
                pass
            assert probe.get("/livez").status_code == 200
        answer = victim.result()
        assert (answer.status_code, answer.json()["type"]) == (504, "urn:modelport:deadline-exceeded")
        assert "hung" in service.wait_for("worker-gone")["detail"]
        service.wait_for("worker-ready")
        assert ask(client).json() == {"prediction": 4.0}


def test_21_one_row_that_raises_hurts_no_other_caller(steady: Running) -> None:
    """Scenario 21: 32 callers at once, one of them wrong; each gets its own answer."""
    with steady.client() as client, ThreadPoolExecutor(32) as callers:
        answers = list(callers.map(lambda number: ask(client, RAISE if number == 13 else ANSWER, number), range(32)))
    assert [answer.status_code for answer in answers] == [500 if number == 13 else 200 for number in range(32)]
    assert [answer.json().get("prediction") for answer in answers] == [None if number == 13 else 2.0 * number for number in range(32)]
    assert "a secret" not in answers[13].text


@pytest.mark.parametrize(("what", "code"), [(SHORT, "model-contract"), (NAN, "model-contract"), (NOTHING, "model-contract")])
def test_22_an_answer_that_breaks_the_contract_is_500(steady: Running, what: int, code: str) -> None:
    """Scenario 22."""
    with steady.client() as client:
        answer = ask(client, what)
        assert (answer.status_code, answer.json()["type"]) == (500, f"urn:modelport:{code}")
        assert ask(client).json() == {"prediction": 4.0}


@pytest.mark.parametrize(("what", "status"), [(SYS_EXIT, 500), (INTERRUPT, 500), (PRINT, 200), (CLOSE_STDOUT, 200)])
def test_23_what_a_model_does_to_its_process_stays_there(bundle: Path, what: int, status: int) -> None:
    """Scenario 23: the log goes on, too."""
    with serving(bundle) as service, service.client() as client:
        assert ask(client, what).status_code == status
        assert ask(client, headers={"X-Request-Id": "after"}).status_code == 200
        assert service.stop() == 0
        assert "after" in [entry.get("request_id") for entry in service.entries()]
        assert not [entry for entry in service.entries() if entry["event"] == "worker-gone"]


def test_24_a_worker_that_grows_too_large_is_replaced_and_no_request_is_lost(bundle: Path) -> None:
    """Scenario 24."""
    with serving(bundle, "--max-memory", "400MB") as service, service.client() as client, ThreadPoolExecutor(4) as callers:
        assert ask(client, LEAK, 400).status_code == 200
        worn = service.wait_for("worker-worn")
        answers = list(callers.map(lambda number: ask(client, ANSWER, number), range(200)))
        service.wait_for("worker-ready")
        answers += callers.map(lambda number: ask(client, ANSWER, number), range(200))
        assert {answer.status_code for answer in answers} == {200}
        assert service.stop() == 0
        assert worn["process"] not in [entry["process"] for entry in service.entries() if entry["event"] == "worker-gone"]


def test_26_a_model_that_ends_the_process_while_it_loads_is_tried_again_more_and_more_seldom(bundle: Path) -> None:
    """Scenario 26: alive, not ready, and the reason is said."""
    port = free_port()
    with launched(bundle, "--port", str(port), MISBEHAVE_AT_LOAD="exit") as service:
        service.url = f"http://127.0.0.1:{port}"
        service.wait_for("worker-gone", 2)
        with service.client() as client:
            assert client.get("/livez").status_code == 200
            ready = client.get("/readyz")
        assert ready.status_code == 503
        assert "exited with code 9 while it loaded" in ready.json()["detail"]
        assert service.stop() == 0


def test_27_the_model_has_been_called_before_the_first_request(bundle: Path) -> None:
    """Scenario 27: with one row and with many, so that nothing is left to be made ready. bench/boots.py measures what that gains."""
    with serving(bundle) as service, service.client() as client:
        calls = ask(client, CALLS).json()["prediction"]
        assert calls >= 1 + 3  # the golden rows; then it is measured on 1 row, three times
        assert ask(client, CALLS).json()["prediction"] == calls + 1


def _descriptors(service: Running) -> int:
    return len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))


def _until_refused(service: Running) -> None:
    """Wait until the service takes no connections."""
    host, port = service.url.removeprefix("http://").split(":")
    while True:
        try:
            socket.create_connection((host, int(port))).close()
        except OSError:
            return


def _until_ended(process: int) -> None:
    """Wait until a process that is nobody's child has ended, whether or not it was taken in."""
    with suppress(FileNotFoundError):
        while _state(process) != "Z":
            pass


def _state(process: int) -> str:
    """R, S, Z: what a process does. FileNotFoundError when it is gone."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def _zombies(parent: int) -> list[int]:
    """The children of a process that have ended, and that it has not taken in."""
    zombies = []
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        with suppress(FileNotFoundError):  # it has been taken in just now
            if _state(int(child)) == "Z":
                zombies.append(int(child))
    return zombies


def _is_asleep(worker: int) -> bool:
    """Whether one of the threads of a process is in a call of the system's sleep."""
    tasks = Path(f"/proc/{worker}/task").iterdir()
    return any("nanosleep" in (task / "wchan").read_text() for task in tasks)

"""A running service is told to look again what to serve, by `modelport reload` and by SIGHUP: real processes, sockets and signals.

The numbers are those of section A of the list of conformance scenarios; 8 and 9 by signal stand in test_faults.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from faults_world import (
    SIGNATURE,
    ask,
    free_port,
    held,
    launched,
    make_bundle,
    need,
    outcome,
    serving,
)
from misbehaving import SLEEP
from modelport.bundle import Bundle
from modelport.signature import Field
from modelport.store import Store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "misbehaving")


class Link:
    """What is served: a name that leads to one bundle or another."""

    def __init__(self, path: Path, bundle: Bundle) -> None:
        self.path = path
        path.symlink_to(bundle.folder)

    def lead_to(self, bundle: Bundle) -> None:
        self.path.unlink()
        self.path.symlink_to(bundle.folder)


def test_8_when_it_ends_every_answer_is_the_new_model_s(bundle: Bundle, tmp_path: Path) -> None:
    """Scenario 8. Also on connections that were there before; and what it said is what X-Model says."""
    link, better = Link(tmp_path / "current", bundle), make_bundle(tmp_path / "better", factor=3.0)
    with serving(link.path, workers=2) as service:
        clients = [service.client() for _ in range(8)]
        assert {ask(client).json()["prediction"] for client in clients} == {4.0}
        link.lead_to(better)
        assert service.reloaded() == (0, f"serving    misbehaving  {better.digest}\n", "")
        answers = [ask(client) for client in clients]
        assert {answer.json()["prediction"] for answer in answers} == {6.0}
        assert {answer.headers["x-model"] for answer in answers} == {f"misbehaving {better.digest}"}
        assert service.reloaded() == (0, f"unchanged  misbehaving  {better.digest}\n", "")
        for client in clients:
            client.close()
        assert service.stop() == 0
        said = [entry["models"] for entry in service.entries() if entry["event"] == "reloaded"]
        assert said == [[f"misbehaving {better.digest}"]] * 2


def test_8_the_newest_version_in_the_store_is_served(bundle: Bundle, tmp_path: Path) -> None:
    """Scenario 8."""
    store = Store(tmp_path / "store")
    store.add(bundle)
    with serving(Path("misbehaving"), MODELPORT_STORE=str(tmp_path / "store")) as service, service.client() as client:
        newer = store.add(make_bundle(tmp_path / "newer", factor=3.0))
        assert service.reloaded() == (0, f"serving    misbehaving:2  {newer.digest}\n", "")
        assert ask(client).json() == {"prediction": 6.0}


def test_9_what_cannot_be_served_is_refused_with_the_reason_and_the_old_stays(bundle: Bundle, tmp_path: Path) -> None:
    """Scenario 9.

    Wrong answers and other fields are refused by a gate; a damaged byte, a model that ends its process or that is gone are failures.
    """
    wrong = make_bundle(tmp_path / "wrong", golden=5.0)
    other = make_bundle(tmp_path / "other", signature=replace(SIGNATURE, outputs=(Field("answer", "number"),)))
    damaged = make_bundle(tmp_path / "damaged", factor=4.0)
    (damaged.folder / "example.json").write_text("[]")
    deadly = make_bundle(tmp_path / "deadly", factor=5.0, gate=tmp_path / "gate")
    link = Link(tmp_path / "current", bundle)
    with serving(link.path) as service, service.client() as client:
        (worker,) = service.workers()
        for bad, code, reason in ((wrong, 3, "answers differently now"), (other, 3, "are others"), (damaged, 1, "example.json")):
            link.lead_to(bad)
            exit_code, said, complaint = service.reloaded()
            assert (exit_code, said, complaint.startswith("error: ")) == (code, "", True)
            assert reason in complaint
            assert ask(client).json() == {"prediction": 4.0}
        link.lead_to(deadly)
        asking = service.reload()
        with held(tmp_path / "gate"):
            (tried,) = set(service.workers()) - {worker}
            os.kill(tried, signal.SIGSEGV)
            assert outcome(asking)[::2] == (1, "error: the worker that loaded it is gone: it was ended by SIGSEGV\n")
        link.path.unlink()
        exit_code, _, complaint = service.reloaded()
        assert (exit_code, "there is no" in complaint) == (1, True)
        assert ask(client).json() == {"prediction": 4.0}
        assert service.workers() == [worker]


def test_meanwhile_the_service_is_ready_and_whoever_asks_too_hears_the_same(bundle: Bundle, tmp_path: Path) -> None:
    """A second reload of the same, by signal or by word, changes nothing."""
    link, better = Link(tmp_path / "current", bundle), make_bundle(tmp_path / "better", factor=3.0, gate=tmp_path / "gate")
    with serving(link.path) as service, service.client() as client:
        link.lead_to(better)
        first = service.reload()
        with held(tmp_path / "gate"):
            workers = service.workers()
            assert client.get("/readyz").status_code == 200
            assert ask(client).json() == {"prediction": 4.0}
            service.process.send_signal(signal.SIGHUP)
            others = [service.reload(), service.reload()]
            assert ask(client).json() == {"prediction": 4.0}
            assert service.workers() == workers
        said = (0, f"serving    misbehaving  {better.digest}\n", "")
        assert outcome(first) == said
        for other in others:  # it may have come after all, too
            assert outcome(other) in (said, (0, f"unchanged  misbehaving  {better.digest}\n", ""))
        assert ask(client).json() == {"prediction": 6.0}


def test_of_two_different_reloads_the_second_is_served(bundle: Bundle, tmp_path: Path) -> None:
    """Also where the first never gets ready."""
    link, stuck = Link(tmp_path / "current", bundle), make_bundle(tmp_path / "stuck", factor=3.0, gate=tmp_path / "gate")
    best = make_bundle(tmp_path / "best", factor=4.0)
    with serving(link.path) as service, service.client() as client:
        link.lead_to(stuck)
        first = service.reload()
        with held(tmp_path / "gate"):
            link.lead_to(best)
            assert service.reloaded() == (0, f"serving    misbehaving  {best.digest}\n", "")
            assert outcome(first)[0] == 1
            assert ask(client).json() == {"prediction": 8.0}
        assert service.stop() == 0
        assert not [entry for entry in service.entries() if entry["event"] == "worker-gone"]


def test_a_reload_back_to_what_is_served_drops_what_is_tried(bundle: Bundle, tmp_path: Path) -> None:
    link, stuck = Link(tmp_path / "current", bundle), make_bundle(tmp_path / "stuck", factor=3.0, gate=tmp_path / "gate")
    with serving(link.path) as service, service.client() as client:
        workers = service.workers()
        link.lead_to(stuck)
        first = service.reload()
        with held(tmp_path / "gate"):
            link.lead_to(bundle)
            assert service.reloaded() == (0, f"unchanged  misbehaving  {bundle.digest}\n", "")
            assert outcome(first)[0] == 1
        assert ask(client).json() == {"prediction": 4.0}
        assert service.workers() == workers


def test_sigterm_ends_the_service_though_it_reloads(bundle: Bundle, tmp_path: Path) -> None:
    """Requests under way are answered, no process is left, and who asked for the reload hears why nothing comes of it."""
    link, stuck = Link(tmp_path / "current", bundle), make_bundle(tmp_path / "stuck", factor=3.0, gate=tmp_path / "gate")
    with serving(link.path, "--drain-delay", "1") as service, service.client() as client:
        link.lead_to(stuck)
        asking = service.reload()
        with held(tmp_path / "gate"):
            workers = service.workers()
            service.process.send_signal(signal.SIGTERM)
            assert outcome(asking) == (1, "", "error: the service is stopping\n")
            assert ask(client).json() == {"prediction": 4.0}
            assert service.process.wait(60) == 0
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
        assert "worker-gone" not in [entry["event"] for entry in service.entries()]


def test_a_reload_while_it_starts_is_made_when_it_is_ready(bundle: Bundle, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    port = free_port()
    with launched(bundle.folder, "--workers", "1", "--port", str(port), MISBEHAVE_AT_LOAD=str(gate)) as service:
        service.url = f"http://127.0.0.1:{port}"
        with held(gate):
            service.process.send_signal(signal.SIGHUP)
            asking = service.reload()
        assert outcome(asking) == (0, f"unchanged  misbehaving  {bundle.digest}\n", "")


def test_it_waits_for_answers_of_the_old_model_that_are_under_way(bundle: Bundle, tmp_path: Path) -> None:
    link, better = Link(tmp_path / "current", bundle), make_bundle(tmp_path / "better", factor=3.0)
    with serving(link.path) as service, service.client() as client:
        connection = service.dial()
        body = b'{"what": %d, "number": 1.5}' % SLEEP
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)
        service.wait_for_line("asleep")
        link.lead_to(better)
        assert service.reloaded()[0] == 0
        connection.setblocking(False)
        assert b'{"prediction":3.0}' in connection.recv(65536), "the old model's answer was there before the reload was over"
        assert ask(client).json() == {"prediction": 6.0}
        connection.close()


def test_nobody_there_is_a_failure_that_says_how_to_start(tmp_path: Path) -> None:
    with launched(tmp_path / "nothing") as service:
        service.url = f"http://127.0.0.1:{free_port()}"
        code, said, complaint = service.reloaded()
    assert (code, said) == (1, "")
    assert complaint.startswith(f"error: there is no service on 127.0.0.1 port {service.address[1]} that can be asked to reload\nhint:  ")


def test_a_service_on_all_addresses_is_found(bundle: Bundle) -> None:
    with serving(bundle.folder, "--host", "0.0.0.0", "--public") as service:
        assert service.reloaded()[0] == 0


def test_other_users_may_not_ask(bundle: Bundle) -> None:
    """The kernel says who asks; the service goes on."""
    with serving(bundle.folder) as service, service.client() as client:
        code, said, complaint = service.reloaded(*as_user(12345))
        assert (code, said, complaint) == (3, "", "error: only the service's own user and root may tell it to reload\n")
        assert ask(client).status_code == 200
        assert service.stop() == 0
        assert not [entry for entry in service.entries() if entry["event"] == "reloaded"]


SQUATTER = """
import socket, sys
squatter = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
squatter.bind("\\0modelport/127.0.0.1/" + sys.argv[1])
squatter.listen()
print("taken", flush=True)
squatter.accept()
sys.stdin.read()
"""


def as_user(number: int) -> list[str]:
    """Words that become a program of another user, who may read this Python wherever it is."""
    need(os.geteuid() == 0, "root, which can be any user")
    words = ["setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups"]
    return [*words, "--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search"]


def test_who_has_taken_the_name_of_a_service_keeps_it_from_being_asked_and_not_from_serving(bundle: Bundle) -> None:
    """SIGHUP reloads it all the same; and whoever asks is not deceived by a stranger."""
    port = free_port()
    words = [*as_user(12346), sys.executable, "-c", SQUATTER, str(port)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as squatter:
        assert squatter.stdout is not None
        assert squatter.stdout.readline() == "taken\n"
        with serving(bundle.folder, "--port", str(port)) as service:
            code, said, complaint = service.reloaded(*as_user(12345))
            assert (code, said, complaint.splitlines()[0]) == (3, "", f"error: what answers for 127.0.0.1 port {port} is another user's")
            service.process.send_signal(signal.SIGHUP)
            assert service.wait_for("reloaded")["changed"] is False
            assert "reload-by-signal" in [entry["event"] for entry in service.seen]
        squatter.communicate()

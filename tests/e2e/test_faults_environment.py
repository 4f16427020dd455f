"""The service in surroundings that lack something: time that jumps, folders, memory, a network, a reader of its log.

The numbers are those of section D of the list of conformance scenarios. Not here:

    41-48  belong to the store of requests and answers, which is not part of the engine
    53     a log that nobody reads: test_logs.py, test_a_real_service_answers_and_ends_while_nobody_reads_its_log; here its reader is gone

They need Linux: its namespaces and control groups, and root to make them. Elsewhere they are skipped, and in CI that is a failure.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from faults_world import ask, launched, make_bundle, need, serving, serving_to
from misbehaving import LEAK
from serving_world import FLOWER

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="the workers of a service are found in /proc")

DEMO = Path(__file__).parents[2] / "src" / "modelport" / "demo"
CGROUP = Path("/sys/fs/cgroup")
FAKETIME = [Path(path) / "libfaketimeMT.so.1" for path in Path("/usr/lib").glob("*/faketime")]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "misbehaving").folder


# Time


def test_49_a_wall_clock_that_jumps_changes_no_answer(bundle: Path, tmp_path: Path) -> None:
    """Scenario 49. An hour on, an hour back, over a leap second or the end of summer time: all are jumps of a clock that nothing waits by.

    The clock is libfaketime's, for the supervisor and its workers; only the wall clock, as the machine's other clocks do not jump.
    """
    need(bool(FAKETIME), "libfaketime")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": str(FAKETIME[0]), "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    ids = []
    with serving(bundle, **environment) as service, service.client() as client:
        workers = service.workers()
        for offset in ("", "+3600", "-3600", "+1", "-1", "+0"):
            if offset:
                clock.write_text(offset)
                service.wait_for("clock-set")
            for _ in range(20):
                answer = ask(client)
                assert answer.json() == {"prediction": 4.0}
                ids.append(answer.headers["x-request-id"])
            assert client.get("/readyz").status_code == 200
        assert service.workers() == workers
        assert service.stop() == 0
        requests = [entry for entry in service.entries() if entry["event"] == "request"]
        jumps = [round(entry["seconds"]) for entry in service.entries() if entry["event"] == "clock-set"]
    assert len(set(ids)) == len(ids)
    times = [uuid.UUID(one).int >> 80 for one in ids]
    assert max(times) - min(times) > 7000 * 1000, "the clock did not jump"
    assert jumps == [3600, -7200, 3601, -2, 1]
    assert all(entry["ms"] >= 0 for entry in requests)
    assert {entry["status"] for entry in requests} == {200}


# Folders and users

ROOM = """
set -e
mount --make-rprivate /
mount --bind "$BUNDLE" /mnt
mount -t tmpfs -o size=64m tmpfs /dev/shm
mount -t tmpfs -o "$TMP" tmpfs /media
[ -z "$FULL" ] || dd if=/dev/zero of=/media/full bs=64k 2>/dev/null || true
export TMPDIR=/media
mount -o remount,bind,ro /mnt
mount -o remount,bind,ro /
cd /
touch /etc/modelport-was-here 2>/dev/null && exit 90
unset HOME
exec "$@"
"""
RANDOM_USER = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
RANDOM_USER += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search"]
"""Who owns nothing. It may read whatever is there, as this Python may stand in somebody's home."""


@pytest.mark.parametrize(
    ("tmp", "full", "user"),
    [("noexec,size=1m", "", []), ("noexec,size=64k", "full", RANDOM_USER), ("ro", "", RANDOM_USER), ("size=1m", "", RANDOM_USER)],
    ids=["noexec", "full", "read-only", "random user"],
)
def test_50_it_starts_where_nothing_can_be_written(bundle: Path, tmp: str, full: str, user: list[str]) -> None:
    """Scenario 50.

    A read-only root, no HOME, 64 MB of /dev/shm, a /tmp that is full, read-only or runs nothing, a user whom nobody knows.
    """
    room = [*_unshared("--mount"), "sh", "-c", ROOM, "room", *user]
    with serving(Path("/mnt"), before=room, BUNDLE=str(bundle), TMP=tmp, FULL=full) as service, service.client() as client:
        assert ask(client).json() == {"prediction": 4.0}
        assert client.get("/", headers={"Accept": "text/html"}).status_code == 200
        if user:
            (worker,) = service.workers()
            assert Path(f"/proc/{worker}").stat().st_uid == 12345
        assert service.stop() == 0


# Memory


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Path]:
    """A control group of our own, in the form that this machine has."""
    parent = CGROUP / "memory" if (CGROUP / "memory").is_dir() else CGROUP
    folder = parent / f"modelport-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError:
        need(False, "a control group that may be written")
    try:
        need(any((folder / name).exists() for name in ("memory.max", "memory.limit_in_bytes")), "a control group for memory")
        yield folder
    finally:
        folder.rmdir()


def _limited(group: Path, megabytes: int) -> Sequence[str]:
    """Words that become a program within the limit."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        if (group / name).exists():
            (group / name).write_text(str(megabytes * 2**20))
    return ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "limited"]


def test_51_it_serves_in_128_mb(group: Path) -> None:
    """Scenario 51. With one worker, which is what one core gets. The model is the one that comes along: its engine needs no framework."""
    with serving(DEMO, before=_limited(group, 128)) as service, service.client() as client:
        assert client.post("/predict", json=FLOWER).json()["prediction"] == "setosa"
        assert service.stop() == 0


def test_25_a_request_that_takes_more_memory_than_there_is_ends_workers_and_not_the_service(bundle: Path, group: Path) -> None:
    """Scenario 25.

    The system's own killer, by a real control group: what the request did is tried once more, alone, and then never again.
    """
    with serving(bundle, "--metrics-port", "0", before=_limited(group, 500)) as service, service.client() as client:
        metrics = service.seen[0]["metrics_port"]
        assert ask(client, LEAK, 600).status_code == 500
        service.wait_for("worker-gone", 2)
        with service.client() as probe:
            ready = probe.get("/readyz")
        assert (ready.status_code, "no memory left" in ready.json()["detail"]) == (503, True)  # the third start is not made at once
        service.wait_for("worker-ready")
        assert ask(client, LEAK, 600).status_code == 500
        assert ask(client).json() == {"prediction": 4.0}
        text = httpx.get(f"http://127.0.0.1:{metrics}/metrics", trust_env=False).text
        assert 'modelport_worker_restarts_total{reason="oom"} 2.0' in text
        assert 'modelport_worker_restarts_total{reason="killed"} 0.0' in text
        assert service.stop() == 0
        events = [entry["event"] for entry in service.entries()]
        assert (events.count("worker-gone"), events.count("denied")) == (2, 1)


def test_51_where_the_model_has_no_room_it_says_so_and_stays_alive(group: Path) -> None:
    """Scenario 51. No endless start: the processes that the system ends are told of, and whoever asks is told, too."""
    with launched(DEMO, "--workers", "1", before=_limited(group, 60)) as service:
        ended = service.wait_for("worker-gone")
        assert "while it loaded" in ended["detail"]


# The network

LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 1 | 64))
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""SIOCSIFFLAGS: up and running. A new network has only the loopback, and that is down."""
INSIDE = """
import json, socket, sys, urllib.request
try:
    socket.create_connection(("192.0.2.1", 80), 5)
except OSError:
    pass
else:
    raise SystemExit("there is a way out")
url, body = sys.argv[1:]
plain = urllib.request.build_opener(urllib.request.ProxyHandler({}))
asked = urllib.request.Request(url + "/predict", body.encode(), {"Content-Type": "application/json"})
page = plain.open(urllib.request.Request(url + "/docs", headers={"Accept": "text/html"})).read()
print(json.dumps([json.load(plain.open(asked)), b"<html" in page]))
"""


def test_52_it_needs_no_network_but_the_loopback(bundle: Path) -> None:
    """Scenario 52. No names can be resolved and nothing can be reached, from the start on."""
    before = [*_unshared("--net"), sys.executable, "-c", LOOPBACK]
    with serving(bundle, before=before) as service:
        words = ["nsenter", f"--net=/proc/{service.process.pid}/ns/net", sys.executable, "-c", INSIDE, service.url]
        words += [json.dumps({"what": 0, "number": 2.0})]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert json.loads(done.stdout or "[]") == [{"prediction": 4.0}, True], done.stderr
        assert service.stop() == 0


# The log


def test_53_a_log_whose_reader_is_gone_is_dropped_and_counted() -> None:
    """Scenario 53."""
    words = [sys.executable, "-c", "from modelport.cli.main import main; main()", "demo", "--port", "0", "--workers", "1"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        process.stdout.close()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
            while 'modelport_log_lines_total{fate="dropped"} 0.0' in client.get("/metrics").text:
                assert client.post("/predict", json=FLOWER).status_code == 200
            assert client.get("/readyz").status_code == 200
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_54_a_file_that_the_log_goes_to_may_be_copied_and_cut_off(bundle: Path, tmp_path: Path) -> None:
    """Scenario 54.

    As logrotate's `copytruncate` does: nothing is lost, and there is no hole where the file was cut. What is logged in the very moment
    between the copy and the cut is lost by that way of rotating, whoever writes."""
    log, kept = tmp_path / "log", ""
    with log.open("w") as file, serving_to(file, bundle, "--log-lines", "100000") as service, service.client() as client:
        for round_ in range(3):
            for number in range(50):
                assert ask(client, headers={"X-Request-Id": f"{round_}-{number}"}).status_code == 200
            while f'"{round_}-49"' not in log.read_text():
                pass
            kept += log.read_text()
            os.truncate(log, 0)
        assert service.stop() == 0
    entries = [json.loads(line) for line in (kept + log.read_text()).splitlines()]
    ids = [entry["request_id"] for entry in entries if entry["event"] == "request"]
    assert ids == [f"{round_}-{number}" for round_ in range(3) for number in range(50)]


def test_54_whoever_reads_the_log_may_be_replaced_under_load(bundle: Path, tmp_path: Path) -> None:
    """Scenario 54.

    As a keeper of log files does that is started anew while somebody else holds the pipe (s6, systemd, a container's runtime).
    """
    reading, writing = os.pipe()
    ids: list[str] = []

    def read_some(lines: int) -> None:
        """A reader that ends after so many lines, with what it has read."""
        with os.fdopen(os.dup(reading), "rb", buffering=0) as pipe:
            while len(ids) < lines:
                line = b""
                while not line.endswith(b"\n"):
                    line += pipe.read(1)
                entry = json.loads(line)
                if entry["event"] == "request":
                    ids.append(entry["request_id"])

    with os.fdopen(writing, "w") as pipe, serving_to(pipe, bundle, "--log-lines", "100000") as service, ThreadPoolExecutor(8) as callers:
        with service.client() as client:
            asked = callers.map(lambda number: ask(client, headers={"X-Request-Id": str(number)}).status_code, range(900))
            for lines in (100, 300, 600, 900):
                read_some(lines)
            assert set(asked) == {200}
        assert service.stop() == 0
    os.close(reading)
    assert sorted(ids, key=int) == [str(number) for number in range(900)]


# What a laptop may not have


def _unshared(kind: str) -> list[str]:
    """Words that become a program with a part of the system of its own."""
    words = ["unshare", kind, "--"]
    need(shutil.which("unshare") is not None, "unshare")
    need(subprocess.run([*words, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0, f"unshare {kind}")
    return words

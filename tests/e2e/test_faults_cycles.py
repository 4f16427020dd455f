"""A service is started and ended again and again: scenarios 12 and 29 of the list of conformance scenarios.

The supervisor runs in one process all the time, so that whatever it leaves open is seen there, and each time it starts a worker of its own,
which loads the model, is asked, and ends. Whole services, 1,000 of them, are for bench/boots.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from faults_world import SOURCE
from modelport.packing import Options, pack_file

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="what a process has open is seen in /proc")

DEMO = Path(__file__).parents[2] / "src" / "modelport" / "demo"
CYCLES = """
import http.client, io, json, os, signal, sys, threading
from pathlib import Path
from modelport.bundle import open_bundle
from modelport.serving.control import Model
from modelport.serving.logs import Log
from modelport.serving.settings import Settings
from modelport.serving.supervisor import run

folder, cycles, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
bundle = open_bundle(folder)
body = json.dumps(bundle.read_json("example.json")[0])
answers = []

def ask(host, port):
    connection = http.client.HTTPConnection(host, port)
    connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
    answers.append(connection.getresponse().read().decode())
    os.kill(os.getpid(), signal.SIGTERM)
    connection.close()

def started(host, port):
    names.append(f"@modelport/{host}/{port}")
    asking.append(threading.Thread(target=ask, args=(host, port)))
    asking[0].start()

def open_now():
    names = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return sorted(os.readlink(name).split(":")[0] for name in names if os.path.exists(name))

def kept():
    maps = Path("/proc/self/maps").read_text()
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    sockets = Path("/proc/net/unix").read_text()
    return [open_now(), maps.count("memfd:"), len(threading.enumerate()), children, [name for name in names if name in sockets]]

seen, names = [], []
for cycle in range(cycles):
    asking = []
    model = Model(bundle.name, "", str(folder), bundle.digest)
    code = run(lambda: [model], Settings(port=0, workers=1, threads=threads), started, print, Log(io.StringIO()))
    asking[0].join()
    assert code == 0, code
    seen.append(kept())
print(json.dumps([seen, sorted(set(answers)), len(answers)]))
"""


def cycled(bundle: Path, cycles: int, threads: int, temporary: Path) -> tuple[list[list[object]], list[str], int]:
    """What a process has open after each of so many services; the different answers they gave, and how many."""
    temporary.mkdir()
    environment = {**os.environ, "PYTHONPATH": SOURCE, "TMPDIR": str(temporary)}
    words = [sys.executable, "-W", "error", "-c", CYCLES, str(bundle), str(cycles), str(threads)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    seen, answers, count = json.loads(done.stdout.splitlines()[-1])  # before it stand the log lines of the workers
    return seen, answers, count


def test_12_a_hundred_services_leave_nothing_open(tmp_path: Path) -> None:
    """Scenario 12: no descriptors, shared memory (which has no name), threads, processes, sockets or temporary files.

    And 29: a hundred workers have started and ended.
    """
    seen, answers, count = cycled(DEMO, 100, 1, tmp_path / "tmp")
    assert seen[1:] == [seen[0]] * 99
    assert (len(answers), count) == (1, 100)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_29_libraries_that_cannot_be_forked_start_every_time(tmp_path: Path) -> None:
    """Scenario 29: XGBoost and scikit-learn with their own threads; a worker is a new program, never a fork of one that has threads."""
    import models

    bundle = tmp_path / "bundle"
    bundle.mkdir()
    pack_file(models.write("xgboost_regressor", tmp_path), bundle, Options(sample=models.shipping().head(20)))
    _, answers, count = cycled(bundle, 10, 2, tmp_path / "tmp")
    assert (len(answers), count) == (1, 10)

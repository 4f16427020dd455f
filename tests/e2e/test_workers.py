"""A service measures how many workers and threads its model wants, and has them: real processes and a real model.

What it decides depends on the machine; that it does as it says does not.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from faults_world import Running, ask, launched, make_bundle
from misbehaving import MULTIPLY, THREADS
from modelport.serving import resources
from modelport.serving.sizing import HEAVY_S, Size, Stated

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="the workers of a service are found in /proc")


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose row is a product of matrices that takes longer than HEAVY_S with one thread of any machine, and less with more."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "heavy", what=MULTIPLY, number=1200.0).folder


@pytest.mark.parametrize("stated", [(), ("--workers", "1"), ("--threads", "2")])
def test_a_service_of_a_heavy_model_has_the_workers_and_threads_that_it_says(heavy: Path, stated: tuple[str, ...]) -> None:
    words = dict(zip(stated[::2], map(int, stated[1::2]), strict=True))
    asked = Stated(resources.cores(), words.get("--workers"), words.get("--threads"))
    with launched(heavy, *stated) as service:
        service.url = f"http://127.0.0.1:{service.wait_for('serving')['port']}"
        sized = service.wait_for("sized")
        size = Size(sized["workers"], sized["threads"])
        assert sized["detail"].endswith(f": {size}")
        assert ("times as fast" in sized["detail"]) == bool(asked.trial(HEAVY_S))
        if not asked.trial(HEAVY_S):
            assert size == asked.first
        assert _threads(service, size.workers) == [size.threads] * size.workers


def _threads(service: Running, workers: int) -> list[int]:
    """How many threads each of the service's workers multiplies with, once there are so many."""
    with service.client() as client:
        while len(service.workers()) != workers or 'state="starting"} 0.0' not in client.get("/metrics").text:
            pass
    with ExitStack() as held:  # connections that are open at once are spread over the workers
        clients = [held.enter_context(service.client()) for _ in range(workers)]
        return [int(ask(client, THREADS).json()["prediction"]) for client in clients]

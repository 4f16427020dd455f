"""Two services behind a real nginx, one after the other replaced while callers ask: scenario 10 of the list of conformance scenarios."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from faults_world import Running, free_port, make_bundle, serving
from misbehaving import ANSWER
from nginx_world import proxy


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="the workers of a service are found in /proc")
def test_10_a_rolling_update_behind_a_proxy_fails_no_request(tmp_path: Path) -> None:
    """Scenario 10: each service is stopped, as an orchestrator does, and started anew with the next version; callers get 200 all along."""
    old, new = make_bundle(tmp_path / "old").folder, make_bundle(tmp_path / "new", factor=3.0).folder
    ports = [free_port(), free_port()]
    stop = threading.Event()

    def start(stack: ExitStack, bundle: Path, port: int) -> Running:
        return stack.enter_context(serving(bundle, "--port", str(port), "--drain-delay", "1"))

    def keep_asking(url: str) -> list[httpx.Response]:
        answers = []
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            while not stop.is_set():
                answers.append(client.post("/predict", json={"what": ANSWER, "number": 2.0}))
        return answers

    with ExitStack() as stack, ThreadPoolExecutor(4) as callers:
        services = [start(stack, old, port) for port in ports]
        url = stack.enter_context(proxy(tmp_path, ports)).url
        asked = [callers.submit(keep_asking, url) for _ in range(4)]
        for service, port in zip(services, ports, strict=True):
            assert service.stop() == 0
            start(stack, new, port)
        stop.set()
        answers = [answer for some in asked for answer in some.result()]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["prediction"] for answer in answers} == {4.0, 6.0}

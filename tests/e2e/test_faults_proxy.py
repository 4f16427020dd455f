"""Two services behind a real nginx, one after the other replaced while callers ask: scenario 10 of the list of conformance scenarios."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from faults_world import Running, free_port, make_bundle, need, serving
from misbehaving import ANSWER

CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream service {{
        server 127.0.0.1:{ports[0]} max_fails=0;
        server 127.0.0.1:{ports[1]} max_fails=0;
        keepalive 16;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://service;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host localhost;
            # A prediction changes nothing: it may be asked again of the other service.
            proxy_next_upstream error timeout http_503 non_idempotent;
        }}
    }}
}}
"""


@contextmanager
def proxy(folder: Path, ports: list[int]) -> Iterator[str]:
    """nginx in front of two services; its address."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    need(program is not None, "nginx")
    port = free_port()
    (folder / "nginx.conf").write_text(CONFIGURATION.format(folder=folder, ports=ports, port=port))
    process = subprocess.Popen([str(program), "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        while not _answers(url):
            assert process.poll() is None, process.communicate()[1]
        yield url
    finally:
        process.terminate()
        process.communicate(timeout=60)


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
        url = stack.enter_context(proxy(tmp_path, ports))
        asked = [callers.submit(keep_asking, url) for _ in range(4)]
        for service, port in zip(services, ports, strict=True):
            assert service.stop() == 0
            start(stack, new, port)
        stop.set()
        answers = [answer for some in asked for answer in some.result()]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["prediction"] for answer in answers} == {4.0, 6.0}


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez", timeout=60, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False

"""The exported nginx.conf in a real nginx: the contract holds through it, and what it answers itself has the form of the service."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from faults_world import free_port, make_bundle, serving
from misbehaving import ANSWER
from modelport.cli.main import modelport
from nginx_world import Proxy, configured, program, proxy
from serving_world import FLOWER, Live, live, make_service
from test_serving_contract import BAD


@pytest.fixture(scope="module")
def service() -> Iterator[Live]:
    with live(make_service(), host_names=("*",)) as running:
        yield running


@pytest.fixture(scope="module")
def front(service: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with proxy(tmp_path_factory.mktemp("front"), [service.port]) as running:
        yield running


@pytest.mark.parametrize("about", [{}, {"host_names": ("api.example.com", "iris.example.com"), "max_body_bytes": 2**25, "timeout_s": 0.5}])
def test_nginx_takes_the_configuration(about: dict[str, Any], tmp_path: Path) -> None:
    path, _ = configured(tmp_path, [8001, 8002], **about)
    done = subprocess.run([program(), "-t", "-p", str(tmp_path), "-c", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


@pytest.mark.parametrize("contract", ["modelport", "sagemaker", "vertex", "cloudrun", "heroku", "knative", "kserve"])
def test_every_contract_holds_through_it(contract: str, front: Proxy) -> None:
    done = CliRunner().invoke(modelport, ["check", front.url, "--contract", contract], standalone_mode=False)
    failed = [line.split("  ")[1].strip() for line in done.output.splitlines() if line.startswith("FAIL")]
    assert failed == (["GET /metrics"] if contract == "modelport" else []), done.output


@pytest.mark.parametrize(("what", "body", "status", "code", "words"), BAD, ids=[one[0] for one in BAD])
def test_what_is_wrong_is_answered_as_the_service_answers_it(
    what: str, body: Any, status: int, code: str, words: str, front: Proxy, service: Live
) -> None:
    sent: dict[str, Any] = {"json": body} if isinstance(body, dict) else {"content": body, "headers": {"Content-Type": "application/json"}}
    with front.client() as through, service.client() as direct:
        here, there = through.post("/predict", **sent), direct.post("/predict", **sent)
    assert here.status_code == there.status_code == status
    assert {**here.json(), "request_id": ""} == {**there.json(), "request_id": ""}
    assert here.headers["content-type"] == "application/problem+json"


def test_ids_go_through_and_stand_in_the_log_of_both(tmp_path: Path) -> None:
    """In a service of its own: of very many requests in a second not each has a line."""
    with live(make_service(), host_names=("*",)) as service, proxy(tmp_path, [service.port]) as front:
        with front.client() as client:
            answer = client.post("/predict", json=FLOWER, headers={"X-Request-Id": "order-42"})
            made = client.post("/predict", json=FLOWER)
        lines, entries = front.log(), service.log.entries()
    assert answer.headers["x-request-id"] == "order-42"
    assert re.fullmatch("[0-9a-f]{32}", made.headers["x-request-id"])
    line = next(line for line in lines if line["request_id"] == "order-42")
    assert (line["method"], line["path"], line["status"], line["replica_status"]) == ("POST", "/predict", 200, "200")
    assert line["replica"] == f"127.0.0.1:{service.port}"
    assert any(entry.get("request_id") == "order-42" for entry in entries)


def test_an_id_that_would_break_json_is_not_passed_on(front: Proxy) -> None:
    with front.client() as client:
        answer = client.post("/predict", content=b"x" * (16 * 2**20 + 1), headers={"X-Request-Id": 'a"},{"b":"'})
    assert answer.status_code == 413
    assert answer.json()["type"] == "urn:modelport:too-large"
    assert re.fullmatch("[0-9a-f]{32}", answer.json()["request_id"])
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


def test_long_answers_are_packed_and_metrics_are_not_given(front: Proxy) -> None:
    with front.client() as client:
        answer = client.post("/predict", json=[FLOWER] * 500)
        assert answer.headers["content-encoding"] == "gzip"
        assert len(answer.json()) == 500
        assert "content-encoding" not in client.post("/predict", json=FLOWER).headers
        hidden = client.get("/metrics")
        assert (hidden.status_code, hidden.json()["type"]) == (404, "urn:modelport:not-found")


def test_without_a_replica_the_answer_is_503_with_a_time_to_try_again(tmp_path: Path) -> None:
    with ExitStack() as first:
        service = first.enter_context(live(make_service(), host_names=("*",)))
        with proxy(tmp_path, [service.port]) as front, front.client() as client:
            assert client.post("/predict", json=FLOWER).status_code == 200
            first.close()
            answer = client.post("/predict", json=FLOWER)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json() | {"request_id": ""} == {
        "type": "urn:modelport:unavailable",
        "title": "Not available now",
        "status": 503,
        "detail": "no replica of the service answers",
        "request_id": "",
    }


def test_whoever_asks_for_another_name_gets_no_answer(tmp_path: Path, service: Live) -> None:
    with proxy(tmp_path, [service.port], host_names=("api.example.com",)) as front, front.client() as client:
        assert client.get("/livez", headers={"Host": "api.example.com"}).status_code == 200
        with pytest.raises(httpx.TransportError):
            client.get("/livez", headers={"Host": "other.example.com"})


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="the workers of a service are found in /proc")
def test_no_request_fails_while_one_replica_after_the_other_is_started_anew(tmp_path: Path) -> None:
    """As `docker compose up --no-deps api-1` does: SIGTERM, and a new process at the same address; without a word to nginx."""
    bundle = make_bundle(tmp_path / "bundle").folder
    ports = [free_port(), free_port()]
    stop = threading.Event()

    def keep_asking(front: Proxy) -> list[int]:
        statuses = []
        with front.client() as client:
            while not stop.is_set():
                statuses.append(client.post("/predict", json={"what": ANSWER, "number": 2.0}).status_code)
        return statuses

    with ExitStack() as stack, ThreadPoolExecutor(4) as callers:
        replicas = [stack.enter_context(serving(bundle, "--port", str(port))) for port in ports]
        front = stack.enter_context(proxy(tmp_path, ports))
        asked = [callers.submit(keep_asking, front) for _ in range(4)]
        try:
            for replica, port in zip(replicas, ports, strict=True):
                assert replica.stop() == 0
                stack.enter_context(serving(bundle, "--port", str(port)))
        finally:
            stop.set()
        statuses = [status for some in asked for status in some.result()]
    assert set(statuses) == {200}
    assert len(statuses) > 100

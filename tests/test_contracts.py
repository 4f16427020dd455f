"""A service is asked as each platform asks: what keeps the contract passes, what breaks it is named, and the exit code says which."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from modelport.cli.main import modelport
from modelport.contracts import CONTRACTS
from modelport.contracts.container import start_words
from modelport.errors import ModelportError
from modelport.signature import Columns
from serving_world import CLASSES, EVERY_KIND, FLOWER, by_petal, counted, live, make_service

VERTEX = {"AIP_HEALTH_ROUTE": "/healthy", "AIP_PREDICT_ROUTE": "/ask"}


@dataclass
class Checked:
    """What came of `modelport check`."""

    exit_code: int
    output: str
    error: str


def check(*words: str | Path, **environment: str) -> Checked:
    done = CliRunner(env=environment).invoke(modelport, ["check", *map(str, words)], standalone_mode=False)
    if done.exception is not None and not isinstance(done.exception, ModelportError):
        raise done.exception
    return Checked(getattr(done.exception, "exit_code", done.return_value), done.output, str(done.exception or ""))


@contextmanager
def hand_written(answers: dict[tuple[str, str], tuple[int, str, Any]], otherwise: tuple[int, str, Any]) -> Iterator[str]:
    """A service that is none of Modelport's: what it answers to a method and a path, and to everything else."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, kind, value = answers.get((self.command, self.path), otherwise)
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("contract", CONTRACTS)
@pytest.mark.parametrize("kind", ["iris", "every"])
def test_a_service_keeps_every_contract(contract: str, kind: str) -> None:
    service = make_service() if kind == "iris" else make_service(counted, EVERY_KIND, name="every")
    routes = {"health_route": VERTEX["AIP_HEALTH_ROUTE"], "predict_route": VERTEX["AIP_PREDICT_ROUTE"]} if contract == "vertex" else {}
    with live(service, host_names=("*",), **routes) as running:
        done = check(running.url, "--contract", contract, **(VERTEX if routes else {}))
    assert done.exit_code == 0, done.output
    assert "FAIL" not in done.output


def test_the_table_says_what_was_asked_and_what_was_answered() -> None:
    with live(make_service()) as running:
        done = check(running.url, "--contract", "sagemaker")
    assert re.sub(r"\d+ ms", "0 ms", done.output.replace(running.url, "URL")) == (
        "    asked                                    answered\n"
        "ok  GET /ping: 200 within 2 s                200 in 0 ms\n"
        "ok  POST /invocations, JSON                  200 in 0 ms\n"
        "ok  POST /invocations, CSV without a header  200 in 0 ms\n"
        "ok  a body that does not parse: 4xx          400 in 0 ms\n"
        "\n"
        "URL keeps the contract of sagemaker: 4 of 4\n"
    )


def test_a_service_of_this_machine_does_not_answer_to_a_platforms_name() -> None:
    """The Host header of a router is none of a service on loopback: it would be refused there, and the table says so."""
    with live(make_service()) as running:
        done = check(running.url, "--contract", "heroku")
    assert done.exit_code == 1
    assert re.search(
        r"FAIL  POST /predict as iris-0123456789ab.herokuapp.com +421 in \d+ ms: expected 200 \('iris-0123456789ab.herokuapp.com' is not",
        done.output,
    )


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_service_that_says_200_to_everything_keeps_no_contract(contract: str, tmp_path: Path) -> None:
    (tmp_path / "row.json").write_text(json.dumps(FLOWER))
    with hand_written({}, (200, "application/json", "fine")) as url:
        done = check(url, "--contract", contract, "--example", tmp_path / "row.json", "--json")
    assert done.exit_code == 1
    told = json.loads(done.output)
    assert told["passed"] is False
    failed = [line["what"] for line in told["lines"] if not line["passed"]]
    wanted = {
        "modelport": ["GET / says what is served", "GET /openapi.json", "POST /predict, a record", "a wrong method: 405"],
        "sagemaker": ["POST /invocations, JSON", "a body that does not parse: 4xx"],
        "vertex": ["POST /v1/models/model:predict: predictions", "no instances: 4xx"],
        "cloudrun": ["POST /predict as iris-abcdefghij-ew.a.run.app", "a body of 32 MB gets an answer"],
        "heroku": ["POST /predict as iris-0123456789ab.herokuapp.com", "a body that does not parse: 4xx"],
        "knative": ["POST /predict as iris.default.example.com"],
        "kserve": ["v1: POST /v1/models/model:predict", "v2: GET /v2", "v2: GET /v2/models/model", "v2: no tensors: 4xx"],
    }[contract]
    for what in wanted:
        assert any(one.startswith(what) for one in failed), (what, failed)


def test_a_service_of_ones_own_keeps_a_contract_with_an_example(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"a": 1}]))
    answers = {("GET", "/ping"): (200, "text/plain", "well"), ("POST", "/invocations"): (200, "application/json", {"b": 2})}
    with hand_written(answers, (404, "text/plain", "no")) as url:
        done = check(url, "--contract", "sagemaker", "--example", tmp_path / "rows.json")
        without = check(url, "--contract", "sagemaker")
    assert "FAIL  a body that does not parse: 4xx" in done.output
    assert "3 of 3" not in done.output
    assert done.output.count("\nok ") == 2
    assert without.exit_code == 2
    assert "does not say what its model takes" in without.error


def test_golden_rows_of_a_bundle_are_compared() -> None:
    """A service of another model under the same name is told from the one that was packed."""

    def otherwise(columns: Columns) -> Columns:
        answer = by_petal(columns)
        return {**answer, "prediction": np.roll(np.array(CLASSES, dtype=object), 1)[[CLASSES.index(one) for one in answer["prediction"]]]}

    packed = make_service()
    with live(make_service(otherwise)) as running:
        alone = check(running.url)
        against = check(running.url, "--bundle", packed.bundle.folder)
    assert alone.exit_code == 0, alone.output
    assert against.exit_code == 1
    assert "/prediction was 'setosa' and is 'virginica'" in against.output


def test_an_answer_that_changes_is_seen_against_the_one_that_the_service_tells() -> None:
    moved: list[float] = []

    def drifting(columns: Columns) -> Columns:
        answer = by_petal(columns)
        return {**answer, "probabilities": answer["probabilities"] + (0.01 if moved else 0.0)}

    with live(make_service(drifting)) as running:
        moved.append(1)
        done = check(running.url)
    assert done.exit_code == 1
    assert "/probabilities/setosa was 0.9 and is 0.91" in done.output


def test_what_cannot_be_checked_is_said(tmp_path: Path) -> None:
    for words, message in (
        (("http://127.0.0.1:1",), "http://127.0.0.1:1 does not answer"),
        (("http://127.0.0.1:http",), "is no URL"),
        (("http://127.0.0.1:1", "--example", str(tmp_path / "none.json")), "does not read as JSON"),
    ):
        done = check(*words)
        assert message in done.error, words
    (tmp_path / "list.json").write_text("[1]")
    assert "holds no record" in check("http://127.0.0.1:1", "--example", tmp_path / "list.json").error


def test_several_models_and_a_missing_key_are_said() -> None:
    with live([make_service(), make_service(name="other")]) as running:
        assert "serves several models: iris, other" in check(running.url).error
    from modelport.serving.settings import hash_key

    with live(make_service(), keys=frozenset({hash_key("secret")})) as running:
        assert "wants an API key" in check(running.url).error
        done = check(running.url, MODELPORT_API_KEY="secret")
    assert done.exit_code == 0, done.output


def test_a_service_of_this_machine_is_asked_without_the_proxy_of_others() -> None:
    with live(make_service()) as running:
        done = check(running.url, "--contract", "sagemaker", HTTP_PROXY="http://127.0.0.1:1", http_proxy="http://127.0.0.1:1", NO_PROXY="")
    assert done.exit_code == 0, done.output + done.error


def test_a_container_is_started_as_the_platform_starts_it() -> None:
    started = {name: " ".join(start_words("docker", "iris:1", contract.container)) for name, contract in CONTRACTS.items()}
    locked = "--cap-drop ALL --security-opt no-new-privileges --read-only --tmpfs /tmp"
    vertex = "/v1/endpoints/42/deployedModels/7"
    assert started == {
        "modelport": "docker run --detach --publish 127.0.0.1::8080 iris:1",
        "sagemaker": "docker run --detach --publish 127.0.0.1::8080 iris:1 serve",
        "vertex": "docker run --detach --publish 127.0.0.1::8090 --env AIP_HTTP_PORT=8090 "
        f"--env AIP_HEALTH_ROUTE={vertex} --env AIP_PREDICT_ROUTE={vertex}:predict iris:1",
        "cloudrun": "docker run --detach --publish 127.0.0.1::8082 --env PORT=8082 --env K_SERVICE=iris "
        "--env K_REVISION=iris-00001-abc --env K_CONFIGURATION=iris iris:1",
        "heroku": "docker run --detach --publish 127.0.0.1::34567 --env PORT=34567 --env DYNO=web.1 --user 54321:54321 iris:1",
        "knative": "docker run --detach --publish 127.0.0.1::8080 --env PORT=8080 --env K_SERVICE=iris --env K_REVISION=iris-00001 "
        f"--env K_CONFIGURATION=iris --user 65532:65532 {locked} iris:1",
        "kserve": f"docker run --detach --publish 127.0.0.1::8080 --user 1000:0 {locked} iris:1",
    }
    inside = start_words("podman", "iris:1", CONTRACTS["sagemaker"].container, "host")
    assert inside == ["podman", "run", "--detach", "--network", "host", "iris:1", "serve"]

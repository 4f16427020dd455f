"""A real Docker daemon loads what was built without it, and what runs there answers as the bundle does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

import converted
import images_world
from faults_world import free_port
from images_world import Docker, running
from modelport.bundle import Bundle
from modelport.cli.build import command
from modelport.errors import RegistryError, UsageError
from modelport.images import plan
from modelport.packing import Options, pack_file
from modelport.store import Store

pytestmark = pytest.mark.usefixtures("own_folders")

HARDENED = ("--user", "12345:12345", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
SERVICE = '''\
"""Parcels."""


def predict(weight: float = 2.0) -> float:
    """What it costs."""
    return 4.5 + 0.8 * weight
'''


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory, docker: Docker, image_registry: str) -> Bundle:
    """iris:1, which answers from ONNX, as an image in the daemon."""
    bundle = converted.iris(tmp_path_factory.mktemp("iris") / "bundle")
    Store().add(bundle)
    load("iris", docker, image_registry)
    return bundle


def load(ref: str, docker: Docker, image_registry: str) -> dict[str, Any]:
    words = [ref, "--base", f"{image_registry}/python:3.11-slim", "--load", "--json"]
    done = CliRunner().invoke(command, words, env={"DOCKER_HOST": docker.host}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@contextmanager
def container(docker: Docker, image: str, *words: str, arguments: tuple[str, ...] = (), **variables: str) -> Iterator[tuple[str, int]]:
    """A running container that is ready: its name and its port."""
    port = free_port()
    name = f"tests-{port}"
    said = [f"--env={key}={value}" for key, value in {"PORT": str(port), **variables}.items()]
    command = ["docker", "run", "--name", name, "--network", "host", *HARDENED, *said, *words, image, *arguments]
    try:
        with running(command, r'"event": ?"serving"', env=docker.environment):
            yield name, port
    finally:
        docker("rm", "--force", name, check=False)


def ask(port: int, rows: object) -> Any:
    answer = httpx.post(f"http://127.0.0.1:{port}/predict", json=rows, trust_env=False, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_it_answers_as_the_bundle_does_as_any_user_with_a_read_only_root_and_no_capabilities(docker: Docker, iris: Bundle) -> None:
    rows = iris.read_json("golden.json")["rows"]
    with container(docker, "iris:1") as (name, port):
        answers = ask(port, [row["input"] for row in rows])
        about = httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).json()
        assert docker("exec", name, plan.COMMAND, "show", "iris:1").startswith(f"bundle  iris:1\ndigest  {iris.digest}")
    assert [answer["prediction"] for answer in answers] == [row["output"]["prediction"] for row in rows]
    assert (about["version"], about["digest"], about["engine"]) == ("1", iris.digest, "onnx")


def test_it_drains_on_sigterm_and_ends_with_0(docker: Docker, iris: Bundle) -> None:
    with container(docker, "iris:1") as (name, _):
        docker("stop", "--time", "30", name)
        assert docker("inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", name) == "0 false"


def test_its_health_check_says_whether_it_is_ready(docker: Docker, iris: Bundle) -> None:
    test = json.loads(docker("inspect", "--format", "{{json .Config.Healthcheck.Test}}", "iris:1"))
    assert test[0] == "CMD"
    with container(docker, "iris:1") as (name, _):
        docker("exec", name, *test[1:])
        said = docker("exec", "--env", "PORT=1", name, *test[1:], check=False)
        assert "Connection refused" in said


def test_the_word_serve_is_taken_as_sagemaker_says_it_and_more_as_people_do(docker: Docker, iris: Bundle) -> None:
    row = iris.read_json("golden.json")["rows"][0]
    with container(docker, "iris:1", arguments=("serve",)) as (_, port):
        assert httpx.get(f"http://127.0.0.1:{port}/ping", trust_env=False).status_code == 200
        answer = httpx.post(f"http://127.0.0.1:{port}/invocations", json=row["input"], trust_env=False)
        assert answer.json()["prediction"] == row["output"]["prediction"]
    with container(docker, "iris:1", arguments=("serve", "--workers", "1"), TITLE="Flowers", MODELPORT_CORS="https://a.example") as (
        _,
        port,
    ):
        about = httpx.get(f"http://127.0.0.1:{port}/", headers={"Origin": "https://a.example"}, trust_env=False)
        assert about.json()["title"] == "Flowers"
        assert about.headers["Access-Control-Allow-Origin"] == "https://a.example"


def test_vertex_ais_variables_are_kept(docker: Docker, iris: Bundle) -> None:
    row = iris.read_json("golden.json")["rows"][0]
    port = free_port()
    with container(docker, "iris:1", AIP_HTTP_PORT=str(port), AIP_PREDICT_ROUTE="/p", AIP_HEALTH_ROUTE="/h"):
        assert httpx.get(f"http://127.0.0.1:{port}/h", trust_env=False).status_code == 200
        answer = httpx.post(f"http://127.0.0.1:{port}/p", json={"instances": [row["input"]]}, trust_env=False)
        assert len(answer.json()["predictions"]) == 1


def test_a_key_is_asked_for_where_one_is_set(docker: Docker, iris: Bundle) -> None:
    row = iris.read_json("golden.json")["rows"][0]["input"]
    with container(docker, "iris:1", MODELPORT_API_KEY="k3y") as (_, port):
        url = f"http://127.0.0.1:{port}/predict"
        assert httpx.post(url, json=row, trust_env=False).status_code == 401
        assert httpx.post(url, json=row, headers={"X-API-Key": "k3y"}, trust_env=False).status_code == 200


def test_it_starts_within_a_container_that_has_no_shell(docker: Docker, iris: Bundle, tmp_path: Path) -> None:
    """The shell's files are hidden under nothing: what starts is the interpreter alone."""
    hidden = tmp_path / "nothing"
    hidden.write_bytes(b"")
    with container(docker, "iris:1", f"--volume={hidden}:/bin/sh:ro", f"--volume={hidden}:/usr/bin/dash:ro") as (name, port):
        assert ask(port, iris.read_json("golden.json")["rows"][0]["input"])["prediction"]
        assert docker("exec", name, "/bin/sh", "-c", "true", check=False)


def test_functions_with_their_code_are_served_and_trusted_as_they_were_packed(docker: Docker, image_registry: str, tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    (tmp_path / "bundle").mkdir()
    Store().add(pack_file(tmp_path / "service.py", tmp_path / "bundle", Options(name="parcels")))
    said = load("parcels", docker, image_registry)
    assert not [one for one in said["sizes"] if one["part"] == "onnxruntime"]
    with container(docker, "parcels:1") as (_, port):
        assert ask(port, {"weight": 10}) == {"prediction": 12.5}


def test_what_it_says_of_itself_is_what_was_built(docker: Docker, iris: Bundle) -> None:
    inspected = json.loads(docker("inspect", "iris:1"))[0]
    assert inspected["Config"]["Labels"]["modelport.bundle.digest"] == iris.digest
    assert inspected["Config"]["ExposedPorts"] == {"8080/tcp": {}}
    assert inspected["Config"]["User"] == plan.USER


def test_an_image_pushed_to_a_registry_is_pulled_and_runs(docker: Docker, iris: Bundle, image_registry: str) -> None:
    name = f"{image_registry}/team/iris:1"
    words = ["iris", "--base", f"{image_registry}/python:3.11-slim", "--tag", name, "--push", "--json"]
    said = json.loads(CliRunner().invoke(command, words, catch_exceptions=False).stdout)
    docker("pull", "--quiet", name)
    assert docker("inspect", "--format", "{{.Id}}", name) == said["id"]
    assert said["digest"] in docker("inspect", "--format", "{{.RepoDigests}}", name)
    row = iris.read_json("golden.json")["rows"][0]
    with container(docker, name) as (_, port):
        assert ask(port, row["input"])["prediction"] == row["output"]["prediction"]


def test_without_an_engine_it_says_where_the_image_can_go_instead(iris: Bundle, image_registry: str) -> None:
    images_world.needed("docker")
    words = ["iris", "--base", f"{image_registry}/python:3.11-slim", "--load"]
    with pytest.raises(UsageError, match="neither docker nor podman"):
        CliRunner().invoke(command, words, env={"PATH": "/nowhere"}, catch_exceptions=False)
    with pytest.raises(RegistryError, match=r"docker load failed: .*127\.0\.0\.1:1"):
        CliRunner().invoke(command, words, env={"DOCKER_HOST": "tcp://127.0.0.1:1"}, catch_exceptions=False)

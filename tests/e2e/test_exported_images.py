"""A real Docker daemon builds the exported Dockerfiles, and a real docker-compose runs them behind nginx: they answer as the bundles do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pip
import pytest
from click.testing import CliRunner

import converted
import images_world
import models
from faults_world import free_port
from images_world import PYTHON, Docker, needed, running
from modelport.bundle import Bundle
from modelport.cli.build import command as build
from modelport.cli.main import modelport
from modelport.contracts import CONTRACTS
from modelport.images import plan
from modelport.packing import Options, pack_file
from modelport.store import Store

pytestmark = pytest.mark.usefixtures("own_folders")

ROOT = Path(__file__).parents[2]
BASE = f"python:{PYTHON}-slim"
AUTHORITIES = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
_SERVING = r'"event": ?"serving"'
HOSTILE = "a \"quoted\" $HOME ${PATH} `id` \\ and\nmore 'words' # ä"


@pytest.fixture(scope="module")
def base(docker: Docker, image_registry: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """python:3.11-slim in the daemon: the base of the tests with pip, and with this machine's certificate authorities."""
    folder = tmp_path_factory.mktemp("base")
    shutil.copytree(Path(pip.__file__).parent, folder / "pip")
    shutil.copy(AUTHORITIES, folder / "authorities.crt")
    prepare = f"import os; os.symlink('python{PYTHON}', '/usr/bin/python'); os.remove('/usr/lib/python{PYTHON}/EXTERNALLY-MANAGED')"
    (folder / "Dockerfile").write_text(
        f"FROM {image_registry}/{BASE}\n"
        f"COPY pip /usr/lib/python3/dist-packages/pip\n"
        "COPY authorities.crt /etc/ssl/certs/ca-certificates.crt\n"
        "ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt\n"
        f'RUN ["python{PYTHON}", "-c", "{prepare}"]\n'
    )
    docker("build", "--tag", BASE, str(folder))
    images_world.push(f"{image_registry}/library/{BASE}", [images_world.base_layer()])
    return BASE


def built(docker: Docker, tag: str, folder: Path, *words: str) -> str:
    """What was built of an exported Dockerfile."""
    index = os.environ.get("PIP_INDEX_URL")
    arguments = ["--build-arg", f"PIP_INDEX_URL={index}"] if index else []
    docker("build", "--network", "host", "--tag", tag, *arguments, *words, str(folder))
    return tag


def export(*words: str | Path) -> None:
    done = CliRunner().invoke(modelport, ["export", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    bundle = converted.iris(tmp_path_factory.mktemp("iris") / "bundle")
    Store().add(bundle)
    return bundle


@pytest.fixture(scope="module")
def image(iris: Bundle, docker: Docker, base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """iris:1, built by Docker."""
    folder = tmp_path_factory.mktemp("exported")
    export("dockerfile", "iris", folder)
    return built(docker, "iris:1", folder)


def files_of(docker: Docker, image: str) -> set[str]:
    """What lies below /opt/modelport."""
    words = "import os; print([os.path.join(at, one) for at, _, names in os.walk('/opt/modelport') for one in names])"
    said = docker("run", "--rm", "--network", "none", "--entrypoint", f"python{PYTHON}", image, "-I", "-c", words)
    installers = (".lock", "/WHEEL", "/entry_points.txt")  # what one installer leaves, and another does not
    return {name for name in json.loads(said.replace("'", '"')) if not name.endswith(installers)}


def test_it_is_the_image_that_is_built_without_docker(docker: Docker, iris: Bundle, image: str, image_registry: str) -> None:
    words = ["iris", "--base", f"{image_registry}/{BASE}", "--load", "--tag", "without:1"]
    done = CliRunner().invoke(build, words, env={"DOCKER_HOST": docker.host}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    ours, theirs = (json.loads(docker("image", "inspect", one))[0]["Config"] for one in ("without:1", image))
    for key in ("Cmd", "Entrypoint", "User", "WorkingDir", "StopSignal", "ExposedPorts"):
        assert ours.get(key) == theirs.get(key), key
    variables = [dict(one.partition("=")[::2] for one in about["Env"]) for about in (ours, theirs)]
    assert variables[0].items() <= variables[1].items()
    kept = {key: value for key, value in ours["Labels"].items() if ".base." not in key}
    assert kept == theirs["Labels"]
    assert files_of(docker, "without:1") == files_of(docker, image)


@pytest.mark.parametrize("contract", CONTRACTS)
def test_it_keeps_every_contract_run_as_the_platform_runs_it(contract: str, docker: Docker, iris: Bundle, image: str) -> None:
    words = ["check", image, "--contract", contract, "--bundle", str(iris.folder), "--network", "host"]
    done = CliRunner(env={"DOCKER_HOST": docker.host}).invoke(modelport, words, standalone_mode=False, catch_exceptions=False)
    assert done.return_value == 0, done.output
    assert "SIGTERM ends it within" in done.output
    assert not docker("ps", "--all", "--quiet")


def test_what_is_said_of_a_model_stands_in_its_labels_whatever_it_is(docker: Docker, base: str, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    path = models.write("iris_svc", tmp_path)
    options = Options(name="labelled", sample=models.iris().head(5), title=HOSTILE, subtitle=HOSTILE, label={"team": HOSTILE})
    bundle = pack_file(path, tmp_path / "bundle", options)
    export("dockerfile", bundle.folder, tmp_path / "deploy")
    built(docker, "labelled:1", tmp_path / "deploy")
    said = json.loads(docker("image", "inspect", "labelled:1"))[0]["Config"]["Labels"]
    assert said == {key: value.replace("\n", " ") for key, value in plan.labels(plan.plan(bundle)).items()}


def test_a_project_is_trained_in_the_build_and_nothing_of_that_is_in_the_image(docker: Docker, base: str, tmp_path: Path) -> None:
    """The story `forecast`: its first stage has pandas, and the last has not."""
    project = tmp_path / "forecast"
    shutil.copytree(ROOT / "examples" / "forecast", project, ignore=shutil.ignore_patterns("parameters.json", "__pycache__"))
    words = [sys.executable, "-c", "from modelport.cli.main import main; main()", "export", "dockerfile", "deploy"]
    subprocess.run(words, cwd=project, check=True, capture_output=True)
    built(docker, "forecast:1", project, "--file", str(project / "deploy" / "Dockerfile"))
    there = files_of(docker, "forecast:1")
    assert not [name for name in there if "/pandas/" in name or "/sklearn/" in name]
    assert [name for name in there if name.endswith("/code/parameters.json")]
    port = free_port()
    words = ["docker", "run", "--rm", "--name", "forecast", "--network", "host", "--env", f"PORT={port}", "forecast:1"]
    try:
        with running(words, _SERVING, env=docker.environment):
            answer = httpx.get(f"http://127.0.0.1:{port}/predict?region=island&days=3", trust_env=False)
    finally:
        docker("rm", "--force", "forecast", check=False)
    assert [day["day"] for day in answer.json()["curve"]] == ["2025-04-01", "2025-04-02", "2025-04-03"]


@pytest.fixture(scope="module")
def nginx_image(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> str:
    """nginx as the exported files name it, of Debian's newest packages: the stable release has none that is new enough."""
    needed("mmdebstrap")
    folder = tmp_path_factory.mktemp("nginx")
    words = ["mmdebstrap", "--quiet", "--variant=extract", "--include=base-files,base-passwd,dash,busybox,nginx"]
    words += ['--aptopt=Acquire::Check-Valid-Until "false"', "forky", str(folder / "nginx.tar")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    prepare = "for one in passwd group; do busybox cp /usr/share/base-passwd/$one.master /etc/$one; done; "
    prepare += "busybox ln -s busybox /usr/bin/wget; busybox mkdir -p /var/log/nginx /var/lib/nginx"
    (folder / "Dockerfile").write_text(
        f'FROM scratch\nADD nginx.tar /\nRUN ["/bin/sh", "-c", {json.dumps(prepare)}]\nCMD ["/usr/sbin/nginx", "-g", "daemon off;"]\n'
    )
    docker("build", "--tag", "nginx:tests", str(folder))
    return "nginx:tests"


def test_compose_runs_replicas_behind_nginx_and_renews_one_after_the_other(
    docker: Docker, iris: Bundle, image: str, nginx_image: str, tmp_path: Path
) -> None:
    needed("docker-compose")
    port = free_port()
    export("compose", "iris", tmp_path, "--port", str(port))
    environment = {**docker.environment, "NGINX_IMAGE": nginx_image, "COMPOSE_PROJECT_NAME": "tests"}

    def compose(*words: str) -> str:
        done = subprocess.run(["docker-compose", *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (
            done.stderr
            + subprocess.run(
                ["docker-compose", "logs", "--tail", "30"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            ).stdout
        )
        return done.stdout

    rows = [row["input"] for row in iris.read_json("golden.json")["rows"]]
    known = [row["output"]["prediction"] for row in iris.read_json("golden.json")["rows"]]
    try:
        compose("up", "--detach")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            _wait(client)
            assert [one["prediction"] for one in client.post("/predict", json=rows).json()] == known
            for replica in ("api-1", "api-2"):
                compose("up", "--detach", "--force-recreate", "--no-deps", replica)
                statuses = {client.post("/predict", json=rows).status_code for _ in range(50)}
                with running(["docker", "logs", "--follow", compose("ps", "--quiet", replica).strip()], _SERVING, env=docker.environment):
                    statuses |= {client.post("/predict", json=rows).status_code for _ in range(50)}
                assert statuses == {200}, replica
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert client.get("/metrics").status_code == 404
    finally:
        compose("down", "--volumes", "--timeout", "5")


def test_the_tutorials_commands_put_iris_behind_nginx(
    docker: Docker, base: str, nginx_image: str, image_registry: str, tmp_path: Path
) -> None:
    """As the page has them; `docker compose` is docker-compose where Docker has no plugin for it, and the port is a free one."""
    needed("docker-compose")
    section = (ROOT / "docs" / "tutorials" / "iris.md").read_text().partition("## Behind nginx")[2].partition("\n## ")[0]
    port = str(free_port())
    commands = [
        line.replace("docker compose", "docker-compose").replace("8080", port)
        for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(commands) == 6
    project = tmp_path / "iris"
    shutil.copytree(ROOT / "examples" / "iris", project)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"MODELPORT_STORE": str(tmp_path / "store"), "MODELPORT_REGISTRY_MIRROR": image_registry, "NGINX_IMAGE": nginx_image}
    environment = {**docker.environment, **own, "PATH": path, "COMPOSE_PROJECT_NAME": "story"}

    def types(line: str) -> str:
        done = subprocess.run(["bash", "-c", line], cwd=project, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    types("modelport train")
    try:
        said = [types(line) for line in commands]
    finally:
        docker("rm", "--force", *docker("ps", "--all", "--quiet").split(), check=False)
    assert json.loads(said[3]) == [{"prediction": "virginica"}]
    assert "keeps the contract of kserve: 10 of 10" in said[4]


def _wait(client: httpx.Client) -> None:
    """Until nginx answers."""
    transport = httpx.HTTPTransport(retries=10)
    with httpx.Client(base_url=client.base_url, transport=transport, timeout=30, trust_env=False) as patient:
        assert patient.get("/readyz").status_code == 200

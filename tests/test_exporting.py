"""Exported files are what they are meant to be, whatever names they are given: what is no plain name is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from faults_world import need
from modelport.errors import UsageError
from modelport.images import ci, compose, kubernetes, nginx
from modelport.images.exporting import Exported, check_path, label, quoted, words
from nginx_world import configured

DATA = Path(__file__).parent / "data"
HOSTILE = (
    "iris\n  privileged: true", 'iris"', "iris'", "iris: x", "iris #", "${HOME}", "$(id)", "`id`", "iris;", "*", "&a", "!!python/object",
    "-iris", "iris ", " iris", "", "IRIS", "iris\x00", "iris\x7f", "iris\u2028", "yes", "null", "~", "1e3", "0x1", "{", "[", "%", "@", "|",
    ">", "iris\\", "../iris", "iris/../x", "iris:1:2", "a" * 300, "iris@sha256:12", "реестр/ирис", "iris}{", "-- iris", "<<",
)  # fmt: skip
texts = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=80), st.from_regex(r"\A[a-z0-9./:@_-]{1,60}\Z"))


def every_file(service: Exported) -> dict[str, str]:
    return {**compose.files(service, (".", "Dockerfile")), **kubernetes.files(service), **kubernetes.knative(service)}


@given(texts, texts, texts)
@example("iris", "registry.example.com:5000/team/iris:3@sha256:" + "0" * 64, "api.example.com")
@example("yes", "null", "1e3")
def test_a_name_is_refused_or_stands_where_it_was_meant_and_nowhere_else(name: str, image: str, host: str) -> None:
    try:
        service = Exported(name=name, image=image, host_names=(host,))
    except UsageError:
        return
    usual = Exported(name="iris", image="iris:1", host_names=("h",))
    made, known = every_file(service), every_file(usual)
    deployment, *others = yaml.safe_load_all(made["kubernetes.yaml"])
    assert all(one["metadata"]["name"] == name for one in (deployment, *others))
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == image
    assert yaml.safe_load(made["compose.yaml"])["services"]["api-1"]["image"] == image
    assert yaml.safe_load(made["service.yaml"])["metadata"]["name"] == name
    assert f"        server_name {host};\n" in made["nginx.conf"]
    for file, text in made.items():
        assert _shape(file, text) == _shape(file, known[file]), "another name makes no other structure"


def _shape(file: str, text: str) -> Any:
    """The keys and lengths of what a YAML file holds; the number of lines and of words in another."""
    if not file.endswith((".yaml", ".yml")):
        return [len(line.split()) for line in text.splitlines()]
    return [_keys(one) for one in yaml.safe_load_all(text)]


def _keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _keys(part) for key, part in value.items()}
    return [_keys(part) for part in value] if isinstance(value, list) else type(value)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_refused(text: str) -> None:
    plain = {"yes", "null", "1e3", "0x1"}  # names, and quoted where they could be something else
    if text not in {"yes", "null"}:
        with pytest.raises(UsageError, match="is no name for a service"):
            Exported(name=text, image="iris")
    if text not in plain:
        with pytest.raises(UsageError, match="is no host name"):
            Exported(name="iris", image="iris", host_names=(text,))
    if text not in {*plain, "a" * 300}:
        with pytest.raises(UsageError, match="is no image"):
            Exported(name="iris", image=text)
    if text not in {*plain, "a" * 300, "IRIS"}:
        with pytest.raises(UsageError, match="is no plain path"):
            check_path(text)
    with pytest.raises(UsageError, match="is no server"):
        nginx.config(Exported(name="iris", image="iris"), [text])


@given(st.text())
def test_a_quoted_string_is_the_same_to_yaml_and_json(text: str) -> None:
    assert json.loads(quoted(text)) == text
    if not any(0xD800 <= ord(character) < 0xE000 for character in text):
        assert yaml.safe_load(words((text,))) == [text]


@pytest.mark.parametrize(
    "about",
    [
        {"replicas": 0},
        {"replicas": 101},
        {"port": 0},
        {"port": 65536},
        {"max_body_bytes": 1},
        {"timeout_s": 0.0},
        {"timeout_s": float("nan")},
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(about: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=" is "):
        Exported(name="iris", image="iris", **about)


def test_a_bundles_name_becomes_one_of_a_service() -> None:
    assert (label("iris"), label("iris_2.5"), label("a__b")) == ("iris", "iris-2-5", "a-b")
    with pytest.raises(UsageError, match="'2-iris' cannot be the name of a service"):
        label("2-iris")


def test_compose_has_replicas_behind_nginx_and_profiles_for_what_is_optional() -> None:
    service = Exported(name="iris", image="iris:3", replicas=3, port=80, max_body_bytes=2**20, timeout_s=60)
    made = compose.files(service)
    stated = yaml.safe_load(made["compose.yaml"])
    services = stated["services"]
    assert list(services) == ["api-1", "api-2", "api-3", "front", "prometheus", "database"]
    api = services["api-2"]
    assert (api["image"], api["read_only"], api["cap_drop"], api["command"]) == (
        "iris:3", True, ["ALL"], ["serve", "--max-body", "1048576", "--timeout", "60"],
    )  # fmt: skip
    assert "build" not in api
    assert services["front"]["ports"] == ["127.0.0.1:80:8080"]
    assert {name: one.get("profiles") for name, one in services.items() if "profiles" in one} == {
        "prometheus": ["metrics"], "database": ["database"],
    }  # fmt: skip
    for number in (1, 2, 3):
        assert f"        server api-{number}:8080 resolve max_fails=0;\n" in made["nginx.conf"]
    assert "client_max_body_size 1048576;" in made["nginx.conf"]
    assert "proxy_read_timeout 65s;" in made["nginx.conf"]
    targets = yaml.safe_load(made["prometheus.yml"])["scrape_configs"][0]["static_configs"][0]["targets"]
    assert targets == ["api-1:8080", "api-2:8080", "api-3:8080"]


def test_what_only_a_new_nginx_knows_is_all_that_a_resolver_adds() -> None:
    """So what the other tests ask of the nginx that is installed holds of the one in the container."""
    service = Exported(name="iris", image="iris:3")
    plain = nginx.config(service, ["api-1:8080", "api-2:8080"])
    known = nginx.config(service, ["api-1:8080", "api-2:8080"], resolver="127.0.0.11")
    more = ["    resolver 127.0.0.11 valid=2s ipv6=off;", "    keepalive_min_timeout 10s;"]
    kept = [line.replace(" resolve ", " ") for line in known.splitlines() if line not in more]
    assert [line for line in kept if line] == [line for line in plain.splitlines() if line]


def test_docker_compose_takes_the_files(tmp_path: Path) -> None:
    program = shutil.which("docker-compose")
    need(program is not None, "docker-compose")
    for name, text in compose.files(Exported(name="iris", image="iris:3"), ("..", "a $place/Dockerfile")).items():
        (tmp_path / name).write_text(text)
    done = subprocess.run([str(program), "--file", "compose.yaml", "config"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert yaml.safe_load(done.stdout)["services"]["api-2"]["build"] == {
        "context": str(tmp_path.parent),
        "dockerfile": "a $$place/Dockerfile",
    }


def test_kubernetes_has_what_keeps_a_service_up() -> None:
    service = Exported(name="iris", image="registry.example.com/iris:3", replicas=3, port=80, timeout_s=10)
    made = {one["kind"]: one for one in yaml.safe_load_all(kubernetes.files(service)["kubernetes.yaml"])}
    assert list(made) == ["Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"]
    deployment = made["Deployment"]["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    labels = {"app.kubernetes.io/name": "iris"}
    selectors = [
        deployment["selector"]["matchLabels"],
        made["Service"]["spec"]["selector"],
        made["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ]
    assert selectors == [labels, labels, labels]
    assert deployment["template"]["metadata"]["labels"] == labels
    assert container["args"] == ["serve", "--timeout", "10", "--drain-delay", "5"]
    assert pod["terminationGracePeriodSeconds"] > 10 + 5
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 65532,
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    probes = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert probes == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    assert made["Service"]["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    assert (made["HorizontalPodAutoscaler"]["spec"]["minReplicas"], deployment["replicas"]) == (3, 3)


def test_kubernetes_takes_every_key_and_value(tmp_path: Path) -> None:
    for stated in yaml.safe_load_all(kubernetes.files(Exported(name="iris", image="iris:3"))["kubernetes.yaml"]):
        kubernetes_validate.validate(stated, "1.31", strict=True)
        stated["spec"]["unknown"] = 1
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(stated, "1.31", strict=True)


@pytest.mark.parametrize("kind", ["gitlab-ci", "github-workflows", "compose-spec"])
def test_files_are_what_the_schemas_of_their_readers_say(kind: str, tmp_path: Path) -> None:
    """For Compose that is what `docker compose` reads; docker-compose 1.29 is asked itself."""
    made = {
        "gitlab-ci": ci.gitlab("iris", "3.12", "requirements.txt")[ci.GITLAB],
        "github-workflows": ci.github("iris", "3.12", None)[ci.GITHUB],
        "compose-spec": compose.files(Exported(name="iris", image="iris:3"), ("..", "a $place/Dockerfile"))["compose.yaml"],
    }
    (tmp_path / "file.yaml").write_text(made[kind])
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{kind}", str(tmp_path / "file.yaml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_knative_service_is_one_to_its_schema() -> None:
    stated = yaml.safe_load(kubernetes.knative(Exported(name="iris", image="iris:3", timeout_s=900))["service.yaml"])
    schema = json.loads((DATA / "knative-service.json").read_text())
    jsonschema.Draft4Validator(schema).validate(stated)
    assert not list(_unknown(stated, schema, ""))
    assert stated["spec"]["template"]["spec"]["timeoutSeconds"] == 600


def _unknown(value: Any, schema: dict[str, Any], where: str) -> Any:
    """Keys that the schema does not know, which a cluster would drop."""
    if isinstance(value, dict) and "properties" in schema:
        for key, part in value.items():
            if where == "" and key in ("metadata", "apiVersion", "kind"):
                continue
            known = schema["properties"].get(key)
            if known is None:
                yield f"{where}/{key}"
            else:
                yield from _unknown(part, known, f"{where}/{key}")
    elif isinstance(value, list):
        for part in value:
            yield from _unknown(part, schema.get("items", {}), where)


def test_pipelines_train_check_build_and_push() -> None:
    gitlab = yaml.safe_load(ci.gitlab("iris", "3.12", "training/requirements.txt")[ci.GITLAB])
    assert gitlab["default"]["before_script"] == ["python -m pip install modelport --requirement training/requirements.txt"]
    assert gitlab["stages"] == ["train", "check", "publish"]
    assert gitlab["publish"]["script"][-1] == 'modelport build iris --tag "$IMAGE" --push'
    github = yaml.safe_load(ci.github("iris", "3.12", None)[ci.GITHUB])
    steps = github["jobs"]["image"]["steps"]
    assert [step.get("name") for step in steps] == [None, None, "Install", "Train", "Check", "Build and push the image"]
    assert steps[1]["with"]["python-version"] == "3.12"
    assert steps[2]["run"] == "python -m pip install modelport"
    with pytest.raises(UsageError, match="is no plain path"):
        ci.github("iris", "3.12", "a b; rm -rf /")


def test_nginx_takes_no_server_that_could_be_something_else(tmp_path: Path) -> None:
    path, port = configured(tmp_path, [1, 2])
    assert f"listen 127.0.0.1:{port} default_server;" in path.read_text()

"""`modelport export` writes files for a bundle or a project, says what to do next, and never writes over what is there."""

from __future__ import annotations

from pathlib import Path

import yaml

from test_cli import run
from test_cli_serve import DEMO


def test_compose_is_written_for_a_bundle_and_not_over_files_that_are_there(tmp_path: Path) -> None:
    done = run(tmp_path, "export", "compose", DEMO, "deploy", "--port", "80", "--max-body", "1MB")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "wrote  deploy/compose.yaml\nwrote  deploy/nginx.conf\nwrote  deploy/prometheus.yml\n\n"
        "next: docker compose --file deploy/compose.yaml up --detach, then http://127.0.0.1:80/\n"
    )
    stated = yaml.safe_load((tmp_path / "deploy" / "compose.yaml").read_text())
    assert stated["services"]["api-1"]["image"] == "iris:1"
    assert stated["services"]["api-1"]["command"] == ["serve", "--max-body", "1048576"]
    (tmp_path / "deploy" / "nginx.conf").write_text("my own")
    again = run(tmp_path, "export", "compose", DEMO, "deploy")
    assert again.returncode == 2
    assert again.stderr.startswith("error: deploy/compose.yaml exists\n")
    assert (tmp_path / "deploy" / "nginx.conf").read_text() == "my own"
    assert run(tmp_path, "export", "compose", DEMO, "deploy", "--force").returncode == 0
    assert "upstream api" in (tmp_path / "deploy" / "nginx.conf").read_text()


def test_kubernetes_and_knative_take_the_image_that_is_named(tmp_path: Path) -> None:
    for kind, file in (("kubernetes", "kubernetes.yaml"), ("knative", "service.yaml")):
        done = run(tmp_path, "export", kind, DEMO, ".", "--image", "registry.example.com/iris:7", "--name", "flowers")
        assert done.stdout == f"wrote  {file}\n\nnext: kubectl apply --filename {file}\n"
        first = next(yaml.safe_load_all((tmp_path / file).read_text()))
        assert first["metadata"]["name"] == "flowers"
        assert first["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example.com/iris:7"


def test_pipelines_are_of_the_project_in_this_folder(tmp_path: Path) -> None:
    lost = run(tmp_path, "export", "gitlab-ci", ".")
    assert (lost.returncode, lost.stderr.splitlines()[0]) == (2, "error: which bundle? there is no modelport.toml in this folder")
    assert run(tmp_path, "init", "--name", "flowers").returncode == 0
    for kind, file in (("gitlab-ci", ".gitlab-ci.yml"), ("github-actions", ".github/workflows/modelport.yml")):
        assert run(tmp_path, "export", kind, ".").stdout == f"wrote  {file}\n\nnext: git add {file}\n"
        assert "--requirement requirements.txt" in (tmp_path / file).read_text()
    dockerfile = run(tmp_path, "export", "dockerfile", "deploy")
    assert dockerfile.stdout.endswith("next: docker build --tag flowers --file deploy/Dockerfile .\n")
    assert run(tmp_path, "export", "dockerfile", "..").stderr.startswith("error: .. does not lie in this project\n")
    assert run(tmp_path, "export", "compose", "deploy").returncode == 0
    api = yaml.safe_load((tmp_path / "deploy" / "compose.yaml").read_text())["services"]["api-1"]
    assert (api["image"], api["build"]) == ("flowers:latest", {"context": "..", "dockerfile": "deploy/Dockerfile"})


def test_what_cannot_be_meant_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for words, error in (
        (("compose", DEMO, "a", "b"), "one REF and one DIR are taken"),
        (("compose", DEMO, "a", "--name", "iris\n  x: 1"), "is no name for a service"),
        (("compose", DEMO, "a", "--image", "iris;rm"), "is no image"),
        (("compose", DEMO, "a", "--host-name", "a b"), "is no host name"),
        (("compose", DEMO, "a", "--replicas", "0"), "replicas is 0"),
        (("compose", "no-such-bundle", "a"), "no-such-bundle"),
        (("swarm", DEMO, "a"), "swarm"),
    ):
        done = run(tmp_path, "export", *words)
        assert done.returncode == 2, done.stderr
        assert error in done.stderr.splitlines()[0]
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("store", "cache")] == []


def test_a_bundle_from_elsewhere_that_brings_code_is_exported_when_it_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text("def predict(a: int = 1) -> int:\n    return a\n")
    assert run(tmp_path, "pack", "service.py", "--to", "bundle").returncode == 0
    refused = run(tmp_path, "export", "knative", "bundle", "deploy")
    assert refused.returncode == 3
    assert not (tmp_path / "deploy").exists()
    assert run(tmp_path, "export", "knative", "bundle", "deploy", "--trust").returncode == 0

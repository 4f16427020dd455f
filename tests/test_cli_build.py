"""`modelport build` makes an image without Docker, the same one each time, and sends what is new alone."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import images_world
import modelport
from faulty_proxy import Answer, Call, before
from modelport import bundle as bundles
from modelport.bundle import Bundle
from modelport.cli.build import command
from modelport.cli.show import command as show
from modelport.errors import Refused, UsageError
from modelport.images import manifests
from modelport.images.plan import COMMAND, LIB, STORE
from modelport.store import Store

DEMO = Path(modelport.__file__).parent / "demo"
FAKETIME = [Path(path) / "libfaketimeMT.so.1" for path in Path("/usr/lib").glob("*/faketime")]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for most of these tests: the base and the dependencies are the same."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def world(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: None) -> None:
    monkeypatch.setenv("MODELPORT_CACHE", str(cache))
    monkeypatch.setenv("MODELPORT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def base(image_registry: str) -> str:
    return f"{image_registry}/python:3.11-slim"


@pytest.fixture
def stored(tmp_path: Path) -> Bundle:
    """The demo's bundle in the store: iris:1."""
    bundle = bundles.open_bundle(DEMO)
    Store().add(bundle)
    return bundle


def build(*words: object) -> dict[str, Any]:
    """What `modelport build --json` says."""
    done = CliRunner().invoke(command, [*map(str, words), "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def retrained(bundle: Bundle, folder: Path) -> Bundle:
    """The same model trained again: another graph, other digest."""
    folder.mkdir()
    for name in bundle.files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((bundle.folder / name).read_bytes())
    kept = ("name", "card", "signature", "model", "python")
    return bundles.write(folder, **{key: getattr(bundle, key) for key in kept}, labels={"trained": "again"})


def files_in(path: Path) -> tuple[dict[str, bytes], list[Any]]:
    """What an image's tar holds, and its manifest.json."""
    with tarfile.open(path) as tar:
        found = {one.name: tar.extractfile(one).read() for one in tar if one.isfile()}  # type: ignore[union-attr]
    return found, json.loads(found["manifest.json"])


def test_without_words_it_becomes_a_tar_with_a_name_of_its_own(stored: Bundle, base: str, tmp_path: Path) -> None:
    said = build("iris", "--base", base)
    assert said["done"]["written"].startswith("iris-1.tar, ")
    assert said["name"] == "iris:1"
    assert said["bundle"] == stored.digest
    found, (listed,) = files_in(tmp_path / "iris-1.tar")
    assert listed["RepoTags"] == ["iris:1"]
    config = found[listed["Config"]]
    assert said["id"] == manifests.digest_of(config)
    for layer, diff_id in zip(listed["Layers"], json.loads(config)["rootfs"]["diff_ids"], strict=True):
        assert layer == "blobs/sha256/" + manifests.digest_of(found[layer])[7:]
        assert manifests.digest_of(gzip.decompress(found[layer])) == diff_id
    index = json.loads(found["index.json"])["manifests"][0]
    assert index["digest"] == said["digest"] == manifests.digest_of(found["blobs/sha256/" + index["digest"][7:]])


def test_the_layers_are_the_base_the_dependencies_modelport_and_the_model(stored: Bundle, base: str, tmp_path: Path) -> None:
    build("iris", "--base", base, "--output", "x.tar")
    found, (listed,) = files_in(tmp_path / "x.tar")
    names = []
    for layer in listed["Layers"][-3:]:
        path = tmp_path / "layer.tar.gz"
        path.write_bytes(found[layer])
        with tarfile.open(path) as tar:
            names.append({f"/{name}" for name in tar.getnames()})
    dependencies, own, model = names
    assert f"{LIB}/numpy/__init__.py" in dependencies
    assert f"{LIB}/modelport/cli/main.py" in own
    assert COMMAND in own
    assert f"{STORE}/iris/versions/1.json" in model
    assert not [name for name in dependencies & own if name.endswith(".py")]
    config = json.loads(found[listed["Config"]])
    inner = config["config"]
    assert (inner["Entrypoint"], inner["Cmd"], inner["User"], inner["StopSignal"]) == ([COMMAND], ["serve"], "65532:65532", "SIGTERM")
    assert {"PORT=8080", "MODELPORT_REF=iris:1", f"PYTHONPATH={LIB}", "LANG=C.UTF-8"} <= set(inner["Env"])
    assert inner["Healthcheck"]["Test"][:2] == ["CMD", "/usr/bin/python3.11"]
    assert config["created"] == "1970-01-01T00:00:00Z"
    assert [one.get("comment") for one in config["history"]] == [None, "dependencies", "modelport", "model"]


def test_skopeo_takes_the_tar_as_both_kinds(stored: Bundle, base: str, tmp_path: Path) -> None:
    images_world.needed("skopeo")
    said = build("iris", "--base", base, "--output", "x.tar")
    for kind in ("docker-archive", "oci-archive"):
        words = ["skopeo", "inspect", "--config", f"{kind}:{tmp_path / 'x.tar'}"]
        config = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        assert config["config"]["Labels"]["modelport.bundle.digest"] == stored.digest, kind
    copied = ["skopeo", "copy", "--quiet", f"oci-archive:{tmp_path / 'x.tar'}", f"dir:{tmp_path / 'copied'}"]
    subprocess.run(copied, check=True)
    assert manifests.digest_of((tmp_path / "copied" / "manifest.json").read_bytes()) == said["digest"]


def test_two_builds_elsewhere_at_another_time_give_the_same_bytes(stored: Bundle, base: str, tmp_path: Path) -> None:
    if not FAKETIME:
        assert not os.environ.get("CI"), "CI has no libfaketime"
        pytest.skip("libfaketime is not installed")
    said = []
    for number, clock in enumerate(("-1d", "+5d")):
        variables = {**os.environ, "LD_PRELOAD": str(FAKETIME[0]), "FAKETIME": clock}
        variables |= {"MODELPORT_CACHE": str(tmp_path / f"cache{number}"), "PYTHONPATH": str(Path(modelport.__file__).parents[1])}
        variables |= {"PYTHONHASHSEED": str(number), "TMPDIR": str(tmp_path)}
        words = [sys.executable, "-c", "from modelport.cli.main import main; main()", "build", "iris", "--base", base, "--json"]
        done = subprocess.run([*words, "--output", f"{number}.tar"], capture_output=True, text=True, env=variables, check=False)
        assert done.returncode == 0, done.stderr
        said.append(json.loads(done.stdout))
    assert said[0]["digest"] == said[1]["digest"]
    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "1.tar").read_bytes()


def test_a_build_that_is_killed_half_way_leaves_the_cache_sound(stored: Bundle, base: str, tmp_path: Path) -> None:
    variables = {**os.environ, "MODELPORT_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(Path(modelport.__file__).parents[1])}
    words = [sys.executable, "-c", "from modelport.cli.main import main; main()", "build", "iris", "--base", base, "--json"]
    killed = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=variables)
    assert killed.stderr is not None
    with killed.stderr:
        assert killed.stderr.readline().startswith("Installing ")
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert not (tmp_path / "iris-1.tar").exists()
    done = subprocess.run(words, capture_output=True, text=True, env=variables, check=True)
    assert json.loads(done.stdout)["digest"] == build("iris", "--base", base, "--output", "other.tar")["digest"]


def test_after_retraining_the_models_layer_alone_is_sent(stored: Bundle, base: str, image_registry: str, tmp_path: Path) -> None:
    with before(image_registry) as proxy:
        here = base.replace(image_registry, proxy.host)
        first = build("iris:1", "--base", here, "--tag", f"{proxy.host}/team/iris:1", "--push")
        assert "mount=sha256" in proxy.asked("POST")[0].path, "the base's layer is not sent where the registry has it"
        Store().add(retrained(stored, tmp_path / "again"))
        sent = len(proxy.asked("PATCH"))
        second = build("iris:2", "--base", here, "--tag", f"{proxy.host}/team/iris:2", "--push")
        new = [len(call.body) for call in proxy.asked("PATCH")[sent:]]
    assert first["digest"] != second["digest"]
    model = next(one for one in second["sizes"] if one["layer"] == "model")
    assert new[0] == model["compressed"]
    assert len(new) == 2, "the layer and the configuration"
    assert sum(new) < 20_000


@pytest.mark.parametrize("form", manifests.FORMATS)
def test_a_registry_that_takes_one_kind_alone_gets_it(stored: Bundle, base: str, image_registry: str, form: str) -> None:
    other = next(one for one in manifests.FORMATS if one != form)

    def picky(call: Call) -> Answer | None:
        is_other = manifests.format_of(call.headers.get("Content-Type", "")) == other
        return (
            Answer(415, b'{"errors":[{"code":"UNSUPPORTED"}]}')
            if call.method == "PUT" and "/manifests/" in call.path and is_other
            else None
        )

    with before(image_registry, picky) as proxy:
        words = ["iris", "--base", base, "--tag", f"{proxy.host}/picky-{form}:1", "--push"]
        said = build(*words)
        put = [call for call in proxy.asked("PUT", "/manifests/") if manifests.format_of(call.headers["Content-Type"]) == form]
        assert manifests.digest_of(put[-1].body) == said["digest"]
        with pytest.raises(modelport.ModelportError, match="does not take"):
            build(*words, "--format", other)


def test_what_is_pushed_is_shown_without_running_it_also_from_its_tar(
    stored: Bundle, base: str, image_registry: str, tmp_path: Path
) -> None:
    name = f"{image_registry}/team/shown:1"
    said = build("iris", "--base", base, "--tag", name, "--push", "--output", "shown.tar")
    shown = CliRunner().invoke(show, [name], catch_exceptions=False).output
    facts = [line.split(maxsplit=1) for line in shown.partition("\n\n")[0].splitlines()]
    assert ["bundle", "iris:1"] in facts
    assert [stored.digest] in facts
    assert ["digest", said["digest"]] in facts
    assert ["for", "linux/amd64"] in facts
    assert "sepal_length" in shown
    for ref in (name, "shown.tar"):
        about = json.loads(CliRunner().invoke(show, [ref, "--json"], catch_exceptions=False).output)
        assert about["bundle"] == {"ref": "iris:1", "digest": stored.digest}
        assert about["signature"] == stored.signature.to_dict()
    foreign = CliRunner().invoke(show, [base], catch_exceptions=False).output
    assert foreign.rstrip().endswith("It has no labels of Modelport: it was made by something else.")


def test_a_size_that_is_allowed_is_kept_or_the_table_is_shown(stored: Bundle, base: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as raised:
        build("iris", "--base", base, "--max-size", "10MB")
    assert "more than --max-size 10MB\n\nlayer " in raised.value.message
    assert "numpy" in raised.value.message
    assert not (tmp_path / "iris-1.tar").exists()
    assert build("iris", "--base", base, "--max-size", "2GB")["bytes"] < 2_000_000_000


def test_what_it_is_made_of_is_listed(stored: Bundle, base: str, tmp_path: Path) -> None:
    said = build("iris", "--base", base, "--sbom", "sbom.json")
    document = json.loads((tmp_path / "sbom.json").read_text())
    parts = {one["name"]: one for one in document["components"]}
    assert {"numpy", "onnxruntime", "msgspec", "modelport", "iris"} <= parts.keys()
    assert parts["numpy"]["purl"] == f"pkg:pypi/numpy@{parts['numpy']['version']}"
    assert parts["iris"]["hashes"] == [{"alg": "SHA-256", "content": stored.digest[7:]}]
    assert document["metadata"]["component"]["version"] == said["id"]
    assert document["specVersion"] == "1.6"


def test_a_base_without_a_library_is_named_before_anything_is_sent(base: str, image_registry: str, stored: Bundle, tmp_path: Path) -> None:
    slim = {"usr/local/bin/python3.11": b"", "lib/x86_64-linux-gnu/libc.so.6": b"GNU C Library x release version 2.36\n"}
    with before(image_registry) as proxy:
        images_world.push(f"{proxy.host}/bare:1", [images_world.layer_of(slim)])
        asked = len(proxy.asked("POST"))
        with pytest.raises(Refused, match=r"bare:1 lacks .*libstdc\+\+\.so\.6, which .* ask") as raised:
            build("iris", "--base", f"{proxy.host}/bare:1", "--tag", f"{proxy.host}/x:1", "--push")
        assert len(proxy.asked("POST")) == asked
    assert "libstdc++6" in raised.value.hint
    lacking = re.findall(r"(\S+), which", raised.value.message)
    flags = [word for name in lacking for word in ("--ignore-library", name)]
    assert build("iris", "--base", f"{image_registry}/bare:1", *flags)["base"]["name"] == f"{image_registry}/bare:1"


def test_a_bundle_that_is_in_no_store_is_version_1_and_called_by_its_digest(base: str, tmp_path: Path) -> None:
    bundle = bundles.open_bundle(DEMO)
    said = build(DEMO, "--base", base)
    short = bundle.digest[7:19]
    assert said["name"] == f"iris:{short}"
    assert (tmp_path / f"iris-{short}.tar").is_file()


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["--push"], "--push does not know where to"),
        (["--tag", "Iris"], "'Iris' is no repository"),
        (["--tag", "iris@sha256:" + "0" * 64], "names a digest"),
    ],
)
def test_a_name_that_cannot_be_meant_is_refused_before_anything_is_built(stored: Bundle, words: list[str], wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong):
        build("iris", *words)


def test_an_upload_that_is_refused_names_the_registry(stored: Bundle, base: str, image_registry: str) -> None:
    def refuses(call: Call) -> Answer | None:
        return Answer(403, b'{"errors":[{"code":"DENIED","message":"not yours"}]}') if call.method == "POST" else None

    with (
        before(image_registry, refuses) as proxy,
        pytest.raises(modelport.ModelportError, match="there are no credentials for it") as raised,
    ):
        build("iris", "--base", base, "--tag", f"{proxy.host}/x:1", "--push")
    assert raised.value.hint == f"docker login {proxy.host}"


def test_the_output_ends_with_what_to_do_next(stored: Bundle, base: str) -> None:
    done = CliRunner().invoke(command, ["iris", "--base", base], catch_exceptions=False)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["layer", "part", "size", "compressed"]
    assert [line.split()[0] for line in lines if line and not line.startswith(" ")][1:5] == ["base", "dependencies", "modelport", "model"]
    assert lines[-1] == "next: docker load -i iris-1.tar && docker run --rm -p 8080:8080 iris:1"
    assert done.stderr == "", "no bar where there is no terminal"

"""A base is fetched once, by digest and whole, and says which Python and which shared libraries it has."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import images_world
from faulty_proxy import Answer, Call, Proxy, before, times
from images_world import layer_of
from modelport.errors import ModelportError, RegistryError, UsageError
from modelport.images.base import Base, fetched
from modelport.images.names import Name
from modelport.images.registry import Registry, UnknownImage

LIBC = b"\0GNU C Library (Debian GLIBC 2.36-9+deb12u10) stable release version 2.36.\n\0"
SLIM = {
    "usr/local/bin/python3.11": b"python",
    "usr/lib/x86_64-linux-gnu/libc.so.6": LIBC,
    "usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30": b"",
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with images_world.registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODELPORT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def get(name: str, *, architecture: str = "amd64", pythons: tuple[str, ...] = ("3.11",), told: list[str] | None = None) -> Base:
    said = told if told is not None else []
    return fetched(
        Name.parse(name),
        architecture,
        pythons,
        lambda host: Registry(host, lambda host: None, lambda s: None),
        said.append,
        lambda *_: None,
    )


def test_it_says_its_python_its_libraries_and_its_c_library(registry: str) -> None:
    digest = images_world.push(f"{registry}/slim:1", [layer_of(SLIM), layer_of({"lib/x86_64-linux-gnu/libz.so.1": b"z", "etc/x": b"1234"})])
    base = get(f"{registry}/slim:1")
    assert (base.python, base.version, base.glibc, base.form) == ("/usr/local/bin/python3.11", "3.11", 36, "docker")
    assert base.libraries == {"libc.so.6", "libstdc++.so.6.0.30", "libz.so.1"}
    assert base.digest == digest
    assert base.unpacked == len(LIBC) + len(b"python") + 5
    assert [base.path(layer).stat().st_size for layer in base.layers] == [layer.size for layer in base.layers]


def test_the_python_is_the_first_on_the_path_that_will_do(registry: str) -> None:
    both = {**SLIM, "usr/bin/python3.11": b"", "usr/bin/python3.13": b""}
    images_world.push(f"{registry}/both:1", [layer_of(both)], Env=["PATH=/usr/bin:/usr/local/bin"])
    assert get(f"{registry}/both:1").python == "/usr/bin/python3.11"
    assert get(f"{registry}/both:1", pythons=("3.12", "3.13")).python == "/usr/bin/python3.13"
    with pytest.raises(UsageError, match=r"both:1 has Python 3\.11, 3\.13, and the model needs Python 3\.12") as raised:
        get(f"{registry}/both:1", pythons=("3.12",))
    assert raised.value.hint == "--base python:3.12-slim, or another that has it."


def test_what_a_later_layer_takes_away_is_gone(registry: str) -> None:
    gone = {"usr/local/bin/.wh.python3.11": b"", "usr/lib/x86_64-linux-gnu/.wh.libstdc++.so.6.0.30": b"", "usr/bin/python3.11": b""}
    images_world.push(f"{registry}/gone:1", [layer_of(SLIM), layer_of(gone)])
    base = get(f"{registry}/gone:1")
    assert base.python == "/usr/bin/python3.11"
    assert base.libraries == {"libc.so.6"}


def test_musl_is_told_and_what_has_neither_is_refused(registry: str) -> None:
    images_world.push(f"{registry}/musl:1", [layer_of({"usr/local/bin/python3.11": b"", "lib/ld-musl-x86_64.so.1": b""})])
    assert get(f"{registry}/musl:1").glibc == 0
    images_world.push(f"{registry}/none:1", [layer_of({"usr/local/bin/python3.11": b""})])
    with pytest.raises(UsageError, match="neither glibc nor musl"):
        get(f"{registry}/none:1")
    images_world.push(f"{registry}/bare:1", [layer_of({"lib/ld-musl-x86_64.so.1": b""})])
    with pytest.raises(UsageError, match=r"bare:1 has no Python, and the model needs Python 3\.11"):
        get(f"{registry}/bare:1")


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_of_an_index_the_image_for_the_platform_is_taken(registry: str, form: str) -> None:
    amd = images_world.push(f"{registry}/index-{form}:amd", [layer_of(SLIM)], form)
    arm = images_world.push(f"{registry}/index-{form}:arm", [layer_of({**SLIM, "arm": b""})], form, architecture="arm64")
    images_world.push_index(f"{registry}/index-{form}:1", form, {"unknown": amd, "arm64": arm, "amd64": amd})
    assert get(f"{registry}/index-{form}:1").digest == amd
    base = get(f"{registry}/index-{form}:1", architecture="arm64")
    assert (base.digest, base.form) == (arm, form)
    with pytest.raises(UsageError, match=r"is for linux/arm64, not linux/amd64"):
        get(f"{registry}/index-{form}:arm")


def test_layers_come_once_and_a_moved_tag_is_seen(registry: str) -> None:
    first = images_world.push(f"{registry}/moves:1", [layer_of(SLIM)])
    with before(registry) as proxy:
        assert get(f"{proxy.host}/moves:1").digest == first
        fetched_once = len(proxy.asked("GET"))
        assert get(f"{proxy.host}/moves:1").digest == first
        assert len(proxy.asked("GET")) == fetched_once, "one HEAD is all it takes"
        second = images_world.push(f"{registry}/moves:1", [layer_of({**SLIM, "more": b"more"})])
        assert get(f"{proxy.host}/moves:1").digest == second


def test_where_nobody_answers_it_is_what_it_was_last(registry: str) -> None:
    digest = images_world.push(f"{registry}/offline:1", [layer_of(SLIM)])
    told: list[str] = []
    with before(registry) as proxy:
        name = f"{proxy.host}/offline:1"
        get(name)
    assert get(name, told=told).digest == digest
    assert len(told) == 1
    assert told[0].endswith(f": {name} is what it was last, {digest}")
    with pytest.raises(RegistryError, match="does not answer"):
        get(name.replace("offline", "never"))
    with pytest.raises(UnknownImage):
        get(f"{registry}/never:1")


def test_a_fetch_that_broke_off_is_gone_on_with(registry: str, cache: Path) -> None:
    """The first layer is not fetched again, and what there is of the second neither."""
    layers = [layer_of(SLIM), layer_of({"big": bytes(range(256)) * 4000})]
    images_world.push(f"{registry}/broken:1", layers)

    def cut(proxy: Proxy, call: Call) -> Answer:
        whole = proxy.forwarded(call)
        return Answer(whole.status, whole.body, whole.headers, sent=len(whole.body) // 2)

    with before(registry) as proxy:
        blobs = []

        def breaks(call: Call) -> Answer | None:
            if call.method == "GET" and "/blobs/" in call.path:
                blobs.append(call.headers.get("Range"))
                return cut(proxy, call) if len(blobs) >= 3 else None
            return None

        proxy.faults.append(breaks)
        with pytest.raises(RegistryError, match=r"connection broke|ends after"):
            get(f"{proxy.host}/broken:1")
        proxy.faults.clear()
        asked = len(proxy.calls)
        base = get(f"{proxy.host}/broken:1")
        again = [call for call in proxy.calls[asked:] if "/blobs/" in call.path]
    assert len(again) == 1
    assert again[0].headers["Range"].startswith("bytes=")
    assert base.python == "/usr/local/bin/python3.11"


def test_a_layer_in_the_cache_that_was_cut_is_named(registry: str) -> None:
    images_world.push(f"{registry}/cut:1", [layer_of(SLIM)])
    base = get(f"{registry}/cut:1")
    path = base.path(base.layers[0])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelportError, match="was changed after it was made") as raised:
        get(f"{registry}/cut:1")
    assert str(path.parent) in raised.value.hint


def test_a_layer_that_is_no_tar_is_told(registry: str) -> None:
    name = Name.parse(f"{registry}/notar:1")
    config = images_world.config_of(["sha256:" + "0" * 64])
    images_world.push(str(name), [gzip.compress(b"no tar" * 1000)], config=config)
    with pytest.raises(RegistryError, match="does not read"):
        get(str(name))


def test_the_registry_is_asked_again_for_a_moment_of_weakness(registry: str) -> None:
    images_world.push(f"{registry}/weak:1", [layer_of(SLIM)])
    with before(registry, times(2, lambda call: True, lambda call: Answer(503))) as proxy:
        assert get(f"{proxy.host}/weak:1").version == "3.11"


def test_the_configuration_in_the_cache_is_that_of_the_registry(registry: str) -> None:
    images_world.push(f"{registry}/config:1", [layer_of(SLIM)], Labels={"a": "b"})
    base = get(f"{registry}/config:1")
    assert base.config["config"]["Labels"] == {"a": "b"}
    assert json.loads((base.folder / "config.json").read_bytes()) == base.config

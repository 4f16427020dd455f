"""The registry client against a real registry, and against one behind a proxy that fails as networks and registries do."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import images_world
from faulty_proxy import Answer, Call, Proxy, Tokens, before, times
from modelport.errors import RegistryError
from modelport.images import manifests
from modelport.images.credentials import Credentials
from modelport.images.manifests import Descriptor
from modelport.images.names import Name
from modelport.images.registry import Manifest, NotTaken, Registry, UnknownImage, Unreachable

ANN = Credentials("ann", "secret", where="tests")
HTPASSWD = "ann:$2b$04$4daWElwB5x3Vj0GS7AiFjuX5yM/EXXasUC9PCzHS.ZRYwD1Ubgjvi\n"
CONTENT = os.urandom(300_000)
BLOB = Descriptor(manifests.digest_of(CONTENT), len(CONTENT), "application/vnd.oci.image.layer.v1.tar+gzip")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that anybody may use, as host:port."""
    with images_world.registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def pauses() -> list[float]:
    """How long the client would have waited."""
    return []


def client(host: str, pauses: list[float], known: Credentials | None = None, chunk_bytes: int = 100_000) -> Registry:
    return Registry(host, lambda host: known, pauses.append, chunk_bytes)


def stored(host: str, repository: str, tmp_path: Path) -> bytes:
    """What the registry itself has of the blob."""
    with Registry(host, lambda host: None) as open_registry:
        open_registry.fetch(repository, BLOB, tmp_path / "stored")
    return (tmp_path / "stored").read_bytes()


def image(host: str, name: str, form: str = "docker") -> str:
    return images_world.push(f"{host}/{name}", [images_world.layer_of({"a": name.encode()})], form)


# What works


def test_a_blob_goes_up_in_parts_and_comes_back(registry: str, tmp_path: Path, pauses: list[float]) -> None:
    told: list[int] = []
    with before(registry) as proxy, client(proxy.host, pauses) as open_registry:
        assert not open_registry.has("parts", BLOB.digest)
        open_registry.upload("parts", BLOB, CONTENT, told.append)
        assert open_registry.has("parts", BLOB.digest)
        ranges = [call.headers["Content-Range"] for call in proxy.asked("PATCH")]
    assert ranges == ["0-99999", "100000-199999", "200000-299999"]
    assert sum(told) == BLOB.size
    assert stored(registry, "parts", tmp_path) == CONTENT
    assert pauses == []


@pytest.mark.parametrize("form", manifests.FORMATS)
def test_manifests_and_indexes_of_both_kinds_come_as_they_are_stored(registry: str, form: str, pauses: list[float]) -> None:
    digest = image(registry, f"kinds-{form}:1", form)
    listed = images_world.push_index(f"{registry}/kinds-{form}:all", form, {"amd64": digest, "unknown": digest})
    with client(registry, pauses) as open_registry:
        name = Name.parse(f"{registry}/kinds-{form}:1")
        assert open_registry.digest(name) == digest
        assert open_registry.manifest(name).media_type == (manifests.DOCKER_MANIFEST if form == "docker" else manifests.OCI_MANIFEST)
        found = open_registry.manifest(Name.parse(f"{registry}/kinds-{form}:all"))
        assert found.digest == listed
        assert manifests.for_platform(found.parsed(), "amd64", "kinds").digest == digest
        with pytest.raises(RegistryError, match=r"^kinds has no image for linux/arm64: it has linux/amd64$"):
            manifests.for_platform(found.parsed(), "arm64", "kinds")


def test_skopeo_reads_what_was_pushed(registry: str) -> None:
    images_world.needed("skopeo")
    digest = image(registry, "skopeo:1")
    done = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{registry}/skopeo:1"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["Digest"] == digest


def test_a_layer_of_another_repository_is_mounted_and_not_sent(registry: str, pauses: list[float]) -> None:
    with before(registry) as proxy, client(proxy.host, pauses) as open_registry:
        open_registry.upload("mount-source", BLOB, CONTENT)
        sent = len(proxy.asked("PATCH"))
        assert open_registry.mount("mount-target", BLOB.digest, "mount-source")
        assert open_registry.has("mount-target", BLOB.digest)
        assert not open_registry.mount("mount-target", manifests.digest_of(b"not there"), "mount-source")
        assert len(proxy.asked("PATCH")) == sent


def test_what_is_not_there_is_named(registry: str, pauses: list[float]) -> None:
    with client(registry, pauses) as open_registry, pytest.raises(UnknownImage, match=rf"{registry} has no /v2/nobody/manifests/1: 404"):
        open_registry.digest(Name.parse(f"{registry}/nobody:1"))
    with client("127.0.0.1:1", pauses) as open_registry, pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:1 does not answer"):
        open_registry.digest(Name.parse("127.0.0.1:1/nobody:1"))
    assert pauses == [0.2, 0.5, 1.0, 2.0], "somebody may answer in a moment"


# Credentials


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that asks for a name and a password."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "htpasswd").write_text(HTPASSWD)
    with images_world.registry(folder, f"auth: {{htpasswd: {{realm: tests, path: {folder / 'htpasswd'}}}}}") as host:
        yield host


def test_a_password_is_sent_where_it_is_asked_for(locked: str, pauses: list[float]) -> None:
    with client(locked, pauses, ANN) as open_registry:
        open_registry.upload("basic", BLOB, CONTENT)
        assert open_registry.has("basic", BLOB.digest)


def test_refused_credentials_are_told_with_where_they_were_found(locked: str, pauses: list[float]) -> None:
    with client(locked, pauses, Credentials("ann", "wrong", where="/home/ann/config.json")) as open_registry:
        with pytest.raises(RegistryError, match=r"refuses the credentials of 'ann' in /home/ann/config\.json: 401") as raised:
            open_registry.upload("basic", BLOB, CONTENT)
    assert raised.value.hint == f"docker login {locked}"
    assert "wrong" not in raised.value.message
    with client(locked, pauses) as open_registry, pytest.raises(RegistryError, match="asks for credentials, and there are none for it"):
        open_registry.upload("basic", BLOB, CONTENT)
    assert pauses == [], "no password becomes right by waiting"


def test_a_token_is_fetched_for_what_is_done_and_again_when_it_has_expired(registry: str, tmp_path: Path, pauses: list[float]) -> None:
    tokens = Tokens(uses=2)
    with before(registry, tokens) as proxy, client(proxy.host, pauses, ANN) as open_registry:
        open_registry.upload("tokens", BLOB, CONTENT)
        open_registry.fetch("tokens", BLOB, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == CONTENT
    assert len(tokens.given) > 2, "one expired in mid-upload"
    asked = {re.sub("%3A", ":", path) for path in tokens.asked}
    assert asked == {
        "/token?service=tests&scope=repository:tokens:pull,push",
        "/token?service=tests&scope=repository:tokens:pull",
    } or asked == {
        "/token?service=tests&scope=repository:tokens:pull%2Cpush",
        "/token?service=tests&scope=repository:tokens:pull",
    }


def test_a_token_server_that_refuses_is_told(registry: str, pauses: list[float]) -> None:
    tokens = Tokens(uses=100, password="another")
    with before(registry, tokens) as proxy, client(proxy.host, pauses, ANN) as open_registry:
        with pytest.raises(
            RegistryError, match="refuses the credentials of 'ann' in tests: 401 UNAUTHORIZED incorrect username or password"
        ):
            open_registry.upload("tokens", BLOB, CONTENT)


def test_credentials_do_not_follow_to_another_host(locked: str, tmp_path: Path, pauses: list[float]) -> None:
    with client(locked, pauses, ANN) as open_registry:
        open_registry.upload("elsewhere", BLOB, CONTENT)
    with before(locked, lambda call: Answer(200, CONTENT)) as storage:
        moved = times(1, lambda call: "/blobs/" in call.path, lambda call: Answer(307, b"", {"Location": f"http://{storage.host}/there"}))

        def asking(call: Call) -> Answer | None:
            if "Authorization" not in call.headers:
                return Answer(401, b"", {"WWW-Authenticate": 'Basic realm="tests"'})
            return moved(call)

        with before(locked, asking) as proxy, client(proxy.host, pauses, ANN) as open_registry:
            open_registry.fetch("elsewhere", BLOB, tmp_path / "blob")
    assert [call.path for call in storage.calls] == ["/there"]
    assert "Authorization" not in storage.calls[0].headers
    assert (tmp_path / "blob").read_bytes() == CONTENT


def test_a_token_server_without_tls_elsewhere_gets_no_password(registry: str, pauses: list[float]) -> None:
    challenge = {"WWW-Authenticate": 'Bearer realm="http://tokens.example.com/token",service="tests"'}
    with before(registry, lambda call: Answer(401, b"", challenge)) as proxy, client(proxy.host, pauses, ANN) as open_registry:
        with pytest.raises(RegistryError, match="which is not reached over TLS"):
            open_registry.has("tokens", BLOB.digest)


# What goes wrong


@pytest.mark.parametrize("arrived", [0, 50_000])
def test_an_upload_goes_on_where_the_connection_broke(registry: str, tmp_path: Path, arrived: int, pauses: list[float]) -> None:
    """This registry cannot go on from the middle of a part: it loses the upload, which begins anew."""

    def cut(proxy: Proxy, call: Call) -> Answer:
        """Some of the part reaches the registry, and the client hears nothing."""
        if arrived:
            proxy.forwarded(Call(call.method, call.path, call.headers, call.body[:arrived]))
        return Answer(202, b"x" * 100, sent=0)

    told: list[int] = []
    with before(registry) as proxy, client(proxy.host, pauses) as open_registry:
        proxy.faults.append(times(1, lambda call: call.headers.get("Content-Range") == "100000-199999", lambda call: cut(proxy, call)))
        open_registry.upload(f"broken-{arrived}", BLOB, CONTENT, told.append)
        ranges = [call.headers["Content-Range"] for call in proxy.asked("PATCH")]
    again = ["0-99999"] if arrived else []
    assert ranges == ["0-99999", "100000-199999", *again, "100000-199999", "200000-299999"]
    assert stored(registry, f"broken-{arrived}", tmp_path) == CONTENT
    assert sum(told) == BLOB.size
    assert pauses == [0.2]


def test_an_upload_begins_anew_when_the_registry_has_lost_it(registry: str, tmp_path: Path, pauses: list[float]) -> None:
    lost = Answer(404, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"blob upload unknown to registry"}]}')
    broken = times(1, lambda call: call.method == "PATCH" and not call.headers["Content-Range"].startswith("0-"), lambda call: lost)
    gone = times(1, lambda call: call.method == "GET" and "/uploads/" in call.path, lambda call: lost)
    with before(registry, broken, gone) as proxy, client(proxy.host, pauses) as open_registry:
        open_registry.upload("lost", BLOB, CONTENT)
        assert len(proxy.asked("POST")) == 2
    assert stored(registry, "lost", tmp_path) == CONTENT


def test_a_download_goes_on_where_the_connection_broke(registry: str, tmp_path: Path, pauses: list[float]) -> None:
    with before(registry) as proxy, client(proxy.host, pauses) as open_registry:
        open_registry.upload("download", BLOB, CONTENT)

        def cut(call: Call) -> Answer:
            whole = proxy.forwarded(call)
            return Answer(whole.status, whole.body, whole.headers, sent=120_000)

        proxy.faults.append(times(1, lambda call: call.method == "GET", cut))
        told: list[int] = []
        open_registry.fetch("download", BLOB, tmp_path / "blob", told.append)
        assert [call.headers.get("Range") for call in proxy.asked("GET")] == [None, "bytes=120000-"]
    assert (tmp_path / "blob").read_bytes() == CONTENT
    assert sum(told) == BLOB.size
    assert [path.name for path in tmp_path.iterdir()] == ["blob"], "nothing is left over"


def test_what_a_killed_download_left_is_gone_on_with(registry: str, tmp_path: Path, pauses: list[float]) -> None:
    (tmp_path / ".blob.partial").write_bytes(CONTENT[:50_000])
    with before(registry) as proxy, client(proxy.host, pauses) as open_registry:
        open_registry.upload("killed", BLOB, CONTENT)
        open_registry.fetch("killed", BLOB, tmp_path / "blob")
        assert [call.headers["Range"] for call in proxy.asked("GET")] == ["bytes=50000-"]
    assert (tmp_path / "blob").read_bytes() == CONTENT


def test_two_at_once_fetch_a_blob_once(registry: str, tmp_path: Path, pauses: list[float]) -> None:
    with before(registry) as proxy, client(proxy.host, pauses) as one, client(proxy.host, pauses) as two:
        one.upload("twice", BLOB, CONTENT)
        threads = [threading.Thread(target=each.fetch, args=("twice", BLOB, tmp_path / "blob")) for each in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(proxy.asked("GET")) == 1
    assert (tmp_path / "blob").read_bytes() == CONTENT


def test_bytes_of_another_digest_are_fetched_again_and_never_kept(registry: str, tmp_path: Path, pauses: list[float]) -> None:
    def other(call: Call) -> Answer:
        return Answer(200, CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))

    with before(registry) as proxy, client(proxy.host, pauses) as open_registry:
        open_registry.upload("flipped", BLOB, CONTENT)
        proxy.faults.append(times(1, lambda call: call.method == "GET", other))
        open_registry.fetch("flipped", BLOB, tmp_path / "blob")
        assert (tmp_path / "blob").read_bytes() == CONTENT
        proxy.faults.append(lambda call: other(call) if call.method == "GET" else None)
        with pytest.raises(RegistryError, match=rf"gave a blob for {BLOB.digest} whose digest is sha256:[0-9a-f]{{64}}$"):
            open_registry.fetch("flipped", BLOB, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_download_that_is_refused_for_a_moment_is_asked_for_again(registry: str, tmp_path: Path, pauses: list[float]) -> None:
    (tmp_path / ".blob.partial").write_bytes(CONTENT + b"too much")
    with before(registry, times(1, lambda call: call.method == "GET", lambda call: Answer(503))) as proxy:
        with client(proxy.host, pauses) as open_registry:
            open_registry.upload("moment", BLOB, CONTENT)
            open_registry.fetch("moment", BLOB, tmp_path / "blob")
        assert (tmp_path / "blob").read_bytes() == CONTENT
        assert pauses == [0.2]
        assert [call.headers.get("Range") for call in proxy.asked("GET")] == [None, None], "what was longer than it can be is thrown away"
        proxy.faults.append(lambda call: Answer(503) if call.method == "GET" else None)
        with client(proxy.host, pauses) as open_registry, pytest.raises(RegistryError, match=f"gave a blob for {BLOB.digest} with 503"):
            open_registry.fetch("moment", BLOB, tmp_path / "again")


def test_a_manifest_of_another_digest_is_refused(registry: str, pauses: list[float]) -> None:
    digest = image(registry, "manifest:1")
    wrong = manifests.digest_of(b"wrong")
    with before(registry) as proxy, client(proxy.host, pauses) as open_registry:

        def lying(call: Call) -> Answer:
            answer = proxy.forwarded(call)
            return Answer(answer.status, answer.body, {**answer.headers, "Docker-Content-Digest": wrong})

        proxy.faults.append(lambda call: lying(call) if call.method in ("GET", "PUT") else None)
        with pytest.raises(RegistryError, match=f"whose digest is {digest}, and should be {wrong}"):
            open_registry.manifest(Name.parse(f"{proxy.host}/manifest:1"))
        with pytest.raises(RegistryError, match=f"stored {BLOB.digest} as {wrong}"):
            open_registry.upload("manifest", BLOB, CONTENT)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_registry_that_is_out_of_order_for_a_moment_is_asked_again(
    registry: str, tmp_path: Path, status: int, pauses: list[float]
) -> None:
    sick = Answer(status, b"", {"Retry-After": "7"} if status == 429 else {})
    with (
        before(registry, times(1, lambda call: call.method == "POST", lambda call: sick)) as proxy,
        client(proxy.host, pauses) as open_registry,
    ):
        open_registry.upload(f"sick-{status}", BLOB, CONTENT)
    assert pauses == [7.0 if status == 429 else 0.2]
    assert stored(registry, f"sick-{status}", tmp_path) == CONTENT


def test_a_full_disk_is_told_in_the_registrys_words(tmp_path: Path, pauses: list[float]) -> None:
    full = tmp_path / "full"
    full.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(full)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        assert not os.environ.get("CI"), mounted.stderr
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        with images_world.registry(full) as host, client(host, pauses) as open_registry:
            big = os.urandom(1_000_000)
            blob = Descriptor(manifests.digest_of(big), len(big), "")
            with pytest.raises(RegistryError, match=r" 500 UNKNOWN unknown error No space left on device$") as raised:
                open_registry.upload("full", blob, big)
            assert "its disk full" in raised.value.hint
    finally:
        subprocess.run(["umount", str(full)], check=True)
    assert pauses, "somebody may make room in a moment"


@pytest.mark.parametrize("form", manifests.FORMATS)
def test_a_registry_that_takes_one_kind_alone_says_so(registry: str, form: str, pauses: list[float]) -> None:
    unsupported = Answer(415, b'{"errors":[{"code":"UNSUPPORTED","message":"the media type is not taken"}]}')

    def picky(call: Call) -> Answer | None:
        return (
            unsupported
            if call.method == "PUT" and f".{form if form == 'oci' else 'docker'}." in call.headers.get("Content-Type", "")
            else None
        )

    image(registry, f"picky-{form}:1", form)
    with before(registry, picky) as proxy, client(proxy.host, pauses) as open_registry:
        found = open_registry.manifest(Name.parse(f"{proxy.host}/picky-{form}:1"))
        with pytest.raises(NotTaken, match=r"does not take application/vnd\..*415 UNSUPPORTED the media type is not taken"):
            open_registry.put(Name.parse(f"{proxy.host}/picky-{form}:2"), Manifest(found.media_type, found.content, found.digest))


def test_an_answer_without_end_is_not_read_to_its_end(registry: str, pauses: list[float]) -> None:
    with before(registry, lambda call: Answer(200, b"x" * (17 * 2**20))) as proxy, client(proxy.host, pauses) as open_registry:
        with pytest.raises(RegistryError, match="with more than 16,777,216 bytes"):
            open_registry.manifest(Name.parse(f"{proxy.host}/endless:1"))


def test_redirects_in_a_ring_end(registry: str, tmp_path: Path, pauses: list[float]) -> None:
    with before(registry, lambda call: Answer(307, b"", {"Location": call.path})) as proxy, client(proxy.host, pauses) as open_registry:
        with pytest.raises(RegistryError, match="redirects more than 5 times"):
            open_registry.fetch("ring", BLOB, tmp_path / "blob")


def test_what_leads_to_something_else_than_a_web_server_is_not_followed(registry: str, tmp_path: Path, pauses: list[float]) -> None:
    elsewhere = {"Location": "ftp://storage.example.com/there"}
    begun = times(1, lambda call: call.method == "POST", lambda call: Answer(202, b"", elsewhere))
    moved = times(1, lambda call: call.method == "GET", lambda call: Answer(307, b"", elsewhere))
    with before(registry, begun, moved) as proxy, client(proxy.host, pauses) as open_registry:
        with pytest.raises(RegistryError, match=r"from http to ftp://storage\.example\.com, which is not followed"):
            open_registry.upload("other", BLOB, CONTENT)
        with pytest.raises(RegistryError, match=r"from http to ftp://storage\.example\.com, which is not followed"):
            open_registry.fetch("other", BLOB, tmp_path / "blob")
    assert pauses == []


def test_a_redirect_to_nowhere_is_told(registry: str, tmp_path: Path, pauses: list[float]) -> None:
    with before(registry, lambda call: Answer(307, b"")) as proxy, client(proxy.host, pauses) as open_registry:
        with pytest.raises(RegistryError, match=rf"answers GET /v2/nowhere/blobs/{BLOB.digest} with 307"):
            open_registry.fetch("nowhere", BLOB, tmp_path / "blob")


def test_a_manifest_that_is_none_is_told(registry: str, pauses: list[float]) -> None:
    assert gzip.decompress(images_world.layer_of({"a": b"b"}))
    with before(registry, lambda call: Answer(200, b"[]", {"Content-Type": manifests.OCI_MANIFEST})) as proxy:
        with client(proxy.host, pauses) as open_registry, pytest.raises(RegistryError, match="is no JSON object"):
            open_registry.manifest(Name.parse(f"{proxy.host}/none:1")).parsed()

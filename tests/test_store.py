"""The store: references, versions, aliases, what killed and simultaneous packs leave, in a folder, in memory and on S3."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import bundles
from modelport.cli.main import modelport
from modelport.errors import BundleError, MissingLibrary, ModelportError, Refused, UnknownReference, UsageError
from modelport.store import Reference, Store


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URL of a bucket on a local S3, which takes one request at a time as the real one decides a conditional PUT."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        fsspec.filesystem("s3").mkdir("models")
        yield "s3://models"
        fsspec.filesystem("s3").clear_instance_cache()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["folder", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MODELPORT_CACHE", str(tmp_path / "cache"))
    if request.param == "folder":
        return str(tmp_path / "store")
    if request.param == "memory":
        return f"memory://{tmp_path.name}"
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODELPORT_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


def fill(store: Store, tmp_path: Path, name: str = "iris", versions: int = 3) -> None:
    for version in range(1, versions + 1):
        store.add(bundles.write(tmp_path / f"{name}-{version}", name, content=f"model {version}".encode()))


def test_versions_count_up_and_every_reference_finds_its_own(url: str, tmp_path: Path) -> None:
    store = Store(url)
    assert store.entries() == []
    fill(store, tmp_path)
    store.alias("iris:1", "production")
    again = Store(url)
    for ref, version in (("iris", 3), ("iris:latest", 3), ("iris:2", 2), ("iris@production", 1)):
        entry, bundle = again.get(ref)
        assert (entry.name, entry.version, entry.ref) == ("iris", version, f"iris:{version}")
        assert bundle.model_path.read_bytes() == f"model {version}".encode()
        assert entry.digest == bundle.digest
        assert entry.size == bundle.size
    first = again.entries("iris")[0]
    assert first == again.entry("iris:1")
    assert (first.framework, first.cls, first.aliases) == ("sklearn", "sklearn.svm._classes.SVC", ("production",))
    assert first.added.endswith("Z")
    assert [entry.version for entry in again.entries()] == [1, 2, 3]


def test_the_same_bundle_twice_is_two_versions(url: str, tmp_path: Path) -> None:
    store, bundle = Store(url), bundles.write(tmp_path / "bundle")
    assert [store.add(bundle).version, store.add(bundle).version] == [1, 2]
    assert store.entry("iris:1").digest == store.entry("iris:2").digest
    store.remove("iris:1")
    assert store.get("iris:2")[1].model_path.read_bytes() == b"a model"


def test_an_alias_moves_and_goes(url: str, tmp_path: Path) -> None:
    store = Store(url)
    fill(store, tmp_path, versions=2)
    assert store.alias("iris:1", "production").aliases == ("production",)
    assert store.alias("iris@production", "champion").aliases == ("champion", "production")
    assert store.alias("iris", "production").version == 2
    assert store.entry("iris@production").version == 2
    assert store.unalias("iris@production").aliases == ()
    with pytest.raises(UnknownReference, match="'iris' has no alias 'production'"):
        store.get("iris@production")
    with pytest.raises(UsageError, match="names no alias"):
        store.unalias("iris:2")


def test_a_removed_version_is_gone_and_its_number_is_not_given_again(url: str, tmp_path: Path) -> None:
    store = Store(url)
    fill(store, tmp_path)
    store.alias("iris:2", "production")
    with pytest.raises(Refused, match="iris:2 is iris@production") as refused:
        store.remove("iris:2")
    assert refused.value.exit_code == 3
    assert store.remove("iris:2", force=True).aliases == ("production",)
    assert store.remove("iris:3").version == 3
    assert [entry.version for entry in store.entries()] == [1]
    assert store.get("iris")[0].version == 1
    with pytest.raises(UnknownReference, match=r"there is no iris:3: it was removed on \d{4}-") as unknown:
        store.get("iris:3")
    assert unknown.value.hint == "'iris' has version 1."
    assert store.add(bundles.write(tmp_path / "again")).version == 4
    with pytest.raises(UsageError, match=r"which version of 'iris'\? It has versions 1, 4"):
        store.remove("iris")
    store.remove("iris:1")
    store.remove("iris:latest")
    with pytest.raises(UnknownReference, match="'iris' has no versions any more"):
        store.get("iris")
    assert store.add(bundles.write(tmp_path / "fifth")).version == 5


def test_an_alias_of_a_version_that_was_removed_at_the_same_moment_says_so(url: str, tmp_path: Path) -> None:
    store = Store(url)
    fill(store, tmp_path, versions=2)
    store.remove("iris:1")
    store._place.replace("iris/aliases/production.json", b'{"version": 1}')
    with pytest.raises(UnknownReference, match="iris@production stands for iris:1, which was removed"):
        store.get("iris@production")


def test_unknown_references_say_what_there_is(url: str, tmp_path: Path) -> None:
    store = Store(url)
    with pytest.raises(UnknownReference, match="there is no 'iris' in") as empty:
        store.get("iris")
    assert "modelport pack" in empty.value.hint
    fill(store, tmp_path)
    fill(store, tmp_path, "shipping", 1)
    store.alias("iris:3", "production")
    for ref, message, hint in (
        ("irs", "there is no 'irs' in .*; did you mean \"iris\"?", "There is iris, shipping."),
        ("iris:7", "there is no iris:7", "'iris' has versions 1, 2, 3."),
        (
            "iris@prodution",
            "has no alias 'prodution'; did you mean \"production\"?",
            "'iris' has versions 1, 2, 3 and the aliases production.",
        ),
        ("shipping@live", "'shipping' has no alias 'live'", "'shipping' has version 1 and no aliases."),
    ):
        with pytest.raises(UnknownReference, match=message) as unknown:
            store.get(ref)
        assert unknown.value.hint == hint
    with pytest.raises(UnknownReference, match="there is no 'flowers'"):
        store.entries("flowers")


@pytest.mark.parametrize(
    "ref",
    [
        *("", "../iris", "/etc/passwd", "iris/../..", "Iris", "iris\n", "a" * 129),
        *("iris:", "iris:0", "iris:01", "iris:-1", "iris:1.0", "iris:9999999999", "iris:1\n", "iris:production", "iris:٣"),
        *("iris@", "iris@latest", "iris@../x", "iris:1@production", "iris@a\x00"),
    ],
)
def test_hostile_references_are_refused_before_the_store_is_touched(ref: str, folder: Path) -> None:
    with pytest.raises(UnknownReference, match="is no reference"):
        Store().get(ref)
    assert not folder.exists()


def test_a_word_where_a_version_belongs_is_told_how_an_alias_is_written() -> None:
    with pytest.raises(UnknownReference) as unknown:
        Reference.parse("iris:production")
    assert unknown.value.hint == "An alias is written with @: iris@production"


@pytest.mark.parametrize("alias", ["", "latest", "3", "3a", "Prod", "a b", "../x", "a/b", "a--b", "-a", "a\n", "a" * 65])
def test_words_that_cannot_be_aliases_are_refused(alias: str, folder: Path, tmp_path: Path) -> None:
    store = Store()
    fill(store, tmp_path, versions=1)
    with pytest.raises(UsageError, match="is no alias"):
        store.alias("iris:1", alias)
    assert store.entry("iris:1").aliases == ()


@given(st.text())
def test_any_text_is_a_reference_or_an_unknown_one(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except UnknownReference:
        return
    assert all(character.isascii() and character not in "/\\" for character in text)
    assert ".." not in reference.name


def test_a_changed_byte_is_refused_and_the_file_named(folder: Path, tmp_path: Path) -> None:
    store = Store()
    fill(store, tmp_path, versions=1)
    model = store.get("iris")[1].model_path
    model.write_bytes(b"model X")
    with pytest.raises(BundleError, match=r"model/model\.bin was changed"):
        store.get("iris")


def test_another_bundle_in_the_place_of_one_is_refused(folder: Path, tmp_path: Path) -> None:
    store = Store()
    fill(store, tmp_path, versions=2)
    first, second = (store.get(f"iris:{version}")[1].folder for version in (1, 2))
    first.rename(tmp_path / "aside")
    second.rename(first)
    with pytest.raises(BundleError, match="is not what iris:1 was"):
        store.get("iris:1")


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"3", b'{"version": 1}', b"\xff"])
def test_a_damaged_entry_is_named(content: bytes, folder: Path, tmp_path: Path) -> None:
    store = Store()
    fill(store, tmp_path, versions=1)
    (folder / "iris/versions/1.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"iris/versions/1\.json was changed"):
        store.get("iris")


@pytest.mark.parametrize("key", ["digest", "bundle"])
def test_an_entry_cannot_lead_out_of_the_store_or_the_cache(key: str, folder: Path, tmp_path: Path) -> None:
    store = Store()
    fill(store, tmp_path, versions=1)
    path = folder / "iris/versions/1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: "sha256:../../../tmp"}))
    with pytest.raises(BundleError, match="was changed"):
        store.get("iris")


def test_a_fetched_bundle_is_kept_by_its_digest_and_fetched_again_when_the_copy_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELPORT_CACHE", str(tmp_path / "cache"))
    store = Store(f"memory://{tmp_path.name}")
    fill(store, tmp_path, versions=1)
    entry, bundle = store.get("iris")
    assert bundle.folder == tmp_path / "cache" / "fetched" / entry.digest.removeprefix("sha256:")
    inode = bundle.folder.stat().st_ino
    assert store.get("iris")[1].folder.stat().st_ino == inode
    bundle.model_path.write_bytes(b"model X")
    assert store.get("iris")[1].model_path.read_bytes() == b"model 1"
    assert [each.name for each in (tmp_path / "cache" / "fetched").iterdir()] == [bundle.folder.name]


def test_a_changed_byte_at_a_url_is_refused_and_does_not_enter_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPORT_CACHE", str(tmp_path / "cache"))
    store = Store(f"memory://{tmp_path.name}")
    fill(store, tmp_path, versions=1)
    memory = fsspec.filesystem("memory")
    (tar,) = memory.glob(f"/{tmp_path.name}/iris/bundles/*.tar")
    memory.pipe_file(tar, memory.cat_file(tar).replace(b"model 1", b"model X"))
    with pytest.raises(BundleError, match=r"\.tar: model/model\.bin was changed"):
        store.get("iris")
    assert list((tmp_path / "cache" / "fetched").iterdir()) == []
    memory.rm_file(tar)
    with pytest.raises(BundleError, match=r"\.tar is missing"):
        store.get("iris")


def add_many(url: str, bundle_folder: str, times: int, started: Any, answers: Any) -> None:
    """In a process of its own: add a bundle several times, beginning when all others do."""
    from modelport.bundle import open_bundle

    bundle = open_bundle(Path(bundle_folder))
    store = Store(url)
    started.wait()
    answers.put([store.add(bundle).version for _ in range(times)])


def test_packs_at_once_get_a_version_each(url: str, tmp_path: Path) -> None:
    """Four processes add five times each; in memory, which no other process sees, four threads."""
    bundle = bundles.write(tmp_path / "bundle")
    if url.startswith("memory:"):
        barrier: Any = threading.Barrier(4)
        import queue

        answers: Any = queue.Queue()
        workers: list[Any] = [threading.Thread(target=add_many, args=(url, str(bundle.folder), 5, barrier, answers)) for _ in range(4)]
    else:
        spawn = multiprocessing.get_context("spawn")
        barrier, answers = spawn.Barrier(4), spawn.Queue()
        workers = [spawn.Process(target=add_many, args=(url, str(bundle.folder), 5, barrier, answers)) for _ in range(4)]
    for worker in workers:
        worker.start()
    versions = [version for _ in workers for version in answers.get()]
    for worker in workers:
        worker.join()
    assert sorted(versions) == list(range(1, 21))
    assert [entry.version for entry in Store(url).entries("iris")] == list(range(1, 21))


KILLED = """
import sys
from dataclasses import replace
from pathlib import Path
from modelport.bundle import open_bundle
from modelport.store import Store

class Halting(dict):
    def __iter__(self):
        for name in super().__iter__():
            yield name
            print("half way", flush=True)
            sys.stdin.read()

bundle = open_bundle(Path(sys.argv[1]))
Store(sys.argv[2]).add(replace(bundle, files=Halting(bundle.files)))
"""


def test_a_killed_pack_leaves_no_version_and_is_swept_away_a_day_later(folder: Path, tmp_path: Path) -> None:
    bundle = bundles.write(tmp_path / "bundle")
    words = [sys.executable, "-c", KILLED, str(bundle.folder), str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half way\n"
        process.send_signal(signal.SIGKILL)
    (half,) = (folder / "iris/bundles").iterdir()
    assert (half / "example.json").exists()
    store = Store()
    assert store.entries() == []
    with pytest.raises(UnknownReference):
        store.get("iris")
    assert store.add(bundle).version == 1
    assert half.exists(), "it might be a pack that is still running"
    yesterday = time.time() - 25 * 3600
    for path in (half, *half.rglob("*")):
        os.utime(path, (yesterday, yesterday))
    for path in store.get("iris:1")[1].folder.rglob("*"):
        os.utime(path, (yesterday, yesterday))
    assert store.add(bundle).version == 2
    assert not half.exists()
    assert [entry.version for entry in store.entries()] == [1, 2]
    assert store.get("iris:1")[1].digest == bundle.digest


def test_a_bundle_that_changes_while_it_is_added_is_refused(folder: Path, tmp_path: Path) -> None:
    bundle = bundles.write(tmp_path / "bundle")
    bundle.model_path.write_bytes(b"another")
    with pytest.raises(BundleError, match="was changed"):
        Store().add(bundle)
    assert Store().entries() == []
    assert list((folder / "iris/bundles").iterdir()) == []


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user whom file modes bind, also where the tests run as root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_read_only_store_is_read_and_every_change_is_one_clear_line() -> None:
    with tempfile.TemporaryDirectory() as work:
        Path(work).chmod(0o755)
        store, bundle = Store(Path(work, "store")), bundles.write(Path(work, "bundle"))
        store.add(bundle)
        store.alias("iris:1", "production")
        everything = [Path(work, "store"), *Path(work, "store").rglob("*")]
        for path in everything:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            with unprivileged():
                assert store.get("iris@production")[0].ref == "iris:1"
                for change in (
                    lambda: store.add(bundle),
                    lambda: store.alias("iris:1", "champion"),
                    lambda: store.unalias("iris@production"),
                    lambda: store.remove("iris:1", force=True),
                ):
                    with pytest.raises(ModelportError, match=re.escape(f"cannot write to the store {store.url}: Permission denied")):
                        change()
            assert [(entry.ref, entry.aliases) for entry in store.entries()] == [("iris:1", ("production",))]
        finally:
            for path in everything:
                path.chmod(0o755)


def test_a_store_that_is_a_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(ModelportError, match=r"cannot read the store .*: Not a directory"):
        Store(tmp_path / "store").entries()
    with pytest.raises(ModelportError, match=r"cannot write to the store .*: Not a directory"):
        Store(tmp_path / "store").add(bundles.write(tmp_path / "bundle"))


def test_a_url_that_cannot_be_read_says_why(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="nonsense://x"):
        Store("nonsense://x")
    with pytest.raises(MissingLibrary, match="the store gs://bucket needs a library") as missing:
        Store("gs://bucket")
    assert missing.value.hint == "pip install 'fsspec[gs]'"
    with pytest.raises(ModelportError, match="cannot write to the store s3://no-such-bucket"), tempfile.TemporaryDirectory() as work:
        Store("s3://no-such-bucket/x").add(bundles.write(Path(work, "bundle")))


def test_the_default_store_is_the_one_of_the_environment_and_then_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODELPORT_STORE", str(tmp_path / "a"))
    assert Store().url == str(tmp_path / "a")
    monkeypatch.delenv("MODELPORT_STORE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store().url == str(tmp_path / ".modelport")
    fill(Store(f"file://{tmp_path}/a"), tmp_path, versions=1)
    assert Store(tmp_path / "a").entry("iris").version == 1


def run(*words: str) -> Result:
    return CliRunner().invoke(modelport, words, catch_exceptions=False, standalone_mode=False)


def test_list_says_how_to_begin_when_there_is_nothing(folder: Path) -> None:
    assert run("list").stdout == f"{folder} has no bundles yet\n\nnext: modelport pack MODEL --name NAME\n"
    assert run("list", "--json").stdout == "[]\n"


def test_list_alias_and_remove_say_what_they_did(folder: Path, tmp_path: Path) -> None:
    store = Store()
    fill(store, tmp_path, versions=2)
    fill(store, tmp_path, "shipping", 1)
    digest = store.entry("iris:1").digest[:19]
    assert run("alias", "iris:1", "production").stdout == f"iris@production is iris:1  {digest}\n\nnext: modelport serve iris@production\n"
    added = [entry.added[:16].replace("T", " ") for entry in store.entries()]
    size = f"{store.entry('iris:1').size} B"
    assert run("list").stdout == (
        "name      version  aliases     class  size  added (UTC)\n"
        f"iris      1        production  SVC    {size}  {added[0]}\n"
        f"iris      2                    SVC    {size}  {added[1]}\n"
        f"shipping  1                    SVC    {size}  {added[2]}\n"
        "\nnext: modelport show shipping:1\n"
    )
    assert [entry["version"] for entry in json.loads(run("list", "iris", "--json").stdout)] == [1, 2]
    assert json.loads(run("alias", "iris:2", "champion", "--json").stdout)["aliases"] == ["champion"]
    assert run("alias", "iris@champion", "--remove").stdout == "iris@champion is no more; it was iris:2\n"
    assert run("remove", "iris:1", "--force").stdout == f"removed iris:1 ({size}), and iris@production\n"
    assert [entry["name"] for entry in json.loads(run("remove", "iris:2", "shipping:1", "--json").stdout)] == ["iris", "shipping"]
    with pytest.raises(UsageError, match="which alias for iris:1"):
        run("alias", "iris:1")
    with pytest.raises(UsageError, match="--remove takes the alias in REF"):
        run("alias", "iris:1", "production", "--remove")


def test_show_tells_all_that_a_bundle_holds(folder: Path, tmp_path: Path) -> None:
    about = {
        "title": "Irises",
        "subtitle": "Which one?",
        "labels": {"team": "flowers"},
        "created": "2026-01-02T03:04:05Z",
        "trusted": ("mine.f",),
    }
    lineage = {"git": {"commit": "abc", "dirty": True}, "metrics": {"accuracy": 0.97}}
    bundle = bundles.write(tmp_path / "bundle", lineage=lineage, **about)
    entry = Store().add(bundle)
    Store().alias("iris:1", "production")
    assert (
        run("show", "iris").stdout
        == f"""\
bundle            iris:1
digest            {bundle.digest}
added             {entry.added}
aliases           iris@production
model             sklearn.svm._classes.SVC, scikit-learn 1.9.1
title             Irises
about             Which one?
python            3.11
created           2026-01-02T03:04:05Z
labels            team=flowers
trusted           mine.f
git.commit        abc
git.dirty         True
metrics.accuracy  0.97

inputs             kind    null  values
petal length (cm)  number        from 0; length of a petal in cm
petal width (cm)   number  yes

outputs        kind      null  values
prediction     category        setosa, versicolor
probabilities  number 2        setosa, versicolor

example
{{"petal length (cm)": 1.4, "petal width (cm)": 0.2}}

file              size
example.json      {bundle.files["example.json"]["size"]} B
model/model.bin   7 B
requirements.txt  {bundle.files["requirements.txt"]["size"]} B
together          {bundle.size} B

requirements
scikit-learn==1.9.1

next: modelport serve iris:1
"""
    )
    shown = json.loads(run("show", "iris@production", "--json").stdout)
    assert (shown["ref"], shown["aliases"], shown["digest"]) == ("iris:1", ["production"], bundle.digest)
    assert shown["example"] == {"petal length (cm)": 1.4, "petal width (cm)": 0.2}
    assert run("show", str(bundle.folder)).stdout.startswith(f"bundle            iris, in {bundle.folder}\n")
    with (tmp_path / "iris.tar").open("wb") as out:
        bundle.write_tar(out)
    assert json.loads(run("show", str(tmp_path / "iris.tar"), "--json").stdout)["digest"] == bundle.digest
    with pytest.raises(UnknownReference):
        run("show", "irises")

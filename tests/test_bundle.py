"""A bundle never changes: any byte that differs is refused by the name of its file, and the same inputs give the same bundle anywhere."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import bundles
import converted
from modelport.bundle import MANIFEST, Bundle, check_name, is_bundle, open_bundle, unpack
from modelport.bundle import write as write_bundle
from modelport.errors import BundleError, UsageError
from modelport.frameworks import Card
from modelport.signature import Field, Signature

NAMES = Signature(
    tuple(Field(name, "number", example=1.0) for name in ("a b", "a.b", "ñ/~", 'quote"', "class", "x")), (Field("prediction", "number"),)
)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return bundles.write(tmp_path / "bundle", title="Iris", labels={"team": "größe"}, lineage={"metrics": {"f1": 0.9}}, trusted=("a.b",))


def signed(manifest: dict) -> bytes:
    """A manifest with a digest that fits it: what somebody who forges a bundle would write."""

    def canonical(value: dict) -> bytes:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")

    manifest = {key: value for key, value in manifest.items() if key != "digest"}
    return canonical({**manifest, "digest": "sha256:" + hashlib.sha256(canonical(manifest)).hexdigest()}) + b"\n"


def forged(bundle: Bundle, **changes: object) -> None:
    manifest = json.loads((bundle.folder / MANIFEST).read_bytes())
    (bundle.folder / MANIFEST).write_bytes(signed({**manifest, **changes}))


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("content", [b"[]", b"{}", b'{"passed": "yes"}', b"3"])
def test_evidence_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    bundle = bundles.write(tmp_path / "iris")
    assert bundle.parity() is None
    with pytest.raises(BundleError, match=r"parity\.json does not say how the model was converted"):
        converted.changed(bundle, tmp_path / "other", {"parity.json": content}).parity()


def test_a_bundle_is_read_back_as_it_was_written(bundle: Bundle) -> None:
    again = open_bundle(bundle.folder)
    assert again == bundle
    assert again.labels == {"team": "größe"}
    assert again.trusted == ("a.b",)
    assert again.card == Card("sklearn", "sklearn.svm._classes.SVC", "scikit-learn", "1.9.1")
    assert again.read_json("example.json") == [bundles.IRIS.example()]
    assert again.read_json("golden.json") is None
    assert again.model_path.read_bytes() == b"a model"
    assert again.code_folder is None
    assert again.size == sum(path.stat().st_size for path in bundle.folder.rglob("*") if path.is_file() and path.name != MANIFEST)


def test_every_flipped_byte_is_refused_and_the_file_is_named(bundle: Bundle) -> None:
    for path in sorted(path for path in bundle.folder.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for position in range(len(whole)):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            assert str(path) in refusal(bundle.folder)
        path.write_bytes(whole)
    assert open_bundle(bundle.folder) == bundle


def test_a_file_cut_short_added_missing_or_renamed_is_named(bundle: Bundle) -> None:
    folder = bundle.folder
    model = folder / "model" / "model.bin"
    model.write_bytes(b"a mode")
    assert refusal(folder) == f"{model} was changed after it was packed"
    model.write_bytes(b"a model")
    (folder / "model" / "extra").write_bytes(b"")
    assert refusal(folder) == f"{folder / 'model' / 'extra'} does not belong to the bundle 'iris'"
    (folder / "model" / "extra").unlink()
    (folder / "requirements.txt").unlink()
    assert refusal(folder) == f"{folder / 'requirements.txt'} is missing"


def test_compiled_python_that_nobody_packed_is_refused(bundle: Bundle) -> None:
    (bundle.folder / "__pycache__").mkdir()
    (bundle.folder / "__pycache__" / "my_code.cpython-311.pyc").write_bytes(b"")
    assert "does not belong" in refusal(bundle.folder)


def test_links_and_special_files_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    requirements = bundle.folder / "requirements.txt"
    shutil.copy(requirements, tmp_path / "elsewhere")
    requirements.unlink()
    requirements.symlink_to(tmp_path / "elsewhere")
    assert refusal(bundle.folder) == f"{requirements} is a link or a special file, which a bundle cannot hold"
    requirements.unlink()
    os.mkfifo(requirements)
    assert "special file" in refusal(bundle.folder)


def test_a_manifest_that_is_a_link_is_no_manifest(bundle: Bundle, tmp_path: Path) -> None:
    shutil.move(bundle.folder / MANIFEST, tmp_path / MANIFEST)
    (bundle.folder / MANIFEST).symlink_to(tmp_path / MANIFEST)
    assert "is no bundle" in refusal(bundle.folder)


def test_a_folder_without_a_manifest_and_a_path_without_anything_are_no_bundles(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path} is no bundle: it has no bundle.json"
    assert refusal(tmp_path / "none") == f"{tmp_path / 'none'}: no such bundle"


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{}", b"[]", b"7", b"null", b'"text"', b"\xff", b'{"digest": NaN}',
        b'{"digest": "x", "a": NaN}', b'{"digest": "x", "a": "\\ud800"}',
        b'{"digest":' + b"[" * 100_000, b'{"digest":1,"a":' + b"[" * 900 + b"]" * 900 + b"}",
    ],
    ids=range(12),
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused(bundle: Bundle, raw: bytes) -> None:
    (bundle.folder / MANIFEST).write_bytes(raw)
    assert str(bundle.folder / MANIFEST) in refusal(bundle.folder)


def test_a_huge_manifest_is_not_read(bundle: Bundle) -> None:
    with (bundle.folder / MANIFEST).open("r+b") as file:
        file.truncate(2**40)
    assert "is larger than" in refusal(bundle.folder)


def test_another_format_is_told_from_damage(bundle: Bundle) -> None:
    forged(bundle, format=2)
    assert refusal(bundle.folder) == f"{bundle.folder / MANIFEST} has format 2; this Modelport reads format 1"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "../../etc"}, "'../../etc' is no name for a bundle"),
        ({"name": 7}, "name is 7"),
        ({"model": "../model.pkl"}, "names the model '../model.pkl', which is not among its files"),
        ({"files": []}, "files is []"),
        ({"files": {"model/model.bin": {}}}, "files has no sha256 and size for model/model.bin"),
        ({"labels": ["a"]}, "labels is ['a']"),
        ({"titel": "x"}, "unknown key 'titel'; did you mean \"title\"?"),
        ({"card": {"framework": "sklearn"}}, "is not a manifest"),
        ({"signature": {"inputs": [{"name": "a", "kind": "nubmer"}]}}, "field 'a' has the kind 'nubmer'"),
        ({"trusted": "abc"}, "trusted is abc"),
        ({"lineage": [[[]]] * 3}, "lineage is [[[]], [[]], [[]]]"),
    ],
)
def test_a_forged_manifest_is_refused_in_words(bundle: Bundle, changes: dict, words: str) -> None:
    forged(bundle, **changes)
    message = refusal(bundle.folder)
    assert words in message
    assert str(bundle.folder / MANIFEST) in message


def test_a_file_outside_of_the_folder_cannot_be_named(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"")
    entry = {"sha256": hashlib.sha256(b"").hexdigest(), "size": 0}
    forged(bundle, files={**bundle.files, "../secret": entry})
    assert refusal(bundle.folder) == f"{bundle.folder / '../secret'} is missing"


def test_json_that_is_none_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "m").write_bytes(b"")
    (folder / "golden.json").write_bytes(b"[" * 100_000)
    bundle = write_bundle(folder, name="x", card=Card("sklearn", "a.B", "b"), signature=NAMES, model="model/m", python="3.11")
    with pytest.raises(BundleError, match=r"golden\.json is not JSON"):
        bundle.read_json("golden.json")


# The same everywhere

MAKE = """
import os, sys, time
from pathlib import Path
import bundles
import converted
from test_bundle import NAMES
os.umask(int(sys.argv[2], 8))
os.chdir(Path(sys.argv[1]).parent)
bundle = bundles.write(Path(sys.argv[1]), signature=NAMES, labels={"b": "1", "a": "ñ"}, title="Größe")
with open(sys.argv[1] + ".tar", "wb") as out:
    bundle.write_tar(out)
print(bundle.digest)
"""


def test_the_same_inputs_give_the_same_digest_and_tar_in_any_folder_zone_locale_and_process(tmp_path: Path) -> None:
    digests, tars = set(), set()
    for number, (zone, locale, seed, umask) in enumerate((("UTC", "C", "0", "022"), ("Asia/Tokyo", "C.UTF-8", "77", "077"))):
        folder = tmp_path / f"at-{number}" / ("bundle" * (number + 1))
        folder.parent.mkdir()
        environment = {**os.environ, "TZ": zone, "LC_ALL": locale, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run([sys.executable, "-c", MAKE, str(folder), umask], env=environment, capture_output=True, text=True, check=True)
        digests.add(done.stdout)
        tars.add(Path(f"{folder}.tar").read_bytes())
        os.utime(folder / MANIFEST, (number, number))
    assert len(digests) == len(tars) == 1


def test_another_title_model_or_column_gives_another_digest(tmp_path: Path) -> None:
    made = [
        bundles.write(tmp_path / "a"),
        bundles.write(tmp_path / "b", title="x"),
        bundles.write(tmp_path / "c", content=b"another"),
        bundles.write(tmp_path / "d", signature=NAMES),
    ]
    assert len({bundle.digest for bundle in made}) == 4


# As a tar


def tar_of(bundle: Bundle, path: Path) -> Path:
    with path.open("wb") as out:
        bundle.write_tar(out)
    return path


def test_a_tar_is_the_same_bundle(bundle: Bundle, tmp_path: Path) -> None:
    path = tar_of(bundle, tmp_path / "iris.tar")
    assert is_bundle(path)
    assert is_bundle(bundle.folder)
    opened = open_bundle(path)
    assert opened.digest == bundle.digest
    assert opened.folder != bundle.folder
    assert tar_of(opened, tmp_path / "again.tar").read_bytes() == path.read_bytes()


def test_what_is_no_bundle_does_not_look_like_one(tmp_path: Path) -> None:
    for content in (b"", b"bundle.json", os.urandom(2000)):
        path = tmp_path / "file.tar"
        path.write_bytes(content)
        assert not is_bundle(path)
        with pytest.raises(BundleError, match="is no bundle"):
            open_bundle(path)
    assert not is_bundle(tmp_path)
    assert not is_bundle(tmp_path / "none")


@pytest.mark.parametrize("cut", [1, 511, 512, 600, 1500, 3000])
def test_a_tar_cut_short_is_refused(bundle: Bundle, tmp_path: Path, cut: int) -> None:
    path = tar_of(bundle, tmp_path / "iris.tar")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BundleError):
        open_bundle(path)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, content


def huge() -> tuple[tarfile.TarInfo, bytes]:
    info, content = member("model/huge")
    info.size = 2**40
    return info, content


def sparse() -> tuple[tarfile.TarInfo, bytes]:
    """A file of a terabyte of nothing, in the form of GNU tar 1.0."""
    content = b"1\n0\n0\n".ljust(512, b"\0")
    info, _ = member("model/sparse", content=content)
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "model/sparse",
        "GNU.sparse.realsize": str(2**40),
    }
    return info, content


BAD_MEMBERS: dict[str, Callable[[], tuple[tarfile.TarInfo, bytes]]] = {
    "absolute": lambda: member("/tmp/evil"),
    "parent": lambda: member("model/../../evil"),
    "backslash": lambda: member("..\\evil"),
    "symbolic link": lambda: member("model/link", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": lambda: member("model/link", tarfile.LNKTYPE, "bundle.json"),
    "device": lambda: member("model/device", tarfile.CHRTYPE),
    "fifo": lambda: member("model/fifo", tarfile.FIFOTYPE),
    "folder": lambda: member("model/folder", tarfile.DIRTYPE),
    "twice": lambda: member("bundle.json", content=b"{}"),
    "file as folder": lambda: member("bundle.json/x"),
    "no name": lambda: member("."),
    "null": lambda: member("model/\udcff"),
    "too long": lambda: member("model/" + "a" * 5000),
    "huge": huge,
    "sparse": sparse,
}


@pytest.mark.parametrize("kind", BAD_MEMBERS)
def test_a_tar_with_anything_but_plain_files_inside_is_refused_and_writes_nothing_outside(
    bundle: Bundle, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "evil.tar"
    out = io.BytesIO()
    bundle.write_tar(out)
    out.seek(0)
    with tarfile.open(fileobj=out, mode="a", format=tarfile.PAX_FORMAT) as tar:
        info, content = BAD_MEMBERS[kind]()
        if info.size == len(content):
            tar.addfile(info, io.BytesIO(content))
        else:  # a header that lies about the size
            out.write(info.tobuf(tarfile.PAX_FORMAT))
    path.write_bytes(out.getvalue())
    target = tmp_path / "deep" / "target"
    target.mkdir(parents=True)

    def unpacked() -> Bundle:
        unpack(path, target)
        return open_bundle(target)

    with pytest.raises(BundleError) as caught:
        unpacked()
    assert str(tmp_path) in caught.value.message
    assert sum(file.stat().st_size for file in target.rglob("*") if file.is_file()) < 100_000
    assert [found.name for found in target.parent.iterdir()] == ["target"]
    assert not Path("/tmp/evil").exists()


def test_a_tar_with_too_many_files_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "many.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(10_002):
            tar.addfile(tarfile.TarInfo(f"f{number}"))
    with pytest.raises(BundleError, match="more than 10000 files"):
        unpack(path, tmp_path / "target")


def test_a_compressed_tar_is_no_bundle(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "iris.tar"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(bundle.folder / MANIFEST, MANIFEST)
    with pytest.raises(BundleError, match="is no bundle"):
        open_bundle(path)


# Names


@pytest.mark.parametrize("name", ["iris", "iris-2", "a", "0", "a.b_c__d--e", "x" * 128])
def test_a_name_that_an_image_could_have_is_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Iris Model", "For example 'iris-model'."),
        ("a/b", "For example 'a-b'."),
        ("", "For example 'iris'."),
        ("größe", "For example 'gr-e'."),
        ("a..b", "For example 'a-b'."),
        ("-a", "For example 'a'."),
        ("a\n", "For example 'a'."),
        ("x" * 129, f"For example '{'x' * 128}'."),
    ],
)
def test_another_name_is_refused_with_one_that_would_do(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_name(name)
    assert caught.value.hint == hint

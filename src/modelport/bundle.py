"""A bundle: a folder with a model and all that is needed to serve it, and a digest that covers every byte. It never changes.

    bundle.json          the manifest: what the model is, its signature, and the sha256 of every other file
    model/               the model file, as it came or in its framework's own format that runs no code
    model.onnx           the same model as ONNX, where its answers are proven to be the same
    parity.json          the evidence; or why there is no ONNX
    code/                modules the model needs and files that they read, if any
    example.json         a few input records
    golden.json          the same records with the answers they had when packed, and the tolerance
    baseline.json        per-field summary of the sample
    requirements.txt     exact pins

The digest is the sha256 of the manifest's canonical JSON (sorted keys, no spaces, UTF-8) without its own `digest`; as the manifest holds
the sha256 of every file, and the bundle no file that is not in it, no byte can change unseen. There is no clock in it: the same inputs give
the same digest. `created` is SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/) or the time of the git commit
that was packed, else nothing; when a bundle was added to a store stands in the store.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from modelport.errors import BundleError, ModelportError, UsageError
from modelport.frameworks import Card
from modelport.signature import Signature, did_you_mean

FORMAT = 1
MANIFEST = "bundle.json"
ONNX = "model.onnx"
PARITY = "parity.json"
NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*")
"""A bundle's name: that of a container image (OCI distribution-spec) without a slash."""
_MAX_MANIFEST = 64 * 2**20
_MAX_FILES = 10_000
_MAKE = "`modelport pack MODEL --name NAME` makes one."
_AGAIN = "A bundle never changes: pack again, or fetch it again."


@dataclass(frozen=True)
class Function:
    """What one of a bundle's functions takes and gives, and what it says of itself."""

    signature: Signature
    description: str = ""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle in a folder. Made by `write` and `open_bundle` only."""

    folder: Path
    digest: str
    """"sha256:" and 64 hexadecimal digits."""
    name: str
    card: Card
    signature: Signature
    model: str
    """The model file's path inside the bundle: "model/model.ubj"."""
    python: str
    """The Python that packed it: "3.11"."""
    created: str | None = None
    """UTC, ISO 8601; see the head of this module."""
    title: str = ""
    subtitle: str = ""
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    """git commit, whether it was dirty, sha256 of the training data, metrics."""
    trusted: tuple[str, ...] = ()
    """What the pickle imports beyond the allow-list, as whoever packed it accepted with --trust."""
    functions: Mapping[str, Function] = field(default_factory=dict)
    """Where the model is a file of functions: those beside the first, by name. The first one's signature is the bundle's."""
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Every other file: {"model/model.ubj": {"sha256": ..., "size": bytes}}."""

    @property
    def model_path(self) -> Path:
        return self.folder / self.model

    @property
    def code_folder(self) -> Path | None:
        """The folder of the modules the model needs, or None."""
        return self.folder / "code" if any(name.startswith("code/") for name in self.files) else None

    @property
    def size(self) -> int:
        """Bytes of all files beside the manifest."""
        return sum(int(entry["size"]) for entry in self.files.values())

    def read_json(self, name: str) -> Any:
        """A JSON file of the bundle ("golden.json"), or None when the bundle has no such file."""
        if name not in self.files:
            return None
        try:
            return json.loads((self.folder / name).read_bytes())
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{self.folder / name} is not JSON: {error}", hint=_AGAIN) from error

    def parity(self) -> dict[str, Any] | None:
        """How it was proven that the ONNX answers alike, or why there is none, as parity.json has it; None where it was not tried."""
        parity: dict[str, Any] | None = self.read_json(PARITY)
        if parity is None:
            return None
        wrong = not isinstance(parity, dict) or next((key for key, kind in _PARITY.items() if not isinstance(parity.get(key), kind)), None)
        if wrong:
            raise BundleError(f"{self.folder / PARITY} does not say how the model was converted", hint="Pack again with this Modelport.")
        return parity

    def pins(self) -> list[tuple[str, str]]:
        """The distributions that serving it needs, and their versions, as requirements.txt has them."""
        if "requirements.txt" not in self.files:
            return []
        lines = (self.folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
        found = (line.split(" ")[0].partition("==") for line in lines if line and not line.startswith(("#", " ")))
        return [(name, version) for name, _, version in found]

    @property
    def function(self) -> str:
        """The name of the function whose signature is the bundle's; "" where the model is no file of functions."""
        return self.card.cls.rpartition(".")[2] if self.card.framework == "function" else ""

    def golden(self, function: str = "") -> dict[str, Any] | None:
        """The golden rows of one of its `functions`, or of the model: {"tolerance", "synthesised", "rows": [{"input", "output"}]}."""
        golden = self.read_json("golden.json")
        return golden if golden is None or not function else {**golden, **golden["functions"][function]}

    def to_dict(self) -> dict[str, Any]:
        """The manifest, with its digest."""
        raw = {slot.name: getattr(self, slot.name) for slot in fields(self) if slot.name != "folder"}
        functions = {
            name: {"signature": one.signature.to_dict(), "description": one.description} for name, one in raw.pop("functions").items()
        }
        raw |= {"functions": functions} if functions else {}
        return {"format": FORMAT, **raw, "card": asdict(self.card), "signature": self.signature.to_dict()}

    def write_tar(self, out: BinaryIO) -> None:
        """The bundle as an uncompressed tar: the same bundle gives the same bytes."""
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name in [MANIFEST, *sorted(self.files)]:
                info = tarfile.TarInfo(name)
                info.size = (self.folder / name).stat().st_size
                info.mode = 0o644
                with (self.folder / name).open("rb") as file:
                    tar.addfile(info, file)


def check_name(name: str) -> str:
    """`name` when it is one a bundle can have. UsageError otherwise."""
    if not NAME.fullmatch(name) or len(name) > 128:
        plain = slug(name)
        hint = f"For example {plain!r}." if plain else "For example 'iris'."
        raise UsageError(f"{name!r} is no name for a bundle: lower-case letters, digits and single . _ - between them", hint=hint)
    return name


def slug(text: str) -> str:
    """A name for a bundle made of any text: lower-case letters and digits with single dashes; "" where it has none of them."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:128].strip("-")


def write(folder: Path, **about: Any) -> Bundle:
    """Make the bundle of the files that lie in `folder` (model/, golden.json, ...) by writing its manifest there.

    `about` are the fields of `Bundle` but for folder, digest and files.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = {"sha256": _sha256(path), "size": path.stat().st_size}
    check_name(about["name"])
    manifest = Bundle(folder=folder, digest="", files=files, **about).to_dict()
    del manifest["digest"]
    manifest = json.loads(_canonical(manifest))
    digest = "sha256:" + hashlib.sha256(_canonical(manifest)).hexdigest()
    (folder / MANIFEST).write_bytes(_canonical({**manifest, "digest": digest}) + b"\n")
    return open_bundle(folder)


def is_bundle(path: Path) -> bool:
    """Whether `path` looks like a bundle: a folder with a manifest, or a .tar file that begins with one."""
    if path.is_dir():
        return (path / MANIFEST).is_file()
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(512)
    return head[: len(MANIFEST) + 1] == MANIFEST.encode() + b"\0" and head[257:262] == b"ustar"


def open_bundle(path: Path) -> Bundle:
    """The bundle in a folder or .tar file, with every byte checked against its digest.

    A tar is unpacked into a temporary folder that lives as long as the process. BundleError names the file that is wrong.
    """
    if not path.exists():
        raise BundleError(f"{path}: no such bundle", hint=_MAKE)
    if path.is_dir():
        return _verify(path)
    folder = Path(_temporary())
    unpack(path, folder)
    return _verify(folder)


def unpack(tar_path: Path, folder: Path) -> None:
    """Unpack a bundle's tar into the empty `folder`: regular files with plain names only. BundleError otherwise."""
    try:
        left = tar_path.stat().st_size
        with tarfile.open(tar_path, mode="r:") as tar:
            for count, member in enumerate(tar):
                name = PurePosixPath(member.name)
                if member.type != tarfile.REGTYPE or member.issparse() or name.is_absolute() or ".." in name.parts or "\\" in member.name:
                    raise BundleError(f"{tar_path}: {member.name!r} is no plain file inside the bundle", hint=_MAKE)
                left -= member.size
                if count > _MAX_FILES or left < 0:
                    raise BundleError(f"{tar_path} holds more than {_MAX_FILES} files, or more bytes than it has", hint=_MAKE)
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                source = tar.extractfile(member)
                assert source is not None
                with target.open("xb") as out:
                    shutil.copyfileobj(source, out)
    except (tarfile.TarError, OSError, EOFError, ValueError, RecursionError) as error:
        raise BundleError(f"{tar_path} is no bundle: {error}", hint="A bundle is a folder or .tar made by `modelport pack`.") from error


def _verify(folder: Path) -> Bundle:
    path = folder / MANIFEST
    if not path.is_file() or path.is_symlink():
        raise BundleError(f"{folder} is no bundle: it has no {MANIFEST}", hint=_MAKE)
    if path.stat().st_size > _MAX_MANIFEST:
        raise BundleError(f"{path} is larger than {_MAX_MANIFEST} bytes", hint=_MAKE)
    raw = path.read_bytes()
    try:
        manifest = json.loads(raw)
        digest = manifest.pop("digest")
        canonical = _canonical(manifest)
        whole = _canonical({**manifest, "digest": digest}) + b"\n"
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise _changed(path) from error
    if manifest.get("format") != FORMAT:
        raise BundleError(
            f"{path} has format {manifest.get('format')!r}; this Modelport reads format {FORMAT}",
            hint="It was packed by another Modelport: use that one, or pack again with this one.",
        )
    if digest != "sha256:" + hashlib.sha256(canonical).hexdigest() or raw != whole:
        raise _changed(path)
    bundle = _from_manifest(folder, digest, manifest)
    _verify_files(bundle)
    return bundle


def _verify_files(bundle: Bundle) -> None:
    found = set()
    for path in sorted(bundle.folder.rglob("*")):
        name = path.relative_to(bundle.folder).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise BundleError(f"{path} is a link or a special file, which a bundle cannot hold", hint=_AGAIN)
        if path.is_file() and name != MANIFEST:
            found.add(name)
            if name not in bundle.files:
                raise BundleError(f"{path} does not belong to the bundle {bundle.name!r}", hint="Remove it, or pack again.")
    for name, entry in bundle.files.items():
        if name not in found:
            raise BundleError(f"{bundle.folder / name} is missing", hint="Pack again, or fetch the bundle again.")
        path = bundle.folder / name
        if path.stat().st_size != entry["size"] or _sha256(path) != entry["sha256"]:
            raise _changed(path)


def _from_manifest(folder: Path, digest: str, manifest: dict[str, Any]) -> Bundle:
    known = set(Bundle.__dataclass_fields__) - {"folder", "digest"}
    for key in manifest:
        if key != "format" and key not in known:
            raise BundleError(
                f"{folder / MANIFEST} has an unknown key {key!r}{did_you_mean(key, known)}", hint="Pack again with this Modelport."
            )
    try:
        values: dict[str, Any] = {key: manifest[key] for key in manifest if key != "format"}
        for key, kind in _KINDS.items():
            if not isinstance(values[key], kind):
                raise TypeError(f"{key} is {str(values[key])[:60]}")
        for name, entry in values["files"].items():
            if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str) or not isinstance(entry.get("size"), int):
                raise TypeError(f"files has no sha256 and size for {name}")
        check_name(values["name"])
        card: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values["card"].items()}
        values["card"] = Card(**card)
        values["signature"] = Signature.from_dict(values["signature"], str(folder / MANIFEST))
        values["trusted"] = tuple(values["trusted"])
        functions = values.get("functions", {})
        values["functions"] = {
            name: Function(Signature.from_dict(functions[name]["signature"], str(folder / MANIFEST)), functions[name]["description"])
            for name in sorted(functions, key=values["card"].details.get("other_functions", []).index)
        }
        bundle = Bundle(folder=folder, digest=digest, **values)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, ModelportError) as error:
        raise BundleError(f"{folder / MANIFEST} is not a manifest: {error}", hint="Pack again with this Modelport.") from error
    if bundle.model not in bundle.files:
        raise BundleError(f"{folder / MANIFEST} names the model {bundle.model!r}, which is not among its files", hint=_AGAIN)
    return bundle


_KINDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "card": dict,
    "signature": dict,
    "model": str,
    "python": str,
    "created": (str, type(None)),
    "title": str,
    "subtitle": str,
    "description": str,
    "labels": dict,
    "lineage": dict,
    "trusted": list,
    "files": dict,
}
"""What a manifest holds beside format and digest."""


_PARITY: dict[str, type | tuple[type, ...]] = {
    "passed": bool,
    "reason": str,
    "precision": str,
    "rows": int,
    "rows_of_sample": int,
    "flips": int,
    "largest_difference": (int, float, type(None)),
    "relative": bool,
    "tolerance": (int, float),
    "python": str,
    "versions": dict,
}
"""What parity.json holds at least."""


def _changed(path: Path) -> BundleError:
    return BundleError(f"{path} was changed after it was packed", hint=_AGAIN)


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_temporaries: list[tempfile.TemporaryDirectory[str]] = []


def _temporary() -> str:
    _temporaries.append(tempfile.TemporaryDirectory(prefix=f"modelport-{os.getpid()}-"))
    return _temporaries[-1].name

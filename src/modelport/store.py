"""Bundles by name and version, in a folder or at any fsspec URL.

    <store>/iris/versions/3.json              what iris:3 is; written once, and never taken away
    <store>/iris/aliases/production.json      the version that iris@production stands for
    <store>/iris/bundles/3f9c2a...-d41d8c/    the bundle itself; at a URL a .tar instead of a folder

A version exists from the moment its file in `versions` does. That file is made after the bundle, in one step that fails when the file is
there already: so two packs at once get two versions, and a killed one leaves nothing but a bundle that no version names, which a later pack
sweeps away when it is a day old. A removed version leaves its file, saying so, and its number is not given again.

In a folder that step is a hard link; at a URL it is the file system's exclusive create (on S3 a PUT with If-None-Match, see
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast
from uuid import uuid4

from modelport import caches
from modelport.bundle import MANIFEST, NAME, Bundle, open_bundle, unpack
from modelport.errors import BundleError, MissingLibrary, ModelportError, Refused, UnknownReference, UsageError
from modelport.signature import did_you_mean

LATEST = "latest"
ALIAS = re.compile(r"[a-z][a-z0-9]*([._-][a-z0-9]+)*")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_SWEPT_AFTER_S = 24 * 3600.0
_BUNDLE = re.compile(r"[0-9a-f]{16}-[0-9a-f]{12}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOW_TO_PACK = "`modelport pack MODEL --name NAME` puts a model there."
_FORMS = "A reference is iris, iris:3, iris:latest or iris@production. `modelport list` shows what there is."


@dataclass(frozen=True)
class Reference:
    """A reference taken apart: "iris:3", "iris@production"; neither version nor alias is the newest version."""

    name: str
    version: int | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """UnknownReference when `text` does not have the form of a reference."""
        name, mark, rest = text, "", ""
        for sign in (":", "@"):
            if sign in text:
                name, mark, rest = text.partition(sign)
                break
        if not NAME.fullmatch(name) or len(name) > 128:
            raise UnknownReference(f"{text!r} is no reference: {name!r} is no bundle's name", hint=_FORMS)
        if not mark or (mark == ":" and rest == LATEST):
            return cls(name)
        if mark == ":" and _VERSION.fullmatch(rest):
            return cls(name, version=int(rest))
        if mark == "@" and is_alias(rest):
            return cls(name, alias=rest)
        wrong = f"{rest!r} is no alias" if mark == "@" else f"{rest!r} is no version"
        hint = f"An alias is written with @: {name}@{rest}" if mark == ":" and is_alias(rest) else _FORMS
        raise UnknownReference(f"{text!r} is no reference: {wrong}", hint=hint)


@dataclass(frozen=True)
class Entry:
    """One version in a store."""

    name: str
    version: int
    digest: str
    """"sha256:" and 64 hexadecimal digits: that of the bundle."""
    added: str
    """UTC, ISO 8601."""
    size: int
    """Bytes of the bundle's files."""
    framework: str
    cls: str
    """The model's class, as "module.Name"."""
    aliases: tuple[str, ...] = ()

    @property
    def ref(self) -> str:
        return f"{self.name}:{self.version}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Store:
    """The store at `url`: a folder or an fsspec URL such as s3://bucket/models. By default MODELPORT_STORE, else ~/.modelport.

        store = Store()
        entry, bundle = store.get("iris@production")

    Raises MissingLibrary when the URL needs a library that is not installed.
    """

    def __init__(self, url: str | os.PathLike[str] | None = None) -> None:
        self.url = os.fspath(url) if url is not None else os.environ.get("MODELPORT_STORE") or str(Path.home() / ".modelport")
        scheme, separator, rest = self.url.partition("://")
        self._place: _Place = _Folder(Path(rest if separator else self.url)) if not separator or scheme == "file" else _Remote(self.url)

    def add(self, bundle: Bundle) -> Entry:
        """Put a copy of the bundle into the store, as the next version of its name."""
        with self._told("write to"):
            self._sweep(bundle.name)
            stored = f"{bundle.digest.removeprefix('sha256:')[:16]}-{uuid4().hex[:12]}"
            self._place.put(f"{bundle.name}/bundles", stored, bundle)
            version = max(self._versions(bundle.name), default=0)
            while True:
                version += 1
                entry = Entry(bundle.name, version, bundle.digest, _now(), bundle.size, bundle.card.framework, bundle.card.cls)
                raw = {**entry.to_dict(), "bundle": stored}
                del raw["aliases"]
                if self._place.create(f"{bundle.name}/versions/{version}.json", _encode(raw)):
                    return entry

    def get(self, ref: str) -> tuple[Entry, Bundle]:
        """The version that `ref` names, and its bundle, of which every byte was checked.

        Out of a folder it is opened where it lies; out of a URL it is fetched once into a cache by its digest. UnknownReference names what
        there is; BundleError names the file that was changed.
        """
        with self._told("read"):
            entry, stored = self._resolve(Reference.parse(ref))
            bundle = self._place.open(f"{entry.name}/bundles", stored, entry.digest)
        if bundle.digest != entry.digest or bundle.name != entry.name:
            raise BundleError(
                f"{bundle.folder} is not what {entry.ref} was: its digest is {bundle.digest}, not {entry.digest}",
                hint=f"It was replaced by hand. `modelport remove {entry.ref}`, and pack again.",
            )
        return entry, bundle

    def entry(self, ref: str) -> Entry:
        """The version that `ref` names, without opening its bundle. UnknownReference names what there is."""
        with self._told("read"):
            return self._resolve(Reference.parse(ref))[0]

    def entries(self, name: str | None = None) -> list[Entry]:
        """All versions by name and number, or those of one name. UnknownReference when there is no such name."""
        with self._told("read"):
            if name is None:
                return [entry for each in self._names() for entry in self._live(each)]
            reference = Reference.parse(name)
            found = self._live(reference.name)
            if not found:
                raise self._unknown(reference)
            return found

    def alias(self, ref: str, alias: str) -> Entry:
        """Let name@alias stand for the version that `ref` names, from one moment to the next. UsageError when it is no word for one."""
        if not is_alias(alias):
            raise UsageError(
                f"{alias!r} is no alias: lower-case letters, digits and single . _ - between them, beginning with a letter, not {LATEST!r}",
                hint="For example: production, staging, champion.",
            )
        with self._told("write to"):
            entry, _ = self._resolve(Reference.parse(ref))
            self._place.replace(f"{entry.name}/aliases/{alias}.json", _encode({"version": entry.version}))
            return self._resolve(Reference(entry.name, version=entry.version))[0]

    def unalias(self, ref: str) -> Entry:
        """Take the alias of `ref` ("iris@production") away; its version stays. UnknownReference when there is no such alias."""
        reference = Reference.parse(ref)
        if reference.alias is None:
            raise UsageError(f"{ref!r} names no alias", hint=f"For example {reference.name}@production.")
        with self._told("write to"):
            entry, _ = self._resolve(reference)
            self._place.delete(f"{entry.name}/aliases/{reference.alias}.json")
            return self._resolve(Reference(entry.name, version=entry.version))[0]

    def remove(self, ref: str, *, force: bool = False) -> Entry:
        """Take one version out of the store, and its aliases when `force` says so; what it was.

        Refused when an alias stands for it and `force` does not say so. The number is not given again.
        """
        if ":" not in ref and "@" not in ref:
            found = self.entries(ref)
            raise UsageError(
                f"which version of {ref!r}? It has {_listed([entry.version for entry in found])}", hint=f"For example {found[0].ref}."
            )
        with self._told("write to"):
            entry, stored = self._resolve(Reference.parse(ref))
            if entry.aliases and not force:
                raise Refused(
                    f"{entry.ref} is {' and '.join(f'{entry.name}@{alias}' for alias in entry.aliases)}",
                    hint="Move the alias to another version first, or remove both with --force.",
                )
            for alias in entry.aliases:
                self._place.delete(f"{entry.name}/aliases/{alias}.json")
            self._place.replace(f"{entry.name}/versions/{entry.version}.json", _encode({"version": entry.version, "removed": _now()}))
            self._place.discard(f"{entry.name}/bundles", stored)
            return entry

    def _resolve(self, reference: Reference) -> tuple[Entry, str]:
        """The entry, and the name under which its bundle is stored. UnknownReference when there is none."""
        aliases = self._aliases(reference.name)
        versions: Iterable[int] = reversed(self._versions(reference.name))
        if reference.alias is not None:
            versions = [aliases[reference.alias]] if reference.alias in aliases else []
        elif reference.version is not None:
            versions = [reference.version]
        raw = None
        for version in versions:
            raw = self._json(f"{reference.name}/versions/{version}.json")
            if raw is not None and "removed" not in raw:
                return _entry(raw, aliases), raw["bundle"]
        raise self._unknown(reference, raw)

    def _unknown(self, reference: Reference, raw: Mapping[str, Any] | None = None) -> UnknownReference:
        """Why `reference` led nowhere, and what there is instead; `raw` is what is left of a removed version."""
        name, names, live = reference.name, self._names(), self._live(reference.name)
        if not live:
            near = did_you_mean(name, [other for other in names if other != name])
            message = f"{name!r} has no versions any more" if name in names else f"there is no {name!r} in {self.url}{near}"
            others = [other for other in names if other != name]
            return UnknownReference(message, hint=f"There is {', '.join(others[:8])}." if others else _HOW_TO_PACK)
        has = f"{name!r} has {_listed([entry.version for entry in live])}"
        if reference.alias is None:
            removed = f": it was removed on {raw['removed'][:10]}" if raw is not None else ""
            return UnknownReference(f"there is no {name}:{reference.version}{removed}", hint=f"{has}.")
        known = sorted({alias for entry in live for alias in entry.aliases})
        message = f"{name!r} has no alias {reference.alias!r}{did_you_mean(reference.alias, known)}"
        if raw is not None:
            message = f"{name}@{reference.alias} stands for {name}:{raw['version']}, which was removed"
        return UnknownReference(message, hint=f"{has} and {'the aliases ' + ', '.join(known) if known else 'no aliases'}.")

    def _names(self) -> list[str]:
        return sorted(name for name in self._place.folders("") if NAME.fullmatch(name))

    def _versions(self, name: str) -> list[int]:
        """Every number that was ever given, also of removed versions."""
        stems = [file.removesuffix(".json") for file in self._place.files(f"{name}/versions") if file.endswith(".json")]
        return sorted(int(stem) for stem in stems if _VERSION.fullmatch(stem))

    def _live(self, name: str) -> list[Entry]:
        aliases = self._aliases(name)
        raws = self._all(f"{name}/versions").values()
        return sorted((_entry(raw, aliases) for raw in raws if "removed" not in raw), key=lambda entry: entry.version)

    def _aliases(self, name: str) -> dict[str, int]:
        return {alias: raw["version"] for alias, raw in self._all(f"{name}/aliases").items() if is_alias(alias)}

    def _all(self, path: str) -> dict[str, dict[str, Any]]:
        contents = self._place.read_all(path)
        return {file.removesuffix(".json"): self._parsed(f"{path}/{file}", content) for file, content in contents.items()}

    def _json(self, path: str) -> dict[str, Any] | None:
        content = self._place.read(path)
        return None if content is None else self._parsed(path, content)

    def _parsed(self, path: str, content: bytes) -> dict[str, Any]:
        try:
            raw = json.loads(content)
            whole = isinstance(raw["version"], int) and ("/aliases/" in path or "removed" in raw or _is_stored(raw))
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise BundleError(f"{self.url}/{path} was changed: it does not read", hint="Remove that file, or put it back from a copy.")
        return cast("dict[str, Any]", raw)

    def _sweep(self, name: str) -> None:
        """Take away what killed packs left of `name` a day ago or before."""
        stored = self._place.stored(f"{name}/bundles")
        named = {raw.get("bundle") for raw in self._all(f"{name}/versions").values()} if stored else set()
        for leftover in stored:
            if leftover not in named and self._place.age_s(f"{name}/bundles", leftover) >= _SWEPT_AFTER_S:
                self._place.discard(f"{name}/bundles", leftover)

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        """Turn what the file system, or the library of a remote one, raises into one line that names the store."""
        try:
            yield
        except ModelportError:
            raise
        except Exception as error:
            if not isinstance(error, OSError) and type(error).__module__ == "builtins":
                raise
            raise ModelportError(
                f"cannot {doing} the store {self.url}: {getattr(error, 'strerror', None) or error}",
                hint="MODELPORT_STORE names the store: a folder that you can write to, or a URL and its credentials.",
            ) from error


def laid_out(bundle: Bundle, version: int) -> dict[str, Path | bytes]:
    """The files of a store that holds this one version, by their paths in it. There is no clock in them."""
    digest = bundle.digest.removeprefix("sha256:")
    stored = f"{digest[:16]}-{digest[16:28]}"
    entry = Entry(bundle.name, version, bundle.digest, bundle.created or "", bundle.size, bundle.card.framework, bundle.card.cls)
    raw = {**entry.to_dict(), "bundle": stored}
    del raw["aliases"]
    placed: dict[str, Path | bytes] = {f"{bundle.name}/bundles/{stored}/{name}": bundle.folder / name for name in (MANIFEST, *bundle.files)}
    return {**placed, f"{bundle.name}/versions/{version}.json": _encode(raw)}


def is_alias(text: str) -> bool:
    """Whether `text` can be an alias: a word that is no version."""
    return text != LATEST and len(text) <= 64 and ALIAS.fullmatch(text) is not None


class _Place(Protocol):
    """A folder or a bucket, as far as a store needs one. Paths are relative, with /."""

    def folders(self, path: str) -> list[str]: ...

    def files(self, path: str) -> list[str]: ...

    def read(self, path: str) -> bytes | None: ...

    def read_all(self, path: str) -> dict[str, bytes]:
        """The .json files of a folder by name."""
        ...

    def create(self, path: str, content: bytes) -> bool:
        """Make a file in one step; False when there is one."""
        ...

    def replace(self, path: str, content: bytes) -> None:
        """Make or exchange a file in one step."""
        ...

    def delete(self, path: str) -> None: ...

    def put(self, path: str, name: str, bundle: Bundle) -> None:
        """A copy of the bundle, stored as `name`."""
        ...

    def open(self, path: str, name: str, digest: str) -> Bundle: ...

    def discard(self, path: str, name: str) -> None: ...

    def stored(self, path: str) -> list[str]:
        """The names under which bundles, whole or not, are stored there."""
        ...

    def age_s(self, path: str, name: str) -> float:
        """How long ago a stored bundle was last written to."""
        ...


class _Folder:
    """A place on a local file system."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()

    def folders(self, path: str) -> list[str]:
        return [each.name for each in self._in(path) if each.is_dir()]

    def files(self, path: str) -> list[str]:
        return [each.name for each in self._in(path) if each.is_file()]

    def read(self, path: str) -> bytes | None:
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            return None

    def read_all(self, path: str) -> dict[str, bytes]:
        return {each.name: each.read_bytes() for each in self._in(path) if each.suffix == ".json"}

    def create(self, path: str, content: bytes) -> bool:
        with self._written(path, content) as partial:
            try:
                os.link(partial, self.root / path)
            except FileExistsError:
                return False
            return True

    def replace(self, path: str, content: bytes) -> None:
        with self._written(path, content) as partial:
            partial.replace(self.root / path)

    def delete(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def put(self, path: str, name: str, bundle: Bundle) -> None:
        folder = self.root / path / name
        try:
            for file in chain(bundle.files, [MANIFEST]):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle.folder / file, folder / file)
            open_bundle(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def open(self, path: str, name: str, digest: str) -> Bundle:
        return open_bundle(self.root / path / name)

    def discard(self, path: str, name: str) -> None:
        shutil.rmtree(self.root / path / name)

    def stored(self, path: str) -> list[str]:
        return self.folders(path)

    def age_s(self, path: str, name: str) -> float:
        folder = self.root / path / name
        return time.time() - max(each.stat().st_mtime for each in (folder, *folder.rglob("*")))

    def _in(self, path: str) -> list[Path]:
        try:
            return sorted(each for each in (self.root / path).iterdir() if not each.name.startswith("."))
        except FileNotFoundError:
            return []

    @contextmanager
    def _written(self, path: str, content: bytes) -> Iterator[Path]:
        """`content` in a file beside `path`, under a name that nobody looks for."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=".", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(partial).chmod(0o644)
            yield Path(partial)
        finally:
            Path(partial).unlink(missing_ok=True)


class _Remote:
    """A place at an fsspec URL. Bundles are tars there, fetched into a local cache."""

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self.fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            scheme = url.partition("://")[0]
            extra = "pip install 'modelport[s3]'" if scheme in ("s3", "s3a") else f"pip install 'fsspec[{scheme}]'"
            raise MissingLibrary(f"the store {url} needs a library that is not installed: {error}", hint=extra) from error
        except ValueError as error:
            raise UsageError(
                f"the store {url} is no URL that can be read: {error}", hint="A folder, or for example s3://bucket/models."
            ) from error
        self.root = root.rstrip("/")

    def folders(self, path: str) -> list[str]:
        return [each["name"].rstrip("/").rpartition("/")[2] for each in self._in(path) if each["type"] == "directory"]

    def files(self, path: str) -> list[str]:
        return [each["name"].rpartition("/")[2] for each in self._in(path) if each["type"] == "file"]

    def read(self, path: str) -> bytes | None:
        try:
            return cast("bytes", self.fs.cat_file(self._at(path)))
        except FileNotFoundError:
            return None

    def read_all(self, path: str) -> dict[str, bytes]:
        paths = [self._at(f"{path}/{name}") for name in self.files(path) if name.endswith(".json")]
        contents = self.fs.cat(paths, on_error="omit") if paths else {}
        return {found.rpartition("/")[2]: content for found, content in contents.items()}

    def create(self, path: str, content: bytes) -> bool:
        try:
            self.fs.pipe_file(self._at(path), content, mode="create")
        except FileExistsError:
            return False
        return True

    def replace(self, path: str, content: bytes) -> None:
        self.fs.pipe_file(self._at(path), content)

    def delete(self, path: str) -> None:
        if self.fs.exists(self._at(path)):
            self.fs.rm_file(self._at(path))

    def put(self, path: str, name: str, bundle: Bundle) -> None:
        with self.fs.open(self._at(f"{path}/{name}.tar"), "wb") as out:
            bundle.write_tar(cast("BinaryIO", out))

    def open(self, path: str, name: str, digest: str) -> Bundle:
        cached = caches.root() / "fetched" / digest.removeprefix("sha256:")
        if cached.is_dir():
            try:
                return open_bundle(cached)
            except BundleError:
                shutil.rmtree(cached)  # the cache is ours to repair: fetch it again
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=cached.parent) as work:
            tar, folder = Path(work, "bundle.tar"), Path(work, "bundle")
            try:
                self.fs.get_file(self._at(f"{path}/{name}.tar"), str(tar))
            except FileNotFoundError as error:
                raise BundleError(f"{self._at(path)}/{name}.tar is missing", hint="Pack again.") from error
            folder.mkdir()
            unpack(tar, folder)
            try:
                bundle = open_bundle(folder)
            except BundleError as error:
                wrong = error.message.replace(f"{folder}{os.sep}", f"{self._at(path)}/{name}.tar: ")
                raise BundleError(wrong, hint=error.hint) from error
            if bundle.digest != digest:
                return bundle  # `Store.get` says what is wrong; it stays out of the cache
            try:
                folder.rename(cached)
            except OSError:
                if not cached.is_dir():  # else another process fetched the same just now
                    raise
        return replace(bundle, folder=cached)

    def discard(self, path: str, name: str) -> None:
        self.delete(f"{path}/{name}.tar")

    def stored(self, path: str) -> list[str]:
        return [name.removesuffix(".tar") for name in self.files(path) if name.endswith(".tar")]

    def age_s(self, path: str, name: str) -> float:
        written: datetime = self.fs.modified(self._at(f"{path}/{name}.tar"))
        return (datetime.now(UTC) - written).total_seconds()

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def _in(self, path: str) -> list[dict[str, Any]]:
        try:
            return cast("list[dict[str, Any]]", self.fs.ls(self._at(path), detail=True))
        except FileNotFoundError:
            return []


def _entry(raw: Mapping[str, Any], aliases: Mapping[str, int]) -> Entry:
    values = {key: raw[key] for key in Entry.__dataclass_fields__ if key != "aliases"}
    return Entry(**values, aliases=tuple(sorted(alias for alias, version in aliases.items() if version == raw["version"])))


def _is_stored(raw: Mapping[str, Any]) -> bool:
    """Whether an entry is whole; its digest and its bundle's name become paths."""
    texts = all(isinstance(raw[key], str) for key in ("name", "added", "framework", "cls")) and isinstance(raw["size"], int)
    return texts and _DIGEST.fullmatch(raw["digest"]) is not None and _BUNDLE.fullmatch(raw["bundle"]) is not None


def _listed(versions: list[int]) -> str:
    shown = ", ".join(map(str, versions[-20:]))
    return f"version {shown}" if len(versions) == 1 else f"versions {'..., ' if len(versions) > 20 else ''}{shown}"


def _encode(raw: Mapping[str, Any]) -> bytes:
    return json.dumps(raw, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

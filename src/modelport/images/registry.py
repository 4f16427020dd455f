"""A client of image registries, after the OCI distribution specification.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md, and for Bearer tokens https://distribution.github.io/distribution/spec/auth/token/

Credentials go to the registry, and to the token server that it names over TLS, and nowhere else: where it redirects to storage elsewhere,
they stay behind. All that comes in is checked against its digest.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedRandom, BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias
from urllib.parse import urlsplit

import httpx

from modelport.errors import RegistryError
from modelport.images import credentials
from modelport.images.credentials import Credentials
from modelport.images.manifests import ACCEPTED, DOCKER_INDEX, OCI_INDEX, Descriptor, digest_of, for_platform
from modelport.images.names import DOCKER_HUB, Name, is_loopback

CHUNK_BYTES = 64 * 2**20
"""The most that one request uploads: what stands before a registry may bound its bodies."""
_READ_BYTES = 256 * 1024
_PAUSES_S = (0.2, 0.5, 1.0, 2.0)
_LONGEST_PAUSE_S = 30.0
_REDIRECTS = 5
_LARGEST_ANSWER = 16 * 2**20
_TIMEOUT = httpx.Timeout(30.0, read=120.0)
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})

Told: TypeAlias = Callable[[int], None]
"""Hears how many more bytes were sent or received; fewer where some must be sent again."""


class UnknownImage(RegistryError):
    """There is no such manifest or blob."""


class Unreachable(RegistryError):
    """Nobody answers there."""


class NotTaken(RegistryError):
    """The registry does not take manifests of this kind."""


@dataclass(frozen=True)
class Manifest:
    """A manifest as a registry has it, byte for byte."""

    media_type: str
    content: bytes
    digest: str

    def parsed(self) -> dict[str, Any]:
        """RegistryError when it is no JSON object."""
        try:
            value = json.loads(self.content)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise RegistryError(f"the manifest {self.digest} is no JSON object")
        return value


class Registry:
    """A connection to one registry, by host or host:port; used with `with`.

    `find` gives its credentials, `sleep` waits between tries.
    """

    def __init__(
        self,
        host: str,
        find: Callable[[str], Credentials | None] = credentials.find,
        sleep: Callable[[float], None] = time.sleep,
        chunk_bytes: int = CHUNK_BYTES,
        mirror: str = "",
    ) -> None:
        self.host = host
        self._find = find
        self._sleep = sleep
        self._chunk_bytes = chunk_bytes
        address = mirror or ("registry-1.docker.io" if host == DOCKER_HUB else host)
        scheme = "http" if is_loopback(address) else "https"
        self._root = address if "://" in address else f"{scheme}://{address}"
        self._client = httpx.Client(timeout=_TIMEOUT, trust_env=not is_loopback(urlsplit(self._root).netloc))
        self._found: list[Credentials | None] = []
        self._headers: dict[str, str] = {}
        """The Authorization that was accepted last, by scope."""

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def digest(self, name: Name) -> str:
        """The digest of what `name` stands for now. UnknownImage when there is no such image."""
        if name.digest:
            return name.digest
        answer = self._ask("HEAD", f"/v2/{name.repository}/manifests/{name.manifest}", _pull(name.repository), headers=_ACCEPT)
        return answer.headers.get("Docker-Content-Digest") or self.manifest(name).digest

    def manifest(self, name: Name) -> Manifest:
        """The manifest or index of that name, checked against the digest in the name and the one that the registry says."""
        path = f"/v2/{name.repository}/manifests/{name.manifest}"
        for last in (False, True):
            answer = self._ask("GET", path, _pull(name.repository), headers=_ACCEPT)
            digest = digest_of(answer.content)
            said = name.digest or answer.headers.get("Docker-Content-Digest") or digest
            if digest == said:
                return Manifest(answer.headers.get("Content-Type", "").partition(";")[0].strip(), answer.content, digest)
            if last:
                raise RegistryError(f"{self.host} gave a manifest for {name} whose digest is {digest}, and should be {said}", hint=_DAMAGED)
        raise AssertionError("the last try returns or raises")

    def image(self, name: Name, architecture: str) -> Manifest:
        """The manifest of the image for linux on an architecture: the one of that name, or out of the index of that name."""
        found = self.manifest(name)
        if found.media_type not in (DOCKER_INDEX, OCI_INDEX):
            return found
        chosen = for_platform(found.parsed(), architecture, str(name))
        return self.manifest(Name(name.registry, name.repository, digest=chosen.digest))

    def fetch(self, repository: str, blob: Descriptor, target: Path, told: Told = lambda count: None) -> None:
        """A blob into the file `target`, which appears whole or not at all.

        What arrived before a connection broke, or this process was killed, is kept for the next try.
        """
        partial = target.with_name(f".{target.name}.partial")
        with partial.open("a+b") as out:
            fcntl.flock(out, fcntl.LOCK_EX)
            if target.exists():  # another process has fetched it while this one waited
                told(blob.size)
                return
            for pause in (*_PAUSES_S, None):
                wrong = self._receive(repository, blob, out, told)
                if not wrong:
                    partial.replace(target)
                    return
                if pause is not None:
                    self._sleep(pause)
        raise RegistryError(f"{self.host} gave a blob for {blob.digest} {wrong}", hint=_DAMAGED)

    def _receive(self, repository: str, blob: Descriptor, out: BufferedRandom, told: Told) -> str:
        """Read on into `out` until it is the blob; what was wrong otherwise. What cannot be gone on from is thrown away."""
        have = out.seek(0, os.SEEK_END)
        if have >= blob.size:  # then nothing is left to ask for
            have = out.truncate(0)
        headers = {"Range": f"bytes={have}-"} if have else {}
        told(have)
        try:
            with self._open("GET", f"/v2/{repository}/blobs/{blob.digest}", _pull(repository), headers) as answer:
                if answer.status_code not in (200, 206):
                    answer.read()  # what it says of it
                if answer.status_code in _AGAIN:
                    told(-have)
                    return f"with {self._complaint(answer)}"
                self._check(answer, (200, 206))
                if answer.status_code != 206:
                    told(-have)
                    out.truncate(0)
                for part in answer.iter_raw():
                    out.write(part)
                    told(len(part))
                    if out.tell() > blob.size:
                        break
        except httpx.TransportError as error:
            out.flush()
            told(-out.tell())
            return f"and the connection broke: {_said(error)}"
        out.flush()
        out.seek(0)
        digest = "sha256:" + hashlib.file_digest(out, "sha256").hexdigest()
        if digest == blob.digest:
            return ""
        have = out.tell()
        told(-have)
        if have < blob.size:
            return f"that ends after {have:,} of {blob.size:,} bytes"
        out.truncate(0)
        return f"whose digest is {digest}"

    def read(self, repository: str, blob: Descriptor) -> bytes:
        """A small blob. RegistryError when it is not what its digest says."""
        answer = self._ask("GET", f"/v2/{repository}/blobs/{blob.digest}", _pull(repository))
        if digest_of(answer.content) != blob.digest:
            raise RegistryError(f"{self.host} gave a blob for {blob.digest} whose digest is {digest_of(answer.content)}", hint=_DAMAGED)
        return answer.content

    def has(self, repository: str, digest: str) -> bool:
        """Whether the registry has a blob in that repository already."""
        try:
            self._ask("HEAD", f"/v2/{repository}/blobs/{digest}", _push(repository))
        except UnknownImage:
            return False
        return True

    def mount(self, repository: str, digest: str, source: str) -> bool:
        """Let `repository` have a blob that the repository `source` of the same registry has; False where that is not possible."""
        path = f"/v2/{repository}/blobs/uploads/?mount={digest}&from={source}"
        for scope in (f"{_push(repository)} {_pull(source)}", _push(repository)):
            try:
                return self._ask("POST", path, scope, allowed=(201, 202)).status_code == 201
            except RegistryError:
                continue
        return False

    def upload(self, repository: str, blob: Descriptor, source: Path | bytes, told: Told = lambda count: None) -> None:
        """Send a blob, in parts; after a broken connection it goes on where the registry has got to."""
        begin, scope = f"/v2/{repository}/blobs/uploads/", _push(repository)
        where, sent, reported = self._begun(begin, scope), 0, [0]

        def count(more: int) -> None:
            reported[0] += more
            told(more)

        with BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            for pause in (*_PAUSES_S, None):
                try:
                    while sent < blob.size:
                        end = min(sent + self._chunk_bytes, blob.size)
                        where = self._patch(where, scope, _Slice(file, sent, end, count))
                        sent = end
                    self._finish(where, scope, blob)
                except (httpx.TransportError, _Broken) as error:
                    if pause is None:
                        reason = str(error) if isinstance(error, _Broken) else f"the connection broke: {_said(error)}"
                        raise RegistryError(f"{self.host} did not take {_mb(blob.size)} of {repository}: {reason}", hint=_LATER) from error
                else:
                    return
                self._sleep(pause)
                if self.has(repository, blob.digest):
                    count(blob.size - reported[0])
                    return
                where, sent = self._progress(begin, where, scope)
                count(sent - reported[0])

    def put(self, name: Name, manifest: Manifest) -> None:
        """Give a manifest that name. NotTaken when the registry does not take manifests of its kind."""
        path = f"/v2/{name.repository}/manifests/{name.manifest}"
        answer = self._try("PUT", path, _push(name.repository), {"Content-Type": manifest.media_type}, manifest.content)
        if answer.status_code in (400, 404, 405, 406, 415):
            code = _code(answer)
            if code in ("MANIFEST_INVALID", "UNSUPPORTED", "TAG_INVALID", "") or answer.status_code in (405, 406, 415):
                raise NotTaken(f"{self.host} does not take {manifest.media_type}: {self._complaint(answer)}", hint="--format says which.")
        self._check(answer, (201, 202))
        stored = answer.headers.get("Docker-Content-Digest", manifest.digest)
        if stored != manifest.digest:
            raise RegistryError(f"{self.host} stored the manifest of {name} as {stored}, and it is {manifest.digest}", hint=_DAMAGED)

    # An upload

    def _begun(self, begin: str, scope: str) -> str:
        return self._location(self._ask("POST", begin, scope, headers={"Content-Length": "0"}, allowed=(202,)), begin)

    def _patch(self, where: str, scope: str, part: _Slice) -> str:
        """Send a part; where the next goes."""
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{part.start}-{part.end - 1}"}
        answer = self._once("PATCH", where, scope, {**headers, "Content-Length": str(part.end - part.start)}, part)
        if answer.status_code in _AGAIN or answer.status_code in (404, 416):
            raise _Broken(self._complaint(answer))
        self._check(answer, (202,))
        return self._location(answer, where)

    def _finish(self, where: str, scope: str, blob: Descriptor) -> None:
        joined = f"{where}{'&' if '?' in where else '?'}digest={blob.digest}"
        answer = self._once("PUT", joined, scope, {"Content-Type": "application/octet-stream", "Content-Length": "0"}, b"")
        if answer.status_code in _AGAIN or answer.status_code == 404:
            raise _Broken(self._complaint(answer))
        self._check(answer, (201, 204))
        stored = answer.headers.get("Docker-Content-Digest", blob.digest)
        if stored != blob.digest:
            raise RegistryError(f"{self.host} stored {blob.digest} as {stored}", hint=_DAMAGED)

    def _progress(self, begin: str, where: str, scope: str) -> tuple[str, int]:
        """Where an upload goes on, and how many bytes of it have arrived; a new one where the registry has lost it."""
        try:
            answer = self._try("GET", where, scope, {}, b"")
            match = re.fullmatch(r"(?:bytes=)?0-([0-9]+)", answer.headers.get("Range", ""))
            if answer.status_code == 204 and match:
                # a registry with nothing yet says 0-0, which would also be one byte: that one is sent again
                arrived = int(match[1]) + 1 if int(match[1]) else 0
                if arrived:
                    return self._location(answer, where), arrived
        except RegistryError:
            pass
        return self._begun(begin, scope), 0

    def _location(self, answer: httpx.Response, before: str) -> str:
        location = answer.headers.get("Location")
        if not location:
            raise RegistryError(f"{self.host} began an upload and did not say where it goes on")
        return str(self._redirected(httpx.URL(self._absolute(before)), location))

    # A request

    def _ask(
        self, method: str, path: str, scope: str, headers: Mapping[str, str] | None = None, allowed: tuple[int, ...] = (200,)
    ) -> httpx.Response:
        """The answer to a request without a body, when it is one of the `allowed`."""
        answer = self._try(method, path, scope, headers or {}, b"")
        self._check(answer, allowed)
        return answer

    def _try(self, method: str, where: str, scope: str, headers: Mapping[str, str], content: bytes) -> httpx.Response:
        """The answer, asked for again where the connection broke or the registry is out of order for a moment."""
        for pause in (*_PAUSES_S, None):
            try:
                answer = self._once(method, where, scope, headers, content)
            except httpx.TransportError as error:
                if pause is None:
                    raise Unreachable(f"{self._root} does not answer: {_said(error)}", hint=_REACH) from error
            else:
                if answer.status_code not in _AGAIN or pause is None:
                    return answer
                pause = max(pause, _retry_after(answer))
            self._sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _once(self, method: str, where: str, scope: str, headers: Mapping[str, str], content: bytes | _Slice) -> httpx.Response:
        """One answer, read whole; asked for twice where credentials are wanted."""
        with self._open(method, where, scope, headers, content) as answer:
            whole = b""
            for part in answer.iter_bytes(_READ_BYTES):
                whole += part
                if len(whole) > _LARGEST_ANSWER:
                    raise RegistryError(f"{self.host} answers {method} {where} with more than {_LARGEST_ANSWER:,} bytes")
            kept = {name: value for name, value in answer.headers.items() if name not in ("content-encoding", "transfer-encoding")}
            return httpx.Response(answer.status_code, headers=kept, content=whole, request=answer.request)

    @contextmanager
    def _open(
        self, method: str, where: str, scope: str, headers: Mapping[str, str], content: bytes | _Slice = b""
    ) -> Iterator[httpx.Response]:
        """An answer that is still to be read, after credentials and redirects."""
        url = httpx.URL(self._absolute(where))
        challenged = False
        for _ in range(_REDIRECTS + 2):
            mine = self._is_mine(url)
            authorization = self._headers.get(scope) if mine else None
            sent = {**headers, **({"Authorization": authorization} if authorization else {})}
            with self._client.stream(method, url, headers=sent, content=content or None) as answer:
                if answer.status_code == 401 and mine and not challenged:
                    challenged = True
                    self._headers[scope] = self._authorized(answer.headers.get_list("WWW-Authenticate"), scope)
                    continue
                if answer.has_redirect_location and method in ("GET", "HEAD"):
                    url = self._redirected(url, answer.headers["Location"])
                    continue
                yield answer
                return
        raise RegistryError(f"{self.host} redirects more than {_REDIRECTS} times for {where}")

    def _absolute(self, where: str) -> str:
        return where if "://" in where else self._root + where

    def _is_mine(self, url: httpx.URL) -> bool:
        """Whether a request goes to the registry itself, which alone gets the credentials."""
        root = httpx.URL(self._root)
        return (url.scheme, url.host, url.port) == (root.scheme, root.host, root.port)

    def _redirected(self, before: httpx.URL, location: str) -> httpx.URL:
        url = before.join(location)
        if url.scheme not in ("http", "https") or (before.scheme == "https" and url.scheme == "http"):
            raise RegistryError(f"{self.host} redirects from {before.scheme} to {url.scheme}://{url.host}, which is not followed")
        return url

    # Credentials

    def _authorized(self, challenges: list[str], scope: str) -> str:
        """What the Authorization header must say to answer a challenge."""
        kinds = {kind.lower(): parameters for kind, parameters in map(_challenge, challenges)}
        known = self._credentials()
        if "bearer" in kinds:
            return f"Bearer {self._token(kinds['bearer'], scope, known)}"
        if "basic" in kinds:
            if known is None:
                raise RegistryError(f"{self.host} asks for credentials, and there are none for it", hint=f"docker login {self.host}")
            if known.is_token:
                raise RegistryError(f"{self.host} asks for a password, and {known.where} keeps a token", hint=f"docker login {self.host}")
            return known.basic()
        raise RegistryError(f"{self.host} asks for credentials of a kind that is not known: {', '.join(kinds) or 'none'}")

    def _credentials(self) -> Credentials | None:
        if not self._found:
            self._found.append(self._find(self.host))
        return self._found[0]

    def _token(self, challenge: Mapping[str, str], scope: str, known: Credentials | None) -> str:
        realm = challenge.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme not in ("http", "https") or (parts.scheme == "http" and not is_loopback(parts.netloc)):
            raise RegistryError(f"{self.host} names {realm!r} as its token server, which is not reached over TLS")
        asked = {"service": challenge.get("service") or self.host, "scope": scope.split(" ")}
        try:
            if known is not None and known.is_token:
                form = {"grant_type": "refresh_token", "service": asked["service"], "client_id": "modelport", "scope": scope}
                answer = self._client.post(realm, data={**form, "refresh_token": known.secret})
            else:
                answer = self._client.get(realm, params=asked, headers={"Authorization": known.basic()} if known else {})
        except httpx.TransportError as error:
            raise Unreachable(f"the token server {parts.netloc} of {self.host} does not answer: {_said(error)}", hint=_REACH) from error
        if answer.status_code != 200:
            raise self._refused(answer, known)
        try:
            value = answer.json()
            token = value.get("token") or value["access_token"]
        except (ValueError, KeyError, AttributeError):
            token = None
        if not isinstance(token, str):
            raise RegistryError(f"the token server {parts.netloc} of {self.host} gave no token")
        return token

    def _refused(self, answer: httpx.Response, known: Credentials | None) -> RegistryError:
        hint = f"docker login {self.host}"
        if known is None:
            return RegistryError(f"{self.host} wants to know who asks, and there are no credentials for it", hint=hint)
        who = f"the credentials of {known.username!r}" if not known.is_token else "the token"
        return RegistryError(f"{self.host} refuses {who} in {known.where}: {self._complaint(answer)}", hint=hint)

    # What comes of it

    def _check(self, answer: httpx.Response, allowed: tuple[int, ...]) -> None:
        if answer.status_code in allowed:
            return
        if answer.status_code in (401, 403):
            raise self._refused(answer, self._credentials())
        if answer.status_code == 404:
            raise UnknownImage(f"{self.host} has no {_path_of(answer)}: {self._complaint(answer)}", hint="Is the name right?")
        raise RegistryError(
            f"{self.host} answers {answer.request.method} {_path_of(answer)} with {self._complaint(answer)}",
            hint=_LATER if answer.status_code in _AGAIN else "",
        )

    def _complaint(self, answer: httpx.Response) -> str:
        """The status, and what the registry says of it, in one line."""
        try:
            first = answer.json()["errors"][0]
            detail = first.get("detail")
            number = detail.get("Enclosed", {}).get("Err") if isinstance(detail, dict) else None
            if isinstance(number, int):  # Docker's own registry gives the number that its file system gave it
                detail = os.strerror(number)
            said = " ".join(str(part) for part in (first.get("code"), first.get("message"), detail) if part)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            said = answer.text if answer.headers.get("Content-Type", "").startswith("text/plain") else ""
        return f"{answer.status_code} {' '.join(said.split())[:300]}".strip()


class _Broken(Exception):
    """An upload must be gone on with."""


class _Slice:
    """Part of a file as the body of a request; it can be read again from its start."""

    def __init__(self, file: BinaryIO, start: int, end: int, told: Told) -> None:
        self._file, self.start, self.end, self._told = file, start, end, told
        self._sent = 0

    def __iter__(self) -> Iterator[bytes]:
        self._told(-self._sent)
        self._sent = 0
        self._file.seek(self.start)
        while self.start + self._sent < self.end:
            part = self._file.read(min(self.end - self.start - self._sent, _READ_BYTES))
            if not part:
                raise RegistryError("a layer became shorter while it was sent")
            self._sent += len(part)
            yield part
            self._told(len(part))


_ACCEPT = {"Accept": ", ".join(ACCEPTED)}
_DAMAGED = "Something between here and the registry changes what it carries, or the registry is damaged: try again, or ask who runs it."
_LATER = "Try again later; what has arrived there is not sent again. The registry may be out of order, or its disk full."
_REACH = "Is the name right, and the network there?"


def _pull(repository: str) -> str:
    return f"repository:{repository}:pull"


def _push(repository: str) -> str:
    return f"repository:{repository}:pull,push"


def _challenge(header: str) -> tuple[str, dict[str, str]]:
    kind, _, rest = header.strip().partition(" ")
    return kind, {key.lower(): quoted or plain for key, quoted, plain in re.findall(r'([A-Za-z_]+)=(?:"([^"]*)"|([^",\s]+))', rest)}


def _code(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["errors"][0]["code"])
    except (ValueError, KeyError, IndexError, TypeError):
        return ""


def _retry_after(answer: httpx.Response) -> float:
    text = answer.headers.get("Retry-After", "")
    return min(float(text), _LONGEST_PAUSE_S) if text.isdecimal() else 0.0


def _path_of(answer: httpx.Response) -> str:
    return answer.request.url.path


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"

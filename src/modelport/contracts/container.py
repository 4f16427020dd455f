"""A container started as a platform starts it, by Docker or Podman, and ended as it ends it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from modelport.contracts.probe import Line
from modelport.errors import MissingLibrary, ModelportError, Unavailable, UsageError

_ENGINES = ("docker", "podman")
_TRY_S = 0.1
_LOG_LINES = "20"


@dataclass(frozen=True)
class Container:
    """How a platform starts a container, as far as the container can tell."""

    port: int = 8080
    """On which it must listen."""
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    flags: Sequence[str] = ()
    """More words of `docker run`."""
    start_s: float = 60.0
    """Until it must answer."""
    stop_s: float = 10.0
    """Between SIGTERM and SIGKILL."""
    amd64: bool = False
    """Whether the platform runs linux/amd64 alone."""


def start_words(engine: str, image: str, container: Container, network: str = "") -> list[str]:
    """The command that starts a container as the platform does; its port is published on loopback, unless it is in the host's network."""
    where = ["--network", network] if network else []
    published = [] if network == "host" else ["--publish", f"127.0.0.1::{container.port}"]
    environment = [word for name, value in container.environment.items() for word in ("--env", f"{name}={value}")]
    return [engine, "run", "--detach", *where, *published, *environment, *container.flags, image, *container.arguments]


@dataclass
class Running:
    """A container that runs, and what is known of it."""

    engine: str
    name: str
    """Its id."""
    url: str
    image: Mapping[str, Any]
    """What the engine says of its image."""

    def log(self) -> str:
        """The last of what it has printed."""
        done = _run([self.engine, "logs", "--tail", _LOG_LINES, self.name])
        return (done.stdout + done.stderr).strip()

    def wait(self, path: str, within_s: float) -> Line:
        """Wait until it answers at `path`. Unavailable with its log when it ends, or does not answer in time."""
        begun = time.monotonic()
        with httpx.Client(base_url=self.url, timeout=within_s, trust_env=False) as http:
            while True:
                try:
                    if http.get(path).status_code < 500:
                        seconds = time.monotonic() - begun
                        return Line(f"answers within {within_s:g} s", True, f"after {seconds:.1f} s")
                except httpx.HTTPError:
                    pass
                running = _asked([self.engine, "inspect", "--format", "{{.State.Running}}", self.name]) == "true"
                if not running or time.monotonic() - begun > within_s:
                    why = f"did not answer at {path} within {within_s:g} s" if running else "has ended"
                    raise Unavailable(f"the container {why}", hint=f"It said:\n{self.log()}")
                time.sleep(_TRY_S)

    def stop(self, within_s: float) -> Line:
        """End it as platforms do: SIGTERM, and SIGKILL when the time is over."""
        begun = time.monotonic()
        _asked([self.engine, "stop", "--time", f"{within_s:g}", self.name])
        seconds = time.monotonic() - begun
        code = _asked([self.engine, "inspect", "--format", "{{.State.ExitCode}}", self.name])
        return Line(f"SIGTERM ends it within {within_s:g} s", code == "0", f"code {code} after {seconds:.1f} s")

    def made_for(self, container: Container) -> Iterator[Line]:
        """What the platform wants of the image itself."""
        config = self.image.get("Config") or {}
        entrypoint, command = config.get("Entrypoint") or [], config.get("Cmd") or []
        if container.amd64:
            platform = f"{self.image.get('Os')}/{self.image.get('Architecture')}"
            yield Line("made for linux/amd64", platform == "linux/amd64", platform)
        if container.arguments:
            shell = entrypoint[:2] == ["/bin/sh", "-c"]
            yield Line("its ENTRYPOINT takes arguments", bool(entrypoint) and not shell, json.dumps(entrypoint))
        else:
            yield Line("it has a command", bool(entrypoint or command), json.dumps([*entrypoint, *command]))


@contextmanager
def started(image: str, container: Container, network: str = "") -> Iterator[Running]:
    """A container of `image`, started as the platform does, and removed in the end.

    MissingLibrary where there is no Docker or Podman; UsageError where the image cannot be started.
    """
    engine = next(filter(shutil.which, _ENGINES), None)
    if engine is None:
        raise MissingLibrary("there is no docker or podman to run the image with", hint="Give the URL of a service that runs instead.")
    done = _run(start_words(engine, image, container, network))
    if done.returncode:
        raise UsageError(f"{image} cannot be started: {_last(done.stderr)}", hint="It is an image, or the URL of a service.")
    name = done.stdout.split()[-1]
    try:
        port = str(container.port)
        if network != "host":
            port = _asked([engine, "port", name, f"{container.port}/tcp"]).splitlines()[0].rpartition(":")[2]
        about = json.loads(_asked([engine, "image", "inspect", image]))[0]
        yield Running(engine, name, f"http://127.0.0.1:{port}", about)
    finally:
        _run([engine, "rm", "--force", "--volumes", name])


def _asked(words: Sequence[str]) -> str:
    """What the command says. ModelportError with its last word when it fails."""
    done = _run(words)
    if done.returncode:
        raise ModelportError(f"`{' '.join(words[:2])}` failed: {_last(done.stderr)}")
    return done.stdout.strip()


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603  words that are ours, and no shell


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("See '")]
    return lines[-1] if lines else "it does not say why"

"""What exported files are made of: each value checked by a strict grammar, and quoted where it is written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from modelport.errors import UsageError
from modelport.images.names import Name

_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
"""RFC 1035: what Kubernetes wants of a Service's name, and Compose takes too."""
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_PATH = re.compile(r"(?!.*\.\.)[A-Za-z0-9._][A-Za-z0-9._-]*(/[A-Za-z0-9._][A-Za-z0-9._-]*)*")


@dataclass(frozen=True)
class Exported:
    """A service as exported files state it. UsageError for a value that its grammar does not know."""

    name: str
    """As Kubernetes and Compose name it: a label of RFC 1035."""
    image: str
    """The image that is run: registry.example.com/team/iris:3."""
    replicas: int = 2
    port: int = 8080
    """On which nginx, or the Kubernetes Service, is reached."""
    max_body_bytes: int = 16 * 2**20
    timeout_s: float = 30.0
    """How long an answer may take."""
    host_names: tuple[str, ...] = ()
    """The names under which nginx answers; any where there are none."""

    def __post_init__(self) -> None:
        _check(_LABEL, self.name, "is no name for a service", "Lower-case letters, digits and -, beginning with a letter: iris.")
        Name.parse(self.image)
        for host in self.host_names:
            _check(_HOST, host, "is no host name", "Give the name alone, in lower case: api.example.com.")
        for what, value, least, most in (
            ("replicas", self.replicas, 1, 100),
            ("port", self.port, 1, 65535),
            ("max body", self.max_body_bytes, 1024, 2**40),
            ("timeout", self.timeout_s, 0.01, 86_400),
        ):
            if not least <= value <= most:
                raise UsageError(f"{what} is {value:g}", hint=f"It is at least {least:g} and at most {most:,}.")

    @property
    def arguments(self) -> tuple[str, ...]:
        """The words that start the service with limits of its own; without any where they are Modelport's own."""
        words = ["serve"]
        if self.max_body_bytes != Exported.max_body_bytes:
            words += ["--max-body", str(self.max_body_bytes)]
        if self.timeout_s != Exported.timeout_s:
            words += ["--timeout", f"{self.timeout_s:g}"]
        return tuple(words)


def label(name: str) -> str:
    """A bundle's name as a label: iris_2.5 becomes iris-2-5. UsageError where that begins with a digit, or is too long."""
    made = re.sub(r"[._]+", "-", name)
    hint = "Name the service: --name iris."
    return _check(_LABEL, made, "cannot be the name of a service", hint)


def check_path(text: str) -> str:
    """`text` where it is a path that every tool takes without quotes. UsageError otherwise."""
    return _check(_PATH, text, "is no plain path", "Letters, digits, and . _ - / between them.")


def quoted(text: str) -> str:
    """A string as YAML and JSON both read it: double quotes, with escapes up to U+FFFF; above, where they escape differently, as it is."""
    return re.sub(r"[\x7f-\uffff]", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))


def words(arguments: tuple[str, ...]) -> str:
    """Words as a list that YAML, JSON and Dockerfiles read."""
    return f"[{', '.join(map(quoted, arguments))}]"


def _check(grammar: re.Pattern[str], text: str, wrong: str, hint: str) -> str:
    if not grammar.fullmatch(text):
        raise UsageError(f"{text[:100]!r} {wrong}", hint=hint)
    return text

"""Names of images, taken apart and put together."""

from __future__ import annotations

import pytest

from modelport.errors import UsageError
from modelport.images.names import Name, has_registry, is_loopback

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("python:3.11-slim", Name("docker.io", "library/python", "3.11-slim")),
        ("python", Name("docker.io", "library/python", "latest")),
        ("team/iris", Name("docker.io", "team/iris", "latest")),
        ("index.docker.io/team/iris:2", Name("docker.io", "team/iris", "2")),
        ("localhost:5000/iris:3", Name("localhost:5000", "iris", "3")),
        ("localhost/iris", Name("localhost", "iris", "latest")),
        ("registry.example.com/a/b/c:x", Name("registry.example.com", "a/b/c", "x")),
        ("[::1]:5000/iris", Name("[::1]:5000", "iris", "latest")),
        (f"ghcr.io/team/iris:3@{DIGEST}", Name("ghcr.io", "team/iris", "3", DIGEST)),
    ],
)
def test_a_name_has_a_registry_a_repository_and_a_tag_or_a_digest(text: str, name: Name) -> None:
    assert Name.parse(text) == name
    assert Name.parse(str(name)) == (name if not name.digest else Name(name.registry, name.repository, digest=DIGEST))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("Iris", "'Iris' is no repository"),
        ("iris:", "'' is no tag"),
        ("iris:a b", "'a b' is no tag"),
        ("iris@sha256:12", "'sha256:12' is no digest"),
        ("-x.com/iris", "'-x.com' is no host"),
        ("x.com/../iris", "'../iris' is no repository"),
        ("", "'' is no repository"),
        ("iris:" + "a" * 129, "is no tag"),
        ("x.com:port/iris", "'x.com:port' is no host"),
    ],
)
def test_what_is_no_name_is_refused_with_the_part_that_is_wrong(text: str, wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong.replace("(", r"\(")):
        Name.parse(text)


def test_no_name_in_a_store_is_taken_for_one_in_a_registry() -> None:
    assert [text for text in ("localhost:5000/iris", "ghcr.io/team/iris:3", "[::1]:5000/x") if not has_registry(text)] == []
    assert [text for text in ("iris", "iris:3", "team/iris", "./models/x.pkl", "../x.pkl", "/tmp/x.tar") if has_registry(text)] == []


def test_only_this_machine_is_spoken_to_without_tls() -> None:
    assert [host for host in ("localhost", "localhost:5000", "127.0.0.1:5000", "127.8.8.8", "[::1]:5000") if not is_loopback(host)] == []
    assert [host for host in ("example.com", "10.0.0.1:5000", "localhost.example.com", "128.0.0.1") if is_loopback(host)] == []

"""What `docker login` has kept is found in its file, and with real helper programs."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from modelport.errors import RegistryError
from modelport.images.credentials import Credentials, find, in_config, run_helper


def auth(username: str, secret: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{secret}".encode()).decode()}


def written(folder: Path, config: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


def no_helper(helper: str, server: str) -> Credentials | None:
    raise AssertionError(f"{helper} was asked for {server}")


def test_a_password_stands_under_the_registry_or_its_url(tmp_path: Path) -> None:
    for key in ("x.com", "https://x.com", "x.com/v2/", "https://x.com/v1/"):
        path = written(tmp_path, {"auths": {key: auth("ann", "a:b"), "y.com": auth("no", "no")}})
        assert in_config(path, "x.com", no_helper) == Credentials("ann", "a:b", False, str(path)), key
        assert in_config(path, "z.com", no_helper) is None


def test_docker_hub_stands_under_its_old_url(tmp_path: Path) -> None:
    path = written(tmp_path, {"auths": {"https://index.docker.io/v1/": auth("ann", "b")}})
    assert in_config(path, "docker.io", no_helper) == Credentials("ann", "b", False, str(path))


def test_a_token_is_told_from_a_password(tmp_path: Path) -> None:
    path = written(tmp_path, {"auths": {"x.com": {"identitytoken": "t0ken", **auth("ann", "")}}})
    assert in_config(path, "x.com", no_helper) == Credentials("<token>", "t0ken", True, str(path))


def test_a_helper_of_a_registry_comes_before_the_one_of_all_and_that_before_the_file(tmp_path: Path) -> None:
    def ask(helper: str, server: str) -> Credentials | None:
        return None if server == "none.com" else Credentials(helper, server)

    auths = {"x.com": auth("file", "f"), "none.com": auth("file", "f")}
    path = written(tmp_path, {"credHelpers": {"y.com": "own"}, "credsStore": "all", "auths": auths})
    assert in_config(path, "y.com", ask) == Credentials("own", "y.com")
    assert in_config(path, "x.com", ask) == Credentials("all", "x.com")
    assert in_config(path, "z.com", ask) == Credentials("all", "z.com")
    path = written(tmp_path, {"credsStore": "all", "auths": auths})
    assert in_config(path, "none.com", lambda helper, server: None) == Credentials("file", "f", False, str(path))


def test_no_file_is_no_credentials_and_a_damaged_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert find("x.com") is None
    for content in ("{", "[]", '{"auths": 3}', '{"auths": {"x.com": {"auth": "!"}}}'):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(RegistryError, match=r"config\.json"):
            find("x.com")


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes docker-credential-tests, a program on the PATH."""

    def make(script: str) -> None:
        path = tmp_path / "docker-credential-tests"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return make


def test_a_helper_is_a_program_that_reads_the_server_and_answers_json(helper: Callable[[str], None]) -> None:
    helper('test "$1" = get && read -r server; echo "{\\"Username\\": \\"ann\\", \\"Secret\\": \\"s-$server\\"}"')
    assert run_helper("tests", "x.com") == Credentials("ann", "s-x.com", False, "docker-credential-tests")
    helper('echo "{\\"Username\\": \\"<token>\\", \\"Secret\\": \\"t\\"}"')
    found = run_helper("tests", "x.com")
    assert found is not None
    assert found.is_token
    assert "Secret" not in repr(found)
    assert "'t'" not in repr(found), "what is logged by accident has no secret in it"


def test_a_helper_that_fails_is_named_and_one_that_has_nothing_is_no_failure(helper: Callable[[str], None]) -> None:
    helper("echo 'credentials not found in native keychain'; exit 1")
    assert run_helper("tests", "x.com") is None
    helper("echo 'the keychain is locked' >&2; exit 1")
    with pytest.raises(RegistryError, match="docker-credential-tests failed: the keychain is locked"):
        run_helper("tests", "x.com")
    helper("echo no json")
    with pytest.raises(RegistryError, match="something that is no credentials"):
        run_helper("tests", "x.com")
    with pytest.raises(RegistryError, match=r"docker-credential-other, which keeps the credentials for x\.com, is not on the PATH"):
        run_helper("other", "x.com")
    with pytest.raises(RegistryError, match="is not on the PATH"):
        run_helper("../tests", "x.com")

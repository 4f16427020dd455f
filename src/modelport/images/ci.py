"""Pipelines that train a project, check what came of it, build its image without Docker, and push it."""

from __future__ import annotations

from modelport.images.exporting import check_path, quoted

GITLAB, GITHUB = ".gitlab-ci.yml", ".github/workflows/modelport.yml"
_ADDRESS = "http://127.0.0.1:8000"


def gitlab(name: str, python: str, requirements: str | None) -> dict[str, str]:
    """The text of GitLab's pipeline by its name. `requirements` is the project's file of what training needs."""
    return {GITLAB: _GITLAB.format(name=name, python=python, install=quoted(_install(requirements)), address=_ADDRESS)}


def github(name: str, python: str, requirements: str | None) -> dict[str, str]:
    """The text of GitHub's workflow by its name."""
    return {GITHUB: _GITHUB.format(name=name, python=python, install=quoted(_install(requirements)), address=_ADDRESS)}


def _install(requirements: str | None) -> str:
    more = f" --requirement {check_path(requirements)}" if requirements else ""
    return f"python -m pip install modelport{more}"


_GITLAB = """\
# Trains {name}, checks it, builds its image without Docker, and pushes it to the project's registry.
stages: [train, check, publish]

default:
  image: python:{python}
  before_script:
    - {install}

variables:
  MODELPORT_STORE: $CI_PROJECT_DIR/store

train:
  stage: train
  script:
    - modelport train
    - modelport show {name}
  artifacts:
    paths: [store]

check:
  stage: check
  script:
    - modelport serve {name} &
    - curl --silent --fail --retry 60 --retry-delay 1 --retry-all-errors --output /dev/null {address}/readyz
    - modelport check {address} --bundle {name}

publish:
  stage: publish
  variables:
    IMAGE: $CI_REGISTRY_IMAGE:$CI_COMMIT_SHORT_SHA
  script:
    - mkdir -p ~/.docker
    - AUTH=$(printf '%s:%s' "$CI_REGISTRY_USER" "$CI_REGISTRY_PASSWORD" | base64 --wrap=0)
    - printf '{{"auths":{{"%s":{{"auth":"%s"}}}}}}' "$CI_REGISTRY" "$AUTH" > ~/.docker/config.json
    - modelport build {name} --tag "$IMAGE" --push
  rules:
    - if: $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH
"""

_GITHUB = """\
# Trains {name}, checks it, builds its image without Docker, and pushes it to GitHub's registry.
name: modelport

on:
  push:
    branches: [main]
  pull_request:

permissions:
  contents: read
  packages: write

jobs:
  image:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "{python}"
          cache: pip
          cache-dependency-path: "**/requirements*.txt"
      - name: Install
        run: {install}
      - name: Train
        run: |
          modelport train
          modelport show {name}
      - name: Check
        run: |
          modelport serve {name} &
          curl --silent --fail --retry 60 --retry-delay 1 --retry-all-errors --output /dev/null {address}/readyz
          modelport check {address} --bundle {name}
      - name: Build and push the image
        if: github.ref == 'refs/heads/main'
        env:
          IMAGE: ghcr.io/${{{{ github.repository }}}}:${{{{ github.sha }}}}
          USER: ${{{{ github.actor }}}}
          TOKEN: ${{{{ secrets.GITHUB_TOKEN }}}}
        run: |
          mkdir -p ~/.docker
          printf '{{"auths":{{"ghcr.io":{{"auth":"%s"}}}}}}' "$(printf '%s:%s' "$USER" "$TOKEN" | base64 --wrap=0)" > ~/.docker/config.json
          modelport build {name} --tag "$(printf '%s' "$IMAGE" | tr '[:upper:]' '[:lower:]')" --push
"""

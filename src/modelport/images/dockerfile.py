"""A Dockerfile, and what it copies, that make the image of a plan with `docker build`."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import distribution
from pathlib import Path

from modelport import __version__, project
from modelport.images import plan as plans
from modelport.images.exporting import words
from modelport.images.names import Name
from modelport.images.plan import LIB, PORT, PRUNED, ROOT, STOP_SIGNAL, STORE, USER, Plan

WHEEL = f"modelport-{__version__}-py3-none-any.whl"
_DEBIAN = {"lightgbm": "libgomp1"}
"""What wheels want of the base that it does not have, by Debian's name."""


def files(plan: Plan, requirements: Sequence[str]) -> dict[str, Path | bytes]:
    """What `docker build` needs to make the image, by its place in the folder; `requirements` are exact pins of all that is installed."""
    store = {f"store/{place}": content for place, content in plans.model_files(plan).items()}
    return {
        "Dockerfile": _text(plan.base, requirements, about=plan).encode(),
        ".dockerignore": _ignore(("requirements.txt", WHEEL, "prepare.py", "store")).encode(),
        "requirements.txt": "".join(f"{line}\n" for line in requirements).encode(),
        "prepare.py": _PREPARE.encode(),
        WHEEL: _wheel(plans.modelport_files()),
        **store,
    }


def training_files(found: project.Project, name: str, place: str, python: str) -> dict[str, bytes]:
    """What `docker build --file PLACE/Dockerfile .` needs in a project's folder, where `place` is, to train the model first."""
    assert found.train is not None, "the project says how it is trained"
    needs = found.train.requirements
    lines = needs.read_text(encoding="utf-8").splitlines() if needs is not None and needs.is_file() else []
    named = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    stage = _TRAIN.format(
        wheel=WHEEL,
        copied=words((f"{place}/{WHEEL}", "./")),
        requirements=_install(needs.relative_to(found.folder).as_posix()) if needs is not None else "",
        name=name,
    )
    return {
        "Dockerfile": _text(f"python:{python}-slim", named, stage=stage, name=name, place=place).encode(),
        "Dockerfile.dockerignore": _TRAIN_IGNORE.encode(),
        WHEEL: _wheel(_whole_package()),
    }


def quoted(text: str) -> str:
    """A value as ENV and LABEL read it, where a dollar sign would begin a variable's name and a line's end the next instruction."""
    plain = "".join(" " if ord(character) < 0x20 else character for character in text)
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'


def _text(base: str, requirements: Sequence[str], *, about: Plan | None = None, stage: str = "", name: str = "", place: str = "") -> str:
    """The Dockerfile: of a plan, or with a stage before that trains the model called `name`."""
    distributions = {line.partition("==")[0].partition("[")[0].strip().lower() for line in requirements}
    packages = sorted(package for wheel, package in _DEBIAN.items() if any(one.startswith(wheel) for one in distributions))
    ref = about.ref if about else f"{name}:1"
    labels = plans.labels(about) if about else {"modelport.version": __version__, "org.opencontainers.image.title": name}
    source, flag = ("/image/", "--from=train ") if stage else ("", "")
    return _DOCKERFILE.format(
        ref=ref,
        how=f"docker build --tag {ref} --file {place}/Dockerfile ." if stage else f"docker build --tag {ref} .",
        base=Name.parse(base),  # it has what the bundle says of its Python, which may come from anywhere
        stage=stage,
        copied=flag + words((f"{source}requirements.txt", f"{source}{WHEEL}", f"{source}prepare.py", "./")),
        wheel=WHEEL,
        lib=LIB,
        root=ROOT,
        packages=_PACKAGES.format(packages=" ".join(packages)) if packages else "",
        store=flag + words((f"{source}store", STORE)),
        variables=" \\\n    ".join(f"{key}={quoted(value)}" for key, value in plans.environment(ref).items()),
        labels=" \\\n    ".join(f"{quoted(key)}={quoted(value)}" for key, value in labels.items()),
        user=USER,
        port=PORT,
        signal=STOP_SIGNAL,
        interval_s=plans.HEALTH_INTERVAL_S,
        timeout_s=plans.HEALTH_TIMEOUT_S,
        start_s=plans.HEALTH_START_S,
        health=words(plans.health("python")),
        entrypoint=words(plans.ENTRYPOINT),
        arguments=words(plans.ARGUMENTS),
    )


def _install(requirements: str) -> str:
    kept = "requirements-of-training.txt"
    return f"\nCOPY {words((requirements, f'./{kept}'))}\nRUN python -m pip install --requirement {kept}"


def _ignore(kept: Sequence[str]) -> str:
    return "*\n" + "".join(f"!{name}\n" for name in kept)


def _whole_package() -> dict[str, Path | bytes]:
    """All of Modelport, with the metadata by which pip finds what it needs."""
    installed = distribution("modelport")
    root = Path(__file__).parents[1]
    found: dict[str, Path | bytes] = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            found[f"modelport/{path.relative_to(root).as_posix()}"] = path
    metadata = installed.read_text("METADATA") or ""
    points = installed.read_text("entry_points.txt") or ""
    about = f"modelport-{__version__}.dist-info"
    return {**found, f"{about}/METADATA": metadata.encode(), f"{about}/entry_points.txt": points.encode()}


def _wheel(held: Mapping[str, Path | bytes]) -> bytes:
    """A wheel of these files; the same files give the same bytes.

    https://packaging.python.org/specifications/binary-distribution-format
    """
    about = f"modelport-{__version__}.dist-info"
    tag = "Wheel-Version: 1.0\nGenerator: modelport\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    contents = {place: content.read_bytes() if isinstance(content, Path) else content for place, content in sorted(held.items())}
    contents[f"{about}/WHEEL"] = tag.encode()
    record = [f"{place},sha256={_sha256(content)},{len(content)}" for place, content in contents.items()]
    contents[f"{about}/RECORD"] = "".join(f"{line}\n" for line in [*record, f"{about}/RECORD,,"]).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for place, content in contents.items():
            entry = zipfile.ZipInfo(place)  # of 1980, as every one
            entry.external_attr, entry.compress_type = 0o100644 << 16, zipfile.ZIP_DEFLATED
            packed.writestr(entry, content)
    return out.getvalue()


def _sha256(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


_PREPARE = f'''\
"""Take out of the installed dependencies what serving does not use, compile the rest, and write the command."""

import compileall
import shutil
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

LIB = Path("{LIB}")
PRUNED = {json.dumps(PRUNED, indent=4)}

for pattern in PRUNED:
    for path in list(LIB.glob(pattern)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
compileall.compile_dir(LIB, quiet=2, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH, workers=0)
command = Path("{plans.COMMAND}")
command.parent.mkdir(parents=True)
command.write_text(f"#!{{sys.executable}}\\nfrom modelport.cli.main import main\\n\\nmain()\\n")
command.chmod(0o755)
'''

_TRAIN = """\

# Trains the model, packs it, and reproduces its golden rows: where one of these fails, there is no image.
FROM ${{PYTHON}} AS train
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore MODELPORT_STORE=/store
WORKDIR /project
COPY {copied}
RUN python -m pip install ./{wheel}{requirements}
COPY . .
RUN modelport train
RUN modelport export dockerfile {name} /image
"""

_TRAIN_IGNORE = """\
**/.git
**/.venv
**/__pycache__
"""

_PACKAGES = """
RUN apt-get update && apt-get install --yes --no-install-recommends {packages} && rm -rf /var/lib/apt/lists/*"""

_DOCKERFILE = """\
# {ref}: {how}
#
# PIP_INDEX_URL and PIP_EXTRA_INDEX_URL name package indexes, as pip has them; torch without CUDA comes from PyTorch's own.
# The same image without Docker: modelport build
ARG PYTHON={base}
{stage}
FROM ${{PYTHON}} AS dependencies
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY {copied}
RUN python -m pip install --no-compile --no-deps --target {lib} --requirement requirements.txt ./{wheel}
RUN python prepare.py

FROM ${{PYTHON}}{packages}
COPY --from=dependencies {root} {root}
COPY {store}
ENV {variables}
ENV PATH="{root}/bin:${{PATH}}"
LABEL {labels}
USER {user}
WORKDIR /
EXPOSE {port}
STOPSIGNAL {signal}
HEALTHCHECK --interval={interval_s}s --timeout={timeout_s}s --start-period={start_s}s CMD {health}
ENTRYPOINT {entrypoint}
CMD {arguments}
"""

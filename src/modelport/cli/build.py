"""`modelport build`: a container image of a bundle, with or without Docker."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from modelport.bundle import Bundle
    from modelport.errors import Refused
    from modelport.images.base import Report
    from modelport.images.build import Image, Options
    from modelport.images.names import Name
    from modelport.images.registry import Registry

_DRAWN_EACH_S = 0.1
_MOST_PARTS = 8


@click.command()
@click.argument("ref")
@click.option(
    "--tag", metavar="NAME", help="What the image is called: registry.example.com/team/iris:3. The bundle's name and version otherwise."
)
@click.option("--push", is_flag=True, help="Send it to the registry that --tag names.")
@click.option("--load", is_flag=True, help="Give it to Docker or Podman on this machine.")
@click.option("--output", metavar="FILE", help="Write it as a tar, which `docker load` and `skopeo` take.")
@click.option(
    "--platform", type=click.Choice(["linux/amd64", "linux/arm64"]), default="linux/amd64", show_default=True, help="What it runs on."
)
@click.option("--base", metavar="NAME", help="The image it builds on: python:X.Y-slim of the Python that packed the model.")
@click.option(
    "--format", "form", type=click.Choice(["docker", "oci"]), help="Whose manifest it has; the base's, or what the registry takes."
)
@click.option("--max-size", metavar="SIZE", help="Refuse an image whose files take more, the base's too: 500MB.")
@click.option("--sbom", metavar="FILE", help="Write the list of its parts (CycloneDX).")
@click.option("--ignore-library", metavar="NAME", multiple=True, help="A shared library that the base lacks, and nothing will load; again.")
@click.option("--trust", is_flag=True, help="Take a bundle from elsewhere although it brings code.")
@click.option("--json", "as_json", is_flag=True, help="Say what was built as JSON.")
def command(
    ref: str,
    tag: str | None,
    push: bool,
    load: bool,
    output: str | None,
    platform: str,
    base: str | None,
    form: str | None,
    max_size: str | None,
    sbom: str | None,
    ignore_library: tuple[str, ...],
    trust: bool,
    as_json: bool,
) -> None:
    """Build a container image of REF: a name in the store, a bundle, or a model file. No Docker is needed.

    Its layers are the base, the dependencies, Modelport and the model: after retraining only the last is new. Without --push, --load and
    --output it becomes a tar in this folder. The same bundle gives the same image, byte for byte.

    \b
    modelport build iris --load && docker run -p 8080:8080 iris:3
    modelport build iris:3 --tag registry.example.com/team/iris:3 --push
    modelport build iris --output iris.tar --max-size 300MB
    """
    import json

    from modelport.cli.references import tell
    from modelport.cli.serve import size_of
    from modelport.images import build as builds
    from modelport.images import plan
    from modelport.images.sbom import cyclonedx

    bundle, version = bundle_of(ref, trust=trust)
    called = f"{bundle.name}:{version or bundle.digest[7:19]}"
    name = _named(tag or called, push=push)
    limit = size_of(max_size, "--max-size") if max_size else None
    bar = Bar() if sys.stderr.isatty() else None
    report: Report = bar or (lambda what, done, total: None)
    options = builds.Options(base, platform.partition("/")[2], form, ignore_library, open_registry, tell, report)
    begun = time.perf_counter()
    try:
        image = builds.build(plan.plan(bundle, version or 1), options)
        if not image.is_compiled:
            tell(f"There is no Python {image.base.version} here to compile with: the container will take longer to start.")
        if limit is not None and image.unpacked > limit:
            raise _too_large(image, str(max_size))
        written = output or (None if push or load else f"{called.replace(':', '-')}.tar")
        image, done = _deliver(image, name, options, push=push, load=load, output=written)
    finally:
        if bar is not None:
            bar.clear()
    if sbom:
        Path(sbom).write_text(cyclonedx(image), encoding="utf-8")
        done.append(("sbom", sbom))
    seconds = time.perf_counter() - begun
    if as_json:
        click.echo(json.dumps(_as_json(image, name, done, seconds)))
    else:
        facts = [*done, ("digest", image.digest), ("id", image.id), ("for", str(image.platform)), ("took", f"{seconds:.1f} s")]
        click.echo(_text(image, facts, _next(name, done)))


def _named(text: str, *, push: bool) -> Name:
    """What the image is called. UsageError where that cannot be meant, or would be pushed to nowhere in particular."""
    from modelport.errors import UsageError
    from modelport.images.names import DOCKER_HUB, Name

    name = Name.parse(text)
    if name.digest:
        raise UsageError(f"--tag {text!r} names a digest, which follows from what is built", hint="Give it a tag: iris:3.")
    if push and name.registry == DOCKER_HUB and "/" not in text:
        raise UsageError(f"--push does not know where to: {name} names no registry", hint=f"--tag registry.example.com/team/{name}")
    return name


def _deliver(image: Image, name: Name, how: Options, *, push: bool, load: bool, output: str | None) -> tuple[Image, list[tuple[str, str]]]:
    """Bring the image to where it shall go; as it is there, and what was done."""
    from modelport.images import outputs

    done = []
    if push:
        image, sent = outputs.push(image, name, how.open_registry, how.told, how.report, only=how.form is not None)
        done.append(("pushed", f"{name}, {_size(sent)} sent"))
    if load:
        done.append(("loaded", f"{name} into {outputs.load(image, name)}"))
    if output:
        outputs.write_tar(image, name, Path(output))
        done.append(("written", f"{output}, {_size(Path(output).stat().st_size)}"))
    return image, done


def _too_large(image: Image, most: str) -> Refused:
    from modelport.errors import Refused

    return Refused(
        f"the image takes {_size(image.unpacked)}, more than --max-size {most}\n\n{size_table(image)}\n",
        hint="A smaller --base, fewer requirements in the model's environment, or a larger --max-size.",
    )


def open_registry(host: str) -> Registry:
    """A connection to a registry; to the mirror of Docker Hub that MODELPORT_REGISTRY_MIRROR names, where it is that."""
    from modelport.images.names import DOCKER_HUB
    from modelport.images.registry import Registry

    return Registry(host, mirror=os.environ.get("MODELPORT_REGISTRY_MIRROR", "") if host == DOCKER_HUB else "")


def size_table(image: Image) -> str:
    """Layers and their largest parts, with the bytes that their files take, and that are sent."""
    from modelport.cli.output import table
    from modelport.images.outputs import sizes

    rows, shown = [], 0
    layer = ""
    for name, part, unpacked, packed in sizes(image):
        shown = shown + 1 if name == layer else 0
        layer = name
        if shown <= _MOST_PARTS:
            rows.append(("" if shown else name, part, _size(unpacked), "" if packed is None else _size(packed)))
    total = sum(blob.size for blob, _ in image.blobs())
    rows.append(("together", "", _size(image.unpacked), _size(total)))
    return table(("layer", "part", "size", "compressed"), rows)


class Bar:
    """The line on a terminal that says how many bytes have come or gone."""

    def __init__(self) -> None:
        self._width = 0
        self._drawn_s = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._drawn_s < _DRAWN_EACH_S and done < total:
            return
        self._drawn_s = now
        filled = round(24 * done / total) if total else 24
        line = f"[{'=' * filled:<24}] {done / max(total, 1):4.0%}  {what}  {_size(max(done, 0))} of {_size(total)}"
        sys.stderr.write(f"\r{line:<{self._width}}")
        sys.stderr.flush()
        self._width = len(line)

    def clear(self) -> None:
        """Take the line away."""
        sys.stderr.write(f"\r{'':<{self._width}}\r")
        sys.stderr.flush()


def bundle_of(ref: str, *, trust: bool) -> tuple[Bundle, int]:
    """What is built, and its version in the store; 0 where it comes from none. Untrusted for a bundle from elsewhere that brings code."""
    from modelport import bundle as bundles
    from modelport import gates
    from modelport.cli.references import open_reference
    from modelport.store import Store

    path = Path(ref)
    if bundles.is_bundle(path):
        opened = bundles.open_bundle(path)
        gates.check_bundle(opened, trust=trust, trust_version=True)  # the image has the libraries that packed it
        return opened, 0
    if path.is_file() or os.sep in ref:
        return open_reference(ref).bundle, 0
    entry, opened = Store().get(ref)
    return opened, entry.version


def _text(image: Image, facts: Sequence[tuple[str, str]], then: str) -> str:
    from modelport.cli.output import aligned

    return f"{size_table(image)}\n\n{aligned(facts)}\n\nnext: {then}"


def _next(name: Name, done: Sequence[tuple[str, str]]) -> str:
    """What one does with it now."""
    how = dict(done)
    if "loaded" in how or "pushed" in how:
        return f"docker run --rm -p 8080:8080 {name}"
    return f"docker load -i {how['written'].partition(',')[0]} && docker run --rm -p 8080:8080 {name}"


def _as_json(image: Image, name: Name, done: Sequence[tuple[str, str]], seconds: float) -> dict[str, object]:
    from modelport.images.outputs import sizes

    layers = [{"layer": one, "part": part, "bytes": unpacked, "compressed": packed} for one, part, unpacked, packed in sizes(image)]
    return {
        "name": str(name),
        "digest": image.digest,
        "id": image.id,
        "bundle": image.plan.bundle.digest,
        "base": {"name": image.base.name, "digest": image.base.digest},
        "platform": str(image.platform),
        "done": dict(done),
        "sizes": layers,
        "bytes": image.unpacked,
        "seconds": round(seconds, 3),
    }


def _size(count: int) -> str:
    from modelport.cli.output import size

    return size(count)

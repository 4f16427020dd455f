"""`modelport export`: files for Docker, Compose, Kubernetes, Knative and CI that people can own and edit."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from modelport.images.exporting import Exported

_KINDS = ("dockerfile", "compose", "kubernetes", "knative", "gitlab-ci", "github-actions")
_PIPELINES = ("gitlab-ci", "github-actions")


@click.command()
@click.argument("kind", type=click.Choice(_KINDS), metavar="KIND")
@click.argument("places", nargs=-1, required=True, metavar="[REF] DIR")
@click.option("--image", metavar="NAME", help="The image that is run: registry.example.com/team/iris:3; the bundle's own name otherwise.")
@click.option("--name", metavar="NAME", help="What the service is called; as the bundle otherwise.")
@click.option("--replicas", type=int, default=2, show_default=True, help="How many of it run.")
@click.option("--port", type=int, default=8080, show_default=True, help="Where nginx, or the Kubernetes Service, is reached.")
@click.option("--host-name", metavar="NAME", multiple=True, help="A name under which nginx answers, and under no other; again for more.")
@click.option("--max-body", metavar="SIZE", help="The largest body that nginx and the service take: 16MB.")
@click.option("--timeout", type=float, default=30.0, show_default=True, help="Seconds an answer may take.")
@click.option("--trust", is_flag=True, help="Take a bundle from elsewhere although it brings code.")
@click.option("--force", is_flag=True, help="Write over files that are there.")
def command(kind: str, places: tuple[str, ...], force: bool, **flags: Any) -> None:
    """Write plain files for a bundle into a folder: they are yours to change.

    KIND is dockerfile, compose, kubernetes, knative, gitlab-ci or github-actions. REF is a bundle, or a name in the store. Without it,
    modelport.toml of this folder says what it is about, and `dockerfile` trains the model in the build: DIR lies in the project then.

    \b
    modelport export dockerfile iris deploy && docker build --tag iris deploy
    modelport export compose iris deploy --port 80
    modelport export kubernetes iris:3 deploy --image registry.example.com/iris:3
    modelport export github-actions .
    """
    from modelport.cli.output import aligned
    from modelport.errors import UsageError

    if len(places) > 2:
        raise click.UsageError("one REF and one DIR are taken")
    ref, folder = (places[0] if len(places) == 2 else None), Path(places[-1])
    made, after = _made(kind, ref, folder, flags)
    present = [name for name in made if (folder / name).exists()]
    if present and not force:
        raise UsageError(f"{folder / present[0]} exists", hint="It is yours: --force writes over it, or name another folder.")
    _write(folder, made)
    shown = [name for name in made if not name.startswith("store/")]
    shown += ["store/"] if len(shown) < len(made) else []
    click.echo(f"{aligned([('wrote', str(folder / name)) for name in shown])}\n\nnext: {after}")


def _made(kind: str, ref: str | None, folder: Path, flags: Mapping[str, Any]) -> tuple[Mapping[str, Path | bytes | str], str]:
    """The files by their names, and what to do with them."""
    if kind == "dockerfile":
        return _dockerfile(ref, folder, trust=flags["trust"])
    return _pipeline(kind) if kind in _PIPELINES else _service(kind, ref, folder, flags)


def _write(folder: Path, made: Mapping[str, Path | bytes | str]) -> None:
    """The files, readable by any user, as an image must be."""
    import shutil

    for name, content in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o644)


def _dockerfile(ref: str | None, folder: Path, *, trust: bool) -> tuple[Mapping[str, Path | bytes | str], str]:
    from modelport.images import dockerfile

    if ref is not None:
        from modelport.cli.build import bundle_of
        from modelport.images import dependencies
        from modelport.images.plan import plan

        bundle, version = bundle_of(ref, trust=trust)
        planned = plan(bundle, version or 1)
        locked = dependencies.lock(planned, dependencies.Platform(_architecture(), bundle.python))
        return dockerfile.files(planned, locked), f"docker build --tag {planned.ref} {folder}"
    from modelport.errors import UsageError
    from modelport.images.exporting import check_path

    found, name, _ = _project()
    try:
        place = check_path(folder.resolve().relative_to(Path().resolve()).as_posix())
    except ValueError:
        raise UsageError(f"{folder} does not lie in this project", hint="The build copies from it: name a folder below this one.") from None
    return dockerfile.training_files(found, name, place, _python()), f"docker build --tag {name} --file {place}/Dockerfile ."


def _service(kind: str, ref: str | None, folder: Path, flags: Mapping[str, Any]) -> tuple[Mapping[str, Path | bytes | str], str]:
    from modelport.images import compose, kubernetes

    about = _exported(ref, flags)
    if kind == "compose":
        made = compose.files(about, _build(ref, folder) if (folder / "Dockerfile").exists() else None)
        return made, f"docker compose --file {folder / 'compose.yaml'} up --detach, then http://127.0.0.1:{about.port}/"
    made = kubernetes.files(about) if kind == "kubernetes" else kubernetes.knative(about)
    return made, f"kubectl apply --filename {folder / next(iter(made))}"


def _build(ref: str | None, folder: Path) -> tuple[str, str]:
    """The context of the Dockerfile in the folder, and its place there: a project's copies from the whole project."""
    if ref is not None:
        return ".", "Dockerfile"
    return os.path.relpath(Path(), folder), os.path.relpath(folder / "Dockerfile", Path())


def _exported(ref: str | None, flags: Mapping[str, Any]) -> Exported:
    """What is exported: the service of a bundle, or of this project."""
    from modelport.cli.serve import size_of
    from modelport.images.exporting import Exported, label

    if ref is None:
        _, name, image = _project()
    else:
        from modelport.cli.build import bundle_of

        bundle, version = bundle_of(ref, trust=flags["trust"])
        name, image = bundle.name, f"{bundle.name}:{version or 1}"
    return Exported(
        name=flags["name"] or label(name),
        image=flags["image"] or image,
        replicas=flags["replicas"],
        port=flags["port"],
        max_body_bytes=size_of(flags["max_body"], "--max-body") if flags["max_body"] else Exported.max_body_bytes,
        timeout_s=flags["timeout"],
        host_names=tuple(host.lower() for host in flags["host_name"]),
    )


def _pipeline(kind: str) -> tuple[Mapping[str, Path | bytes | str], str]:
    from modelport.images import ci

    found, name, _ = _project()
    assert found.train is not None, "the project says how it is trained"
    needs = found.train.requirements
    made = (ci.gitlab if kind == "gitlab-ci" else ci.github)(name, _python(), needs.relative_to(found.folder).as_posix() if needs else None)
    return made, f"git add {next(iter(made))}"


def _project() -> tuple[Any, str, str]:
    """The project in this folder, which says how it is trained; its bundle's name, and what its image is called."""
    from modelport import project
    from modelport.bundle import check_name, slug
    from modelport.errors import UsageError

    found = project.find(Path())
    if found is None or found.train is None or found.model is None:
        what = f"there is no {project.FILE} in this folder" if found is None else f"{project.FILE} has no [train], or no model"
        raise UsageError(f"which bundle? {what}", hint="Name one: modelport export KIND REF DIR; or begin a project: modelport init.")
    name = check_name(found.options.get("name") or slug(found.model.stem) or "model")
    return found, name, f"{name}:latest"


def _python() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def _architecture() -> str:
    return "arm64" if platform.machine() in ("aarch64", "arm64") else "amd64"

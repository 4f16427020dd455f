"""A model of another time, loaded by the library version that wrote it: in a child process, in an environment made for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from modelport.conversion import environments
from modelport.conversion.child import Child, ModuleMissing, Remote
from modelport.errors import ModelFileError, UsageError
from modelport.frameworks import Card

_MODULES = 4
"""How many modules that the model turns out to need are added before it is given up."""


@contextmanager
def opened(
    path: Path,
    card: Card,
    imports: Iterable[str],
    *,
    python: str = "auto",
    code: Path | None = None,
    tools: Sequence[str] = (),
    told: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[Remote, Child]]:
    """A scikit-learn model loaded in a child, and how to call it, for as long as the context lasts.

    `python` is "auto", for an environment that is made for it, or the path of a Python that has what it needs. `imports` is what the file
    imports, `code` a folder with modules of its own, `tools` what shall convert it. Raises NoEnvironment, and as `Remote`; UsageError when
    there is no such Python.
    """
    imports = tuple(imports)
    wanted = environments.recipe(card, imports, tools=tools) if python == "auto" else None
    vendored = any(name.startswith("sklearn.externals.joblib.") for name in imports)
    for _ in range(_MODULES):
        program = environments.make(wanted, told).python if wanted else _python(python)
        with Child(program, size=path.stat().st_size) as child:
            try:
                remote = Remote(child, path, code, vendored=vendored)
            except ModuleMissing as missing:
                wanted = environments.with_module(wanted, missing.module) if wanted else None
                if wanted is None:
                    raise
                continue
            version = remote.versions.get(card.library, "")
            told(f"Loaded it with Python {remote.python} and {card.library} {version}, in a process of its own.")
            yield remote, child
            return
    raise ModelFileError(f"{path.name} needs more modules than can be found out", hint="--python-env PYTHON names a Python that has them.")


def _python(text: str) -> Path:
    path = Path(text).expanduser()
    if path.is_dir():
        path = path / "bin" / "python"
    if not path.is_file():
        raise UsageError(f"--python-env {text} is no Python", hint="It is auto, none, or the path of a Python or of its environment.")
    return path

"""Write docs/reference/ from the code, or with --check say which page is out of date."""

from __future__ import annotations

import inspect
import re
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import click

from modelport import errors, project
from modelport.cli.main import VERBS, modelport

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "reference"
MADE = "<!-- Made from the code by `make docs`; `make lint` checks that it is up to date. -->"

ENVIRONMENT = {
    "AIP_HEALTH_ROUTE": "The path at which Vertex AI asks for health; answered as `/readyz`.",
    "AIP_HTTP_PORT": "The port that Vertex AI wants; used where neither --port nor PORT is given.",
    "AIP_PREDICT_ROUTE": 'The path at which Vertex AI sends `{"instances": [...]}`.',
    "HOME": "Where `~` is, for the store and the cache.",
    "MODELPORT_API_KEY": "The API key that requests must bring; several are separated by commas.",
    "MODELPORT_CACHE": "Where model files that are served directly are kept as bundles; `~/.cache/modelport` otherwise.",
    "MODELPORT_STORE": "The store: a folder, or an fsspec URL such as `s3://bucket/models`; `~/.modelport` otherwise.",
    "PORT": "The port to listen on, where --port is not given.",
    "SOURCE_DATE_EPOCH": "The bundle's `created`, in seconds since 1970; the time of the git commit otherwise.",
    "SUBTITLE": "As --subtitle.",
    "TITLE": "As --title.",
    "XDG_CACHE_HOME": "The folder of all caches, in which Modelport makes `modelport/`.",
}
"""Every environment variable that the code reads; the check compares the names with the source."""


def main() -> int:
    pages = {"cli.md": cli(), "errors.md": error_tree(), "settings.md": settings(), "http.md": http()}
    if "--check" in sys.argv:
        stale = [name for name, text in pages.items() if not (PAGES / name).is_file() or (PAGES / name).read_text() != text]
        for name in stale:
            print(f"docs/reference/{name} is out of date: run `make docs`")
        return 1 if stale else 0
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (PAGES / name).write_text(text)
    return 0


def cli() -> str:
    """The help of every verb, as `--help` prints it at 100 columns."""
    context = click.Context(modelport, info_name="modelport", terminal_width=100, max_content_width=100)
    parts = [f"# The command line\n\n{MADE}\n\n```text\n{modelport.get_help(context)}\n```"]
    for verb in VERBS:
        command = modelport.get_command(context, verb)
        assert command is not None
        inner = click.Context(command, info_name=verb, parent=context, terminal_width=100, max_content_width=100)
        parts.append(f"## {verb}\n\n```text\n{command.get_help(inner)}\n```")
    return "\n\n".join(parts) + "\n"


def error_tree() -> str:
    """Every class of errors.py with its exit code, HTTP status and sentence."""
    lines = [
        "# Errors",
        "",
        MADE,
        "",
        "The command line prints `error:` and `hint:` and exits with the code; HTTP answers with the status and",
        "`application/problem+json` (RFC 9457) whose `type` is `urn:modelport:<type>`. Exit codes: 0 done, 1 failed, 2 wrong use,",
        "3 refused by a gate.",
        "",
        "| class | type | exit code | status | raised |",
        "|---|---|---|---|---|",
    ]
    for value in vars(errors).values():
        if inspect.isclass(value) and issubclass(value, errors.ModelportError):
            sentence = " ".join(inspect.getdoc(value).split("\n\n")[0].split()) if value.__doc__ else ""
            lines.append(f"| `{value.__name__}` | `{value.code}` | {value.exit_code} | {value.status} | {sentence} |")
    return "\n".join(lines) + "\n"


def settings() -> str:
    """The environment variables and the keys of modelport.toml."""
    source = "\n".join(path.read_text() for path in sorted((ROOT / "src").rglob("*.py")))
    used = set(re.findall(r"""(?:environ(?:\.get)?[\[(]\s*|envvar=)["']([A-Z_]+)["']""", source))
    undocumented, unused = used - set(ENVIRONMENT), set(ENVIRONMENT) - used - {"HOME"}
    assert not undocumented, f"tools/reference.py does not document {sorted(undocumented)}"
    assert not unused, f"tools/reference.py documents {sorted(unused)}, which nothing reads"
    rows = [f"| `{name}` | {meaning} |" for name, meaning in sorted(ENVIRONMENT.items())]
    head = ["# Settings", "", MADE, "", "## Environment", "", "| variable | meaning |", "|---|---|", *rows, "", "## modelport.toml", ""]
    keys = f"Its keys: {', '.join(f'`{key}`' for key in project.KEYS)}."
    return "\n".join(head) + "\n" + (inspect.getdoc(project) or "").replace("\n    ", "\n    ") + "\n\n" + keys + "\n"


def http() -> str:
    """The paths of a service, as the OpenAPI document of the demo model describes them."""
    from modelport.bundle import open_bundle
    from modelport.serving import openapi

    with resources.as_file(resources.files("modelport") / "demo") as folder:
        document: dict[str, Any] = openapi.document(open_bundle(folder))
    lines = ["# HTTP", "", MADE, "", "The paths of a service, here of the demo model; `/openapi.json` of a service says the same of its own model.", ""]
    lines += ["| | path | | answers |", "|---|---|---|---|"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method not in ("get", "post", "put", "delete", "head", "options"):
                continue
            lines.append(f"| {method.upper()} | `{path}` | {operation['summary']} | {', '.join(sorted(operation['responses']))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

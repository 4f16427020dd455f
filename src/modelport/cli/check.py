"""`modelport check`: a platform's contract, played against a service or an image."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import httpx

    from modelport.bundle import Bundle
    from modelport.contracts import Contract
    from modelport.contracts.probe import Line, Probe

_NAMES = ("modelport", "sagemaker", "vertex", "cloudrun", "heroku", "knative", "kserve")


@click.command()
@click.argument("target", metavar="URL|IMAGE")
@click.option("--contract", type=click.Choice(_NAMES), default="modelport", show_default=True, help="Whose contract it is.")
@click.option("--bundle", metavar="REF", help="Ask the golden rows of this bundle, and compare with their answers.")
@click.option("--example", metavar="FILE", help="Ask these records: a JSON file with one, or a list. For services that name none.")
@click.option("--name", metavar="NAME", help="The model's name in paths; what the service says otherwise.")
@click.option("--health-route", metavar="PATH", envvar="AIP_HEALTH_ROUTE", default="", help="What Vertex AI is told; or /ping.")
@click.option("--predict-route", metavar="PATH", envvar="AIP_PREDICT_ROUTE", default="", help="Likewise; or /v1/models/NAME:predict.")
@click.option("--network", metavar="NETWORK", default="", help="The Docker network that the image's container is put in.")
@click.option("--json", "as_json", is_flag=True, help="Say it as JSON.")
def command(target: str, contract: str, as_json: bool, network: str, **flags: Any) -> int:
    """Ask a service as a platform would, and say what it keeps of the platform's contract.

    URL is a service that runs. IMAGE is run by Docker or Podman as the platform runs it: with its variables, arguments and user; and ended
    as it ends it. MODELPORT_API_KEY is sent, where it is set. The exit code is 1 when something of the contract is not kept.

    \b
    modelport check http://127.0.0.1:8000
    modelport check https://iris.example.com --contract vertex
    modelport check iris:1 --contract sagemaker
    """
    from modelport.contracts import CONTRACTS

    wanted = CONTRACTS[contract]
    is_url = target.startswith(("http://", "https://"))
    lines = _of_service(target, wanted, flags) if is_url else _of_image(target, wanted, network, flags)
    failed = [line for line in lines if not line.passed]
    if as_json:
        said = [{"what": line.what, "passed": line.passed, "said": line.said} for line in lines]
        click.echo(json.dumps({"target": target, "contract": contract, "passed": not failed, "lines": said}))
    else:
        click.echo(_text(target, contract, lines))
    return 1 if failed else 0


def _text(target: str, contract: str, lines: Sequence[Line]) -> str:
    from modelport.cli.output import table

    rows = [("ok" if line.passed else "FAIL", line.what, line.said) for line in lines]
    kept = sum(line.passed for line in lines)
    verdict = f"{target} keeps" if kept == len(lines) else f"{target} does not keep"
    return f"{table(('', 'asked', 'answered'), rows)}\n\n{verdict} the contract of {contract}: {kept} of {len(lines)}"


def _of_service(url: str, contract: Contract, flags: Mapping[str, Any]) -> list[Line]:
    with _client(url) as http:
        return list(contract.play(_probe(http, flags)))


def _of_image(image: str, contract: Contract, network: str, flags: Mapping[str, Any]) -> list[Line]:
    from modelport.contracts.container import started

    container = contract.container
    told = {
        "health_route": container.environment.get("AIP_HEALTH_ROUTE", ""),
        "predict_route": container.environment.get("AIP_PREDICT_ROUTE", ""),
    }
    with started(image, container, network) as running, _client(running.url) as http:
        lines = [running.wait(contract.ready, container.start_s)]
        lines += running.made_for(container)
        lines += contract.play(_probe(http, {**flags, **told}))
        return [*lines, running.stop(container.stop_s)]


def _client(url: str) -> httpx.Client:
    import httpx

    from modelport.errors import UsageError
    from modelport.images.names import is_loopback

    key = os.environ.get("MODELPORT_API_KEY", "").partition(",")[0].strip()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    try:
        is_here = is_loopback(httpx.URL(url).netloc.decode())  # no proxy gets there, and none is told the key
        return httpx.Client(base_url=url, headers=headers, timeout=60, limits=limits, trust_env=not is_here)
    except httpx.InvalidURL as error:
        raise UsageError(f"{url!r} is no URL: {error}", hint="For example http://127.0.0.1:8000") from error


def _probe(http: httpx.Client, flags: Mapping[str, Any]) -> Probe:
    """The service, and the rows that it is to be asked."""
    from modelport.contracts.probe import learn

    rows: list[Any] = _records(Path(flags["example"])) if flags["example"] else []
    answers: list[Any] = []
    tolerance = None
    if flags["bundle"]:
        golden = _bundle(flags["bundle"]).golden() or {"rows": [], "tolerance": None}
        rows = rows or [row["input"] for row in golden["rows"]]
        tolerance = golden["tolerance"]
        answers = [row["output"] for row in golden["rows"]] if tolerance is not None and not flags["example"] else []
    probe = learn(http, name=flags["name"] or "", rows=rows)
    if rows:
        probe = replace(probe, answers=answers, tolerance=tolerance or probe.tolerance)
    return replace(probe, health_route=flags["health_route"], predict_route=flags["predict_route"])


def _bundle(ref: str) -> Bundle:
    """What is compared with. Of a bundle only its golden rows are read, so that nothing of it need be trusted."""
    from modelport import bundle as bundles
    from modelport.cli.references import open_reference

    return bundles.open_bundle(Path(ref)) if bundles.is_bundle(Path(ref)) else open_reference(ref).bundle


def _records(path: Path) -> list[Any]:
    from modelport.errors import UsageError

    right = 'It is a record, {"age": 41}, or a list of records.'
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"--example {path} does not read as JSON: {error}", hint=right) from error
    records = found if isinstance(found, list) else [found]
    if not records or not all(isinstance(record, dict) for record in records):
        raise UsageError(f"--example {path} holds no record", hint=right)
    return records

"""`modelport serve` and `modelport demo` as real processes: they start, say where, answer, and end as they are told."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import converted
import modelport
from modelport.errors import SignatureError, UsageError
from serving_world import FLOWER

DEMO = Path(__file__).parent.parent / "src" / "modelport" / "demo"


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "MODELPORT_STORE": str(tmp_path / "store"),
        "PYTHONPATH": str(Path(modelport.__file__).parent.parent),
        "PYTHONWARNINGS": "error",
    } | more


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from modelport.cli.main import main; main()", *arguments]


@contextmanager
def started(
    tmp_path: Path, *arguments: str, python: Path | str = sys.executable, **more: str
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any], str]]:
    """The process, what it says of itself when it listens, and its URL."""
    process = subprocess.Popen(
        [str(python), *command(*arguments)[1:]],
        env=environment(tmp_path, **more),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        serving = json.loads(line)
        yield process, serving, f"http://127.0.0.1:{serving['port']}"
    finally:
        process.kill()
        process.communicate()


def run(tmp_path: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment(tmp_path, **more), cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )


def test_demo_serves_the_model_that_comes_along_and_ends_with_0_on_sigterm(tmp_path: Path) -> None:
    with started(tmp_path, "demo", "--port", "0") as (process, serving, url):
        assert serving["event"] == "serving"
        assert serving["host"] == "127.0.0.1"
        with httpx.Client(base_url=url, trust_env=False) as client:
            answer = client.post("/predict", json=FLOWER)
            assert answer.json()["prediction"] == "setosa"
            assert client.get("/readyz").status_code == 200
            assert client.get("/").json()["title"] == "Iris species"
            assert client.get("/", headers={"Accept": "text/html"}).status_code == 200
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert err.splitlines()[0] == "serving iris"
        assert err.splitlines()[-1] == "Ctrl+C stops it."
        entries = [json.loads(line) for line in out.splitlines()]
        assert [entry["status"] for entry in entries if entry["event"] == "request"] == [200, 200, 200, 200]


def test_serve_takes_a_bundle_its_title_from_the_environment_and_its_port_from_port(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with started(tmp_path, "serve", str(DEMO), PORT=str(port), TITLE="Flowers", SUBTITLE="of Fisher") as (_, serving, url):
        assert serving["port"] == port
        about = httpx.get(url, trust_env=False).json()
        assert (about["title"], about["subtitle"]) == ("Flowers", "of Fisher")


def test_a_description_comes_out_of_a_file_and_is_kept_with_the_model(tmp_path: Path) -> None:
    (tmp_path / "about.md").write_text("# Iris\n\nThree *kinds* of\nflowers.\n")
    with started(tmp_path, "serve", str(DEMO), "--description", "about.md", "--port", "0") as (_, _, url):
        assert httpx.get(url, trust_env=False).json()["description"] == "# Iris\n\nThree *kinds* of\nflowers."
    (tmp_path / "iris.onnx").write_bytes((DEMO / "model" / "model.onnx").read_bytes())
    (tmp_path / "modelport.toml").write_text('description = "about.md"\n')
    packed = run(tmp_path, "pack", "iris.onnx", "--to", "bundle")
    assert packed.returncode == 0, packed.stderr
    shown = run(tmp_path, "show", "bundle")
    assert re.search("^about +Three [*]kinds[*] of flowers[.]$", shown.stdout, re.MULTILINE)
    missing = run(tmp_path, "serve", str(DEMO), "--description", "nosuch.md", "--port", "0")
    assert (missing.returncode, missing.stderr.splitlines()[0][:45]) == (2, "error: the description nosuch.md does not rea")


def test_serve_takes_a_model_file(tmp_path: Path) -> None:
    (tmp_path / "iris.onnx").write_bytes((DEMO / "model" / "model.onnx").read_bytes())
    with started(tmp_path, "serve", "iris.onnx", "--output", "species", "--port", "0") as (_, _, url):
        about = httpx.get(url, trust_env=False).json()
        names = [field["name"] for field in about["signature"]["inputs"]]
        answer = httpx.post(f"{url}/predict", json=dict(zip(names, FLOWER.values(), strict=True)), trust_env=False)
        assert answer.json()["species"] == "setosa"


def test_a_key_and_its_own_limits_are_taken(tmp_path: Path) -> None:
    arguments = [
        "serve",
        str(DEMO),
        "--port",
        "0",
        "--max-body",
        "1k",
        "--max-rows",
        "2",
        "--cors",
        "https://a.example",
        "--host-name",
        "api.example",
    ]
    with started(tmp_path, *arguments, MODELPORT_API_KEY="one,two") as (_, _, url):
        key = {"X-API-Key": "two"}
        with httpx.Client(base_url=url, trust_env=False) as client:
            assert client.post("/predict", json=FLOWER).status_code == 401
            assert client.post("/predict", json=FLOWER, headers=key | {"Host": "api.example"}).status_code == 200
            assert client.post("/predict", json=[FLOWER] * 3, headers=key).status_code == 413
            assert client.post("/predict", content=b" " * 1025, headers=key).status_code == 413
            assert (
                client.get("/livez", headers={"Origin": "https://a.example"}).headers["access-control-allow-origin"] == "https://a.example"
            )


def test_vertex_ai_s_variables_are_honoured(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = {"AIP_HTTP_PORT": str(port), "AIP_HEALTH_ROUTE": "/alive", "AIP_PREDICT_ROUTE": "/ask"}
    with started(tmp_path, "serve", str(DEMO), **names) as (_, serving, url):
        assert serving["port"] == port
        assert httpx.get(f"{url}/alive", trust_env=False).status_code == 200
        answer = httpx.post(f"{url}/ask", json={"instances": [FLOWER]}, trust_env=False)
        assert answer.json()["predictions"][0]["prediction"] == "setosa"


def test_a_port_that_is_taken_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run(tmp_path, "demo", "--port", str(port))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: port {port} of 127.0.0.1 is taken by another program\nhint:  --port 0 takes a free one.\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "0.0.0.0 can be reached from other machines, and no API key is set"),
        (["--host", "203.0.113.7", "--public"], "cannot listen on 203.0.113.7"),
        (["--host", "no such host", "--public"], "cannot listen on 'no such host'"),
        (["--cors", "null"], "--cors 'null' is no origin"),
        (["--keys", "none"], "--keys none cannot be read"),
        (["--max-body", "much"], "'much' is no size"),
        (["--port", "70000"], "70000 is no port"),
    ],
)
def test_what_cannot_be_meant_or_is_not_safe_is_refused_before_it_starts(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = run(tmp_path, "demo", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("variables", [{"PORT": "http"}, {"MODELPORT_API_KEY": ""}, {"AIP_HTTP_PORT": "8080", "AIP_PREDICT_ROUTE": "ask"}])
def test_an_environment_that_cannot_be_meant_is_refused(tmp_path: Path, variables: dict[str, str]) -> None:
    done = run(tmp_path, "demo", **variables)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")


def test_a_bundle_that_does_not_give_its_recorded_answers_is_not_served(tmp_path: Path) -> None:
    import shutil

    from modelport import bundle as bundles

    shutil.copytree(DEMO, tmp_path / "iris")
    opened = bundles.open_bundle(tmp_path / "iris")
    golden = json.loads((tmp_path / "iris" / "golden.json").read_text())
    golden["rows"][1]["output"]["prediction"] = "virginica"
    (tmp_path / "iris" / "golden.json").write_text(json.dumps(golden))
    (tmp_path / "iris" / "bundle.json").unlink()
    bundles.write(tmp_path / "iris", name="iris", card=opened.card, signature=opened.signature, model=opened.model, python=opened.python)
    done = run(tmp_path, "serve", "iris", "--port", "0")
    assert (done.returncode, done.stdout) == (3, "")
    assert "golden row 1 of 'iris' answers differently now" in done.stderr


def test_on_a_terminal_it_says_what_to_try_and_that_works(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command("demo", "--port", "0"), env=environment(tmp_path), cwd=tmp_path, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        with os.fdopen(ours) as terminal:
            lines = [terminal.readline().strip() for _ in range(5)]
            assert lines[0] == "serving iris"
            assert lines[4] == "Ctrl+C stops it."
            words = shlex.split(lines[3].removeprefix("try"))
            url, headers, body = words[1], dict([words[3].split(": ")]), words[5]
            answer = httpx.post(url, content=body, headers=headers, trust_env=False)
            assert answer.json()["prediction"] == "setosa"
            assert re.fullmatch(r"\d\d:\d\d:\d\d  200  POST /predict  [0-9.]+ ms  1 rows", terminal.readline().strip())
            page = lines[1].split()[1]
            assert httpx.get(page, headers={"Accept": "text/html"}, trust_env=False).status_code == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()


def test_serving_needs_no_framework_for_an_onnx_model(tmp_path: Path) -> None:
    """What is imported is what the start costs: nothing of what only packing, reading files or asking needs."""
    program = (
        "import sys; from modelport.cli.serve import serve; import modelport.serving.server, modelport.serving.app; "
        "from modelport.bundle import open_bundle; from modelport import engines; "
        f"from pathlib import Path; engines.load(open_bundle(Path({str(DEMO)!r}))); "
        "print([name for name in ('pandas', 'sklearn', 'httpx', 'pyarrow', 'fsspec', 'scipy', 'onnx', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_sizes_are_read_with_their_unit() -> None:
    from modelport.cli.serve import size_of

    assert [size_of(text) for text in ("1024", "1k", "16MB", "2 GiB")] == [1024, 1024, 16 * 2**20, 2 * 2**30]


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "serve", str(DEMO), str(DEMO), "--port", "0")
    assert done.returncode == UsageError.exit_code
    assert "two of the models have one name" in done.stderr


def test_a_bundle_with_onnx_is_served_without_its_pickle_being_opened(tmp_path: Path) -> None:
    mark = tmp_path / "the pickle was loaded"
    bundle = converted.iris(tmp_path / "bundle", {"model/model.pkl": converted.writes(mark)}, model="model/model.pkl")
    with started(tmp_path, "serve", str(bundle.folder), "--port", "0") as (_, serving, url):
        assert serving["engines"] == ["onnx"]
        assert httpx.post(f"{url}/predict", json=bundle.read_json("example.json")[0], trust_env=False).json()["prediction"] == "setosa"
        assert 'engine="onnx"' in httpx.get(f"{url}/metrics", trust_env=False).text
    assert not mark.exists()
    refused = run(tmp_path, "serve", str(bundle.folder), "--port", "0", "--engine", "native")
    assert (refused.returncode, mark.exists()) == (3, False)
    assert "would import io.open" in refused.stderr
    trusted = run(tmp_path, "serve", str(bundle.folder), "--port", "0", "--engine", "native", "--trust")
    assert (trusted.returncode, mark.exists()) == (SignatureError.exit_code, True)


def test_an_engine_that_a_bundle_does_not_have_is_wrong_use(tmp_path: Path) -> None:
    bundle = converted.changed(converted.iris(tmp_path / "bundle"), tmp_path / "plain", {}, without=("model.onnx", "parity.json"))
    done = run(tmp_path, "serve", str(bundle.folder), "--port", "0", "--engine", "onnx")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "error: iris has no ONNX: it was packed without being converted"


def test_many_rows_a_call_bring_the_models_own_library_in(tmp_path: Path) -> None:
    bundle = converted.shipping(tmp_path / "bundle")
    with started(tmp_path, "serve", str(bundle.folder), "--port", "0", "--workers", "1") as (process, serving, url):
        assert serving["engines"] == ["onnx+native"]
        rows = bundle.read_json("example.json") * 4000
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            first = client.post("/predict", json=rows).json()
            assert process.stdout is not None
            events = map(json.loads, process.stdout)
            for entry in events:
                if entry["event"] == "engine":
                    break
                client.post("/predict", json=rows)
            assert entry["model"] == "shipping"
            assert "reason" not in entry
            assert entry["seconds"] > 0
            again = client.post("/predict", json=rows).json()
    for one, other in zip(first, again, strict=True):
        assert other == {"prediction": pytest.approx(one["prediction"], rel=1e-5)}

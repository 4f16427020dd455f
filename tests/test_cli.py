"""The command line: one clear line and a hint on stderr, an exit code a scheduler can read, and nothing heavy imported for nothing."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import converted
import models
from modelport.bundle import open_bundle
from modelport.cli.main import VERBS, modelport
from modelport.cli.output import aligned, short_list, size, table
from modelport.errors import UsageError

MAIN = "from modelport.cli.main import main; main()"


def run(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """A real process in `folder`, with its store and cache there too."""
    environment = {**os.environ, "MODELPORT_STORE": str(folder / "store"), "MODELPORT_CACHE": str(folder / "cache")}
    command = [sys.executable, "-c", MAIN, *map(str, words)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model file, a sample and a store that holds shipping:1."""
    folder = tmp_path_factory.mktemp("world")
    models.write("xgboost_regressor", folder)
    models.shipping().head(20).to_csv(folder / "rows.csv", index=False)
    done = run(folder, "pack", "shipping.pkl", "--sample", "rows.csv", "--output", "shipping_estimated_price", "--metric", "rmse=4.1")
    assert done.returncode == 0, done.stderr
    assert "packed   shipping:1  sha256:" in done.stdout
    assert "golden   20 rows of the sample: reproduced" in done.stdout
    assert done.stdout.endswith("next: modelport serve shipping:1\n")
    assert done.stderr == ""
    return folder


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_says_how_it_is_used(verb: str) -> None:
    done = CliRunner().invoke(modelport, [verb, "--help"])
    assert done.exit_code == 0
    assert done.output.startswith(f"Usage: modelport {verb} ")
    assert all(len(line) <= 110 for line in done.output.splitlines())


def test_without_arguments_the_verbs_are_listed(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == run(tmp_path, "--help").stdout
    assert all(f"  {verb} " in done.stdout for verb in VERBS)


def test_the_version_is_said(tmp_path: Path) -> None:
    from modelport import __version__

    assert run(tmp_path, "--version").stdout == f"modelport {__version__}\n"


@pytest.mark.parametrize(
    ("words", "code", "error", "hint"),
    [
        (("pakc",), 2, "there is no verb 'pakc'; did you mean 'pack'?", "`modelport --help`"),
        (("--nope",), 2, "No such option '--nope'", "`modelport --help`"),
        (("pack", "--nope"), 2, "No such option '--nope'", "`modelport pack --help`"),
        (("pack",), 2, "which model?", "`modelport pack MODEL`"),
        (("pack", "none.pkl"), 2, "there is no file none.pkl", "a model file, a bundle, or a name in the store"),
        (("serve", "none.pkl"), 2, "there is no file none.pkl; and the store has no such name", "`modelport list`"),
        (("show", "nothing"), 2, "there is no 'nothing' in ", "modelport"),
        (("pack", "empty.pkl"), 1, "empty.pkl is empty", ""),
        (("pack", "os.pkl"), 3, "would import posix.system, not on the allow-list", "--trust"),
        (("serve", "os.pkl"), 3, "would import posix.system, not on the allow-list", "--trust"),
        (("pack", "empty.pkl", "--metric", "rmse"), 2, "--metric 'rmse' is no pair", "--metric rmse=4.1"),
        (("pack", "empty.pkl", "--metric", "rmse=low"), 2, "--metric 'rmse=low': 'low' is no number", "--metric rmse=4.1"),
        (("pack", "empty.pkl", "--metric", "rmse=nan"), 2, "metric 'rmse' is nan", "a finite number"),
        (("pack", "empty.pkl", "--label", "=x"), 2, "--label '=x' is no pair", "--label team=pricing"),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_hint_on_stderr(tmp_path: Path, words: tuple[str, ...], code: int, error: str, hint: str) -> None:
    (tmp_path / "empty.pkl").write_bytes(b"")
    (tmp_path / "os.pkl").write_bytes(b"cposix\nsystem\n0" + pickle.dumps(models.iris_svc().model, protocol=2))
    done = run(tmp_path, *words)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert error in lines[0]
    assert len(lines) <= 2
    assert hint in done.stderr


def test_a_wrong_project_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "modelport.toml").write_text('modle = "a.pkl"\n')
    done = run(tmp_path, "pack")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: modelport.toml has no 'modle'; did you mean \"model\"?")


def test_debug_shows_the_traceback_and_keeps_the_exit_code(tmp_path: Path) -> None:
    done = run(tmp_path, "--debug", "pack", "none.pkl")
    assert done.returncode == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-2].startswith("error: there is no file none.pkl")


def test_an_error_of_the_system_is_one_line_too(tmp_path: Path, world: Path) -> None:
    (tmp_path / "store").write_text("a file, and no folder")
    done = run(tmp_path, "pack", world / "shipping.pkl")
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    command = [sys.executable, "-c", f"import os; os.read(0, 1); {MAIN}", "--help"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stdin is not None
        process.stdin.write(b"x")
        process.stdin.close()
        assert process.wait(60) == 1
        assert b"Traceback" not in process.stderr.read()


def test_importing_and_asking_for_help_loads_no_numpy_and_no_framework() -> None:
    heavy = ("numpy", "pandas", "sklearn", "xgboost", "onnxruntime", "httpx", "uvicorn", "starlette", "fsspec", "asyncio")
    for code in (
        "import modelport",
        "import modelport.cli.main as m; from contextlib import suppress\nwith suppress(SystemExit): m.main(['--help'])",
    ):
        script = f"import sys\n{code}\nprint([name for name in {heavy!r} if name in sys.modules])"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"


# Pack


def test_json_of_pack_is_the_manifest_and_nothing_else(world: Path) -> None:
    done = run(world, "pack", "shipping.pkl", "--json", "--to", "as-json")
    said = json.loads(done.stdout)
    assert (said["ref"], said["name"], said["format"]) == ("as-json", "shipping", 1)
    assert open_bundle(world / "as-json").digest == said["digest"]


def test_a_bundle_is_written_to_a_folder_or_tar_and_never_over_another(world: Path) -> None:
    for name in ("there/bundle", "bundle.tar"):
        done = run(world, "pack", "shipping.pkl", "--to", name)
        assert done.returncode == 0, done.stderr
        assert open_bundle(world / name).name == "shipping"
        again = run(world, "pack", "shipping.pkl", "--to", name)
        assert (again.returncode, again.stderr.splitlines()[0]) == (2, f"error: {name} exists")
    assert not [path for path in world.rglob("*") if path.name.startswith(".packing")]


def test_a_project_states_what_to_pack_and_flags_come_first(tmp_path: Path) -> None:
    models.write("xgboost_regressor", tmp_path)
    (tmp_path / "modelport.toml").write_text('name = "price"\nmodel = "shipping.pkl"\noutput = ["euros"]\n[metric]\nrmse = 4.1\n')
    first = json.loads(run(tmp_path, "pack", "--json").stdout)
    assert (first["ref"], first["signature"]["outputs"][0]["name"], first["lineage"]["metrics"]) == ("price:1", "euros", {"rmse": 4.1})
    second = json.loads(run(tmp_path, "pack", "--json", "--output", "dollars").stdout)
    assert (second["ref"], second["signature"]["outputs"][0]["name"]) == ("price:2", "dollars")


# References


def test_a_reference_is_a_name_in_the_store_a_bundle_or_a_model_file(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelport.cli.references import open_reference

    monkeypatch.setenv("MODELPORT_STORE", str(world / "store"))
    monkeypatch.setenv("MODELPORT_CACHE", str(world / "cache"))
    monkeypatch.chdir(world)
    (world / "shipping").mkdir(exist_ok=True)
    stored = open_reference("shipping")
    assert (stored.name, stored.version, stored.bundle.signature.outputs[0].name) == ("shipping", "1", "shipping_estimated_price")
    with (world / "ref.tar").open("wb") as out:
        stored.bundle.write_tar(out)
    assert open_reference("ref.tar").bundle.digest == stored.bundle.digest
    packed = open_reference("shipping.pkl", {"output": ("price",)})
    assert (packed.name, packed.version, packed.bundle.signature.outputs[0].name) == ("shipping", "", "price")
    assert open_reference("shipping.pkl", {"output": ("price",)}).bundle.folder == packed.bundle.folder
    assert open_reference("shipping.pkl", {"output": ("other",)}).bundle.folder != packed.bundle.folder
    (world / "folder").mkdir(exist_ok=True)
    with pytest.raises(UsageError, match="folder is a folder, and no bundle; and the store has no such name"):
        open_reference("folder")


def test_predict_takes_onnx_where_the_bundle_has_it_and_the_engine_that_is_asked_for(tmp_path: Path) -> None:
    mark = tmp_path / "the pickle was loaded"
    bundle = converted.iris(tmp_path / "bundle", {"model/model.pkl": converted.writes(mark)}, model="model/model.pkl")
    models.iris().head(3).to_csv(tmp_path / "rows.csv", index=False)
    words = ("predict", bundle.folder, "rows.csv", "--only-predictions")
    done = run(tmp_path, *words)
    assert [line.partition(",")[0] for line in done.stdout.splitlines()] == ["prediction", "setosa", "setosa", "setosa"]
    assert not mark.exists()
    refused = run(tmp_path, *words, "--engine", "native")
    assert (refused.returncode, refused.stdout, mark.exists()) == (3, "", False)
    run(tmp_path, *words, "--engine", "native", "--trust")
    assert mark.exists()


# What is printed


def test_tables_are_aligned_and_long_lists_are_cut() -> None:
    assert aligned([("a", "1"), ("long", "2"), ("b", "")]) == "a     1\nlong  2\nb"
    assert aligned([]) == ""
    assert table(("name", "n"), [("iris", "10"), ("x", "7")]) == "name  n\niris  10\nx     7"
    assert short_list(["a"] * 9) == "a, a, a, a, a, a and 3 more"
    assert [size(count) for count in (0, 999, 1000, 4100, 12_000_000, 3_000_000_000)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "4.1 kB",
        "12 MB",
        "3.0 GB",
    ]

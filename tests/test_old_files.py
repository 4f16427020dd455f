"""Model files as people keep them and as attackers make them, from end to end: what is a model is packed, and nothing else is loaded."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import joblib
import pytest
from click.testing import CliRunner

import models
import payloads
from modelport import engines
from modelport.cli.main import modelport
from modelport.errors import ModelFileError, Untrusted
from modelport.packing import Options, pack_file

RUN = (
    *("plain p0", "plain p2", "plain p5", "within a model", "joblib", "joblib object array", "compressed object array"),
    *(f"joblib {name}" for name in ("zlib", "gzip", "bz2", "xz", "lzma", "lz4")),
    *("gzip of a pickle", "bz2 of a pickle", "xz of a pickle", "ZF", "nested loads", "eval", "exec", "timeit", "cProfile"),
    *("a name by the memo", "Python 2's eval", "INST", "OBJ", "broken tail", "truncated"),
)
"""The payloads that run their command when joblib loads them; the others call what is not here, or harmless things."""


# Compressions


@pytest.mark.parametrize("compression", ["zlib", "gzip", "bz2", "xz", "lzma", "lz4", "zf"])
def test_a_joblib_file_of_every_compression_is_packed_and_answers_as_before(compression: str, tmp_path: Path) -> None:
    trained = models.iris_svc()
    path = tmp_path / "iris.joblib"
    if compression == "zf":
        path.write_bytes(payloads.zipped_by_old_joblib(pickle.dumps(trained.model, 2)))
    else:
        joblib.dump(trained.model, path, compress=(compression, 3))
    (tmp_path / "bundle").mkdir()
    bundle = pack_file(path, tmp_path / "bundle", Options())
    rows = trained.frame.iloc[::25]
    answers = [record["prediction"] for record in engines.load(bundle).answer(models.records(rows))]
    assert answers == trained.model.predict(rows).tolist()


# Payloads


Planted = dict[str, tuple[Path, Path]]
"""For each payload its file, and the file that it makes when it runs."""

LOADED = """
import sys
import joblib

for path in sys.argv[1:]:
    try:
        joblib.load(path)
    except Exception:
        pass
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = tmp_path_factory.mktemp("payloads")
    made: Planted = {}
    for index, name in enumerate(RUN):
        marker = folder / f"{index}.ran"
        make, _ = {**payloads.PAYLOADS, **payloads.BROKEN}[name]
        made[name] = (payloads.write(make(f"touch {marker}"), folder, f"{index}.pkl"), marker)
    return made


def test_the_payloads_do_run_when_they_are_loaded(planted: Planted) -> None:
    """So that what the tests below prove is worth something."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", LOADED, *(str(path) for path, _ in planted.values())], check=True)
    assert [name for name, (_, marker) in planted.items() if marker.exists()] == list(RUN)
    for _, marker in planted.values():
        marker.unlink()


@pytest.mark.parametrize("name", RUN)
def test_inspect_and_pack_refuse_a_payload_by_what_it_imports_and_do_not_run_it(name: str, planted: Planted, tmp_path: Path) -> None:
    path, marker = planted[name]
    refused = {**payloads.PAYLOADS, **payloads.BROKEN}[name][1]
    shown = CliRunner().invoke(modelport, ["inspect", str(path)])
    told: list[str] = []
    with pytest.raises((Untrusted, ModelFileError)) as caught:
        pack_file(path, tmp_path, Options(), told=told.append)
    assert told == []  # no environment was made for it, and no process started
    if name in payloads.BROKEN:
        assert isinstance(shown.exception, ModelFileError)
        assert refused in shown.exception.hint
        assert refused in caught.value.hint
    else:
        assert f"refused: {refused}" in shown.output
        assert isinstance(caught.value, Untrusted)
        assert refused in caught.value.message
    assert not marker.exists()


@pytest.mark.parametrize("verb", ["doctor", "predict", "serve"])
@pytest.mark.parametrize("name", ["within a model", "joblib lzma", "ZF", "broken tail"])
def test_no_verb_that_takes_a_model_file_runs_a_payload(verb: str, name: str, planted: Planted, tmp_path: Path) -> None:
    path, marker = planted[name]
    (tmp_path / "rows.csv").write_text("x0,x1,x2,x3\n1,2,3,4\n")
    words = {"doctor": [], "predict": [str(tmp_path / "rows.csv")], "serve": ["--port", "0"]}[verb]
    done = CliRunner(env={"MODELPORT_CACHE": str(tmp_path)}).invoke(modelport, [verb, str(path), *words], standalone_mode=False)
    refused = {**payloads.PAYLOADS, **payloads.BROKEN}[name][1]
    said = done.output if verb == "doctor" else f"{done.exception.message} {done.exception.hint}"  # type: ignore[union-attr]
    assert f"would import {refused}" in said
    assert not marker.exists()


# Functions of another Python


WATCHED = """
import json
import sys

found = []
sys.addaudithook(lambda event, args: found.append(".".join(map(str, args))) if event == "pickle.find_class" else None)
from modelport.cli.main import main

try:
    main(sys.argv[1:])
finally:
    print(json.dumps(found))
"""


@pytest.mark.parametrize("verb", ["inspect", "pack", "serve"])
@pytest.mark.parametrize(
    "python", ["3.8", pytest.param("3.13", marks=pytest.mark.skipif(sys.version_info[:2] == (3, 13), reason="is 3.13"))]
)
@pytest.mark.parametrize("file", ["function.pkl", "pipeline.pkl"])
def test_the_code_of_functions_of_another_python_is_refused_and_never_tried(verb: str, python: str, file: str, tmp_path: Path) -> None:
    """Loading it is an error in one Python, and in another the end of the process."""
    path = models.OLD / f"cloudpickle-python{python}" / file
    environment = {**os.environ, "MODELPORT_STORE": str(tmp_path), "MODELPORT_CACHE": str(tmp_path)}
    words = [verb, str(path)] + (["--trust"] if verb != "inspect" else [])
    done = subprocess.run([sys.executable, "-c", WATCHED, *words], capture_output=True, text=True, env=environment, check=False)
    assert json.loads(done.stdout.splitlines()[-1]) == []
    compiled = {"3.8": "3.8 to 3.10", "3.13": "3.13"}[python]
    here = ".".join(map(str, sys.version_info[:2]))
    assert f"holds functions compiled by Python {compiled}: this is {here}, which cannot run them" in done.stdout + done.stderr
    assert done.returncode == (0 if verb == "inspect" else 3)


# Bombs


def deep(opening: bytes) -> bytes:
    return b"\x80\x04" + opening * 1_000_000 + b"."


def of_memory(word: str, length: int) -> bytes:
    return b"\x80\x04" + payloads.named("builtins", word) + b"\x8a\x06" + length.to_bytes(6, "little") + b"\x85R."


def doubling() -> bytes:
    """A list of two of the list before, and so on: what is written out of it is endless."""
    return b"\x80\x04]\x94" + b"".join(b"]\x94(h" + bytes([index]) + b"h" + bytes([index]) + b"e" for index in range(200)) + b"."


BOMBS = {
    "bytes": of_memory("bytes", 10**12),
    "bytearray": of_memory("bytearray", 10**12),
    "a huge array": b"\x80\x04"
    + payloads.instance(
        "joblib.numpy_pickle",
        "NumpyArrayWrapper",
        dtype=payloads.named("numpy", "dtype") + payloads.text("f8") + b"\x89\x88\x87R",
        shape=b"\x8a\x06" + (10**12).to_bytes(6, "little") + b"\x85",
        order=payloads.text("C"),
    )
    + b".",
    "nested": deep(b"]"),
    "marks": deep(b"("),
    "a memo far away": b"\x80\x04]r\xff\xff\xff\xff.",
    "lists of lists": doubling(),
    "zlib": zlib.compress(b"\x80\x04]" + b"0" * (200 * 1024**2), 9),
}

MEASURED = """
import json
import resource
import sys
from pathlib import Path

import modelport
from modelport.errors import ModelFileError
from modelport.packing import Options, pack_file

said = []
for act in (lambda path: modelport.inspect(path), lambda path: pack_file(path, Path(sys.argv[2]), Options())):
    try:
        act(Path(sys.argv[1]))
        said.append("")
    except ModelFileError as error:
        said.append(error.message)
taken = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps({"said": said, "kb": max(one.ru_maxrss for one in taken), "s": sum(one.ru_utime + one.ru_stime for one in taken)}))
"""


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_gets_one_clear_line_within_the_memory_and_time_allowed(name: str, tmp_path: Path) -> None:
    path = payloads.write(BOMBS[name], tmp_path)
    done = subprocess.run([sys.executable, "-c", MEASURED, str(path), str(tmp_path)], capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    inspected, packed = told["said"]
    assert packed.startswith(str(path))
    assert "\n" not in packed
    assert inspected in (packed, "")  # what is nested may be read, and is no model
    assert told["kb"] < 2.5 * 1024**2
    assert told["s"] < 60

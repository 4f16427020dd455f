"""A project's training command is run in its folder, and what it left is looked at before anything is packed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from modelport import training
from modelport.errors import TrainingFailed, UsageError
from modelport.project import Project, Train

WRITE = "import sys; open('model.bin', 'wb').write(b'model'); open('metrics.json', 'w').write(sys.argv[1])"


def project(folder: Path, *command: str, metrics: bool = True, model: str = "model.bin", **options: object) -> Project:
    return Project(folder, folder / model, options, Train(command, folder / "metrics.json" if metrics else None))


def trained(folder: Path, metrics: str) -> dict[str, float]:
    return training.run(project(folder, "python", "-c", WRITE, metrics))


def test_the_command_runs_in_the_projects_folder_and_its_metrics_are_given_back(tmp_path: Path) -> None:
    assert trained(tmp_path, '{"accuracy": 0.97, "rows": 120}') == {"accuracy": 0.97, "rows": 120.0}
    assert (tmp_path / "model.bin").read_bytes() == b"model"


def test_python_is_this_python_and_what_is_printed_goes_to_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = "import sys; print(sys.prefix); open('model.bin', 'wb')"
    assert training.run(project(tmp_path, "python", "-c", script, metrics=False)) == {}
    assert capfd.readouterr() == ("", f"{sys.prefix}\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "do not read as JSON"),
        ("{'accuracy': 1}", "do not read as JSON"),
        ("[" * 100_000, "do not read as JSON"),
        ("[0.97]", "are [0.97]"),
        ('{"accuracy": "high"}', "the metric 'accuracy'"),
        ('{"ok": true}', "the metric 'ok'"),
        ('{"test": {"rmse": 1}}', "the metric 'test'"),
        ('{"rmse": NaN}', "is nan, and no finite number"),
        ('{"rmse": 1e999}', "is inf, and no finite number"),
        ('{"rmse": 1' + "0" * 400 + "}", "the metric 'rmse'"),
        (json.dumps(dict.fromkeys(map(str, range(1001)), 0)), "are 1,001; at most 1,000 are kept"),
    ],
)
def test_metrics_that_are_none_are_named_with_their_file(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(TrainingFailed) as caught:
        trained(tmp_path, text)
    assert words in caught.value.message
    assert str(tmp_path / "metrics.json") in caught.value.message


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("raise SystemExit(3)", "exited with code 3"),
        ("import os; os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
        ("pass", "ended well, and there is no {folder}/model.bin"),
        ("open('model.bin', 'w')", "ended well, and there is no {folder}/metrics.json"),
    ],
)
def test_a_command_that_fails_or_leaves_a_file_unwritten_is_said(tmp_path: Path, script: str, message: str) -> None:
    with pytest.raises(TrainingFailed) as caught:
        training.run(project(tmp_path, "python", "-c", script))
    assert caught.value.message.endswith(message.format(folder=tmp_path))


@pytest.mark.parametrize("stale", ["model.bin", "metrics.json"])
def test_a_file_of_an_earlier_training_is_not_taken_for_a_new_one(tmp_path: Path, stale: str) -> None:
    trained(tmp_path, "{}")
    fresh = {"model.bin", "metrics.json"} - {stale}
    with pytest.raises(TrainingFailed) as caught:
        training.run(project(tmp_path, "python", "-c", f"open({fresh.pop()!r}, 'w').write('{{}}')"))
    assert f"ended well, and it has not written {tmp_path / stale}" in caught.value.message


def test_where_the_model_is_code_what_it_reads_is_what_training_writes(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text("def predict(a: int) -> int: return a\n")
    (tmp_path / "parameters.json").write_text("{}")
    about = {"metrics": False, "model": "service.py", "include": [tmp_path / "parameters.json"]}
    with pytest.raises(TrainingFailed, match="has not written"):
        training.run(project(tmp_path, "python", "-c", "pass", **about))  # type: ignore[arg-type]
    assert training.run(project(tmp_path, "python", "-c", "open('parameters.json', 'w').write('[]')", **about)) == {}  # type: ignore[arg-type]


def test_a_program_that_is_not_there_and_a_project_without_training_are_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'pyhton' cannot be run: No such file or directory"):
        training.run(project(tmp_path, "pyhton"))
    with pytest.raises(UsageError, match=r"modelport.toml has no \[train\]"):
        training.run(Project(tmp_path, tmp_path / "model.bin", {}))
    with pytest.raises(UsageError, match=r"modelport.toml has no model"):
        training.run(Project(tmp_path, None, {}, Train(("make",))))

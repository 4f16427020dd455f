"""A project's training command is run, and what it wrote is looked at."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from modelport.errors import TrainingFailed, UsageError
from modelport.project import FILE, Project, Train, is_finite

_MOST_METRICS = 1000


def run(project: Project) -> dict[str, float]:
    """Run the training command of a project in its folder; the metrics that it wrote.

    Its output goes to standard error as it comes, and programs beside this Python are found first: `python` is this Python. UsageError when
    the project names no command, or one that does not exist; TrainingFailed when it fails, or leaves the model or the metrics unwritten.
    """
    train, model = project.train, project.model
    if train is None or model is None:
        lacks = "[train]" if train is None else "model"
        hint = '[train], and below it command = "python train.py".' if train is None else 'Name what training writes: model = "model.pkl".'
        raise UsageError(f"{project.folder / FILE} has no {lacks}", hint=hint)
    written = [model] if model.suffix != ".py" else [path for path in project.options.get("include", []) if path.suffix != ".py"]
    before = {path: _state(path) for path in [*written, *([train.metrics] if train.metrics else [])]}
    _execute(project.folder, train)
    if not model.exists():
        raise TrainingFailed(f"{_shown(train)} ended well, and there is no {model}", hint=f"{FILE} names it as the model.")
    for path, state in before.items():
        if state == _state(path):
            what = "there is no" if state is None else "it has not written"
            about = "as the file of its metrics" if path == train.metrics else "as what it makes"
            raise TrainingFailed(f"{_shown(train)} ended well, and {what} {path}", hint=f"{FILE} names it {about}.")
    return {} if train.metrics is None else read_metrics(train.metrics)


def read_metrics(path: Path) -> dict[str, float]:
    """The metrics in a JSON file: an object of finite numbers. TrainingFailed names what is wrong."""
    right = 'It is an object of numbers: {"accuracy": 0.97}.'
    try:
        metrics = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=float)
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingFailed(f"the metrics {path} do not read as JSON: {error}", hint=right) from error
    if not isinstance(metrics, dict):
        raise TrainingFailed(f"the metrics {path} are {str(metrics)[:60]}", hint=right)
    if len(metrics) > _MOST_METRICS:
        raise TrainingFailed(f"the metrics {path} are {len(metrics):,}; at most {_MOST_METRICS:,} are kept", hint=right)
    for name, value in metrics.items():
        if not is_finite(value):
            raise TrainingFailed(f"the metric {name[:60]!r} in {path} is {str(value)[:60]}, and no finite number", hint=right)
    return {name: float(value) for name, value in metrics.items()}


def _execute(folder: Path, train: Train) -> None:
    beside = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": os.pathsep.join(filter(None, (beside, os.environ.get("PATH", ""))))}
    sys.stderr.flush()
    try:
        done = subprocess.run(train.command, cwd=folder, env=environment, stdout=2, check=False)  # noqa: S603  the project's own command
    except (FileNotFoundError, PermissionError) as error:
        program = train.command[0]
        hint = f"{FILE} names it as the [train] command, which runs in the project's folder."
        raise UsageError(f"{program!r} cannot be run: {error.strerror}", hint=hint) from error
    if done.returncode > 0:
        raise TrainingFailed(f"{_shown(train)} exited with code {done.returncode}", hint="What it printed stands above.")
    if done.returncode < 0:
        raise TrainingFailed(f"{_shown(train)} was ended by {_signal(-done.returncode)}", hint="SIGKILL is mostly a want of memory.")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _shown(train: Train) -> str:
    return f"`{shlex.join(train.command)}`"


def _state(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is written; of a folder, that of the newest file in it. None where there is none."""
    files = [path] if not path.is_dir() else [one for one in path.rglob("*") if one.is_file()]
    found = [(one.stat().st_mtime_ns, one.stat().st_ino, one.stat().st_size) for one in files if one.exists()]
    return max(found, default=None)

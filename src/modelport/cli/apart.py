"""Packs a model file in a process of its own: what its code does cannot touch the process that serves, and it is read anew each time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from modelport.errors import ModelFailed
from modelport.serving.control import Failed
from modelport.signature import Signature


def pack(path: Path, folder: Path, options: Mapping[str, Any]) -> None:
    """As `pack_file` with these options. What the model's code prints, and what is told of progress, goes to standard error.

    The ModelportError with which packing fails; ModelFailed when the process ends without a word.
    """
    stated = {key: value.to_dict() if isinstance(value, Signature) else value for key, value in options.items()}
    words = json.dumps({"path": str(path), "folder": str(folder), "options": stated}, default=str)
    # Who starts it may take the exit code for itself (a supervisor that looks after every child): only what is said counts.
    command = [sys.executable, "-P", "-m", "modelport.cli.apart"]
    done = subprocess.run(command, input=words.encode(), stdout=subprocess.PIPE, check=False)  # noqa: S603  words that are ours
    if done.stdout == _DONE:
        return
    try:
        failed = msgspec.json.decode(done.stdout, type=Failed)
    except msgspec.DecodeError:
        raise ModelFailed(f"the process that loaded {path} has ended: the model's code may have crashed it") from None
    raise failed.error()


_DONE = b"{}"


def main() -> None:
    """Pack what standard input says, and say how it went on standard output."""
    from modelport.cli.references import tell
    from modelport.packing import Options, pack_file

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl+C in a terminal is for the whole group
    out = os.dup(1)
    os.dup2(2, 1)
    words = json.load(sys.stdin)
    try:
        pack_file(Path(words["path"]), Path(words["folder"]), Options(**words["options"]), told=tell)
        said = _DONE
    except Exception as error:  # noqa: BLE001  whatever it is, it is told
        said = msgspec.json.encode(Failed.of(error))
    sys.stdout.flush()
    os.write(out, said)
    os._exit(0)  # threads of a model, or a library that ends slowly, have no say


if __name__ == "__main__":
    main()

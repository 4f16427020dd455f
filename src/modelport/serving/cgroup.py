"""What the control group of this process has counted: https://docs.kernel.org/admin-guide/cgroup-v2.html, and cgroup-v1/memory.html."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def out_of_memory_kills(root: Path = _ROOT, own: Path = _OWN) -> int:
    """How many processes of the group the system has ended so far for want of memory; 0 where that is not counted."""
    for file in _files(root, own):
        for line in _lines(file):
            name, _, number = line.partition(" ")
            if name == "oom_kill" and number.isdecimal():
                return int(number)
    return 0


def offer(process: int, proc: Path = Path("/proc")) -> None:
    """Where there is no memory left let the system end that process before this one: https://man7.org/linux/man-pages/man5/proc.5.html.

    Its score is put above this one's, which a platform may have set already: Kubernetes gives up to 1000, the most there is.
    """
    with suppress(OSError):  # it is gone already, or the system knows no such thing
        own = int((proc / "self" / "oom_score_adj").read_text())
        (proc / str(process) / "oom_score_adj").write_text(str(min(1000, own + 500)))


def _files(root: Path, own: Path) -> list[Path]:
    """Where the count may stand, first what is most likely. In a container the group's own files may stand at the root."""
    files: list[Path] = []
    for line in _lines(own):
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):  # version 1
            files[:0] = [root / "memory" / path.lstrip("/") / "memory.oom_control", root / "memory" / "memory.oom_control"]
        elif not controllers:
            files += [root / path.lstrip("/") / "memory.events", root / "memory.events"]
    return files


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []

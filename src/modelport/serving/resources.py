"""What this process may use of the machine: the cores and the memory that its container leaves it, and its memory in use."""

from __future__ import annotations

import math
import os
import resource
from contextlib import suppress
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_OTHER_FILES = 128
"""Files that a process has open beside its connections: libraries, its board, its log, the sockets of the workers."""
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "LOKY_MAX_CPU_COUNT",
)  # fmt: skip
"""What numerical libraries read once, when they are loaded."""


def cores(cgroup: Path = _CGROUP) -> int:
    """How many cores' worth of time there is, at least one: those this process may run on, and the cgroup's quota rounded up."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def memory_limit(cgroup: Path = _CGROUP) -> int | None:
    """The bytes that the cgroup lets its processes have together; None where there is no limit."""
    for file in (cgroup / "memory.max", cgroup / "memory" / "memory.limit_in_bytes"):
        text = _read(file)
        if text.isdecimal() and int(text) < 1 << 60:  # version 1 says a number near 2^63 where there is no limit
            return int(text)
    return None


def memory_left(cgroup: Path = _CGROUP) -> float:
    """The bytes that the processes of the cgroup may still take, up to nine tenths of their limit; infinity where there is none."""
    limit_bytes = memory_limit(cgroup)
    if limit_bytes is None:
        return math.inf
    used = (_read(file) for file in (cgroup / "memory.current", cgroup / "memory" / "memory.usage_in_bytes"))
    return 0.9 * limit_bytes - next((int(text) for text in used if text.isdecimal()), limit_bytes)


def memory_of(process: int | str = "self") -> int:
    """Resident bytes of a process; 0 where the machine does not say."""
    fields = _read(Path(f"/proc/{process}/statm")).split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else 0


def thread_shares(threads: int) -> dict[str, str]:
    """The environment that gives each numerical library so many threads; a library's own variable that is set already stays as it is.

    OMP_NUM_THREADS is for all of them: from it `modelport.frameworks.threads` tells those that read none.
    """
    return {name: str(threads) for name in _THREAD_VARIABLES if name not in os.environ} | {"OMP_NUM_THREADS": str(threads)}


def raise_open_files() -> None:
    """Let this process and those it starts have as many files and connections open as the system allows; the default is often 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS names a limit that it does not take
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def most_connections(most: int) -> int:
    """How many connections a process may have, at most `most`, that leave it the other files it needs."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if limit == resource.RLIM_INFINITY else max(16, min(most, limit - _OTHER_FILES))


def _quota(cgroup: Path) -> float | None:
    """The cgroup's share of time, in cores: https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files."""
    limit, _, period = _read(cgroup / "cpu.max").partition(" ")
    if not limit:
        limit, period = _read(cgroup / "cpu" / "cpu.cfs_quota_us"), _read(cgroup / "cpu" / "cpu.cfs_period_us")
    return int(limit) / int(period) if limit.isdecimal() and period.isdecimal() else None


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""

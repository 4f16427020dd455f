"""Cores and memory, as the cgroup of a container leaves them."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from modelport.serving import resources
from modelport.serving.settings import Settings
from modelport.serving.worker import _has_room


def cgroup(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("-", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")
    return folder


@pytest.mark.parametrize(
    "files",
    [{"cpu.max": "50000 100000"}, {"cpu__cpu.cfs_quota_us": "100000", "cpu__cpu.cfs_period_us": "100000"}],
)
def test_a_quota_of_up_to_one_core_is_one_core(tmp_path: Path, files: dict[str, str]) -> None:
    assert resources.cores(cgroup(tmp_path, **files)) == 1


@pytest.mark.parametrize(
    "files",
    [{}, {"cpu.max": "max 100000"}, {"cpu__cpu.cfs_quota_us": "-1", "cpu__cpu.cfs_period_us": "100000"}, {"cpu.max": "9999999 100000"}],
)
def test_without_a_quota_it_is_the_cores_that_the_process_may_use(tmp_path: Path, files: dict[str, str]) -> None:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert resources.cores(cgroup(tmp_path, **files)) == allowed


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"memory.max": "134217728"}, 134217728),
        ({"memory.max": "max"}, None),
        ({"memory__memory.limit_in_bytes": "268435456"}, 268435456),
        ({"memory__memory.limit_in_bytes": "9223372036854771712"}, None),
        ({}, None),
    ],
)
def test_the_memory_limit_is_that_of_the_cgroup(tmp_path: Path, files: dict[str, str], limit: int | None) -> None:
    assert resources.memory_limit(cgroup(tmp_path, **files)) == limit


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"memory.max": "1000", "memory.current": "300"}, 600),
        ({"memory__memory.limit_in_bytes": "1000", "memory__memory.usage_in_bytes": "950"}, -50),
        ({"memory.max": "1000"}, -100),
        ({"memory.max": "max", "memory.current": "300"}, math.inf),
        ({}, math.inf),
    ],
)
def test_the_memory_that_is_left_is_within_nine_tenths_of_the_limit(tmp_path: Path, files: dict[str, str], left: float) -> None:
    assert resources.memory_left(cgroup(tmp_path, **files)) == left


def test_a_library_more_is_not_loaded_into_memory_that_was_planned() -> None:
    assert not _has_room(Settings(max_memory_bytes=2**40))
    assert _has_room(Settings()) == (resources.memory_left() > 200 * 2**20 * resources.cores())


def test_libraries_get_their_share_of_threads_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    shares = resources.thread_shares(2)
    assert (shares["OMP_NUM_THREADS"], shares["MKL_NUM_THREADS"]) == ("2", "2")
    assert "OPENBLAS_NUM_THREADS" not in shares


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux says it there")
def test_memory_in_use_is_known() -> None:
    assert resources.memory_of() > 2**20
    assert resources.memory_of(2**30) == 0

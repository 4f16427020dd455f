"""Where the count of processes that were ended for want of memory stands, in all the forms that control groups have."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelport.serving.cgroup import offer, out_of_memory_kills

V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"
V2 = "low 0\nhigh 0\nmax 12\noom 4\noom_kill 4\noom_group_kill 0\n"


@pytest.mark.parametrize(
    ("own", "file", "text", "kills"),
    [
        ("0::/app.slice/modelport\n", "app.slice/modelport/memory.events", V2, 4),
        ("0::/\n", "memory.events", V2, 4),  # in a container, its group is the root
        ("0::/../other\n", "memory.events", V2, 4),  # and it may be named by a path that leads out of what is mounted
        ("9:name=systemd:/\n4:cpu,memory:/docker/1\n0::/\n", "memory/docker/1/memory.oom_control", V1, 3),
        ("4:memory:/docker/1\n", "memory/memory.oom_control", V1, 3),
        ("0::/\n", "memory.events", "low 0\n", 0),
        ("", "elsewhere", "", 0),
    ],
)
def test_the_count_is_found(tmp_path: Path, own: str, file: str, text: str, kills: int) -> None:
    root = tmp_path / "cgroup"
    (root / file).parent.mkdir(parents=True)
    (root / file).write_text(text)
    (tmp_path / "own").write_text(own)
    assert out_of_memory_kills(root, tmp_path / "own") == kills


def test_where_nothing_is_counted_it_is_0(tmp_path: Path) -> None:
    assert out_of_memory_kills(tmp_path, tmp_path / "none") == 0


@pytest.mark.parametrize(("own", "offered"), [("0\n", "500"), ("-998\n", "-498"), ("968\n", "1000"), ("1000\n", "1000")])
def test_a_process_is_offered_in_place_of_this_one(own: str, offered: str, tmp_path: Path) -> None:
    """Whatever score the platform has given to both."""
    for process in ("self", "7"):
        (tmp_path / process).mkdir()
        (tmp_path / process / "oom_score_adj").write_text(own)
    offer(7, tmp_path)
    assert (tmp_path / "7" / "oom_score_adj").read_text() == offered
    offer(8, tmp_path)  # gone already

"""What is kept to save time and can be made again: folders under one cache, of which those used last stay."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_SWEPT_AFTER_S = 24 * 3600.0


def root() -> Path:
    """Where all caches are: MODELPORT_CACHE, else modelport in XDG_CACHE_HOME or ~/.cache. It need not exist."""
    base = os.environ.get("MODELPORT_CACHE")
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelport"


def made(cache: Path, name: str, fill: Callable[[Path], None], keep: int, *, spare_s: float = 0.0) -> Path:
    """The folder `name` of a cache, filled once by `fill`, and whole or not there at all; of the others those used last are kept.

    `fill` is called with an empty folder, which is thrown away when it raises or the process is killed.
    """
    target = cache / name
    if target.is_dir():
        os.utime(target)
        return target
    cache.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".making-", dir=cache))
    try:
        fill(staging)
        try:
            staging.rename(target)
        except OSError:
            if not target.is_dir():  # another process may have made the same just now
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    prune(cache, keep, spare_s=spare_s)
    return target


def prune(cache: Path, keep: int, *, spare_s: float = 0.0) -> None:
    """Keep the `keep` folders used last, and those used in the last `spare_s` seconds.

    What a killed run left a day ago, under a name with a dot, is swept away.
    """
    used: dict[Path, float] = {}
    for kept in cache.iterdir():
        with suppress(FileNotFoundError):  # another process may be pruning too
            used[kept] = kept.stat().st_mtime
    now = time.time()
    staging = [one for one in used if one.name.startswith(".")]
    whole = sorted(used.keys() - set(staging), key=lambda one: -used[one])
    swept = [one for one in staging if used[one] < now - _SWEPT_AFTER_S]
    for one in [*swept, *(one for one in whole[keep:] if used[one] <= now - spare_s)]:
        shutil.rmtree(one, ignore_errors=True)

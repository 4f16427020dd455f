"""`python -m bench [NAME ...]`: run the measurements and write their tables to bench/results/."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

MEASUREMENTS = ("startup", "batch_memory")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    names = sys.argv[1:] or MEASUREMENTS
    for name in names:
        if name not in MEASUREMENTS:
            sys.exit(f"there is no measurement {name!r}: {', '.join(MEASUREMENTS)}")
        table = import_module(f"bench.{name}").run()
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.md").write_text(table)
        print(table)


main()

"""`python -m bench [NAME ...] [OPTION ...]`: run the measurements and write their tables.

Without options the tables go to bench/results/. Options go to the last measurement named, and its tables to bench/.work/results/: a trial.
`--out FOLDER` says where instead.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

MEASUREMENTS = ("startup", "batch_memory", "comparison")
ON_REQUEST = ("soak", "overload", "workers", "fastpath", "pictures", "boots", "parity", "engines", "networks", "images", "fastai")
RESULTS = Path(__file__).parent / "results"
TRIALS = Path(__file__).parent / ".work" / "results"


def main(words: list[str]) -> None:
    folder = None
    if "--out" in words:
        at = words.index("--out")
        folder = Path(words[at + 1])
        words = words[:at] + words[at + 2 :]
    first_option = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
    names, options = words[:first_option] or list(MEASUREMENTS), words[first_option:]
    folder = folder or (TRIALS if options else RESULTS)
    for name in names:
        if name not in (*MEASUREMENTS, *ON_REQUEST):
            sys.exit(f"there is no measurement {name!r}: {', '.join((*MEASUREMENTS, *ON_REQUEST))}")
        found = import_module(f"bench.{name}").run(*(options if name == names[-1] else ()))
        files = found if isinstance(found, dict) else {f"{name}.md": found}
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text)
        print(next(iter(files.values())))
        print(f"written to {folder}: {', '.join(files)}", file=sys.stderr)


main(sys.argv[1:])

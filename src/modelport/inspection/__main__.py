"""The command line of the child process: `python -m modelport.inspection FILE BYTES SECONDS`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from modelport.inspection.child import answer


def main() -> None:
    """Answer for the file named on the command line. Written at once, so that a death before it leaves nothing."""
    path, memory, seconds = sys.argv[1:4]
    said = answer(Path(path), int(memory), float(seconds))
    sys.stdout.write(json.dumps(said, default=str))


main()

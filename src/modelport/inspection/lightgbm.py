"""What a LightGBM model says of itself, in its text format."""

from __future__ import annotations

import json
import re
from typing import Any

from modelport.inspection.bounds import Malformed

_PARAMETER = re.compile(r"\[(\w+): (.*)\]")


def from_text(text: str) -> dict[str, Any]:
    """The root of `Contents` for the format lightgbm-text. Malformed when the text ends before its trees do."""
    head, _, rest = text.partition("\nTree=")
    header = dict(line.partition("=")[::2] for line in head.splitlines()[1:] if "=" in line)
    tail = rest[rest.rfind("\nend of trees") :] if "\nend of trees" in rest else ""
    if "version" not in header or (rest and not tail):
        raise Malformed("is cut short: a LightGBM model says 'end of trees' after its last tree")
    categories = re.search(r"^pandas_categorical:(.*)$", tail, re.MULTILINE)
    return {
        "version": header["version"],
        "objective": header.get("objective", ""),
        "num_class": _integer(header.get("num_class"), 1),
        "max_feature_idx": _integer(header.get("max_feature_idx"), -1),
        "feature_names": header.get("feature_names", "").split(),
        "feature_infos": header.get("feature_infos", "").split(),
        "pandas_categorical": _lists(categories[1]) if categories else [],
        "trees": len(header.get("tree_sizes", "").split()) or text.count("\nTree="),
        "parameters": {match[1]: match[2] for match in map(_PARAMETER.fullmatch, tail.splitlines()) if match},
        "header": header,
    }


def _integer(text: str | None, default: int) -> int:
    return int(text) if text is not None and re.fullmatch(r"-?[0-9]{1,9}", text) else default


def _lists(text: str) -> list[list[Any]]:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [values for values in read if isinstance(values, list)] if isinstance(read, list) else []

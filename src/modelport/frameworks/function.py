"""A Python function that answers for itself, in a .py file."""

from __future__ import annotations

from typing import Any

from modelport.frameworks import Card, Contents


def imports() -> frozenset[str]:
    """Nothing: a .py file is no pickle. It runs as it is."""
    return frozenset()


def detect(contents: Contents) -> Card | None:
    """The card of a .py file that defines functions: of `predict` when there is one, else of the first that is public."""
    if contents.format != "python":
        return None
    public = [function for function in contents.root["functions"] if not function["name"].startswith("_")]
    if not public:
        return None
    chosen = next((function for function in public if function["name"] == "predict"), public[0])
    names = tuple(parameter["name"] for parameter in chosen["parameters"])
    details: dict[str, Any] = {"signature": _signature(chosen), "doc": chosen["doc"].partition("\n")[0]}
    others = [function["name"] for function in public if function is not chosen]
    if others:
        details["other_functions"] = others
    return Card("function", f"{contents.path.stem}.{chosen['name']}", "", None, names, len(names), details=details)


def _signature(function: dict[str, Any]) -> str:
    """As it is written: "predict(a: float, b: int = 3) -> float"."""
    parameters = []
    for parameter in function["parameters"]:
        annotation = f": {parameter['annotation']}" if parameter["annotation"] else ""
        default = f" = {parameter['default']}" if parameter["default"] else ""
        parameters.append(f"{parameter['name']}{annotation}{default}")
    returns = f" -> {function['returns']}" if function["returns"] else ""
    return f"{function['name']}({', '.join(parameters)}){returns}"

"""A Python function that answers for itself, in a .py file."""

from __future__ import annotations

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
    details = {"function": chosen["name"], "parameters": chosen["parameters"], "returns": chosen["returns"], "doc": chosen["doc"]}
    others = [function["name"] for function in public if function is not chosen]
    if others:
        details["others"] = others
    return Card("function", f"{contents.path.stem}.{chosen['name']}", "", None, names, len(names), details=details)

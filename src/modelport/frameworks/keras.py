"""Keras 3: models in .keras files."""

from __future__ import annotations

from modelport.frameworks import Card, Contents


def imports() -> frozenset[str]:
    """Nothing: a .keras file is no pickle."""
    return frozenset()


def detect(contents: Contents) -> Card | None:
    """The card of a .keras file."""
    if contents.format != "keras":
        return None
    root = contents.root
    layers = [layer["class"] for layer in root["layers"]]
    details = {"layers": layers, "inputs": root["inputs"], "saved": root["date_saved"]}
    if root["code"]:
        details["code"] = root["code"]
    names = tuple(field["name"] for field in root["inputs"])
    return Card("keras", f"keras.{root['class']}", "keras", root["keras_version"] or None, names, details=details)

"""Modelport takes a trained model file and makes it a live, watched service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelport.bundle import Bundle as Bundle
    from modelport.client import Client as Client
    from modelport.errors import InvalidInput as InvalidInput
    from modelport.errors import ModelportError as ModelportError
    from modelport.inspection import inspect as inspect
    from modelport.packing import pack as pack
    from modelport.signature import Field as Field
    from modelport.signature import Signature as Signature
    from modelport.store import Store as Store

__version__ = "0.1.0"

_HOME = {
    "Bundle": "bundle",
    "Client": "client",
    "Field": "signature",
    "InvalidInput": "errors",
    "ModelportError": "errors",
    "Signature": "signature",
    "Store": "store",
    "inspect": "inspection",
    "pack": "packing",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import modelport` itself imports nothing heavy."""
    if name not in _HOME:
        raise AttributeError(f"module 'modelport' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"modelport.{_HOME[name]}"), name)
    globals()[name] = value
    return value

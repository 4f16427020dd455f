"""What a Python file defines, read from its syntax and not run."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from typing import Any

from modelport.inspection.bounds import Malformed

_BYTES = 10 * 1024**2


def from_source(data: bytes) -> dict[str, Any]:
    """The root of `Contents` for the format python. Malformed when it does not parse."""
    if len(data) > _BYTES:
        raise Malformed(f"is a bomb: {len(data) // 1024**2} MB of Python")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(data)
    except SyntaxError as error:
        raise Malformed(f"is no Python: line {error.lineno}: {error.msg}") from None
    functions = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return {
        "doc": ast.get_docstring(tree) or "",
        "functions": [_function(node) for node in functions],
        "public": _public(tree),
        "classes": [node.name for node in tree.body if isinstance(node, ast.ClassDef)],
        "imports": sorted(set(_imports(tree))),
    }


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, Any]:
    positional = [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(positional) - len(node.args.defaults)) + list(node.args.defaults)
    parameters = [*zip(positional, defaults, strict=True), *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
    return {
        "name": node.name,
        "line": node.lineno,
        "doc": ast.get_docstring(node) or "",
        "parameters": [{"name": arg.arg, "annotation": _text(arg.annotation), "default": _text(default)} for arg, default in parameters],
        "returns": _text(node.returns),
        "answers": any(isinstance(inner, ast.Return) and inner.value is not None for inner in _own(node)),
    }


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """What stands in a function, without what stands in functions and classes in it."""
    for inner in ast.iter_child_nodes(node):
        if not isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            yield inner
            yield from _own(inner)


def _public(tree: ast.Module) -> list[str] | None:
    """The names in `__all__`; None where there is none, or one that is put together."""
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, (ast.List, ast.Tuple)):
            continue
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets):
            return [str(part.value) for part in node.value.elts if isinstance(part, ast.Constant)]
    return None


def _text(node: ast.expr | None) -> str | None:
    return None if node is None else ast.unparse(node)


def _imports(tree: ast.Module) -> list[str]:
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
    return found

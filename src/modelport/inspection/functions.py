"""Which Python can run the functions whose code a pickle holds.

cloudpickle writes a function of a script or notebook as its bytecode. Another Python refuses that, or runs it and ends by a signal: no
process of ours may try.
"""

from __future__ import annotations

import sys

from modelport.frameworks import Contents, instances

_MADE = "cloudpickle.cloudpickle._builtin_type.__call__"
"""What cloudpickle makes a code object with: the type that it finds by the name "CodeType", called with the fields of the object."""
_FEWEST_FIELDS = 13
"""What is made with fewer is no code: a method, of what it is found by and whose it is."""
_BYTECODE = 6
"""Which of the fields is the bytecode, from Python 3.8 on."""
_BY_FIELDS = {15: "3.7 or older", 16: "3.8 to 3.10"}
_BY_START = {151: "3.11 or 3.12", 149: "3.13"}
"""The number of the opcode RESUME, with which a function starts, from Python 3.11 on."""
_LATER = "3.14 or later"
_HERE = {(3, 11): "3.11 or 3.12", (3, 12): "3.11 or 3.12", (3, 13): "3.13"}.get(sys.version_info[:2], _LATER)


def foreign_python(contents: Contents) -> str:
    """The Python whose code the functions in a pickle are, when this one cannot run it: "3.8 to 3.10"; else ""."""
    if _MADE not in contents.imports:
        return ""
    found = {_python(made.args) for made in instances(contents.root, _MADE) if len(made.args) >= _FEWEST_FIELDS}
    return ", ".join(sorted(found - {_HERE}))


def _python(fields: tuple[object, ...]) -> str:
    if len(fields) in _BY_FIELDS:
        return _BY_FIELDS[len(fields)]
    code = fields[_BYTECODE] if len(fields) > _BYTECODE else None
    if not isinstance(code, bytes):
        return _LATER
    # what may stand before RESUME has an argument, RESUME itself has none there
    return next((_BY_START[op] for op, argument in zip(code[::2], code[1::2], strict=False) if op in _BY_START and not argument), _LATER)

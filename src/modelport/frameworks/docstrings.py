"""What a docstring says of a function and of each of its parameters, in the forms of Google, numpy and Sphinx."""

from __future__ import annotations

import inspect
import re

_SECTIONS = frozenset(
    {
        "args", "arguments", "parameters", "params", "other parameters", "attributes", "keyword args", "keyword arguments",
        "returns", "return", "yields", "raises", "examples", "example", "notes", "note", "see also", "references", "warnings", "warns",
    }
)  # fmt: skip
_NAMING = frozenset({"args", "arguments", "parameters", "params", "other parameters", "attributes", "keyword args", "keyword arguments"})
_SPHINX = re.compile(r":(?:param|parameter|arg|argument|ivar|var|attribute)\s+(?:[^:]*\s)?\*{0,2}(\w+)\s*:\s*(.*)")
_FIELD = re.compile(r":\w[^:]*:")
_GOOGLE = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")
_NUMPY = re.compile(r"\*{0,2}(\w+(?:\s*,\s*\w+)*)\s*(?::.*)?$")


def described(docstring: str | None) -> tuple[str, dict[str, str]]:
    """What is said of the whole, before the first section; and the description of each parameter or attribute, in one line."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    start = next((number for number in range(len(lines)) if _section(lines, number) or _FIELD.match(lines[number])), len(lines))
    about: dict[str, list[str]] = {}
    number = start
    while number < len(lines):
        section = _section(lines, number)
        if section:
            underlined = number + 1 < len(lines) and _is_rule(lines[number + 1])
            body_at = number + 2 if underlined else number + 1
            end = next((at for at in range(body_at, len(lines)) if _section(lines, at) or _FIELD.match(lines[at])), len(lines))
            if section in _NAMING:
                _read(lines[body_at:end], _NUMPY if underlined else _GOOGLE, about)
            number = end
        else:
            end = next((at for at in range(number + 1, len(lines)) if _FIELD.match(lines[at]) or _section(lines, at)), len(lines))
            match = _SPHINX.match(lines[number])
            if match:
                about[match[1]] = [match[2], *lines[number + 1 : end]]
            number = end
    return "\n".join(lines[:start]).strip(), {name: " ".join(" ".join(words).split()) for name, words in about.items()}


def _section(lines: list[str], number: int) -> str:
    """The name of the section whose head stands in this line, else ''."""
    line = lines[number]
    name = line.strip().removesuffix(":").lower()
    if name not in _SECTIONS or line[:1].isspace():
        return ""
    underlined = number + 1 < len(lines) and _is_rule(lines[number + 1])
    return name if underlined or line.rstrip().endswith(":") else ""


def _is_rule(line: str) -> bool:
    return bool(re.fullmatch(r"-{3,}\s*", line))


def _read(lines: list[str], form: re.Pattern[str], about: dict[str, list[str]]) -> None:
    """The entries of a section: each begins with a name at the least depth, and what is deeper belongs to it."""
    depth = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    names: list[str] = []
    for line in lines:
        match = form.match(line[depth:]) if line.strip() and not line[depth : depth + 1].isspace() else None
        if match:
            names = [name.strip() for name in match[1].split(",")]
            for name in names:
                about[name] = [match[2]] if form is _GOOGLE else []
        elif line.strip():
            for name in names:
                about[name].append(line.strip())
